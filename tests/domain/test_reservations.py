"""Broken reservations: what a provider owes who ends a reserved lease before its time (R8.5)."""

from __future__ import annotations

from typing import Any

import pytest

from domain.ids import Hash32, LeaseId, Wide
from domain.journal import Purse
from domain.lease import (
    CloseLease,
    FailLease,
    LeaseClosed,
    LeaseEnded,
    LeaseOpened,
    ReadyLeases,
    ReservationBroken,
)
from domain.ledger import ChangeParameter
from domain.node import RetireNode
from domain.offer import WithdrawOffer
from domain.provider import BondStake, StakeForfeited, UnbondStake
from domain.reservation import decide_break
from domain.sla import WindowAssessed
from domain.stake import Stake
from domain.telemetry import ContradictionFound
from tests.domain.deals import bid, clear, leased, market_of, offer
from tests.support.market import DAY, HOUR, MINUTE, SECOND, SYNOR, World, key_of

R_H100 = 1600 * SYNOR
MONTH = 30 * DAY


def reserved(term_us: int = 10 * HOUR, *, ready: bool = True) -> tuple[World, LeaseOpened]:
    """A reserved lease at three SYNOR an hour while the reference is four."""
    world, (node,) = market_of()
    offer(world, "alice", node)
    bid(world, "bob", limit_nano=3 * SYNOR, reserved=True, term_us=term_us)
    clear(world)
    opened: LeaseOpened = world.last(LeaseOpened)
    assert opened.price_nano == 3 * SYNOR
    if ready:
        world.ok("alice", ReadyLeases(leases=(opened.lease,)))
    return world, opened


def broken(events: list[Any]) -> ReservationBroken:
    """The one broken reservation among events."""
    (found,) = [event for event in events if isinstance(event, ReservationBroken)]
    return found


def test_the_buyer_gets_what_the_rest_of_the_term_now_costs_more_from_stake() -> None:
    """R8.5: (reference − price) × the eight hours that are left, to the buyer's free money."""
    world, opened = reserved()
    world.wait(2 * HOUR)
    free = world.free("bob")
    events = world.ok("alice", FailLease(lease=opened.lease))
    assert [type(event) for event in events[:3]] == [LeaseEnded, ReservationBroken, StakeForfeited]
    said = broken(events)
    assert (said.due_nano, said.taken_nano, said.shortfall_nano) == (8 * SYNOR, 8 * SYNOR, 0)
    assert (said.at_us, said.until_us) == (world.now, world.now + 8 * HOUR)
    assert said.reference_nano == 4 * SYNOR
    assert world.free("bob") == free + 8 * SYNOR
    provider = world.provider_id("alice")
    assert world.balance(Purse.STAKE, provider) == R_H100 - 8 * SYNOR
    assert world.state(provider).stake.total_nano == R_H100 - 8 * SYNOR
    assert not world.market.folds.stake.may_match(provider)
    world.check_replay()


def test_at_most_a_day_of_what_is_left_counts() -> None:
    """R8.5: of a week that is left, 24 h; also where the node stays down too long."""
    world, opened = reserved(7 * DAY)
    since = world.now
    world.wait(world.parameters.grace_us + 1)
    world.node_down(opened.node, since_us=since)
    events = world.at(since + world.parameters.node_down_us)
    said = broken(events)
    assert said.at_us == since + 15 * MINUTE
    assert (said.due_nano, said.until_us) == (24 * SYNOR, said.at_us + DAY)
    world.check_replay()


def test_a_lease_keeps_the_time_that_it_binds_for() -> None:
    """R10: a change of the parameter counts for later leases."""
    world, opened = reserved()
    world.ok("operator", ChangeParameter(name="broken_within_us", value=HOUR))
    said = broken(world.ok("alice", FailLease(lease=opened.lease)))
    assert said.due_nano == 10 * SYNOR


def test_a_reserved_lease_that_is_never_ready_is_broken_for_its_whole_term() -> None:
    """R4.4, R8.5: or a provider would take a better price before it says ready."""
    world, opened = reserved(ready=False)
    events = world.at(opened.ready_by_us)
    assert [type(event) for event in events[:3]] == [LeaseEnded, LeaseClosed, ReservationBroken]
    assert broken(events).due_nano == 10 * SYNOR
    world.check_replay()


def test_a_price_that_did_not_rise_costs_nothing_but_the_node_stays_bound() -> None:
    """R8.5: max(0, reference − lease price); obligation does not depend on it."""
    world, opened = leased(reserved=True)
    said = broken(world.ok("alice", FailLease(lease=opened.lease)))
    assert (said.due_nano, said.postings) == (0, ())
    assert said.until_us == world.now + 2 * HOUR
    assert world.events(StakeForfeited) == []


@pytest.mark.parametrize("how", ["not reserved", "buyer closed", "expired"])
def test_no_reservation_is_broken_by_other_ends(how: str) -> None:
    """R8.5 is about reserved leases that their provider ends."""
    world, opened = leased(reserved=how != "not reserved")
    match how:
        case "not reserved":
            world.ok("alice", FailLease(lease=opened.lease))
        case "buyer closed":
            world.ok("bob", CloseLease(lease=opened.lease))
        case _:
            world.wait(2 * HOUR)
    assert isinstance(world.last(LeaseEnded), LeaseEnded)
    assert world.events(ReservationBroken) == []


def test_a_lease_that_ends_at_its_agreed_end_leaves_nothing_to_break() -> None:
    """Node down too long and the end of the term at one instant: the deadline's order decides."""
    world, opened = reserved(term_us=20 * MINUTE)
    world.wait(5 * MINUTE)
    since = world.now
    world.wait(world.parameters.grace_us + 1)
    world.node_down(opened.node, since_us=since)
    world.at(since + 15 * MINUTE)
    assert world.events(ReservationBroken) == []


