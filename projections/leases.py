"""Leases with their line items: terms, times, state, what was charged, why they ended.

What is left in the escrows is the balance of the purses that the lease owns (``accounts``).
"""

from __future__ import annotations

from typing import Any, Final

from domain.commit import Ledger
from domain.lease import (
    LeaseClosed,
    LeaseEnded,
    LeaseOpened,
    LeaseReady,
    LeaseToppedUp,
    ReclaimAnnounced,
    ReservationBroken,
    UsagePosted,
)
from projections.fold_rows import At, Projection, Rows, copied
from projections.tables import LEASE, LEASE_LINE

OPENED: Final = "OPENED"
ACTIVE: Final = "ACTIVE"
CLOSING: Final = "CLOSING"
CLOSED: Final = "CLOSED"


def _opened(rows: Rows, at: At, event: LeaseOpened) -> None:
    row: dict[str, Any] = {
        "device_milli": event.allocations[0].amount,
        "topped_up_nano": 0,
        "state": OPENED,
        "opened_us": event.at_us,
        "covered_us": 0,
        "final": False,
        "provider_nano": 0,
        "protocol_nano": 0,
        "early_nano": 0,
        "broken_due_nano": 0,
        "broken_taken_nano": 0,
        "refund_nano": 0,
        "position": at.position,
    }
    rows.put(LEASE, copied(event, LEASE, **row))


def _ready(rows: Rows, at: At, event: LeaseReady) -> None:
    rows.change(LEASE, event.lease, state=ACTIVE, ready_us=event.at_us, expires_us=event.expires_us)


def _topped_up(rows: Rows, at: At, event: LeaseToppedUp) -> None:
    topped_up = rows.known(LEASE, event.lease)["topped_up_nano"] + event.amount_nano
    rows.change(LEASE, event.lease, topped_up_nano=topped_up)


def _reclaim(rows: Rows, at: At, event: ReclaimAnnounced) -> None:
    rows.change(LEASE, event.lease, reclaim_us=event.deadline_us)


def _posted(rows: Rows, at: At, event: UsagePosted) -> None:
    lease = rows.known(LEASE, event.lease)
    rows.change(
        LEASE,
        event.lease,
        window_end_us=event.window_end_us,
        covered_us=event.covered_us,
        final=event.final,
        provider_nano=lease["provider_nano"] + event.provider_nano,
        protocol_nano=lease["protocol_nano"] + event.protocol_nano,
    )
    for line in event.lines:
        row = {"lease": event.lease, "window_end_us": event.window_end_us}
        rows.put(LEASE_LINE, copied(line, LEASE_LINE, **row))


def _ended(rows: Rows, at: At, event: LeaseEnded) -> None:
    rows.change(
        LEASE,
        event.lease,
        state=CLOSING,
        reason=event.reason.value,
        ended_us=event.at_us,
        closing_us=event.closing_us,
        early_nano=event.early_nano,
    )


def _closed(rows: Rows, at: At, event: LeaseClosed) -> None:
    rows.change(
        LEASE, event.lease, state=CLOSED, closed_us=event.at_us, refund_nano=event.refund_nano
    )


def _broken(rows: Rows, at: At, event: ReservationBroken) -> None:
    rows.change(
        LEASE,
        event.lease,
        broken_until_us=event.until_us,
        broken_due_nano=event.due_nano,
        broken_taken_nano=event.taken_nano,
    )


LEASES: Final = Projection(
    name="leases",
    ledger=Ledger.MARKET,
    tables=(LEASE, LEASE_LINE),
    money=True,
    handlers={
        LeaseOpened: _opened,
        LeaseReady: _ready,
        LeaseToppedUp: _topped_up,
        ReclaimAnnounced: _reclaim,
        UsagePosted: _posted,
        LeaseEnded: _ended,
        LeaseClosed: _closed,
        ReservationBroken: _broken,
    },
)
