"""A graph of plain objects as columns of bytes: what a snapshot's inside is made of.

Objects are grouped by class and each field becomes one column, so that a hundred thousand leases
are some forty packed columns and not four million values. Packing and unpacking run in C.

Bytes from a data folder are not executed: unpacking makes objects of the classes of ``domain`` and
``projections`` that this program has loaded, without calling any code of theirs, and containers.
What is shared stays shared, cycles included. The order of dicts is kept; sets are sorted, so that
the same objects always give the same bytes.
"""

from __future__ import annotations

import operator
import struct
import sys
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from itertools import chain, islice
from typing import Any, Final

import numpy as np

PACKAGES: Final = ("domain.", "projections.")

_NONE, _BOOL, _INT, _BIG, _FIXED, _BYTES, _TEXT, _ENUM, _OUTSIDE, _REF, _TUPLE, _MIXED = range(12)
_WIDTHS: Final = ("<u1", "<u2", "<u4", "<u8")
_COUNT: Final = struct.Struct("<I")
_ROOT: Final = "root"
_CONTAINERS: Final[Mapping[str, type[Any]]] = {
    "dict": dict,
    "ordered": OrderedDict,
    "list": list,
    "deque": deque,
    "set": set,
    "frozenset": frozenset,
    "array": np.ndarray,
}
_NAMES: Final = {kind: name for name, kind in _CONTAINERS.items()}
#: What cannot be made empty and filled later: it is made before anything points at it.
_MADE_LATER: Final = frozenset((np.ndarray, deque, frozenset))
_DTYPES: Final = frozenset(("<i8", "<i4", "<u8", "<u4", "|u1", "|i1", "|b1", "<i2", "<u2"))
_VALUES: Final = (tuple, int, bytes, str)
_EXHAUST: Final = deque[Any](maxlen=0)


class CannotPack(Exception):
    """The graph holds something that has no place in a snapshot; the text names it."""


class CannotUnpack(Exception):
    """The bytes are not what ``pack`` made of a graph that this program knows."""


Skipped = Mapping[type[Any], frozenset[str]]


def _run(calls: Iterable[Any]) -> None:
    """Exhaust an iterator in C."""
    _EXHAUST.extend(calls)


def class_name(kind: type[Any]) -> str:
    """The name of a class of the program."""
    return f"{kind.__module__}:{kind.__qualname__}"


def _ours(kind: type[Any]) -> bool:
    return kind.__module__.startswith(PACKAGES)


def _class_named(name: str) -> type[Any]:
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


# Packing


class _Table:
    """All objects of one kind, in the order in which they were found."""

    __slots__ = ("chunks", "done", "numbers", "objects")

    def __init__(self) -> None:
        self.objects: list[Any] = []
        self.numbers: dict[int, int] = {}
        self.done = 0
        self.chunks: list[bytes] = []


