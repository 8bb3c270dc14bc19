"""Which nodes are up, and since when those that are not have been silent (R5.1).

A fold over the market's events. A node is up from its first sign of life that the market has
learned of, and down from the last one before a silence; before its first sign it is neither, and
counts as not up.
"""

from __future__ import annotations

from typing import Any

from domain.node import NodeHealthChanged, NodeRetired


class NodeHealth:
    """Health of every unretired node that was heard of."""

    def __init__(self) -> None:
        """Start with no sign of life."""
        self._down_since: dict[bytes, int | None] = {}

    def up(self, node: bytes) -> bool:
        """Whether the last thing heard of the node is a sign of life."""
        return self.heard(node) and self._down_since[node] is None

    def down_since(self, node: bytes) -> int | None:
        """The last sign of life of a node that is down, µs; None if it is up or never was."""
        return self._down_since.get(node)

    def heard(self, node: bytes) -> bool:
        """Whether the node ever gave a sign of life."""
        return node in self._down_since

    def apply(self, event: Any) -> None:
        """Take in one event; events of no interest are ignored."""
        if isinstance(event, NodeHealthChanged):
            self._down_since[event.node] = None if event.up else event.down_since_us
        elif isinstance(event, NodeRetired):
            self._down_since.pop(event.node, None)
