"""Leases on a market: life, ends, refusals, deadlines (R4.4, R8.3–R8.6)."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from domain import market_leases
from domain.due import MarketDue
from domain.genesis import Role
from domain.ids import LeaseId
from domain.journal import Purse
from domain.key import RegisterKey
from domain.lease import (
    ActiveLease,
    ClosedLease,
    CloseLease,
    ClosingLease,
    CompleteLease,
    EndReason,
    Escrow,
    FailLease,
    LeaseClosed,
    LeaseEnded,
    LeaseOpened,
    LeaseReady,
    OpenedLease,
    ReadyLeases,
    ReclaimAnnounced,
    ReclaimLease,
    RejectLease,
    TopUpLease,
)
from domain.ledger import ChangeParameter
from domain.round import RoundOpened
from tests.domain.deals import (
    bid,
    clear,
    close_out,
    escrows,
    leased,
    market_of,
    offer,
    state_usage,
)
from tests.support.market import DAY, H100, HOUR, MINUTE, SECOND, SYNOR, World, key_of

NOWHERE = LeaseId(bytes(16))
RECLAIMABLE = {"interruptible": True, "notice_us": 5 * MINUTE}


def ended(world: World) -> LeaseEnded:
    """The last end of a lease."""
    found: LeaseEnded = world.last(LeaseEnded)
    return found


# Ready


def test_a_lease_is_active_from_ready_and_its_term_runs_from_there() -> None:
    """Not from the match."""
    world, opened = leased(ready=False)
    assert isinstance(world.state(opened.lease), OpenedLease)
    world.wait(9 * MINUTE)
    (ready,) = world.ok("alice", ReadyLeases(leases=(opened.lease,)))
    assert isinstance(ready, LeaseReady)
    assert ready.expires_us == world.now + 2 * HOUR
    assert isinstance(world.state(opened.lease), ActiveLease)
    world.check_replay()


@pytest.mark.parametrize("who", ["alice", "gate", "alice-0"])
def test_owner_gateway_and_the_node_itself_may_say_ready(who: str) -> None:
    """R4.4: the provider's signed ready."""
    world, opened = leased(ready=False)
    world.ok("alice", RegisterKey(key=key_of("gate"), role=Role.GATEWAY))
    world.ok(who, ReadyLeases(leases=(opened.lease,)))


def test_ready_is_refused_row_by_row() -> None:
    """Unknown, another's, another node's, already ready, over; a good row is taken all the same."""
    world, opened = leased(ready=False)
    world.admitted("carol")
    other = world.node("alice", "alice-1")
    assert other != opened.node
    for who in ("carol", "alice-1", "bob"):
        refused = world.refused_rows(who, ReadyLeases(leases=(opened.lease,)))
        assert refused == {0: "lease_not_yours"}
    both = ReadyLeases(leases=(NOWHERE, opened.lease, opened.lease))
    assert world.refused_rows("alice", both) == {0: "lease_unknown", 2: "lease_already_ready"}
    world.ok("alice", FailLease(lease=opened.lease))
    refused = world.refused_rows("alice", ReadyLeases(leases=(opened.lease,)))
    assert refused == {0: "lease_over"}


def test_a_lease_that_is_not_ready_in_time_costs_nothing_and_is_closed_at_once() -> None:
    """An input at exactly the deadline is late."""
    world, opened = leased(ready=False)
    events = world.at(opened.ready_by_us)
    assert [type(event) for event in events] == [LeaseEnded, LeaseClosed]
    end, closed = events
    assert (end.reason, end.was_active, end.at_us) == (
        EndReason.PROVIDER_FAILED,
        False,
        opened.ready_by_us,
    )
    assert closed.refund_nano == 0
    assert world.free("bob") == 1000 * SYNOR
    assert isinstance(world.state(opened.lease), ClosedLease)
    refused = world.refused_rows("alice", ReadyLeases(leases=(opened.lease,)))
    assert refused == {0: "lease_over"}
    world.check_replay()


# Ends


def test_at_the_end_of_its_term_a_lease_is_expired() -> None:
    """The event carries the deadline, though the market hears of the time later."""
    world, opened = leased()
    expires = world.last(LeaseReady).expires_us
    world.at(expires + HOUR)
    assert (ended(world).reason, ended(world).at_us) == (EndReason.EXPIRED, expires)
    assert ended(world).closing_us == expires + world.parameters.closing_us
    assert isinstance(world.state(opened.lease), ClosingLease)