def test_the_node_is_obliged_and_down_until_the_agreed_end_whatever_it_does() -> None:
    """R8.5 with R5.4: it beats, and is not even offered; ten hours less two are downtime."""
    world, opened = reserved()
    start = world.state(world.provider_id("alice")).admitted_us
    ready = world.now
    world.ok("alice", WithdrawOffer(offer=opened.offer))
    world.wait(2 * HOUR)
    world.ok("alice", FailLease(lease=opened.lease))
    world.at(start + MONTH + world.parameters.grace_max_us)
    (assessed,) = [e for e in world.shards_pass() if isinstance(e, WindowAssessed)]
    assert assessed.down_us == 8 * HOUR
    assert assessed.obliged_us == 10 * HOUR + ready - start
    assert assessed.slash_nano > 0
    world.check_replay()


def test_a_broken_reservation_counts_once_and_in_every_window_that_it_touches() -> None:
    """R5.4: silence within it is not missed twice; the next window gets the rest of its day."""
    world, (node,) = market_of()
    start = world.state(world.provider_id("alice")).admitted_us
    world.at(start + MONTH - 10 * DAY)
    world.attest(node)
    world.at(start + MONTH - DAY)
    offer(world, "alice", node)
    bid(world, "bob", reserved=True, term_us=7 * DAY)
    clear(world)
    opened = world.last(LeaseOpened)
    world.ok("alice", ReadyLeases(leases=(opened.lease,)))
    world.at(start + MONTH - 10 * HOUR)
    world.ok("alice", FailLease(lease=opened.lease))
    since = world.now
    world.wait(HOUR)
    world.node_down(opened.node, since_us=since)
    world.node_up(opened.node, since_us=since)
    missed = []
    for end in (start + MONTH, start + 2 * MONTH):
        world.at(end + world.parameters.grace_max_us)
        missed += [e.down_us for e in world.shards_pass() if isinstance(e, WindowAssessed)]
    assert missed == [10 * HOUR, 14 * HOUR]
    world.check_replay()


def test_a_node_is_not_retired_out_of_a_broken_reservation() -> None:
    """R8.5: obliged until the agreed end; then it may go."""
    world, opened = reserved()
    world.ok("alice", WithdrawOffer(offer=opened.offer))
    world.ok("alice", FailLease(lease=opened.lease))
    assert world.refused("alice", RetireNode(node=opened.node)) == "node_is_bound"
    world.wait(10 * HOUR)
    world.ok("alice", RetireNode(node=opened.node))
    world.check_replay()


def test_the_oldest_tranche_pays_first() -> None:
    """R5.9: what is on its way out of a younger one is not touched."""
    world, opened = reserved(7 * DAY)
    world.deposit("alice", 100 * SYNOR)
    world.ok("alice", BondStake(amount_nano=Wide(100 * SYNOR)))
    world.ok("alice", UnbondStake(amount_nano=Wide(60 * SYNOR)))
    (forfeited,) = [
        event
        for event in world.ok("alice", FailLease(lease=opened.lease))
        if isinstance(event, StakeForfeited)
    ]
    assert [(t.tranche, t.bonded_nano) for t in forfeited.tranches] == [(0, 24 * SYNOR)]
    assert world.balance(Purse.UNBONDING, world.provider_id("alice")) == 60 * SYNOR
    world.check_replay()


def test_what_a_pot_holds_is_not_reached_and_the_rest_is_a_shortfall_not_a_debt() -> None:
    """R5.8, R8.5: evidence froze the stake before the reservation broke."""
    world, opened = reserved()
    world.metering(
        ContradictionFound(
            at_us=world.now,
            node=opened.node,
            lease=LeaseId(opened.lease),
            resource="network.egress",
            generation=0,
            time_us=world.now,
            key=key_of("alice-0"),
            first_total=1,
            second_total=2,
            first=Hash32(b"1" * 32),
            second=Hash32(b"2" * 32),
        )
    )
    free = world.free("bob")
    said = broken(world.ok("alice", FailLease(lease=opened.lease)))
    assert (said.taken_nano, said.shortfall_nano) == (0, 10 * SYNOR)
    assert world.events(StakeForfeited) == []
    assert world.free("bob") == free
    world.wait(3 * DAY)
    world.check_replay()


def test_a_slash_that_ends_leases_breaks_their_reservations() -> None:
    """R8.6: ended as slashed; nothing is left to pay with, and the shortfall says how much."""
    world, opened = reserved(7 * DAY)
    world.metering(
        ContradictionFound(
            at_us=world.now,
            node=opened.node,
            lease=LeaseId(opened.lease),
            resource="network.egress",
            generation=0,
            time_us=world.now,
            key=key_of("alice"),
            first_total=1,
            second_total=2,
            first=Hash32(b"1" * 32),
            second=Hash32(b"2" * 32),
        )
    )
    said = broken(world.wait(2 * DAY))
    assert (said.due_nano, said.taken_nano, said.shortfall_nano) == (24 * SYNOR, 0, 24 * SYNOR)
    world.check_replay()


def test_who_leases_from_itself_is_not_compensated() -> None:
    """R5.8 by analogy: stake would be free money without its time of unbonding."""
    world, opened = reserved()
    said = decide_break(
        world.state(opened.lease),
        catalogue=world.market.folds.registry.catalogue,
        reference_nano=9 * SYNOR,
        within_us=DAY,
        stake=Stake(),
        own=True,
        at_us=world.now + SECOND,
    )
    assert said is not None
    assert said[0].due_nano == 0
