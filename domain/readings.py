"""Readings, row by row: what makes one count, and the fold that is a maximum (R1.4, R4.6–R4.8).

This is the plain twin of ``readings_columns``: the same law in dictionaries and loops, for people
to read and for tests to hold the fast one equal to. Totals are cumulative per counter (lease,
resource, generation), the fold keeps the highest accepted total of each, and the quantity of a
(lease, resource) is the sum over its generations; so duplicates, loss and order change nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, Protocol, TypeVar

from domain.genesis import SECOND_US, Parameters
from domain.ids import QUANTITY_MAX
from domain.refusal import Code, code
from domain.telemetry import Batch, BatchBytes

# Refusals of a whole batch, after the gate; the number is used up.
NO_NODE: Final = code(701, "batch_names_no_node", "List the nodes that give a sign of life.")
UNKNOWN_NODE: Final = code(
    702, "node_not_known", "Register the node first; its shard learns of it from the market."
)
UNEQUAL_COLUMNS: Final = code(
    703, "columns_unequal", "Give every column one entry per row, in whole entries."
)
LEASE_INDEX: Final = code(
    704, "lease_index_out_of_range", "Let the lease column point into the batch's leases."
)
# Refusals of a row, in the order in which they are judged.
UNKNOWN_LEASE: Final = code(711, "lease_not_known", "Send readings of leases of this shard.")
OTHER_NODE: Final = code(712, "lease_not_on_listed_node", "List the node that the lease is on.")
NOT_METERED: Final = code(
    713, "resource_not_metered", "Send readings of the resources that the lease meters."
)
NOT_ACTIVE: Final = code(
    714, "lease_not_active", "Send readings from ready until the lease has closed."
)
TOO_EARLY: Final = code(715, "reading_too_early", "Set the node's clock; it is ahead.")
TOO_LATE: Final = code(716, "reading_too_late", "Send readings within the lateness bound.")
TOTAL_RANGE: Final = code(717, "total_out_of_range", "Keep totals and quantities in 0..2^62.")
GENERATION_RANGE: Final = code(718, "generation_out_of_range", "Use generations 0..63.")
CONTRADICTION: Final = code(
    719, "reading_contradicts", "Never sign two totals for one counter and time."
)
ABOVE_LIMIT: Final = code(720, "above_limit", "Report no more than the lease's limit allows.")
TOO_MANY_GENERATIONS: Final = code(
    721, "too_many_generations", "Keep a counter across restarts; new generations are few a day."
)


@dataclass(frozen=True, slots=True)
class Moment:
    """When a batch is judged: its effective time, and the parameters then in force."""

    now_us: int
    early_us: int
    late_us: int
    slack_us: int  # beside the time since ready, what the limit is multiplied with (R4.8)
    generations: int
    generations_a_day: int
    generations_within_us: int

    @classmethod
    def of(cls, now_us: int, parameters: Parameters) -> Moment:
        """The moment ``now_us`` under these parameters."""
        return cls(
            now_us,
            parameters.early_us,
            parameters.late_us,
            parameters.limit_slack_us,
            parameters.generations,
            parameters.generations_a_day,
            parameters.generations_within_us,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Contradiction:
    """A row against the highest accepted total of its counter (R5.6)."""

    lease: bytes
    resource: int
    generation: int
    time_us: int
    first_total: int
    second_total: int
    first: bytes  # digest of the batch whose total was accepted


@dataclass(frozen=True, slots=True)
class Judged:
    """Which rows are refused (bit i of byte i//8; empty for none), and the first contradiction."""

    refused: bytes
    contradiction: Contradiction | None


ALL_ACCEPTED: Final = Judged(b"", None)

B = TypeVar("B", contravariant=True)


class Readings(Protocol[B]):
    """The counters of a shard's leases. ``judge`` only reads; all else folds events.

    Nodes and keys are the processor's small numbers. A window is named by its end.
    """

    def assign(self, lease: bytes, node: int, limits: Mapping[int, int]) -> None:
        """A lease with its metered resources: base units per second by catalogue row number."""
        ...

    def activate(self, lease: bytes, ready_us: int) -> None:
        """Readings of the lease are taken from here."""
        ...

    def stop(self, lease: bytes, closing_us: int) -> None:
        """Readings of the lease are taken before this instant."""
        ...

    def forget(self, lease: bytes) -> None:
        """The lease is closed. What windows that still wait have of it is dropped.

        A shard that learned late of the lease's end has taken readings after its last window.
        """
        ...

    def limits_moved(self) -> None:
        """A parameter changed."""
        ...

    def judge(self, batch: B, nodes: Sequence[int], key: int, at: Moment) -> Judged:
        """Judge each row, in the order of the refusals' numbers, against the state before."""
        ...

    def fold(
        self, batch: B, refused: bytes, key: int, digest: bytes, now_us: int, window_us: int
    ) -> None:
        """Take in the rows that are not refused, in the window that ends at ``window_us``."""
        ...

    def changed(self, window_us: int) -> dict[bytes, dict[int, int]]:
        """Quantities that changed in a window, as of its end: by lease and row number."""
        ...

    def close(self, window_us: int) -> None:
        """Forget what was kept for a window; all before it are closed."""
        ...


def limit_of(per_second: int, ready_us: int, at: Moment) -> int:
    """The largest quantity that R4.8 and R1.6 allow at a moment."""
    elapsed_us = at.now_us - ready_us + at.slack_us
    return min(per_second * elapsed_us // SECOND_US, QUANTITY_MAX)


def rows_of(payload: Batch | BatchBytes) -> Batch | None:
    """The batch with its columns as numbers; None where a column has no whole entries."""
    if isinstance(payload, Batch):
        return payload
    if any(len(c) % w for c, w in zip(_columns(payload), (2, 2, 1, 8, 8), strict=True)):
        return None
    lease, resource, generation, time_us, total = (
        struct.unpack(f"<{len(column) // width}{letter}", column)
        for column, width, letter in zip(
            _columns(payload), (2, 2, 1, 8, 8), ("H", "H", "B", "q", "q"), strict=True
        )
    )
    return Batch(
        nodes=payload.nodes,
        leases=payload.leases,
        lease=lease,
        resource=resource,
        generation=generation,
        time_us=time_us,
        total=total,
    )


def _columns(payload: BatchBytes) -> tuple[bytes, ...]:
    return (payload.lease, payload.resource, payload.generation, payload.time_us, payload.total)


def bitmap(rows: int, refused: Sequence[int]) -> bytes:
    """The bitmap of refused row numbers; empty for none."""
    if not refused:
        return b""
    bits = bytearray(-(-rows // 8))
    for row in refused:
        bits[row >> 3] |= 1 << (row & 7)
    return bytes(bits)


def is_refused(refused: bytes, row: int) -> bool:
    """Whether a bitmap names a row."""
    return bool(refused) and bool(refused[row >> 3] >> (row & 7) & 1)


@dataclass(slots=True)
class _Counter:
    total: int
    time_us: int
    key: int
    digest: bytes


@dataclass(slots=True)
class _Lease:
    node: int
    limits: Mapping[int, int]
    ready_us: int | None = None
    closing_us: int | None = None
    generations: dict[int, int] = field(default_factory=dict)  # when first seen
    counters: dict[tuple[int, int], _Counter] = field(default_factory=dict)
    quantities: dict[int, int] = field(default_factory=dict)


@dataclass(slots=True)
class _InBatch(Generic[B]):
    """What rows of one batch have in common beside the state before it."""

    nodes: frozenset[int]
    key: int
    at: Moment
    new_generations: dict[bytes, dict[int, None]] = field(default_factory=dict)
    best: dict[tuple[bytes, int, int], int] = field(default_factory=dict)
    quantities: dict[tuple[bytes, int], int] = field(default_factory=dict)
    contradiction: Contradiction | None = None


class PlainReadings:
    """``Readings`` of ``Batch``, as plainly as it can be said."""

    def __init__(self) -> None:
        """Start without leases."""
        self._leases: dict[bytes, _Lease] = {}
        self._windows: dict[int, dict[bytes, dict[int, int]]] = {}

    def assign(self, lease: bytes, node: int, limits: Mapping[int, int]) -> None:
        self._leases[lease] = _Lease(node, dict(limits))

    def activate(self, lease: bytes, ready_us: int) -> None:
        self._leases[lease].ready_us = ready_us

    def stop(self, lease: bytes, closing_us: int) -> None:
        self._leases[lease].closing_us = closing_us

    def forget(self, lease: bytes) -> None:
        del self._leases[lease]
        for window in self._windows.values():
            window.pop(lease, None)

    def limits_moved(self) -> None:
        """Limits are computed anew for each row."""

    def judge(self, batch: Batch, nodes: Sequence[int], key: int, at: Moment) -> Judged:
        codes, contradiction = self.codes(batch, nodes, key, at)
        refused = [row for row, code in enumerate(codes) if code is not None]
        return Judged(bitmap(len(codes), refused), contradiction)

    def codes(
        self, batch: Batch, nodes: Sequence[int], key: int, at: Moment
    ) -> tuple[list[Code | None], Contradiction | None]:
        """Why each row is refused, None where it counts; and the first contradiction."""
        shared: _InBatch[Batch] = _InBatch(frozenset(nodes), key, at)
        codes = [self.judge_row(batch, row, shared) for row in range(len(batch.lease))]
        return codes, shared.contradiction

    def judge_row(self, batch: Batch, row: int, shared: _InBatch[Batch]) -> Code | None:
        """Why a row is refused, or None where it counts."""
        at = shared.at
        name = batch.leases[batch.lease[row]]
        resource, generation = batch.resource[row], batch.generation[row]
        time_us, total = batch.time_us[row], batch.total[row]
        lease = self._leases.get(name)
        if lease is None:
            return UNKNOWN_LEASE
        if lease.node not in shared.nodes:
            return OTHER_NODE
        if resource not in lease.limits:
            return NOT_METERED
        if lease.ready_us is None or at.now_us < lease.ready_us:
            return NOT_ACTIVE
        if lease.closing_us is not None and at.now_us >= lease.closing_us:
            return NOT_ACTIVE
        if time_us > at.now_us + at.early_us:
            return TOO_EARLY
        if time_us < at.now_us - at.late_us:
            return TOO_LATE
        if not 0 <= total <= QUANTITY_MAX:
            return TOTAL_RANGE
        if not 0 <= generation < at.generations:
            return GENERATION_RANGE
        counter = lease.counters.get((resource, generation))
        highest = 0
        if counter is not None:
            highest = counter.total
            if counter.time_us == time_us and highest != total and counter.key == shared.key:
                shared.contradiction = shared.contradiction or Contradiction(
                    lease=name,
                    resource=resource,
                    generation=generation,
                    time_us=time_us,
                    first_total=highest,
                    second_total=total,
                    first=counter.digest,
                )
                return CONTRADICTION
        quantity = lease.quantities.get(resource, 0)
        if quantity + max(total - highest, 0) > limit_of(
            lease.limits[resource], lease.ready_us, at
        ):
            return ABOVE_LIMIT
        new = shared.new_generations.setdefault(name, {})
        if generation not in lease.generations:
            after_us = at.now_us - at.generations_within_us
            recent = sum(1 for us in lease.generations.values() if us > after_us)
            if generation not in new and recent + len(new) >= at.generations_a_day:
                return TOO_MANY_GENERATIONS
        # Rows of several generations, each within bounds, must not leave them together.
        best = shared.best.get((name, resource, generation), highest)
        together = shared.quantities.get((name, resource), quantity) + max(total - best, 0)
        if together > QUANTITY_MAX:
            return TOTAL_RANGE
        shared.best[name, resource, generation] = max(best, total)
        shared.quantities[name, resource] = together
        if generation not in lease.generations:
            new[generation] = None
        return None

    def fold(
        self, batch: Batch, refused: bytes, key: int, digest: bytes, now_us: int, window_us: int
    ) -> None:
        for row in range(len(batch.lease)):
            if is_refused(refused, row):
                continue
            name = batch.leases[batch.lease[row]]
            lease = self._leases[name]
            resource, total = batch.resource[row], batch.total[row]
            place = resource, batch.generation[row]
            lease.generations.setdefault(batch.generation[row], now_us)
            counter = lease.counters.get(place)
            if counter is not None and total <= counter.total:
                continue
            lease.counters[place] = _Counter(total, batch.time_us[row], key, digest)
            rise = total - (0 if counter is None else counter.total)
            if rise:
                quantity = lease.quantities.get(resource, 0) + rise
                lease.quantities[resource] = quantity
                window = self._windows.setdefault(window_us, {})
                window.setdefault(name, {})[resource] = quantity

    def changed(self, window_us: int) -> dict[bytes, dict[int, int]]:
        return self._windows.get(window_us, {})

    def close(self, window_us: int) -> None:
        self._windows.pop(window_us, None)
