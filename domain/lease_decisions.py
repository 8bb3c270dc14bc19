"""Decisions on leases: who may do what to one, and which events that makes (R4.4, R8.4, R8.5)."""

from __future__ import annotations

from typing import Final, assert_never

from domain.genesis import Parameters
from domain.ids import QUANTITY_MAX, Wide
from domain.journal import Posting, Purse, move
from domain.lease import (
    ActiveLease,
    ClosedLease,
    ClosingLease,
    EndReason,
    Escrow,
    LeaseClosed,
    LeaseEnded,
    LeaseReady,
    LeaseState,
    LeaseToppedUp,
    LiveLease,
    OpenedLease,
    ReclaimAnnounced,
)
from domain.refusal import Code, Refused, code

# Refusals

LEASE_UNKNOWN: Final[Code] = code(601, "lease_unknown", "Name a lease that was opened.")
LEASE_NOT_YOURS: Final[Code] = code(
    602, "lease_not_yours", "Sign with a key of the side of the lease that may do this."
)
LEASE_OVER: Final[Code] = code(603, "lease_over", "Nothing to do: the lease has ended.")
LEASE_ALREADY_READY: Final[Code] = code(
    604, "lease_already_ready", "Nothing to do: the lease is active."
)
LEASE_NOT_READY: Final[Code] = code(
    605, "lease_not_ready", "Wait until the lease is ready or has failed."
)
REJECTED_TOO_LATE: Final[Code] = code(
    606, "rejected_too_late", "Close the lease; the time to reject it at no charge is over."
)
TOO_MANY_REJECTIONS: Final[Code] = code(
    607, "too_many_rejections", "Close the lease; so many a day may be rejected at no charge."
)
NOT_INTERRUPTIBLE: Final[Code] = code(
    608, "not_interruptible", "Let the lease run, or give it up as failed."
)
ALREADY_RECLAIMED: Final[Code] = code(
    609, "already_reclaimed", "Nothing to do: its reclaim is announced."
)
RECLAIM_TOO_SOON: Final[Code] = code(
    610, "reclaim_too_soon", "Name a deadline that leaves the agreed notice."
)
TOP_UP_OUT_OF_RANGE: Final[Code] = code(
    611, "top_up_out_of_range", "Add more than nothing, and at most 2^62 in all."
)
TOP_UP_NOT_COVERED: Final[Code] = code(
    612, "top_up_not_covered", "Deposit first, or add at most the free balance."
)
RESERVED_UNTIL_ITS_END: Final[Code] = code(
    613,
    "reserved_until_its_end",
    "Let the reserved lease run: its buyer may close it; to give it up say that it failed.",
)
COMPLETED_TOO_EARLY: Final[Code] = code(
    614,
    "completed_too_early",
    "Wait until the first hour has passed, or give the lease up as failed.",
)


# Decide


def decide_ready(state: LeaseState | None, *, may_sign: bool, at_us: int) -> LeaseReady | Refused:
    """The provider's word that the lease can be used; ``may_sign``: the key may say so."""
    if state is None:
        return Refused(LEASE_UNKNOWN)
    if not may_sign:
        return Refused(LEASE_NOT_YOURS)
    match state:
        case ClosingLease() | ClosedLease():
            return Refused(LEASE_OVER, state.reason.value)
        case ActiveLease():
            return Refused(LEASE_ALREADY_READY, f"since {state.ready_us}")
        case OpenedLease():
            return LeaseReady(
                at_us=at_us,
                lease=state.terms.lease,
                node=state.terms.node,
                expires_us=at_us + state.terms.term_us,
            )
        case _:
            assert_never(state)


def require_live(state: LeaseState | None, *, may_sign: bool) -> LiveLease | Refused:
    """The lease if it runs or waits for ready, and the key may act for the side that asks."""
    if state is None:
        return Refused(LEASE_UNKNOWN)
    if not may_sign:
        return Refused(LEASE_NOT_YOURS)
    match state:
        case ClosingLease() | ClosedLease():
            return Refused(LEASE_OVER, state.reason.value)
        case OpenedLease() | ActiveLease():
            return state
        case _:
            assert_never(state)


def require_active(state: LeaseState | None, *, may_sign: bool) -> ActiveLease | Refused:
    """The lease if it runs."""
    live = require_live(state, may_sign=may_sign)
    if isinstance(live, OpenedLease):
        return Refused(LEASE_NOT_READY, f"ready by {live.ready_by_us}")
    return live


def decide_complete_1(
    state: LeaseState | None, *, may_sign: bool, at_us: int, parameters: Parameters
) -> ActiveLease | Refused:
    """Rules version 1: the workload of a lease that runs is over when its node says so (R4.4)."""
    return require_active(state, may_sign=may_sign)


