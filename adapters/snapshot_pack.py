"""A graph of plain objects into columns of bytes; ``snapshot_unpack`` is the reverse."""

from __future__ import annotations

import operator
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from itertools import chain, count
from typing import Any, Final

import numpy as np

from adapters.snapshot_columns import (
    BIG,
    BOOL,
    BYTES,
    CHOSEN,
    COMMON,
    COUNT,
    DTYPES,
    ENUM,
    FIXED,
    INT,
    LARGE,
    MIXED,
    NAMES,
    NONE,
    OUTSIDE,
    REF,
    SAMPLE,
    TEXT,
    TUPLE,
    WIDTHS,
    CannotPack,
    Skipped,
    class_name,
    is_ours,
    skipped_of,
    slots_of,
)

_VALUES: Final = (tuple, int, bytes, str)


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
        self._common: dict[bytes, int] = {}

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
                table.chunks += [self._chunk(kind, part) for part in _parts(kind, fresh)]
        out = [COUNT.pack(len(self._common))]
        out += map(_block, self._common)
        out.append(COUNT.pack(len(self._tables)))
        for kind, table in self._tables.items():
            out.append(_block(NAMES.get(kind, "") or class_name(kind)))
            out.append(COUNT.pack(len(table.objects)))
            out.append(COUNT.pack(len(table.chunks)))
            out += map(_block, table.chunks)
        out.append(_text_block([path for path, _, _ in placed]))
        out.append(_ints([table for _, table, _ in placed]))
        out.append(_ints([number for _, _, number in placed]))
        out += map(_block, top)
        return b"".join(out)

    def _numbers(self, kind: type[Any], objects: Sequence[Any]) -> list[int]:
        table = self._tables.get(kind)
        if table is None:
            if kind not in NAMES and (
                not is_ours(kind) or issubclass(kind, (tuple, int, bytes, str))
            ):
                raise CannotPack(f"{class_name(kind)} is nothing that a snapshot can hold")
            self._order[kind] = len(self._tables)
            table = self._tables[kind] = _Table()
        known, found = table.numbers, table.objects
        ids = list(map(id, objects))
        fresh = dict(zip(ids, objects, strict=True))
        if known:
            fresh = {key: each for key, each in fresh.items() if key not in known}
        known.update(zip(fresh, count(len(found)), strict=False))
        found.extend(fresh.values())
        return list(map(known.__getitem__, ids))

    def _chunk(self, kind: type[Any], objects: list[Any]) -> bytes:
        head = COUNT.pack(len(objects))
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
        head = COUNT.pack(len(values))
        if not values:
            return bytes((NONE,)) + head
        kinds = list(map(type, values))
        kind = kinds[0]
        if kinds.count(kind) < len(kinds):
            return self._mixed(values, list(dict.fromkeys(kinds)))
        if kind is type(None):
            return bytes((NONE,)) + head
        if kind is bool:
            return bytes((BOOL,)) + head + bytes(values)
        if kind is int:
            return _ints(values)
        if kind is bytes:
            return self._bytes(values)
        if kind is str:
            return bytes((TEXT,)) + head + self._named(values)
        if kind is tuple:
            return bytes((TUPLE,)) + head + self._tuples(values)
        if kind in self._outside_types and any(id(each) in self._outside for each in values):
            return self._outsiders(values)
        if issubclass(kind, Enum) and is_ours(kind):
            # Members are one object each, and their own hash is slow.
            ids = list(map(id, values))
            members = {key: each.name for key, each in dict(zip(ids, values, strict=True)).items()}
            names = self._named(list(map(members.__getitem__, ids)))
            return b"".join((bytes((ENUM,)), head, _block(class_name(kind)), names))
        numbers = self._numbers(kind, values)
        table = COUNT.pack(self._order[kind])
        return b"".join((bytes((REF,)), head, table, _ints(numbers)))

    def _bytes(self, values: list[bytes]) -> bytes:
        head = COUNT.pack(len(values))
        if len(values) >= LARGE:
            sample = values[:SAMPLE]
            if len(set(sample)) * 2 <= len(sample):
                distinct = {each: number for number, each in enumerate(dict.fromkeys(values))}
                numbers = _ints([distinct[each] for each in values])
                few = _block(self._bytes(list(distinct)))
                return b"".join((bytes((CHOSEN,)), head, few, numbers))
        data = _fixed(values)
        if data is None:
            lengths = _block(_ints(list(map(len, values))))
            return b"".join((bytes((BYTES,)), head, lengths, *values))
        if len(values) < LARGE:
            return bytes((FIXED,)) + data
        number = self._common.setdefault(data, len(self._common))
        return b"".join((bytes((COMMON,)), head, COUNT.pack(number)))

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
                    bytes((REF,)),
                    COUNT.pack(len(inner)),
                    COUNT.pack(self._order[kind]),
                    _ints(numbers),
                )
            )
            return _several(len(values), chosen, [outer, refs])
        known = [name for name in names if name is not None]
        return bytes((OUTSIDE,)) + COUNT.pack(len(values)) + self._named(known)

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
    head = (bytes((MIXED,)), COUNT.pack(count), bytes((len(parts),)), _block(chosen))
    return b"".join((*head, *map(_block, parts)))


