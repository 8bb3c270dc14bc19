"""The order book: resting orders by instrument and price, as matching and readers need them.

A fold over the market's events, used in-process by the market. Quantities follow ``RoundCleared``
and ``LeaseEnded``, so that the book is right from the instant at which a round clears. What is
shown to the public (``levels``, ``orders``) leaves out orders that came since the last round
cleared: nobody but their owner sees those (design 6).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from domain.bid import BidCancelled, BidPlaced
from domain.clearing import RestingAsk, RestingBid
from domain.lease import LeaseEnded
from domain.offer import OfferPlaced, OfferWithdrawn
from domain.round import RoundCleared, RoundOpened, instrument_of

O = TypeVar("O", RestingBid, RestingAsk)  # noqa: E741


class Side(Generic[O]):
    """One side of an instrument's book: orders by price, at a price in order of their numbers."""

    def __init__(self) -> None:
        """Start with no order."""
        self.prices: list[int] = []
        self._at: dict[int, dict[bytes, O]] = {}

    def put(self, price: int, name: bytes, order: O) -> None:
        """Add an order, or replace it in its place."""
        orders = self._at.get(price)
        if orders is None:
            self._at[price] = {name: order}
            insort(self.prices, price)
        else:
            orders[name] = order

    def remove(self, price: int, name: bytes) -> None:
        """Take an order out."""
        orders = self._at[price]
        del orders[name]
        if not orders:
            del self._at[price]
            del self.prices[bisect_left(self.prices, price)]

    def upward(self, highest: int) -> Iterator[O]:
        """Orders at ``highest`` or below, lowest price first."""
        for price in self.prices[: bisect_right(self.prices, highest)]:
            yield from self._at[price].values()

    def downward(self, lowest: int) -> Iterator[O]:
        """Orders at ``lowest`` or above, highest price first."""
        for price in reversed(self.prices[bisect_left(self.prices, lowest) :]):
            yield from self._at[price].values()


@dataclass(frozen=True, slots=True)
class Level:
    """What rests at one price: quantity in thousandths of a device, and number of orders."""

    price_nano: int
    quantity_milli: int
    orders: int


class _Instrument:
    """The book of one instrument and the state of its rounds."""

    def __init__(self) -> None:
        self.bids: Side[RestingBid] = Side()
        self.asks: Side[RestingAsk] = Side()
        self.open: int | None = None  # number of the open round
        self.cleared = 0  # number of the last cleared one


