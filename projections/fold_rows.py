"""What every projection shares: rows by primary key, and where an event stands.

A projection is a table of plain functions from one event to changes of rows. It reads rows only
through ``Rows``, so the same code folds into memory (tests, the law that SQL equals a plain fold)
and into SQL (the read model, which loads what it lacks and writes what changed).

Each table is written from one kind of ledger alone: ledgers are followed independently, and their
interleaving must not be seen in the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from typing import Any, Final

from sqlalchemy import BigInteger, Boolean, String, Table

from domain.commit import Ledger
from projections.columns import Wide

Row = dict[str, Any]
Key = tuple[Any, ...]

#: Why a fold may fail on one event, by name.
MISSING_ROW: Final = "missing_row"
OUT_OF_RANGE: Final = "out_of_range"
UNSTORABLE_TEXT: Final = "unstorable_text"

_LONG: Final = 2**63
_WIDE: Final = 2**127


class Unfoldable(Exception):
    """An event that the rows cannot take, for a named reason: it is held, others go on.

    Everything else that a fold raises is a bug and stops the process.
    """

    def __init__(self, reason: str, why: str) -> None:
        """Say which of the named reasons, and the figures."""
        super().__init__(f"{reason}: {why}")
        self.reason = reason
        self.why = why


@dataclass(frozen=True, slots=True)
class At:
    """Where an event stands: ``position`` is its leaf number in the ledger, from 1."""

    ledger: Ledger
    shard: int
    height: int
    position: int
    name: str  # Avro full name of the event


#: In place of a row that was not kept when it was written.
_UNSEEN: Final[Row] = {}


class Rows:
    """Rows by table and primary key. This one is in memory and complete; SQL's loads on demand."""

    def __init__(self) -> None:
        """Start with no row."""
        self._kept: dict[Table, dict[Key, Row | None]] = {}
        self._before: dict[tuple[Table, Key], Row | None] | None = None

    def begin(self) -> None:
        """From here on changes can be taken back."""
        self._before = {}

    def keep(self) -> None:
        """The changes since ``begin`` stay."""
        self._before = None

    def undo(self) -> None:
        """Take back every change since ``begin``."""
        for (table, key), before in (self._before or {}).items():
            if before is _UNSEEN:
                del self._kept[table][key]
                self._unchanged(table, key)
            else:
                self._kept[table][key] = before
        self._before = None

    def get(self, table: Table, *key: Any) -> Mapping[str, Any] | None:
        """The row of a key, to be read only; ``change`` and ``put`` write."""
        kept = self._kept.get(table)
        if kept is None:
            kept = self._kept[table] = {}
        try:
            return kept[key]
        except KeyError:
            row = kept[key] = self._load(table, key)
            return row

    def known(self, table: Table, *key: Any) -> Mapping[str, Any]:
        """The row of a key that an earlier event must have made. Raises ``Unfoldable``."""
        row = self.get(table, *key)
        if row is None:
            named = ", ".join(each.hex() if isinstance(each, bytes) else str(each) for each in key)
            raise Unfoldable(MISSING_ROW, f"there is no {table.name} {named}")
        return row

    def put(self, table: Table, row: Row) -> None:
        """Write a whole row, new or not. Raises ``Unfoldable``."""
        fits(table, row)
        key = tuple(row[name] for name in primary(table))
        kept = self._kept.get(table)
        if kept is None:
            kept = self._kept[table] = {}
        if self._before is not None and (table, key) not in self._before:
            self._save(table, key)
        kept[key] = row
        self._changed(table, key)

    def change(self, table: Table, *key: Any, **values: Any) -> None:
        """Write some columns of a row that an earlier event must have made."""
        row = self.known(table, *key)
        fits(table, values)
        if self._before is not None and (table, key) not in self._before:
            self._save(table, key)
        row.update(values)  # type: ignore[attr-defined]
        self._changed(table, key)

    def delete(self, table: Table, *key: Any) -> None:
        """Remove a row if there is one."""
        if self._before is not None and (table, key) not in self._before:
            self._save(table, key)
        self._kept.setdefault(table, {})[key] = None
        self._changed(table, key)

    def add(self, table: Table, row: Row) -> None:
        """Write a row that no fold reads again: journals, history."""
        self.put(table, row)

    def contents(self, table: Table) -> dict[Key, Row]:
        """Every row of a table by its key."""
        return {key: row for key, row in self._kept.get(table, {}).items() if row is not None}

    def _save(self, table: Table, key: Key) -> None:
        assert self._before is not None
        row = self._kept.get(table, {}).get(key, _UNSEEN)
        self._before[table, key] = dict(row) if row else row

    def _load(self, table: Table, key: Key) -> Row | None:
        """A row that is not kept; in memory there is none."""
        return None

    def _changed(self, table: Table, key: Key) -> None:
        """Take notice that a row was written; memory needs no notice."""

    def _unchanged(self, table: Table, key: Key) -> None:
        """Take notice that a row that was not even read before was not written after all."""


