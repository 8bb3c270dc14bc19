"""The mapping: a TOML file that says what the rows of foreign files become.

Everything that is particular to a data set stands in it, so a new data set needs no code. It is
read strictly: a key that means nothing is refused by its path, since a misspelt filter that is
silently ignored would change every total.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import IntEnum
from pathlib import Path
from typing import Any, Final

from adapters.replay_table import Table
from adapters.replay_value_forms import condition_of, value_of
from adapters.replay_values import (
    Condition,
    ReplayRefused,
    Unit,
    Value,
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
    Kind.OUTAGE: ("node", "until?"),
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
    sort: bool
    skip: int
    missing: tuple[str, ...]
    each: str | None


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
    once: Value | None
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
            return _mapping(Table(tomllib.load(file), ""))
    except OSError as error:
        raise ReplayRefused(f"{path}: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise ReplayRefused(f"{path} is no TOML: {error}") from error
    except ReplayRefused as error:
        raise ReplayRefused(f"{path}: {error}") from error


def _mapping(table: Table) -> ReplayMapping:
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


def _parameters(table: Table) -> Parameters:
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


def _commitment(table: Table) -> Commitment:
    made = Commitment(
        uptime_ppm=table.take("uptime_ppm", int, 900_000),
        response_time_ms=table.take("response_time_ms", int, 1000),
        durability_pp12=table.take("durability_pp12", int, 999_999_999_999),
        penalty_ppm=table.take("penalty_ppm", int, 100_000),
    )
    table.done()
    return made


def _price_row(table: Table) -> PriceRow:
    said = table.take("price", str)
    try:
        nano = Unit(name="nano").of(said)
    except ReplayRefused as error:
        raise table.refuse("price", str(error)) from error
    made = _row_shape(table, table.take("resource", str), nano)
    table.done()
    return made


def _row_shape(table: Table, resource: str, price_nano: int) -> PriceRow:
    return PriceRow(
        resource=resource,
        how=_choice(table, "how", How, "allocated"),
        unit=table.take("per", int, 3_600_000_000),
        price_nano=price_nano,
        revenue=_choice(table, "revenue", Revenue, "compute"),
        market=table.take("market", bool, False),
    )


def _choice(table: Table, name: str, kind: Any, default: str) -> Any:
    said = table.take(name, str, default)
    try:
        return kind(said.upper())
    except ValueError as error:
        known = [each.value.lower() for each in kind]
        raise table.refuse(name, f"{said!r} is none of {known}") from error


def _file(table: Table, origin_us: int) -> File:
    format_ = table.take("format", str, "csv")
    if format_ not in ("csv", "jsonl"):
        raise table.refuse("format", f"{format_!r} is neither csv nor jsonl")
    order = table.raw("order")
    path = table.take("path", str)
    separator = table.take("separator", str, ",")
    if len(separator) != 1:
        raise table.refuse("separator", f"{separator!r} is not one character")
    made = File(
        id=table.take("id", str, path),
        path=path,
        format=format_,
        columns=_texts(table, "columns"),
        separator=separator,
        order=None if order is None else value_of(order, table.at("order"), origin_us),
        disorder_us=table.duration("disorder", "0s"),
        levels=table.take("levels", str, "") or None,
        first=table.take("first", int, 0),
        sort=table.take("sort", bool, False),
        skip=table.take("skip", int, 0),
        missing=_texts(table, "missing"),
        each=table.take("each", str, "") or None,
    )
    if made.sort and (order is None or made.disorder_us):
        raise table.refuse("sort", "sorts by the order, which is needed; it needs no disorder")
    if made.each is not None and format_ != "jsonl":
        raise table.refuse("each", "is of jsonl files: a CSV row holds no further rows")
    if made.format == "jsonl" and (made.columns or made.skip):
        raise table.refuse("format", "columns and skip are of CSV files")
    table.done()
    return made


def _texts(table: Table, name: str) -> tuple[str, ...]:
    found = table.take(name, list, [])
    if not all(isinstance(each, str) for each in found):
        raise table.refuse(name, f"{found!r} is no list of texts")
    return tuple(found)


def _step(table: Table, origin_us: int) -> Step:
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
            values[name.removesuffix("?")] = value_of(found, at, origin_us)
        elif not name.endswith("?"):
            raise table.refuse(name, "is missing")
    lists = {
        name: tuple(_named(each, amount, origin_us) for each in table.tables(name))
        for name, amount in LISTS.get(kind, {}).items()
    }
    at, once = table.raw("at"), table.raw("once")
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
        where=tuple(condition_of(each, origin_us) for each in table.tables("where")),
        once=None if once is None else value_of(once, table.at("once"), origin_us),
        at=None if at is None else value_of(at, table.at("at"), origin_us),
        delay_us=table.duration("delay", "0s"),
        values=values,
        lists=lists,
        how=how,
        row=_shape_of_prices(table) if kind is Kind.PRICE else None,
    )
    table.done()
    return made


def _shape_of_prices(table: Table) -> PriceRow:
    return PriceRow(
        resource="",
        how=_choice(table, "how", How, "allocated"),
        unit=3_600_000_000,
        price_nano=0,
        revenue=_choice(table, "revenue", Revenue, "compute"),
        market=table.take("market", bool, False),
    )


def _named(table: Table, amount: str, origin_us: int) -> Named:
    made = Named(
        resource=value_of(table.raw("resource"), table.at("resource"), origin_us),
        amount=value_of(table.raw(amount), table.at(amount), origin_us),
    )
    table.done()
    return made


def _totals(table: Table) -> tuple[Total, ...]:
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
