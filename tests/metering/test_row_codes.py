"""Each fault of a row has its number, and of two the one that is judged first is named."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Final, NamedTuple

import pytest

from domain.genesis import DAY_US
from domain.ids import QUANTITY_MAX, NodeId
from domain.judging import ROWS
from domain.readings import (
    ABOVE_LIMIT,
    CONTRADICTION,
    GENERATION_RANGE,
    NOT_ACTIVE,
    NOT_METERED,
    OTHER_NODE,
    TOO_EARLY,
    TOO_LATE,
    TOO_MANY_GENERATIONS,
    TOTAL_RANGE,
    UNKNOWN_LEASE,
    Moment,
    PlainReadings,
)
from domain.refusal import Code
from domain.telemetry import Batch
from tests.support.metering import EGRESS, TOKENS, lease_of

NOW: Final = 1_000_000_000
EARLY, LATE = 10_000, 500_000
AT: Final = Moment(NOW, EARLY, LATE, 1_000_000, 64, 3, DAY_US)
LEASE, ELSEWHERE, ENDED, UNREADY = (lease_of(number) for number in range(4))
NODE, OTHER, KEY = 1, 2, 7
SEEN_US, SEEN = NOW - 1_000, 500


class Row(NamedTuple):
    """One row, and by which key."""

    lease: bytes = LEASE
    resource: int = TOKENS
    generation: int = 0
    time_us: int = NOW
    total: int = SEEN + 1
    key: int = KEY


def state() -> PlainReadings:
    """A lease with three generations, of which one has been read; one elsewhere; one that ended."""
    made = PlainReadings()
    for lease, node in ((LEASE, NODE), (ELSEWHERE, OTHER), (ENDED, NODE), (UNREADY, NODE)):
        made.assign(lease, node, {TOKENS: 1_000})
        if lease is not UNREADY:
            made.activate(lease, NOW - 2_000_000)
    made.stop(ENDED, NOW)
    for generation in (0, 1, 2):
        batch = batch_of(Row(generation=generation, time_us=SEEN_US, total=SEEN))
        made.fold(batch, b"", KEY, bytes(32), SEEN_US, NOW + 1)
    return made


def batch_of(*rows: Row) -> Batch:
    """Rows as a batch."""
    return Batch(
        nodes=(NodeId(bytes(16)),),
        leases=tuple(row.lease for row in rows),  # type: ignore[misc]
        lease=tuple(range(len(rows))),
        resource=tuple(row.resource for row in rows),
        generation=tuple(row.generation for row in rows),
        time_us=tuple(row.time_us for row in rows),
        total=tuple(row.total for row in rows),
    )


def said(row: Row) -> Code | None:
    """What becomes of a row."""
    (code,), _ = state().codes(batch_of(row), [NODE], row.key, AT)
    return code


Fault = Callable[[Row], Row]
#: In the order of judging. A contradiction is of one time and total; what else it has is the row's.
FAULTS: Final[list[tuple[Code, Fault]]] = [
    (UNKNOWN_LEASE, lambda row: row._replace(lease=lease_of(99))),
    (OTHER_NODE, lambda row: row._replace(lease=ELSEWHERE)),
    (NOT_METERED, lambda row: row._replace(resource=EGRESS)),
    (NOT_ACTIVE, lambda row: row._replace(lease=ENDED)),
    (NOT_ACTIVE, lambda row: row._replace(lease=UNREADY)),
    (TOO_EARLY, lambda row: row._replace(time_us=NOW + EARLY + 1)),
    (TOO_LATE, lambda row: row._replace(time_us=NOW - LATE - 1)),
    (TOTAL_RANGE, lambda row: row._replace(total=-1)),
    (TOTAL_RANGE, lambda row: row._replace(total=QUANTITY_MAX + 1)),
    (GENERATION_RANGE, lambda row: row._replace(generation=-1)),
    (GENERATION_RANGE, lambda row: row._replace(generation=64)),
    (CONTRADICTION, lambda row: row._replace(time_us=SEEN_US)),
    (ABOVE_LIMIT, lambda row: row._replace(total=10**6)),
    (TOO_MANY_GENERATIONS, lambda row: row._replace(generation=3)),
]
NAMES: Final = [f"{code.name}-{number}" for number, (code, _) in enumerate(FAULTS)]


@pytest.mark.parametrize(("code", "fault"), FAULTS, ids=NAMES)
def test_a_row_is_refused_for_its_fault(code: Code, fault: Fault) -> None:
    """And one without any counts, as does one at each of the bounds."""
    assert said(Row()) is None
    assert said(Row(time_us=NOW + EARLY)) is None
    assert said(Row(time_us=NOW - LATE)) is None
    assert said(Row(time_us=SEEN_US, total=SEEN)) is None
    assert said(Row(time_us=SEEN_US, key=KEY + 1)) is None, "a row by another key contradicts not"
    # 1,000 a second for 3 s, of which the other generations have 1,000.
    assert (said(Row(total=2_000)), said(Row(total=2_001))) == (None, ABOVE_LIMIT)
    assert said(fault(Row())) is code


def test_of_two_faults_of_a_row_the_earlier_one_is_named() -> None:
    """The order of the page of refusals; faults that are of one field cannot meet."""
    met = 0
    for (first, one), (second, two) in combinations(FAULTS, 2):
        row = two(one(Row()))
        if one(row) != row or first is second:
            continue
        if (first, second) == (CONTRADICTION, TOO_MANY_GENERATIONS):
            continue  # a new generation has no total yet that could be contradicted
        met += 1
        assert said(row) is first, (first.name, second.name)
    assert met > 40


def test_the_table_of_rows_is_the_order_that_was_tried() -> None:
    """What the page says is what is judged."""
    assert tuple(dict.fromkeys(code for code, _ in FAULTS)) == ROWS
