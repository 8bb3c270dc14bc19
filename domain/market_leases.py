"""The market's rules on leases: from a fill to ready, usage, end and refund (R4, R8)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from heapq import nsmallest
from typing import TYPE_CHECKING, Any, Final

from domain import lease
from domain.bid import BidFilled, LiveBid, MeteredLimit, lot_worst_case
from domain.charging import decide_post, early_charge
from domain.due import MarketDue
from domain.genesis import Parameters, Role
from domain.ids import AggregateId
from domain.invariant import InvariantBroken
from domain.journal import Purse, move
from domain.key import RowRefused
from domain.lease import (
    BREAKS,
    ActiveLease,
    CloseLease,
    ClosingLease,
    CompleteLease,
    EndReason,
    FailLease,
    LeaseClosed,
    LeaseEnded,
    LeaseOpened,
    LeaseReady,
    LeaseState,
    LeaseToppedUp,
    LiveLease,
    OpenedLease,
    ReadyLeases,
    ReclaimAnnounced,
    ReclaimLease,
    RejectLease,
    ReservationBroken,
    TopUpLease,
    UsagePosted,
)
from domain.lease_decisions import (
    decide_close,
    decide_end,
    decide_ready,
    decide_reclaim,
    decide_reject,
    decide_top_up,
    require_active,
    require_live,
)
from domain.leases_fold import LeasesFold
from domain.market_orders import capacity_freed
from domain.market_registry import role_refused, row_refused, rows_refused
from domain.node import Amount
from domain.offer import LiveOffer
from domain.refusal import Refused
from domain.reservation import decide_break
from domain.telemetry import UsageStated

if TYPE_CHECKING:
    from domain.market import Market, Request
    from domain.processor import ForeignCommit

__all__ = ["EVOLVE", "FIRE", "HANDLERS", "LEARN", "LeasesFold", "provider_ruined"]

#: Leases that end for one reason in one item, so that a commit keeps within its bounds; the
#: deadline stands again at the same instant while there are more.
ENDS_PER_ITEM: Final = 512


# Who may act for which side


def lease_of(market: Market, named: bytes) -> LeaseState | None:
    """The lease that a command names; None where nothing or something else has that id."""
    state = market.unit.state(AggregateId(named))
    return state if isinstance(state, LeaseState) else None


def _for_provider(request: Request, state: LeaseState | None, *roles: Role) -> bool:
    """Whether the key acts for the provider; a node's key only for its own node."""
    if state is None:
        return False
    holder = request.holder
    if holder.role is Role.NODE:
        return Role.NODE in roles and holder.node == state.terms.node
    return holder.role in roles and holder.account == state.terms.account


def _for_buyer(request: Request, state: LeaseState | None) -> bool:
    return state is not None and request.holder.account == state.terms.buyer


# Commands


def ready_leases(market: Market, request: Request) -> Refused | Sequence[RowRefused]:
    """Leases that can be used from now on, row by row."""
    roles = (Role.OWNER, Role.GATEWAY, Role.NODE)
    wrong = rows_refused(market, len(request.command.leases)) or role_refused(request, *roles)
    if wrong is not None:
        return wrong
    refused: list[RowRefused] = []
    for number, named in enumerate(request.command.leases):
        state = lease_of(market, named)
        said = decide_ready(
            state, may_sign=_for_provider(request, state, *roles), at_us=market.time_us
        )
        if isinstance(said, Refused):
            refused.append(row_refused(number, said))
        else:
            market.emit(AggregateId(named), said)
    return refused


def close_lease(market: Market, request: Request) -> Refused | Sequence[RowRefused]:
    """The buyer ends a running lease (R8.4).

    One that is not ready cannot be closed: it is either ready or has failed within minutes, and
    closing it free of charge would hold capacity for nothing.
    """
    wrong = role_refused(request, Role.OWNER)
    if wrong is not None:
        return wrong
    state = lease_of(market, request.command.lease)
    active = require_active(state, may_sign=_for_buyer(request, state))
    if isinstance(active, Refused):
        return active
    end_lease(market, active, EndReason.BUYER_CLOSED, market.time_us)
    return ()


