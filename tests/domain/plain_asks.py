"""The asks that may match, by looking at every one: what the kept pools are held against."""

from __future__ import annotations

from domain.ask_pool import AskPool
from domain.clearing import RestingAsk
from domain.eligible_asks import can_give
from domain.ids import NodeId, RoundId
from tests.support.market import World


def plain_asks(world: World) -> dict[RoundId, dict[bytes, tuple[RestingAsk, int]]]:
    """By instrument and offer, what each can give now."""
    market = world.market
    found: dict[RoundId, dict[bytes, tuple[RestingAsk, int]]] = {}
    for placed in market.folds.orders.offers():
        ask = market.folds.book.ask(placed.offer)
        assert ask is not None
        free = can_give(market, ask, market.time_us)
        of_instrument = found.setdefault(ask.instrument, {})
        if free:
            of_instrument[ask.offer] = ask, free
    return found


def check_pools(world: World) -> None:
    """The pools hold exactly those asks, and are in every respect as if they were made of them."""
    market = world.market
    owner = market.folds.registry.beneficial_owner
    for instrument, asks in plain_asks(world).items():
        kept = market.folds.eligible.of(instrument, market.time_us)
        assert {each[0].offer: each for each in kept} == asks
        again = AskPool()
        for each in asks.values():
            again.put(each, owner(each[0].account))
        dearest = max((ask.ask_nano for ask, _ in asks.values()), default=0)
        assert (kept.lowest(), kept.supply(dearest)) == (again.lowest(), again.supply(dearest))
        for account in {ask.account for ask, _ in asks.values()}:
            one, two = kept.owned(owner(account)), again.owned(owner(account))
            assert {each[0].offer for each in one} == {each[0].offer for each in two}
        assert _drained(kept) == _drained(again)


def _drained(pool: AskPool) -> list[tuple[int, NodeId]]:
    """Its nodes in the order in which lots would be put on them; they are put back."""
    taken: list[tuple[int, NodeId]] = []
    while (found := pool.take(1, firm=False)) is not None:
        taken.append(found)
    pool.restore(node for _, node in taken)
    return taken
