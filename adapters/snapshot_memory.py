"""What a processor remembers, as bytes, and back into a processor that remembers nothing yet.

Everything a processor holds is remembered but what ``WIRING`` names: what it is built with, what
belongs to the step in hand, and caches that fill themselves. So a fold that gets a new field needs
nothing here, and a field that no snapshot can hold is a named error and never an omission.
"""

from __future__ import annotations

import gc
import hashlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from enum import Enum
from functools import cache
from importlib.resources import files
from typing import Any, Final

from adapters.snapshot_columns import CannotUnpack, Skipped, skipped_of
from adapters.snapshot_pack import pack
from adapters.snapshot_states import BLOCK, SleepingStates
from adapters.snapshot_unpack import unpack
from domain.market import Market
from domain.market_folds import Folds
from domain.metering import Metering
from domain.processor import Asleep, Processor, Versioned
from domain.readings_columns import ColumnReadings
from domain.settlement import Settlement
from projections.free_capacity import FreeCapacity
from projections.order_book import OrderBook

WIRING: Final[Skipped] = {
    Processor: frozenset(
        (
            "genesis",
            "genesis_hash",
            "shard",
            "shards",
            "time_source",
            "codec",
            "verify",
            "unit",
            "_states",
            "_evolve",
            "_clock_keys",
        )
    ),
    Market: frozenset(("clearing",)),
    Metering: frozenset(("_intake", "_decoded", "_lists")),
    Settlement: frozenset(("_keccak", "_domain")),
    ColumnReadings: frozenset(("_last", "_handful", "_slots_of_lists", "_placed")),
    OrderBook: frozenset(("_takes",)),
    FreeCapacity: frozenset(("_takes",)),
    Folds: frozenset(("eligible",)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """What stands in a snapshot beside the processor's own memory."""

    where: Mapping[str, Any]  # positions, and where the own ledger stands: plain values only
    asleep: SleepingStates


def parts_of(processor: Processor) -> dict[str, Any]:
    """The processor and the folds that it was built with, by the attributes that lead to them."""
    found: dict[str, Any] = {"": processor}
    seen = {id(processor)}
    todo = [("", processor)]
    while todo:
        path, part = todo.pop(0)
        skip = skipped_of(type(part), WIRING)
        for name, value in sorted(vars(part).items()):
            ours = type(value).__module__.startswith(("domain.", "projections."))
            if name in skip or not ours or not hasattr(value, "__dict__") or id(value) in seen:
                continue
            if isinstance(value, (type, Enum)) or callable(value):
                continue
            seen.add(id(value))
            found[f"{path}.{name}"] = value
            todo.append((f"{path}.{name}", value))
    return found


def remember(
    processor: Processor,
    where: Mapping[str, Any],
    states: Sequence[Versioned],
    asleep: Asleep | None = None,
) -> bytes:
    """A processor between two steps, as bytes. Raises ``CannotPack``.

    ``asleep`` are states of the snapshot before that nobody has asked for.
    """
    outside = {"genesis": processor.genesis}
    blocks: list[tuple[bytes, bytes]] = []
    if isinstance(asleep, SleepingStates):
        blocks += asleep.blocks()
        states = [*states, *asleep.awake()]
    with no_collection():
        for first in range(0, len(states), BLOCK):
            some = states[first : first + BLOCK]
            ids = b"".join([each.id for each in some])
            blocks.append(
                (ids, pack({"states": list(some)}, outside=outside, parts={}, skip=WIRING))
            )
        return pack(
            {
                "where": dict(where),
                "ids": [ids for ids, _ in blocks],
                "blocks": [block for _, block in blocks],
            },
            outside=outside,
            parts=parts_of(processor),
            skip=WIRING,
        )


def recall(data: bytes, processor: Processor) -> Remembered:
    """Let a new processor remember. Raises ``CannotUnpack``; then it is of no use."""
    outside = {"genesis": processor.genesis}

    def states(block: bytes) -> list[Versioned]:
        with no_collection():
            found: list[Versioned] = unpack(block, outside=outside, parts={})["states"]
        return found

    with no_collection():
        found = unpack(data, outside=outside, parts=parts_of(processor))
        where, ids, blocks = (found.get(name) for name in ("where", "ids", "blocks"))
        if not (isinstance(where, dict) and isinstance(ids, list) and isinstance(blocks, list)):
            raise CannotUnpack("there is no position in it")
        return Remembered(where=where, asleep=SleepingStates(ids, blocks, states))


class _Collector:
    """The collector of cycles, held while any thread of the process loads a memory or packs one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holders = 0
        self._was = False

    @contextmanager
    def held(self) -> Iterator[None]:
        with self._lock:
            if not self._holders:
                self._was = gc.isenabled()
                gc.disable()
            self._holders += 1
        try:
            yield
        finally:
            with self._lock:
                self._holders -= 1
                if self._was and not self._holders:
                    gc.enable()


_COLLECTOR: Final = _Collector()


def no_collection() -> AbstractContextManager[None]:
    """Hold the collector of cycles: it would look through millions of new objects, again and
    again, and find nothing. It takes half of the time."""
    return _COLLECTOR.held()


@cache
def code_fingerprint() -> bytes:
    """SHA-256 over the source of everything that a snapshot's inside depends on.

    Any change of the folds makes older snapshots unfit, whether or not it would have mattered.
    """
    digest = hashlib.sha256()
    for package in ("domain", "projections"):
        for file in sorted(files(package).iterdir(), key=lambda each: each.name):
            if file.name.endswith(".py"):
                digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    for name in ("columns", "pack", "unpack", "states", "memory"):
        digest.update((files("adapters") / f"snapshot_{name}.py").read_bytes() + b"\0")
    return digest.digest()
