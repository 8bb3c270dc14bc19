"""The log in one SQLite file: the embedded default, with no server to install.

Every topic and partition lives in one table whose integer key is (stream, offset) packed into 64
bits, so a partition is one contiguous range of the B-tree: a read is one seek and a scan, an append
one insert at the range's end. The write-ahead log lets readers of other processes go on while one
appends; appends of several processes take turns on SQLite's write lock.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from domain.ports import (
    AppendUnknown,
    Fetched,
    LogError,
    LogRecord,
    LogTruncated,
    SettingsRefused,
)

# Of the 63 bits of a key 40 are the offset: a million million records per partition.
_OFFSET_BITS: Final = 40
_MAX_PARTITIONS: Final = 1 << 12
_FORMAT: Final = 1

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS topic (
    number INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    id BLOB NOT NULL,
    partitions INTEGER NOT NULL,
    keep_forever INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS record (
    key INTEGER PRIMARY KEY,
    time_us INTEGER NOT NULL,
    value BLOB NOT NULL
);
"""
_INSERT: Final = "INSERT INTO record (key, time_us, value) VALUES (?, ?, ?)"
_LAST: Final = "SELECT key, time_us FROM record WHERE key BETWEEN ? AND ? ORDER BY key DESC LIMIT 1"
_FIRST: Final = "SELECT key FROM record WHERE key BETWEEN ? AND ? ORDER BY key LIMIT 1"
_DELETE: Final = "DELETE FROM record WHERE key >= ? AND key < ?"
_READ: Final = "SELECT key, time_us, value FROM record WHERE key BETWEEN ? AND ? ORDER BY key"

# So many records are deleted in one transaction.
_DELETE_RECORDS: Final = 5_000

# A waiting reader looks this often at first, and ever less often up to the second figure.
_FIRST_NAP_S: Final = 0.000_5
_LONGEST_NAP_S: Final = 0.01


@dataclass(slots=True)
class _Stream:
    """One partition: its range of keys, and its end as this connection last knew it."""

    first_key: int
    last_key: int
    end: int = 0
    time_us: int = 0
    seen_version: int = -1


@dataclass(frozen=True, slots=True)
class _Topic:
    id: bytes
    streams: tuple[_Stream, ...]
    keep_forever: bool


