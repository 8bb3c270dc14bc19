"""Foreign files as one stream of actions in the order of time.

Rows are read one after another and not held, unless the mapping has a file sorted: what waits is
only what a row puts later than itself (a lease that is ready hours after its bid), so memory
follows what is open, not the file.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import heapq
import json
import lzma
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Any, Final, TypeVar

from adapters.replay_actions import Action, action_of, price_row_of
from adapters.replay_mapping import File, Kind, ReplayMapping, Step
from adapters.replay_values import ReplayRefused, Row
from domain.catalogue import PriceRow


@dataclass(slots=True)
class Counts:
    """What was read of each file, and how many of its rows became nothing."""

    rows: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    became: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Timed:
    """An action with the instant that it belongs to (µs since the origin) and its row."""

    at_us: int
    kind: Kind
    row: int
    place: str
    action: Action


def files_of(mapping: ReplayMapping, data: Path) -> Mapping[str, Path]:
    """Where each file of the mapping is. ``data`` is a folder, or the one file there is."""
    if data.is_file() and len(mapping.files) == 1:
        return {mapping.files[0].id: data}
    found = {}
    for file in mapping.files:
        path = (data / file.path).resolve()
        if not path.is_file():
            raise ReplayRefused(f"{path} is missing; the mapping calls it {file.id!r}")
        found[file.id] = path
    return found


#: A row with the line of the file that it ends on, for people.
Lined = tuple[int, Row]

#: How a file is opened, by the end of its name.
_PACKED: Final[Mapping[str, Callable[..., IO[str]]]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
}


def rows_of(file: File, path: Path) -> Iterator[tuple[int, int, Row]]:
    """Rows with their number, from 1 without the header, and their line."""
    opener = _PACKED.get(path.suffix, open)
    try:
        with opener(path, "rt", encoding="utf-8-sig", newline="") as opened:
            raw = _csv(file, opened) if file.format == "csv" else _jsonl(file, opened)
            if file.missing:
                raw = _without(raw, frozenset(file.missing))
            rows = raw if file.levels is None else _levels(file, raw, file.levels)
            for number, (line, row) in enumerate(islice(rows, file.first or None), 1):
                yield number, line, row
    except UnicodeDecodeError as error:
        raise ReplayRefused(f"{file.path} is not UTF-8 ({error}); convert it first") from error
    except (gzip.BadGzipFile, lzma.LZMAError, EOFError) as error:
        raise ReplayRefused(f"{file.path} cannot be unpacked: {error}") from error


def _csv(file: File, opened: IO[str]) -> Iterator[Lined]:
    for _ in range(file.skip):
        opened.readline()
    reader = csv.reader(opened, delimiter=file.separator)
    columns = file.columns
    try:
        if not columns:
            columns = tuple(name.strip() for name in next(reader, []))
        if len({*columns}) < len(columns):
            twice = sorted({name for name in columns if columns.count(name) > 1})
            raise ReplayRefused(f"{file.path} has columns of one name: {twice}; name them anew")
        for cells in reader:
            if not cells:
                continue
            line = file.skip + reader.line_num
            if len(cells) != len(columns):
                raise ReplayRefused(
                    f"{file.path} line {line} has {len(cells)} cells, not {len(columns)}; "
                    "is it the separator, or a file without a header that needs columns?"
                )
            yield line, dict(zip(columns, (cell.strip() for cell in cells), strict=True))
    except csv.Error as error:
        raise ReplayRefused(f"{file.path} line {file.skip + reader.line_num}: {error}") from error


def _jsonl(file: File, opened: IO[str]) -> Iterator[Lined]:
    for number, line in enumerate(opened, 1):
        if not line.strip():
            continue
        try:
            # Figures stay the text that they are in the file: no float ever touches one.
            found = json.loads(line, parse_float=str, parse_int=str)
        except (json.JSONDecodeError, RecursionError) as error:
            raise ReplayRefused(f"{file.path} line {number} is no JSON: {error}") from error
        if not isinstance(found, dict):
            raise ReplayRefused(f"{file.path} line {number} is no JSON object")
        if file.each is None:
            yield number, dict(_flat(found, ""))
        else:
            yield from ((number, row) for row in _each(found, file.each))


def _each(found: dict[str, Any], name: str) -> Iterator[Row]:
    """A row for each entry of a nested object or list, beside what stands around it.

    Its fields are columns below ``name``; ``name.key`` is its name in the object, or its place in
    the list from 0. A row without the field has no entries.
    """
    inner: Any = found
    *above, last = name.split(".")
    for step in above:
        inner = inner.get(step) if isinstance(inner, dict) else None
    entries = inner.pop(last, None) if isinstance(inner, dict) else None
    around = dict(_flat(found, ""))
    pairs = entries.items() if isinstance(entries, dict) else enumerate(entries or ())
    for key, entry in pairs:
        fields = entry if isinstance(entry, dict) else {"value": entry}
        yield {**around, **dict(_flat(fields, f"{name}.")), f"{name}.key": str(key)}


def _flat(found: dict[str, Any], path: str) -> Iterator[tuple[str, str]]:
    """Nested objects as columns with dotted names; null is empty."""
    for name, value in found.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{path}{name}.")
        elif isinstance(value, bool):
            yield path + name, str(value).lower()
        elif value is None:
            yield path + name, ""
        else:
            yield path + name, value if isinstance(value, str) else json.dumps(value)


def _without(rows: Iterator[Lined], missing: frozenset[str]) -> Iterator[Lined]:
    """Rows in which words that mean no value are empty."""
    for line, row in rows:
        yield line, {name: "" if said in missing else said for name, said in row.items()}


def _levels(file: File, rows: Iterator[Lined], column: str) -> Iterator[Lined]:
    """A level becomes its changes: a row each, ``change`` add or remove, ``unit`` which one.

    The file tells how many there are, not which; the one that came first leaves first.
    """
    held: deque[int] = deque()
    made = 0
    for line, row in rows:
        try:
            level = int(row[column])
        except (KeyError, ValueError) as error:
            raise ReplayRefused(
                f"{file.path} line {line}: {column} is no whole number in {dict(row)}"
            ) from error
        while len(held) > level:
            yield line, {**row, "change": "remove", "unit": str(held.popleft())}
        while len(held) < level:
            made += 1
            held.append(made)
            yield line, {**row, "change": "add", "unit": str(made)}


def price_rows(mapping: ReplayMapping, files: Mapping[str, Path]) -> tuple[PriceRow, ...]:
    """The mapping's own catalogue rows and those of its price files, each resource once."""
    found: dict[str, PriceRow] = {row.resource: row for row in mapping.catalogue}
    for step in mapping.steps:
        if step.kind is not Kind.PRICE:
            continue
        file = _file(mapping, step.file)
        for _, line, row in rows_of(file, files[step.file]):
            made = _placed(file, line, step.place, partial(price_row_of, step, row))
            if made is None:
                continue
            known = found.setdefault(made.resource, made)
            if known != made:
                raise ReplayRefused(
                    f"{file.path} line {line}: {made.resource} has another price already; "
                    "let the conditions of the mapping choose one"
                )
    return tuple(found.values())