class _Packing:
    """One graph on its way to bytes."""

    def __init__(self, outside: Mapping[str, Any], parts: Mapping[str, Any], skip: Skipped) -> None:
        self._outside = {id(thing): name for name, thing in outside.items()}
        self._outside_types = {type(thing) for thing in outside.values()}
        self._skip = skip
        self._tables: dict[type[Any], _Table] = {}
        self._order: dict[type[Any], int] = {}
        self._parts = dict(parts)

    def run(self, root: Mapping[str, Any]) -> bytes:
        """The root's values and everything that can be reached from them."""
        placed = []
        for path, part in self._parts.items():
            (number,) = self._numbers(type(part), [part])
            placed.append((path, self._order[type(part)], number))
        top = [_text_block(list(root)), self._column(list(root.values()))]
        while True:
            open_ = [
                kind for kind, table in self._tables.items() if table.done < len(table.objects)
            ]
            if not open_:
                break
            for kind in open_:
                table = self._tables[kind]
                fresh = table.objects[table.done :]
                table.done = len(table.objects)
                table.chunks.append(self._chunk(kind, fresh))
        out = [_COUNT.pack(len(self._tables))]
        for kind, table in self._tables.items():
            out.append(_block(_NAMES.get(kind, "") or class_name(kind)))
            out.append(_COUNT.pack(len(table.objects)))
            out.append(_COUNT.pack(len(table.chunks)))
            out += map(_block, table.chunks)
        out.append(_text_block([path for path, _, _ in placed]))
        out.append(_ints([table for _, table, _ in placed]))
        out.append(_ints([number for _, _, number in placed]))
        out += map(_block, top)
        return b"".join(out)

    def _numbers(self, kind: type[Any], objects: Sequence[Any]) -> list[int]:
        table = self._tables.get(kind)
        if table is None:
            if kind not in _NAMES and (
                not _ours(kind) or issubclass(kind, (tuple, int, bytes, str))
            ):
                raise CannotPack(f"{class_name(kind)} is nothing that a snapshot can hold")
            self._order[kind] = len(self._tables)
            table = self._tables[kind] = _Table()
        known, found = table.numbers, table.objects
        numbers = []
        for each in objects:
            number = known.get(id(each))
            if number is None:
                known[id(each)] = number = len(found)
                found.append(each)
            numbers.append(number)
        return numbers

    def _chunk(self, kind: type[Any], objects: list[Any]) -> bytes:
        head = _COUNT.pack(len(objects))
        if kind is dict or kind is OrderedDict:
            keys = self._column(list(chain.from_iterable(objects)))
            values = self._column(list(chain.from_iterable(each.values() for each in objects)))
            return b"".join((head, _block(_ints(list(map(len, objects)))), _block(keys), values))
        if kind is deque:
            most = self._column([each.maxlen for each in objects])
            return b"".join((head, _block(most), self._items(objects)))
        if kind is list:
            return head + self._items(objects)
        if kind is set or kind is frozenset:
            return head + self._items([sorted(each) for each in objects])
        if kind is np.ndarray:
            return head + b"".join(map(_block, map(_array, objects)))
        return head + self._fields(kind, objects)

    def _items(self, objects: Sequence[Sequence[Any]]) -> bytes:
        lengths = _block(_ints(list(map(len, objects))))
        return lengths + self._column(list(chain.from_iterable(objects)))

    def _fields(self, kind: type[Any], objects: list[Any]) -> bytes:
        skip = skipped_of(kind, self._skip)
        slots = [name for name in slots_of(kind) if name not in skip]
        columns: list[tuple[str, list[Any]]] = []
        try:
            columns += [(name, list(map(operator.attrgetter(name), objects))) for name in slots]
        except AttributeError as error:
            raise CannotPack(f"{class_name(kind)}: {error}") from error
        if hasattr(objects[0], "__dict__"):
            names = [name for name in vars(objects[0]) if name not in skip]
            for each in objects:
                if [name for name in vars(each) if name not in skip] != names:
                    raise CannotPack(f"objects of {class_name(kind)} have different fields")
            columns += [(name, [vars(each)[name] for each in objects]) for name in names]
        out = [_text_block([name for name, _ in columns])]
        for name, values in columns:
            try:
                out.append(_block(self._column(values)))
            except CannotPack as error:
                raise CannotPack(f"{class_name(kind)}.{name}: {error}") from error
        return b"".join(out)

    def _column(self, values: list[Any]) -> bytes:
        kinds = dict.fromkeys(map(type, values))
        if len(kinds) > 1:
            return self._mixed(values, list(kinds))
        head = _COUNT.pack(len(values))
        if not values:
            return bytes((_NONE,)) + head
        (kind,) = kinds
        if kind is type(None):
            return bytes((_NONE,)) + head
        if kind is bool:
            return bytes((_BOOL,)) + head + bytes(values)
        if kind is int:
            return _ints(values)
        if kind is bytes:
            return _bytes(values)
        if kind is str:
            return bytes((_TEXT,)) + head + self._named(values)
        if kind is tuple:
            return bytes((_TUPLE,)) + head + self._tuples(values)
        if kind in self._outside_types and any(id(each) in self._outside for each in values):
            return self._outsiders(values)
        if issubclass(kind, Enum) and _ours(kind):
            names = self._named([each.name for each in values])
            return b"".join((bytes((_ENUM,)), head, _block(class_name(kind)), names))
        numbers = self._numbers(kind, values)
        table = _COUNT.pack(self._order[kind])
        return b"".join((bytes((_REF,)), head, table, _ints(numbers)))

    def _named(self, values: list[str]) -> bytes:
        distinct = {each: number for number, each in enumerate(dict.fromkeys(values))}
        return _block(_text_block(list(distinct))) + _ints([distinct[each] for each in values])

    def _tuples(self, values: list[tuple[Any, ...]]) -> bytes:
        lengths = list(map(len, values))
        width = lengths[0]
        if lengths.count(width) == len(values):
            columns = [_block(self._column(list(column))) for column in zip(*values, strict=True)]
            return b"".join((_block(_ints([width])), *columns))
        return _block(_ints(lengths)) + self._column(list(chain.from_iterable(values)))

    def _outsiders(self, values: list[Any]) -> bytes:
        """Things that the other side has already: they stand here by their names."""
        names = [self._outside.get(id(each)) for each in values]
        if None in names:
            # Some are of the graph: told apart as if they were of two types.
            chosen = bytes(name is None for name in names)
            outer = self._outsiders([v for v, name in zip(values, names, strict=True) if name])
            kind = type(values[0])
            inner = [v for v, name in zip(values, names, strict=True) if not name]
            numbers = self._numbers(kind, inner)
            refs = b"".join(
                (
                    bytes((_REF,)),
                    _COUNT.pack(len(inner)),
                    _COUNT.pack(self._order[kind]),
                    _ints(numbers),
                )
            )
            return _several(len(values), chosen, [outer, refs])
        known = [name for name in names if name is not None]
        return bytes((_OUTSIDE,)) + _COUNT.pack(len(values)) + self._named(known)

    def _mixed(self, values: list[Any], kinds: list[type[Any]]) -> bytes:
        if len(kinds) > 255:
            raise CannotPack("more than 255 types in one column")
        place = {kind: number for number, kind in enumerate(kinds)}
        parts: list[list[Any]] = [[] for _ in kinds]
        chosen = bytearray()
        for each in values:
            number = place[type(each)]
            chosen.append(number)
            parts[number].append(each)
        return _several(len(values), bytes(chosen), [self._column(part) for part in parts])


