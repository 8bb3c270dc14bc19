"""Readings in bulk: the checks and the fold of ``readings`` on integer arrays.

Leases, quantities (lease, resource) and counters (lease, resource, generation) have small numbers,
their *slots*, reused when a lease is forgotten; what is known of them stands in one array per fact.
A batch is a few passes over its rows. Slot 0 of each kind stands for "there is none" and fails
every check, so an unknown lease or resource needs no branch. Rows that need more than a look at
the arrays (a counter's first reading, a limit that is close, a contradiction) are few and are
judged one by one. The plain twin says what all this means; a law holds the two equal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from domain.batch_columns import Columns
from domain.ids import QUANTITY_MAX
from domain.readings import ALL_ACCEPTED, Contradiction, Judged, Moment, limit_of
from domain.slot_columns import Placed, Placements, Slots, entries, grown

Ints = NDArray[Any]
_Reading = tuple[int, int, int, int]  # slots of quantity and counter, time, total

_NEVER: Final = np.iinfo(np.int64).max
_LONG_AGO: Final = np.iinfo(np.int64).min
_GENERATIONS: Final = 64
_FIRST_CAPACITY: Final = 256
_DIGEST_WORDS: Final = 4
_LISTS_REMEMBERED: Final = 1024
#: So many rows below this cannot reach 2^62 together.
_SMALL: Final = np.uint64(2**47)
_FEW: Final = 2**14
#: So many rows are taken one by one: a pass over an array costs as much as a few rows.
_HANDFUL: Final = 24


class _Window:
    """What changed in a usage window that is not closed yet."""

    __slots__ = ("saved", "touched")

    def __init__(self) -> None:
        self.touched: list[Ints] = []  # quantity slots, each once
        self.saved: list[tuple[Ints, Ints]] = []  # slots that changed again later, with their value


class ColumnReadings:
    """``Readings`` of ``Columns``."""

    def __init__(self, metered: Sequence[bool]) -> None:
        """``metered`` says of each catalogue row whether it is metered; no such row comes later."""
        self._rows = len(metered)
        # The last entry stands for every number that is no metered row; its column is all zero.
        self._none = sum(metered)
        self._column = np.full(self._rows + 1, self._none, np.int64)
        self._column[:-1][np.array(metered, bool)] = np.arange(self._none)
        self._stride = self._none + 1

        self._lease_slots: dict[bytes, int] = {}
        self._leases = Slots()
        self._names: dict[int, bytes] = {}
        self._limits: dict[int, Mapping[int, int]] = {}
        self._seen: dict[int, dict[int, int]] = {}  # lease slot: generation: when first seen
        self._node = np.full(_FIRST_CAPACITY, 0, np.int64)
        self._ready = np.full(_FIRST_CAPACITY, _NEVER, np.int64)
        self._closing = np.full(_FIRST_CAPACITY, _NEVER, np.int64)
        self._quantity_of = np.zeros(_FIRST_CAPACITY * self._stride, np.int64)

        self._quantities = Slots()
        self._quantity = np.zeros(_FIRST_CAPACITY, np.int64)
        self._cap = np.full(_FIRST_CAPACITY, -1, np.int64)  # an earlier moment's limit
        self._window_of = np.full(_FIRST_CAPACITY, _LONG_AGO, np.int64)  # where it changed last
        self._newest = np.full(_FIRST_CAPACITY, -1, np.int64)  # its newest generation
        self._newest_counter = np.zeros(_FIRST_CAPACITY, np.int64)
        self._owner: dict[int, tuple[int, int]] = {}  # quantity slot: lease slot, catalogue row

        self._counters = Slots()
        self._counter_of: dict[int, int] = {}  # quantity slot × 64 + generation
        self._total = np.zeros(_FIRST_CAPACITY, np.int64)
        self._time = np.full(_FIRST_CAPACITY, _LONG_AGO, np.int64)
        self._key = np.zeros(_FIRST_CAPACITY, np.int64)
        self._digest = np.zeros((_FIRST_CAPACITY, _DIGEST_WORDS), np.int64)

        self._windows: dict[int, _Window] = {}
        self._listed = np.zeros(_FIRST_CAPACITY, np.int64)  # by node: serial of the last judgement
        self._serial = 0
        self._scratch = np.zeros(_FIRST_CAPACITY, np.int64)
        self._places = np.arange(_FIRST_CAPACITY)
        self._last: tuple[Columns, Placed] | None = None
        self._placed = Placements()
        self._slots_of_lists: dict[tuple[bytes, ...], Ints] = {}
        self._handful: tuple[Columns, list[_Reading]] | None = None

    # Leases

    def assign(self, lease: bytes, node: int, limits: Mapping[int, int]) -> None:
        slot = self._leases.take()
        self._lease_slots[lease] = slot
        self._names[slot] = lease
        self._limits[slot] = dict(limits)
        self._seen[slot] = {}
        size = self._leases.top
        self._node = grown(self._node, size, 0)
        self._ready = grown(self._ready, size, _NEVER)
        self._closing = grown(self._closing, size, _NEVER)
        self._quantity_of = grown(self._quantity_of, size * self._stride, 0)
        self._node[slot], self._ready[slot], self._closing[slot] = node, _NEVER, _NEVER
        for row in limits:
            quantity = self._quantities.take()
            self._owner[quantity] = slot, row
            self._quantity_of[slot * self._stride + self._column[row]] = quantity
        size = self._quantities.top
        self._quantity = grown(self._quantity, size, 0)
        self._cap = grown(self._cap, size, -1)
        self._window_of = grown(self._window_of, size, _LONG_AGO)
        self._newest = grown(self._newest, size, -1)
        self._newest_counter = grown(self._newest_counter, size, 0)
        self._forget_places()

    def _forget_places(self) -> None:
        self._last = None
        self._slots_of_lists.clear()
        self._placed.clear()

    def activate(self, lease: bytes, ready_us: int) -> None:
        self._ready[self._lease_slots[lease]] = ready_us

    def stop(self, lease: bytes, closing_us: int) -> None:
        self._closing[self._lease_slots[lease]] = closing_us

    def forget(self, lease: bytes) -> None:
        slot = self._lease_slots.pop(lease)
        del self._names[slot]
        self._node[slot] = 0
        seen = self._seen.pop(slot)
        for row in self._limits.pop(slot):
            place = slot * self._stride + self._column[row]
            quantity = int(self._quantity_of[place])
            self._quantity_of[place] = 0
            for generation in seen:
                counter = self._counter_of.pop(quantity * _GENERATIONS + generation, None)
                if counter is not None:
                    self._total[counter], self._time[counter] = 0, _LONG_AGO
                    self._counters.give(counter)
            self._quantity[quantity], self._cap[quantity] = 0, -1
            if self._windows and self._window_of[quantity] > min(self._windows):
                self._unsave(quantity)
            self._window_of[quantity] = _LONG_AGO
            self._newest[quantity], self._newest_counter[quantity] = -1, 0
            del self._owner[quantity]
            self._quantities.give(quantity)
        self._leases.give(slot)
        self._forget_places()

    def _unsave(self, quantity: int) -> None:
        """Drop a slot from windows that wait: it will be another lease's."""
        for window in self._windows.values():
            window.saved = [
                (slots[kept], values[kept])
                for slots, values in window.saved
                for kept in [slots != quantity]
            ]

    def limits_moved(self) -> None:
        self._cap[:] = -1

    # Batches

    def _place(self, batch: Columns) -> Placed:
        """Where the rows belong; a sender's rows say the same each time but times and totals."""
        last = self._last
        if last is not None and last[0] is batch:
            return last[1]
        placed = self._placed.find(batch)
        if placed is None:
            placed = self._placed_anew(batch)
            self._placed.keep(batch, placed)
        self._last = batch, placed
        return placed

    def _placed_anew(self, batch: Columns) -> Placed:
        leases = self._slots_of(batch.leases)
        resource = batch.resource
        beyond = resource.view(f"u{resource.itemsize}") >= self._rows
        if np.count_nonzero(beyond):
            resource = np.where(beyond, self._rows, resource)
        at = leases.take(batch.lease)
        at *= self._stride
        at += self._column.take(resource)
        quantity = self._quantity_of.take(at)
        counter = self._newest_counter.take(quantity)
        other = self._newest.take(quantity) != batch.generation
        plain = not np.count_nonzero(other)
        if not plain:
            rows = np.flatnonzero(other)
            generations = batch.generation[rows].tolist()
            known = self._counter_of.get
            counter[rows] = [
                known(q * _GENERATIONS + g, 0) if 0 <= g < _GENERATIONS else 0
                for q, g in zip(quantity[rows].tolist(), generations, strict=True)
            ]
        return Placed(batch, leases, quantity, counter, plain)

    def _slots_of(self, leases: tuple[bytes, ...]) -> Ints:
        """Slots of a batch's leases; a sender lists the same leases each time."""
        slots = self._slots_of_lists.get(leases)
        if slots is None:
            find = self._lease_slots.get
            slots = np.array([find(lease, 0) for lease in leases], np.int64)
            if len(self._slots_of_lists) >= _LISTS_REMEMBERED:
                self._slots_of_lists.clear()
            self._slots_of_lists[leases] = slots
        return slots

    def judge(self, batch: Columns, nodes: Sequence[int], key: int, at: Moment) -> Judged:
        if not batch.rows:
            return ALL_ACCEPTED
        if batch.rows <= _HANDFUL:
            plain = self._all_plain(batch, nodes, at)
            if plain is not None:
                self._handful = batch, plain
                return ALL_ACCEPTED
        placed = self._place(batch)
        bad = self._out_of_bounds(batch, placed, nodes, at)
        counters, quantities, total = placed.counters, placed.quantities, batch.total
        known = entries(self._total, counters)
        contradiction = None

        same = entries(self._time, counters) == batch.time_us
        if np.count_nonzero(same):
            same &= known != total
            same &= entries(self._key, counters) == key
            same &= ~bad
            if np.count_nonzero(same):
                bad |= same
                row = int(np.flatnonzero(same)[0])
                contradiction = self._contradiction(batch, int(placed.counter[row]), row)

        rise = total - known
        np.maximum(rise, 0, out=rise)
        wanted = rise + entries(self._quantity, quantities)
        close = wanted > entries(self._cap, quantities)
        if np.count_nonzero(close):
            self._judge_limits(placed, wanted, close, bad, at)

        odd = None if placed.fresh is None else placed.fresh & ~bad
        together = self._may_pass_bounds(rise, wanted)
        if together or (odd is not None and np.count_nonzero(odd)):
            self._judge_one_by_one(batch, placed, bad, None if together else odd, at)
        if not np.count_nonzero(bad):
            return ALL_ACCEPTED
        return Judged(np.packbits(bad, bitorder="little").tobytes(), contradiction)

    def _all_plain(self, batch: Columns, nodes: Sequence[int], at: Moment) -> list[_Reading] | None:
        """A handful of rows one by one, which is faster; None where one needs a closer look."""
        now_us, earliest, latest = at.now_us, at.now_us - at.late_us, at.now_us + at.early_us
        bases = []
        for lease in batch.leases:
            slot = self._lease_slots.get(lease, 0)
            if self._node.item(slot) not in nodes:
                return None
            if not self._ready.item(slot) <= now_us < self._closing.item(slot):
                return None
            bases.append(slot * self._stride)
        found = []
        for index, resource, generation, time_us, total in zip(
            batch.lease.tolist(),
            batch.resource.tolist(),
            batch.generation.tolist(),
            batch.time_us.tolist(),
            batch.total.tolist(),
            strict=True,
        ):
            if not 0 <= resource < self._rows:
                return None
            quantity = self._quantity_of.item(bases[index] + self._column.item(resource))
            if self._newest.item(quantity) != generation or generation >= at.generations:
                return None
            counter = self._newest_counter.item(quantity)
            if not counter or not earliest <= time_us <= latest or not 0 <= total <= QUANTITY_MAX:
                return None
            rise = total - self._total.item(counter)
            if rise and self._time.item(counter) == time_us:
                return None
            if self._quantity.item(quantity) + max(rise, 0) > self._cap.item(quantity):
                return None
            found.append((quantity, counter, time_us, total))
        return found

    def _out_of_bounds(
        self, batch: Columns, placed: Placed, nodes: Sequence[int], at: Moment
    ) -> Ints:
        """What the row's own values and its lease's times decide: a mask of refused rows."""
        self._serial += 1
        self._listed = grown(self._listed, max(nodes, default=0) + 1, 0)
        self._listed[nodes] = self._serial
        leases = placed.leases
        shut = self._listed.take(self._node.take(leases)) != self._serial
        shut |= self._ready.take(leases) > at.now_us
        shut |= self._closing.take(leases) <= at.now_us
        # As unsigned numbers everything below the range lies above it: one comparison each.
        earliest = at.now_us - at.late_us
        age = batch.time_us.view(np.uint64) - np.uint64(earliest % 2**64)
        bad: Ints = age > np.uint64(at.late_us + at.early_us)
        bad |= batch.total.view(np.uint64) > np.uint64(QUANTITY_MAX)
        if placed.highest >= at.generations:
            generation = batch.generation
            bad |= generation.view(f"u{generation.itemsize}") >= at.generations
        if placed.nowhere is not None:
            bad |= placed.nowhere
        if np.count_nonzero(shut):
            bad |= shut.take(batch.lease)
        return bad

    def _contradiction(self, batch: Columns, counter: int, row: int) -> Contradiction:
        return Contradiction(
            lease=batch.leases[int(batch.lease[row])],
            resource=int(batch.resource[row]),
            generation=int(batch.generation[row]),
            time_us=int(batch.time_us[row]),
            first_total=int(self._total[counter]),
            second_total=int(batch.total[row]),
            first=self._digest[counter].tobytes(),
        )

    def _judge_limits(
        self, placed: Placed, wanted: Ints, close: Ints, bad: Ints, at: Moment
    ) -> None:
        """Rows above a limit as last computed: limits only rise, so compute them for now."""
        for row in np.flatnonzero(close & ~bad).tolist():
            quantity = int(placed.quantity[row])
            slot, resource = self._owner[quantity]
            cap = limit_of(self._limits[slot][resource], int(self._ready[slot]), at)
            self._cap[quantity] = cap
            if wanted[row] > cap:
                bad[row] = True

    @staticmethod
    def _may_pass_bounds(rise: Ints, wanted: Ints) -> bool:
        """Whether rows that are in bounds alone may not be so together; mostly no, at a glance."""
        if not np.count_nonzero((rise | wanted).view(np.uint64) >= _SMALL):
            return len(rise) > _FEW
        # Out-of-range totals may have wrapped round; then the answer is a careful yes.
        highest, most = int(rise.max()), int(wanted.max())
        return bool(wanted.min() < 0) or most + highest * len(rise) > QUANTITY_MAX

    def _judge_one_by_one(
        self, batch: Columns, placed: Placed, bad: Ints, only: Ints | None, at: Moment
    ) -> None:
        """New generations, and sums that could pass 2^62 within one batch (R4.7, R1.6)."""
        new: dict[int, dict[int, None]] = {}
        best: dict[int, int] = {}
        sums: dict[int, int] = {}
        for row in np.flatnonzero(~bad if only is None else only).tolist():
            quantity, counter = int(placed.quantity[row]), int(placed.counter[row])
            generation, total = int(batch.generation[row]), int(batch.total[row])
            slot, _ = self._owner[quantity]
            seen, added = self._seen[slot], new.setdefault(slot, {})
            is_new = generation not in seen
            if is_new and generation not in added:
                after_us = at.now_us - at.generations_within_us
                recent = sum(1 for us in seen.values() if us > after_us)
                if recent + len(added) >= at.generations_a_day:
                    bad[row] = True
                    continue
            place = quantity * _GENERATIONS + generation
            highest = best.get(place, int(self._total[counter]))
            together = sums.get(quantity, int(self._quantity[quantity])) + max(total - highest, 0)
            if together > QUANTITY_MAX:
                bad[row] = True
                continue
            best[place], sums[quantity] = max(highest, total), together
            if is_new:
                added[generation] = None

    def fold(
        self, batch: Columns, refused: bytes, key: int, digest: bytes, now_us: int, window_us: int
    ) -> None:
        if not batch.rows:
            return
        handful, self._handful = self._handful, None
        if handful is not None and handful[0] is batch:
            self._fold_plain(handful[1], key, digest, window_us)
            return
        placed = self._place(batch)
        self._last = None
        quantity, counter = placed.quantity, placed.counter
        quantities, counters = placed.quantities, placed.counters
        total, time = batch.total, batch.time_us
        words = np.frombuffer(digest, np.int64)
        fresh = placed.fresh
        if refused or fresh is not None:
            kept = np.ones(batch.rows, bool)
            if refused:
                bits = np.frombuffer(refused, np.uint8)
                kept = np.unpackbits(bits, count=batch.rows, bitorder="little") == 0
            if fresh is not None:
                first = np.flatnonzero(fresh & kept)
                if len(first):
                    self._fold_first(batch, placed, first, key, words, now_us, window_us)
                kept &= ~fresh
            rows = np.flatnonzero(kept)
            quantities = quantity = quantity.take(rows)
            counters = counter = counter.take(rows)
            total, time = total.take(rows), time.take(rows)

        rise = total - entries(self._total, counters)
        up = rise > 0
        rising = np.count_nonzero(up)
        if rising < len(up):
            if not rising:
                return
            quantities = quantity = quantity[up]
            counters = counter = counter[up]
            rise, total, time = rise[up], total[up], time[up]

        if not placed.apart:
            if rising > len(self._places):
                self._places = np.arange(2 * rising)
            places = self._places[:rising]
            self._scratch[counter] = places
            if np.count_nonzero(self._scratch.take(counter) != places):
                # Of one counter's rows the highest total counts, of equal ones the first.
                order = np.lexsort((-places, total, counter))
                ordered = counter[order]
                last = np.append(ordered[1:] != ordered[:-1], True)
                chosen = order[last]
                quantities = quantity = quantity[chosen]
                counters = counter[chosen]
                rise, total, time = rise[chosen], total[chosen], time[chosen]

        self._total[counters] = total
        self._time[counters] = time
        self._key[counters] = key
        self._digest[counters] = words
        moved = entries(self._window_of, quantities) != window_us
        if np.count_nonzero(moved):
            first = quantity[moved]
            self._enter(first if placed.plain else np.unique(first), window_us)
        if placed.plain:
            self._quantity[quantities] += rise
        else:
            np.add.at(self._quantity, quantity, rise)

    def _fold_plain(
        self, readings: list[_Reading], key: int, digest: bytes, window_us: int
    ) -> None:
        """A handful of readings of counters that exist."""
        words = np.frombuffer(digest, np.int64)
        for quantity, counter, time_us, total in readings:
            rise = total - self._total.item(counter)
            if rise > 0:
                self._total[counter], self._time[counter] = total, time_us
                self._key[counter], self._digest[counter] = key, words
                if self._window_of.item(quantity) != window_us:
                    self._enter(np.array([quantity]), window_us)
                self._quantity[quantity] += rise

    def _fold_first(
        self,
        batch: Columns,
        placed: Placed,
        rows: Ints,
        key: int,
        words: Ints,
        now_us: int,
        window_us: int,
    ) -> None:
        """Rows whose counters did not exist when their batch came."""
        self._placed.clear()
        quantity = placed.quantity.take(rows)
        generation = batch.generation.take(rows).astype(np.int64)
        total = batch.total.take(rows)
        place = quantity * _GENERATIONS + generation
        _, first = np.unique(place, return_index=True)
        # Of one counter's rows the highest total counts, of equal ones the first.
        order = np.lexsort((-np.arange(len(rows)), total, place))
        ordered = place[order]
        best = order[np.append(ordered[1:] != ordered[:-1], True)]
        # Both are by place; counters begin in the order of their first rows.
        by_row = np.argsort(first)
        first, best = first[by_row], best[by_row]
        counters = [self._counters.take() for _ in range(len(first))]
        size = self._counters.top
        self._total = grown(self._total, size, 0)
        self._time = grown(self._time, size, _LONG_AGO)
        self._key = grown(self._key, size, 0)
        self._digest = grown(self._digest, size, 0)
        self._scratch = grown(self._scratch, size, 0)
        for counter, number, slot, of in zip(
            counters,
            place[first].tolist(),
            quantity[first].tolist(),
            generation[first].tolist(),
            strict=True,
        ):
            self._counter_of[number] = counter
            self._seen[self._owner[slot][0]].setdefault(of, now_us)
            self._newest[slot], self._newest_counter[slot] = of, counter
        at = np.array(counters, np.int64)
        rise = total[best]
        self._total[at], self._time[at] = rise, batch.time_us.take(rows)[best]
        self._key[at], self._digest[at] = key, words
        up = rise > 0
        moved = quantity[first][up]
        moved = moved[self._window_of.take(moved) != window_us]
        if len(moved):
            self._enter(np.unique(moved), window_us)
        np.add.at(self._quantity, quantity[first], rise)

    # Windows

    def _enter(self, quantities: Ints, window_us: int) -> None:
        """Quantities change first in a window: keep what earlier windows ended with."""
        before = self._window_of.take(quantities)
        for earlier in np.unique(before).tolist():
            window = self._windows.get(earlier)
            if window is not None:
                of_it = quantities[before == earlier]
                window.saved.append((of_it, self._quantity.take(of_it)))
        window = self._windows.get(window_us)
        if window is None:
            self._windows[window_us] = window = _Window()
        window.touched.append(quantities)
        self._window_of[quantities] = window_us

    def changed(self, window_us: int) -> dict[bytes, dict[int, int]]:
        window = self._windows.get(window_us)
        found: dict[bytes, dict[int, int]] = {}
        if window is None:
            return found
        still = [slots[self._window_of.take(slots) == window_us] for slots in window.touched]
        for slots, values in [*((s, self._quantity.take(s)) for s in still), *window.saved]:
            for quantity, value in zip(slots.tolist(), values.tolist(), strict=True):
                lease, row = self._owner[quantity]
                found.setdefault(self._names[lease], {})[row] = value
        return found

    def close(self, window_us: int) -> None:
        self._windows.pop(window_us, None)
