"""The log in memory, with fault switches: what tests use to be wronged on purpose.

Without a switch it keeps the port's contract. A switch makes one named thing go wrong, once and at
a known call, so that a test of a crash or a lost answer is the same on every run.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from domain.ports import (
    AppendUnknown,
    Fetched,
    LogError,
    LogRecord,
    LogTruncated,
    SettingsRefused,
)


@dataclass(slots=True)
class _Partition:
    """Records by offset from ``start`` on; ``None`` is an offset without a record."""

    records: list[LogRecord | None] = field(default_factory=list)
    start: int = 0
    time_us: int = 0
    hidden_reads: int = 0

    @property
    def end(self) -> int:
        return self.start + len(self.records)


@dataclass(slots=True)
class _Topic:
    id: bytes
    partitions: tuple[_Partition, ...]
    keep_forever: bool


class MemoryStore:
    """What several ``MemoryLog`` objects, also of several threads, have in common."""

    def __init__(self) -> None:
        """Begin with no topic."""
        self.topics: dict[str, _Topic] = {}
        self.incarnations = 0
        self.appended = threading.Condition(threading.RLock())


class MemoryLog:
    """The ``Log`` port in memory. Durable as long as its ``MemoryStore``."""

    def __init__(self, clock_us: Callable[[], int], store: MemoryStore | None = None) -> None:
        """Open ``store``, or a new one; ``clock_us`` gives the append times."""
        self._clock_us = clock_us
        self.store = MemoryStore() if store is None else store
        self._lost_answer: bool | None = None
        self._refused = False
        self._duplicated = False

    # Fault switches

    def fail_next_append(self, *, persist: bool) -> None:
        """Let the next append end in ``AppendUnknown``, its first record written or none."""
        self._lost_answer = persist

    def refuse_next_append(self) -> None:
        """Let the next append end in ``LogError``, with nothing written."""
        self._refused = True

    def duplicate_next_append(self) -> None:
        """Write the next append twice, as a retry behind the caller's back would."""
        self._duplicated = True

    def hide_tail(self, topic: str, partition: int, *, reads: int) -> None:
        """Let the next ``reads`` reads of the partition find nothing, as if they were late."""
        self._partition(topic, partition).hidden_reads = reads

    def leave_gap(self, topic: str, partition: int, *, offsets: int) -> None:
        """Use up offsets without a record, as the end of a foreign transaction does."""
        with self.store.appended:
            self._partition(topic, partition).records.extend([None] * offsets)
            self.store.appended.notify_all()

    def truncate(self, topic: str, partition: int, *, end: int) -> None:
        """Lose every record from ``end`` on, as an unclean leader election does."""
        with self.store.appended:
            found = self._partition(topic, partition)
            del found.records[max(0, end - found.start) :]

    def delete_before(self, topic: str, partition: int, start: int) -> None:
        """Delete every record before ``start``, as retention does."""
        with self.store.appended:
            found = self._partition(topic, partition)
            del found.records[: max(0, start - found.start)]
            found.start = max(start, found.start)

    # Topics

    def create_topic(self, topic: str, partitions: int, *, keep_forever: bool) -> None:
        """Create the topic unless it is there."""
        if partitions < 1:
            raise SettingsRefused(f"{topic}: partitions is {partitions}, must be at least 1.")
        with self.store.appended:
            if topic in self.store.topics:
                return
            self.store.incarnations += 1
            name = f"memory topic {self.store.incarnations} {topic}".encode()
            self.store.topics[topic] = _Topic(
                id=hashlib.sha256(name).digest()[:16],
                partitions=tuple(_Partition() for _ in range(partitions)),
                keep_forever=keep_forever,
            )

    def delete_topic(self, topic: str) -> None:
        """Delete the topic; created again, it has another id."""
        with self.store.appended:
            del self.store.topics[topic]

    def topic_id(self, topic: str) -> bytes:
        """Sixteen bytes that differ for every creation within the store."""
        return self._topic(topic).id

    def partitions(self, topic: str) -> int:
        """How many partitions the topic has. Raises ``SettingsRefused`` if there is no topic."""
        return len(self._topic(topic).partitions)

    def keeps_forever(self, topic: str) -> bool:
        """Whether the topic was created to be kept for ever."""
        return self._topic(topic).keep_forever

    def _topic(self, name: str) -> _Topic:
        found = self.store.topics.get(name)
        if found is None:
            raise SettingsRefused(f"Topic {name} does not exist in memory.")
        return found

    def _partition(self, topic: str, partition: int) -> _Partition:
        partitions = self._topic(topic).partitions
        if not 0 <= partition < len(partitions):
            raise SettingsRefused(f"Topic {topic} has no partition {partition}.")
        return partitions[partition]

    # Appends

    def append(self, topic: str, partition: int, value: bytes) -> int:
        """Append one record; see the port."""
        return self.append_many(topic, partition, [value])[0]

    def append_many(self, topic: str, partition: int, values: Sequence[bytes]) -> Sequence[int]:
        """Append records in order; see the port."""
        found = self._partition(topic, partition)
        refused, self._refused = self._refused, False
        lost, self._lost_answer = self._lost_answer, None
        twice, self._duplicated = self._duplicated, False
        if refused:
            raise LogError("The append was refused by the test.")
        if lost is not None:
            if lost:
                self._write(found, values[:1])
            raise AppendUnknown("The answer to the append was lost by the test.")
        first = self._write(found, values)
        if twice:
            self._write(found, values)
        return range(first, first + len(values))

    def _write(self, partition: _Partition, values: Sequence[bytes]) -> int:
        with self.store.appended:
            first = partition.end
            partition.time_us = max(self._clock_us(), partition.time_us)
            partition.records.extend(
                LogRecord(first + i, partition.time_us, bytes(value))
                for i, value in enumerate(values)
            )
            self.store.appended.notify_all()
            return first

    # Reads

    def read(
        self, topic: str, partition: int, offset: int, *, max_bytes: int, wait_s: float = 0.0
    ) -> Fetched:
        """Records from ``offset`` on; see the port."""
        found = self._partition(topic, partition)
        with self.store.appended:
            if found.hidden_reads:
                found.hidden_reads -= 1
                return Fetched((), offset)
            if wait_s > 0 and offset == found.end:
                self.store.appended.wait_for(lambda: found.end > offset, timeout=wait_s)
            if offset > found.end:
                raise LogTruncated(
                    f"{topic}/{partition} ends at {found.end}, before the asked offset {offset}."
                )
            if offset < found.start:
                raise LogError(
                    f"{topic}/{partition} starts at {found.start}, after the asked offset {offset}."
                )
            return self._scan(found, offset, max_bytes)

    def _scan(self, partition: _Partition, offset: int, max_bytes: int) -> Fetched:
        records: list[LogRecord] = []
        size = 0
        position = offset
        stored, start = partition.records, partition.start
        while position < partition.end:
            record = stored[position - start]
            if record is not None:
                size += len(record.value)
                if size > max_bytes and records:
                    break
                records.append(record)
            position += 1
        return Fetched(records, position)

    def end(self, topic: str, partition: int) -> int:
        """The offset that the next record would get."""
        return self._partition(topic, partition).end

    def start(self, topic: str, partition: int) -> int:
        """The first offset still kept."""
        return self._partition(topic, partition).start

    def close(self) -> None:
        """Release nothing: the store may have other users."""
