"""The market's rules on orders: offers, bids, and the rounds that clear them (R4.2, R8.1, R8.2).

A round of an instrument opens with the first order, cancel or freed capacity after the last one
cleared; resting orders alone open none. A cancel or freed capacity opens none while the book has
nothing on one side, since nothing could trade; an order always does, because it may leave only
after a cleared round (R8.7).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from domain import bid, offer
from domain import round as rounds
from domain.account import AccountAdmitted
from domain.bid import (
    BidCancelled,
    BidFilled,
    BidPlaced,
    BidRow,
    BidState,
    CancelBid,
    PlaceBids,
)
from domain.catalogue import Revenue
from domain.clearing import (
    NOTHING_MEETS,
    Crossing,
    Placed,
    RestingAsk,
    RestingBid,
    cross,
    place,
)
from domain.due import MarketDue
from domain.genesis import Genesis, Role
from domain.ids import (
    AccountId,
    AggregateId,
    BidId,
    LeaseId,
    NodeId,
    OfferId,
    ProviderId,
    RoundId,
    derive,
)
from domain.invariant import InvariantBroken
from domain.journal import Purse
from domain.key import RowRefused
from domain.market_registry import role_refused, row_refused, rows_refused
from domain.offer import (
    OfferPlaced,
    OfferRow,
    OfferState,
    OfferWithdrawn,
    PlaceOffers,
    WithdrawOffer,
)
from domain.reference import Reference
from domain.refusal import Refused
from domain.round import Fill, FillsAdded, OpenRound, RoundCleared, RoundOpened, instrument_of

if TYPE_CHECKING:
    from domain.market import Market, Request
    from domain.processor import ForeignCommit

#: A round with more fills clears in several items at one instant, so that events and commits keep
#: within their bounds, however many there are.
FILLS_PER_EVENT: Final = 4096


@dataclass(frozen=True, slots=True)
class Clearing:
    """What a round comes to; the same whenever it is computed before its fills count."""

    reference_nano: int
    crossing: Crossing
    placed: Sequence[Placed]
    fills: Sequence[Fill]


# Commands


def place_offers(market: Market, request: Request) -> Refused | Sequence[RowRefused]:
    """Asks of a provider's nodes, row by row."""
    command: PlaceOffers = request.command
    wrong = rows_refused(market, len(command.offers)) or role_refused(
        request, Role.OWNER, Role.GATEWAY
    )
    if wrong is not None:
        return wrong
    refused: list[RowRefused] = []
    for number, row in enumerate(command.offers):
        said = _place_offer(market, request, number, row)
        if isinstance(said, Refused):
            refused.append(row_refused(number, said))
        else:
            _open_round(market, said.resource, said.region, market.time_us)
            market.emit(AggregateId(said.offer), said)
    return refused


def _place_offer(
    market: Market, request: Request, number: int, row: OfferRow
) -> OfferPlaced | Refused:
    orders = market.folds.orders
    account = request.holder.account
    return offer.decide_place(
        row,
        offer=OfferId(request.id("offer", number)),
        order_no=orders.last_order_no + 1,
        at_us=market.time_us,
        account=account,
        node=market.folds.registry.node(row.node),
        price_row=market.folds.registry.catalogue.row(row.resource),
        offered=orders.offered(row.node, row.resource) is not None,
        orders=orders.live_of(market.folds.registry.beneficial_owner(account)),
        parameters=market.parameters,
    )


def place_bids(market: Market, request: Request) -> Refused | Sequence[RowRefused]:
    """Bids of a buyer, row by row, each with its worst case reserved."""
    command: PlaceBids = request.command
    wrong = rows_refused(market, len(command.bids)) or role_refused(request, Role.OWNER)
    if wrong is not None:
        return wrong
    refused: list[RowRefused] = []
    for number, row in enumerate(command.bids):
        said = _place_bid(market, request, number, row)
        if isinstance(said, Refused):
            refused.append(row_refused(number, said))
        else:
            _open_round(market, said.resource, said.region, market.time_us)
            market.emit(AggregateId(said.bid), said)
    return refused


def _place_bid(market: Market, request: Request, number: int, row: BidRow) -> BidPlaced | Refused:
    orders = market.folds.orders
    account = request.holder.account
    return bid.decide_place(
        row,
        bid=BidId(request.id("bid", number)),
        order_no=orders.last_order_no + 1,
        at_us=market.time_us,
        account=account,
        catalogue=market.folds.registry.catalogue,
        orders=orders.live_of(market.folds.registry.beneficial_owner(account)),
        free_nano=market.folds.balances.of(Purse.FREE, account),
        parameters=market.parameters,
    )


