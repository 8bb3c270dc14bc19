"""Avro schemas derived from the dataclasses that are declared as records.

A record is written once, in Python; what other languages read is derived from it and committed, so
the two cannot drift. This module knows no part of the program: records come in as classes with a
``NAME``, and which ``NewType`` is how many bytes wide comes in as a table.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin, get_type_hints

Json = Any

TYPE_NAMESPACE: Final = "synor.type"
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


class Underivable(TypeError):
    """A declared record that has no schema: a type without a place in Avro, or a missing doc."""


@dataclass(frozen=True, slots=True)
class Long:
    """``int``: an Avro long, which is 64 bits wide."""


@dataclass(frozen=True, slots=True)
class Boolean:
    """``bool``: one byte."""


@dataclass(frozen=True, slots=True)
class Text:
    """``str``: UTF-8."""


@dataclass(frozen=True, slots=True)
class Octets:
    """``bytes`` of any length."""


@dataclass(frozen=True, slots=True)
class Fixed:
    """Bytes of one length, or, where ``integer``, a signed big-endian number of that length."""

    name: str
    size: int
    integer: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """An ``Enum`` whose values are the Avro symbols."""

    cls: type[Enum]


@dataclass(frozen=True, slots=True)
class Nested:
    """Another record."""

    cls: type[Any]


@dataclass(frozen=True, slots=True)
class Array:
    """``tuple[X, ...]``."""

    item: Shape


@dataclass(frozen=True, slots=True)
class Maybe:
    """``X | None``: a union whose first branch is null."""

    inner: Shape


Shape = Long | Boolean | Text | Octets | Fixed | Choice | Nested | Array | Maybe

#: The width of every ``NewType`` over bytes, and ``Wide``.
Widths = Mapping[Any, Fixed]


@dataclass(frozen=True, slots=True)
class Member:
    """One field of a record: its shape, its doc, and its default if it has one."""

    name: str
    shape: Shape
    doc: str
    default: Any = MISSING


def members(cls: type[Any], widths: Widths) -> tuple[Member, ...]:
    """The fields of a record in order; raises ``Underivable`` naming the field at fault."""
    if not (is_dataclass(cls) and hasattr(cls, "NAME")):
        raise Underivable(f"{cls!r} is not declared as a record")
    if hasattr(cls, "__post_init__"):
        raise Underivable(f"{cls.NAME} has a __post_init__, which decoding would pass by")
    hints = get_type_hints(cls, include_extras=True)
    return tuple(_member(cls, field, hints[field.name], widths) for field in fields(cls))


def _member(cls: type[Any], field: Field[Any], hint: Any, widths: Widths) -> Member:
    where = f"{cls.__name__}.{field.name}"
    if get_origin(hint) is not Annotated:
        raise Underivable(f"{where} has no text in Annotated")
    inner, *notes = get_args(hint)
    if len(notes) != 1 or not isinstance(notes[0], str) or not notes[0].strip():
        raise Underivable(f"{where} needs exactly one text in Annotated")
    if field.default_factory is not MISSING:
        raise Underivable(f"{where} makes its default at run time")
    return Member(field.name, shape_of(inner, widths, where), notes[0], field.default)


def shape_of(hint: Any, widths: Widths, where: str) -> Shape:
    """The shape that an annotation stands for."""
    if hint in widths:
        return widths[hint]
    origin, args = get_origin(hint), get_args(hint)
    if origin is tuple and len(args) == 2 and args[1] is Ellipsis:
        return Array(shape_of(args[0], widths, where))
    if origin in (Union, UnionType) and len(args) == 2 and NoneType in args:
        inner = shape_of(args[0] if args[1] is NoneType else args[1], widths, where)
        if isinstance(inner, Maybe):
            raise Underivable(f"{where}: a union in a union")
        return Maybe(inner)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _choice(hint, where)
    if isinstance(hint, type) and hasattr(hint, "NAME"):
        return Nested(hint)
    plain: dict[Any, Shape] = {int: Long(), bool: Boolean(), str: Text(), bytes: Octets()}
    if hint in plain:
        return plain[hint]
    base = getattr(hint, "__supertype__", None)
    if base in (int, str) or base in widths:
        return shape_of(base, widths, where)
    raise Underivable(f"{where}: no Avro type for {hint!r}")


def _choice(cls: type[Enum], where: str) -> Choice:
    for member in cls:
        if type(member.value) is not str or not _NAME.match(member.value):
            raise Underivable(f"{where}: {member!r} is no Avro symbol")
    return Choice(cls)


def least_bytes(shape: Shape, widths: Widths) -> int:
    """The fewest bytes that a value of this shape takes; bounds the count of an array."""
    if isinstance(shape, Fixed):
        return shape.size
    if isinstance(shape, Nested):
        return sum(least_bytes(member.shape, widths) for member in members(shape.cls, widths))
    return 1


def schema_of(cls: type[Any], widths: Widths) -> Json:
    """The Avro schema of a record, named types written out at their first use."""
    return _Writer(widths).record(cls)


class _Writer:
    """Writes one schema; remembers which named types it has written out."""

    def __init__(self, widths: Widths) -> None:
        self._widths = widths
        self._written: dict[str, Any] = {}
        self._open: list[type[Any]] = []

    def record(self, cls: type[Any]) -> Json:
        if cls in self._open:
            raise Underivable(f"{cls.NAME} contains itself, so its depth would have no bound")
        if self._is_written(cls.NAME, cls):
            return cls.NAME
        namespace, _, name = cls.NAME.rpartition(".")
        self._open.append(cls)
        made = {
            "type": "record",
            "name": name,
            "namespace": namespace,
            "doc": paragraph(cls),
            "fields": [self._field(member) for member in members(cls, self._widths)],
        }
        self._open.pop()
        return made

    def _field(self, member: Member) -> Json:
        made = {"name": member.name, "type": self._type(member.shape), "doc": member.doc}
        if isinstance(member.shape, Maybe):
            if member.default in (MISSING, None):
                made["default"] = None
        elif member.default is not MISSING:
            made["default"] = literal(member.shape, member.default, self._widths)
        return made

    def _type(self, shape: Shape) -> Json:
        if isinstance(shape, (Long, Boolean, Text, Octets)):
            return _PRIMITIVE[type(shape)]
        if isinstance(shape, Fixed):
            full = f"{TYPE_NAMESPACE}.{shape.name}"
            return full if self._is_written(full, shape) else fixed_schema(shape)
        if isinstance(shape, Choice):
            full = f"{TYPE_NAMESPACE}.{shape.cls.__name__}"
            return full if self._is_written(full, shape.cls) else enum_schema(shape.cls)
        if isinstance(shape, Nested):
            return self.record(shape.cls)
        if isinstance(shape, Array):
            items = self._type(shape.item)
            if least_bytes(shape.item, self._widths) == 0:
                raise Underivable(f"{items}: items of no bytes would make an array bomb")
            return {"type": "array", "items": items}
        return ["null", self._type(shape.inner)]

    def _is_written(self, full: str, source: Any) -> bool:
        if full not in self._written:
            self._written[full] = source
            return False
        if self._written[full] != source:
            raise Underivable(f"two types are called {full}")
        return True


_PRIMITIVE: Final[Mapping[type[Any], str]] = {
    Long: "long",
    Boolean: "boolean",
    Text: "string",
    Octets: "bytes",
}


def fixed_schema(shape: Fixed) -> Json:
    """The definition of a fixed type."""
    return {"type": "fixed", "name": shape.name, "namespace": TYPE_NAMESPACE, "size": shape.size}


def enum_schema(cls: type[Enum]) -> Json:
    """The definition of an enum; symbols in the order of the members, which is for ever."""
    return {
        "type": "enum",
        "name": cls.__name__,
        "namespace": TYPE_NAMESPACE,
        "doc": paragraph(cls),
        "symbols": [member.value for member in cls],
    }


def paragraph(cls: type[Any]) -> str:
    """The first paragraph of a docstring as one line; the one that Python makes up is none."""
    text = (cls.__dict__.get("__doc__") or "").strip()
    if not text or text.startswith(f"{cls.__name__}(") or text == "An enumeration.":
        raise Underivable(f"{cls.__name__} has no docstring")
    return " ".join(text.split("\n\n")[0].split())


def literal(shape: Shape, value: Any, widths: Widths) -> Json:
    """A default as the Avro specification writes it in JSON: bytes as ISO-8859-1 text."""
    if isinstance(shape, Fixed) and shape.integer:
        return value.to_bytes(shape.size, "big", signed=True).decode("iso-8859-1")
    if isinstance(shape, (Fixed, Octets)):
        return value.decode("iso-8859-1")
    if isinstance(shape, Choice):
        return value.value
    if isinstance(shape, Array):
        return [literal(shape.item, item, widths) for item in value]
    if isinstance(shape, Nested):
        return {
            member.name: literal(member.shape, getattr(value, member.name), widths)
            for member in members(shape.cls, widths)
        }
    if isinstance(shape, Maybe):
        return None if value is None else literal(shape.inner, value, widths)
    return value


def normalised(schema: Json) -> str:
    """What is fingerprinted: the schema without docs, keys sorted, no spaces, ASCII.

    Everything that decides what bytes mean stays: order, defaults, names, sizes and any logical
    type, which Avro's own canonical form would drop.
    """
    return json.dumps(_without_doc(schema), sort_keys=True, separators=(",", ":"))


def _without_doc(schema: Json) -> Json:
    if isinstance(schema, dict):
        return {
            key: value if key == "default" else _without_doc(value)
            for key, value in schema.items()
            if key != "doc"
        }
    if isinstance(schema, list):
        return [_without_doc(branch) for branch in schema]
    return schema


def fingerprint(schema: Json) -> bytes:
    """SHA-256 over the normalised schema."""
    return hashlib.sha256(normalised(schema).encode()).digest()
