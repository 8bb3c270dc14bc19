"""Leases: from match to ready to end, with two escrows, statements, refund (R4, R8).

What may be asked of a lease, and what it answers, stands in ``lease_decisions``; what a statement
costs in ``charging``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Annotated, Any, TypeVar, assert_never

from domain.bid import MeteredLimit
from domain.ids import AccountId, BidId, LeaseId, NodeId, OfferId, ProviderId, RoundId, Wide
from domain.invariant import InvariantBroken, invariant
from domain.journal import Posting, Purse
from domain.node import Amount
from domain.record import record


class EndReason(Enum):
    """Why a lease ended (R8.6)."""

    COMPLETED = "COMPLETED"
    EXPIRED = "EXPIRED"
    BUYER_CLOSED = "BUYER_CLOSED"
    BUYER_REJECTED = "BUYER_REJECTED"
    EXHAUSTED = "EXHAUSTED"
    PROVIDER_RECLAIMED = "PROVIDER_RECLAIMED"
    PROVIDER_FAILED = "PROVIDER_FAILED"
    NODE_DOWN_TOO_LONG = "NODE_DOWN_TOO_LONG"
    SLASHED = "SLASHED"
    MOVED = "MOVED"
    OPERATOR = "OPERATOR"


#: Ends by the provider: a reserved lease that ends so is a broken reservation (R8.5).
BREAKS = frozenset(
    {
        EndReason.PROVIDER_RECLAIMED,
        EndReason.PROVIDER_FAILED,
        EndReason.NODE_DOWN_TOO_LONG,
        EndReason.SLASHED,
    }
)
#: Ends by the provider or the operator: the first hour's accrual returns to the buyer (R8.3).
PROVIDER_ENDS = BREAKS | {EndReason.OPERATOR}


class Escrow(Enum):
    """The two escrows of a lease; neither pays for the other (R4.2)."""

    ALLOCATED = "ALLOCATED"
    USAGE = "USAGE"


@record("synor.lease.v1.LeaseOpened")
class LeaseOpened:
    """A match: reserved → the two escrows, the rest of the lots' reservation → free."""

    at_us: Annotated[int, "effective time, µs UTC"]
    lease: Annotated[LeaseId, "the lease; aggregate id"]
    bid: Annotated[BidId, "bid that it fills; the gang of its leases"]
    offer: Annotated[OfferId, "ask that it fills"]
    instrument: Annotated[RoundId, "instrument"]
    round: Annotated[int, "number of the round"]
    buyer: Annotated[AccountId, "account that pays"]
    provider: Annotated[ProviderId, "provider"]
    account: Annotated[AccountId, "account that earns"]
    node: Annotated[NodeId, "node for life"]
    resource: Annotated[str, "device resource, priced by the round"]
    price_nano: Annotated[int, "price of the device resource per device·hour"]
    term_us: Annotated[int, "term from ready on"]
    ready_by_us: Annotated[int, "not ready by then: provider failed"]
    allocations: Annotated[tuple[Amount, ...], "all allocated resources, the device's first"]
    metered: Annotated[tuple[MeteredLimit, ...], "metered resources with their limits"]
    interruptible: Annotated[bool, "the provider may reclaim it with notice"]
    notice_us: Annotated[int, "notice of a reclaim"]
    reserved: Annotated[bool, "reserved lease (R8.4, R8.5)"]
    escrow_allocated_nano: Annotated[int, "escrow for allocated resources"]
    escrow_usage_nano: Annotated[int, "escrow for metered resources"]
    postings: Annotated[tuple[Posting, ...], "reserved → escrows and free"]


@record("synor.lease.v1.LeaseReady")
class LeaseReady:
    """Active from here; the term runs."""

    at_us: Annotated[int, "effective time, µs UTC"]
    lease: Annotated[LeaseId, "the lease"]
    node: Annotated[NodeId, "its node"]
    expires_us: Annotated[int, "end of the term"]


@record("synor.lease.v1.LeaseToppedUp")
class LeaseToppedUp:
    """More money in one escrow: free → escrow."""

    at_us: Annotated[int, "effective time, µs UTC"]
    lease: Annotated[LeaseId, "the lease"]
    escrow: Annotated[Escrow, "which escrow"]
    amount_nano: Annotated[int, "nano SYNOR"]
    postings: Annotated[tuple[Posting, ...], "free → escrow"]


