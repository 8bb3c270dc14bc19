"""Rows of the read models in a database: loaded when a fold asks, written once per batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from operator import itemgetter
from typing import Any, Final

from sqlalchemy import Connection, Table, and_, bindparam, delete, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite

from projections.fold_rows import Key, Row, Rows, fits, primary

_ROWS_KEPT: Final = 50_000
_KEYS_AT_ONCE: Final = 300


class SqlRows(Rows):
    """Rows that are loaded when asked for and written back once per batch.

    Rows are kept over batches: there is one writer at a time, and one that was overtaken forgets.
    """

    def __init__(self) -> None:
        """Hold no row yet."""
        super().__init__()
        self._connection: Connection | None = None
        self._dirty: dict[Table, dict[Key, None]] = {}
        self._added: dict[Table, list[Row]] = {}
        self._lengths: dict[Table, int] = {}
        self._selects: dict[Table, Any] = {}
        self._writes: dict[Table, _Writer] = {}

    def add(self, table: Table, row: Row) -> None:
        """Write a row that no fold reads again: it goes out with the batch and is not kept."""
        fits(table, row)
        self._added.setdefault(table, []).append(row)

    def begin(self) -> None:
        """Also of rows that are only added."""
        super().begin()
        self._lengths = {table: len(rows) for table, rows in self._added.items()}

    def undo(self) -> None:
        """Also of rows that are only added."""
        super().undo()
        for table, rows in self._added.items():
            del rows[self._lengths.get(table, 0) :]

    def forget(self) -> None:
        """Drop all that is held: another writer has changed rows, or this batch failed."""
        self._kept.clear()
        self._dirty.clear()
        self._added.clear()
        self._before = None

    @contextmanager
    def batch(self, connection: Connection) -> Iterator[None]:
        """Read through a connection; the rows are written to it at the end."""
        self._connection = connection
        try:
            yield
            self._flush(connection)
        except BaseException:
            self.forget()
            raise
        finally:
            self._connection = None
        if sum(map(len, self._kept.values())) > _ROWS_KEPT:
            self._kept.clear()

    def prefetch(self, wanted: Iterator[tuple[Table, Key]]) -> None:
        """Load rows by the hundred that the batch would else load one by one."""
        missing: dict[Table, dict[Key, None]] = {}
        for table, key in wanted:
            if key not in self._kept.setdefault(table, {}):
                missing.setdefault(table, {})[key] = None
        for table, keys in missing.items():
            todo = list(keys)
            for start in range(0, len(todo), _KEYS_AT_ONCE):
                self._load_many(table, todo[start : start + _KEYS_AT_ONCE])

    def _load_many(self, table: Table, keys: list[Key]) -> None:
        columns = list(table.primary_key.columns)
        if len(columns) == 1:
            chosen = columns[0].in_([key[0] for key in keys])
        else:
            chosen = tuple_(*columns).in_(keys)
        kept: dict[Key, Row | None] = self._kept[table]
        kept.update(dict.fromkeys(keys))
        names = primary(table)
        for found in self._open().execute(select(table).where(chosen)).mappings():
            kept[tuple(found[name] for name in names)] = dict(found)

    def _load(self, table: Table, key: Key) -> Row | None:
        statement = self._selects.get(table)
        if statement is None:
            matches = [column == bindparam(f"k_{column.name}") for column in table.primary_key]
            statement = self._selects[table] = select(table).where(and_(*matches))
        given = {f"k_{name}": value for name, value in zip(primary(table), key, strict=True)}
        found = self._open().execute(statement, given).mappings().first()
        return None if found is None else dict(found)

    def _changed(self, table: Table, key: Key) -> None:
        self._dirty.setdefault(table, {})[key] = None

    def _unchanged(self, table: Table, key: Key) -> None:
        self._dirty[table].pop(key, None)

    def _open(self) -> Connection:
        if self._connection is None:
            raise RuntimeError("rows are read within a batch")
        return self._connection

    def _flush(self, connection: Connection) -> None:
        for table, keys in self._dirty.items():
            kept = self._kept[table]
            rows = [row for key in keys if (row := kept[key]) is not None]
            gone = [key for key in keys if kept[key] is None]
            if gone:
                columns = table.primary_key.columns
                matches = [column == bindparam(f"k_{column.name}") for column in columns]
                names = [f"k_{name}" for name in primary(table)]
                connection.execute(
                    delete(table).where(and_(*matches)),
                    [dict(zip(names, key, strict=True)) for key in gone],
                )
            if rows:
                self._write(table, connection, rows)
        for table, rows in self._added.items():
            if rows:
                self._write(table, connection, rows)
        self._dirty.clear()
        self._added.clear()

    def _write(self, table: Table, connection: Connection, rows: list[Row]) -> None:
        writer = self._writes.get(table)
        if writer is None:
            writer = self._writes[table] = _Writer(table, connection)
        connection.exec_driver_sql(writer.sql, writer.parameters(rows))


class _Writer:
    """The upsert of one table in the driver's own terms: half the cost of a batch otherwise."""

    def __init__(self, table: Table, connection: Connection) -> None:
        dialect = connection.dialect
        compiled = upsert(table, connection).compile(
            dialect=dialect, column_keys=[column.name for column in table.columns]
        )
        self.sql = str(compiled)
        self._names: Sequence[str] | None = compiled.positiontup if compiled.positional else None
        found = {
            column.name: column.type.dialect_impl(dialect).bind_processor(dialect)
            for column in table.columns
        }
        self._convert = [(name, convert) for name, convert in found.items() if convert is not None]

    def parameters(self, rows: list[Row]) -> list[Any]:
        """The rows as the driver takes them."""
        if self._convert:
            rows = [dict(row) for row in rows]
            for name, convert in self._convert:
                for row in rows:
                    row[name] = convert(row[name])
        if self._names is None:
            return rows
        return [*map(itemgetter(*self._names), rows)]


def upsert(table: Table, connection: Connection) -> Any:
    """An insert that replaces the row of the same key, in either database."""
    keys = list(primary(table))
    others = [column.name for column in table.columns if column.name not in keys]
    making: Any = (
        postgresql.insert(table)
        if connection.dialect.name == "postgresql"
        else sqlite.insert(table)
    )
    if not others:
        return making.on_conflict_do_nothing(index_elements=keys)
    return making.on_conflict_do_update(
        index_elements=keys, set_={name: making.excluded[name] for name in others}
    )