def withdraw_offer(market: Market, request: Request) -> Refused | Sequence[RowRefused]:
    """Take an ask out of the book."""
    wrong = role_refused(request, Role.OWNER, Role.GATEWAY)
    if wrong is not None:
        return wrong
    aggregate = AggregateId(request.command.offer)
    resting = market.folds.book.ask(aggregate)
    state = market.unit.state(aggregate)
    said = offer.decide_withdraw(
        state if isinstance(state, OfferState) else None,
        account=request.holder.account,
        in_cleared_round=resting is not None and _has_cleared(market, resting),
        at_us=market.time_us,
    )
    if isinstance(said, Refused):
        return said
    market.emit(aggregate, said)
    if resting is not None:
        _reopen(market, resting.instrument, market.time_us)
    return ()


def cancel_bid(market: Market, request: Request) -> Refused | Sequence[RowRefused]:
    """Take what is unfilled of a bid out of the book."""
    wrong = role_refused(request, Role.OWNER)
    if wrong is not None:
        return wrong
    aggregate = AggregateId(request.command.bid)
    resting = market.folds.book.bid(aggregate)
    state = market.unit.state(aggregate)
    said = bid.decide_cancel(
        state if isinstance(state, BidState) else None,
        account=request.holder.account,
        in_cleared_round=resting is not None and _has_cleared(market, resting),
        at_us=market.time_us,
    )
    if isinstance(said, Refused):
        return said
    market.emit(aggregate, said)
    if resting is not None:
        _reopen(market, resting.instrument, market.time_us)
    return ()


# Rounds


def _has_cleared(market: Market, order: RestingAsk | RestingBid) -> bool:
    """Whether the round in which an order came has cleared (R8.7)."""
    state = market.unit.state(AggregateId(order.instrument))
    return not isinstance(state, OpenRound) or order.round < state.number


def _open_round(market: Market, resource: str, region: str, at_us: int) -> None:
    """Open the next round of an instrument, unless one is open."""
    aggregate = AggregateId(instrument_of(resource, region))
    opened = rounds.decide_open(
        market.unit.state(aggregate),
        resource=resource,
        region=region,
        at_us=at_us,
        round_us=market.parameters.round_us,
    )
    if opened is not None:
        market.emit(aggregate, opened)


def _reopen(market: Market, instrument: RoundId, at_us: int) -> None:
    """A cancel or freed capacity: open a round if bids and asks could meet in it."""
    if market.folds.book.two_sided(instrument):
        state = market.unit.state(AggregateId(instrument))
        _open_round(market, state.resource, state.region, at_us)


def capacity_freed(market: Market, node: NodeId, at_us: int) -> None:
    """Capacity of a node can be matched again: a lease has ended, or the node is back."""
    _reopen_for(market, market.folds.orders.offers_of(node), at_us)


def offers_match_again(market: Market, provider: ProviderId, at_us: int) -> None:
    """The stake of a provider again reaches what its nodes require, so all its offers count."""
    _reopen_for(market, market.folds.orders.offers_of_provider(provider), at_us)


def _reopen_for(market: Market, offers: Sequence[OfferId], at_us: int) -> None:
    for each in offers:
        ask = market.folds.book.ask(each)
        if ask is not None:
            _reopen(market, ask.instrument, at_us)


def clear_round(market: Market, due_us: int, instrument: bytes) -> None:
    """The deadline of an open round: one price, and fills that become leases at this instant.

    Of very many fills a full part is told, and the deadline stands again at the same instant.
    """
    state = market.unit.state(AggregateId(instrument))
    if not isinstance(state, OpenRound):
        raise InvariantBroken("a round clears once")
    told = market.folds.parts
    found = market.clearing if told else None
    if found is None:
        found = _clear(market, state, due_us)
    first = sum(len(each.fills) for each in told)
    placed = found.placed[first : first + FILLS_PER_EVENT]
    fills = tuple(found.fills[first : first + FILLS_PER_EVENT])
    volume = sum(each.lots * each.bid.lot_milli for each in placed)
    crossing = found.crossing
    more = first + len(placed) < len(found.placed)
    market.clearing = found if more else None
    said = (
        FillsAdded(
            at_us=due_us,
            instrument=state.instrument,
            number=state.number,
            part=len(told),
            price_nano=crossing.price_nano,
            volume_milli=volume,
            fills=fills,
        )
        if more
        else RoundCleared(
            at_us=due_us,
            instrument=state.instrument,
            number=state.number,
            reference_nano=found.reference_nano,
            low_nano=crossing.low_nano,
            high_nano=crossing.high_nano,
            price_nano=crossing.price_nano,
            demand_milli=crossing.demand_milli,
            supply_milli=crossing.supply_milli,
            volume_milli=volume,
            fills=fills,
        )
    )
    market.emit(AggregateId(instrument), said)