@record("synor.lease.v1.ReclaimAnnounced")
class ReclaimAnnounced:
    """The provider will take the capacity back; the instant that counts is the deadline (R8.5)."""

    at_us: Annotated[int, "effective time, µs UTC"]
    lease: Annotated[LeaseId, "the lease"]
    deadline_us: Annotated[int, "when the lease ends"]


@record("synor.lease.v1.UsageLine")
class UsageLine:
    """One resource of a statement, everything cumulative since the lease's start."""

    resource: Annotated[str, "catalogue resource"]
    quantity: Annotated[int, "cumulative quantity in base units"]
    charged_nano: Annotated[int, "cumulative charge by the rule"]
    posted_nano: Annotated[int, "cumulative part of it that is posted"]
    protocol_nano: Annotated[int, "protocol's cumulative part of what is posted"]
    unfunded_nano: Annotated[int, "cumulative part that the escrow did not cover"]


@record("synor.lease.v1.UsagePosted")
class UsagePosted:
    """A statement, charged: escrows → pending shares."""

    at_us: Annotated[int, "effective time, µs UTC"]
    lease: Annotated[LeaseId, "the lease"]
    account: Annotated[AccountId, "provider's account"]
    window_end_us: Annotated[int, "the statement's window end"]
    covered_us: Annotated[int, "cumulative covered time"]
    lines: Annotated[tuple[UsageLine, ...], "lines whose quantity or posting changed, in row order"]
    provider_nano: Annotated[Wide, "posted now for the provider"]
    protocol_nano: Annotated[Wide, "posted now for the protocol"]
    final: Annotated[bool, "the lease's last statement"]
    postings: Annotated[tuple[Posting, ...], "escrows → pending, protocol pending"]


@record("synor.lease.v1.LeaseEnded")
class LeaseEnded:
    """The lease is over for both sides; its capacity is free. It closes after `closing`."""

    at_us: Annotated[int, "effective time, or the deadline, µs UTC"]
    lease: Annotated[LeaseId, "the lease"]
    node: Annotated[NodeId, "its node"]
    reason: Annotated[EndReason, "who and why"]
    was_active: Annotated[bool, "False where it never was ready"]
    closing_us: Annotated[int, "readings are taken before this instant"]
    early_nano: Annotated[int, "charged for leaving early beside usage (R8.4)"]
    postings: Annotated[tuple[Posting, ...], "early charge; full refund where never active"]


@record("synor.lease.v1.LeaseClosed")
class LeaseClosed:
    """Final: both escrows are at zero."""

    at_us: Annotated[int, "effective time, µs UTC"]
    lease: Annotated[LeaseId, "the lease"]
    refund_nano: Annotated[Wide, "what returns to the buyer"]
    postings: Annotated[tuple[Posting, ...], "escrows → free"]


@record("synor.lease.v1.ReservationBroken")
class ReservationBroken:
    """The provider ended a reserved lease: its node owes the rest, the buyer is compensated."""

    at_us: Annotated[int, "effective time, or the deadline, µs UTC"]
    lease: Annotated[LeaseId, "the lease"]
    node: Annotated[NodeId, "its node, obliged and down from here on (R8.5)"]
    provider: Annotated[ProviderId, "its provider"]
    buyer: Annotated[AccountId, "who is compensated"]
    until_us: Annotated[int, "the agreed end, or the longest time that a broken one binds"]
    reference_nano: Annotated[int, "reference price per device·hour at this instant"]
    due_nano: Annotated[Wide, "max(0, reference − lease price) × device time until then"]
    taken_nano: Annotated[Wide, "what reachable stake covered"]
    shortfall_nano: Annotated[Wide, "due − taken; recorded, never a debt"]
    postings: Annotated[tuple[Posting, ...], "stake, unbonding → the buyer's free"]


LeaseEvent = (
    LeaseOpened
    | LeaseReady
    | LeaseToppedUp
    | ReclaimAnnounced
    | UsagePosted
    | LeaseEnded
    | LeaseClosed
    | ReservationBroken
)


