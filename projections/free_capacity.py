"""Free capacity by node and resource: a fold over the market's events.

Capacity is taken when a round clears, so that two orders never get one device, and is free again
in the item that ends the lease (R8.6).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from domain.bid import BidCancelled, BidFilled, BidPlaced
from domain.lease import LeaseEnded
from domain.node import Amount, NodeRegistered, NodeRetired
from domain.round import RoundCleared


@dataclass(frozen=True, slots=True)
class Free:
    """What a node has of a resource, and how much of it is free."""

    resource: str
    amount: int
    free: int


class FreeCapacity:
    """What every unretired node has, and what live leases leave of it."""

    def __init__(self) -> None:
        """Start with no node."""
        self._has: dict[bytes, dict[str, int]] = {}
        self._free: dict[bytes, dict[str, int]] = {}
        self._lots: dict[bytes, tuple[Amount, ...]] = {}  # bid → what each lot takes
        self._taken: dict[bytes, tuple[Amount, ...]] = {}  # lease → what it took
        self._takes: Mapping[type[Any], Callable[[Any], None]] = {
            NodeRegistered: self._node_registered,
            NodeRetired: self._node_retired,
            BidPlaced: self._bid_placed,
            BidCancelled: self._bid_gone,
            BidFilled: self._bid_filled,
            RoundCleared: self._round_cleared,
            LeaseEnded: self._lease_ended,
        }

    def free(self, node: bytes, resource: str) -> int | None:
        """How much is free; None where the node does not list the resource."""
        return self._free.get(node, {}).get(resource)

    def of(self, node: bytes) -> Sequence[Free]:
        """What the node has, by resource."""
        free = self._free.get(node, {})
        return [Free(r, amount, free[r]) for r, amount in sorted(self._has.get(node, {}).items())]

    def apply(self, event: Any) -> None:
        """Take in one event; events of no interest are ignored."""
        take = self._takes.get(type(event))
        if take is not None:
            take(event)

    def _node_registered(self, event: NodeRegistered) -> None:
        self._has[event.node] = {each.resource: each.amount for each in event.capacity}
        self._free[event.node] = {each.resource: each.amount for each in event.capacity}

    def _node_retired(self, event: NodeRetired) -> None:
        del self._has[event.node], self._free[event.node]

    def _bid_placed(self, event: BidPlaced) -> None:
        device = Amount(resource=event.resource, amount=event.lot_milli)
        self._lots[event.bid] = (device, *event.allocations)

    def _bid_gone(self, event: BidCancelled) -> None:
        del self._lots[event.bid]

    def _bid_filled(self, event: BidFilled) -> None:
        if not event.open_lots:
            del self._lots[event.bid]

    def _round_cleared(self, event: RoundCleared) -> None:
        for fill in event.fills:
            free = self._free[fill.node]
            taken = tuple(
                Amount(resource=each.resource, amount=fill.lots * each.amount)
                for each in self._lots[fill.bid]
                if each.resource in free
            )
            for each in taken:
                free[each.resource] -= each.amount
            self._taken[fill.lease] = taken

    def _lease_ended(self, event: LeaseEnded) -> None:
        free = self._free.get(event.node, {})
        for each in self._taken.pop(event.lease):
            if each.resource in free:
                free[each.resource] += each.amount