def _several(count: int, chosen: bytes, parts: list[bytes]) -> bytes:
    head = (bytes((_MIXED,)), _COUNT.pack(count), bytes((len(parts),)), _block(chosen))
    return b"".join((*head, *map(_block, parts)))


def _block(data: bytes | str) -> bytes:
    raw = data.encode() if isinstance(data, str) else data
    return _COUNT.pack(len(raw)) + raw


def _text_block(values: Sequence[str]) -> bytes:
    return _COUNT.pack(len(values)) + b"".join(map(_block, values))


def _ints(values: list[int]) -> bytes:
    """Whole numbers: the least, and how far each is above it, as narrow as they go."""
    head = _COUNT.pack(len(values))
    if not values:
        return bytes((_NONE,)) + head
    low, high = min(values), max(values)
    if low < -(2**63) or high >= 2**63 or high - low >= 2**63:
        widest = max(low.bit_length(), high.bit_length()) // 8 + 1
        data = b"".join(each.to_bytes(widest, "little", signed=True) for each in values)
        return b"".join((bytes((_BIG,)), head, _COUNT.pack(widest), data))
    span = high - low
    base = bytes((_INT,)) + head + low.to_bytes(8, "little", signed=True)
    if span == 0:
        return base + b"\xff"
    width = next(i for i, bits in enumerate((8, 16, 32, 64)) if span < 1 << bits)
    above = np.array(values, dtype=np.int64) - low
    return base + bytes((width,)) + above.astype(_WIDTHS[width]).tobytes()


def _bytes(values: list[bytes]) -> bytes:
    head = _COUNT.pack(len(values))
    length = len(values[0])
    data = b"".join(values)
    lengths = list(map(len, values))
    if lengths.count(length) == len(values):
        return b"".join((bytes((_FIXED,)), head, _COUNT.pack(length), data))
    return b"".join((bytes((_BYTES,)), head, _block(_ints(lengths)), data))