def test_only_node_and_gateway_complete_a_lease() -> None:
    """The workload's own end is signed by the node."""
    world, opened = leased()
    command = CompleteLease(lease=opened.lease)
    assert world.refused("alice", command) == "key_role_not_allowed"
    assert world.refused("bob", command) == "key_role_not_allowed"
    assert world.refused("alice-0", CompleteLease(lease=NOWHERE)) == "lease_unknown"
    world.node("alice", "alice-1")
    assert world.refused("alice-1", command) == "lease_not_yours"
    world.wait(HOUR)
    world.ok("alice-0", command)
    assert ended(world).reason is EndReason.COMPLETED
    assert world.refused("alice-0", command) == "lease_over"


def test_the_buyer_closes_and_nobody_else() -> None:
    """Right event, refusals in order, silence on a repeat."""
    world, opened = leased(ready=False)
    command = CloseLease(lease=opened.lease)
    assert world.refused("alice-0", command) == "key_role_not_allowed"
    assert world.refused("bob", CloseLease(lease=NOWHERE)) == "lease_unknown"
    assert world.refused("alice", command) == "lease_not_yours"
    assert world.refused("bob", command) == "lease_not_ready"
    world.ok("alice", ReadyLeases(leases=(opened.lease,)))
    (end,) = world.ok("bob", command)
    assert (end.reason, end.early_nano) == (EndReason.BUYER_CLOSED, 0)
    assert world.refused("bob", command) == "lease_over"


def test_a_provider_may_give_up_a_lease_before_and_after_ready() -> None:
    """Before ready everything returns at once; after it the last statement is awaited."""
    world, opened = leased(ready=False)
    assert world.refused("alice-0", FailLease(lease=opened.lease)) == "key_role_not_allowed"
    assert world.refused("bob", FailLease(lease=opened.lease)) == "lease_not_yours"
    world.ok("alice", FailLease(lease=opened.lease))
    assert world.free("bob") == 1000 * SYNOR
    world, opened = leased()
    world.ok("alice", FailLease(lease=opened.lease))
    assert ended(world).reason is EndReason.PROVIDER_FAILED
    assert isinstance(world.state(opened.lease), ClosingLease)


def test_a_buyer_rejects_within_ten_minutes_at_no_charge() -> None:
    """Even what statements had already found is not posted."""
    world, opened = leased(
        capacity={H100: 1000, "storage.hot": 10**6}, allocations={"storage.hot": 10**6}
    )
    world.wait(5 * MINUTE)
    state_usage(world, opened.lease, covered_us=4 * MINUTE)
    world.at(world.last(LeaseReady).at_us + 10 * MINUTE - 1)
    world.ok("bob", RejectLease(lease=opened.lease))
    close_out(world, opened.lease, covered_us=9 * MINUTE)
    assert world.free("bob") == 1000 * SYNOR
    assert world.state(opened.lease).lines[0].charged_nano > 0
    world.check_replay()


def test_a_rejection_at_exactly_ten_minutes_is_late() -> None:
    """Half-open."""
    world, opened = leased()
    assert world.refused("alice", RejectLease(lease=opened.lease)) == "lease_not_yours"
    world.wait(10 * MINUTE)
    assert world.refused("bob", RejectLease(lease=opened.lease)) == "rejected_too_late"


def test_a_buyer_rejects_three_times_in_a_day() -> None:
    """The fourth is refused until the first is a day old."""
    world, (node,) = market_of()
    offer(world, "alice", node)
    first_us = 0
    for number in range(5):
        bid(world, "bob")
        clear(world)
        lease = world.last(LeaseOpened).lease
        world.ok("alice", ReadyLeases(leases=(lease,)))
        if number == 3:
            assert world.refused("bob", RejectLease(lease=lease)) == "too_many_rejections"
            world.ok("alice", FailLease(lease=lease))
            world.at(first_us + DAY - 10 * SECOND)
        elif number == 4:
            world.at(first_us + DAY - 1)
            assert world.refused("bob", RejectLease(lease=lease)) == "too_many_rejections"
            world.at(first_us + DAY)
            world.ok("bob", RejectLease(lease=lease))
        else:
            world.ok("bob", RejectLease(lease=lease))
            first_us = first_us or world.now
    world.check_replay()


