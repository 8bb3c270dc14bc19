"""Signs of life, and what they cover (R4.5, R4.6, R5.1).

Two consecutive signs of a node no further apart than its grace cover the time between them; a
chain of such pairs is a *run*. Runs are cut where a usage window ends: the part whose last sign is
before the window's end belongs to that window and waits there until the window is stated. So a
window holds one or two stretches per node, whatever the number of beats, and covered time, the sum
of what stated windows held, never falls.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from domain.ids import ProviderId


class UsageWindows:
    """Windows aligned to multiples of their length; a new length begins where a window ends."""

    def __init__(self, length_us: int) -> None:
        """One length from the beginning of time."""
        self._lengths = [(0, length_us)]

    def end(self, time_us: int) -> int:
        """The end of the window that holds an instant: the next bound after it."""
        since_us = [since for since, _ in self._lengths]
        at = bisect_right(since_us, time_us)
        length_us = self._lengths[at - 1][1]
        return min([(time_us // length_us + 1) * length_us, *since_us[at:]])

    def change(self, now_us: int, length_us: int) -> None:
        """Another length from the end of the window that holds ``now_us`` (R10)."""
        since_us = self.end(now_us)
        self._lengths = [entry for entry in self._lengths if entry[0] < since_us]
        self._lengths.append((since_us, length_us))


@dataclass(slots=True)
class MeteredLease:
    """What a shard keeps of a live lease beside its counters."""

    id: bytes
    node: MeteredNode
    amounts: dict[int, int]  # allocated amount by catalogue row
    ready_us: int | None = None
    end_us: int | None = None
    closing_us: int | None = None
    final_us: int | None = None  # end of the window of its final statement
    covered_us: int = 0
    settled_us: int = 0  # end of the last window that covered_us counts
    metered: dict[int, int] = field(default_factory=dict)  # stated quantity by catalogue row
    stated: tuple[tuple[int, int], ...] = ()  # all stated quantities, in row order

    def covers(self, from_us: int, to_us: int) -> int:
        """How much of a stretch lies within the lease."""
        if self.ready_us is None:
            return 0
        end_us = to_us if self.end_us is None else min(to_us, self.end_us)
        return max(0, end_us - max(from_us, self.ready_us))


@dataclass(slots=True)
class MeteredNode:
    """A node of the shard and its current run of signs."""

    id: bytes
    number: int
    provider: ProviderId
    grace_us: int
    up: bool = False
    withdrawn: bool = False
    last_us: int = -1  # last sign of life; -1 before the first
    window_us: int = -1  # end of the window that holds the last sign
    run_us: int = -1  # where the part of the run begins that this window holds
    leases: dict[bytes, MeteredLease] = field(default_factory=dict)

    def down_us(self) -> int:
        """The first instant at which silence since the last sign exceeds the grace."""
        return self.last_us + self.grace_us + 1


@dataclass(slots=True)
class PendingWindow:
    """A usage window that has something to state."""

    due_us: int  # its end and the largest grace
    nodes: list[MeteredNode] = field(default_factory=list)  # that gave a sign in it
    stretches: list[tuple[MeteredNode, int, int]] = field(default_factory=list)
    finals: dict[bytes, None] = field(default_factory=dict)  # leases that end with it


class Coverage:
    """Runs of all nodes of a shard, and the windows that wait for their statements."""

    def __init__(self, windows: UsageWindows) -> None:
        """Start without a sign; ``windows`` aligns."""
        self.windows = windows
        self.pending: dict[int, PendingWindow] = {}
        # The end of the window of the latest sign; most signs fall in it.
        self.window_us = -1
        self._since_us = 0

    def enter(self, time_us: int, grace_max_us: int) -> bool:
        """Let ``window_us`` be the window of an instant; True where it has nothing pending yet."""
        if not self._since_us <= time_us < self.window_us:
            self.window_us = self.windows.end(time_us)
            self._since_us = time_us
        if self.window_us in self.pending:
            return False
        self.open(self.window_us, grace_max_us)
        return True

    def open(self, window_us: int, grace_max_us: int) -> PendingWindow:
        """The pending window that ends at ``window_us``, made where there is none."""
        pending = self.pending.get(window_us)
        if pending is None:
            self.pending[window_us] = pending = PendingWindow(window_us + grace_max_us)
        return pending

    def sign(self, nodes: Iterable[MeteredNode], time_us: int) -> None:
        """A sign of life of nodes that are up, in the window that was entered."""
        window_us = self.window_us
        for node in nodes:
            if node.window_us != window_us:
                self._cut(node)
                node.window_us = window_us
                self.pending[window_us].nodes.append(node)
            node.last_us = time_us

    def up(self, node: MeteredNode, time_us: int) -> None:
        """The first sign after a silence: a new run begins."""
        self._cut(node)
        node.up = True
        node.run_us = node.last_us = time_us

    def leave(self, node: MeteredNode) -> None:
        """The node gives no more signs."""
        self._cut(node)

    def _cut(self, node: MeteredNode) -> None:
        """Leave the run so far with its window; what follows begins at the last sign."""
        if node.last_us > node.run_us:
            self.pending[node.window_us].stretches.append((node, node.run_us, node.last_us))
            node.run_us = node.last_us

    def covered(self, window_us: int) -> Iterator[tuple[MeteredLease, int]]:
        """What the window adds to the covered time of leases; a lease may come more than once."""
        pending = self.pending[window_us]
        for node in pending.nodes:
            if node.window_us == window_us:
                self._cut(node)
        for node, from_us, to_us in pending.stretches:
            for lease in node.leases.values():
                added = lease.covers(from_us, to_us)
                if added and lease.settled_us < window_us:
                    yield lease, added

    def close(self, window_us: int) -> None:
        """The window is stated."""
        for lease, added in self.covered(window_us):
            lease.covered_us += added
        del self.pending[window_us]