def timed(
    mapping: ReplayMapping, files: Mapping[str, Path], counts: Counts
) -> Iterator[tuple[int, list[Timed]]]:
    """All actions of one instant together, instants rising; within one by kind, then row."""
    streams = [
        _stream(mapping, number, file, files[file.id], counts)
        for number, file in enumerate(mapping.files)
        if any(s.file == file.id and s.kind is not Kind.PRICE for s in mapping.steps)
    ]
    waiting: list[tuple[int, int, int, int, int, Timed]] = []
    made = 0
    for low_us, file_no, batch in heapq.merge(*streams, key=lambda each: each[:2]):
        yield from _ripe(waiting, low_us)
        for one in batch:
            made += 1
            heapq.heappush(waiting, (one.at_us, one.kind, file_no, one.row, made, one))
    yield from _ripe(waiting, None)


def _ripe(waiting: list[Any], low_us: int | None) -> Iterator[tuple[int, list[Timed]]]:
    """Instants before ``low_us``, complete since no later row can reach them."""
    while waiting and (low_us is None or waiting[0][0] < low_us):
        at_us = waiting[0][0]
        instant = []
        while waiting and waiting[0][0] == at_us:
            instant.append(heapq.heappop(waiting)[-1])
        yield at_us, instant


def _stream(
    mapping: ReplayMapping, number: int, file: File, path: Path, counts: Counts
) -> Iterator[tuple[int, int, list[Timed]]]:
    """(no action of this or a later row is before this, file, the row's actions)."""
    steps = [s for s in mapping.steps if s.file == file.id and s.kind is not Kind.PRICE]
    setup_us = -mapping.lead_us
    last_us = setup_us
    counts.rows[file.id] = counts.left_out[file.id] = 0
    seen: set[tuple[str, str]] = set()
    for row_no, line, row, order_us in _ordered(file, path, setup_us):
        counts.rows[file.id] += 1
        if order_us < last_us - file.disorder_us:
            raise ReplayRefused(
                f"{file.path} line {line} is {last_us - order_us} µs before an earlier row; say "
                f"so by files.disorder, now {file.disorder_us} µs, or let files.sort be true"
            )
        last_us = max(last_us, order_us)
        low_us = last_us if file.order is None else last_us - file.disorder_us
        batch = []
        for step in steps:
            made = _placed(file, line, step.place, partial(_action, step, row, order_us))
            if made is None:
                continue
            at_us, action = made
            if step.once is not None:
                key = (step.place, step.once.text(row))
                if key in seen:
                    continue
                seen.add(key)
            if at_us < low_us:
                raise ReplayRefused(
                    f"{step.place}: {file.path} line {line} would act {low_us - at_us} µs before "
                    "its own place in the order; order the file by the first instant of its rows"
                )
            batch.append(Timed(at_us, step.kind, row_no, step.place, action))
            name = step.kind.name.lower()
            counts.became[name] = counts.became.get(name, 0) + 1
        if not batch:
            counts.left_out[file.id] += 1
        yield low_us, number, batch


def _ordered(file: File, path: Path, setup_us: int) -> Iterator[tuple[int, int, Row, int]]:
    """(row, line, what it says, its instant); of a file that is sorted here, in that order."""
    order = file.order
    if order is None:
        yield from ((*each, setup_us) for each in rows_of(file, path))
        return
    rows = (
        (number, line, row, _placed(file, line, "files.order", partial(order.number, row)))
        for number, line, row in rows_of(file, path)
    )
    yield from sorted(rows, key=lambda each: each[3]) if file.sort else rows


def _action(step: Step, row: Row, order_us: int) -> tuple[int, Action] | None:
    """What a row becomes by a step, and when; None where it does not meet the conditions."""
    action = action_of(step, row)
    if action is None:
        return None
    return (order_us if step.at is None else step.at.number(row)) + step.delay_us, action


T = TypeVar("T")


def _placed(file: File, line: int, place: str, make: Callable[[], T]) -> T:
    """Say where a refusal comes from."""
    try:
        return make()
    except ReplayRefused as error:
        raise ReplayRefused(f"{file.path} line {line}, for {place}: {error}") from error


def _file(mapping: ReplayMapping, id: str) -> File:
    return next(file for file in mapping.files if file.id == id)
