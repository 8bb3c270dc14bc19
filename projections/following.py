"""What stands between who follows the ledgers and who keeps the rows: positions and commits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from domain.commit import NO_HASH, Ledger, RecordedEvent
from projections.fold_rows import At


class Overtaken(Exception):
    """Another projector has moved the position: nothing was written, read it anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """How far a ledger was followed, with all that a reader needs to go on from there.

    ``notification_id`` is the number of events of the ledger that the rows reflect, ``noise`` the
    heights of noise near the head by the hex of its hash, ``stopped`` why no reader may go on.
    """

    application: str
    notification_id: int | None = None
    height: int = -1
    hash: bytes = NO_HASH
    head_offset: int = -1
    next_offset: int = 0
    time_us: int = 0
    writer: bytes = b""
    noise: Mapping[str, int]
    noise_count: int = 0
    stopped: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectedCommit:
    """A counting commit as the read models take it."""

    events: Sequence[tuple[At, RecordedEvent, Any]]
    consumed: Sequence[tuple[str, int, int]]  # (topic, partition, next offset)


class RowStore(Protocol):
    """Keeps rows and positions together. *Durable*: as the database. *Disposable*: always."""

    def position(self, application: str) -> Position:
        """Where a ledger was followed to; before its first record where it never was."""
        ...

    def apply(self, before: Position, after: Position, commits: Sequence[ProjectedCommit]) -> None:
        """Take commits and the position after them, all or nothing.

        Raises ``Overtaken`` unless the position still is ``before``.
        """
        ...


def application_name(ledger: Ledger, shard: int) -> str:
    """The name of a ledger as an application of the ``eventsourcing`` library."""
    return f"{ledger.name.title()}{shard}"


def unfollowed(application: str) -> Position:
    """The position before the first record."""
    return Position(application=application, noise={})
