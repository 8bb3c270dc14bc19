"""How a mapping writes values and conditions, read strictly."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

from adapters.replay_table import Table
from adapters.replay_values import (
    DURATION,
    ROUNDINGS,
    SINCE_1970,
    TESTS,
    TIMESTAMP,
    UNITS,
    Arithmetic,
    Column,
    Condition,
    Constant,
    ReplayRefused,
    Unit,
    Value,
)


def condition_of(table: Table, origin_us: int) -> Condition:
    """A value with one test."""
    tests = [name for name in table.data if name in TESTS]
    if len(tests) != 1:
        raise table.refuse("column", f"one test is needed of {sorted(TESTS)}")
    operand = table.raw(tests[0])
    wanted = operand if isinstance(operand, list) else [operand]
    value = {name: table.raw(name) for name in table.data if name != tests[0]}
    made = Condition(
        value=value_of(value, table.path, origin_us),
        test=tests[0],
        operand=tuple(_plain(each) for each in wanted),
    )
    table.done()
    return made


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def value_of(said: Any, path: str, origin_us: int) -> Value:
    """A string is a column, an integer a constant, a table says which of the rest."""
    if isinstance(said, str):
        return Column(names=(said,))
    if isinstance(said, int) and not isinstance(said, bool):
        return Constant(said=str(said), value=said)
    if not isinstance(said, dict):
        raise ReplayRefused(f"{path}: {said!r} is no column, integer or table")
    table = Table(said, path)
    forms: dict[str, Callable[[Table, int], Value]] = {
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


def _unit(table: Table, origin_us: int) -> Unit:
    name = table.take("unit", str, "") if table.has("unit") else ""
    if name and name not in UNITS:
        raise table.refuse("unit", f"{name!r} is none of {[*UNITS]}")
    rounding = table.take("round", str) if table.has("round") else ""
    if rounding and rounding not in ROUNDINGS:
        raise table.refuse("round", f"{rounding!r} is none of {[*ROUNDINGS]}")
    made = Unit(name=name, origin_us=origin_us, factor=_factor(table), rounding=rounding)
    if name in (TIMESTAMP, DURATION, *SINCE_1970) and (rounding or made.factor != 1):
        raise table.refuse("unit", f"{name} says its own size; leave out factor and round")
    return made


def _factor(table: Table) -> Fraction:
    """What one of the file's units is of the unit that is named: ``1048576/1000000``, ``0.001``."""
    said = _plain(table.raw("factor")) if table.has("factor") else "1"
    try:
        made = Fraction(said)
    except (ValueError, ZeroDivisionError) as error:
        raise table.refuse("factor", f"{said!r} is no number or fraction like 1024/1000") from error
    if made <= 0:
        raise table.refuse("factor", f"{said!r} is not above zero")
    return made


def _column(table: Table, origin_us: int) -> Column:
    names = table.raw("column")
    listed = names if isinstance(names, list) else [names]
    if not listed or not all(isinstance(name, str) for name in listed):
        raise table.refuse("column", f"{names!r} is no column and no list of columns")
    return Column(
        names=tuple(listed),
        unit=_unit(table, origin_us),
        table={said: _plain(to) for said, to in table.take("map", dict).items()}
        if table.has("map")
        else None,
        otherwise=_text(table, "otherwise"),
        default=_text(table, "default"),
    )


def _text(table: Table, name: str) -> str | None:
    return _plain(table.raw(name)) if table.has(name) else None


def _constant(table: Table, origin_us: int) -> Constant:
    said = _plain(table.raw("value"))
    unit = _unit(table, origin_us)
    try:
        return Constant(said=said, value=unit.of(said))
    except ReplayRefused as error:
        if unit.name:
            raise table.refuse("value", str(error)) from error
        return Constant(said=said, value=None)


def _arithmetic(table: Table, origin_us: int) -> Arithmetic:
    (sign,) = (name for name in ("plus", "minus", "times") if table.has(name))
    parts = table.take(sign, list)
    if len(parts) < 2:
        raise table.refuse(sign, "needs two values or more")
    return Arithmetic(
        sign=sign,
        parts=tuple(
            value_of(part, f"{table.at(sign)}[{i}]", origin_us) for i, part in enumerate(parts)
        ),
    )