class SqliteLog:
    """The ``Log`` port on a SQLite file.

    Durable: a commit is synced to the disk before ``append`` returns; with ``durable=False`` it
    survives the process but not the machine, which is enough for tests and demos. Several objects,
    also in other processes, may have the file open; one object belongs to one thread.
    ``clock_us`` gives the append times; a clock that steps back cannot make them fall.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        clock_us: Callable[[], int],
        durable: bool = True,
        busy_timeout_s: float = 10.0,
    ) -> None:
        """Open the file, or create it. Raises ``LogError`` if it is something else."""
        self._clock_us = clock_us
        self._path = str(path)
        self._grouped = False
        self._group_failed = False
        self._version = 0
        self._topics: dict[str, _Topic] = {}
        try:
            self._db = sqlite3.connect(
                self._path,
                timeout=busy_timeout_s,
                isolation_level=None,
                # The object may be made in one thread and used in another; never in two at once.
                check_same_thread=False,
            )
        except sqlite3.Error as error:
            raise LogError(f"{self._path} cannot be opened: {error}") from error
        try:
            self._set_up(durable)
        except sqlite3.Error as error:
            self._db.close()
            raise LogError(f"{self._path} cannot be used as a log: {error}") from error
        except LogError:
            self._db.close()
            raise

    def _set_up(self, durable: bool) -> None:
        execute = self._db.execute
        (mode,) = execute("PRAGMA journal_mode=WAL").fetchone()
        if mode != "wal":
            raise LogError(f"{self._path} has no write-ahead log; its file system lacks something.")
        execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
        (found,) = execute("PRAGMA user_version").fetchone()
        if found not in (0, _FORMAT):
            raise LogError(f"{self._path} has format {found} of the log file, known is {_FORMAT}.")
        if found == 0:
            execute("BEGIN IMMEDIATE")
            for statement in _SCHEMA.split(";"):
                execute(statement)
            execute(f"PRAGMA user_version={_FORMAT}")
            execute("COMMIT")

    # Topics

    def topic_id(self, topic: str) -> bytes:
        """The sixteen random bytes stored when the topic was created."""
        return self._topic(topic).id

    def partitions(self, topic: str) -> int:
        """How many partitions the topic has. Raises ``SettingsRefused`` if there is no topic."""
        return len(self._topic(topic).streams)

    def keeps_forever(self, topic: str) -> bool:
        """Whether the topic was created to be kept for ever."""
        return self._topic(topic).keep_forever

    def create_topic(self, topic: str, partitions: int, *, keep_forever: bool) -> None:
        """Create the topic unless it is there, however it is set up; ``LocalTopics`` judges."""
        if not 1 <= partitions <= _MAX_PARTITIONS:
            raise SettingsRefused(
                f"{topic}: partitions is {partitions}, must be 1..{_MAX_PARTITIONS}."
            )
        with self._write_transaction():
            self._db.execute(
                "INSERT OR IGNORE INTO topic (name, id, partitions, keep_forever) VALUES (?,?,?,?)",
                (topic, os.urandom(16), partitions, int(keep_forever)),
            )

    def _topic(self, name: str) -> _Topic:
        known = self._topics.get(name)
        if known is not None:
            return known
        try:
            row = self._db.execute(
                "SELECT number, id, partitions, keep_forever FROM topic WHERE name = ?", (name,)
            ).fetchone()
        except sqlite3.Error as error:
            raise LogError(f"{self._path} cannot be read: {error}") from error
        if row is None:
            raise SettingsRefused(f"Topic {name} does not exist in {self._path}.")
        number, topic_id, partitions, keep_forever = row
        bases = (
            (number * _MAX_PARTITIONS + partition) << _OFFSET_BITS
            for partition in range(partitions)
        )
        streams = tuple(
            _Stream(first_key=base, last_key=base + (1 << _OFFSET_BITS) - 1) for base in bases
        )
        topic = _Topic(id=topic_id, streams=streams, keep_forever=bool(keep_forever))
        self._topics[name] = topic
        return topic

    def _stream(self, topic: str, partition: int) -> _Stream:
        streams = self._topic(topic).streams
        if not 0 <= partition < len(streams):
            raise SettingsRefused(f"Topic {topic} has no partition {partition}.")
        return streams[partition]

    # Appends

    def append(self, topic: str, partition: int, value: bytes) -> int:
        """Append one record; see the port."""
        stream = self._stream(topic, partition)
        with self._write_transaction():
            return self._insert(stream, value)

    def append_many(self, topic: str, partition: int, values: Sequence[bytes]) -> Sequence[int]:
        """Append records in one transaction, so here all of them are there or none."""
        stream = self._stream(topic, partition)
        if not values:
            return range(0)
        with self._write_transaction():
            first = self._insert(stream, values[0])
            first_key, time_us = stream.first_key + first, stream.time_us
            self._db.executemany(
                _INSERT,
                ((first_key + i, time_us, value) for i, value in enumerate(values) if i),
            )
            stream.end = first + len(values)
        return range(first, first + len(values))

    @contextmanager
    def group(self) -> Iterator[None]:
        """Put the appends of the block into one transaction, whatever their partitions.

        Reads on this object see them at once, other objects and the disk when the block ends; only
        then are they durable. If the block or its commit fails none of them is there, except after
        ``AppendUnknown``. Inside a group nobody else can append to the file.
        """
        if self._grouped:
            raise LogError("A group of appends is open already.")
        with self._write_transaction():
            self._grouped = True
            self._group_failed = False
            try:
                yield
            finally:
                self._grouped = False
            if self._group_failed:
                raise LogError("An append of the group failed, so none of its appends was kept.")

    @contextmanager
    def _write_transaction(self) -> Iterator[None]:
        if self._grouped:
            try:
                yield
            except sqlite3.Error as error:
                self._group_failed = True
                raise LogError(f"{self._path} cannot be written: {error}") from error
            return
        db = self._db
        try:
            db.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            raise LogError(f"{self._path} cannot be written: {error}") from error
        committing = False
        try:
            self._look()
            yield
            committing = True
            db.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            if committing and error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise AppendUnknown(f"The commit to {self._path} failed: {error}") from error
            raise LogError(f"{self._path} cannot be written: {error}") from error
        except BaseException:
            self._roll_back()
            raise

    def _roll_back(self) -> None:
        """Undo, and forget every cached end, since they may count what is undone."""
        for topic in self._topics.values():
            for stream in topic.streams:
                stream.seen_version = -1
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

    def _insert(self, stream: _Stream, value: bytes) -> int:
        offset = self._end(stream)
        time_us = max(self._clock_us(), stream.time_us)
        self._db.execute(_INSERT, (stream.first_key + offset, time_us, value))
        stream.end = offset + 1
        stream.time_us = time_us
        return offset

    # Reads

    def read(
        self, topic: str, partition: int, offset: int, *, max_bytes: int, wait_s: float = 0.0
    ) -> Fetched:
        """Records from ``offset`` on; see the port."""
        stream = self._stream(topic, partition)
        try:
            end = self._fresh_end(stream)
            if offset == end and wait_s > 0:
                end = self._wait(stream, offset, wait_s)
            if offset >= end:
                if offset > end:
                    raise LogTruncated(
                        f"{topic}/{partition} ends at {end}, before the asked offset {offset}."
                    )
                return Fetched((), offset)
            if offset < 0:
                raise LogError(f"{topic}/{partition} starts at 0, after the asked offset {offset}.")
            fetched = self._scan(stream, offset, max_bytes)
            first = fetched.records[0].offset
            if first > offset:
                raise LogError(
                    f"{topic}/{partition} starts at {first}, after the asked offset {offset}."
                )
            return fetched
        except sqlite3.Error as error:
            raise LogError(f"{self._path} cannot be read: {error}") from error

    def _scan(self, stream: _Stream, offset: int, max_bytes: int) -> Fetched:
        base = stream.first_key
        records: list[LogRecord] = []
        size = 0
        cursor = self._db.execute(_READ, (base + offset, base + stream.end - 1))
        try:
            for key, time_us, value in cursor:
                size += len(value)
                if size > max_bytes and records:
                    break
                records.append(LogRecord(key - base, time_us, value))
        finally:
            # An unfinished statement would hold its read transaction open.
            cursor.close()
        return Fetched(records, records[-1].offset + 1)

    def _wait(self, stream: _Stream, offset: int, wait_s: float) -> int:
        deadline = time.monotonic() + wait_s
        nap_s = _FIRST_NAP_S
        while (end := self._fresh_end(stream)) <= offset:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                break
            time.sleep(min(nap_s, left_s))
            nap_s = min(nap_s * 1.5, _LONGEST_NAP_S)
        return end

    def end(self, topic: str, partition: int) -> int:
        """The offset that the next record would get."""
        stream = self._stream(topic, partition)
        try:
            return self._fresh_end(stream)
        except sqlite3.Error as error:
            raise LogError(f"{self._path} cannot be read: {error}") from error

    def start(self, topic: str, partition: int) -> int:
        """The first offset still kept: 0 unless ``delete_before`` was called."""
        stream = self._stream(topic, partition)
        try:
            row = self._db.execute(_FIRST, (stream.first_key, stream.last_key)).fetchone()
        except sqlite3.Error as error:
            raise LogError(f"{self._path} cannot be read: {error}") from error
        return 0 if row is None else int(row[0]) - stream.first_key

    def delete_before(self, topic: str, partition: int, start: int) -> None:
        """Delete the records before an offset, but never the last one, which keeps the end.

        The oldest go first, in steps that each stand for themselves, so that whoever appends waits
        for one step only. The file does not shrink: later records take the room.
        """
        stream = self._stream(topic, partition)
        first = self.start(topic, partition)
        for at in (*range(first + _DELETE_RECORDS, start, _DELETE_RECORDS), start):
            with self._write_transaction():
                before = stream.first_key + min(at, self._end(stream) - 1)
                self._db.execute(_DELETE, (stream.first_key, before))

    def _fresh_end(self, stream: _Stream) -> int:
        if not self._grouped:
            self._look()
        return self._end(stream)

    def _look(self) -> None:
        """Note whether another connection has committed since the last look.

        SQLite's data version moves with every commit of another connection and never with one of
        this connection, whose ends are kept up to date as it appends.
        """
        (self._version,) = self._db.execute("PRAGMA data_version").fetchone()

    def _end(self, stream: _Stream) -> int:
        if stream.seen_version != self._version:
            last = self._db.execute(_LAST, (stream.first_key, stream.last_key)).fetchone()
            if last is None:
                stream.end, stream.time_us = 0, 0
            else:
                stream.end, stream.time_us = last[0] - stream.first_key + 1, last[1]
            stream.seen_version = self._version
        return stream.end

    def close(self) -> None:
        """Close the file."""
        self._db.close()