# Commands


@record("synor.command.v1.ReadyLeases")
class ReadyLeases:
    """The provider (owner, gateway) or the node says that leases can be used."""

    leases: Annotated[tuple[LeaseId, ...], "leases"]


@record("synor.command.v1.CloseLease")
class CloseLease:
    """The buyer ends a lease (R8.4)."""

    lease: Annotated[LeaseId, "the lease"]


@record("synor.command.v1.RejectLease")
class RejectLease:
    """The buyer rejects a lease within its first minutes, at no charge (R4.4)."""

    lease: Annotated[LeaseId, "the lease"]


@record("synor.command.v1.TopUpLease")
class TopUpLease:
    """The buyer adds money to one escrow."""

    lease: Annotated[LeaseId, "the lease"]
    escrow: Annotated[Escrow, "which escrow"]
    amount_nano: Annotated[int, "nano SYNOR, above zero"]


@record("synor.command.v1.ReclaimLease")
class ReclaimLease:
    """The provider takes an interruptible lease back at a deadline."""

    lease: Annotated[LeaseId, "the lease"]
    deadline_us: Annotated[int, "when it ends; not before now + notice"]


@record("synor.command.v1.CompleteLease")
class CompleteLease:
    """The node says that the workload ended by itself."""

    lease: Annotated[LeaseId, "the lease"]


@record("synor.command.v1.FailLease")
class FailLease:
    """The provider gives a lease up."""

    lease: Annotated[LeaseId, "the lease"]


