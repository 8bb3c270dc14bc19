"""The file in which a person writes what a new network shall be: its genesis and its shards.

Every parameter of the rules may stand in it; one that is a time is written without its ``_us`` as
a duration (``round = "2s"``), any other as its number. What is left out has its default.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

from adapters.cli_failures import Asked
from adapters.cli_units import duration
from domain.genesis import Parameters, broken_bounds

_TIME: Final = "_us"
SHARDS: Final = 16
SHARDS_IN_ONE_PROCESS: Final = 4
SHARDS_MAX: Final = 4096

#: A market in which everything happens while one watches.
FAST: Final[Mapping[str, str | int]] = {
    "round": "2s",
    "beat": "2s",
    "grace": "10s",
    "grace_max": "10s",
    "node_down": "1m",
    "usage_window": "10s",
    "closing": "20s",
    "ready_within": "5m",
    "reject_within": "1m",
    "minimum_charge": "10s",
    "first_hour": "30s",
    "reclaim_notice": "10s",
    "idle": "10s",
    "epoch": "1m",
    "maturity": "30s",
    "pot": "1m",
    "dispute": "1m",
    "verdict": "3m",
    "sla_window": "5m",
    "evidence_age": "5m",
    "unbonding": "10m",
    "stake_hours": 10,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a person wants of a new network."""

    name: str
    shards: int
    parameters: Parameters


def wanted(file: Path | None, *, fast: bool, name: str, shards: int) -> Wanted:
    """Read the file, if there is one, over the defaults (or those of ``fast``)."""
    parameters = _with(Parameters(), FAST, "the fast genesis") if fast else Parameters()
    if file is not None:
        found = _read(file)
        name = _text(file, found, "network", name)
        shards = _whole(file, found, "shards", shards)
        parameters = _with(parameters, _table(file, found), str(file))
        for left in found:
            raise Asked(
                f"{file}: {left} is not known here.", "Known: network, shards, [parameters]."
            )
    if not 1 <= shards <= SHARDS_MAX:
        raise Asked(
            f"{shards} shards are not possible.", f"Take 1 to {SHARDS_MAX}; it is for life."
        )
    if not name.strip() or len(name) > 64:
        raise Asked("The name of the network is empty or longer than 64 characters.")
    wrong = broken_bounds(parameters)
    if wrong:
        raise Asked(f"The parameters do not fit together: {'; '.join(wrong)}.")
    return Wanted(name=name, shards=shards, parameters=parameters)


def _read(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as opened:
            return tomllib.load(opened)
    except OSError as error:
        raise Asked(f"{file} cannot be read: {error.strerror or error}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Asked(f"{file} is no TOML: {error}.") from error


def _text(file: Path, found: dict[str, Any], field: str, default: str) -> str:
    value = found.pop(field, default)
    if not isinstance(value, str):
        raise Asked(f"{file}: {field} is {value!r}, and must be a text.")
    return value


def _whole(file: Path, found: dict[str, Any], field: str, default: int) -> int:
    value = found.pop(field, default)
    if not isinstance(value, int) or isinstance(value, bool):
        raise Asked(f"{file}: {field} is {value!r}, and must be a whole number.")
    return value


def _table(file: Path, found: dict[str, Any]) -> Mapping[str, Any]:
    value = found.pop("parameters", {})
    if not isinstance(value, dict):
        raise Asked(f"{file}: parameters is {value!r}, and must be a table.")
    return value


def _with(parameters: Parameters, given: Mapping[str, Any], where: str) -> Parameters:
    names = {field.name.removesuffix(_TIME): field.name for field in fields(Parameters)}
    changes: dict[str, int] = {}
    for name, value in given.items():
        known = names.get(name)
        if known is None:
            near = difflib.get_close_matches(name, names, n=1)
            raise Asked(
                f"{where}: {name} is not a parameter.",
                f"Is {near[0]} meant?" if near else f"Known: {', '.join(sorted(names))}.",
            )
        if known.endswith(_TIME) and isinstance(value, str):
            changes[known] = duration(value)
        elif not known.endswith(_TIME) and isinstance(value, int) and not isinstance(value, bool):
            changes[known] = value
        else:
            wanted = 'a duration as in "10m"' if known.endswith(_TIME) else "a whole number"
            raise Asked(f"{where}: {name} is {value!r}, and must be {wanted}.")
    return replace(parameters, **changes)
