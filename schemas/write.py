"""Writes the committed form of the schemas, or says how it differs; what ``scripts/schemas`` runs.

One file per record, so that a reader in another language needs a single file and a change shows in
a review as the change of one schema.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from schemas.compatibility import broken, released, reshaped
from schemas.derive import Json, Underivable, Widths, fingerprint, schema_of
from schemas.lock import FOLDER, LOCK_FILE, Frozen, Lock, committed

SUFFIX = ".avsc"


def derived(records: Mapping[str, type[Any]], widths: Widths) -> dict[str, Json]:
    """The schema of every record by name; raises ``Underivable`` where a name means two types."""
    schemas = {name: schema_of(kind, widths) for name, kind in records.items()}
    meanings: dict[str, bytes] = {}
    for schema in schemas.values():
        for full, definition in _definitions(schema):
            if meanings.setdefault(full, fingerprint(definition)) != fingerprint(definition):
                raise Underivable(f"{full} means one type in one record and another in another")
    return schemas


def _definitions(schema: Json) -> Iterator[tuple[str, Json]]:
    """Every enum and fixed that a schema defines; records are named once by ``RECORDS``."""
    if isinstance(schema, list):
        for branch in schema:
            yield from _definitions(branch)
    elif isinstance(schema, dict):
        if schema["type"] in ("enum", "fixed"):
            yield f"{schema['namespace']}.{schema['name']}", schema
        elif schema["type"] == "record":
            for field in schema["fields"]:
                yield from _definitions(field["type"])
        elif schema["type"] == "array":
            yield from _definitions(schema["items"])


def files(schemas: Mapping[str, Json], lock: Lock) -> dict[Path, str]:
    """The text of every file that should be committed."""
    made = {
        FOLDER / f"{name}{SUFFIX}": json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
        for name, schema in schemas.items()
    }
    made[LOCK_FILE] = lock.to_json()
    return made


def differences(expected: Mapping[Path, str]) -> list[Path]:
    """Files that are missing, differ, or are schemas of no record."""
    wrong = [
        path for path, text in expected.items() if not path.exists() or path.read_text() != text
    ]
    return sorted([*wrong, *(set(FOLDER.glob(f"*{SUFFIX}")) - set(expected))])


def main(records: Mapping[str, type[Any]], widths: Widths, arguments: Sequence[str]) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="scripts/schemas", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if files differ")
    parser.add_argument("--release", action="store_true", help="freeze all records for ever")
    asked = parser.parse_args(arguments)
    try:
        schemas = derived(records, widths)
        fingerprints = {name: fingerprint(schema) for name, schema in schemas.items()}
        lock = committed().updated(fingerprints, release=asked.release)
    except (Underivable, Frozen) as reason:
        print(f"schemas: {reason}", file=sys.stderr)
        return 1
    history = released()
    incompatible = [*broken(schemas, history), *reshaped(schemas, history)]
    for why in incompatible:
        print(f"schemas: {why}", file=sys.stderr)
    if incompatible and not lock.released:
        # Nothing is out yet, so nobody has a ledger that could not be read.
        print(
            "schemas: nothing is released; scripts/golden records the format anew", file=sys.stderr
        )
    if incompatible and (lock.released or asked.check):
        return 1
    expected = files(schemas, lock)
    changed = differences(expected)
    if asked.check:
        for path in changed:
            print(f"schemas: {path.name} is not what the records say", file=sys.stderr)
        return 1 if changed else 0
    for path in changed:
        if path in expected:
            path.write_text(expected[path])
        else:
            path.unlink()
        print(f"schemas: {path.name}", file=sys.stderr)
    return 0