# States


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseTerms:
    """What was agreed by the match; the same for life."""

    lease: LeaseId
    bid: BidId
    offer: OfferId
    instrument: RoundId
    buyer: AccountId
    provider: ProviderId
    account: AccountId
    node: NodeId
    resource: str
    price_nano: int
    term_us: int
    allocations: tuple[Amount, ...]
    metered: tuple[MeteredLimit, ...]
    interruptible: bool
    notice_us: int
    reserved: bool

    def allocated(self, resource: str) -> int | None:
        """The allocation of a resource; None where it has none (it is metered, then)."""
        for each in self.allocations:
            if each.resource == resource:
                return each.amount
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedLease:
    """Matched and paid for, not ready."""

    terms: LeaseTerms
    opened_us: int
    ready_by_us: int
    escrow_allocated_nano: int
    escrow_usage_nano: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveLease:
    """Ready: the term runs and usage is charged."""

    terms: LeaseTerms
    opened_us: int
    ready_us: int
    expires_us: int
    reclaim_us: int | None  # announced deadline
    escrow_allocated_nano: int
    escrow_usage_nano: int
    covered_us: int
    lines: tuple[UsageLine, ...]  # by resource


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosingLease:
    """Over for both sides; its last statement is awaited. Without ``ready_us``: never active."""

    terms: LeaseTerms
    opened_us: int
    ready_us: int | None
    ended_us: int
    closing_us: int
    reason: EndReason
    early_nano: int
    escrow_allocated_nano: int
    escrow_usage_nano: int
    covered_us: int
    lines: tuple[UsageLine, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedLease:
    """Final, with its line items; there is no escrow any more."""

    terms: LeaseTerms
    opened_us: int
    ready_us: int | None
    ended_us: int
    closed_us: int
    reason: EndReason
    covered_us: int
    lines: tuple[UsageLine, ...]
    refund_nano: int


LeaseState = OpenedLease | ActiveLease | ClosingLease | ClosedLease
LiveLease = OpenedLease | ActiveLease


# Evolve


def evolve(state: LeaseState | None, event: LeaseEvent) -> LeaseState:
    """The lease after the event. Escrows follow the event's postings and nothing else."""
    match event:
        case LeaseOpened():
            return _opened(event)
        case LeaseReady():
            opened = _as(OpenedLease, state)
            return ActiveLease(
                terms=opened.terms,
                opened_us=opened.opened_us,
                ready_us=event.at_us,
                expires_us=event.expires_us,
                reclaim_us=None,
                escrow_allocated_nano=opened.escrow_allocated_nano,
                escrow_usage_nano=opened.escrow_usage_nano,
                covered_us=0,
                lines=(),
            )
        case LeaseToppedUp():
            live = state if isinstance(state, OpenedLease) else _as(ActiveLease, state)
            allocated, usage = _escrows(live, event.postings)
            return replace(live, escrow_allocated_nano=allocated, escrow_usage_nano=usage)
        case ReclaimAnnounced():
            return replace(_as(ActiveLease, state), reclaim_us=event.deadline_us)
        case UsagePosted():
            return _posted(state, event)
        case LeaseEnded():
            return _ended(state, event)
        case LeaseClosed():
            closing = _as(ClosingLease, state)
            left = _escrows(closing, event.postings)
            invariant(left == (0, 0), "a closed lease has nothing in escrow")
            return ClosedLease(
                terms=closing.terms,
                opened_us=closing.opened_us,
                ready_us=closing.ready_us,
                ended_us=closing.ended_us,
                closed_us=event.at_us,
                reason=closing.reason,
                covered_us=closing.covered_us,
                lines=closing.lines,
                refund_nano=event.refund_nano,
            )
        case ReservationBroken():
            return state if isinstance(state, ClosedLease) else _as(ClosingLease, state)
        case _:
            assert_never(event)


S = TypeVar("S")


def _as(kind: type[S], state: Any) -> S:
    """The state, which must be of this kind: events come in the order of the life of a lease."""
    if not isinstance(state, kind):
        raise InvariantBroken(f"{kind.__name__} awaited, {type(state).__name__} found")
    return state


def _opened(event: LeaseOpened) -> OpenedLease:
    return OpenedLease(
        terms=LeaseTerms(
            lease=event.lease,
            bid=event.bid,
            offer=event.offer,
            instrument=event.instrument,
            buyer=event.buyer,
            provider=event.provider,
            account=event.account,
            node=event.node,
            resource=event.resource,
            price_nano=event.price_nano,
            term_us=event.term_us,
            allocations=event.allocations,
            metered=event.metered,
            interruptible=event.interruptible,
            notice_us=event.notice_us,
            reserved=event.reserved,
        ),
        opened_us=event.at_us,
        ready_by_us=event.ready_by_us,
        escrow_allocated_nano=event.escrow_allocated_nano,
        escrow_usage_nano=event.escrow_usage_nano,
    )


def _posted(state: LeaseState | None, event: UsagePosted) -> ActiveLease | ClosingLease:
    running = state if isinstance(state, ActiveLease) else _as(ClosingLease, state)
    lines = {line.resource: line for line in (*running.lines, *event.lines)}
    allocated, usage = _escrows(running, event.postings)
    return replace(
        running,
        covered_us=event.covered_us,
        lines=tuple(lines[resource] for resource in sorted(lines)),
        escrow_allocated_nano=allocated,
        escrow_usage_nano=usage,
    )


def _ended(state: LeaseState | None, event: LeaseEnded) -> ClosingLease:
    live = state if isinstance(state, OpenedLease) else _as(ActiveLease, state)
    allocated, usage = _escrows(live, event.postings)
    return ClosingLease(
        terms=live.terms,
        opened_us=live.opened_us,
        ready_us=live.ready_us if isinstance(live, ActiveLease) else None,
        ended_us=event.at_us,
        closing_us=event.closing_us,
        reason=event.reason,
        early_nano=event.early_nano,
        covered_us=live.covered_us if isinstance(live, ActiveLease) else 0,
        lines=live.lines if isinstance(live, ActiveLease) else (),
        escrow_allocated_nano=allocated,
        escrow_usage_nano=usage,
    )


def _escrows(
    state: OpenedLease | ActiveLease | ClosingLease, postings: tuple[Posting, ...]
) -> tuple[int, int]:
    """Both escrows (allocated, usage) after the postings of an event of this lease."""
    allocated, usage = state.escrow_allocated_nano, state.escrow_usage_nano
    for posting in postings:
        if posting.purse is Purse.ESCROW_ALLOCATED:
            allocated += posting.amount_nano
        elif posting.purse is Purse.ESCROW_USAGE:
            usage += posting.amount_nano
    return allocated, usage