def reject_lease(market: Market, request: Request) -> Refused | Sequence[RowRefused]:
    """The buyer rejects a lease in its first minutes, at no charge (R4.4)."""
    wrong = role_refused(request, Role.OWNER)
    if wrong is not None:
        return wrong
    state = lease_of(market, request.command.lease)
    parameters = market.folds.leases.parameters(request.command.lease)
    active = decide_reject(
        state,
        may_sign=_for_buyer(request, state),
        rejections=market.folds.leases.rejections(
            request.holder.account, market.time_us - parameters.rejections_within_us
        ),
        at_us=market.time_us,
        parameters=parameters,
    )
    if isinstance(active, Refused):
        return active
    end_lease(market, active, EndReason.BUYER_REJECTED, market.time_us)
    return ()


def top_up_lease(market: Market, request: Request) -> Refused | Sequence[RowRefused]:
    """More money of the buyer in one escrow."""
    wrong = role_refused(request, Role.OWNER)
    if wrong is not None:
        return wrong
    command: TopUpLease = request.command
    state = lease_of(market, command.lease)
    said = decide_top_up(
        state,
        may_sign=_for_buyer(request, state),
        escrow=command.escrow,
        amount_nano=command.amount_nano,
        free_nano=market.folds.balances.of(Purse.FREE, request.holder.account),
        at_us=market.time_us,
    )
    if isinstance(said, Refused):
        return said
    market.emit(AggregateId(command.lease), said)
    return ()


def reclaim_lease(market: Market, request: Request) -> Refused | Sequence[RowRefused]:
    """The provider announces that it takes an interruptible lease back (R8.5)."""
    roles = (Role.OWNER, Role.GATEWAY)
    wrong = role_refused(request, *roles)
    if wrong is not None:
        return wrong
    state = lease_of(market, request.command.lease)
    said = decide_reclaim(
        state,
        may_sign=_for_provider(request, state, *roles),
        deadline_us=request.command.deadline_us,
        at_us=market.time_us,
        reclaim_notice_us=market.folds.leases.parameters(request.command.lease).reclaim_notice_us,
    )
    if isinstance(said, Refused):
        return said
    market.emit(AggregateId(request.command.lease), said)
    return ()


def complete_lease(market: Market, request: Request) -> Refused | Sequence[RowRefused]:
    """The workload ended by itself, says the node or the gateway that signs for it."""
    roles = (Role.GATEWAY, Role.NODE)
    wrong = role_refused(request, *roles)
    if wrong is not None:
        return wrong
    state = lease_of(market, request.command.lease)
    active = market.rules.decide_complete(
        state,
        may_sign=_for_provider(request, state, *roles),
        at_us=market.time_us,
        parameters=market.folds.leases.parameters(request.command.lease),
    )
    if isinstance(active, Refused):
        return active
    end_lease(market, active, EndReason.COMPLETED, market.time_us)
    return ()


def fail_lease(market: Market, request: Request) -> Refused | Sequence[RowRefused]:
    """The provider gives a lease up, ready or not."""
    roles = (Role.OWNER, Role.GATEWAY)
    wrong = role_refused(request, *roles)
    if wrong is not None:
        return wrong
    state = lease_of(market, request.command.lease)
    live = require_live(state, may_sign=_for_provider(request, state, *roles))
    if isinstance(live, Refused):
        return live
    end_lease(market, live, EndReason.PROVIDER_FAILED, market.time_us)
    return ()


# Deadlines


