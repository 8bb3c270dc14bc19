"""What the fault tests saw, gathered into `docs/fault-matrix.md` by a long run.

A test that injects faults records one row: how often the fault was injected and how many events
were lost, doubled or forked under it. The page is never written by hand: `scripts/test --long`
writes it from what its tests recorded, and a run of some tests replaces the rows of just those.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "fault-matrix.md"
LONG = os.environ.get("SYNOR_LONG") == "1"

HEAD = """# Fault matrix

Written by `scripts/test --long` from what its tests recorded; do not edit. A run is one fault \
injected once. *Lost* counts events that were acknowledged and are not in the ledger, *doubled* \
those that are in it twice, *forked* the heights that two readers decided differently.

| fault | where | runs | lost | doubled | forked | test |
|---|---|---|---|---|---|---|
"""
ROW = re.compile(
    r"^\| (?P<fault>[^|]+) \| (?P<where>[^|]+) \| (?P<runs>\d+) \| (?P<lost>\d+) "
    r"\| (?P<doubled>\d+) \| (?P<forked>\d+) \| `(?P<test>[^`]+)` \|$"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One row: a fault, the part it hit, and what came of all its runs."""

    fault: str
    where: str
    runs: int
    lost: int = 0
    doubled: int = 0
    forked: int = 0
    test: str

    def line(self) -> str:
        """The row as the page shows it."""
        return (
            f"| {self.fault} | {self.where} | {self.runs} | {self.lost} | {self.doubled} "
            f"| {self.forked} | `{self.test}` |\n"
        )


def read(text: str) -> list[Seen]:
    """The rows of a page that `page` wrote."""
    found = (ROW.match(line) for line in text.splitlines())
    return [
        Seen(
            fault=row["fault"],
            where=row["where"],
            runs=int(row["runs"]),
            lost=int(row["lost"]),
            doubled=int(row["doubled"]),
            forked=int(row["forked"]),
            test=row["test"],
        )
        for row in found
        if row is not None
    ]


def page(rows: Mapping[tuple[str, str], Seen]) -> str:
    """The whole page, rows ordered by where and fault."""
    ordered = sorted(rows.values(), key=lambda row: (row.where, row.fault))
    return HEAD + "".join(row.line() for row in ordered)


class FaultMatrix:
    """What the tests of this run have recorded; one row per (where, fault)."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], Seen] = {}

    def record(self, seen: Seen) -> None:
        """Keep a row; the runs of one fault recorded several times add up."""
        key = (seen.where, seen.fault)
        before = self.rows.get(key)
        if before is not None:
            seen = Seen(
                fault=seen.fault,
                where=seen.where,
                runs=before.runs + seen.runs,
                lost=before.lost + seen.lost,
                doubled=before.doubled + seen.doubled,
                forked=before.forked + seen.forked,
                test=seen.test,
            )
        self.rows[key] = seen

    def write(self, path: Path) -> None:
        """Replace the rows of the tests that ran, and keep those of the others."""
        kept = read(path.read_text()) if path.exists() else []
        ran = {row.test for row in self.rows.values()}
        rows = {(row.where, row.fault): row for row in kept if row.test not in ran}
        path.write_text(page(rows | self.rows))


@pytest.fixture(scope="session")
def fault_matrix() -> Iterator[FaultMatrix]:
    """The run's matrix; a long run writes the page when its last test has ended."""
    matrix = FaultMatrix()
    yield matrix
    if LONG and matrix.rows:
        matrix.write(PAGE)
