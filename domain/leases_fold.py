"""What lease rules know beside the aggregates: live leases, rejections, deadlines (R4, R8).

A fold over events alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from domain.due import MarketDue
from domain.genesis import REJECTIONS_MAX, Genesis, Parameters
from domain.ids import AccountId, LeaseId, NodeId, ProviderId, RoundId
from domain.invariant import InvariantBroken
from domain.lease import (
    EndReason,
    LeaseClosed,
    LeaseEnded,
    LeaseOpened,
    LeaseReady,
    ReclaimAnnounced,
)
from domain.node import NodeHealthChanged
from domain.round import Fill, RoundCleared

if TYPE_CHECKING:
    from domain.market import Market


@dataclass(frozen=True, slots=True)
class Won:
    """A fill whose lease is not open yet."""

    fill: Fill
    instrument: RoundId
    round: int
    price_nano: int


@dataclass(frozen=True, slots=True)
class Live:
    """A lease that is open or active."""

    node: NodeId
    provider: ProviderId
    buyer: AccountId


class LeasesFold:
    """Live leases by node and provider, rejections, deadlines; a function of the events alone."""

    def __init__(self, genesis: Genesis) -> None:
        """Start with no lease."""
        self._won: dict[bytes, Won] = {}
        self._live: dict[LeaseId, Live] = {}
        self._of_node: dict[bytes, dict[LeaseId, bool]] = {}  # node → lease → active
        self._of_provider: dict[bytes, dict[LeaseId, None]] = {}
        self._began: dict[LeaseId, Parameters] = {}
        self._rejections: dict[bytes, deque[int]] = {}
        self._down_since: dict[bytes, int] = {}
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

    def won(self, lease: bytes) -> Won:
        """The fill that becomes this lease."""
        return self._won[lease]

    def parameters(self, lease: LeaseId) -> Parameters:
        """The parameters that a lease began with and keeps until it is closed (R10)."""
        return self._began.get(lease, self.market.parameters)

    def live_on(self, node: bytes) -> int:
        """Leases of a node that are open or active, and fills that become one."""
        waiting = sum(1 for won in self._won.values() if won.fill.node == node)
        return len(self._of_node.get(node, {})) + waiting

    def active_of(self, node: bytes) -> Iterable[LeaseId]:
        """Active leases of a node."""
        return (each for each, active in self._of_node.get(node, {}).items() if active)

    def live_of(self, provider: bytes) -> Iterable[LeaseId]:
        """Open and active leases of a provider."""
        return self._of_provider.get(provider, {})

    def rejections(self, buyer: bytes, after_us: int) -> int:
        """Leases that the buyer rejected after an instant (R4.4), as many as any rule counts."""
        return sum(1 for each in self._rejections.get(buyer, ()) if each > after_us)

    # Events

    def apply(self, event: Any) -> None:
        """Take in one event."""
        deadlines = self.market.deadlines
        match event:
            case RoundCleared():
                for fill in event.fills:
                    self._won[fill.lease] = Won(
                        fill, event.instrument, event.number, event.price_nano
                    )
                    deadlines.set(MarketDue.OPEN_LEASE, fill.lease, event.at_us)
            case LeaseOpened():
                self._opened(event)
            case LeaseReady():
                self._of_node[event.node][event.lease] = True
                deadlines.clear(MarketDue.LEASE_NOT_READY, event.lease)
                deadlines.set(MarketDue.LEASE_EXPIRES, event.lease, event.expires_us)
                self._watch(event.node, event.at_us)
            case ReclaimAnnounced():
                deadlines.set(MarketDue.RECLAIM, event.lease, event.deadline_us)
            case LeaseEnded():
                self._ended(event)
            case LeaseClosed():
                del self._began[event.lease]
            case NodeHealthChanged():
                if event.up:
                    self._down_since.pop(event.node, None)
                    deadlines.clear(MarketDue.NODE_DOWN_TOO_LONG, event.node)
                else:
                    self._down_since[event.node] = event.down_since_us
                    self._watch(event.node, event.at_us)
            case _:
                pass

    def _opened(self, event: LeaseOpened) -> None:
        deadlines = self.market.deadlines
        del self._won[event.lease]
        self._began[event.lease] = self.market.parameters
        deadlines.clear(MarketDue.OPEN_LEASE, event.lease)
        deadlines.set(MarketDue.LEASE_NOT_READY, event.lease, event.ready_by_us)
        self._live[event.lease] = Live(event.node, event.provider, event.buyer)
        self._of_node.setdefault(event.node, {})[event.lease] = False
        self._of_provider.setdefault(event.provider, {})[event.lease] = None

    def _ended(self, event: LeaseEnded) -> None:
        deadlines = self.market.deadlines
        for kind in (MarketDue.LEASE_NOT_READY, MarketDue.LEASE_EXPIRES, MarketDue.RECLAIM):
            deadlines.clear(kind, event.lease)
        was = self._live.pop(event.lease)
        _forget(self._of_node, was.node, event.lease)
        _forget(self._of_provider, was.provider, event.lease)
        if not any(self._of_node.get(was.node, {}).values()):
            deadlines.clear(MarketDue.NODE_DOWN_TOO_LONG, was.node)
        elif event.reason is EndReason.NODE_DOWN_TOO_LONG:
            deadlines.set(MarketDue.NODE_DOWN_TOO_LONG, was.node, event.at_us)
        if was.provider not in self._of_provider:
            deadlines.clear(MarketDue.PROVIDER_RUINED, was.provider)
        elif event.reason is EndReason.SLASHED:
            deadlines.set(MarketDue.PROVIDER_RUINED, was.provider, event.at_us)
        if event.reason is EndReason.BUYER_REJECTED:
            kept = self._rejections.setdefault(was.buyer, deque(maxlen=REJECTIONS_MAX))
            kept.append(event.at_us)

    def _watch(self, node: NodeId, now_us: int) -> None:
        """End the node's active leases if it stays down.

        The deadline stands only while there is something to end, so that it never fires in vain;
        the silence may be noticed late, but a lease does not end before that.
        """
        since_us = self._down_since.get(node)
        if since_us is not None and any(self._of_node.get(node, {}).values()):
            due_us = max(since_us + self.market.parameters.node_down_us, now_us)
            self.market.deadlines.set(MarketDue.NODE_DOWN_TOO_LONG, node, due_us)


def _forget(by: dict[bytes, dict[LeaseId, Any]], key: bytes, lease: LeaseId) -> None:
    """Take a lease out of an index; an empty entry goes."""
    del by[key][lease]
    if not by[key]:
        del by[key]
