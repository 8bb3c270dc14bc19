"""The nodes of a round as columns, for bids that need more of a node than its device.

The tightest node with room for everything may stand behind hundreds of tighter ones that have run
out of something else, and each such bid would look at all of them again. Here one look is a few
passes over arrays. The plain way is ``clearing.place`` without it; a law holds them equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from domain.ids import NodeId
from domain.node import Amount

#: More than any quantity (R1.6), and what a node has of a thing that does not run out.
_NO_END: Final = 2**63 - 1


class RoomColumns:
    """What the nodes of a pool have free, of the device and of further resources."""

    def __init__(
        self,
        nodes: Iterable[tuple[NodeId, int, bool]],
        free_of: Callable[[NodeId, str], int | None],
    ) -> None:
        """Each node with what it has free and whether it is firm; ``free_of`` as of now."""
        found = sorted(nodes)
        self._nodes = [node for node, _, _ in found]
        self._at = {node: at for at, node in enumerate(self._nodes)}
        self._free: NDArray[np.int64] = np.array([free for _, free, _ in found], dtype=np.int64)
        self._firm: NDArray[np.bool_] = np.array([firm for _, _, firm in found], dtype=np.bool_)
        self._rooms: dict[str, NDArray[np.int64]] = {}
        self._free_of = free_of

    def tightest(
        self, lot_milli: int, extras: Iterable[Amount], *, firm: bool
    ) -> tuple[int, NodeId] | None:
        """The node with the least free that has room for a lot and its extras; ties by id."""
        fits = self._free >= lot_milli
        if firm:
            fits &= self._firm
        for each in extras:
            fits &= self._room(each.resource) >= each.amount
        if not fits.any():
            return None
        at = int(np.where(fits, self._free, _NO_END).argmin())
        return int(self._free[at]), self._nodes[at]

    def put(self, node: NodeId, free: int, extras: Iterable[Amount]) -> None:
        """A node took lots: what it has left, also of the extras."""
        at = self._at[node]
        self._free[at] = free
        for each in extras:
            if each.resource in self._rooms:
                self._rooms[each.resource][at] = self._left(node, each.resource)

    def _room(self, resource: str) -> NDArray[np.int64]:
        found = self._rooms.get(resource)
        if found is None:
            left = [self._left(node, resource) for node in self._nodes]
            found = self._rooms[resource] = np.array(left, dtype=np.int64)
        return found

    def _left(self, node: NodeId, resource: str) -> int:
        has = self._free_of(node, resource)
        return _NO_END if has is None else min(has, _NO_END)
