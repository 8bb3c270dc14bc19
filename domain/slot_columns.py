"""Where the rows of a batch belong among the arrays of a shard, remembered from batch to batch.

A sender lists the same leases each time, and its rows say the same but for times and totals. So
what follows from the rest is worked out once: the slots of each row, and whether they are a part of
an array, which is then read and written whole and not entry by entry.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from domain.batch_columns import Columns

Ints = NDArray[Any]

#: Rows of placements that are remembered.
_ROWS_REMEMBERED: Final = 262_144

#: Slots of rows: a part of the arrays where they follow one another, else one by one.
At = slice | Ints
#: What rows say beside times and totals.
_Key = tuple[int, bytes, bytes, bytes]


class Slots:
    """Slot numbers in use and free, from 1."""

    def __init__(self) -> None:
        self.top = 1
        self._free: list[int] = []

    def take(self) -> int:
        """A slot nobody has."""
        if self._free:
            return self._free.pop()
        self.top += 1
        return self.top - 1

    def give(self, slot: int) -> None:
        """Nobody has this slot any more."""
        self._free.append(slot)


def grown(array: Ints, size: int, fill: int) -> Ints:
    """The array with room for ``size`` entries, new ones filled."""
    if size <= len(array):
        return array
    bigger = np.full((max(size, 2 * len(array)), *array.shape[1:]), fill, array.dtype)
    bigger[: len(array)] = array
    return bigger


class Placed:
    """Where the rows of a batch belong: slots of leases, quantities and counters."""

    __slots__ = (
        "apart",
        "counter",
        "counters",
        "fresh",
        "highest",
        "key",
        "leases",
        "nowhere",
        "plain",
        "quantities",
        "quantity",
    )

    def __init__(
        self, batch: Columns, leases: Ints, quantity: Ints, counter: Ints, plain: bool
    ) -> None:
        """Work out what the slots of a batch with rows say."""
        self.key = _key_of(batch)
        self.leases = leases  # by entry of the batch's dictionary
        self.quantity = quantity
        self.counter = counter
        self.quantities = _run(quantity)
        self.counters = _run(counter)
        self.plain = plain  # each row's counter is the newest of its quantity
        # What the rows alone decide, of which mostly nothing is there.
        self.nowhere = _any(quantity == 0)
        self.fresh = _any(counter == 0)
        self.apart = isinstance(self.counters, slice)
        self.highest = int(batch.generation.view(f"u{batch.generation.itemsize}").max())


def _key_of(batch: Columns) -> _Key:
    return batch.rows, batch.lease.tobytes(), batch.resource.tobytes(), batch.generation.tobytes()


def _run(slots: Ints) -> At:
    """The slots as a part of an array, if that is what they are."""
    first, last = int(slots[0]), int(slots[-1])
    if last - first == len(slots) - 1 and not np.count_nonzero(np.diff(slots) != 1):
        return slice(first, last + 1)
    return slots


def _any(mask: Ints) -> Ints | None:
    return mask if np.count_nonzero(mask) else None


def entries(array: Ints, at: At) -> Ints:
    """The entries of an array at slots: of a part of it no copy, so it is only to be read."""
    return array[at] if isinstance(at, slice) else array.take(at)


class Placements:
    """The last placement of each list of leases; void when a slot gets another meaning."""

    def __init__(self) -> None:
        """Remember nothing."""
        self._of: dict[tuple[bytes, ...], Placed] = {}
        self._rows = 0

    def clear(self) -> None:
        """Slots have changed."""
        self._of.clear()
        self._rows = 0

    def find(self, batch: Columns) -> Placed | None:
        """The placement of a batch with the same rows."""
        placed = self._of.get(batch.leases)
        return placed if placed is not None and placed.key == _key_of(batch) else None

    def keep(self, batch: Columns, placed: Placed) -> None:
        """Remember a placement, up to a bound in rows."""
        before = self._of.get(batch.leases)
        self._rows += batch.rows - (0 if before is None else before.key[0])
        if self._rows > _ROWS_REMEMBERED:
            self._of.clear()
            self._rows = batch.rows
        self._of[batch.leases] = placed