class OrderBook:
    """Resting orders of all instruments."""

    def __init__(self) -> None:
        """Start with no order."""
        self._books: dict[bytes, _Instrument] = {}
        self._bids: dict[bytes, RestingBid] = {}
        self._asks: dict[bytes, RestingAsk] = {}
        self._leased: dict[bytes, tuple[bytes, int]] = {}  # lease → (offer, milli)
        self._takes: Mapping[type[Any], Callable[[Any], None]] = {
            BidPlaced: self._bid_placed,
            BidCancelled: self._bid_cancelled,
            OfferPlaced: self._offer_placed,
            OfferWithdrawn: self._offer_withdrawn,
            RoundOpened: self._round_opened,
            RoundCleared: self._round_cleared,
            LeaseEnded: self._lease_ended,
        }

    # What the market asks

    def bid(self, bid: bytes) -> RestingBid | None:
        """A bid that rests."""
        return self._bids.get(bid)

    def ask(self, offer: bytes) -> RestingAsk | None:
        """An ask that rests."""
        return self._asks.get(offer)

    def two_sided(self, instrument: bytes) -> bool:
        """Whether there is a bid and an ask."""
        book = self._books.get(instrument)
        return book is not None and bool(book.bids.prices) and bool(book.asks.prices)

    def best_bid(self, instrument: bytes) -> int | None:
        """The highest limit."""
        book = self._books.get(instrument)
        return book.bids.prices[-1] if book is not None and book.bids.prices else None

    def bids_from(self, instrument: bytes, lowest: int) -> Iterator[RestingBid]:
        """Bids at ``lowest`` or above, best first."""
        book = self._books.get(instrument)
        return iter(()) if book is None else book.bids.downward(lowest)

    def round_now(self, instrument: bytes) -> int:
        """Number of the round that an order placed now is in, or would open."""
        book = self._books.get(instrument)
        return 1 if book is None else book.cleared + 1 if book.open is None else book.open

    # What the public sees

    def levels(self, instrument: bytes) -> tuple[tuple[Level, ...], tuple[Level, ...]]:
        """L2: bids best first, and asks best first."""
        bids, asks = self.orders(instrument)
        return (
            _levels((bid.limit_nano, bid.open_lots * bid.lot_milli) for bid in bids),
            _levels((ask.ask_nano, ask.quantity_milli - ask.taken_milli) for ask in asks),
        )

    def orders(self, instrument: bytes) -> tuple[tuple[RestingBid, ...], tuple[RestingAsk, ...]]:
        """L3: orders that have been in a cleared round; bids best first, and asks best first."""
        book = self._books.get(instrument)
        if book is None:
            return (), ()
        dearest = max(book.asks.prices, default=0)
        return (
            tuple(bid for bid in book.bids.downward(0) if bid.round <= book.cleared),
            tuple(ask for ask in book.asks.upward(dearest) if ask.round <= book.cleared),
        )

    # The fold

    def apply(self, event: Any) -> None:
        """Take in one event; events of no interest are ignored."""
        take = self._takes.get(type(event))
        if take is not None:
            take(event)

    def _book(self, instrument: bytes) -> _Instrument:
        book = self._books.get(instrument)
        if book is None:
            book = self._books[instrument] = _Instrument()
        return book

    def _bid_placed(self, event: BidPlaced) -> None:
        instrument = instrument_of(event.resource, event.region)
        bid = RestingBid(
            bid=event.bid,
            instrument=instrument,
            order_no=event.order_no,
            round=self.round_now(instrument),
            account=event.account,
            limit_nano=event.limit_nano,
            lot_milli=event.lot_milli,
            open_lots=event.quantity_milli // event.lot_milli,
            fills=0,
            allocations=event.allocations,
            reserved=event.reserved,
        )
        self._bids[bid.bid] = bid
        self._book(instrument).bids.put(bid.limit_nano, bid.bid, bid)

    def _bid_cancelled(self, event: BidCancelled) -> None:
        bid = self._bids.pop(event.bid)
        self._books[bid.instrument].bids.remove(bid.limit_nano, bid.bid)

    def _offer_placed(self, event: OfferPlaced) -> None:
        instrument = instrument_of(event.resource, event.region)
        ask = RestingAsk(
            offer=event.offer,
            instrument=instrument,
            order_no=event.order_no,
            round=self.round_now(instrument),
            node=event.node,
            provider=event.provider,
            account=event.account,
            resource=event.resource,
            ask_nano=event.ask_nano,
            quantity_milli=event.quantity_milli,
            taken_milli=0,
            interruptible=event.interruptible,
        )
        self._put_ask(ask)

    def _put_ask(self, ask: RestingAsk) -> None:
        self._asks[ask.offer] = ask
        self._book(ask.instrument).asks.put(ask.ask_nano, ask.offer, ask)

    def _offer_withdrawn(self, event: OfferWithdrawn) -> None:
        ask = self._asks.pop(event.offer)
        self._books[ask.instrument].asks.remove(ask.ask_nano, ask.offer)

    def _round_opened(self, event: RoundOpened) -> None:
        self._book(event.instrument).open = event.number

    def _round_cleared(self, event: RoundCleared) -> None:
        book = self._books[event.instrument]
        book.open, book.cleared = None, event.number
        taken_of: dict[bytes, int] = {}
        for fill in event.fills:
            bid = self._bids[fill.bid]
            taken = fill.lots * bid.lot_milli
            self._leased[fill.lease] = (fill.offer, taken)
            taken_of[fill.offer] = taken_of.get(fill.offer, 0) + taken
            left = bid.open_lots - fill.lots
            if left:
                bid = replace(bid, open_lots=left, fills=bid.fills + 1)
                self._bids[bid.bid] = bid
                book.bids.put(bid.limit_nano, bid.bid, bid)
            else:
                del self._bids[bid.bid]
                book.bids.remove(bid.limit_nano, bid.bid)
        for offer, taken in taken_of.items():
            ask = self._asks[offer]
            self._put_ask(replace(ask, taken_milli=ask.taken_milli + taken))

    def _lease_ended(self, event: LeaseEnded) -> None:
        offer, taken = self._leased.pop(event.lease)
        ask = self._asks.get(offer)
        if ask is not None:
            self._put_ask(replace(ask, taken_milli=ask.taken_milli - taken))


def _levels(orders: Iterator[tuple[int, int]]) -> tuple[Level, ...]:
    """Join orders of one price, in the order in which the prices come."""
    found: dict[int, tuple[int, int]] = {}
    for price, quantity in orders:
        sum_milli, count = found.get(price, (0, 0))
        found[price] = (sum_milli + quantity, count + 1)
    return tuple(Level(price, *what) for price, what in found.items())
