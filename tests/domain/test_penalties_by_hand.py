"""Penalties with numbers that do not divide, in fractions, from the words of R5, R6 and R8.5."""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from math import floor

from hypothesis import given
from hypothesis import strategies as st

from domain.catalogue import SHARES_1, VERSION_1, Catalogue
from domain.ids import NodeId, PotId, ProviderId
from domain.journal import Purse
from domain.lease import ActiveLease
from domain.provider import Applicant, Commitment, decide_unbond, frozen_by, thawed_by
from domain.refusal import Refused
from domain.reservation import decide_break
from domain.sla import Measured, Standing, decide_assessment
from domain.stake import Stake, parts_of
from tests.domain.deals import leased
from tests.domain.test_slash_arithmetic import PROVIDER, stakes
from tests.support.market import DAY, HOUR, SYNOR

POT = PotId(b"p" * 16)
standings = st.builds(
    Standing,
    total_nano=st.integers(0, 10**13),
    required_all_nano=st.integers(1, 10**13),
)


@given(
    obliged=st.integers(0, 30 * DAY),
    missed=st.integers(0, 30 * DAY),
    uptime=st.integers(900_000, 999_999),
    required=st.integers(0, 10**12),
    start=standings,
    first=standings,
    same=st.booleans(),
)
def test_an_assessment_is_the_formula_with_each_floor_where_the_rule_has_it(
    obliged: int,
    missed: int,
    uptime: int,
    required: int,
    start: Standing,
    first: Standing,
    same: bool,
) -> None:
    """R5.4: allowance, share, slash: each rounded down once; of equal stakes the start's counts."""
    down = min(missed, obliged)
    if same:
        first = Standing(total_nano=start.total_nano, required_all_nano=first.required_all_nano)
    said = decide_assessment(
        node=NodeId(bytes(16)),
        provider=ProviderId(bytes(16)),
        start_us=0,
        end_us=30 * DAY,
        measured=Measured(obliged_us=obliged, down_us=down, first_down_us=7 if down else None),
        uptime_ppm=uptime,
        slash_hour_ppm=10_000,
        required_nano=required,
        at_start=start,
        at_first_down=first if down else None,
        now_us=31 * DAY,
    )
    allowance = floor(obliged * (1 - Fraction(uptime, 10**6)))
    excess = max(0, down - allowance)
    base = first if down and first.total_nano > start.total_nano else start
    share = floor(base.total_nano * Fraction(required, base.required_all_nano))
    slash = min(share, floor(share * Fraction(excess, 100 * HOUR)))
    assert (said.allowance_us, said.excess_us) == (allowance, excess)
    assert (said.base_nano, said.required_all_nano) == (base.total_nano, base.required_all_nano)
    assert said.slash_nano == slash
    assert (said.slash is None) == (slash == 0)


@cache
def reserved() -> ActiveLease:
    """A reserved lease of seven tenths of a device at four SYNOR, with ten hours to run."""
    world, opened = leased(
        reserved=True, quantity_milli=700, ask={"quantity_milli": 700}, term_us=10 * HOUR
    )
    state = world.state(opened.lease)
    assert isinstance(state, ActiveLease)
    return state


@given(
    stake=stakes(),
    more=st.integers(-SYNOR, 400 * SYNOR),
    after_us=st.integers(1, 10 * HOUR + 5),
    within_us=st.integers(1, 20 * HOUR),
    own=st.booleans(),
    frozen=st.integers(0, 6),
)
def test_a_broken_reservation_pays_what_its_rest_costs_more_from_what_no_pot_holds(
    stake: Stake, more: int, after_us: int, within_us: int, own: bool, frozen: int
) -> None:
    """R8.5, R5.9: max(0, reference − price) × the rest; bonded, then unbonding, oldest first."""
    lease = reserved()
    at_us = lease.ready_us + after_us
    stake = stake.frozen(range(frozen), POT)
    said = decide_break(
        lease,
        catalogue=Catalogue(VERSION_1, SHARES_1),
        reference_nano=4 * SYNOR + more,
        within_us=within_us,
        stake=stake,
        own=own,
        at_us=at_us,
    )
    rest_us = min(10 * HOUR - after_us, within_us)
    if rest_us <= 0:
        assert said is None
        return
    assert said is not None
    broken, forfeited = said
    quantity = 700 * rest_us // 1000
    due = 0 if own or more < 0 else floor(quantity * Fraction(more, 1000 * 3_600_000))
    free = [t for t in stake.tranches if t.pot is None and t.bonded_us <= at_us]
    taken = {Purse.STAKE: 0, Purse.UNBONDING: 0}
    left = due
    for tranche in free:
        for purse, there in (
            (Purse.STAKE, tranche.bonded_nano),
            (Purse.UNBONDING, tranche.unbonding_nano),
        ):
            part = min(left, there)
            taken[purse] += part
            left -= part
    assert broken.until_us == at_us + rest_us
    assert (broken.due_nano, broken.taken_nano) == (due, due - left)
    assert broken.shortfall_nano == left
    posted = {p.purse: p.amount_nano for p in broken.postings if p.purse is not Purse.FREE}
    assert posted == {purse: -nano for purse, nano in taken.items() if nano}
    paid = sum(p.amount_nano for p in broken.postings if p.purse is Purse.FREE)
    assert paid == due - left
    assert (forfeited is None) == (due == left)


@given(stake=stakes(), amount=st.integers(1, 10**13), kept=st.integers(0, 10**13))
def test_unbonding_takes_the_newest_first_and_leaves_what_is_required(
    stake: Stake, amount: int, kept: int
) -> None:
    """R6.3: only above Σ r; each tranche from the newest on gives all it has before the next."""
    parts = parts_of(stake)
    said = decide_unbond(
        amount,
        _provider(stake),
        provider=PROVIDER,
        required_nano=kept,
        pot_open=False,
        release_us=32 * DAY,
        parts_most=parts + 2,
        now_us=0,
    )
    if stake.bonded_nano - amount < kept:
        assert isinstance(said, Refused)
        assert said.code.name == "stake_is_required"
        return
    expected: dict[int, int] = {}
    left = amount
    for tranche in sorted(stake.tranches, key=lambda t: -t.number):
        if part := min(left, tranche.bonded_nano):
            expected[tranche.number] = part
            left -= part
    if len(expected) > 2:
        assert isinstance(said, Refused)
        assert said.code.name == "too_many_tranches"
        return
    assert not isinstance(said, Refused)
    assert {event.tranche: event.amount_nano for event in said} == expected


def _provider(stake: Stake) -> Applicant:
    commitment = Commitment(
        uptime_ppm=999_000, response_time_ms=1, durability_pp12=1, penalty_ppm=1
    )
    return Applicant(account=reserved().terms.account, commitment=commitment, stake=stake)


def test_what_reaches_nothing_freezes_and_thaws_nothing() -> None:
    """R5.8: no event says that nothing happened."""
    stake = Stake().bonded(0, 10, 50)
    assert frozen_by(stake, provider=PROVIDER, pot=POT, fault_us=9, now_us=11) is None
    assert frozen_by(stake, provider=PROVIDER, pot=POT, fault_us=10, now_us=11) is not None
    assert thawed_by(stake, provider=PROVIDER, pot=POT, now_us=11) is None