def _block(data: bytes | str) -> bytes:
    raw = data.encode() if isinstance(data, str) else data
    return COUNT.pack(len(raw)) + raw


def _text_block(values: Sequence[str]) -> bytes:
    return COUNT.pack(len(values)) + b"".join(map(_block, values))


def _ints(values: list[int]) -> bytes:
    """Whole numbers: the least, and how far each is above it, as narrow as they go."""
    head = COUNT.pack(len(values))
    if not values:
        return bytes((NONE,)) + head
    low, high = min(values), max(values)
    if low < -(2**63) or high >= 2**63 or high - low >= 2**63:
        wide = bytes(not -(2**62) <= each < 2**62 for each in values)
        if wide.count(1) * 2 < len(values):
            # A few sums of money among small ones: told apart as if they were of two types.
            several = [
                _ints([v for v, w in zip(values, wide, strict=True) if w == n]) for n in (0, 1)
            ]
            return _several(len(values), wide, several)
        widest = max(low.bit_length(), high.bit_length()) // 8 + 1
        data = b"".join(each.to_bytes(widest, "little", signed=True) for each in values)
        return b"".join((bytes((BIG,)), head, COUNT.pack(widest), data))
    span = high - low
    base = bytes((INT,)) + head + low.to_bytes(8, "little", signed=True)
    if span == 0:
        return base + b"\xff"
    width = next(i for i, bits in enumerate((8, 16, 32, 64)) if span < 1 << bits)
    above = np.array(values, dtype=np.int64) - low
    return base + bytes((width,)) + above.astype(WIDTHS[width]).tobytes()


def _fixed(values: list[bytes]) -> bytes | None:
    """Values of one length, or None."""
    length = len(values[0])
    if list(map(len, values)).count(length) != len(values):
        return None
    return b"".join((COUNT.pack(len(values)), COUNT.pack(length), *values))


def _parts(kind: type[Any], objects: list[Any]) -> Iterator[list[Any]]:
    """Objects in their order, cut so that a large container stands alone."""
    if kind not in NAMES or kind is np.ndarray:
        yield objects
        return
    small: list[Any] = []
    for each in objects:
        if len(each) < LARGE:
            small.append(each)
            continue
        if small:
            yield small
            small = []
        yield [each]
    if small:
        yield small


def _array(found: Any) -> bytes:
    kind = found.dtype.str
    if kind not in DTYPES:
        raise CannotPack(f"an array of {kind}")
    shape = b"".join(map(COUNT.pack, found.shape))
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
