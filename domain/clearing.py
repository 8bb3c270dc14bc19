"""Clearing a round: one price, who is filled, and on which node (R8.1, R8.2).

This is the normative code, which an auditor runs again for every round: whole numbers, no clock,
and the same answer for the orders in any order of the arguments.

1. *Netting.* Of a beneficial owner with orders on both sides, the best bid is set against the
   cheapest ask while the bid's limit reaches the ask; what they have in common takes no part in
   this round and both go on resting. What is left of the owner's bids is below what is left of its
   asks, so at no price can the two meet. A bid takes part in whole lots: a lot that is netted in
   part stays out.
2. *Price.* With D(t) the quantity of bids at t or above and S(t) that of asks at t or below, low
   is the first tick with S(t) ≥ D(t + 1) and high the last with D(t) ≥ S(t − 1): the interval of
   competitive prices. The price is the reference, clamped to it. This rule maximises volume, and
   an added ask never raises the price nor an added bid lowers it, which the usual tie-breaks do.
3. *Margin.* Bids above the price are filled. Bids at the price share what is left: older rounds
   first, within a round pro rata in whole lots by largest remainder, ties by order number.
4. *Placement.* Asks are not rationed: each lot goes, in order of its bid, whole to the node with
   the least free quantity that has room for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from domain.ask_pool import AskPool
from domain.ids import QUANTITY_MAX, AccountId, BidId, NodeId, OfferId, ProviderId, RoundId
from domain.invariant import invariant
from domain.node import Amount
from domain.room_columns import RoomColumns

#: Nodes that a round looks at in vain before it takes columns.
LOOKS: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class RestingBid:
    """A bid as it stands in the book."""

    bid: BidId
    instrument: RoundId
    order_no: int
    round: int  # number of the round in which it came
    account: AccountId
    limit_nano: int
    lot_milli: int
    open_lots: int
    fills: int  # leases that it has become so far
    allocations: tuple[Amount, ...]  # of each lot, beside the device
    reserved: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RestingAsk:
    """An ask as it stands in the book; it stays there while leases take from its quantity."""

    offer: OfferId
    instrument: RoundId
    order_no: int
    round: int
    node: NodeId
    provider: ProviderId
    account: AccountId
    resource: str
    ask_nano: int
    quantity_milli: int
    taken_milli: int  # by leases that run on it
    interruptible: bool


#: An ask that takes part, with the quantity that it can give in this round.
OpenAsk = tuple[RestingAsk, int]
#: A bid and a number of its lots.
Lots = tuple[RestingBid, int]
#: What a node has free of a further resource; None where the node cannot run out of it.
Room = Callable[[NodeId, str], int | None]


@dataclass(frozen=True, slots=True, eq=False)
class RoundAsks:
    """The asks of a round: those of a pool at or below its price, less what was netted."""

    pool: AskPool
    price_nano: int
    less_free: Mapping[OfferId, int]

    def __iter__(self) -> Iterator[OpenAsk]:
        """Every one of them, with what it can give; looks at the whole pool."""
        for ask, free in self.pool:
            free = self.less_free.get(ask.offer, free)
            if free and ask.ask_nano <= self.price_nano:
                yield ask, free


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossing:
    """A round in which bids and asks meet: its price, and who is filled before placement."""

    low_nano: int
    high_nano: int
    price_nano: int
    demand_milli: int  # eligible bids at the price or above, after netting; 2^62 for more
    supply_milli: int  # eligible asks at the price or below, after netting
    filled: tuple[Lots, ...]  # in (round, order number)
    asks: RoundAsks  # at the price or below


#: A round in which no bid reaches an ask.
NOTHING_MEETS: Final = Crossing(
    low_nano=0,
    high_nano=0,
    price_nano=0,
    demand_milli=0,
    supply_milli=0,
    filled=(),
    asks=RoundAsks(AskPool(), 0, {}),
)


@dataclass(frozen=True, slots=True)
class Placed:
    """Lots of a bid on a node."""

    bid: RestingBid
    ask: RestingAsk
    lots: int


def net_own(
    bids: Iterable[RestingBid], asks: AskPool, owner_of: Mapping[bytes, bytes]
) -> tuple[list[Lots], dict[OfferId, int]]:
    """What takes part once every owner's own bids and asks are set against one another.

    ``owner_of`` gives the beneficial owner of every account that has a bid here. Returns the bids,
    and what is left of the asks that gave something.
    """
    wanted = [(bid, bid.open_lots) for bid in bids]
    own_asks: dict[bytes, list[OpenAsk]] = {}
    own_bids: dict[bytes, list[Lots]] = {}
    for lots in wanted:
        owner = owner_of[lots[0].account]
        if owner not in own_asks:
            own_asks[owner] = asks.owned(owner)
        if own_asks[owner]:
            own_bids.setdefault(owner, []).append(lots)
    fewer_lots: dict[bytes, int] = {}
    less_free: dict[OfferId, int] = {}
    for owner, lots_of_owner in own_bids.items():
        _net_one(lots_of_owner, own_asks[owner], fewer_lots, less_free)
    if fewer_lots:
        wanted = [(bid, fewer_lots.get(bid.bid, lots)) for bid, lots in wanted]
    return wanted, less_free


def _net_one(
    bids: list[Lots],
    asks: list[OpenAsk],
    fewer_lots: dict[bytes, int],
    less_free: dict[OfferId, int],
) -> None:
    """Net the orders of one owner: best bids against cheapest asks."""
    bids.sort(key=lambda each: (-each[0].limit_nano, each[0].order_no))
    asks.sort(key=lambda each: (each[0].ask_nano, each[0].order_no))
    at = 0
    for bid, lots in bids:
        wants = whole = lots * bid.lot_milli
        while wants and at < len(asks) and asks[at][0].ask_nano <= bid.limit_nano:
            ask, free = asks[at]
            free = less_free.get(ask.offer, free)
            common = min(wants, free)
            wants -= common
            less_free[ask.offer] = free - common
            if free == common:
                at += 1
        if wants < whole:
            fewer_lots[bid.bid] = wants // bid.lot_milli


def competitive_interval(
    demand: Mapping[int, int], supply: Mapping[int, int]
) -> tuple[int, int] | None:
    """The first and last competitive price; None where no bid reaches an ask.

    ``demand`` and ``supply`` are the quantities at each limit and ask. Low and high always stand
    on one of those prices, since between two of them neither curve moves.
    """
    limits = [price for price, quantity in demand.items() if quantity]
    asked = [price for price, quantity in supply.items() if quantity]
    if not limits or not asked or max(limits) < min(asked):
        return None
    prices = sorted({*limits, *asked})
    low = high = -1
    above = sum(demand.values())  # D(t), then D(t + 1)
    below = 0  # S(t − 1), then S(t)
    for price in prices:
        if above >= below:
            high = price
        above -= demand.get(price, 0)
        below += supply.get(price, 0)
        if low < 0 and below >= above:
            low = price
    return low, high


def cross(
    bids: Iterable[RestingBid],
    asks: AskPool,
    *,
    owner_of: Mapping[bytes, bytes],
    reference_nano: int,
) -> Crossing | None:
    """Net, price and ration the eligible orders; None where nothing meets.

    Bids that could not trade at any price (below every ask) may be left out of the argument, and
    asks above every bid are: they change nothing. ``owner_of`` is of the bids' accounts.
    """
    wanted, less_free = net_own(bids, asks, owner_of)
    demand: dict[int, int] = {}
    for bid, lots in wanted:
        demand[bid.limit_nano] = demand.get(bid.limit_nano, 0) + lots * bid.lot_milli
    supply = asks.supply(max(demand, default=-1))
    for offer, left in less_free.items():
        ask, free = asks.ask(offer)
        supply[ask.ask_nano] -= free - left
    interval = competitive_interval(demand, supply)
    if interval is None:
        return None
    low, high = interval
    price = min(max(reference_nano, low), high)
    supplied = sum(quantity for at, quantity in supply.items() if at <= price)
    return Crossing(
        low_nano=low,
        high_nano=high,
        price_nano=price,
        # Bids without a price reserve nothing, so their sum may be beyond any field (R1.6).
        demand_milli=min(
            sum(quantity for at, quantity in demand.items() if at >= price), QUANTITY_MAX
        ),
        supply_milli=supplied,
        filled=tuple(_filled(wanted, price, supplied)),
        asks=RoundAsks(asks, price, less_free),
    )


def _filled(wanted: Sequence[Lots], price: int, supplied: int) -> list[Lots]:
    """Bids above the price whole, bids at it from what is left, in order of their numbers."""
    filled = [each for each in wanted if each[0].limit_nano > price and each[1]]
    left = supplied - sum(lots * bid.lot_milli for bid, lots in filled)
    invariant(left >= 0, "every bid above the price can be filled")
    rounds: dict[int, list[Lots]] = {}
    for each in wanted:
        if each[0].limit_nano == price and each[1]:
            rounds.setdefault(each[0].round, []).append(each)
    for number in sorted(rounds):
        share = pro_rata(rounds[number], left)
        left -= sum(lots * bid.lot_milli for bid, lots in share)
        filled += share
    return sorted(filled, key=lambda each: (each[0].round, each[0].order_no))


def pro_rata(wanted: Sequence[Lots], available: int) -> list[Lots]:
    """Whole lots in proportion to what is wanted; largest remainders first, ties by number.

    With equal lots every bid gets its exact share rounded up or down. Where lots differ, a lot
    that is too large for the rest leaves it to the next, so that no capacity is lost to it.
    """
    total = sum(lots * bid.lot_milli for bid, lots in wanted)
    if total <= available:
        return list(wanted)
    got: dict[bytes, int] = {}
    order: list[tuple[int, int, RestingBid, int]] = []
    left = available
    for bid, lots in wanted:
        exact = available * lots * bid.lot_milli  # over total
        whole = exact // (total * bid.lot_milli)
        got[bid.bid] = whole
        left -= whole * bid.lot_milli
        order.append((whole * bid.lot_milli * total - exact, bid.order_no, bid, lots))
    order.sort(key=lambda each: each[:2])
    for remainder, _, bid, _ in order:
        if remainder < 0 and bid.lot_milli <= left:
            got[bid.bid] += 1
            left -= bid.lot_milli
    for _, _, bid, lots in order:
        more = min(lots - got[bid.bid], left // bid.lot_milli)
        got[bid.bid] += more
        left -= more * bid.lot_milli
    return [(bid, got[bid.bid]) for bid, _ in wanted if got[bid.bid]]


def place(
    filled: Sequence[Lots], asks: RoundAsks, room: Room, *, looks: int = LOOKS
) -> list[Placed]:
    """Put filled lots on nodes; what fits nowhere is left out.

    Lots are placed one at a time by the rule. A node that takes one lot of a bid is then the
    tightest of those that fit, so it takes the next as well until it is full: one look a node and
    bid gives the same answer. A node that has no room for a lot of a bid will not have it later in
    the round. A reserved bid fits only an ask that cannot be reclaimed. The pool is as it was when
    all is placed. After so many ``looks`` in vain the nodes are looked at as columns.
    """
    return _Placing(asks, room, looks).run(filled)


class _Placing:
    """One round's lots on their way to nodes."""

    def __init__(self, asks: RoundAsks, room: Room, looks: int) -> None:
        self._asks = asks
        self._pool = asks.pool
        self._room = room
        self._looks = looks
        self._moved: dict[NodeId, None] = {}
        self._left: dict[tuple[bytes, str], int | None] = {}
        self._columns: RoomColumns | None = None
        self._placed: list[Placed] = []

    def run(self, filled: Sequence[Lots]) -> list[Placed]:
        pool = self._pool
        for offer, free in self._asks.less_free.items():
            node = pool.ask(offer)[0].node
            self._moved[node] = None
            pool.give(free, node)
        nowhere: dict[tuple[int, bool, tuple[Amount, ...]], bool] = {}
        for bid, lots in filled:
            kind = (bid.lot_milli, bid.reserved, bid.allocations)
            if kind not in nowhere and not (
                self._by_columns(bid, lots)
                if bid.allocations and self._looks <= 0
                else self._one_by_one(bid, lots)
            ):
                nowhere[kind] = True
        pool.restore(self._moved)
        return self._placed

    def _one_by_one(self, bid: RestingBid, lots: int) -> bool:
        """Take nodes from the pool until all lots are placed; False where one fits nowhere."""
        pool = self._pool
        passed_over: list[tuple[int, NodeId]] = []
        while lots:
            found = pool.take(bid.lot_milli, firm=bid.reserved)
            if found is None:
                break
            free, node = found
            self._moved[node] = None
            ask = pool.on(node)[0]
            if ask.ask_nano > self._asks.price_nano:
                continue  # out of this round, until the pool is restored
            fits = self._fits(bid, lots, free, node)
            if not fits:
                self._looks -= 1
                passed_over.append(found)
                continue
            lots -= fits
            rest = self._take(bid, ask, fits, free)
            if lots:
                passed_over.append((rest, node))  # it is full for this bid
            else:
                pool.give(rest, node)
        for free, node in passed_over:
            pool.give(free, node)
        return not lots

    def _by_columns(self, bid: RestingBid, lots: int) -> bool:
        """The same, with one look for each node that takes lots."""
        if self._columns is None:
            price = self._asks.price_nano
            self._columns = RoomColumns(self._pool.waiting(price), self._free_of)
        while lots:
            found = self._columns.tightest(bid.lot_milli, bid.allocations, firm=bid.reserved)
            if found is None:
                return False
            free, node = found
            self._moved[node] = None
            fits = self._fits(bid, lots, free, node)
            lots -= fits
            self._pool.give(self._take(bid, self._pool.on(node)[0], fits, free), node)
        return True

    def _free_of(self, node: NodeId, resource: str) -> int | None:
        key = (node, resource)
        if key not in self._left:
            self._left[key] = self._room(node, resource)
        return self._left[key]

    def _fits(self, bid: RestingBid, lots: int, free: int, node: NodeId) -> int:
        """How many lots of a bid fit on a node."""
        fits = min(lots, free // bid.lot_milli)
        for extra in bid.allocations:
            has = self._free_of(node, extra.resource)
            if has is not None:
                fits = min(fits, has // extra.amount)
        return fits

    def _take(self, bid: RestingBid, ask: RestingAsk, fits: int, free: int) -> int:
        """Place lots on the node of an ask; what it has left."""
        self._placed.append(Placed(bid, ask, fits))
        for extra in bid.allocations:
            has = self._free_of(ask.node, extra.resource)
            if has is not None:
                self._left[ask.node, extra.resource] = has - fits * extra.amount
        rest = free - fits * bid.lot_milli
        if self._columns is not None:
            self._columns.put(ask.node, rest, bid.allocations)
        return rest