def decide_complete_2(
    state: LeaseState | None, *, may_sign: bool, at_us: int, parameters: Parameters
) -> ActiveLease | Refused:
    """Rules version 2: not where the provider would pay for ending the lease itself.

    Nobody but the provider's side vouches for it. So it ends no reserved lease (R8.5), and none
    within its first hour, whose accrual returns to the buyer if the provider ends it (R8.3).
    """
    active = require_active(state, may_sign=may_sign)
    if isinstance(active, Refused):
        return active
    if active.terms.reserved:
        return Refused(RESERVED_UNTIL_ITS_END, f"until {active.expires_us}")
    from_us = active.ready_us + parameters.first_hour_us
    if at_us < from_us:
        return Refused(COMPLETED_TOO_EARLY, f"from {from_us}")
    return active


def decide_reject(
    state: LeaseState | None,
    *,
    may_sign: bool,
    rejections: int,
    at_us: int,
    parameters: Parameters,
) -> ActiveLease | Refused:
    """Whether the buyer may reject; ``rejections`` of its account in the time that counts."""
    active = require_active(state, may_sign=may_sign)
    if isinstance(active, Refused):
        return active
    late_us = active.ready_us + parameters.reject_within_us
    if at_us >= late_us:
        return Refused(REJECTED_TOO_LATE, f"before {late_us}")
    if rejections >= parameters.rejections:
        return Refused(TOO_MANY_REJECTIONS, f"{rejections} in {parameters.rejections_within_us} µs")
    return active


def decide_reclaim(
    state: LeaseState | None,
    *,
    may_sign: bool,
    deadline_us: int,
    at_us: int,
    reclaim_notice_us: int,
) -> ReclaimAnnounced | Refused:
    """The provider takes an interruptible lease back, with the notice agreed (R8.5)."""
    active = require_active(state, may_sign=may_sign)
    if isinstance(active, Refused):
        return active
    if not active.terms.interruptible:
        return Refused(NOT_INTERRUPTIBLE)
    if active.reclaim_us is not None:
        return Refused(ALREADY_RECLAIMED, f"at {active.reclaim_us}")
    earliest = at_us + max(active.terms.notice_us, reclaim_notice_us)
    if deadline_us < earliest:
        return Refused(RECLAIM_TOO_SOON, f"{deadline_us} < {earliest}")
    return ReclaimAnnounced(at_us=at_us, lease=active.terms.lease, deadline_us=deadline_us)


def decide_top_up(
    state: LeaseState | None,
    *,
    may_sign: bool,
    escrow: Escrow,
    amount_nano: int,
    free_nano: int,
    at_us: int,
) -> LeaseToppedUp | Refused:
    """More money in one escrow of a live lease."""
    live = require_live(state, may_sign=may_sign)
    if isinstance(live, Refused):
        return live
    usage = escrow is Escrow.USAGE
    held = live.escrow_usage_nano if usage else live.escrow_allocated_nano
    if not 0 < amount_nano <= QUANTITY_MAX - held:
        return Refused(TOP_UP_OUT_OF_RANGE, f"{amount_nano} on {held} nano")
    if amount_nano > free_nano:
        return Refused(TOP_UP_NOT_COVERED, f"{amount_nano} nano, {free_nano} free")
    purse = Purse.ESCROW_USAGE if usage else Purse.ESCROW_ALLOCATED
    return LeaseToppedUp(
        at_us=at_us,
        lease=live.terms.lease,
        escrow=escrow,
        amount_nano=amount_nano,
        postings=move((Purse.FREE, live.terms.buyer), (purse, live.terms.lease), amount_nano),
    )


def decide_end(
    state: LiveLease, *, reason: EndReason, early_nano: int, at_us: int, closing_us: int
) -> tuple[LeaseEnded] | tuple[LeaseEnded, LeaseClosed]:
    """End a lease. One that never was active is refunded and closed at once (R4.4)."""
    terms = state.terms
    if isinstance(state, OpenedLease):
        refund = refund_postings(state)
        ended = LeaseEnded(
            at_us=at_us,
            lease=terms.lease,
            node=terms.node,
            reason=reason,
            was_active=False,
            closing_us=at_us,
            early_nano=0,
            postings=refund,
        )
        closed = LeaseClosed(at_us=at_us, lease=terms.lease, refund_nano=Wide(0), postings=())
        return ended, closed
    ended = LeaseEnded(
        at_us=at_us,
        lease=terms.lease,
        node=terms.node,
        reason=reason,
        was_active=True,
        closing_us=at_us + closing_us,
        early_nano=early_nano,
        postings=(),
    )
    return (ended,)


def decide_close(state: ClosingLease, *, at_us: int) -> LeaseClosed:
    """After the last statement: what is left in both escrows returns to the buyer."""
    return LeaseClosed(
        at_us=at_us,
        lease=state.terms.lease,
        refund_nano=Wide(state.escrow_allocated_nano + state.escrow_usage_nano),
        postings=refund_postings(state),
    )


def refund_postings(state: OpenedLease | ClosingLease) -> tuple[Posting, ...]:
    """Both escrows → the buyer's free balance."""
    terms = state.terms
    buyer = (Purse.FREE, bytes(terms.buyer))
    return (
        *move((Purse.ESCROW_ALLOCATED, terms.lease), buyer, state.escrow_allocated_nano),
        *move((Purse.ESCROW_USAGE, terms.lease), buyer, state.escrow_usage_nano),
    )
