"""Columns of bytes back into a graph of plain objects; no code of theirs is called."""

from __future__ import annotations

import struct
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any, Final

import numpy as np

from adapters.snapshot_columns import (
    BIG,
    BOOL,
    BYTES,
    CHOSEN,
    COMMON,
    CONTAINERS,
    COUNT,
    DTYPES,
    ENUM,
    FIXED,
    INT,
    MADE_LATER,
    MIXED,
    NAMES,
    NONE,
    OUTSIDE,
    REF,
    TEXT,
    TUPLE,
    WIDTHS,
    CannotUnpack,
    class_name,
    class_named,
    slots_of,
)

_EXHAUST: Final = deque[Any](maxlen=0)


def _run(calls: Iterable[Any]) -> None:
    """Exhaust an iterator in C."""
    _EXHAUST.extend(calls)


class _Reader:
    """Takes bytes from the front."""

    __slots__ = ("at", "data")

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.at = 0

    def take(self, length: int) -> memoryview:
        found = self.data[self.at : self.at + length]
        if len(found) != length:
            raise CannotUnpack("the bytes end too soon")
        self.at += length
        return found

    def count(self) -> int:
        (found,) = COUNT.unpack(self.take(4))
        return int(found)

    def block(self) -> _Reader:
        return _Reader(self.take(self.count()))

    def text(self) -> str:
        return bytes(self.take(self.count())).decode()

    def texts(self) -> list[str]:
        return [self.text() for _ in range(self.count())]