def open_lease(market: Market, due_us: int, named: bytes) -> None:
    """A fill of a cleared round becomes a lease: reserved → its two escrows, the rest → free.

    The worst case at the round's price is rounded per lot, as the reservation was, so what is
    released has no remainder however a bid is filled (R4.2).
    """
    won = market.folds.leases.won(named)
    fill = won.fill
    bid = market.unit.state(AggregateId(fill.bid))
    offer = market.unit.state(AggregateId(fill.offer))
    if not isinstance(bid, LiveBid) or not isinstance(offer, LiveOffer):
        raise InvariantBroken("orders that were filled are live until their leases are open")
    allocated = fill.lots * lot_worst_case(
        market.folds.registry.catalogue,
        resource=bid.resource,
        lot_milli=bid.lot_milli,
        price_nano=won.price_nano,
        term_us=bid.term_us,
        allocations=bid.allocations,
    )
    usage = fill.lots * bid.lot_usage_nano
    reserved = (Purse.RESERVED, bytes(fill.bid))
    opened = LeaseOpened(
        at_us=due_us,
        lease=fill.lease,
        bid=fill.bid,
        offer=fill.offer,
        instrument=won.instrument,
        round=won.round,
        buyer=bid.account,
        provider=offer.provider,
        account=offer.account,
        node=fill.node,
        resource=bid.resource,
        price_nano=won.price_nano,
        term_us=bid.term_us,
        ready_by_us=due_us + market.parameters.ready_within_us,
        allocations=(
            Amount(resource=bid.resource, amount=fill.lots * bid.lot_milli),
            *(
                Amount(resource=each.resource, amount=fill.lots * each.amount)
                for each in bid.allocations
            ),
        ),
        metered=tuple(
            MeteredLimit(resource=each.resource, per_second=fill.lots * each.per_second)
            for each in bid.metered
        ),
        interruptible=offer.interruptible,
        notice_us=offer.notice_us,
        reserved=bid.reserved,
        escrow_allocated_nano=allocated,
        escrow_usage_nano=usage,
        postings=(
            *move(reserved, (Purse.ESCROW_ALLOCATED, fill.lease), allocated),
            *move(reserved, (Purse.ESCROW_USAGE, fill.lease), usage),
            *move(
                reserved, (Purse.FREE, bid.account), fill.lots * bid.lot_allocated_nano - allocated
            ),
        ),
    )
    market.emit(AggregateId(fill.lease), opened)
    market.emit(
        AggregateId(fill.bid),
        BidFilled(at_us=due_us, bid=fill.bid, lots=fill.lots, open_lots=bid.open_lots - fill.lots),
    )


def lease_not_ready(market: Market, due_us: int, named: bytes) -> None:
    """Nothing is charged for a lease that its provider did not make ready in time (R4.4)."""
    _end_due(market, named, EndReason.PROVIDER_FAILED, due_us)


def lease_reclaimed(market: Market, due_us: int, named: bytes) -> None:
    """The announced deadline of a reclaim."""
    _end_due(market, named, EndReason.PROVIDER_RECLAIMED, due_us)


def lease_expires(market: Market, due_us: int, named: bytes) -> None:
    """The end of the term."""
    _end_due(market, named, EndReason.EXPIRED, due_us)


def node_down_too_long(market: Market, due_us: int, named: bytes) -> None:
    """The active leases of a node that stays silent end (R8.5); of very many, some an item."""
    for each in nsmallest(ENDS_PER_ITEM, market.folds.leases.active_of(named)):
        _end_due(market, each, EndReason.NODE_DOWN_TOO_LONG, due_us)


def _end_due(market: Market, named: bytes, reason: EndReason, due_us: int) -> None:
    state = market.unit.state(AggregateId(named))
    if not isinstance(state, (OpenedLease, ActiveLease)):
        raise InvariantBroken("a lease that is over has no deadline")
    end_lease(market, state, reason, due_us)


# Ends


def end_lease(market: Market, state: LiveLease, reason: EndReason, at_us: int) -> None:
    """End a lease; its capacity is free in the same item (R8.6)."""
    parameters = market.folds.leases.parameters(state.terms.lease)
    early = 0
    if isinstance(state, ActiveLease) and reason is EndReason.BUYER_CLOSED:
        early = early_charge(state, market.folds.registry.catalogue, parameters, at_us)
    for event in decide_end(
        state,
        reason=reason,
        early_nano=early,
        at_us=at_us,
        closing_us=parameters.closing_us,
    ):
        market.emit(AggregateId(state.terms.lease), event)
    if state.terms.reserved and reason in BREAKS:
        _break_reservation(market, state, parameters, at_us)
    capacity_freed(market, state.terms.node, at_us)


