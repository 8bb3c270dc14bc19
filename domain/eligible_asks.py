"""Which asks may match now, kept from round to round: what changed is looked at, and nothing else.

An ask may match while its node is up, attested and not retired, its provider's stake reaches what
its nodes require, and something of it is free (R5.2, R6.2, R6.4). All of that stands in other
folds; this one remembers what it found there last. An event marks the nodes and providers that it
may have changed, and the next round looks at those again. It is a cache: nothing that it holds is
not a function of the other folds and the time, and it is built from them when it is first asked.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, get_args

from domain.account import AccountAdmitted
from domain.ask_pool import AskPool
from domain.ids import NodeId, OfferId, ProviderId, RoundId
from domain.invariant import InvariantBroken
from domain.lease import LeaseEnded
from domain.node import NodeAttested, NodeHealthChanged, NodeRegistered, NodeRetired
from domain.offer import OfferPlaced, OfferWithdrawn
from domain.provider import ProviderEvent
from domain.round import RoundCleared

if TYPE_CHECKING:
    from domain.clearing import RestingAsk
    from domain.market import Market


def can_give(market: Market, ask: RestingAsk, now_us: int) -> int:
    """How much of an ask may match now; 0 for nothing."""
    folds = market.folds
    has = folds.capacity.free(ask.node, ask.resource)
    free = min(has or 0, ask.quantity_milli - ask.taken_milli)
    if free <= 0 or not folds.health.up(ask.node) or not folds.stake.may_match(ask.provider):
        return 0
    node = folds.registry.node(ask.node)
    if node is None or node.retired or node.attested(ask.resource, now_us) < ask.quantity_milli:
        return 0
    return free


class EligibleAsks:
    """The pool of each instrument."""

    def __init__(self) -> None:
        """Nothing was looked at yet."""
        self._market: Market | None = None
        self._built = False
        self._pools: dict[RoundId, AskPool] = {}
        self._of_provider: dict[ProviderId, dict[NodeId, None]] = {}
        self._may: dict[ProviderId, bool] = {}
        self._nodes: dict[NodeId, None] = {}  # to be looked at again
        self._providers: dict[ProviderId, None] = {}  # whose stake is to be looked at again
        self._where: dict[OfferId, RoundId] = {}
        self._expires: dict[NodeId, int] = {}  # the first attestation that runs out
        self._expiries: list[tuple[int, NodeId]] = []  # a heap of those

    def bind(self, market: Market) -> None:
        """Take the market whose folds are looked at."""
        self._market = market

    @property
    def market(self) -> Market:
        """The market that the fold is bound to."""
        if self._market is None:
            raise InvariantBroken("a fold is bound before it folds")
        return self._market

    def of(self, instrument: RoundId, now_us: int) -> AskPool:
        """The asks of an instrument that may match; ``now_us`` never falls."""
        market = self.market
        if not self._built:
            self._build(market)
        stake = market.folds.stake
        for provider in self._providers:
            may = stake.may_match(provider)
            if may != self._may.get(provider):
                self._may[provider] = may
                self._nodes.update(self._of_provider.get(provider, {}))
        self._providers.clear()
        while self._expiries and self._expiries[0][0] <= now_us:
            expires_us, node = heapq.heappop(self._expiries)
            if self._expires.get(node) == expires_us:
                del self._expires[node]
                self._nodes[node] = None
        for node in self._nodes:
            self._look_at(market, node, now_us)
        self._nodes.clear()
        return self._pools.setdefault(instrument, AskPool())

    def _build(self, market: Market) -> None:
        self._built = True
        for placed in market.folds.orders.offers():
            self._placed(placed)

    def _look_at(self, market: Market, node: NodeId, now_us: int) -> None:
        folds = market.folds
        for offer in folds.orders.offers_of(node):
            ask = folds.book.ask(offer)
            if ask is None:
                raise InvariantBroken("a live offer rests in the book")
            self._where[offer] = ask.instrument
            pool = self._pools.setdefault(ask.instrument, AskPool())
            owner = folds.registry.beneficial_owner(ask.account)
            pool.put((ask, can_give(market, ask, now_us)), owner)
        facts = folds.registry.node(node)
        ahead = [us for us in facts.expiries.values() if us > now_us] if facts is not None else []
        if ahead and self._expires.get(node) != min(ahead):
            self._expires[node] = min(ahead)
            heapq.heappush(self._expiries, (min(ahead), node))

    # Events

    def apply(self, event: Any) -> None:
        """Mark what an event may have changed."""
        mark = _MARKS.get(type(event))
        if mark is not None and self._built:
            mark(self, event)

    def _node(self, event: Any) -> None:
        self._nodes[event.node] = None

    def _provider(self, event: Any) -> None:
        self._providers[event.provider] = None

    def _node_of_provider(self, event: Any) -> None:
        self._nodes[event.node] = None
        facts = self.market.folds.registry.node(event.node)
        if facts is not None:
            self._providers[facts.provider] = None
            self._of_provider.get(facts.provider, {}).pop(event.node, None)

    def _cleared(self, event: RoundCleared) -> None:
        for fill in event.fills:
            self._nodes[fill.node] = None

    def _placed(self, event: OfferPlaced) -> None:
        self._nodes[event.node] = None
        self._providers[event.provider] = None
        self._of_provider.setdefault(event.provider, {})[event.node] = None

    def _withdrawn(self, event: OfferWithdrawn) -> None:
        instrument = self._where.pop(event.offer, None)
        if instrument is not None:
            self._pools[instrument].drop(event.offer)

    def _admitted(self, event: AccountAdmitted) -> None:
        provider = self.market.folds.registry.provider_of_account(event.account)
        if provider is not None:
            self._nodes.update(self._of_provider.get(provider, {}))


_MARKS: Final[Mapping[type[Any], Callable[[EligibleAsks, Any], None]]] = {
    **dict.fromkeys(get_args(ProviderEvent), EligibleAsks._provider),
    NodeRegistered: EligibleAsks._provider,
    NodeRetired: EligibleAsks._node_of_provider,
    NodeAttested: EligibleAsks._node,
    NodeHealthChanged: EligibleAsks._node,
    LeaseEnded: EligibleAsks._node,
    RoundCleared: EligibleAsks._cleared,
    OfferPlaced: EligibleAsks._placed,
    OfferWithdrawn: EligibleAsks._withdrawn,
    AccountAdmitted: EligibleAsks._admitted,
}
