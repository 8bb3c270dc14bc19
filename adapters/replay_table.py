"""A table of a mapping that knows where it stands and which of its keys meant something."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from adapters.replay_values import ReplayRefused, duration_us


class Table:
    """A TOML table, read key by key; ``done`` refuses what nobody asked for."""

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

    def table(self, name: str) -> Table:
        return Table(self.take(name, dict, {}), self.at(name))

    def tables(self, name: str) -> list[Table]:
        found = self.take(name, list, [])
        if not all(isinstance(each, dict) for each in found):
            raise self.refuse(name, "is no list of tables")
        return [Table(each, f"{self.at(name)}[{i}]") for i, each in enumerate(found)]

    def duration(self, name: str, default: str) -> int:
        said = self.take(name, str, default)
        try:
            return duration_us(said)
        except ReplayRefused as error:
            raise self.refuse(name, str(error)) from error

    def done(self) -> None:
        if left := sorted(set(self.data) - self._taken):
            near = get_close_matches(left[0], self._taken, 1)
            meant = f"; {near[0]!r} is meant?" if near else ""
            raise self.refuse(left[0], f"is not known here{meant}; known are {sorted(self._taken)}")
