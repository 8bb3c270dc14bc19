"""The asks of one instrument that may trade, kept as a round needs them: by price, owner and room.

A round looks at what it fills and at no other ask, so the pool is kept from round to round and told
of what changed (``eligible_asks``). A pool that is made of the same asks at once is the same.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from domain.clearing import OpenAsk
    from domain.ids import NodeId, OfferId


class Tightest:
    """Nodes by (free quantity, id)."""

    def __init__(self) -> None:
        """Start with no node."""
        self._free: dict[NodeId, int] = {}
        self._levels: list[int] = []
        self._nodes: dict[int, list[NodeId]] = {}

    def pop(self, least: int) -> tuple[int, NodeId] | None:
        """Take out the first node with at least so much free."""
        at = bisect_left(self._levels, least)
        if at == len(self._levels):
            return None
        free = self._levels[at]
        nodes = self._nodes[free]
        node = nodes.pop(0)
        if not nodes:
            del self._levels[at], self._nodes[free]
        del self._free[node]
        return free, node

    def put(self, free: int, node: NodeId) -> None:
        """Put a node in, or move it; one with nothing free is left out."""
        self.drop(node)
        if not free:
            return
        self._free[node] = free
        nodes = self._nodes.get(free)
        if nodes is None:
            self._nodes[free] = [node]
            insort(self._levels, free)
        else:
            insort(nodes, node)

    def free(self) -> Iterable[tuple[NodeId, int]]:
        """Every node that is in, in no order that matters."""
        return self._free.items()

    def drop(self, node: NodeId) -> None:
        """Take a node out, if it is in."""
        free = self._free.pop(node, 0)
        if not free:
            return
        nodes = self._nodes[free]
        del nodes[bisect_left(nodes, node)]
        if not nodes:
            del self._nodes[free], self._levels[bisect_left(self._levels, free)]


class AskPool:
    """Asks that may take part, each with what it can give; at most one a node."""

    def __init__(self) -> None:
        """Start with no ask."""
        self._open: dict[OfferId, tuple[OpenAsk, bytes]] = {}  # with its beneficial owner
        self._on_node: dict[NodeId, OfferId] = {}
        self._of_owner: dict[bytes, dict[OfferId, None]] = {}
        self._prices: list[int] = []
        self._supply: dict[int, int] = {}
        self._firm = Tightest()
        self._revocable = Tightest()

    @classmethod
    def of(cls, asks: Iterable[OpenAsk], owner_of: Mapping[bytes, bytes]) -> AskPool:
        """A pool of these asks; ``owner_of`` gives the beneficial owner of their accounts."""
        pool = cls()
        for each in asks:
            pool.put(each, owner_of[each[0].account])
        return pool

    def __iter__(self) -> Iterator[OpenAsk]:
        """Every ask, in no order that matters."""
        return (each for each, _ in self._open.values())

    def put(self, each: OpenAsk, owner: bytes) -> None:
        """Add an ask, or replace it; one with nothing to give is taken out."""
        ask, free = each
        self.drop(ask.offer)
        if free <= 0:
            return
        self._open[ask.offer] = each, owner
        self._on_node[ask.node] = ask.offer
        self._of_owner.setdefault(owner, {})[ask.offer] = None
        if ask.ask_nano not in self._supply:
            insort(self._prices, ask.ask_nano)
        self._supply[ask.ask_nano] = self._supply.get(ask.ask_nano, 0) + free
        self._queue(each).put(free, ask.node)

    def drop(self, offer: OfferId) -> None:
        """Take an ask out, if it is in."""
        known = self._open.pop(offer, None)
        if known is None:
            return
        (ask, free), owner = known
        del self._on_node[ask.node], self._of_owner[owner][offer]
        if not self._of_owner[owner]:
            del self._of_owner[owner]
        self._supply[ask.ask_nano] -= free
        if not self._supply[ask.ask_nano]:
            del self._supply[ask.ask_nano]
            del self._prices[bisect_left(self._prices, ask.ask_nano)]
        self._queue(known[0]).drop(ask.node)

    def ask(self, offer: OfferId) -> OpenAsk:
        """An ask that is in."""
        return self._open[offer][0]

    def on(self, node: NodeId) -> OpenAsk:
        """The ask of a node that is in."""
        return self._open[self._on_node[node]][0]

    def lowest(self) -> int | None:
        """The lowest price that is asked."""
        return self._prices[0] if self._prices else None

    def supply(self, highest: int) -> dict[int, int]:
        """What is offered at each price up to the highest."""
        prices = self._prices[: bisect_right(self._prices, highest)]
        return {price: self._supply[price] for price in prices}

    def owned(self, owner: bytes) -> list[OpenAsk]:
        """The asks of a beneficial owner."""
        return [self._open[offer][0] for offer in self._of_owner.get(owner, ())]

    def take(self, least: int, *, firm: bool) -> tuple[int, NodeId] | None:
        """Take the tightest node with at least so much free out of its queue.

        ``firm``: only one that cannot be reclaimed. What is taken is given back (``give``), and at
        the end of a round ``restore`` makes everything as it was.
        """
        one = self._firm.pop(least)
        if firm:
            return one
        two = self._revocable.pop(least)
        if one is None or two is None:
            return one or two
        if one < two:
            self._revocable.put(*two)
            return one
        self._firm.put(*one)
        return two

    def waiting(self, highest: int) -> Iterator[tuple[NodeId, int, bool]]:
        """Nodes that can be taken at prices up to the highest: what is free, and whether firm."""
        for queue, firm in ((self._firm, True), (self._revocable, False)):
            for node, free in queue.free():
                if self.on(node)[0].ask_nano <= highest:
                    yield node, free, firm

    def give(self, free: int, node: NodeId) -> None:
        """Put a node back with what it has left."""
        self._queue(self.on(node)).put(free, node)

    def restore(self, nodes: Iterable[NodeId]) -> None:
        """Let nodes stand with what their asks can give."""
        for node in nodes:
            self.give(self.on(node)[1], node)

    def _queue(self, each: OpenAsk) -> Tightest:
        return self._revocable if each[0].interruptible else self._firm
