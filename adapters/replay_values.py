"""What a mapping may say about a row: columns, constants, a little arithmetic, conditions.

No code and no names of data sets: a value is a column, a constant, or a sum, difference or product
of values. Figures are read as decimal text and become integers exactly: a time is cut to the
microsecond, everything else that is not whole in its unit is refused, never rounded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from decimal import ROUND_FLOOR, Context, Decimal, Inexact, InvalidOperation
from typing import Final

from domain.genesis import DAY_US, HOUR_US, MINUTE_US, SECOND_US

Row = Mapping[str, str]

#: Units of time, in µs.
TIMES: Final[Mapping[str, int]] = {
    "us": 1,
    "ms": 1000,
    "s": SECOND_US,
    "min": MINUTE_US,
    "h": HOUR_US,
    "d": DAY_US,
}
#: Units of amount: how many base units one is. ``milli``: devices or cores; ``nano``: SYNOR.
AMOUNTS: Final[Mapping[str, int]] = {"milli": 1000, "nano": 1_000_000_000}
#: A timestamp with a date: µs since the mapping's origin.
TIMESTAMP: Final = "timestamp"

#: More digits than any quantity, price or time has; what would be rounded is refused.
_DIGITS: Final = 60
_EXACTLY: Final = Context(prec=_DIGITS, traps=[InvalidOperation, Inexact])
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_STAMP: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[T ,]+(\d\d):(\d\d)(?::(\d\d)(?:[.,](\d+))?)?\s*(Z|[+-]\d\d:?\d\d)?"
)
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(us|ms|s|min|h|d)")


class ReplayRefused(Exception):
    """A mapping or a row that cannot be used; the text says where and what to do."""


def timestamp_us(text: str) -> int:
    """µs UTC of an ISO timestamp; without a zone it is UTC; digits beyond the µs are cut."""
    found = _STAMP.fullmatch(text.strip())
    if found is None:
        raise ReplayRefused(f"{text!r} is no timestamp like 2023-11-16 18:15:46.6805900")
    year, month, day, hour, minute, second, fraction, zone = found.groups()
    offset = UTC
    if zone not in (None, "Z"):
        sign = -1 if zone[0] == "-" else 1
        offset = timezone(sign * timedelta(hours=int(zone[1:3]), minutes=int(zone[-2:])))
    try:
        whole = datetime(
            int(year), int(month), int(day), int(hour), int(minute), int(second or 0), tzinfo=offset
        )
    except ValueError as error:
        raise ReplayRefused(f"{text!r}: {error}") from error
    since = whole - _EPOCH
    micro = int((fraction or "")[:6].ljust(6, "0"))
    return since.days * DAY_US + since.seconds * SECOND_US + micro


def duration_us(text: str) -> int:
    """µs of a duration such as ``90s``, ``1.5h`` or ``30 d``."""
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise ReplayRefused(f"{text!r} is no duration like 90s, 10min, 5h or 30d")
    return _whole(found[1], TIMES[found[2]], cut=False)


def _whole(text: str, factor: int, *, cut: bool) -> int:
    try:
        exact = _EXACTLY.multiply(Decimal(text.strip()), Decimal(factor))
    except (InvalidOperation, Inexact) as error:
        raise ReplayRefused(f"{text[:40]!r} is no number of a usual size") from error
    if not exact.is_finite() or exact.adjusted() > _DIGITS:
        raise ReplayRefused(f"{text[:40]!r} is no number of a usual size")
    floor = exact.to_integral_value(rounding=ROUND_FLOOR)
    if floor != exact and not cut:
        raise ReplayRefused(f"{text!r} times {factor} is not whole")
    return int(floor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """How text becomes an integer; ``origin_us`` is where timestamps are counted from."""

    name: str
    origin_us: int = 0

    def of(self, text: str) -> int:
        """The figure in base units. Raises ``ReplayRefused``."""
        if self.name == TIMESTAMP:
            return timestamp_us(text) - self.origin_us
        if self.name in TIMES:
            return _whole(text, TIMES[self.name], cut=True)
        return _whole(text, AMOUNTS.get(self.name, 1), cut=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column, or several joined by a space; ``table`` replaces what stands there."""

    names: tuple[str, ...]
    unit: Unit = Unit(name="")
    table: Mapping[str, str] | None = None
    otherwise: str | None = None

    def text(self, row: Row) -> str:
        """What stands in the row."""
        try:
            found = " ".join(row[name] for name in self.names)
        except KeyError as error:
            raise ReplayRefused(f"there is no column {error}; there are {sorted(row)}") from error
        if self.table is None:
            return found
        known = self.table.get(found, self.otherwise)
        if known is None:
            raise ReplayRefused(f"{found!r} is not in the table of column {self.names[0]}")
        return known

    def number(self, row: Row) -> int:
        """The figure in base units."""
        return self.unit.of(self.text(row))


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant:
    """The same for every row."""

    said: str
    value: int | None

    def text(self, row: Row) -> str:
        """The text."""
        return self.said

    def number(self, row: Row) -> int:
        """The figure in base units."""
        if self.value is None:
            raise ReplayRefused(f"{self.said!r} is no number")
        return self.value


@dataclass(frozen=True, slots=True, kw_only=True)
class Arithmetic:
    """A sum, difference or product of values, in integers."""

    sign: str
    parts: tuple[Value, ...]

    def text(self, row: Row) -> str:
        """The figure as text."""
        return str(self.number(row))

    def number(self, row: Row) -> int:
        """The figure."""
        first, *rest = (part.number(row) for part in self.parts)
        for other in rest:
            first = _SIGNS[self.sign](first, other)
        return first


Value = Column | Constant | Arithmetic

_SIGNS: Final[Mapping[str, Callable[[int, int], int]]] = {
    "plus": lambda a, b: a + b,
    "minus": lambda a, b: a - b,
    "times": lambda a, b: a * b,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One test of a value; a row must pass all of a list."""

    value: Value
    test: str
    operand: tuple[str, ...]

    def holds(self, row: Row) -> bool:
        """Whether the row passes."""
        return TESTS[self.test](self.value.text(row), self.operand)


def _number(text: str) -> Decimal:
    try:
        return Decimal(text.strip())
    except InvalidOperation as error:
        raise ReplayRefused(f"{text!r} is no number to compare") from error


#: The tests of a condition. Numeric ones compare decimals; the others compare text as it stands.
TESTS: Final[Mapping[str, Callable[[str, Sequence[str]], bool]]] = {
    "is": lambda text, to: text == to[0],
    "not": lambda text, to: text != to[0],
    "in": lambda text, to: text in to,
    "not_in": lambda text, to: text not in to,
    "empty": lambda text, to: (not text.strip()) == (to[0] == "true"),
    "above": lambda text, to: _number(text) > _number(to[0]),
    "below": lambda text, to: _number(text) < _number(to[0]),
    "at_least": lambda text, to: _number(text) >= _number(to[0]),
    "at_most": lambda text, to: _number(text) <= _number(to[0]),
}
