"""States of aggregates in a snapshot: blocks of bytes, each unpacked when somebody asks for it.

A worker that starts again needs all its folds at once, and of its aggregates the few that the next
inputs are about. A block that nobody has asked for goes into the next snapshot as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from adapters.snapshot_columns import CannotUnpack
from domain.ids import AggregateId
from domain.processor import Versioned

#: So many are unpacked when one is asked for: some milliseconds.
BLOCK: Final = 1024
_ID_BYTES: Final = 16


class SleepingStates:
    """``Asleep`` over the blocks of a snapshot."""

    def __init__(
        self,
        ids: Sequence[bytes],
        blocks: Sequence[bytes],
        unpack: Callable[[bytes], Sequence[Versioned]],
    ) -> None:
        """``ids`` are those of each block's states, one after the other, in their order."""
        if len(ids) != len(blocks) or any(len(each) % _ID_BYTES for each in ids):
            raise CannotUnpack("the blocks of states are not whole")
        self._ids = ids
        self._blocks: list[bytes | None] = list(blocks)
        self._unpack = unpack
        self._awake: dict[bytes, Versioned] = {}
        self._block_of: dict[bytes, int] = {}
        for number, each in enumerate(ids):
            self._block_of.update(dict.fromkeys(np.frombuffer(each, "V16").tolist(), number))

    def wake(self, aggregate: AggregateId) -> Versioned | None:
        """See ``Asleep``."""
        number = self._block_of.pop(aggregate, None)
        if number is None:
            return None
        block = self._blocks[number]
        if block is not None:
            self._awake.update((each.id, each) for each in self._unpack(block))
            self._blocks[number] = None
        return self._awake.pop(aggregate)

    def blocks(self) -> Sequence[tuple[bytes, bytes]]:
        """Ids and bytes of the blocks of which no state was asked for."""
        found = zip(self._ids, self._blocks, strict=True)
        return [(ids, block) for ids, block in found if block is not None]

    def awake(self) -> Sequence[Versioned]:
        """States that were unpacked with another one and that nobody has asked for."""
        return list(self._awake.values())