def _array(found: Any) -> bytes:
    kind = found.dtype.str
    if kind not in _DTYPES:
        raise CannotPack(f"an array of {kind}")
    shape = b"".join(map(_COUNT.pack, found.shape))
    return b"".join((_block(kind), _block(shape), np.ascontiguousarray(found).tobytes()))


def pack(
    root: Mapping[str, Any],
    *,
    outside: Mapping[str, Any],
    parts: Mapping[str, Any],
    skip: Skipped,
) -> bytes:
    """Bytes of everything that can be reached from ``root``.

    ``outside`` are things that whoever unpacks has, by name. ``parts`` are objects that it has too,
    and whose fields are to be set anew. ``skip`` names fields, by class, that are no content.
    Raises ``CannotPack``.
    """
    return _Packing(outside, parts, skip).run(root)


# Unpacking


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
        (found,) = _COUNT.unpack(self.take(4))
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

    def run(self, data: bytes) -> dict[str, Any]:
        reader = _Reader(memoryview(data))
        chunks: list[list[_Reader]] = []
        for _ in range(reader.count()):
            name = reader.text()
            kind = _CONTAINERS.get(name) or _class_named(name)
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
                if (kind in _NAMES) is containers:
                    self._fill(kind, table, parts)
        names = reader.block().texts()
        values = self.column(reader.block())
        if reader.at != len(reader.data) or len(names) != len(values):
            raise CannotUnpack("the bytes go on")
        return dict(zip(names, values, strict=True))

    def _empty(self, kind: type[Any], count: int) -> list[Any]:
        if kind in _MADE_LATER:
            return [None] * count
        if kind in _NAMES:
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
        if kind not in _MADE_LATER:
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
                keys, values = iter(self.column(chunk.block())), iter(self.column(chunk))
                for each, length in zip(objects, lengths, strict=True):
                    each.update(zip(islice(keys, length), islice(values, length), strict=True))
            elif kind is deque:
                chunk.block()
                _run(map(deque.extend, objects, self._items(chunk)))
            elif kind is list:
                _run(map(list.extend, objects, self._items(chunk)))
            elif kind is set:
                _run(map(set.update, objects, self._items(chunk)))
            elif kind not in _MADE_LATER:
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
        if tag == _NONE:
            return [None] * count
        if tag == _BOOL:
            return list(map(bool, reader.take(count)))
        if tag in (_INT, _BIG):
            return _ints_of(tag, count, reader)
        if tag == _FIXED:
            length = reader.count()
            if length == 0:
                return [b""] * count
            data = bytes(reader.take(length * count))
            return [data[at : at + length] for at in range(0, length * count, length)]
        if tag == _BYTES:
            lengths = self.column(reader.block())
            data = bytes(reader.take(sum(lengths)))
            ends = np.cumsum(lengths).tolist()
            return [data[end - length : end] for end, length in zip(ends, lengths, strict=True)]
        if tag == _TEXT:
            return self._named(reader)
        if tag == _ENUM:
            kind: Any = _class_named(reader.text())
            names = reader.block().texts()
            members = [kind.__members__[name] for name in names]
            return [members[number] for number in self._column_of(reader)]
        if tag == _OUTSIDE:
            return [self._outside[name] for name in self._named(reader)]
        if tag == _REF:
            table = self._tables[reader.count()]
            return list(map(table.__getitem__, self._column_of(reader)))
        if tag == _TUPLE:
            return self._tuples(reader, count)
        if tag == _MIXED:
            return self._mixed(reader, count)
        raise CannotUnpack(f"a column of kind {tag}")

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
        return [next(columns[number]) for number in chosen]


def _ints_of(tag: int, count: int, reader: _Reader) -> list[int]:
    if tag == _BIG:
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
    kind = np.dtype(_WIDTHS[width])
    above = np.frombuffer(reader.take(count * kind.itemsize), kind).astype(np.int64)
    found: list[int] = (above + low).tolist()
    return found


def _array_of(reader: _Reader) -> Any:
    kind = reader.text()
    if kind not in _DTYPES:
        raise CannotUnpack(f"an array of {kind}")
    shape = reader.block().data
    sizes = [_COUNT.unpack_from(shape, at)[0] for at in range(0, len(shape), 4)]
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
