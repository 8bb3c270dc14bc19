"""Whether one version of a schema can read what another has written, by Avro's resolution rules.

Two directions, over all pairs of versions (transitive). An **event** stands in ledgers for ever and
is read by programs older and newer than its writer: FULL, each version reads every other. An
**input** is written by producers that may be ahead of the program: FORWARD, every older version
reads what a newer one writes. A finding names the record, the field, and what would do.

Versions of one record are the full names that differ in their version alone
(``synor.lease.v1.LeaseOpened``, ``synor.lease.v2.LeaseOpened``), and what ``history/`` keeps of an
earlier release under the same full name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Final

from schemas.derive import Json, fingerprint

HISTORY: Final = Path(__file__).parent / "history"
#: Full names of inputs; all others are events or stand in ledgers.
INPUTS: Final = re.compile(r"synor\.(command|telemetry|input)\.v\d+\.")
_VERSION: Final = re.compile(r"(.*\.)v(\d+)(\.[^.]+)")
#: What a reader of the key's type may take from a writer besides its own type.
_PROMOTED: Final[Mapping[str, tuple[str, ...]]] = {
    "long": ("int",),
    "float": ("int", "long"),
    "double": ("int", "long", "float"),
    "string": ("bytes",),
    "bytes": ("string",),
}
_NAMED: Final = ("record", "enum", "fixed")
#: A fraction of a second; the largest record of ours takes some hundred.
_COMPARISONS_MAX: Final = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One version of a record: where it stands, and its schema."""

    name: str
    schema: Json


def broken(current: Mapping[str, Json], history: Mapping[str, Mapping[str, Json]]) -> Iterator[str]:
    """What is incompatible among all versions of all records, a sentence each.

    ``history`` has the schemas of earlier releases by full name, under the name of the release.
    """
    for older, newer in _pairs(current, history):
        inputs = INPUTS.match(newer.name) is not None
        # Forward: who knows only the older one reads what the newer one writes.
        for why in unreadable(reader=older.schema, writer=newer.schema):
            yield f"{newer.name} cannot be read as {older.name}: {why}"
        if not inputs:
            for why in unreadable(reader=newer.schema, writer=older.schema):
                yield f"{older.name} cannot be read as {newer.name}: {why}"


def reshaped(
    current: Mapping[str, Json], history: Mapping[str, Mapping[str, Json]]
) -> Iterator[str]:
    """What a release has under a full name that is another record now, or none, a sentence each.

    Stricter than ``broken``: our codec reads a full name by its one shape and resolves nothing, so
    even two fields that change places would be read as each other.
    """
    for release, schemas in history.items():
        for name, schema in schemas.items():
            if name not in current:
                yield f"{name} of release {release} is gone; its ledgers could not be read"
            elif fingerprint(schema) != fingerprint(current[name]):
                yield f"{name} is not what it was in release {release}; declare a new full name"


def released() -> dict[str, dict[str, Json]]:
    """The schemas of every released format version."""
    return {
        path.stem: json.loads(path.read_text())
        for path in sorted(HISTORY.glob("*.json"), key=lambda path: (len(path.stem), path.stem))
    }


def _pairs(
    current: Mapping[str, Json], history: Mapping[str, Mapping[str, Json]]
) -> Iterator[tuple[Version, Version]]:
    families: dict[str, list[tuple[int, int, Version]]] = {}
    stands = [*history.items(), ("", current)]
    for place, (release, schemas) in enumerate(stands):
        for name, schema in schemas.items():
            matched = _VERSION.fullmatch(name)
            family, number = (matched[1] + matched[3], int(matched[2])) if matched else (name, 0)
            shown = f"{name} of release {release}" if release else name
            versions = families.setdefault(family, [])
            versions.append((number, place, Version(name=shown, schema=schema)))
    for versions in families.values():
        versions.sort(key=lambda version: version[:2])
        for (_, _, older), (_, _, newer) in combinations(versions, 2):
            if older.schema != newer.schema:
                yield older, newer


class TooIntricate(ValueError):
    """Schemas whose comparison would take more than schemas of people ever do."""


def unreadable(*, reader: Json, writer: Json) -> list[str]:
    """Why data of ``writer`` cannot be read with ``reader``; empty where it can.

    Raises ``TooIntricate`` after a bounded amount of work: a schema may be a stranger's.
    """
    return _Resolution(reader, writer).run()


