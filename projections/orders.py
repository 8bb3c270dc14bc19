"""Offers, bids, instruments, rounds and trades: the order book's rows and its past.

An order is hidden from everybody until a round of its instrument has cleared after it (design 6):
``cleared_position`` of the instrument beyond the order's ``position`` says so.
"""

from __future__ import annotations

from typing import Any, Final

from domain.bid import BidCancelled, BidFilled, BidPlaced
from domain.commit import Ledger
from domain.lease import LeaseEnded
from domain.offer import OfferPlaced, OfferWithdrawn
from domain.round import FillsAdded, RoundCleared, RoundOpened, instrument_of
from projections.fold_rows import At, Projection, Rows, copied, made
from projections.tables import BID, INSTRUMENT, LEASE, OFFER, ROUND, TRADE

RESTING: Final = "RESTING"
WITHDRAWN: Final = "WITHDRAWN"
CANCELLED: Final = "CANCELLED"
FILLED: Final = "FILLED"


def _instrument(rows: Rows, at: At, resource: str, region: str) -> bytes:
    """The instrument of an order; the first order of a kind makes its row."""
    instrument = instrument_of(resource, region)
    if rows.get(INSTRUMENT, instrument) is None:
        row = {
            "instrument": instrument,
            "resource": resource,
            "region": region,
            "round": 0,
            "open": False,
            "cleared_position": 0,
            "volume_milli": 0,
            "position": at.position,
        }
        rows.put(INSTRUMENT, made(INSTRUMENT, row))
    return instrument


def _offered(rows: Rows, at: At, event: OfferPlaced) -> None:
    row: dict[str, Any] = {
        "instrument": _instrument(rows, at, event.resource, event.region),
        "leased_milli": 0,
        "placed_us": event.at_us,
        "state": RESTING,
        "position": at.position,
    }
    rows.put(OFFER, copied(event, OFFER, **row))


def _withdrawn(rows: Rows, at: At, event: OfferWithdrawn) -> None:
    rows.change(OFFER, event.offer, state=WITHDRAWN, withdrawn_us=event.at_us)


def _bid(rows: Rows, at: At, event: BidPlaced) -> None:
    row: dict[str, Any] = {
        "instrument": _instrument(rows, at, event.resource, event.region),
        "open_lots": event.quantity_milli // event.lot_milli,
        "placed_us": event.at_us,
        "state": RESTING,
        "position": at.position,
    }
    rows.put(BID, copied(event, BID, **row))


def _cancelled(rows: Rows, at: At, event: BidCancelled) -> None:
    rows.change(BID, event.bid, state=CANCELLED, done_us=event.at_us)


def _filled(rows: Rows, at: At, event: BidFilled) -> None:
    rows.change(BID, event.bid, open_lots=event.open_lots)
    if event.open_lots == 0:
        rows.change(BID, event.bid, state=FILLED, done_us=event.at_us)


def _opened(rows: Rows, at: At, event: RoundOpened) -> None:
    instrument = _instrument(rows, at, event.resource, event.region)
    rows.change(INSTRUMENT, instrument, round=event.number, open=True, clears_us=event.clears_us)
    rows.put(ROUND, copied(event, ROUND, opened_us=event.at_us, position=at.position))


def _part_filled(rows: Rows, at: At, event: FillsAdded) -> None:
    """A full part of a round with very many fills: trades of their own, volume of the round."""
    before = rows.known(ROUND, event.instrument, event.number)["volume_milli"] or 0
    rows.change(ROUND, event.instrument, event.number, volume_milli=before + event.volume_milli)
    known = rows.known(INSTRUMENT, event.instrument)
    rows.change(
        INSTRUMENT,
        event.instrument,
        volume_milli=known["volume_milli"] + event.volume_milli,
        price_nano=event.price_nano,
        traded_us=event.at_us,
    )
    _trades(rows, at, event)


def _cleared(rows: Rows, at: At, event: RoundCleared) -> None:
    """The round's figures, beside what its parts before have told."""
    before = rows.known(ROUND, event.instrument, event.number)["volume_milli"] or 0
    figures = {
        "reference_nano": event.reference_nano,
        "low_nano": event.low_nano,
        "high_nano": event.high_nano,
        "price_nano": event.price_nano,
        "demand_milli": event.demand_milli,
        "supply_milli": event.supply_milli,
        "volume_milli": before + event.volume_milli,
    }
    rows.change(ROUND, event.instrument, event.number, cleared_us=event.at_us, **figures)
    known = rows.known(INSTRUMENT, event.instrument)
    changes: dict[str, Any] = {
        "open": False,
        "cleared_position": at.position,
        "cleared_us": event.at_us,
        "reference_nano": event.reference_nano,
        "volume_milli": known["volume_milli"] + event.volume_milli,
    }
    if event.volume_milli:
        changes.update(price_nano=event.price_nano, traded_us=event.at_us)
    rows.change(INSTRUMENT, event.instrument, **changes)
    _trades(rows, at, event)


def _trades(rows: Rows, at: At, event: FillsAdded | RoundCleared) -> None:
    for number, fill in enumerate(event.fills):
        bid, offer = rows.known(BID, fill.bid), rows.known(OFFER, fill.offer)
        quantity = fill.lots * bid["lot_milli"]
        # The book is right from the instant of clearing; the leases open a little later.
        rows.change(BID, fill.bid, open_lots=bid["open_lots"] - fill.lots)
        rows.change(OFFER, fill.offer, leased_milli=offer["leased_milli"] + quantity)
        row = {
            "instrument": event.instrument,
            "number": event.number,
            "quantity_milli": quantity,
            "price_nano": event.price_nano,
            "at_us": event.at_us,
            "position": at.position,
            "row": number,
        }
        rows.add(TRADE, copied(fill, TRADE, **row))


def _returned(rows: Rows, at: At, event: LeaseEnded) -> None:
    lease = rows.known(LEASE, event.lease)
    left = rows.known(OFFER, lease["offer"])["leased_milli"] - lease["device_milli"]
    rows.change(OFFER, lease["offer"], leased_milli=left)


ORDERS: Final = Projection(
    name="orders",
    ledger=Ledger.MARKET,
    tables=(INSTRUMENT, OFFER, BID, ROUND, TRADE),
    handlers={
        OfferPlaced: _offered,
        OfferWithdrawn: _withdrawn,
        BidPlaced: _bid,
        BidCancelled: _cancelled,
        BidFilled: _filled,
        RoundOpened: _opened,
        FillsAdded: _part_filled,
        RoundCleared: _cleared,
        LeaseEnded: _returned,
    },
)
