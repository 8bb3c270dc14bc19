"""How events and other values of the API read on a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from adapters.cli_units import (
    shown_amount,
    shown_duration,
    shown_synor,
    shown_thousandths,
    shown_time,
)

#: Fields that say to programs what a person does not ask for.
_LEFT_OUT: Final = frozenset({"postings", "at_us", "order_no", "identities", "positions"})
#: A number of µs beyond this is an instant, below it a duration.
_INSTANT_US: Final = 10**15


def event_lines(event: Mapping[str, Any]) -> Iterator[str]:
    """An event: its name, then its fields, one a line."""
    name = str(event["type"]).rpartition(".")[2]
    yield f"{name}  {shown_time(whole(event['at_us']))}"
    for field, value in event["data"].items():
        if field not in _LEFT_OUT:
            yield f"  {field_name(field)}: {field_value(field, value)}"


def event_line(event: Mapping[str, Any]) -> str:
    """An event's fields on one line."""
    return "  ".join(
        f"{field_name(field)}={field_value(field, value)}"
        for field, value in event["data"].items()
        if field not in _LEFT_OUT and value not in (None, "", [])
    )


def whole(value: Any) -> int:
    """A number of the API, which sends large ones as text."""
    return int(value)


def field_name(field: str) -> str:
    """A field's name without its unit, which stands with the value."""
    for unit in ("_nano", "_us", "_ms", "_milli", "_ppm", "_pp12"):
        field = field.removesuffix(unit)
    return field.replace("_", " ")


def field_value(field: str, value: Any) -> str:
    """A value in the unit that its field's name ends with."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(_item(each) for each in value) or "none"
    if isinstance(value, dict):
        return _item(value)
    if field.endswith("_nano"):
        return f"{shown_synor(whole(value))} SYNOR"
    if field.endswith("_us"):
        us = whole(value)
        return shown_time(us) if us > _INSTANT_US else shown_duration(us)
    if field.endswith("_ms"):
        return f"{whole(value):,} ms"
    if field.endswith("_pp12"):
        return f"{whole(value):,} of 10^12"
    if field == "unit":
        return f"{whole(value):,} base units"
    if field.endswith("_milli"):
        return shown_thousandths(whole(value))
    if field.endswith("_ppm"):
        return f"{percent(whole(value))} %"
    return str(value)


def percent(ppm: int) -> str:
    """Parts per million as a percentage, exact."""
    whole_part, rest = divmod(ppm, 10_000)
    fraction = f"{rest:04d}".rstrip("0")
    return f"{whole_part}{'.' + fraction if fraction else ''}"


def _item(value: Any) -> str:
    if isinstance(value, dict):
        if value.keys() == {"resource", "amount"}:
            return f"{value['resource']} {shown_amount(value['resource'], whole(value['amount']))}"
        if value.keys() == {"resource", "per_second"}:
            return f"{value['resource']} up to {whole(value['per_second']):,}/s"
        return " ".join(f"{field_value(name, each)}" for name, each in value.items())
    return str(value)
