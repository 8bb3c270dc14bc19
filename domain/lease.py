"""Leases: from match to ready to end, with two escrows, statements, refund (R4, R8)."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

from domain.bid import MeteredLimit
from domain.ids import AccountId, BidId, LeaseId, NodeId, OfferId, ProviderId, RoundId, Wide
from domain.journal import Posting
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


#: Ends by the provider or the operator: the first hour's accrual returns to the buyer (R8.3).
PROVIDER_ENDS = frozenset(
    {
        EndReason.PROVIDER_RECLAIMED,
        EndReason.PROVIDER_FAILED,
        EndReason.NODE_DOWN_TOO_LONG,
        EndReason.SLASHED,
        EndReason.OPERATOR,
    }
)


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


LeaseEvent = (
    LeaseOpened
    | LeaseReady
    | LeaseToppedUp
    | ReclaimAnnounced
    | UsagePosted
    | LeaseEnded
    | LeaseClosed
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
