"""Hypothesis strategies for any declared record, built from the same shapes as its schema."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from adapters.avro_codec import WIDTHS
from schemas.derive import (
    Array,
    Boolean,
    Choice,
    Fixed,
    Long,
    Maybe,
    Nested,
    Octets,
    Shape,
    members,
)
from schemas.longs import COLUMN_FROM, INT64_MAX, INT64_MIN

LONGS = st.integers(INT64_MIN, INT64_MAX) | st.integers(-200, 20_000)


_MADE: dict[type[Any], st.SearchStrategy[Any]] = {}


def instances(kind: type[Any]) -> st.SearchStrategy[Any]:
    """Any instance of a record type: every field over the whole range of its type."""
    if kind not in _MADE:
        parts = {member.name: values(member.shape) for member in members(kind, WIDTHS)}
        _MADE[kind] = st.builds(kind, **parts)
    return _MADE[kind]


def values(shape: Shape) -> st.SearchStrategy[Any]:
    """Any value of a shape; arrays are short, but some columns reach the vectorised length."""
    if isinstance(shape, Fixed) and shape.integer:
        limit = 1 << (shape.size * 8 - 1)
        return st.integers(-limit, limit - 1)
    if isinstance(shape, Fixed):
        return st.binary(min_size=shape.size, max_size=shape.size)
    if isinstance(shape, Long):
        return LONGS
    if isinstance(shape, Boolean):
        return st.booleans()
    if isinstance(shape, Octets):
        return st.binary(max_size=200)
    if isinstance(shape, Choice):
        return st.sampled_from(shape.cls)
    if isinstance(shape, Nested):
        return instances(shape.cls)
    if isinstance(shape, Maybe):
        return st.none() | values(shape.inner)
    if isinstance(shape, Array):
        short = st.lists(values(shape.item), max_size=3)
        if isinstance(shape.item, Long):
            column = st.lists(LONGS, min_size=COLUMN_FROM, max_size=COLUMN_FROM + 8)
            return (short | column).map(tuple)
        return short.map(tuple)
    return st.text(max_size=20)


def plain(shape: Shape, value: Any) -> Any:
    """A value as plain data, the form in which other Avro libraries take and give it."""
    if isinstance(shape, Fixed) and shape.integer:
        return value.to_bytes(shape.size, "big", signed=True)
    if isinstance(shape, Choice):
        return value.value
    if isinstance(shape, Array):
        return [plain(shape.item, item) for item in value]
    if isinstance(shape, Maybe):
        return None if value is None else plain(shape.inner, value)
    if isinstance(shape, Nested):
        return {
            member.name: plain(member.shape, getattr(value, member.name))
            for member in members(shape.cls, WIDTHS)
        }
    return value
