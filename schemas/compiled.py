"""Readers and writers of the Avro binary encoding, made as Python source for one record each.

Why not a library at run time: fastavro's C goes through dictionaries and a file object, so that
reading into records costs as much as here and writing twice as much; and it is not strict (it
writes 1.9 into a long as 1, reads numbers beyond 64 bits and ignores trailing bytes). The tests
hold both equal on the same bytes.

Strict means: a value of exactly the declared type; text that is UTF-8; booleans 0 or 1; known
branches and symbols; numbers within 64 bits in their shortest form; no array longer than the bytes
that are left could fill. Arrays may come in several blocks and with block sizes, as some producers
write them. What is read takes memory in proportion to the bytes, and no input recurses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

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
    Text,
    Widths,
    least_bytes,
    members,
)
from schemas.longs import SHORT, Malformed, read_column, read_long, varint, write_column


class Trailing(Malformed):
    """A whole record, and so many bytes after it."""

    def __init__(self, left: int) -> None:
        super().__init__(f"{left} bytes after the record")
        self.left = left


class TooLong(Malformed):
    """An array that says it has more items than the bytes could hold."""


def open_block(data: bytes, at: int, end: int, least: int) -> tuple[int, int, int]:
    """Count of the next block of an array, where its items start, and where they must end or -1."""
    count, at = read_long(data, at)
    stop = -1
    if count < 0:
        count = -count
        size, at = read_long(data, at)
        stop = at + size
        if size < 0 or stop > end:
            raise Malformed("a block is longer than the record")
    if count > (end - at) // least:
        raise TooLong("an array has more items than the bytes could hold")
    return count, at, stop


@dataclass(frozen=True, slots=True)
class Compiled:
    """The two functions of one record type."""

    write: Callable[[Any], bytes]
    read: Callable[[bytes], Any]
    source: str


class Compiler:
    """Compiles record types on demand; nested records are compiled once and shared."""

    def __init__(self, widths: Widths) -> None:
        self._widths = widths
        self._done: dict[type[Any], Compiled] = {}
        self._names: dict[str, Any] = {
            "Malformed": Malformed,
            "SHORT": SHORT,
            "varint": varint,
            "read_long": read_long,
            "read_column": read_column,
            "write_column": write_column,
            "open_block": open_block,
            "new": object.__new__,
            "wrong": wrong,
        }

    def compiled(self, cls: type[Any]) -> Compiled:
        """The functions of a record type; raises ``Underivable`` where it has no schema."""
        if cls not in self._done:
            self._done[cls] = self._compile(cls)
        return self._done[cls]

    def _compile(self, cls: type[Any]) -> Compiled:
        lines = [*self._writer(cls), *self._reader(cls)]
        source = "\n".join(lines) + "\n"
        made = compile(source, f"<avro {cls.NAME}>", "exec")
        exec(made, self._names)  # noqa: S102  # The source comes from declared records alone.
        return Compiled(
            write=_checked(self._names[f"write_{self._id(cls)}"]),
            read=_whole(self._names[f"read_{self._id(cls)}"]),
            source=source,
        )

    def _id(self, cls: type[Any]) -> str:
        """A name for a class within the generated source, made known there."""
        name = getattr(cls, "NAME", f"{cls.__module__}.{cls.__qualname__}").replace(".", "_")
        known = self._names.setdefault(name, cls)
        if known is not cls:
            raise Malformed(f"two types are called {name}")
        return name

    # Writing: every value becomes an expression of bytes; a record joins them once.

    def _writer(self, cls: type[Any]) -> Iterator[str]:
        name = self._id(cls)
        body: list[str] = []
        parts: list[str] = []
        for index, member in enumerate(members(cls, self._widths)):
            value = f"v{index}"
            body.append(f"{value} = record.{member.name}")
            parts += self._write(member.shape, value, f"{cls.__name__}.{member.name}", body)
        yield f"def write_{name}(record):"
        yield f"    if type(record) is not {name}: wrong({cls.__name__!r}, record)"
        yield from _indent(body, 1)
        yield f"    return b''.join(({', '.join(parts)}{',' if parts else ''}))"

    def _write(self, shape: Shape, value: str, where: str, body: list[str]) -> list[str]:
        """Append the checks of ``value`` to the body; return the expressions of its bytes."""
        fail = f"wrong({where!r}, {value})"
        if isinstance(shape, Fixed) and shape.integer:
            limit = 1 << (shape.size * 8 - 1)
            body.append(f"if type({value}) is not int or not {-limit} <= {value} < {limit}: {fail}")
            return [f"{value}.to_bytes({shape.size}, 'big', signed=True)"]
        if isinstance(shape, Fixed):
            body.append(f"if type({value}) is not bytes or len({value}) != {shape.size}: {fail}")
            return [value]
        if isinstance(shape, Long):
            body.append(f"if type({value}) is not int: {fail}")
            return [f"SHORT[{value}] if 0 <= {value} < 8192 else varint({value})"]
        if isinstance(shape, Boolean):
            body.append(f"if type({value}) is not bool: {fail}")
            return [f"b'\\x01' if {value} else b'\\x00'"]
        if isinstance(shape, Octets):
            body += [f"if type({value}) is not bytes: {fail}", f"{value}n = len({value})"]
            return [f"SHORT[{value}n] if {value}n < 8192 else varint({value}n)", value]
        if isinstance(shape, Text):
            body += [
                f"if type({value}) is not str: {fail}",
                f"{value}b = {value}.encode()",
                f"{value}n = len({value}b)",
            ]
            return [f"SHORT[{value}n] if {value}n < 8192 else varint({value}n)", f"{value}b"]
        if isinstance(shape, Choice):
            name = self._id(shape.cls)
            self._names[f"{name}_bytes"] = {
                member.value: varint(index) for index, member in enumerate(shape.cls)
            }
            body.append(f"if type({value}) is not {name}: {fail}")
            return [f"{name}_bytes[{value}._value_]"]
        if isinstance(shape, Nested):
            self.compiled(shape.cls)
            return [f"write_{self._id(shape.cls)}({value})"]
        inner: list[str] = []
        if isinstance(shape, Maybe):
            parts = self._write(shape.inner, value, where, inner)
            body += [f"if {value} is None: {value}m = b'\\x00'", "else:", *_indent(inner, 1)]
            body.append(f"    {value}m = b''.join((b'\\x02', {', '.join(parts)}))")
            return [f"{value}m"]
        body.append(f"if type({value}) is not tuple: {fail}")
        if isinstance(shape.item, Long):
            body += [
                f"if {value} and set(map(type, {value})) != {{int}}: {fail}",
                f"{value}a = varint(len({value})) + write_column({value}) if {value} else b''",
            ]
            return [f"{value}a", "b'\\x00'"]
        parts = self._write(shape.item, f"{value}i", where, inner)
        body += [
            f"{value}a = [varint(len({value}))] if {value} else []",
            f"for {value}i in {value}:",
            *_indent(inner, 1),
            *(f"    {value}a.append({part})" for part in parts),
            f"{value}a.append(b'\\x00')",
        ]
        return [f"b''.join({value}a)"]

    # Reading: a cursor ``p`` over ``data``. A slice may run past the end, which shortens it; the
    # cursor is then past the end too, so one comparison at the end of the record finds it.

    def _reader(self, cls: type[Any]) -> Iterator[str]:
        name = self._id(cls)
        body: list[str] = []
        made: list[str] = []
        for index, member in enumerate(members(cls, self._widths)):
            self._names[f"{name}_set{index}"] = cls.__dict__[member.name].__set__
            self._read(member.shape, f"v{index}", f"{cls.__name__}.{member.name}", body)
            made.append(f"{name}_set{index}(made, v{index})")
        yield f"def read_{name}(data, p, end):"
        yield from _indent(body, 1)
        yield f"    made = new({name})"
        yield from _indent(made, 1)
        yield "    return made, p"

    def _number(self, value: str) -> list[str]:
        return [
            f"{value} = data[p]",
            f"if {value} < 128: {value} = ({value} >> 1) ^ -({value} & 1); p += 1",
            "elif 0 < (high := data[p + 1]) < 128:",
            f"    {value} = ({value} & 127) >> 1 ^ high << 6 ^ -({value} & 1); p += 2",
            f"else: {value}, p = read_long(data, p)",
        ]

    def _length(self, value: str, where: str) -> list[str]:
        return [
            *self._number(f"{value}n"),
            f"if {value}n < 0: wrong({where!r}, {value}n)",
            f"{value}n += p",
        ]

    def _read(self, shape: Shape, value: str, where: str, body: list[str]) -> None:
        """Append the statements that read one value into the variable ``value``."""
        if isinstance(shape, Fixed):
            cut = f"data[p:p + {shape.size}]"
            if shape.integer:
                cut = f"int.from_bytes({cut}, 'big', signed=True)"
            body += [f"{value} = {cut}", f"p += {shape.size}"]
        elif isinstance(shape, Long):
            body += self._number(value)
        elif isinstance(shape, Boolean):
            body += [
                f"{value} = data[p]",
                f"if {value} > 1: wrong({where!r}, {value})",
                f"{value} = {value} == 1",
                "p += 1",
            ]
        elif isinstance(shape, Octets):
            body += [*self._length(value, where), f"{value} = data[p:{value}n]", f"p = {value}n"]
        elif isinstance(shape, Text):
            cut = f"str(data[p:{value}n], 'utf-8')"
            body += [*self._length(value, where), f"{value} = {cut}", f"p = {value}n"]
        elif isinstance(shape, Choice):
            name = self._id(shape.cls)
            self._names[f"{name}_members"] = dict(enumerate(shape.cls))
            body += [
                *self._number(f"{value}n"),
                f"{value} = {name}_members.get({value}n)",
                f"if {value} is None: wrong({where!r}, {value}n)",
            ]
        elif isinstance(shape, Nested):
            self.compiled(shape.cls)
            body.append(f"{value}, p = read_{self._id(shape.cls)}(data, p, end)")
        elif isinstance(shape, Maybe):
            inner: list[str] = []
            self._read(shape.inner, value, where, inner)
            body += [
                f"{value}m = data[p]",
                "p += 1",
                f"if {value}m == 2:",
                *_indent(inner, 1),
                f"elif {value}m == 0: {value} = None",
                f"else: wrong({where!r}, {value}m)",
            ]
        else:
            self._read_array(shape, value, where, body)

    def _read_array(self, shape: Array, value: str, where: str, body: list[str]) -> None:
        inner: list[str] = []
        if isinstance(shape.item, Long):
            inner += [
                f"{value}i, p = read_column(data, p, end, {value}c)",
                f"{value}a += {value}i",
            ]
        else:
            inner.append(f"for _ in range({value}c):")
            items: list[str] = []
            self._read(shape.item, f"{value}i", where, items)
            inner += _indent([*items, f"{value}a.append({value}i)"], 1)
        least = least_bytes(shape.item, self._widths)
        body += [
            f"{value}a = []",
            "while data[p]:",
            f"    {value}c, p, {value}s = open_block(data, p, end, {least})",
            *_indent(inner, 1),
            f"    if {value}s >= 0 and p != {value}s: wrong({where!r}, {value}s)",
            "p += 1",
            f"{value} = tuple({value}a)",
        ]


def wrong(where: str, value: object) -> None:
    """Raise ``Malformed`` for a value that the type of the field does not have."""
    length = f" of length {len(value)}" if isinstance(value, (bytes, str, tuple, list)) else ""
    raise Malformed(f"{where}: this {type(value).__name__}{length} is out of its type")


def _indent(lines: list[str], depth: int) -> list[str]:
    return ["    " * depth + line for line in lines]


def _checked(write: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    """A writer whose only exception is ``Malformed``."""

    def checked(record: Any) -> bytes:
        try:
            return write(record)
        except UnicodeEncodeError:
            raise Malformed("a text has no UTF-8 form") from None

    return checked


def _whole(read: Callable[[bytes, int, int], tuple[Any, int]]) -> Callable[[bytes], Any]:
    """A reader of exactly one record, whose only exception is ``Malformed``."""

    def whole(data: bytes) -> Any:
        if type(data) is not bytes:
            wrong("record", data)
        end = len(data)
        try:
            made, at = read(data, 0, end)
        except IndexError:
            raise Malformed("the record goes on beyond the bytes") from None
        except UnicodeDecodeError:
            raise Malformed("a text is not UTF-8") from None
        if at > end:
            raise Malformed("the record goes on beyond the bytes")
        if at < end:
            raise Trailing(end - at)
        return made

    return whole