def _clear(market: Market, state: OpenRound, due_us: int) -> Clearing:
    reference = market.folds.orders.reference(state.instrument, state.resource, due_us)
    crossing = _cross(market, state.instrument, due_us, reference) or NOTHING_MEETS
    placed = place(crossing.filled, crossing.asks, _room(market))
    return Clearing(reference, crossing, placed, _fills(placed))


def _cross(
    market: Market, instrument: RoundId, now_us: int, reference_nano: int
) -> Crossing | None:
    """Eligible orders that reach one another, crossed.

    Asks above every bid, and bids below every eligible ask, are not even looked at: a book of any
    depth costs as much as what can trade.
    """
    book = market.folds.book
    asks = market.folds.eligible.of(instrument, now_us)
    highest, lowest = book.best_bid(instrument), asks.lowest()
    if highest is None or lowest is None or lowest > highest:
        return None
    bids = list(book.bids_from(instrument, lowest))
    accounts = dict.fromkeys(bid.account for bid in bids)
    owner_of: dict[bytes, bytes] = {
        account: market.folds.registry.beneficial_owner(account) for account in accounts
    }
    return cross(bids, asks, owner_of=owner_of, reference_nano=reference_nano)


def _room(market: Market) -> Callable[[NodeId, str], int | None]:
    """Room for further allocations: what a node lists, runs out.

    What it does not list it does not have, but for things of the network, which are not a node's.
    """
    catalogue = market.folds.registry.catalogue
    capacity = market.folds.capacity

    def room(node: NodeId, resource: str) -> int | None:
        free = capacity.free(node, resource)
        if free is not None:
            return free
        row = catalogue.row(resource)
        return None if row is not None and row.revenue is Revenue.NETWORK else 0

    return room


def _fills(placed: Sequence[Placed]) -> tuple[Fill, ...]:
    """Fills with the ids of their leases: the bid and the fill's ordinal within it."""
    ordinals: dict[bytes, int] = {}
    fills: list[Fill] = []
    for each in placed:
        ordinal = ordinals.get(each.bid.bid, each.bid.fills)
        ordinals[each.bid.bid] = ordinal + 1
        fills.append(
            Fill(
                bid=each.bid.bid,
                offer=each.ask.offer,
                node=each.ask.node,
                lots=each.lots,
                lease=LeaseId(derive("lease", each.bid.bid, ordinal)),
            )
        )
    return tuple(fills)


# The fold


