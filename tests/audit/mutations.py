"""The forger's table: what is changed, and what an audit must say of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from domain.commit import (
    Ledger,
)
from tests.audit.forge import Book, Commit
from tests.system.reading import Seat

MARKET: Seat = (Ledger.MARKET, 0)
SHARD: Seat = (Ledger.METERING, 1)
SETTLEMENT: Seat = (Ledger.SETTLEMENT, 0)
NOBODY = bytes(32)


@dataclass(frozen=True)
class Found:
    """What the audit must say."""

    name: str
    height: int
    at: str
    offset: int | None = None  # where it is not that of the height


Mutation = Callable[[Book], Found]
MUTATIONS: dict[str, tuple[Seat, Mutation]] = {}


def mutation(seat: Seat) -> Callable[[Mutation], Mutation]:
    """A row of the table: the function changes the book and says what must be found."""

    def add(make: Mutation) -> Mutation:
        MUTATIONS[make.__name__.strip("_").replace("_", " ")] = (seat, make)
        return make

    return add


def body(commit: Commit, **changes: Any) -> Commit:
    """The commit with other fields in its body."""
    return replace(commit, body=replace(commit.body, **changes))


def gap(before: Commit, after: Commit, height: int) -> Found:
    """The first run of a commit that does not go on where the ledger stood."""
    stood = {(run.topic, run.partition): run.next for run in before.body.runs}
    number = next(
        number
        for number, run in enumerate(after.body.runs)
        if run.first > stood.get((run.topic, run.partition), run.first)
    )
    return Found("run_gap", height, f"runs[{number}].first")