Handler = Callable[[Rows, At, Any], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Projection:
    """One read model: from which ledger, into which tables, by which functions."""

    name: str
    ledger: Ledger
    tables: tuple[Table, ...]
    handlers: Mapping[type[Any], Handler]
    #: It shows money: where it cannot take an event it stops, since a wrong sum is worse than none.
    money: bool = False


_AS_THEY_ARE: Final = frozenset({int, bytes, str, bool, type(None)})
_BOUNDS: Final[dict[Table, dict[str, int]]] = {}
_PRIMARY: Final[dict[Table, tuple[str, ...]]] = {}
_EMPTY: Final[dict[Table, Row]] = {}
_NESTED: Final[dict[type[Any], tuple[str, ...]]] = {}
_COPIED: Final[dict[tuple[type[Any], Table], tuple[str, ...]]] = {}


def fits(table: Table, values: Mapping[str, Any]) -> None:
    """Whether columns can hold the values, in either database. Raises ``Unfoldable``."""
    bounds = _BOUNDS.get(table)
    if bounds is None:
        bounds = _BOUNDS[table] = _bounds(table)
    for name, value in values.items():
        if value is None:
            continue
        bound = bounds.get(name)
        if bound is None:
            continue
        if bound:
            if not -bound <= value < bound:
                raise Unfoldable(OUT_OF_RANGE, f"{table.name}.{name} cannot hold {value}")
        elif "\0" in value:
            raise Unfoldable(UNSTORABLE_TEXT, f"{table.name}.{name} cannot hold {value!r}")


def _bounds(table: Table) -> dict[str, int]:
    """The bound of each column of numbers; 0 for text. Bytes, truths and lists have none."""
    found = {}
    for column in table.columns:
        if isinstance(column.type, Wide):
            found[column.name] = _WIDE
        elif isinstance(column.type, BigInteger):
            found[column.name] = _LONG
        elif isinstance(column.type, String) and not isinstance(column.type, Boolean):
            found[column.name] = 0
    return found


def primary(table: Table) -> tuple[str, ...]:
    """Names of a table's key columns."""
    names = _PRIMARY.get(table)
    if names is None:
        names = _PRIMARY[table] = tuple(column.name for column in table.primary_key.columns)
    return names


def made(table: Table, values: Row) -> Row:
    """A whole row: the values given, and nothing in every other column."""
    empty = _EMPTY.get(table)
    if empty is None:
        empty = _EMPTY[table] = {column.name: None for column in table.columns}
    return {**empty, **values}


def copied(event: Any, table: Table, **values: Any) -> Row:
    """A whole row with the event's fields that are columns of the table, and the values given."""
    kind = type(event)
    names = _COPIED.get((kind, table))
    if names is None:
        columns = {column.name for column in table.columns}
        names = tuple(field.name for field in fields(kind) if field.name in columns)
        _COPIED[kind, table] = names
    row = made(table, values)
    for name in names:
        value = getattr(event, name)
        if name not in values:
            row[name] = value if type(value) in _AS_THEY_ARE else plain(value)
    return row


def plain(value: Any) -> Any:
    """A field as a column keeps it: an enum by its value, a tuple as a list for JSON."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, tuple):
        return [nested(each) for each in value]
    return value


def nested(value: Any) -> Any:
    """A value within JSON: bytes in hex, records as objects."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, tuple):
        return [nested(each) for each in value]
    if isinstance(value, Enum):
        return value.value
    kind = type(value)
    names = _NESTED.get(kind)
    if names is None:
        names = tuple(field.name for field in fields(kind)) if is_dataclass(kind) else ()
        _NESTED[kind] = names
    return {name: nested(getattr(value, name)) for name in names} if names else value
