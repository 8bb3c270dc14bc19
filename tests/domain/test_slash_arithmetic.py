"""Slash arithmetic (R5.4, R5.9): monotone, capped, by tranche, and fair to fleets of any shape."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from domain.genesis import HOUR_US
from domain.ids import PotId, ProviderId
from domain.provider import Fault, slash_of, slashed_by, stake_after
from domain.sla import penalty, share_of
from domain.stake import Stake, bonded_in, taken_from, unbonding_in

PPM = 10_000
PROVIDER = ProviderId(bytes(16))
amounts = st.integers(0, 10**24)
times = st.integers(0, 1000)


@st.composite
def stakes(draw: st.DrawFn) -> Stake:
    """Up to six tranches, parts of some of which unbond."""
    stake = Stake()
    now = 0
    for number in range(draw(st.integers(1, 6))):
        now += draw(st.integers(0, 100))
        bonded = draw(st.integers(1, 10**12))
        stake = stake.bonded(number, now, bonded)
        for release_us in draw(st.lists(st.integers(0, 2000), max_size=2)):
            left = next(t.bonded_nano for t in stake.tranches if t.number == number)
            part = draw(st.integers(0, left))
            if part:
                stake = stake.unbonding(number, part, release_us)
    return stake


def slash(stake: Stake, due: int, fault_us: int, subject: int = 0) -> tuple[Stake, int]:
    """The stake after a slash, and what it took."""
    event = slashed_by(
        stake,
        provider=PROVIDER,
        node=None,
        slash=slash_of(Fault.DOWNTIME, subject),
        fault=Fault.DOWNTIME,
        fault_us=fault_us,
        base_nano=due,
        due_nano=due,
        pot=None,
        now_us=fault_us,
    )
    assert event.taken_nano + event.shortfall_nano == due
    assert sum(p.amount_nano for p in event.postings) == 0
    return stake_after(stake, event), event.taken_nano


def test_one_percent_an_hour_is_everything_after_a_hundred_hours_and_never_more() -> None:
    """R5.4: 1 %/h of the share; 150 h cost 100 %."""
    assert penalty(1_000, 1 * HOUR_US, PPM) == 10
    assert penalty(1_000, 99 * HOUR_US, PPM) == 990
    assert penalty(1_000, 100 * HOUR_US, PPM) == 1_000
    assert penalty(1_000, 150 * HOUR_US, PPM) == 1_000


@given(share=amounts, excess=st.integers(0, 400 * 24 * HOUR_US))
def test_the_penalty_is_the_formula_of_the_rule(share: int, excess: int) -> None:
    """R5.4: min(share, share × excess // 360,000,000,000) at the default of 10,000 ppm."""
    assert penalty(share, excess, PPM) == min(share, share * excess // 360_000_000_000)


@given(share=amounts, one=st.integers(0, 10**13), more=st.integers(0, 10**13))
def test_more_excess_never_costs_less(share: int, one: int, more: int) -> None:
    """R5.4: monotone in time."""
    assert penalty(share, one, PPM) <= penalty(share, one + more, PPM) <= share


@given(
    base=amounts,
    required=st.lists(st.integers(1, 10**15), min_size=1, max_size=20),
    excess=st.integers(0, 10**12),
)
def test_all_nodes_down_together_cost_no_more_than_the_stake_would(
    base: int, required: list[int], excess: int
) -> None:
    """R5.4: shares never sum to more than the base; all nodes down one hour is 1 % of stake."""
    total = sum(required)
    shares = [share_of(base, r, total) for r in required]
    assert base - len(required) < sum(shares) <= base
    costs = sum(penalty(s, excess, PPM) for s in shares)
    assert penalty(base, excess, PPM) - 2 * len(required) <= costs <= penalty(base, excess, PPM)


@given(
    base=amounts,
    other=st.integers(0, 10**15),
    parts=st.lists(st.integers(1, 10**12), min_size=1, max_size=10),
    excess=st.integers(0, 10**12),
)
def test_splitting_a_node_into_several_changes_the_penalty_by_rounding_only(
    base: int, other: int, parts: list[int], excess: int
) -> None:
    """R5.4: a fleet's shape is no way out of a penalty, nor into a larger one."""
    whole, total = sum(parts), sum(parts) + other
    as_one = penalty(share_of(base, whole, total), excess, PPM)
    as_many = sum(penalty(share_of(base, part, total), excess, PPM) for part in parts)
    assert as_one - 2 * len(parts) <= as_many <= as_one


def test_sixty_percent_and_then_ten_percent_of_the_first_stake_leave_thirty() -> None:
    """R5.9: the base is what it was at the fault, so a second slash does not shrink the first."""
    stake = Stake().bonded(0, 0, 100)
    stake, first = slash(stake, 60, 1)
    stake, second = slash(stake, 10, 1)
    assert (first, second, stake.total_nano) == (60, 10, 30)


def test_what_is_missing_is_a_shortfall_and_never_a_debt() -> None:
    """R5.9: 60 and then 100 of 100 take 40 more; nothing is left and nothing is owed."""
    stake = Stake().bonded(0, 0, 100)
    stake, _ = slash(stake, 60, 1)
    stake, second = slash(stake, 100, 1)
    assert (second, stake.total_nano) == (40, 0)


def test_the_oldest_tranche_pays_first() -> None:
    """R5.9: oldest first."""
    stake = Stake().bonded(0, 0, 50).bonded(1, 10, 50)
    stake, taken = slash(stake, 70, 10)
    assert taken == 70
    assert [(t.number, t.total_nano) for t in stake.tranches] == [(1, 30)]


def test_stake_added_after_the_fault_is_not_reached() -> None:
    """R5.9: the second tranche was bonded a microsecond too late."""
    stake = Stake().bonded(0, 0, 50).bonded(1, 11, 50)
    stake, taken = slash(stake, 70, 10)
    assert taken == 50
    assert [(t.number, t.total_nano) for t in stake.tranches] == [(1, 50)]


def test_stake_that_unbonds_at_the_fault_is_still_reached() -> None:
    """R5.9: bonded first, then what is on its way out, soonest first."""
    stake = Stake().bonded(0, 0, 50).unbonding(0, 30, 900).unbonding(0, 10, 800)
    stake, taken = slash(stake, 25, 1)
    (left,) = stake.tranches
    assert taken == 25
    assert left.bonded_nano == 0
    assert [(p.release_us, p.amount_nano) for p in left.unbonding] == [(900, 25)]


@given(stake=stakes(), dues=st.lists(st.tuples(st.integers(0, 10**13), times), max_size=8))
def test_slashes_never_take_more_than_they_ask_nor_than_is_reached(
    stake: Stake, dues: list[tuple[int, int]]
) -> None:
    """R5.9: cumulative slash never falls and never exceeds what the fault reaches."""
    total = stake.total_nano
    for subject, (due, fault_us) in enumerate(dues):
        reached = sum(t.total_nano for t in stake.tranches if t.bonded_us <= fault_us)
        unreached = [t for t in stake.tranches if t.bonded_us > fault_us]
        stake, taken = slash(stake, due, fault_us, subject)
        assert taken == min(due, reached)
        assert [t for t in stake.tranches if t.bonded_us > fault_us] == unreached
        total -= taken
        assert stake.total_nano == total


@given(
    stake=stakes(),
    due=st.integers(0, 10**13),
    fault_us=times,
    pot=st.binary(min_size=16, max_size=16),
)
def test_what_a_pot_holds_and_what_is_free_of_it_are_taken_apart(
    stake: Stake, due: int, fault_us: int, pot: bytes
) -> None:
    """R5.8: a frozen tranche pays from its pot only; thawed it is what it was."""
    pot_id = PotId(pot)
    named = [t.number for t in stake.tranches if t.bonded_us <= fault_us]
    frozen = stake.frozen(named, pot_id)
    assert frozen.thawed(pot_id) == stake
    assert taken_from(frozen, due, fault_us=fault_us, pot=None) == ()
    inside = taken_from(frozen, due, fault_us=fault_us, pot=pot_id)
    assert inside == taken_from(stake, due, fault_us=fault_us, pot=None)
    assert bonded_in(inside) + unbonding_in(inside) <= due
    assert frozen.released(10_000).total_nano >= frozen.total_nano - sum(
        t.unbonding_nano for t in frozen.tranches if t.pot is None
    )
