"""Every event of every ledger but accepted telemetry, as recorded: by position, aggregate, type.

The bytes are kept and decoded when somebody asks, so the history costs little to write and is never
more, or other, than the ledger.
"""

from __future__ import annotations

from typing import Any

from domain.bid import BidPlaced
from domain.commit import RecordedEvent
from domain.offer import OfferPlaced
from domain.round import instrument_of
from projections.fold_rows import At, Rows
from projections.tables import HISTORY


def remember(rows: Rows, at: At, recorded: RecordedEvent, event: Any) -> None:
    """One event of any type, with the instrument whose clearing unseals it where it is an order."""
    sealed_by = None
    if isinstance(event, BidPlaced | OfferPlaced):
        sealed_by = instrument_of(event.resource, event.region)
    rows.add(
        HISTORY,
        {
            "ledger": int(at.ledger),
            "shard": at.shard,
            "position": at.position,
            "height": at.height,
            "at_us": event.at_us,
            "aggregate": recorded.aggregate,
            "version": recorded.version,
            "schema": recorded.schema,
            "payload": recorded.payload,
            "sealed_by": sealed_by,
        },
    )
