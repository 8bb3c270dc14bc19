"""The mapping: a TOML file that says what the rows of foreign files become.

Everything that is particular to a data set stands in it, so a new data set needs no code. It is
read strictly: a key that means nothing is refused by its path, since a misspelt filter that is
silently ignored would change every total.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from enum import IntEnum
from pathlib import Path
from typing import Any, Final

from adapters.replay_values import (
    AMOUNTS,
    TESTS,
    TIMES,
    TIMESTAMP,
    Arithmetic,
    Column,
    Condition,
    Constant,
    ReplayRefused,
    Unit,
    Value,
    duration_us,
    timestamp_us,
)
from domain.catalogue import How, PriceRow, Revenue
from domain.genesis import Parameters


class Kind(IntEnum):
    """What a row becomes. At one instant the lower number comes first, then the row's number."""

    PRICE = 0
    WITHDRAW = 1
    END = 2
    CANCEL = 3
    RETIRE = 4
    NODE = 5
    OFFER = 6
    BID = 7
    READY = 8
    OUTAGE = 9
    BEAT = 10
    READING = 11


#: The values of each kind; a trailing ``?`` may be left out.
VALUES: Final[Mapping[Kind, tuple[str, ...]]] = {
    Kind.PRICE: ("resource", "price", "per?"),
    Kind.WITHDRAW: ("node",),
    Kind.END: ("bid?", "node?"),
    Kind.CANCEL: ("bid",),
    Kind.RETIRE: ("node",),
    Kind.NODE: ("key", "provider?", "region?", "devices?"),
    Kind.OFFER: ("node", "resource", "quantity", "ask?", "notice?"),
    Kind.BID: (
        "key",
        "buyer?",
        "resource",
        "region?",
        "quantity",
        "limit?",
        "term",
        "usage_budget?",
    ),
    Kind.READY: ("bid",),
    Kind.OUTAGE: ("node", "until"),
    Kind.BEAT: ("node",),
    Kind.READING: ("bid", "resource", "total?", "add?"),
}
#: Lists of (resource, amount) of a kind, and the name of the amount.
LISTS: Final[Mapping[Kind, Mapping[str, str]]] = {
    Kind.NODE: {"capacity": "amount"},
    Kind.BID: {"allocations": "amount", "metered": "per_second"},
}
#: How a lease ends: by the provider's reclaim at that instant, the buyer's close, the workload's
#: own end that its node signs, or the provider's giving up.
ENDS: Final = ("reclaim", "close", "complete", "fail")


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A file of the data and how its rows are read."""

    id: str
    path: str
    format: str
    columns: tuple[str, ...]
    separator: str
    order: Value | None
    disorder_us: int
    levels: str | None
    first: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A resource with an amount, from a row."""

    resource: Value
    amount: Value


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What each row of a file that meets the conditions becomes."""

    place: str
    file: str
    kind: Kind
    where: tuple[Condition, ...]
    at: Value | None
    delay_us: int
    values: Mapping[str, Value]
    lists: Mapping[str, tuple[Named, ...]]
    how: str
    row: PriceRow | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Total:
    """A figure of the report: summed quantities of resources, divided exactly."""

    name: str
    resources: tuple[str, ...]
    divide: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Commitment:
    """What every provider of a replay commits to (R5)."""

    uptime_ppm: int
    response_time_ms: int
    durability_pp12: int
    penalty_ppm: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayMapping:
    """A mapping as read."""

    name: str
    origin_us: int
    lead_us: int
    beats: bool
    readings_us: int
    shards: int
    parameters: Parameters
    commitment: Commitment
    catalogue: tuple[PriceRow, ...]
    files: tuple[File, ...]
    steps: tuple[Step, ...]
    totals: tuple[Total, ...]
    expect: Mapping[str, Any]


def load_mapping(path: Path) -> ReplayMapping:
    """Read a mapping. Raises ``ReplayRefused`` naming the place and what may stand there."""
    try:
        with path.open("rb") as file:
            return _mapping(_Table(tomllib.load(file), ""))
    except OSError as error:
        raise ReplayRefused(f"{path}: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise ReplayRefused(f"{path} is no TOML: {error}") from error
    except ReplayRefused as error:
        raise ReplayRefused(f"{path}: {error}") from error


class _Table:
    """A TOML table that knows its path and which of its keys were taken."""

    def __init__(self, data: Mapping[str, Any], path: str) -> None:
        self.data = data
        self.path = path
        self._taken: set[str] = set()

    def at(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name

    def refuse(self, name: str, why: str) -> ReplayRefused:
        return ReplayRefused(f"{self.at(name)}: {why}")

    def has(self, name: str) -> bool:
        return name in self.data

    def take(self, name: str, kind: type[Any], default: Any = None) -> Any:
        self._taken.add(name)
        if name not in self.data:
            if default is None:
                raise self.refuse(name, "is missing")
            return default
        found = self.data[name]
        if not isinstance(found, kind) or (kind is int and isinstance(found, bool)):
            raise self.refuse(name, f"{found!r} is no {kind.__name__}")
        return found

    def raw(self, name: str) -> Any:
        self._taken.add(name)
        return self.data.get(name)

    def table(self, name: str) -> _Table:
        return _Table(self.take(name, dict, {}), self.at(name))

    def tables(self, name: str) -> list[_Table]:
        found = self.take(name, list, [])
        if not all(isinstance(each, dict) for each in found):
            raise self.refuse(name, "is no list of tables")
        return [_Table(each, f"{self.at(name)}[{i}]") for i, each in enumerate(found)]

    def duration(self, name: str, default: str) -> int:
        said = self.take(name, str, default)
        try:
            return duration_us(said)
        except ReplayRefused as error:
            raise self.refuse(name, str(error)) from error

    def done(self) -> None:
        if left := sorted(set(self.data) - self._taken):
            raise self.refuse(left[0], f"is not known here; known are {sorted(self._taken)}")


def _mapping(table: _Table) -> ReplayMapping:
    time = table.table("time")
    origin = time.take("origin", str)
    try:
        origin_us = timestamp_us(origin)
    except ReplayRefused as error:
        raise time.refuse("origin", str(error)) from error
    telemetry = table.table("telemetry")
    made = ReplayMapping(
        name=table.take("name", str),
        origin_us=origin_us,
        lead_us=time.duration("lead", "1h"),
        beats=telemetry.take("beats", bool, True),
        readings_us=telemetry.duration("every", "0s"),
        shards=table.take("shards", int, 1),
        parameters=_parameters(table.table("genesis")),
        commitment=_commitment(table.table("commitment")),
        catalogue=tuple(_price_row(each) for each in table.tables("catalogue")),
        files=tuple(_file(each, origin_us) for each in table.tables("files")),
        steps=tuple(_step(each, origin_us) for each in table.tables("rows")),
        totals=_totals(table.table("totals")),
        expect=table.take("expect", dict, {}),
    )
    known = {file.id for file in made.files}
    if len(known) < len(made.files):
        raise table.refuse("files", "two have one id")
    for step in made.steps:
        if step.file not in known:
            raise ReplayRefused(f"{step.place}.file: {step.file!r} is not in {sorted(known)}")
    for each in (time, telemetry, table):
        each.done()
    return made


def _parameters(table: _Table) -> Parameters:
    chosen: dict[str, int] = {}
    names = {field.name: field.name for field in fields(Parameters)}
    names.update({n.removesuffix("_us"): n for n in names if n.endswith("_us")})
    for said in table.data:
        if said not in names:
            raise table.refuse(said, f"is no parameter; known are {sorted(names)}")
        name = names[said]
        if name.endswith("_us") and isinstance(table.data[said], str):
            chosen[name] = table.duration(said, "0s")
        else:
            chosen[name] = table.take(said, int)
    if "grace_us" in chosen:
        chosen.setdefault("grace_max_us", chosen["grace_us"])
    return Parameters(**chosen)


def _commitment(table: _Table) -> Commitment:
    made = Commitment(
        uptime_ppm=table.take("uptime_ppm", int, 900_000),
        response_time_ms=table.take("response_time_ms", int, 1000),
        durability_pp12=table.take("durability_pp12", int, 999_999_999_999),
        penalty_ppm=table.take("penalty_ppm", int, 100_000),
    )
    table.done()
    return made


def _price_row(table: _Table) -> PriceRow:
    said = table.take("price", str)
    try:
        nano = Unit(name="nano").of(said)
    except ReplayRefused as error:
        raise table.refuse("price", str(error)) from error
    made = _row_shape(table, table.take("resource", str), nano)
    table.done()
    return made


def _row_shape(table: _Table, resource: str, price_nano: int) -> PriceRow:
    return PriceRow(
        resource=resource,
        how=_choice(table, "how", How, "allocated"),
        unit=table.take("per", int, 3_600_000_000),
        price_nano=price_nano,
        revenue=_choice(table, "revenue", Revenue, "compute"),
        market=table.take("market", bool, False),
    )


def _choice(table: _Table, name: str, kind: Any, default: str) -> Any:
    said = table.take(name, str, default)
    try:
        return kind(said.upper())
    except ValueError as error:
        known = [each.value.lower() for each in kind]
        raise table.refuse(name, f"{said!r} is none of {known}") from error


def _file(table: _Table, origin_us: int) -> File:
    format_ = table.take("format", str, "csv")
    if format_ not in ("csv", "jsonl"):
        raise table.refuse("format", f"{format_!r} is neither csv nor jsonl")
    order = table.raw("order")
    path = table.take("path", str)
    made = File(
        id=table.take("id", str, path),
        path=path,
        format=format_,
        columns=tuple(table.take("columns", list, [])),
        separator=table.take("separator", str, ","),
        order=None if order is None else _value(order, table.at("order"), origin_us),
        disorder_us=table.duration("disorder", "0s"),
        levels=table.take("levels", str, "") or None,
        first=table.take("first", int, 0),
    )
    table.done()
    return made


def _step(table: _Table, origin_us: int) -> Step:
    said = table.take("becomes", str)
    kinds = {kind.name.lower(): kind for kind in Kind}
    if said not in kinds:
        raise table.refuse("becomes", f"{said!r} is none of {sorted(kinds)}")
    kind = kinds[said]
    values: dict[str, Value] = {}
    for name in VALUES[kind]:
        found = table.raw(name.removesuffix("?"))
        if found is not None:
            at = table.at(name.removesuffix("?"))
            values[name.removesuffix("?")] = _value(found, at, origin_us)
        elif not name.endswith("?"):
            raise table.refuse(name, "is missing")
    lists = {
        name: tuple(_named(each, amount, origin_us) for each in table.tables(name))
        for name, amount in LISTS.get(kind, {}).items()
    }
    at = table.raw("at")
    how = ""
    if kind is Kind.END:
        how = table.take("how", str)
        if how not in ENDS:
            raise table.refuse("how", f"{how!r} is none of {ENDS}")
        if ("bid" in values) == ("node" in values):
            raise table.refuse("bid", "name the lease by its bid or by its node")
    if kind is Kind.READING and ("total" in values) == ("add" in values):
        raise table.refuse("total", "give the counter's total or what the row adds to it")
    made = Step(
        place=table.path,
        file=table.take("file", str),
        kind=kind,
        where=tuple(_condition(each, origin_us) for each in table.tables("where")),
        at=None if at is None else _value(at, table.at("at"), origin_us),
        delay_us=table.duration("delay", "0s"),
        values=values,
        lists=lists,
        how=how,
        row=_shape_of_prices(table) if kind is Kind.PRICE else None,
    )
    table.done()
    return made


def _shape_of_prices(table: _Table) -> PriceRow:
    return PriceRow(
        resource="",
        how=_choice(table, "how", How, "allocated"),
        unit=3_600_000_000,
        price_nano=0,
        revenue=_choice(table, "revenue", Revenue, "compute"),
        market=table.take("market", bool, False),
    )


def _named(table: _Table, amount: str, origin_us: int) -> Named:
    made = Named(
        resource=_value(table.raw("resource"), table.at("resource"), origin_us),
        amount=_value(table.raw(amount), table.at(amount), origin_us),
    )
    table.done()
    return made


def _condition(table: _Table, origin_us: int) -> Condition:
    tests = [name for name in table.data if name in TESTS]
    if len(tests) != 1:
        raise table.refuse("column", f"one test is needed of {sorted(TESTS)}")
    operand = table.raw(tests[0])
    wanted = operand if isinstance(operand, list) else [operand]
    value = {name: table.raw(name) for name in table.data if name != tests[0]}
    made = Condition(
        value=_value(value, table.path, origin_us),
        test=tests[0],
        operand=tuple(_plain(each) for each in wanted),
    )
    table.done()
    return made


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _value(said: Any, path: str, origin_us: int) -> Value:
    """A string is a column, an integer a constant, a table says which of the rest."""
    if isinstance(said, str):
        return Column(names=(said,))
    if isinstance(said, int) and not isinstance(said, bool):
        return Constant(said=str(said), value=said)
    if not isinstance(said, dict):
        raise ReplayRefused(f"{path}: {said!r} is no column, integer or table")
    table = _Table(said, path)
    forms: dict[str, Callable[[_Table, int], Value]] = {
        "column": _column,
        "value": _constant,
        "plus": _arithmetic,
        "minus": _arithmetic,
        "times": _arithmetic,
    }
    found = [name for name in forms if table.has(name)]
    if len(found) != 1:
        raise ReplayRefused(f"{path}: one is needed of {sorted(forms)}")
    made = forms[found[0]](table, origin_us)
    table.done()
    return made


def _unit(table: _Table, origin_us: int) -> Unit:
    name = table.take("unit", str, "") if table.has("unit") else ""
    if name and name != TIMESTAMP and name not in TIMES and name not in AMOUNTS:
        raise table.refuse("unit", f"{name!r} is none of {[*TIMES, *AMOUNTS, TIMESTAMP]}")
    return Unit(name=name, origin_us=origin_us)


def _column(table: _Table, origin_us: int) -> Column:
    names = table.raw("column")
    listed = names if isinstance(names, list) else [names]
    if not listed or not all(isinstance(name, str) for name in listed):
        raise table.refuse("column", f"{names!r} is no column and no list of columns")
    return Column(
        names=tuple(listed),
        unit=_unit(table, origin_us),
        table=table.take("map", dict) if table.has("map") else None,
        otherwise=table.take("otherwise", str) if table.has("otherwise") else None,
    )


def _constant(table: _Table, origin_us: int) -> Constant:
    said = _plain(table.raw("value"))
    unit = _unit(table, origin_us)
    try:
        return Constant(said=said, value=unit.of(said))
    except ReplayRefused:
        if unit.name:
            raise
        return Constant(said=said, value=None)


def _arithmetic(table: _Table, origin_us: int) -> Arithmetic:
    (sign,) = (name for name in ("plus", "minus", "times") if table.has(name))
    parts = table.take(sign, list)
    if len(parts) < 2:
        raise table.refuse(sign, "needs two values or more")
    return Arithmetic(
        sign=sign,
        parts=tuple(
            _value(part, f"{table.at(sign)}[{i}]", origin_us) for i, part in enumerate(parts)
        ),
    )


def _totals(table: _Table) -> tuple[Total, ...]:
    made = []
    for name in table.data:
        one = table.table(name)
        made.append(
            Total(
                name=name,
                resources=tuple(one.take("resources", list)),
                divide=one.take("divide", int, 1),
            )
        )
        one.done()
    return tuple(made)
