"""Foreign files as one stream of actions in the order of time.

Rows are read one after another and never held: what waits is only what a row puts later than
itself (a lease that is ready hours after its bid), so memory follows what is open, not the file.
"""

from __future__ import annotations

import csv
import heapq
import json
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

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


def rows_of(file: File, path: Path) -> Iterator[tuple[int, Row]]:
    """Rows with their line number, from 1 without the header."""
    with path.open(encoding="utf-8-sig", newline="") as opened:
        raw = _csv(file, opened) if file.format == "csv" else _jsonl(opened)
        rows = raw if file.levels is None else _levels(raw, file.levels)
        yield from enumerate(islice(rows, file.first or None), 1)


def _csv(file: File, opened: Any) -> Iterator[Row]:
    reader = csv.reader(opened, delimiter=file.separator)
    columns = file.columns
    if not columns:
        columns = tuple(name.strip() for name in next(reader, []))
    for number, cells in enumerate(reader, 1):
        if not cells:
            continue
        if len(cells) != len(columns):
            raise ReplayRefused(
                f"{file.path}: row {number} has {len(cells)} cells, not {len(columns)}"
            )
        yield dict(zip(columns, (cell.strip() for cell in cells), strict=True))


def _jsonl(opened: Any) -> Iterator[Row]:
    for number, line in enumerate(opened, 1):
        if not line.strip():
            continue
        try:
            # Figures stay the text that they are in the file: no float ever touches one.
            found = json.loads(line, parse_float=str, parse_int=str)
        except json.JSONDecodeError as error:
            raise ReplayRefused(f"line {number} is no JSON: {error}") from error
        if not isinstance(found, dict):
            raise ReplayRefused(f"line {number} is no JSON object")
        yield dict(_flat(found, ""))


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


def _levels(rows: Iterator[Row], column: str) -> Iterator[Row]:
    """A level becomes its changes: a row each, ``change`` add or remove, ``unit`` which one.

    The file tells how many there are, not which; the one that came first leaves first.
    """
    held: deque[int] = deque()
    made = 0
    for row in rows:
        try:
            level = int(row[column])
        except (KeyError, ValueError) as error:
            raise ReplayRefused(f"{column} is no level in {dict(row)}") from error
        while len(held) > level:
            yield {**row, "change": "remove", "unit": str(held.popleft())}
        while len(held) < level:
            made += 1
            held.append(made)
            yield {**row, "change": "add", "unit": str(made)}


def price_rows(mapping: ReplayMapping, files: Mapping[str, Path]) -> tuple[PriceRow, ...]:
    """The mapping's own catalogue rows and those of its price files, each resource once."""
    found: dict[str, PriceRow] = {row.resource: row for row in mapping.catalogue}
    for step in mapping.steps:
        if step.kind is not Kind.PRICE:
            continue
        for number, row in rows_of(_file(mapping, step.file), files[step.file]):
            made = _placed(step, number, partial(price_row_of, step, row))
            if made is None:
                continue
            known = found.setdefault(made.resource, made)
            if known != made:
                raise ReplayRefused(
                    f"{step.file} row {number}: {made.resource} has another price already; "
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
    for row_no, row in rows_of(file, path):
        counts.rows[file.id] += 1
        order_us = setup_us
        if file.order is not None:
            order_us = file.order.number(row)
            if order_us < last_us - file.disorder_us:
                raise ReplayRefused(
                    f"{file.path}: row {row_no} is {last_us - order_us} µs before an earlier row; "
                    f"say so by files.disorder, now {file.disorder_us} µs, or sort the file"
                )
            last_us = max(last_us, order_us)
        low_us = last_us if file.order is None else last_us - file.disorder_us
        batch = []
        for step in steps:
            action = _placed(step, row_no, partial(action_of, step, row))
            if action is None:
                continue
            at_us = order_us if step.at is None else step.at.number(row)
            at_us += step.delay_us
            if at_us < low_us:
                raise ReplayRefused(
                    f"{step.place}: row {row_no} would act {low_us - at_us} µs before its own "
                    "place in the order; order the file by the first instant of its rows"
                )
            batch.append(Timed(at_us, step.kind, row_no, step.place, action))
            name = step.kind.name.lower()
            counts.became[name] = counts.became.get(name, 0) + 1
        if not batch:
            counts.left_out[file.id] += 1
        yield low_us, number, batch


def _placed(step: Step, number: int, make: Any) -> Any:
    """Say where a refusal comes from."""
    try:
        return make()
    except ReplayRefused as error:
        raise ReplayRefused(f"{step.place}, row {number} of {step.file}: {error}") from error


def _file(mapping: ReplayMapping, id: str) -> File:
    return next(file for file in mapping.files if file.id == id)
