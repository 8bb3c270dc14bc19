"""Signs of life and readings of a replay: when they are sent, together with what, in which order.

Shuffled, every beat and reading is held back by a part of what the genesis allows, differently for
each, and stands anywhere in its batch: no bill may change by it.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from adapters.replay_actions import Reading
from adapters.replay_cast import Cast, Node, Order
from adapters.replay_mapping import ReplayMapping
from adapters.replay_values import ReplayRefused
from domain.catalogue import Catalogue
from domain.genesis import Genesis
from domain.ids import LeaseId
from domain.telemetry import Batch

#: Nodes or rows of one batch: within the bounds on rows and bytes.
PART: Final = 5000
#: Into how many parts a bound on delay is cut when telemetry is shuffled.
SLOTS: Final = 4
#: Until a node's next beat, whenever that is.
OPEN_END: Final = 2**62


@dataclass(slots=True)
class Row:
    """A reading that waits to be sent."""

    order: Order
    resource: int
    time_us: int
    total: int


class Telemetry:
    """Everything that nodes sign, through the gateway of their provider."""

    def __init__(
        self,
        cast: Cast,
        catalogue: Catalogue,
        mapping: ReplayMapping,
        genesis: Genesis,
        *,
        shuffle: int | None,
    ) -> None:
        """Beats stand on a grid from the genesis' start on, unless the mapping's rows beat."""
        p = genesis.parameters
        self._cast = cast
        self._catalogue = catalogue
        self._start_us = genesis.start_us
        self._every_us = mapping.readings_us
        #: Whether readings wait for others of their interval.
        self.gathers = mapping.readings_us > 0
        self._beat_us = p.beat_us
        self._grid_us = genesis.start_us + p.beat_us if mapping.beats else None
        self._shuffle = None if shuffle is None else random.Random(shuffle)
        # A delayed beat must not make a silence, a delayed reading not miss its lease's closing.
        self._beat_slot_us = max(0, min(p.grace_us - p.beat_us, p.beat_us)) // (2 * SLOTS)
        self._row_slot_us = min(p.late_us, p.closing_us) // (2 * SLOTS)
        self._due: list[tuple[int, int, Node | Row]] = []
        self._pushed = 0
        self._now: dict[str, Node] = {}
        self._last: dict[tuple[str, int], Row] = {}
        self._rows = 0

    # What is to be sent

    def next_us(self) -> int | None:
        """The next instant at which something is to be sent, or None."""
        first = self._due[0][0] if self._due else None
        known = [each for each in (first, self._grid_us) if each is not None]
        return min(known, default=None)

    def waits(self) -> bool:
        """Whether a reading waits to be sent."""
        return self._rows > 0

    def beat(self, node: Node) -> None:
        """A sign of life at this instant; ends a silence that waits for one."""
        if node.silent_until_us == OPEN_END:
            node.silent_until_us = 0
        self._now[node.key] = node

    def silence(self, node: Node, now_us: int, until_us: int | None) -> None:
        """The last sign of life for a while, and the one that ends it; None: the next beat."""
        self.beat(node)
        node.silent_until_us = OPEN_END if until_us is None else until_us
        if until_us is not None:
            self._push(max(now_us, until_us), node)

    def read(self, order: Order, reading: Reading, now_us: int) -> None:
        """A counter's new total, sent with the others of its interval."""
        number = self._catalogue.number.get(reading.resource)
        if number is None:
            raise ReplayRefused(f"{reading.resource} is no resource of the mapping's catalogue")
        before = order.totals.get(number, 0)
        total = before + (reading.add or 0) if reading.total is None else reading.total
        order.totals[number] = max(before, total)
        last = self._last.get((order.key, number))
        if last is not None and last.time_us == now_us:
            # Of rows within one microsecond the highest stands: one counter, one time, one total.
            last.total = max(last.total, total)
            return
        row = Row(order, number, now_us, total)
        self._last[order.key, number] = row
        self._rows += 1
        self._push(self._flush_us(now_us) + self._delay(self._row_slot_us), row)

    def _flush_us(self, now_us: int) -> int:
        if not self._every_us:
            return now_us
        return self._start_us - (self._start_us - now_us) // self._every_us * self._every_us

    def _delay(self, slot_us: int) -> int:
        return 0 if self._shuffle is None else self._shuffle.randrange(SLOTS) * slot_us

    def _push(self, due_us: int, what: Node | Row) -> None:
        self._pushed += 1
        heapq.heappush(self._due, (due_us, self._pushed, what))

    def forget(self, order: Order) -> None:
        """The order's lease is closed."""
        for number in order.totals:
            self._last.pop((order.key, number), None)

    # Sending

    def send(self, now_us: int, nodes: Iterable[Node]) -> None:
        """Send what is due at this instant."""
        if self._grid_us is not None and now_us >= self._grid_us:
            self._beat_all(now_us, nodes)
            while self._grid_us <= now_us:
                self._grid_us += self._beat_us
        rows: list[Row] = []
        while self._due and self._due[0][0] <= now_us:
            what = heapq.heappop(self._due)[-1]
            if isinstance(what, Row):
                rows.append(what)
            elif what.silent_until_us <= now_us:
                self._now[what.key] = what
        self._send_rows(rows, now_us)
        beating = list(self._now.values())
        self._now.clear()
        self._send_beats(beating)

    def first_beats(self, nodes: Sequence[Node]) -> None:
        """New nodes say that they are there."""
        self._send_beats(nodes)

    def last_beats(self, nodes: Sequence[Node]) -> None:
        """Say once more that the nodes are there, and then no more."""
        self._grid_us = None
        self._due.clear()
        self._send_beats(nodes)

    def _beat_all(self, now_us: int, nodes: Iterable[Node]) -> None:
        for node in nodes:
            if node.silent_until_us > now_us or not node.id:
                continue
            delay_us = self._delay(self._beat_slot_us)
            if delay_us:
                self._push(now_us + delay_us, node)
            else:
                self._now[node.key] = node

    def _send_beats(self, nodes: Sequence[Node]) -> None:
        groups: dict[tuple[int, str], list[Node]] = {}
        for node in nodes:
            if not node.retired:
                groups.setdefault((node.shard, node.provider.name), []).append(node)
        for (shard, _), group in sorted(groups.items(), key=lambda each: each[0]):
            if self._shuffle is not None:
                self._shuffle.shuffle(group)
            for first in range(0, len(group), PART):
                part = group[first : first + PART]
                batch = Batch(
                    nodes=tuple(node.id for node in part),
                    leases=(),
                    lease=(),
                    resource=(),
                    generation=(),
                    time_us=(),
                    total=(),
                )
                self._cast.telemetry(group[0].provider.meter, shard, batch)

    def _send_rows(self, rows: list[Row], now_us: int) -> None:
        groups: dict[tuple[int, str], list[tuple[LeaseId, Node, Row]]] = {}
        if self._shuffle is not None:
            self._shuffle.shuffle(rows)
        for row in rows:
            leased = next(iter(row.order.leases.items()), None)
            if leased is None:
                # Its bid is not matched yet; a reading needs a lease to belong to.
                self._push(now_us + max(self._every_us, self._beat_us), row)
                continue
            self._rows -= 1
            lease, node = leased
            group = groups.setdefault((node.shard, node.provider.name), [])
            group.append((lease, node, row))
        for (shard, _), group in sorted(groups.items(), key=lambda each: each[0]):
            for first in range(0, len(group), PART):
                part = group[first : first + PART]
                leases = list(dict.fromkeys(lease for lease, _, _ in part))
                place = {lease: number for number, lease in enumerate(leases)}
                batch = Batch(
                    nodes=tuple(dict.fromkeys(node.id for _, node, _ in part)),
                    leases=tuple(leases),
                    lease=tuple(place[lease] for lease, _, _ in part),
                    resource=tuple(row.resource for _, _, row in part),
                    generation=(0,) * len(part),
                    time_us=tuple(row.time_us for _, _, row in part),
                    total=tuple(row.total for _, _, row in part),
                )
                self._cast.telemetry(group[0][1].provider.meter, shard, batch)
