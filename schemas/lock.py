"""The lock file: which number and fingerprint every record type has, for ever.

A recorded event and a Confluent frame name a schema by its number alone, so a number means exactly
one schema. Until the first release the derived schemas may still change; ``released`` ends that:
from then on a released record neither changes nor goes, and a new shape is a new full name
(``….v2``) with a number of its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent
LOCK_FILE: Final = FOLDER / "lock.json"


class Frozen(ValueError):
    """A change that a released lock file does not allow."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One record type: the number that stands for it, and SHA-256 of its normalised schema."""

    number: int
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class Lock:
    """All entries by full name."""

    released: bool
    entries: Mapping[str, Entry]

    def updated(self, fingerprints: Mapping[str, bytes], *, release: bool = False) -> Lock:
        """The lock for these schemas: known names keep their number, new ones get the next.

        Raises ``Frozen`` where a released record would change or go.
        """
        if self.released:
            for name, entry in self.entries.items():
                if fingerprints.get(name) != entry.fingerprint:
                    raise Frozen(f"{name} is released: declare a new full name instead")
        kept = {name: entry for name, entry in self.entries.items() if name in fingerprints}
        free = max((entry.number for entry in self.entries.values()), default=0) + 1
        new = sorted(set(fingerprints) - set(kept))
        numbers = {name: entry.number for name, entry in kept.items()}
        numbers |= {name: free + index for index, name in enumerate(new)}
        return Lock(
            released=self.released or release,
            entries={name: Entry(numbers[name], fingerprints[name]) for name in fingerprints},
        )

    def to_json(self) -> str:
        """The file's text: entries in order of their numbers, so that additions stand last."""
        in_order = sorted(self.entries.items(), key=lambda item: item[1].number)
        records = {
            name: {"number": entry.number, "fingerprint": entry.fingerprint.hex()}
            for name, entry in in_order
        }
        return json.dumps({"released": self.released, "records": records}, indent=2) + "\n"


def parse(text: str) -> Lock:
    """The lock of a file's text; raises ``ValueError`` where a number is used twice."""
    raw = json.loads(text)
    entries = {
        name: Entry(entry["number"], bytes.fromhex(entry["fingerprint"]))
        for name, entry in raw["records"].items()
    }
    if len({entry.number for entry in entries.values()}) != len(entries):
        raise ValueError("the lock file uses a number twice")
    return Lock(released=raw["released"], entries=entries)


def committed() -> Lock:
    """The lock file of this checkout or installation; empty where there is none yet."""
    if not LOCK_FILE.exists():
        return Lock(released=False, entries={})
    return parse(LOCK_FILE.read_text())