def test_how_many_leases_are_rejected_in_what_time_is_a_parameter() -> None:
    """R10: one an hour; a rejection is remembered for as long as any lease counts it."""
    world, (node,) = market_of()
    offer(world, "alice", node)
    world.ok("operator", ChangeParameter(name="rejections", value=1))
    world.ok("operator", ChangeParameter(name="rejections_within_us", value=HOUR))
    for wait_us, refusal in ((0, None), (30 * MINUTE, "too_many_rejections"), (HOUR, None)):
        bid(world, "bob")
        clear(world)
        lease = world.last(LeaseOpened).lease
        world.ok("alice", ReadyLeases(leases=(lease,)))
        if refusal is None:
            world.ok("bob", RejectLease(lease=lease))
            world.wait(30 * MINUTE)
        else:
            assert world.refused("bob", RejectLease(lease=lease)) == refusal
            world.ok("alice", FailLease(lease=lease))
            world.wait(wait_us)
    world.check_replay()


def test_a_reclaim_leaves_the_agreed_notice_and_counts_at_its_deadline() -> None:
    """R8.5: only interruptible leases, once, and an instant that the provider names."""
    world, opened = leased(ask=RECLAIMABLE)
    soonest = world.now + 5 * MINUTE
    early = ReclaimLease(lease=opened.lease, deadline_us=soonest - 1)
    right = ReclaimLease(lease=opened.lease, deadline_us=soonest)
    assert world.refused("alice-0", right) == "key_role_not_allowed"
    assert world.refused("bob", right) == "lease_not_yours"
    assert world.refused("alice", early) == "reclaim_too_soon"
    (announced,) = world.ok("alice", right)
    assert isinstance(announced, ReclaimAnnounced)
    assert world.refused("alice", right) == "already_reclaimed"
    assert world.at(soonest - 1) == []
    world.at(soonest)
    assert (ended(world).reason, ended(world).at_us) == (EndReason.PROVIDER_RECLAIMED, soonest)
    world.check_replay()


def test_a_lease_that_is_not_interruptible_is_not_reclaimed() -> None:
    """A refusal beats the fault of its deadline."""
    world, opened = leased()
    command = ReclaimLease(lease=opened.lease, deadline_us=0)
    assert world.refused("alice", command) == "not_interruptible"


def test_a_buyer_may_leave_before_an_announced_reclaim() -> None:
    """The deadline is then of no interest any more."""
    world, opened = leased(ask=RECLAIMABLE)
    command = ReclaimLease(lease=opened.lease, deadline_us=world.now + HOUR)
    world.ok("alice", command)
    world.ok("bob", CloseLease(lease=opened.lease))
    world.wait(3 * HOUR)
    assert len(world.events(LeaseEnded)) == 1


def test_a_node_that_stays_down_ends_its_active_leases_at_the_deadline() -> None:
    """Fifteen minutes from its last sign of life; the event carries that instant."""
    world, opened = leased()
    since = world.now
    world.wait(31 * SECOND)
    world.node_down(opened.node, since_us=since)
    world.at(since + 15 * MINUTE - 1)
    assert isinstance(world.state(opened.lease), ActiveLease)
    world.at(since + 20 * MINUTE)
    assert ended(world).reason is EndReason.NODE_DOWN_TOO_LONG
    assert ended(world).at_us == since + 15 * MINUTE
    world.check_replay()


def test_a_node_that_returns_in_time_keeps_its_leases() -> None:
    """The deadline goes with the sign of life."""
    world, opened = leased()
    since = world.now
    world.wait(MINUTE)
    world.node_down(opened.node, since_us=since)
    world.wait(13 * MINUTE)
    world.node_up(opened.node, since_us=since)
    world.wait(30 * MINUTE)
    assert isinstance(world.state(opened.lease), ActiveLease)
    world.check_replay()


def test_a_silence_that_is_noticed_late_ends_leases_when_it_is_noticed() -> None:
    """No lease ends before the market knew; a lease that became ready meanwhile ends too."""
    world, opened = leased(ready=False)
    since = world.now
    world.wait(MINUTE)
    world.ok("alice", ReadyLeases(leases=(opened.lease,)))
    world.wait(HOUR)
    noticed = world.now
    world.node_down(opened.node, since_us=since)
    world.wait(0)
    assert (ended(world).at_us, ended(world).reason) == (noticed, EndReason.NODE_DOWN_TOO_LONG)


def test_a_lease_that_gets_ready_on_a_silent_node_is_watched_as_well() -> None:
    """The silence began before; it ends fifteen minutes after the last sign of life."""
    world, opened = leased(ready=False)
    since = world.now
    world.wait(MINUTE)
    world.node_down(opened.node, since_us=since)
    world.wait(8 * MINUTE)
    world.ok("alice", ReadyLeases(leases=(opened.lease,)))
    world.wait(8 * MINUTE)
    assert ended(world).at_us == since + 15 * MINUTE
    world.check_replay()


