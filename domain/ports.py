"""The ports: what the domain asks of the outside, as contracts in prose.

An adapter is one technology behind one port; one contract suite in ``tests/ports`` runs on every
adapter of a port.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol


class LogError(Exception):
    """An operating error of a log: the caller may retry, nothing is known to be written."""


class AppendUnknown(LogError):
    """An append whose answer was lost: the record may or may not be on the log.

    Raised instead of a guess. The caller reads the tail and sees; it never sends again blindly.
    """


class LogTruncated(LogError):
    """A read beyond the end: what was read from there before is no longer on the log.

    An offset comes from an earlier read or append, so a log that ends below it has lost records
    that somebody saw. A reader stops with this name; reading on would be reading another history.
    """


class LogDamaged(LogError):
    """What a store keeps is not what its own checksums say: the text names the part.

    A reader stops with this name. It says nothing about who changed it; an auditor reports it.
    """


class SettingsRefused(LogError):
    """A topic is missing or is set up weaker than the ledger needs; the text names the setting."""


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One record as read: its offset, its append time (µs UTC, never falling) and its bytes."""

    offset: int
    time_us: int
    value: bytes
    _digest: bytes = field(default=b"", init=False, repr=False, compare=False)

    def digest(self) -> bytes:
        """SHA-256 of the value, computed once: run, event and bulk all cite it."""
        if not self._digest:
            object.__setattr__(self, "_digest", hashlib.sha256(self.value).digest())
        return self._digest


@dataclass(frozen=True, slots=True)
class Fetched:
    """Records in offset order from the asked offset on, and the offset to ask for next.

    ``next_offset`` can be beyond the last record's offset + 1: offsets without a record are legal
    (control records of foreign transactions). It equals the asked offset when nothing was there.
    """

    records: Sequence[LogRecord]
    next_offset: int


class Log(Protocol):
    """Partitions of opaque records, appended once and kept in order.

    *Durable*: ``append`` returns only when the record is durable (SQLite: committed; Kafka:
    acks=all). *Ordered*: offsets rise by append order; times never fall within a partition.
    *Retries*: an adapter retries what is safe to retry, with a bound, and never duplicates
    silently: an answer that was lost is ``AppendUnknown``. *Trusted*: no. Anyone may have appended
    anything; readers judge every record. *Concurrent*: one thread per log object; many log objects,
    also in other processes, may use the same store.
    """

    def topic_id(self, topic: str) -> bytes:
        """Sixteen bytes naming this incarnation of the topic: a re-created topic has another."""
        ...

    def partitions(self, topic: str) -> int:
        """How many partitions the topic has. Raises ``SettingsRefused`` if there is no topic."""
        ...

    def append(self, topic: str, partition: int, value: bytes) -> int:
        """Append one record and return its offset, once it is durable.

        Raises ``AppendUnknown`` when the outcome is not known, ``LogError`` when it is known that
        nothing was written.
        """
        ...

    def append_many(self, topic: str, partition: int, values: Sequence[bytes]) -> Sequence[int]:
        """Append records in order and return their offsets, once all are durable.

        Not atomic: after ``AppendUnknown`` any prefix may be there.
        """
        ...

    def read(
        self, topic: str, partition: int, offset: int, *, max_bytes: int, wait_s: float = 0.0
    ) -> Fetched:
        """Records from ``offset`` on, as read_uncommitted, at most about ``max_bytes`` of values.

        At least one record is returned if there is one, however large. Waits up to ``wait_s``
        seconds for the first record; with 0 it returns what the log has at this moment: a record
        whose append (by anyone) had returned before the call is seen.
        """
        ...

    def end(self, topic: str, partition: int) -> int:
        """The offset that the next record would get."""
        ...

    def start(self, topic: str, partition: int) -> int:
        """The first offset still kept (0 unless retention deleted some)."""
        ...

    def close(self) -> None:
        """Release everything. The log object is of no use afterwards."""
        ...


class TopicAdmin(Protocol):
    """Creates, checks and shortens topics; a port apart because a processor needs no such right."""

    def create(self, topic: str, partitions: int, *, keep_forever: bool) -> None:
        """Create the topic if it is absent; an existing one is only checked."""
        ...

    def check(self, topic: str, partitions: int, *, keep_forever: bool = True) -> Sequence[str]:
        """The settings that are weaker than needed, as sentences; empty when all is well.

        Without ``keep_forever`` records may be deleted when they are 90 days old.
        """
        ...

    def delete_before(self, topic: str, partition: int, start: int) -> None:
        """Delete the records before an offset, the oldest first; whether they may go the caller
        knows. Killed on the way it has deleted less. A log may keep its last record, for its end.
        """
        ...
