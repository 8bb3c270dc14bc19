"""Writing the statements of a usage window (R4.6), one deadline each.

A window that is ripe for telemetry and market is opened: what it adds is computed once, and each
lease that it touches gets a deadline of its own, so that a step may be cut between any two
statements. The id of a deadline is the window's end (8 bytes, big-endian), then nothing (open it),
a lease (state it), or ``LAST`` (close it): in this order they fire. Opening and statements of what
did not change make no event, so a window that was left half stated is simply opened again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from domain.due import MeteringDue
from domain.ids import AggregateId, LeaseId
from domain.statement import quantities
from domain.telemetry import INTAKE, Quantity, UsageStated, UsageWindowClosed

if TYPE_CHECKING:
    from domain.metering import Metering

LAST: Final = b"\xff" * 17  # sorts after every lease
_WINDOW_BYTES: Final = 8


@dataclass(slots=True)
class Plan:
    """A window whose statements are being written."""

    window_us: int
    covered: dict[bytes, int]  # what it adds, by lease
    changed: dict[bytes, dict[int, int]]  # quantities as of its end, by lease and catalogue row


def window_id(window_us: int) -> bytes:
    """The id of the deadline that opens a window."""
    return window_us.to_bytes(_WINDOW_BYTES, "big")


def fire(metering: Metering, due_us: int, id: bytes) -> None:
    """Open, state or close, as the id says."""
    window_us, rest = int.from_bytes(id[:_WINDOW_BYTES], "big"), id[_WINDOW_BYTES:]
    if not rest:
        _open(metering, due_us, window_us)
    elif rest == LAST:
        closed = UsageWindowClosed(at_us=metering.time_us, window_end_us=window_us)
        metering.emit(INTAKE, closed)
    else:
        _state(metering, rest)


def await_window(metering: Metering, window_us: int) -> None:
    """Let a pending window be opened when telemetry has passed it and the largest grace."""
    due_us = metering.coverage.pending[window_us].due_us
    metering.deadlines.set(MeteringDue.STATEMENT, window_id(window_us), due_us)


def _open(metering: Metering, due_us: int, window_us: int) -> None:
    """Find what there is to state, one deadline per lease, if the market has passed too."""
    pending = metering.coverage.pending
    if window_us not in pending or pending[window_us].due_us > metering.market_us:
        return
    first_us = min(pending)
    if first_us != window_us:
        # Windows are stated in order. Where an earlier one is due later (the largest grace was
        # raised), this one follows it; where it waits for the market, so does this one.
        after_us = pending[first_us].due_us
        if after_us > due_us:
            metering.deadlines.set(MeteringDue.STATEMENT, window_id(window_us), after_us)
        return
    covered: dict[bytes, int] = {}
    for lease, added_us in metering.coverage.covered(window_us):
        covered[lease.id] = covered.get(lease.id, 0) + added_us
    changed = metering.readings.changed(window_us)
    metering.plan = Plan(window_us, covered, changed)
    prefix = window_id(window_us)
    for id in {**covered, **changed, **pending[window_us].finals}:
        metering.deadlines.set(MeteringDue.STATEMENT, prefix + id, due_us)
    metering.deadlines.set(MeteringDue.STATEMENT, prefix + LAST, due_us)


def _state(metering: Metering, id: bytes) -> None:
    """Write the statement of a lease, if its quantities changed or it is the last."""
    lease, plan = metering.leases.get(id), metering.plan
    if lease is None or plan is None:
        return
    covered_us = lease.covered_us + plan.covered.get(id, 0)
    metered = {**lease.metered, **plan.changed.get(id, {})}
    found = quantities(lease.amounts, covered_us, metered)
    final = lease.final_us == plan.window_us
    if found == lease.stated and not final:
        return
    stated = UsageStated(
        at_us=metering.time_us,
        lease=LeaseId(id),
        window_end_us=plan.window_us,
        covered_us=covered_us,
        quantities=tuple(
            Quantity(resource=metering.resources[row], quantity=quantity) for row, quantity in found
        ),
        final=final,
    )
    metering.emit(AggregateId(id), stated)
