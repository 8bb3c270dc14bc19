"""The arithmetic of an SLA window (R5.1, R5.2, R5.4) against a model that counts each instant."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from domain.ids import NodeId, ProviderId
from domain.sla import (
    OpenSpan,
    Standing,
    WindowAssessed,
    decide_assessment,
    measure,
    obligation,
    overlap,
    union,
)
from domain.stake_fold import Fleet

END = 60
DAY_US = 24 * 3_600_000_000


@st.composite
def in_order(draw: st.DrawFn, most: int = 4, open_last: bool = True) -> list[OpenSpan]:
    """Disjoint spans in order of time, the last perhaps without an end."""
    cuts = sorted(draw(st.sets(st.integers(-20, END + 20), max_size=2 * most)))
    spans: list[OpenSpan] = [(a, b) for a, b in zip(cuts[::2], cuts[1::2], strict=False)]
    if len(cuts) % 2 and open_last:
        spans.append((cuts[-1], None))
    return spans


def holds(spans: list[OpenSpan], instant: int) -> bool:
    """Whether an instant is in any of the spans."""
    return any(a <= instant and (b is None or instant < b) for a, b in spans)


def obliged_at(
    instant: int, offered: list[OpenSpan], leased: list[OpenSpan], downs: list[OpenSpan]
) -> bool:
    """R5.2 in words: leased, offered, or withdrawn while silent and silent ever since."""
    if holds(leased, instant) or holds(offered, instant):
        return True
    return any(
        end is not None
        and end <= instant
        and all(holds(downs, t) for t in (end, instant))
        and all(holds([one], end) == holds([one], instant) for one in downs)
        for _, end in offered
    )


@given(offered=in_order(), leased=in_order(), downs=in_order())
def test_a_window_counts_every_instant_as_the_rule_says(
    offered: list[OpenSpan], leased: list[OpenSpan], downs: list[OpenSpan]
) -> None:
    """R5.2, R5.4: obliged time, obliged downtime and its first instant, instant by instant."""
    measured = measure(offered=offered, leased=leased, downs=downs, start_us=0, end_us=END)
    obliged = [t for t in range(END) if obliged_at(t, offered, leased, downs)]
    missed = [t for t in obliged if holds(downs, t)]
    assert measured.obliged_us == len(obliged)
    assert measured.down_us == len(missed)
    assert measured.first_down_us == (missed[0] if missed else None)


@given(offered=in_order(), leased=in_order(), downs=in_order(), cut=st.integers(1, END - 1))
def test_assessing_in_two_windows_counts_what_one_would(
    offered: list[OpenSpan], leased: list[OpenSpan], downs: list[OpenSpan], cut: int
) -> None:
    """R5.4: what is forgotten after a window is nothing that the next one needs."""
    fleet = Fleet(provider=ProviderId(bytes(16)), required_nano=1, registered_us=0)
    fleet.offered.spans, fleet.leased.spans = list(offered), list(leased)
    fleet.downs = list(downs)

    def counted(start_us: int, end_us: int) -> tuple[int, int]:
        found = measure(
            offered=fleet.offered.spans,
            leased=fleet.leased.spans,
            downs=fleet.downs,
            start_us=start_us,
            end_us=end_us,
        )
        return found.obliged_us, found.down_us

    whole = counted(0, END)
    first = counted(0, cut)
    fleet.forget_before(cut)
    second = counted(cut, END)
    assert (first[0] + second[0], first[1] + second[1]) == whole


def test_a_withdrawal_while_silent_obliges_until_the_next_sign_of_life() -> None:
    """R5.2: withdrawn at 12 in a silence from 10 to 20 counts from 20."""
    assert obligation([(0, 12)], [], [(10, 20)]) == [(0, 20)]
    assert obligation([(0, 12)], [], [(10, None)]) == [(0, None)]
    assert obligation([(0, 9)], [], [(10, 20)]) == [(0, 9)]
    assert obligation([(0, 20)], [], [(10, 20)]) == [(0, 20)]


def test_the_end_of_a_lease_ends_its_obligation_at_once() -> None:
    """R5.2: only a withdrawal waits for a sign of life."""
    assert obligation([], [(0, 12)], [(10, 20)]) == [(0, 12)]


@given(one=in_order(open_last=False), other=in_order(open_last=False))
def test_overlap_holds_what_both_hold(one: list[OpenSpan], other: list[OpenSpan]) -> None:
    """Two lists of spans share exactly the instants that are in both."""
    first = union((a, b) for a, b in one if b is not None)
    second = union((a, b) for a, b in other if b is not None)
    shared = overlap(first, second)
    for instant in range(-20, END + 20):
        assert holds(list(shared), instant) == (
            holds(list(first), instant) and holds(list(second), instant)
        )


def assessed(
    down_us: int,
    *,
    uptime_ppm: int = 999_000,
    total: int = 1000_000_000_000,
    at_down: int | None = None,
    required: int = 1,
    required_all: int = 1,
) -> WindowAssessed:
    """A window of 30 days, obliged throughout."""
    measured = measure(
        offered=[(0, None)],
        leased=[],
        downs=[(0, down_us)] if down_us else [],
        start_us=0,
        end_us=30 * DAY_US,
    )
    return decide_assessment(
        node=NodeId(bytes(16)),
        provider=ProviderId(bytes(16)),
        start_us=0,
        end_us=30 * DAY_US,
        measured=measured,
        uptime_ppm=uptime_ppm,
        slash_hour_ppm=10_000,
        required_nano=required,
        at_start=Standing(total_nano=total, required_all_nano=required_all),
        at_first_down=None
        if at_down is None
        else Standing(total_nano=at_down, required_all_nano=required_all),
        now_us=31 * DAY_US,
    )


def test_downtime_within_the_allowance_costs_nothing() -> None:
    """R5.4: 99.9 % of 30 days allow 2,592 s to the microsecond."""
    allowed = 2592 * 1_000_000
    assert assessed(allowed).slash_nano == 0
    assert assessed(allowed).slash is None
    assert assessed(allowed).excess_us == 0
    assert assessed(allowed + 360_000_000).excess_us == 360_000_000
    assert assessed(allowed + 360_000_000).slash_nano == 1000_000_000_000 // 1000


def test_a_node_silent_for_an_hour_beyond_its_allowance_loses_one_percent_of_its_share() -> None:
    """R5.4: 1 % of stake per hour; a quarter of Σ r is a quarter of the stake."""
    hour = 2592 * 1_000_000 + 3_600_000_000
    assert assessed(hour).slash_nano == 10_000_000_000
    assert assessed(hour, required=1, required_all=4).slash_nano == 2_500_000_000


def test_the_base_is_the_larger_of_window_start_and_first_downtime() -> None:
    """R5.4: neither unbonding before nor bonding after the start makes a penalty smaller."""
    hour = 2592 * 1_000_000 + 3_600_000_000
    assert assessed(hour, at_down=500).base_nano == 1000_000_000_000
    assert assessed(hour, at_down=2000_000_000_000).slash_nano == 20_000_000_000


def test_nodes_that_require_no_stake_have_no_share() -> None:
    """R5.4: with Σ r at zero nothing is divided by it."""
    assert assessed(30 * DAY_US, required=0, required_all=0).slash_nano == 0
