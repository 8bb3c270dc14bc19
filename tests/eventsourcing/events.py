"""Stored events for these tests."""

from __future__ import annotations

import hashlib
from uuid import UUID

from eventsourcing.persistence import StoredEvent

from domain.commit import CommitHeader

HEADER = CommitHeader(time_us=1_000_000)


def aggregate(number: int) -> UUID:
    """The same id for the same number, in every run."""
    return UUID(bytes=hashlib.sha256(b"aggregate %d" % number).digest()[:16])


def event(number: int, version: int = 1, state: bytes = b"state") -> StoredEvent:
    """An event of aggregate ``number``."""
    return StoredEvent(aggregate(number), version, "tests:Event", state)


def events(first: int, count: int) -> list[StoredEvent]:
    """One event for each of ``count`` aggregates."""
    return [event(first + i) for i in range(count)]
