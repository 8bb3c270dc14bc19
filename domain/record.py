"""How an event, a command or a part of one is declared: once, as a dataclass.

The dataclass is the only source: ``schemas/`` derives the Avro schema from it (types from the
annotations, the doc of each field from the text in ``Annotated``), commits and locks it. Python
paths never reach the log; the Avro full name does.

Types that may stand in a record: ``int`` (Avro long), ``Wide`` (fixed(16), signed big-endian),
``bool``, ``str``, ``bytes``, the id types of ``ids`` (fixed), an ``Enum`` of strings, another
record, ``tuple[X, ...]``, and ``X | None``. No float, no map, no null array.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, dataclass_transform

from domain.invariant import invariant

T = TypeVar("T")

#: Every declared record by its Avro full name, in order of declaration.
RECORDS: dict[str, type[Any]] = {}


@dataclass_transform(frozen_default=True, kw_only_default=True)
def record(name: str) -> Callable[[type[T]], type[T]]:
    """Declare a frozen, slotted, keyword-only record with the stable Avro full name ``name``."""

    def declare(cls: type[T]) -> type[T]:
        made: Any = dataclass(frozen=True, slots=True, kw_only=True)(cls)
        made.NAME = name
        invariant(name not in RECORDS, f"two records are called {name}")
        RECORDS[name] = made
        return made  # type: ignore[no-any-return]

    return declare