def test_a_slashed_provider_loses_all_its_leases_at_once() -> None:
    """Ready or not; what was not ready is refunded in the same item."""
    world, nodes = market_of(nodes=3)
    for node in nodes:
        offer(world, "alice", node)
        bid(world, "bob")
    clear(world)
    leases = [opened.lease for opened in world.events(LeaseOpened)]
    world.ok("alice", ReadyLeases(leases=tuple(leases[:2])))
    _ruin(world, world.provider_id("alice"))
    world.wait(0)
    assert {end.reason for end in world.events(LeaseEnded)} == {EndReason.SLASHED}
    assert sum(end.was_active for end in world.events(LeaseEnded)) == 2
    for lease in leases[:2]:
        close_out(world, lease, covered_us=0)
    assert world.free("bob") == 1000 * SYNOR
    world.check_replay()


@pytest.mark.parametrize("reason", [EndReason.SLASHED, EndReason.NODE_DOWN_TOO_LONG])
def test_very_many_leases_end_in_several_items_at_one_instant(
    reason: EndReason, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a commit keeps within its bound; nobody gets between them."""
    monkeypatch.setattr(market_leases, "ENDS_PER_ITEM", 2)
    world, (node,) = market_of(capacity={H100: 5000})
    offer(world, "alice", node, quantity_milli=5000)
    for _ in range(5):
        bid(world, "bob")
    clear(world)
    leases = tuple(opened.lease for opened in world.events(LeaseOpened))
    world.ok("alice", ReadyLeases(leases=leases))
    ENDS[reason](world, leases[0])
    ends = world.events(LeaseEnded)
    assert [end.lease for end in ends] == sorted(leases)
    assert {(end.reason, end.at_us) for end in ends} == {(reason, ends[0].at_us)}
    assert {MarketDue.PROVIDER_RUINED, MarketDue.NODE_DOWN_TOO_LONG}.isdisjoint(
        kind for kind, _ in world.market.deadlines._due
    )
    in_an_item = Counter(world.item_of(end) for end in ends)
    assert sorted(in_an_item.values()) == [1, 2, 2]
    world.check_replay()


def test_capacity_is_free_in_the_item_that_ends_a_lease() -> None:
    """R8.6; and no round opens where nobody waits."""
    world, opened = leased()
    rounds = len(world.events(RoundOpened))
    assert world.market.folds.capacity.free(opened.node, H100) == 0
    assert world.market.folds.leases.live_on(opened.node) == 1
    world.ok("alice", FailLease(lease=opened.lease))
    assert world.market.folds.capacity.free(opened.node, H100) == 1000
    assert world.market.folds.leases.live_on(opened.node) == 0
    assert len(world.events(RoundOpened)) == rounds


def test_a_lease_keeps_the_parameters_that_it_began_with() -> None:
    """R10: a change of closing time is for leases that open after it."""
    world, opened = leased()
    world.ok("operator", ChangeParameter(name="closing_us", value=HOUR))
    world.ok("operator", ChangeParameter(name="reject_within_us", value=0))
    world.ok("bob", RejectLease(lease=opened.lease))
    assert ended(world).closing_us == world.now + 10 * MINUTE
    bid(world, "bob")
    clear(world)
    later = world.last(LeaseOpened).lease
    world.ok("alice", ReadyLeases(leases=(later,)))
    assert world.refused("bob", RejectLease(lease=later)) == "rejected_too_late"
    world.ok("alice", FailLease(lease=later))
    assert ended(world).closing_us == world.now + HOUR
    world.check_replay()


# Money that is added


def test_a_top_up_goes_into_the_escrow_that_is_named() -> None:
    """And is refused in order: unknown, not yours, over, range, money."""
    world, opened = leased(metered={"network.egress": 10}, usage_budget_nano=SYNOR)

    def top_up(nano: int, lease: LeaseId = opened.lease) -> TopUpLease:
        return TopUpLease(lease=lease, escrow=Escrow.USAGE, amount_nano=nano)

    assert world.refused("alice-0", top_up(1)) == "key_role_not_allowed"
    assert world.refused("bob", top_up(1, NOWHERE)) == "lease_unknown"
    assert world.refused("alice", top_up(0)) == "lease_not_yours"
    assert world.refused("bob", top_up(0)) == "top_up_out_of_range"
    assert world.refused("bob", top_up(2**62)) == "top_up_out_of_range"
    assert world.refused("bob", top_up(992 * SYNOR)) == "top_up_not_covered"
    world.ok("bob", top_up(5))
    assert escrows(world, opened.lease) == (8 * SYNOR, SYNOR + 5)
    both = TopUpLease(lease=opened.lease, escrow=Escrow.ALLOCATED, amount_nano=7)
    world.ok("bob", both)
    state = world.state(opened.lease)
    assert (state.escrow_allocated_nano, state.escrow_usage_nano) == (8 * SYNOR + 7, SYNOR + 5)
    world.ok("bob", CloseLease(lease=opened.lease))
    assert world.refused("bob", top_up(1)) == "lease_over"
    world.check_replay()


# Every path


def _reclaim(world: World, lease: LeaseId) -> None:
    world.ok("alice", ReclaimLease(lease=lease, deadline_us=world.now + 5 * MINUTE))
    world.wait(5 * MINUTE)


def _down(world: World, lease: LeaseId) -> None:
    world.node_down(world.state(lease).terms.node)
    world.wait(15 * MINUTE)


def _slash(world: World, lease: LeaseId) -> None:
    _ruin(world, world.state(lease).terms.provider)


def _ruin(world: World, provider: bytes) -> None:
    world.market.deadlines.set(MarketDue.PROVIDER_RUINED, provider, world.market.time_us)
    world.wait(0)


ENDS: dict[EndReason, Any] = {
    EndReason.COMPLETED: lambda w, i: w.wait(HOUR) + w.ok("alice-0", CompleteLease(lease=i)),
    EndReason.EXPIRED: lambda w, i: w.wait(2 * HOUR),
    EndReason.BUYER_CLOSED: lambda w, i: w.ok("bob", CloseLease(lease=i)),
    EndReason.BUYER_REJECTED: lambda w, i: w.ok("bob", RejectLease(lease=i)),
    EndReason.EXHAUSTED: lambda w, i: state_usage(
        w, i, covered_us=0, quantities={"network.egress": 10**15}
    ),
    EndReason.PROVIDER_RECLAIMED: _reclaim,
    EndReason.PROVIDER_FAILED: lambda w, i: w.ok("alice", FailLease(lease=i)),
    EndReason.NODE_DOWN_TOO_LONG: _down,
    EndReason.SLASHED: _slash,
}


@pytest.mark.parametrize("reason", ENDS, ids=lambda reason: reason.value.lower())
def test_on_every_path_both_escrows_end_at_zero(reason: EndReason) -> None:
    """Reason, refund, and no deadline left behind (R8.6)."""
    world, opened = leased(
        ask=RECLAIMABLE, metered={"network.egress": 10}, usage_budget_nano=2 * SYNOR
    )
    world.wait(3 * MINUTE)
    ENDS[reason](world, opened.lease)
    assert ended(world).reason is reason
    free = world.free("bob")
    held = sum(escrows(world, opened.lease))
    closing = close_out(world, opened.lease, covered_us=2 * MINUTE, network_egress=10**9)
    closed = closing[-1]
    assert isinstance(closed, LeaseClosed)
    assert escrows(world, opened.lease) == (0, 0)
    assert world.free("bob") == free + closed.refund_nano
    assert closed.refund_nano <= held
    state = world.state(opened.lease)
    assert isinstance(state, ClosedLease)
    assert (state.reason, state.refund_nano) == (reason, closed.refund_nano)
    kinds = (
        MarketDue.LEASE_NOT_READY,
        MarketDue.LEASE_EXPIRES,
        MarketDue.RECLAIM,
        MarketDue.OPEN_LEASE,
    )
    assert not any((kind, opened.lease) in world.market.deadlines._due for kind in kinds)
    assert (MarketDue.NODE_DOWN_TOO_LONG, opened.node) not in world.market.deadlines._due
    assert world.balance(Purse.RESERVED, opened.bid) == 0
    world.check_replay()


def test_a_statement_after_the_close_moves_nothing() -> None:
    """Nor does one of a lease that was never active, or that nobody knows (R4.6)."""
    world, opened = leased()
    world.ok("bob", CloseLease(lease=opened.lease))
    close_out(world, opened.lease, covered_us=MINUTE)
    before = world.free("bob")
    assert state_usage(world, opened.lease, covered_us=HOUR, final=True) == []
    assert world.free("bob") == before
    world, opened = leased(ready=False)
    assert state_usage(world, opened.lease, covered_us=MINUTE) == []
