"""Canonical bytes of folded states, and the hash over them that two replays must agree on.

The bytes are a function of the values alone: tagged, length-prefixed, fields in the order of their
declaration, mappings and sets by their encoded keys. What depends on how the ledger was written
and not on what it says (heights, offsets, hashes, where on the L1) is left out (design 2).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, Final

from domain.ids import length_prefixed
from domain.invariant import invariant

#: Fields that are evidence of how something came about, never part of the state itself.
EVIDENCE: Final = frozenset(
    {
        "anchored_us",
        "block",
        "block_hash",
        "checkpoint",
        "digest",
        "first",
        "hash",
        "height",
        "last",
        "ledgers_root",
        "log_index",
        "order_no",
        "payout_root",
        "positions",
        "previous",
        "root",
        "roots",
        "second",
        "size",
        "state_root",
        "topics",
        "transaction",
    }
)


def canonical(value: Any) -> bytes:
    """The canonical bytes of a state: a dataclass of ints, bytes, texts and collections of them."""
    if value is None:
        return b"n"
    if value is True or value is False:
        return b"t" if value else b"f"
    if isinstance(value, Enum):
        return b"e" + length_prefixed(str(value.value).encode())
    if isinstance(value, int):
        size = (value.bit_length() + 8) // 8
        return b"i" + length_prefixed(value.to_bytes(size, "big", signed=True))
    if isinstance(value, bytes):
        return b"b" + length_prefixed(value)
    if isinstance(value, str):
        return b"s" + length_prefixed(value.encode())
    if isinstance(value, Mapping):
        pairs = sorted((canonical(k), canonical(v)) for k, v in value.items())
        return b"m" + length_prefixed(*(part for pair in pairs for part in pair))
    if isinstance(value, (set, frozenset)):
        return b"u" + length_prefixed(*sorted(canonical(item) for item in value))
    if isinstance(value, (tuple, list)):
        return b"l" + length_prefixed(*(canonical(item) for item in value))
    invariant(is_dataclass(value), f"{type(value).__name__} has no canonical bytes")
    return b"d" + length_prefixed(
        type(value).__name__.encode(),
        *(
            part
            for field in fields(value)
            if field.name not in EVIDENCE
            for part in (field.name.encode(), canonical(getattr(value, field.name)))
        ),
    )


def state_hash(states: Iterable[tuple[bytes, Any]]) -> str:
    """SHA-256, in hex, over states by their keys; the order in which they come does not matter."""
    sha = hashlib.sha256()
    for key, encoded in sorted((key, canonical(state)) for key, state in states):
        sha.update(length_prefixed(key, encoded))
    return sha.hexdigest()
