"""What a recorder answers reads from: a SQLite index over one ledger partition.

The log is the truth; the index can be dropped at any time and is built again by reading the log.
So a write does not wait for the disk (only SQLite's checkpoints do): one transaction for each
commit or batch of commits read, which holds where it stands on the log. A crash leaves it behind.
One process has a file open at a time. All methods may be called from any thread.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Final

from adapters.eventsourcing_opaque import OPAQUE, topic_of
from domain.commit import RecordedEvent

MEMORY: Final = ":memory:"
_FORMAT: Final = 1
_HASH_BYTES: Final = 32
# 32 MiB of pages between syncs.
_CHECKPOINT_PAGES: Final = 8_000

_SCHEMA: Final = """
CREATE TABLE head (
    one INTEGER PRIMARY KEY CHECK (one = 0),
    height INTEGER NOT NULL,
    hash BLOB NOT NULL,
    record_offset INTEGER NOT NULL,
    next_offset INTEGER NOT NULL,
    time_us INTEGER NOT NULL,
    size INTEGER NOT NULL,
    edge BLOB NOT NULL,
    writer BLOB NOT NULL
);
CREATE TABLE identity (one INTEGER PRIMARY KEY CHECK (one = 0), bytes BLOB NOT NULL);
CREATE TABLE noise (hash BLOB PRIMARY KEY, height INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE ledger_commit (
    height INTEGER PRIMARY KEY,
    record_offset INTEGER NOT NULL,
    hash BLOB NOT NULL,
    time_us INTEGER NOT NULL,
    first INTEGER NOT NULL,
    count INTEGER NOT NULL
);
CREATE INDEX commit_by_first ON ledger_commit (first);
CREATE TABLE event (
    id INTEGER PRIMARY KEY,
    originator BLOB NOT NULL,
    version INTEGER NOT NULL,
    topic INTEGER NOT NULL,
    payload BLOB
);
CREATE UNIQUE INDEX event_by_version ON event (originator, version);
CREATE TABLE topic (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE tracking (application TEXT PRIMARY KEY, id INTEGER NOT NULL) WITHOUT ROWID;
"""
_TABLES: Final = (
    "head",
    "identity",
    "noise",
    "ledger_commit",
    "event",
    "topic",
    "tracking",
)

_COMMIT: Final = "SELECT height, record_offset, hash, time_us, first, count FROM ledger_commit"
_EVENT: Final = "SELECT id, originator, version, topic, payload FROM event"
_INSERT_COMMIT: Final = "INSERT INTO ledger_commit VALUES (?, ?, ?, ?, ?, ?)"
_INSERT_EVENT: Final = "INSERT INTO event VALUES (?, ?, ?, ?, ?)"
_REPLACE_HEAD: Final = "INSERT OR REPLACE INTO head VALUES (0, ?, ?, ?, ?, ?, ?, ?, ?)"
_REPLACE_TRACKING: Final = "INSERT OR REPLACE INTO tracking VALUES (?, ?)"


class Depth(Enum):
    """How much of each event the index holds; the rest is read from the log by offset."""

    PAYLOADS = "payloads"  # whole events: the choice for aggregates and read models
    KEYS = "keys"  # id, aggregate and version: events of an aggregate are found, not held
    COMMITS = "commits"  # nothing: events are found by number only, versions are not checked


class IndexFailed(Exception):
    """SQLite could not read or write the index; the log is untouched."""


class VersionTwice(Exception):
    """An aggregate's version stands twice on the ledger: its writer broke a law."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Where the index stands: the last counting commit, the next offset to read, the tree."""

    height: int
    hash: bytes
    offset: int
    next_offset: int
    time_us: int
    size: int
    edge: tuple[bytes, ...]
    writer: bytes


@dataclass(frozen=True, slots=True)
class IndexedCommit:
    """A counting commit: ``first`` is its first notification id, also if it has no event."""

    height: int
    offset: int
    hash: bytes
    time_us: int
    first: int
    count: int


@dataclass(frozen=True, slots=True)
class IndexedEvent:
    """An event by its notification id; ``payload`` is None where the depth holds none.

    ``topic`` is the schema number, or a negative number that ``LedgerIndex.topic_name`` knows.
    """

    id: int
    originator: bytes
    version: int
    topic: int
    payload: bytes | None


@dataclass(frozen=True, slots=True)
class Understood:
    """A counting commit with what the index takes from its body."""

    commit: IndexedCommit
    events: Sequence[RecordedEvent]
    tracking: Sequence[tuple[str, int]]


class LedgerIndex:
    """The index in one SQLite file, or in memory."""

    def __init__(self, path: str | Path, *, identity: bytes, depth: Depth) -> None:
        """Open the file; one that is of another ledger, depth or format, or torn, begins anew."""
        self.depth = depth
        self._path = str(path)
        self._identity = identity + depth.value.encode()
        self._lock = threading.RLock()
        self._topics: dict[str, int] = {}
        self._names: dict[int, str] = {}
        self._noise: dict[bytes, int] = {}
        self._db = self._open()

    def _open(self) -> sqlite3.Connection:
        try:
            return self._set_up()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError) or self._path == MEMORY:
                raise IndexFailed(f"the index {self._path} cannot be opened: {error}") from error
        # Not a database, or a torn one: what a power cut may leave of an unsynced file.
        for each in ("", "-wal", "-shm", "-journal"):
            Path(self._path + each).unlink(missing_ok=True)
        try:
            return self._set_up()
        except sqlite3.Error as error:
            raise IndexFailed(f"the index {self._path} cannot be made: {error}") from error

    def _set_up(self) -> sqlite3.Connection:
        db = sqlite3.connect(
            self._path,
            isolation_level=None,
            check_same_thread=False,
            timeout=1.0,
            cached_statements=64,
        )
        try:
            # Exclusive first: then the write-ahead log needs no shared memory and no lock calls.
            db.execute("PRAGMA locking_mode=EXCLUSIVE")
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=NORMAL")
            db.execute(f"PRAGMA wal_autocheckpoint={_CHECKPOINT_PAGES}")
            db.execute("BEGIN IMMEDIATE")
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version == _FORMAT:
                kept = db.execute("SELECT bytes FROM identity").fetchone() == (self._identity,)
            else:
                kept = False
            if not kept:
                self._create(db)
            db.execute("COMMIT")
            self._load(db)
        except sqlite3.Error:
            db.close()
            raise
        return db

    def _create(self, db: sqlite3.Connection) -> None:
        for table in _TABLES:
            db.execute(f"DROP TABLE IF EXISTS {table}")
        for statement in _SCHEMA.split(";"):
            db.execute(statement)
        db.execute("INSERT INTO identity VALUES (0, ?)", (self._identity,))
        db.execute(f"PRAGMA user_version={_FORMAT}")

    def _load(self, db: sqlite3.Connection) -> None:
        self._names = dict(db.execute("SELECT number, name FROM topic"))
        self._topics = {name: number for number, name in self._names.items()}
        self._noise = dict(db.execute("SELECT hash, height FROM noise"))

    @contextmanager
    def _using(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._db
            except sqlite3.Error as error:
                raise IndexFailed(f"the index {self._path} failed: {error}") from error

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def clear(self) -> None:
        """Forget everything; the next catch-up builds it again from the log."""
        with self._transaction() as db:
            self._create(db)
        with self._using() as db:
            self._load(db)

    # Writing

    def apply(self, commits: Sequence[Understood], head: Head, noise: dict[bytes, int]) -> None:
        """Take over commits in order and where the log was read to, all in one transaction."""
        with self._transaction() as db:
            for each in commits:
                commit = each.commit
                db.execute(
                    _INSERT_COMMIT,
                    (
                        commit.height,
                        commit.offset,
                        commit.hash,
                        commit.time_us,
                        commit.first,
                        commit.count,
                    ),
                )
                if each.tracking:
                    db.executemany(_REPLACE_TRACKING, each.tracking)
                if self.depth is not Depth.COMMITS and each.events:
                    self._insert_events(db, commit.first, each.events)
            if noise != self._noise:
                db.execute("DELETE FROM noise")
                db.executemany("INSERT INTO noise VALUES (?, ?)", noise.items())
            db.execute(
                _REPLACE_HEAD,
                (
                    head.height,
                    head.hash,
                    head.offset,
                    head.next_offset,
                    head.time_us,
                    head.size,
                    b"".join(head.edge),
                    head.writer,
                ),
            )
            self._noise = noise

    def _insert_events(
        self, db: sqlite3.Connection, first: int, events: Sequence[RecordedEvent]
    ) -> None:
        whole = self.depth is Depth.PAYLOADS
        rows = [
            (
                first + i,
                event.aggregate,
                event.version,
                event.schema if event.schema != OPAQUE else self._number(db, event.payload),
                event.payload if whole else None,
            )
            for i, event in enumerate(events)
        ]
        try:
            if len(rows) == 1:
                db.execute(_INSERT_EVENT, rows[0])
            else:
                db.executemany(_INSERT_EVENT, rows)
        except sqlite3.IntegrityError as error:
            raise VersionTwice(f"events {first} to {first + len(rows) - 1}: {error}") from error

    def _number(self, db: sqlite3.Connection, payload: bytes) -> int:
        name = topic_of(payload)
        number = self._topics.get(name)
        if number is None:
            number = -1 - len(self._topics)
            db.execute("INSERT INTO topic VALUES (?, ?)", (number, name))
            self._topics[name] = number
            self._names[number] = name
        return number

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._using() as db:
            db.execute("BEGIN")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                self._load(db)
                raise

    # Reading

    def head(self) -> Head | None:
        """Where the index stands, or None where it is empty."""
        with self._using() as db:
            row = db.execute("SELECT * FROM head").fetchone()
        return None if row is None else _head_of(row)

    def noise(self) -> dict[bytes, int]:
        """Hashes of noise near the head, with their heights."""
        with self._lock:
            return dict(self._noise)

    def commit_at(self, height: int) -> IndexedCommit | None:
        """The counting commit of a height."""
        return self._one_commit(f"{_COMMIT} WHERE height = ?", height)

    def commit_of(self, notification_id: int) -> IndexedCommit | None:
        """The commit that holds an event, by the event's notification id."""
        found = self._one_commit(
            f"{_COMMIT} WHERE first <= ? AND count > 0 ORDER BY first DESC LIMIT 1",
            notification_id,
        )
        if found is None or notification_id >= found.first + found.count:
            return None
        return found

    def _one_commit(self, statement: str, parameter: int) -> IndexedCommit | None:
        with self._using() as db:
            row = db.execute(statement, (parameter,)).fetchone()
        return None if row is None else IndexedCommit(*row)

    def tracking(self, application: str) -> int | None:
        """The last notification id of another application that this ledger has consumed."""
        with self._using() as db:
            row = db.execute(
                "SELECT id FROM tracking WHERE application = ?", (application,)
            ).fetchone()
        return None if row is None else row[0]

    def taken(self, keys: Iterable[tuple[bytes, int]]) -> tuple[bytes, int] | None:
        """The first of the (aggregate, version) keys that is on the ledger already, if any.

        Each aggregate's last version is looked up once, since new versions stand above it.
        """
        last: dict[bytes, int] = {}
        with self._using() as db:
            for originator, version in keys:
                newest = last.get(originator)
                if newest is None:
                    (found,) = db.execute(
                        "SELECT max(version) FROM event WHERE originator = ?", (originator,)
                    ).fetchone()
                    newest = last[originator] = -1 if found is None else found
                if (
                    version <= newest
                    and db.execute(
                        "SELECT 1 FROM event WHERE originator = ? AND version = ?",
                        (originator, version),
                    ).fetchone()
                ):
                    return originator, version
        return None

    def events_of(
        self,
        originator: bytes,
        *,
        gt: int | None,
        lte: int | None,
        desc: bool,
        limit: int | None,
    ) -> list[IndexedEvent]:
        """Events of one aggregate by version."""
        statement = f"{_EVENT} WHERE originator = ?"
        parameters: list[bytes | int] = [originator]
        if gt is not None:
            statement += " AND version > ?"
            parameters.append(gt)
        if lte is not None:
            statement += " AND version <= ?"
            parameters.append(lte)
        statement += " ORDER BY version DESC" if desc else " ORDER BY version"
        if limit is not None:
            statement += " LIMIT ?"
            parameters.append(limit)
        return self._events(statement, parameters)

    def events_from(
        self, first: int, last: int | None, limit: int, topics: Sequence[int] | None
    ) -> list[IndexedEvent]:
        """Events by notification id in [first, last], of some topics or (None) of all."""
        statement = f"{_EVENT} WHERE id >= ?"
        parameters: list[bytes | int] = [first]
        if last is not None:
            statement += " AND id <= ?"
            parameters.append(last)
        if topics is not None:
            statement += f" AND topic IN ({','.join('?' * len(topics))})"
            parameters.extend(topics)
        parameters.append(limit)
        return self._events(f"{statement} ORDER BY id LIMIT ?", parameters)

    def _events(self, statement: str, parameters: Sequence[bytes | int]) -> list[IndexedEvent]:
        with self._using() as db:
            return [IndexedEvent(*row) for row in db.execute(statement, parameters)]

    def topic_number(self, name: str) -> int | None:
        """The (negative) number of a foreign topic, or None where no event has it."""
        return self._topics.get(name)

    def topic_name(self, number: int) -> str | None:
        """The foreign topic of a (negative) number."""
        return self._names.get(number)


def indexed_head(path: Path, identity: bytes) -> Head | None:
    """Where an index file says that its ledger stands, for whoever only looks.

    None where it is empty, of another ledger, or in the hands of its worker.
    """
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=rw", uri=True, timeout=0)) as db:
            (named,) = db.execute("SELECT bytes FROM identity").fetchone()
            row = db.execute("SELECT * FROM head").fetchone()
    except sqlite3.Error:
        return None
    return None if row is None or not named.startswith(identity) else _head_of(row)


def _head_of(row: tuple[Any, ...]) -> Head:
    _, height, digest, offset, next_offset, time_us, size, edge, writer = row
    return Head(
        height=height,
        hash=digest,
        offset=offset,
        next_offset=next_offset,
        time_us=time_us,
        size=size,
        edge=tuple(edge[i : i + _HASH_BYTES] for i in range(0, len(edge), _HASH_BYTES)),
        writer=writer,
    )