class OrdersFold:
    """What decisions on orders need beside book and aggregates; a function of the events alone."""

    def __init__(self, genesis: Genesis) -> None:
        """Start with no order."""
        self.last_order_no = 0
        self._orders: dict[bytes, AccountId] = {}  # live orders → account
        self._live: dict[bytes, int] = {}  # beneficial owner → live orders
        self._offered: dict[tuple[bytes, str], OfferId] = {}
        self._of_node: dict[bytes, dict[OfferId, str]] = {}
        self._offers: dict[OfferId, OfferPlaced] = {}
        self._references: dict[bytes, Reference] = {}
        self._market: Market | None = None

    def bind(self, market: Market) -> None:
        """Take the market whose deadlines the fold sets."""
        self._market = market

    @property
    def market(self) -> Market:
        """The market that the fold is bound to."""
        if self._market is None:
            raise InvariantBroken("a fold is bound before it folds")
        return self._market

    # What is asked

    def live_of(self, owner: bytes) -> int:
        """Live orders of a beneficial owner."""
        return self._live.get(owner, 0)

    def offered(self, node: bytes, resource: str) -> OfferId | None:
        """The node's live offer of a resource."""
        return self._offered.get((node, resource))

    def offers(self) -> Iterable[OfferPlaced]:
        """Every live offer."""
        return self._offers.values()

    def offers_of(self, node: bytes) -> Sequence[OfferId]:
        """The node's live offers, by resource."""
        offers = self._of_node.get(node, {})
        return sorted(offers, key=lambda each: offers[each])

    def offers_of_provider(self, provider: bytes) -> Sequence[OfferId]:
        """The live offers of a provider, as they were placed; looks at every live offer."""
        return [each.offer for each in self._offers.values() if each.provider == provider]

    def reference(self, instrument: RoundId, resource: str, now_us: int) -> int:
        """The reference price of an instrument now (R8.1); list price before its first round."""
        found = self._references.get(instrument)
        parameters = self.market.parameters
        return (found or self._new_reference(resource)).at(
            now_us,
            window_us=parameters.reference_window_us,
            move_ppm=parameters.reference_move_ppm,
            tick_nano=parameters.price_tick_nano,
        )

    # Events

    def apply(self, event: Any) -> None:
        """Take in one event."""
        match event:
            case AccountAdmitted():
                # It owned itself alone, so its orders are all that its count held.
                moved = self._live.pop(event.account, 0)
                if moved:
                    self._live[event.owner] = self._live.get(event.owner, 0) + moved
            case BidPlaced():
                self._placed(event.bid, event.account, event.order_no)
            case OfferPlaced():
                self._placed(event.offer, event.account, event.order_no)
                self._offered[event.node, event.resource] = event.offer
                self._of_node.setdefault(event.node, {})[event.offer] = event.resource
                self._offers[event.offer] = event
            case BidCancelled():
                self._gone(event.bid)
            case BidFilled():
                if not event.open_lots:
                    self._gone(event.bid)
            case OfferWithdrawn():
                self._gone(event.offer)
                was = self._offers.pop(event.offer)
                del self._offered[was.node, was.resource]
                del self._of_node[was.node][event.offer]
            case RoundOpened():
                self._references.setdefault(event.instrument, self._new_reference(event.resource))
                self.market.deadlines.set(MarketDue.ROUND_CLEARS, event.instrument, event.clears_us)
            case FillsAdded():
                self.market.deadlines.set(MarketDue.ROUND_CLEARS, event.instrument, event.at_us)
            case RoundCleared():
                self.market.deadlines.clear(MarketDue.ROUND_CLEARS, event.instrument)
                self._references[event.instrument].cleared(
                    event.at_us,
                    event.reference_nano,
                    event.price_nano,
                    event.volume_milli,
                    window_us=self.market.parameters.reference_window_us,
                )
            case _:
                pass

    def _new_reference(self, resource: str) -> Reference:
        row = self.market.folds.registry.catalogue.row(resource)
        if row is None:
            raise InvariantBroken("an instrument has a catalogue row")
        return Reference(row.price_nano)

    def _placed(self, order: bytes, account: AccountId, order_no: int) -> None:
        self.last_order_no = order_no
        self._orders[order] = account
        owner = self.market.folds.registry.beneficial_owner(account)
        self._live[owner] = self._live.get(owner, 0) + 1

    def _gone(self, order: bytes) -> None:
        owner = self.market.folds.registry.beneficial_owner(self._orders.pop(order))
        self._live[owner] -= 1
        if not self._live[owner]:
            del self._live[owner]


HANDLERS: Final[Mapping[type[Any], Callable[[Market, Request], Refused | Sequence[RowRefused]]]] = {
    PlaceOffers: place_offers,
    WithdrawOffer: withdraw_offer,
    PlaceBids: place_bids,
    CancelBid: cancel_bid,
}
FIRE: Final[Mapping[int, Callable[[Market, int, bytes], None]]] = {
    MarketDue.ROUND_CLEARS: clear_round,
}
LEARN: Final[Mapping[type[Any], Callable[[Market, ForeignCommit, Any], None]]] = {}
EVOLVE: Final[Mapping[type[Any], Callable[[Any, Any], Any]]] = {
    OfferPlaced: offer.evolve,
    OfferWithdrawn: offer.evolve,
    BidPlaced: bid.evolve,
    BidCancelled: bid.evolve,
    BidFilled: bid.evolve,
    RoundOpened: rounds.evolve,
    FillsAdded: rounds.evolve,
    RoundCleared: rounds.evolve,
}