class _Unpacking:
    """One graph on its way back."""

    def __init__(self, outside: Mapping[str, Any], parts: Mapping[str, Any]) -> None:
        self._outside = outside
        self._parts = parts
        self._tables: list[list[Any]] = []
        self._kinds: list[type[Any]] = []
        self._common: list[_Reader | list[bytes]] = []

    def run(self, data: bytes) -> dict[str, Any]:
        reader = _Reader(memoryview(data))
        self._common += [reader.block() for _ in range(reader.count())]
        chunks: list[list[_Reader]] = []
        for _ in range(reader.count()):
            name = reader.text()
            kind = CONTAINERS.get(name) or class_named(name)
            count = reader.count()
            if count > len(data):
                raise CannotUnpack("more objects than bytes")
            self._kinds.append(kind)
            chunks.append([reader.block() for _ in range(reader.count())])
            self._tables.append(self._empty(kind, count))
        self._place_parts(reader)
        for kind, table, parts in zip(self._kinds, self._tables, chunks, strict=True):
            self._make(kind, table, parts)
        # Fields first: a dict's keys must be whole when they are hashed.
        for containers in (False, True):
            for kind, table, parts in zip(self._kinds, self._tables, chunks, strict=True):
                if (kind in NAMES) is containers:
                    self._fill(kind, table, parts)
        names = reader.block().texts()
        values = self.column(reader.block())
        if reader.at != len(reader.data) or len(names) != len(values):
            raise CannotUnpack("the bytes go on")
        return dict(zip(names, values, strict=True))

    def _empty(self, kind: type[Any], count: int) -> list[Any]:
        if kind in MADE_LATER:
            return [None] * count
        if kind in NAMES:
            return [kind() for _ in range(count)]
        return list(map(object.__new__, [kind] * count))

    def _place_parts(self, reader: _Reader) -> None:
        paths = reader.texts()
        tables, numbers = self._column_of(reader), self._column_of(reader)
        if len({id(part) for part in self._parts.values()}) != len(self._parts):
            raise CannotUnpack("two parts are one object here")
        if set(paths) != set(self._parts):
            raise CannotUnpack("the parts are others")
        for path, table, number in zip(paths, tables, numbers, strict=True):
            part = self._parts[path]
            if type(part) is not self._kinds[table]:
                raise CannotUnpack(f"{path} is of another class")
            self._tables[table][number] = part

    def _make(self, kind: type[Any], table: list[Any], chunks: list[_Reader]) -> None:
        """Make what cannot be made empty and filled later, before anything points at it."""
        if kind not in MADE_LATER:
            return
        at = 0
        for chunk in chunks:
            start, count = chunk.at, chunk.count()
            made: list[Any]
            if kind is np.ndarray:
                made = [_array_of(chunk.block()) for _ in range(count)]
            elif kind is deque:
                made = [deque(maxlen=most) for most in self.column(chunk.block())]
            else:
                made = list(map(frozenset, self._items(chunk)))
            table[at : at + count] = made
            at += count
            chunk.at = start

    def _fill(self, kind: type[Any], table: list[Any], chunks: list[_Reader]) -> None:
        at = 0
        for chunk in chunks:
            count = chunk.count()
            objects = table[at : at + count]
            if kind is dict or kind is OrderedDict:
                lengths = self.column(chunk.block())
                _fill_dicts(objects, lengths, self.column(chunk.block()), self.column(chunk))
            elif kind is deque:
                chunk.block()
                _run(map(deque.extend, objects, self._items(chunk)))
            elif kind is list:
                _run(map(list.extend, objects, self._items(chunk)))
            elif kind is set:
                _run(map(set.update, objects, self._items(chunk)))
            elif kind not in MADE_LATER:
                self._set_fields(kind, objects, chunk)
            at += count
        if at != len(table):
            raise CannotUnpack("objects are missing")

    def _set_fields(self, kind: type[Any], objects: list[Any], chunk: _Reader) -> None:
        slots = set(slots_of(kind))
        for name in chunk.texts():
            values = self.column(chunk.block())
            if len(values) != len(objects):
                raise CannotUnpack(f"{class_name(kind)}.{name} has another number of values")
            if name in slots:
                put: Callable[[Any, Any], None] = getattr(kind, name).__set__
                _run(map(put, objects, values))
            else:
                for each, value in zip(objects, values, strict=True):
                    vars(each)[name] = value

    def _items(self, chunk: _Reader) -> list[list[Any]]:
        lengths = self.column(chunk.block())
        items = iter(self.column(chunk))
        return [list(islice(items, length)) for length in lengths]

    def column(self, reader: _Reader) -> list[Any]:
        """A column that takes up a whole block."""
        found = self._column_of(reader)
        if reader.at != len(reader.data):
            raise CannotUnpack("a column goes on")
        return found

    def _column_of(self, reader: _Reader) -> list[Any]:
        tag, count = reader.take(1)[0], reader.count()
        if tag == NONE:
            return [None] * count
        if tag == BOOL:
            return list(map(bool, reader.take(count)))
        if tag in (INT, BIG):
            return _ints_of(tag, count, reader)
        if tag == FIXED:
            return _fixed_of(count, reader)
        if tag == COMMON:
            return self._common_of(reader.count(), count)
        if tag == CHOSEN:
            few = self.column(reader.block())
            return list(map(few.__getitem__, self._column_of(reader)))
        if tag == BYTES:
            lengths = self.column(reader.block())
            data = bytes(reader.take(sum(lengths)))
            ends = np.cumsum(lengths).tolist()
            return [data[end - length : end] for end, length in zip(ends, lengths, strict=True)]
        if tag == TEXT:
            return self._named(reader)
        if tag == ENUM:
            kind: Any = class_named(reader.text())
            names = reader.block().texts()
            members = [kind.__members__[name] for name in names]
            return [members[number] for number in self._column_of(reader)]
        if tag == OUTSIDE:
            return [self._outside[name] for name in self._named(reader)]
        if tag == REF:
            table = self._tables[reader.count()]
            return list(map(table.__getitem__, self._column_of(reader)))
        if tag == TUPLE:
            return self._tuples(reader, count)
        if tag == MIXED:
            return self._mixed(reader, count)
        raise CannotUnpack(f"a column of kind {tag}")

    def _common_of(self, number: int, count: int) -> list[bytes]:
        found = self._common[number]
        if isinstance(found, _Reader):
            reader = found
            found = self._common[number] = _fixed_of(reader.count(), reader)
            if reader.at != len(reader.data):
                raise CannotUnpack("a column goes on")
        if len(found) != count:
            raise CannotUnpack("a common column has another length")
        return found

    def _named(self, reader: _Reader) -> list[str]:
        names = reader.block().texts()
        return list(map(names.__getitem__, self._column_of(reader)))

    def _tuples(self, reader: _Reader, count: int) -> list[Any]:
        lengths = self.column(reader.block())
        if len(lengths) == 1:
            columns = [self.column(reader.block()) for _ in range(lengths[0])]
            return list(zip(*columns, strict=True)) if columns else [()] * count
        items = iter(self._column_of(reader))
        return [tuple(islice(items, length)) for length in lengths]

    def _mixed(self, reader: _Reader, count: int) -> list[Any]:
        parts = reader.take(1)[0]
        chosen = reader.block().data
        columns = [iter(self.column(reader.block())) for _ in range(parts)]
        if len(chosen) != count:
            raise CannotUnpack("a mixed column has another length")
        found = list(map(next, map(columns.__getitem__, chosen)))
        if len(found) != count:
            raise CannotUnpack("a mixed column ends too soon")
        return found