class _Resolution:
    """One comparison; types are named at their first use and referred to after it."""

    def __init__(self, reader: Json, writer: Json) -> None:
        self._reader, self._writer = reader, writer
        self._readers = _definitions(reader)
        self._writers = _definitions(writer)
        #: By a pair of records: what was found, nothing yet while it is under way.
        self._found: dict[tuple[int, int], list[str]] = {}
        self._left = _COMPARISONS_MAX

    def run(self) -> list[str]:
        return self._compare(self._reader, self._writer, "")

    def _compare(self, reader: Json, writer: Json, path: str) -> list[str]:
        self._left -= 1
        if self._left < 0:
            raise TooIntricate("these schemas take too long to compare")
        reader, writer = self._named(reader, self._readers), self._named(writer, self._writers)
        if isinstance(writer, list):
            return [why for branch in writer for why in self._compare(reader, branch, path)]
        if isinstance(reader, list):
            findings = [self._compare(branch, writer, path) for branch in reader]
            if any(not found for found in findings):
                return []
            fitting = [
                found
                for branch, found in zip(reader, findings, strict=True)
                if _kind(self._named(branch, self._readers)) == _kind(writer)
            ]
            return fitting[0] if fitting else [_at(path, f"{_shown(writer)} is no branch of it")]
        return self._of_kinds(reader, writer, path)

    def _of_kinds(self, reader: Any, writer: Any, path: str) -> list[str]:
        kind, written = _kind(reader), _kind(writer)
        if kind != written:
            if written in _PROMOTED.get(kind, ()):
                return []
            return [_at(path, f"{_shown(writer)} is not {_shown(reader)}; keep the type")]
        if _logical(reader) != _logical(writer):
            return [_at(path, "another logical type means another value; keep it")]
        if kind in _NAMED and _last(reader["name"]) != _last(writer["name"]):
            return [_at(path, f"{writer['name']} is not {reader['name']}; keep the type's name")]
        if kind == "fixed" and reader["size"] != writer["size"]:
            return [_at(path, f"{writer['size']} bytes, not {reader['size']}; keep the size")]
        if kind == "enum":
            return self._symbols(reader, writer, path)
        if kind == "array":
            return self._compare(reader["items"], writer["items"], f"{path}[]")
        if kind == "map":
            return self._compare(reader["values"], writer["values"], f"{path}[]")
        if kind == "record":
            return self._fields(reader, writer, path)
        return []

    @staticmethod
    def _symbols(reader: Any, writer: Any, path: str) -> list[str]:
        unknown = [symbol for symbol in writer["symbols"] if symbol not in reader["symbols"]]
        if not unknown or "default" in reader:
            return []
        more = ", ".join(unknown)
        return [_at(path, f"{more} is no symbol of it; give the enum a default, or a new field")]

    def _fields(self, reader: Any, writer: Any, path: str) -> list[str]:
        pair = id(reader), id(writer)
        if pair in self._found:
            return self._found[pair]
        self._found[pair] = []
        written = {field["name"]: field for field in writer["fields"]}
        found: list[str] = []
        for field in reader["fields"]:
            names = (field["name"], *field.get("aliases", ()))
            source = next((written[name] for name in names if name in written), None)
            where = f"{path}.{field['name']}" if path else str(field["name"])
            if source is not None:
                found += self._compare(field["type"], source["type"], where)
            elif "default" not in field:
                found.append(
                    _at(where, "is not in what is read, and has no default; give it a default")
                )
        # Once each: a record that another names twice would else double them at every level.
        self._found[pair] = list(dict.fromkeys(found))
        return self._found[pair]

    @staticmethod
    def _named(schema: Json, known: Mapping[str, Json]) -> Any:
        return known.get(schema, schema) if isinstance(schema, str) else schema


def _definitions(schema: Json, namespace: str = "") -> dict[str, Json]:
    """Every type that a schema defines, by full name and as it is referred to."""
    found: dict[str, Json] = {}
    if isinstance(schema, list):
        for branch in schema:
            found |= _definitions(branch, namespace)
    elif isinstance(schema, dict):
        space = str(schema.get("namespace", namespace))
        if schema["type"] in _NAMED:
            found[f"{space}.{schema['name']}" if space else str(schema["name"])] = schema
            found.setdefault(str(schema["name"]), schema)
        parts: Sequence[Any] = [
            *(field["type"] for field in schema.get("fields", ())),
            *(schema[key] for key in ("items", "values") if key in schema),
        ]
        for part in parts:
            found |= {k: v for k, v in _definitions(part, space).items() if k not in found}
    return found


def _kind(schema: Any) -> str:
    return schema if isinstance(schema, str) else str(schema["type"])


def _logical(schema: Any) -> Any:
    if not isinstance(schema, dict):
        return None
    return tuple(schema.get(key) for key in ("logicalType", "precision", "scale"))


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _shown(schema: Any) -> str:
    return str(schema["name"]) if isinstance(schema, dict) and "name" in schema else _kind(schema)


def _at(path: str, why: str) -> str:
    return f"{path}: {why}." if path else f"{why}."
