"""Broken reservations: what it costs a provider to end a reserved lease before its time (R8.5).

The node stays obliged, and counts as down, until the agreed end or for as long as a broken
reservation binds. For the same time the buyer gets what the device now costs more than agreed, from
the provider's stake. Decided here where the rule leaves it open:

- a lease that never was ready has its whole term left;
- reachable is what is bonded or unbonding and in no pot: what evidence froze is the pot's (R5.8);
- a buyer with the provider's beneficial owner gets nothing, as with compensation (R5.8);
- "down" is a matter of the SLA window alone: the capacity is free in the commit that ends the
  lease (R8.6) and may be matched, but whoever leases it does not mend the broken promise.
"""

from __future__ import annotations

from domain.catalogue import Catalogue, charge
from domain.ids import Wide
from domain.invariant import InvariantBroken
from domain.journal import Purse, move
from domain.lease import LiveLease, OpenedLease, ReservationBroken
from domain.provider import StakeForfeited
from domain.stake import Stake, bonded_in, taken_from, unbonding_in


def decide_break(
    lease: LiveLease,
    *,
    catalogue: Catalogue,
    reference_nano: int,
    within_us: int,
    stake: Stake,
    own: bool,
    at_us: int,
) -> tuple[ReservationBroken, StakeForfeited | None] | None:
    """The end of a reserved lease by its provider; None where nothing of the term is left.

    ``own``: buyer and provider have one beneficial owner.
    """
    terms = lease.terms
    agreed_us = at_us + terms.term_us if isinstance(lease, OpenedLease) else lease.expires_us
    until_us = min(agreed_us, at_us + within_us)
    if until_us <= at_us:
        return None
    row = catalogue.row(terms.resource)
    devices = terms.allocated(terms.resource)
    if row is None or devices is None:
        raise InvariantBroken("a lease names its device, which has a price")
    more_nano = 0 if own else max(0, reference_nano - terms.price_nano)
    due = charge(row, devices * (until_us - at_us) // 1000, more_nano)
    tranches = taken_from(stake, due, fault_us=at_us, pot=None)
    bonded, unbonding = bonded_in(tranches), unbonding_in(tranches)
    buyer = (Purse.FREE, bytes(terms.buyer))
    broken = ReservationBroken(
        at_us=at_us,
        lease=terms.lease,
        node=terms.node,
        provider=terms.provider,
        buyer=terms.buyer,
        until_us=until_us,
        reference_nano=reference_nano,
        due_nano=Wide(due),
        taken_nano=Wide(bonded + unbonding),
        shortfall_nano=Wide(due - bonded - unbonding),
        postings=(
            *move((Purse.STAKE, terms.provider), buyer, bonded),
            *move((Purse.UNBONDING, terms.provider), buyer, unbonding),
        ),
    )
    if not tranches:
        return broken, None
    return broken, StakeForfeited(
        at_us=at_us, provider=terms.provider, lease=terms.lease, tranches=tranches
    )