def _fill_dicts(objects: list[Any], lengths: list[int], keys: list[Any], values: list[Any]) -> None:
    """Fill dicts, one after the other, from the columns of all their keys and values."""
    if sum(lengths) != len(keys) or len(keys) != len(values):
        raise CannotUnpack("a dict has another number of items")
    if len(objects) == 1:
        objects[0].update(zip(keys, values, strict=True))
        return
    at = 0
    for each, length in zip(objects, lengths, strict=True):
        if length == 1:
            each[keys[at]] = values[at]
        elif length:
            each.update(zip(keys[at : at + length], values[at : at + length], strict=True))
        at += length


def _fixed_of(count: int, reader: _Reader) -> list[bytes]:
    """Values of one length."""
    length = reader.count()
    if length == 0:
        return [b""] * count
    found: list[bytes] = np.frombuffer(reader.take(length * count), f"V{length}").tolist()
    return found


def _ints_of(tag: int, count: int, reader: _Reader) -> list[int]:
    if tag == BIG:
        width = reader.count()
        data = bytes(reader.take(width * count))
        return [
            int.from_bytes(data[at : at + width], "little", signed=True)
            for at in range(0, width * count, width)
        ]
    low = int.from_bytes(reader.take(8), "little", signed=True)
    width = reader.take(1)[0]
    if width == 0xFF:
        return [low] * count
    kind = np.dtype(WIDTHS[width])
    above = np.frombuffer(reader.take(count * kind.itemsize), kind).astype(np.int64)
    found: list[int] = (above + low).tolist()
    return found


def _array_of(reader: _Reader) -> Any:
    kind = reader.text()
    if kind not in DTYPES:
        raise CannotUnpack(f"an array of {kind}")
    shape = reader.block().data
    sizes = [COUNT.unpack_from(shape, at)[0] for at in range(0, len(shape), 4)]
    rest = reader.take(len(reader.data) - reader.at)
    return np.frombuffer(rest, np.dtype(kind)).reshape(sizes).copy()


def unpack(data: bytes, *, outside: Mapping[str, Any], parts: Mapping[str, Any]) -> dict[str, Any]:
    """The root that ``pack`` was given. Raises ``CannotUnpack``; then ``parts`` are of no use."""
    try:
        return _Unpacking(outside, parts).run(data)
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        StopIteration,
        TypeError,
        ValueError,
        struct.error,
    ) as error:
        raise CannotUnpack(f"{type(error).__name__}: {error}") from error
