"""A graph of plain objects as columns of bytes: what a snapshot's inside is made of.

Objects are grouped by class and each field becomes one column, so that a hundred thousand leases
are some forty packed columns and not four million values. Packing and unpacking run in C.

Bytes from a data folder are not executed: unpacking makes objects of the classes of ``domain`` and
``projections`` that this program has loaded, without calling any code of theirs, and containers.
What is shared stays shared, cycles included. The order of dicts is kept; sets are sorted, so that
the same objects always give the same bytes.
"""

from __future__ import annotations

import struct
import sys
from collections import OrderedDict, deque
from collections.abc import Mapping
from itertools import chain
from typing import Any, Final

import numpy as np

PACKAGES: Final = ("domain.", "projections.")

NONE, BOOL, INT, BIG, FIXED, BYTES, TEXT, ENUM, OUTSIDE, REF, TUPLE, MIXED = range(12)
#: A column that stands once and is used several times; one of few values that come again.
COMMON, CHOSEN = 12, 13
WIDTHS: Final = ("<u1", "<u2", "<u4", "<u8")
COUNT: Final = struct.Struct("<I")
CONTAINERS: Final[Mapping[str, type[Any]]] = {
    "dict": dict,
    "ordered": OrderedDict,
    "list": list,
    "deque": deque,
    "set": set,
    "frozenset": frozenset,
    "array": np.ndarray,
}
NAMES: Final = {kind: name for name, kind in CONTAINERS.items()}
#: What cannot be made empty and filled later: it is made before anything points at it.
MADE_LATER: Final = frozenset((np.ndarray, deque, frozenset))
DTYPES: Final = frozenset(("<i8", "<i4", "<u8", "<u4", "|u1", "|i1", "|b1", "<i2", "<u2"))


class CannotPack(Exception):
    """The graph holds something that has no place in a snapshot; the text names it."""


class CannotUnpack(Exception):
    """The bytes are not what ``pack`` made of a graph that this program knows."""


#: A container of so many items has columns of its own: they are of one kind, and often the same
#: as those of another container.
LARGE: Final = 256
#: As far as a column is looked at before it is taken for one of few values.
SAMPLE: Final = 1024


Skipped = Mapping[type[Any], frozenset[str]]


def class_name(kind: type[Any]) -> str:
    """The name of a class of the program."""
    return f"{kind.__module__}:{kind.__qualname__}"


def is_ours(kind: type[Any]) -> bool:
    """Whether a class is one that a snapshot may hold objects of."""
    return kind.__module__.startswith(PACKAGES)


def class_named(name: str) -> type[Any]:
    """The class of a name, of those that are loaded. Raises ``CannotUnpack``."""
    module, _, qualified = name.partition(":")
    found: Any = sys.modules.get(module) if module.startswith(PACKAGES) else None
    for part in qualified.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, type) or class_name(found) != name:
        raise CannotUnpack(f"{name} is no class of this program")
    return found


def slots_of(kind: type[Any]) -> list[str]:
    """The slots of a class and its bases."""
    return [
        name
        for base in reversed(kind.__mro__)
        for name in (
            [base.__dict__["__slots__"]]
            if isinstance(base.__dict__.get("__slots__"), str)
            else base.__dict__.get("__slots__", ())
        )
        if name not in ("__dict__", "__weakref__")
    ]


def skipped_of(kind: type[Any], skipped: Skipped) -> frozenset[str]:
    """The fields of a class that are wiring: of its bases too."""
    return frozenset(chain.from_iterable(skipped.get(base, ()) for base in kind.__mro__))
