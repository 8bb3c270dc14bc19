"""What clients did and saw: every operation ok, failed, or unknown.

The vocabulary is that of Jepsen's Kafka workload. A client writes down an operation when its
outcome is known to it, and says honestly what it knows: an answer that was lost is ``INFO``, never
a guess. What the operations say together is judged by the checker, not here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

Place = tuple[str, int]  # topic, partition


class Outcome(Enum):
    """What a client knows of an operation's end."""

    OK = "ok"
    FAIL = "fail"  # it certainly had no effect
    INFO = "info"  # it may or may not have had one, now or later


def named(value: bytes) -> str:
    """A record's value as histories name it; equal bytes are one value."""
    return hashlib.sha256(value).hexdigest()[:24]


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """One attempt to append one value. ``offset`` is what the log answered, where it did."""

    process: int
    place: Place
    value: str
    outcome: Outcome
    offset: int | None = None
    invoked: int = 0
    completed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Poll:
    """One read of one partition from ``asked``: (offset, value) of each record, as they came.

    ``following`` is the offset to ask for next. ``sought`` says that the reader put itself there,
    so that it may stand before or after its last position.
    """

    process: int
    place: Place
    asked: int
    records: Sequence[tuple[int, str]]
    following: int
    sought: bool = False
    invoked: int = 0
    completed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Submit:
    """A command that was sent, under its number; ``makes`` are the ids that it alone can make."""

    process: int
    number: tuple[bytes, int, int]  # key, session, number
    outcome: Outcome
    makes: Sequence[bytes] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A first answer as one reader found it."""

    process: int
    number: tuple[bytes, int, int]
    digest: bytes
    code: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """An id that a reader found to be made by an event."""

    process: int
    made: bytes


Operation = Send | Poll | Submit | Answer | Effect


@dataclass(slots=True)
class History:
    """Operations in the order of their ends. Several threads may write: an append is atomic."""

    operations: list[Operation] = field(default_factory=list)

    def add(self, operation: Operation) -> None:
        """Write one operation down."""
        self.operations.append(operation)

    def of(self, kind: type[Any]) -> list[Any]:
        """The operations of one kind, in order."""
        return [each for each in self.operations if isinstance(each, kind)]
