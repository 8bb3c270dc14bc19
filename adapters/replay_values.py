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
from decimal import Decimal, InvalidOperation
from fractions import Fraction
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
#: Instants, in µs since the mapping's origin: ISO text, or seconds or milliseconds since 1970.
TIMESTAMP: Final = "timestamp"
SINCE_1970: Final[Mapping[str, int]] = {"unix": SECOND_US, "unix_ms": 1000}
#: A length of time that says its own units: ``PT1H30M``, ``1:30:00``, ``90s``.
DURATION: Final = "duration"
#: Every unit that a mapping may name.
UNITS: Final = (*TIMES, *AMOUNTS, TIMESTAMP, *SINCE_1970, DURATION)
#: What happens to what is not whole in its unit.
ROUNDINGS: Final = ("exact", "down", "up")

#: More digits before and after the point than any quantity, price or time has.
_DIGITS: Final = 60
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_STAMP: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)"
    r"(?:[T ,]+(\d\d):(\d\d)(?::(\d\d)(?:[.,](\d+))?)?\s*(Z|UTC|GMT|[+-]\d\d(?::?\d\d)?)?)?"
)
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(us|ms|s|min|h|d)")
#: ISO 8601 without years and months, which have no one length; and hours:minutes:seconds.
_ISO: Final = re.compile(
    r"P(?=.)(?:(\d+)W)?(?:(\d+)D)?(?:T(?=.)(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?"
)
_CLOCK: Final = re.compile(r"()()(\d+):([0-5]\d):([0-5]\d(?:\.\d+)?)")
_PARTS_US: Final = (7 * DAY_US, DAY_US, HOUR_US, MINUTE_US, SECOND_US)


class ReplayRefused(Exception):
    """A mapping or a row that cannot be used; the text says where and what to do."""


def timestamp_us(text: str) -> int:
    """µs UTC of an ISO timestamp; without a zone it is UTC; digits beyond the µs are cut."""
    found = _STAMP.fullmatch(text.strip())
    if found is None:
        raise ReplayRefused(f"{text!r} is no timestamp like 2023-11-16 18:15:46.6805900")
    year, month, day, hour, minute, second, fraction, zone = found.groups()
    try:
        offset = UTC
        if zone is not None and zone[0] in "+-":
            ahead = timedelta(hours=int(zone[1:3]), minutes=int(zone[3:].lstrip(":") or 0))
            offset = timezone(-ahead if zone[0] == "-" else ahead)
        clock = (int(hour or 0), int(minute or 0), int(second or 0))
        whole = datetime(int(year), int(month), int(day), *clock, tzinfo=offset)
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
    return _whole(found[1], TIMES[found[2]], "exact")


def _length_us(text: str) -> int:
    """µs of a length of time in any of the ways in which files write one."""
    stripped = text.strip()
    found = _ISO.fullmatch(stripped) or _CLOCK.fullmatch(stripped)
    if found is not None:
        parts = zip(found.groups(), _PARTS_US, strict=True)
        return sum(_whole(part, unit_us, "down") for part, unit_us in parts if part)
    try:
        return duration_us(stripped)
    except ReplayRefused as error:
        raise ReplayRefused(
            f"{text!r} is no duration like PT1H30M, 1:30:00 or 90s; years and months have no "
            "one length, and of two numbers nobody knows which two they are"
        ) from error


def _whole(text: str, factor: int | Fraction, rounding: str) -> int:
    try:
        said = Decimal(text.strip())
        if not said.is_finite() or abs(said.adjusted()) > _DIGITS:
            raise ReplayRefused(f"{text[:40]!r} is no number of a usual size")
        exact = Fraction(said) * factor
    except InvalidOperation as error:
        raise ReplayRefused(f"{text[:40]!r} is no number") from error
    floor = exact.numerator // exact.denominator
    if exact.denominator == 1 or rounding == "down":
        return floor
    if rounding == "up":
        return floor + 1
    raise ReplayRefused(
        f'{text!r} times {factor} is not whole; where it may be rounded, say round = "up" or "down"'
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """How text becomes an integer; ``origin_us`` is where instants are counted from.

    ``factor`` converts what the file counts in to the unit. Times that are finer than a
    microsecond are cut, whatever else is not whole is refused, where ``rounding`` says nothing.
    """

    name: str
    origin_us: int = 0
    factor: Fraction = Fraction(1)
    rounding: str = ""

    def of(self, text: str) -> int:
        """The figure in base units. Raises ``ReplayRefused``."""
        if self.name == TIMESTAMP:
            return timestamp_us(text) - self.origin_us
        if self.name in SINCE_1970:
            return _whole(text, SINCE_1970[self.name], "down") - self.origin_us
        if self.name == DURATION:
            return _length_us(text)
        if self.name in TIMES:
            return _whole(text, TIMES[self.name] * self.factor, self.rounding or "down")
        return _whole(text, AMOUNTS.get(self.name, 1) * self.factor, self.rounding or "exact")


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column, or several joined by a space; ``table`` replaces what stands there.

    ``default`` stands where a row has nothing, or a JSON object has not the name at all.
    """

    names: tuple[str, ...]
    unit: Unit = Unit(name="")
    table: Mapping[str, str] | None = None
    otherwise: str | None = None
    default: str | None = None

    def text(self, row: Row) -> str:
        """What stands in the row."""
        try:
            found = " ".join(row[name] for name in self.names)
        except KeyError as error:
            if self.default is None:
                raise ReplayRefused(
                    f"there is no column {error}; there are {sorted(row)}"
                ) from error
            found = ""
        if self.default is not None and not found.strip():
            found = self.default
        if self.table is None:
            return found
        known = self.table.get(found, self.otherwise)
        if known is None:
            raise ReplayRefused(
                f"{found!r} is not in the map of column {self.names[0]}; add it there, or say "
                "what stands otherwise"
            )
        return known

    def number(self, row: Row) -> int:
        """The figure in base units."""
        said = self.text(row)
        try:
            return self.unit.of(said)
        except ReplayRefused as error:
            column = ", ".join(self.names)
            if not said.strip():
                raise ReplayRefused(
                    f"column {column} is empty; give it a default or leave such rows out by where"
                ) from error
            raise ReplayRefused(f"column {column}: {error}") from error


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
