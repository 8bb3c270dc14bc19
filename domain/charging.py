"""Charging: from a statement's cumulative quantities to what is posted (R1.4, R1.5, R4.5, R8).

A charge is a function of the cumulative quantity alone; what is posted is the difference to what
was posted before. So neither batching nor the number of statements changes a bill. Of a charge,

- a part may be *held*: it has escrow but is not yet posted, because the buyer may still reject the
  lease (R4.4) or because it is device time of the first hour (R8.3);
- a part may be *unfunded*: its escrow did not cover it, and nobody ever owes it (R4.5);
- the rest is posted: charged = posted + held + unfunded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from domain.catalogue import Catalogue, How, PriceRow, charge, protocol_share
from domain.genesis import Parameters
from domain.ids import QUANTITY_MAX, Bytes16, Wide
from domain.invariant import InvariantBroken
from domain.journal import NOBODY, Posting, Purse
from domain.lease import (
    PROVIDER_ENDS,
    ActiveLease,
    ClosingLease,
    EndReason,
    LeaseTerms,
    UsageLine,
    UsagePosted,
)
from domain.telemetry import UsageStated

MILLION: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Statement:
    """What a statement leads to: the event, and whether an escrow did not cover it."""

    posted: UsagePosted
    exhausted: bool


def early_charge(
    lease: ActiveLease, catalogue: Catalogue, parameters: Parameters, at_us: int
) -> int:
    """What the buyer of a reserved lease owes for leaving it now, beside its usage (R8.4).

    A part of the charge for the device time left until the term's end, at most so much of it.
    """
    if not lease.terms.reserved:
        return 0
    left_us = min(max(0, lease.expires_us - at_us), parameters.early_within_us)
    devices = lease.terms.allocated(lease.terms.resource) or 0
    row = _row(catalogue, lease.terms.resource)
    nano = charge(row, devices * left_us // 1000, lease.terms.price_nano)
    return nano * parameters.early_ppm // MILLION


def decide_post(
    lease: ActiveLease | ClosingLease,
    stated: UsageStated,
    *,
    catalogue: Catalogue,
    parameters: Parameters,
    at_us: int,
) -> Statement:
    """Charge a statement. A total below what was stated before changes nothing."""
    final = stated.final and isinstance(lease, ClosingLease)
    terms = lease.terms
    escrows = {
        How.ALLOCATED: lease.escrow_allocated_nano,
        How.METERED: lease.escrow_usage_nano,
    }
    left = dict(escrows)
    quantities = {each.resource: each.quantity for each in stated.quantities}
    before = {line.resource: line for line in lease.lines}
    covered_us = max(lease.covered_us, stated.covered_us)
    least_us = _least_us(lease, covered_us, parameters) if final else 0
    lines: list[UsageLine] = []
    paid = {How.ALLOCATED: 0, How.METERED: 0}
    protocol_nano = 0
    exhausted = False
    for row in _rows(catalogue, terms):
        old = before.get(row.resource, _nothing(row.resource))
        quantity = max(old.quantity, quantities.get(row.resource, 0))
        charged = max(old.charged_nano, _charged(row, terms, quantity, least_us))
        need = charged - old.posted_nano - old.unfunded_nano
        funded = min(need, left[row.how])
        left[row.how] -= funded
        exhausted |= funded < need
        now = 0 if _held(lease, row, stated.window_end_us, parameters) else funded
        paid[row.how] += now
        posted = old.posted_nano + now
        protocol = protocol_share(catalogue.share(row), posted)
        protocol_nano += protocol - old.protocol_nano
        line = UsageLine(
            resource=row.resource,
            quantity=quantity,
            charged_nano=charged,
            posted_nano=posted,
            protocol_nano=protocol,
            unfunded_nano=old.unfunded_nano + need - funded,
        )
        if line != old:
            lines.append(line)
    if final and isinstance(lease, ClosingLease):
        early = min(lease.early_nano, left[How.ALLOCATED])
        paid[How.ALLOCATED] += early
        device = _row(catalogue, terms.resource)
        protocol_nano += protocol_share(catalogue.share(device), early)
    provider_nano = sum(paid.values()) - protocol_nano
    event = UsagePosted(
        at_us=at_us,
        lease=terms.lease,
        account=terms.account,
        window_end_us=stated.window_end_us,
        covered_us=covered_us,
        lines=tuple(lines),
        provider_nano=Wide(provider_nano),
        protocol_nano=Wide(protocol_nano),
        final=final,
        postings=_postings(terms, paid, provider_nano, protocol_nano),
    )
    return Statement(event, exhausted)


def _rows(catalogue: Catalogue, terms: LeaseTerms) -> list[PriceRow]:
    """What the lease may be charged for (R2.2), in catalogue row order (R4.5)."""
    named = [each.resource for each in terms.allocations]
    named += [each.resource for each in terms.metered]
    return sorted(
        (_row(catalogue, resource) for resource in named),
        key=lambda row: catalogue.number[row.resource],
    )


def _row(catalogue: Catalogue, resource: str) -> PriceRow:
    row = catalogue.row(resource)
    if row is None:
        raise InvariantBroken(f"the lease names {resource}, which has no price")
    return row


def _nothing(resource: str) -> UsageLine:
    return UsageLine(
        resource=resource,
        quantity=0,
        charged_nano=0,
        posted_nano=0,
        protocol_nano=0,
        unfunded_nano=0,
    )


def _charged(row: PriceRow, terms: LeaseTerms, quantity: int, least_us: int) -> int:
    """The cumulative charge, at least that of ``least_us`` of an allocation.

    No escrow holds more than 2^62 (R1.6), so a charge beyond it is money that nobody has: it is
    recorded as that much, and never leaves the bounds of its field.
    """
    if row.how is How.ALLOCATED:
        quantity = max(quantity, (terms.allocated(row.resource) or 0) * least_us // 1000)
    price_nano = terms.price_nano if row.resource == terms.resource else None
    return min(charge(row, quantity, price_nano), QUANTITY_MAX)


def _least_us(lease: ActiveLease | ClosingLease, covered_us: int, parameters: Parameters) -> int:
    """Time of allocated charges that a buyer who closed pays in any case (R8.4).

    Not for a node that never gave covered time: no heartbeat, no pay (R4.5).
    """
    if not isinstance(lease, ClosingLease) or lease.reason is not EndReason.BUYER_CLOSED:
        return 0
    return min(parameters.minimum_charge_us, lease.terms.term_us) if covered_us else 0


def _held(
    lease: ActiveLease | ClosingLease, row: PriceRow, window_end_us: int, parameters: Parameters
) -> bool:
    """Whether a charge stays in escrow for now; for good, where the lease has ended so.

    While the lease runs the statement's own time decides, so that it does not matter when the
    market came to read it.
    """
    ready_us = lease.ready_us
    if ready_us is None:
        return True
    device = row.resource == lease.terms.resource
    if isinstance(lease, ClosingLease):
        if lease.reason is EndReason.BUYER_REJECTED:
            return True
        early = lease.ended_us < ready_us + parameters.first_hour_us
        return device and early and lease.reason in PROVIDER_ENDS
    held_us = parameters.reject_within_us
    if device:
        held_us = max(held_us, parameters.first_hour_us)
    return window_end_us < ready_us + held_us


def _postings(
    terms: LeaseTerms, paid: Mapping[How, int], provider_nano: int, protocol_nano: int
) -> tuple[Posting, ...]:
    """Escrows → the provider's and the protocol's pending shares; no leg of zero."""
    legs = (
        (Purse.ESCROW_ALLOCATED, Bytes16(terms.lease), -paid[How.ALLOCATED]),
        (Purse.ESCROW_USAGE, Bytes16(terms.lease), -paid[How.METERED]),
        (Purse.PENDING, Bytes16(terms.account), provider_nano),
        (Purse.PROTOCOL_PENDING, NOBODY, protocol_nano),
    )
    return tuple(
        Posting(purse=purse, owner=owner, amount_nano=Wide(nano))
        for purse, owner, nano in legs
        if nano
    )
