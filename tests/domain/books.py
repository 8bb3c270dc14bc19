"""Books for tests of clearing: orders by short names, and a clearing that tries every tick."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from domain.clearing import OpenAsk, RestingAsk, RestingBid
from domain.ids import AccountId, BidId, NodeId, OfferId, ProviderId, RoundId
from domain.node import Amount

DEVICE = "gpu.h100"
INSTRUMENT = RoundId(bytes(16))


def name(kind: str, number: int | str) -> bytes:
    """A stable id."""
    return hashlib.sha256(f"{kind} {number}".encode()).digest()[:16]


def bid(
    number: int,
    limit: int,
    lots: int,
    *,
    lot: int = 1,
    owner: str | None = None,
    round: int = 1,
    reserved: bool = False,
    allocations: Mapping[str, int] | None = None,
) -> RestingBid:
    """A bid; without ``owner`` it is nobody else's."""
    return RestingBid(
        bid=BidId(name("bid", number)),
        instrument=INSTRUMENT,
        order_no=number,
        round=round,
        account=AccountId(name("account", owner or f"buyer {number}")),
        limit_nano=limit,
        lot_milli=lot,
        open_lots=lots,
        fills=0,
        allocations=tuple(
            Amount(resource=r, amount=a) for r, a in sorted((allocations or {}).items())
        ),
        reserved=reserved,
    )


def ask(
    number: int,
    price: int,
    free: int,
    *,
    owner: str | None = None,
    interruptible: bool = False,
) -> OpenAsk:
    """An ask of a node of its own with so much free."""
    return (
        RestingAsk(
            offer=OfferId(name("offer", number)),
            instrument=INSTRUMENT,
            order_no=number,
            round=1,
            node=NodeId(name("node", number)),
            provider=ProviderId(name("provider", owner or number)),
            account=AccountId(name("account", owner or f"seller {number}")),
            resource=DEVICE,
            ask_nano=price,
            quantity_milli=free,
            taken_milli=0,
            interruptible=interruptible,
        ),
        free,
    )


def owners(bids: Sequence[RestingBid], asks: Sequence[OpenAsk]) -> dict[bytes, bytes]:
    """Every account belongs to itself."""
    return {a: a for a in [b.account for b in bids] + [a.account for a, _ in asks]}


def demand_at(bids: Sequence[RestingBid], price: int) -> int:
    """D(t): the quantity that is wanted at the price."""
    return sum(b.open_lots * b.lot_milli for b in bids if b.limit_nano >= price)


def supply_at(asks: Sequence[OpenAsk], price: int) -> int:
    """S(t): the quantity that is offered at the price."""
    return sum(free for a, free in asks if a.ask_nano <= price)


def interval_by_every_tick(
    bids: Sequence[RestingBid], asks: Sequence[OpenAsk], highest: int
) -> tuple[int, int] | None:
    """The competitive interval by its definition; ticks are whole numbers here."""
    ticks = range(highest + 2)
    if not any(min(demand_at(bids, t), supply_at(asks, t)) for t in ticks):
        return None
    low = min(t for t in ticks if supply_at(asks, t) >= demand_at(bids, t + 1))
    high = max(t for t in ticks if demand_at(bids, t) >= supply_at(asks, t - 1))
    return low, high