def _break_reservation(
    market: Market, state: LiveLease, parameters: Parameters, at_us: int
) -> None:
    """What the provider's end of a reserved lease costs it (R8.5)."""
    folds = market.folds
    terms = state.terms
    owner_of = folds.registry.beneficial_owner
    said = decide_break(
        state,
        catalogue=folds.registry.catalogue,
        reference_nano=folds.orders.reference(terms.instrument, terms.resource, at_us),
        within_us=parameters.broken_within_us,
        stake=folds.stake.stake(terms.provider),
        own=owner_of(terms.buyer) == owner_of(terms.account),
        at_us=at_us,
    )
    if said is None:
        return
    broken, forfeited = said
    market.emit(AggregateId(terms.lease), broken)
    if forfeited is not None:
        market.emit(AggregateId(terms.provider), forfeited)


def provider_ruined(market: Market, due_us: int, named: bytes) -> None:
    """End live leases of a provider, all of whose stake is slashed; of very many, some an item."""
    for each in nsmallest(ENDS_PER_ITEM, market.folds.leases.live_of(named)):
        _end_due(market, each, EndReason.SLASHED, due_us)


# What metering says


def usage_stated(market: Market, commit: ForeignCommit, stated: UsageStated) -> None:
    """Charge a statement; the last one closes the lease and returns what is left.

    A statement about a lease that never was active, or is closed, moves no money (R4.6).
    """
    aggregate = AggregateId(stated.lease)
    state = market.unit.state(aggregate)
    if not isinstance(state, (ActiveLease, ClosingLease)):
        return
    said = decide_post(
        state,
        stated,
        catalogue=market.folds.registry.catalogue,
        parameters=market.folds.leases.parameters(stated.lease),
        at_us=market.time_us,
    )
    market.emit(aggregate, said.posted)
    now = market.unit.state(aggregate)
    if said.exhausted and isinstance(now, ActiveLease):
        end_lease(market, now, EndReason.EXHAUSTED, market.time_us)
    if said.posted.final and isinstance(now, ClosingLease):
        market.emit(aggregate, decide_close(now, at_us=market.time_us))


HANDLERS: Final[Mapping[type[Any], Callable[[Market, Request], Refused | Sequence[RowRefused]]]] = {
    ReadyLeases: ready_leases,
    CloseLease: close_lease,
    RejectLease: reject_lease,
    TopUpLease: top_up_lease,
    ReclaimLease: reclaim_lease,
    CompleteLease: complete_lease,
    FailLease: fail_lease,
}
FIRE: Final[Mapping[int, Callable[[Market, int, bytes], None]]] = {
    MarketDue.PROVIDER_RUINED: provider_ruined,
    MarketDue.OPEN_LEASE: open_lease,
    MarketDue.LEASE_NOT_READY: lease_not_ready,
    MarketDue.LEASE_EXPIRES: lease_expires,
    MarketDue.RECLAIM: lease_reclaimed,
    MarketDue.NODE_DOWN_TOO_LONG: node_down_too_long,
}
LEARN: Final[Mapping[type[Any], Callable[[Market, ForeignCommit, Any], None]]] = {
    UsageStated: usage_stated,
}
EVOLVE: Final[Mapping[type[Any], Callable[[Any, Any], Any]]] = {
    LeaseOpened: lease.evolve,
    LeaseReady: lease.evolve,
    LeaseToppedUp: lease.evolve,
    ReclaimAnnounced: lease.evolve,
    UsagePosted: lease.evolve,
    LeaseEnded: lease.evolve,
    LeaseClosed: lease.evolve,
    ReservationBroken: lease.evolve,
}
