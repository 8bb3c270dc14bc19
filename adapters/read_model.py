"""The read models in SQL: SQLite or PostgreSQL, through SQLAlchemy Core.

A batch of commits of one ledger is one transaction: the position moves by compare-and-set, then
the rows follow. So rows and position cannot disagree, and a projector that was overtaken while it
slept changes nothing. The whole is disposable: one made by another version of the tables or for
another network is dropped and folded anew.

It is a tracking recorder of the ``eventsourcing`` library: each ledger is one application, its
notification id the number of events that the rows reflect.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from operator import itemgetter
from typing import Any, Final

from eventsourcing.persistence import IntegrityError, Tracking, TrackingRecorder
from sqlalchemy import (
    Connection,
    Engine,
    Table,
    and_,
    bindparam,
    create_engine,
    delete,
    event,
    insert,
    inspect,
    make_url,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError as RowStandsAlready
from sqlalchemy.schema import CreateIndex, CreateTable

from projections.columns import METADATA
from projections.fold import fold, touched
from projections.fold_rows import Key, Row, Rows, primary
from projections.following import Overtaken, Position, ProjectedCommit, unfollowed
from projections.tables import CONSUMED, META, POSITION, VERSION

_ROWS_KEPT: Final = 50_000
_KEYS_AT_ONCE: Final = 300
_WRITE: Final = "synor_write"
_BUSY_S: Final = 10.0


class ReadModelStale(Exception):
    """These tables are of another version or network; ``prepare(rebuild=True)`` makes them anew."""


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
        self._selects: dict[Table, Any] = {}
        self._writes: dict[Table, _Writer] = {}

    def add(self, table: Table, row: Row) -> None:
        """Write a row that no fold reads again: it goes out with the batch and is not kept."""
        self._added.setdefault(table, []).append(row)

    def forget(self) -> None:
        """Drop all that is held: another writer has changed rows, or this batch failed."""
        self._kept.clear()
        self._dirty.clear()
        self._added.clear()

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


class ReadModel(TrackingRecorder):
    """The tables of the read models on one database. Any thread may read; one at a time writes."""

    def __init__(self, url: str) -> None:
        """Open a database by its SQLAlchemy URL: ``sqlite:///…`` or ``postgresql+psycopg://…``."""
        self.engine = _engine(url)
        self._rows = SqlRows()
        self._writing = threading.Lock()
        self._moved = threading.Condition()
        dialect = self.engine.dialect.name
        self._reading = (
            {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
            if dialect == "postgresql"
            else {}
        )

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()

    # Making it

    def prepare(self, genesis: bytes, *, rebuild: bool = False) -> None:
        """Make the tables where there are none.

        Raises ``ReadModelStale`` where they are of another version or network, unless ``rebuild``
        says that they may be dropped: they hold nothing that the ledger does not.
        """
        named = {"schema": schema_digest(self.engine), "genesis": genesis.hex()}
        with self._writing, self._write() as connection:
            METADATA.create_all(connection, tables=[META])
            found = {row.name: row.value for row in connection.execute(select(META))}
            if found != named:
                if found and not rebuild:
                    raise ReadModelStale(f"the read model is of {found}, this program's of {named}")
                rebuild = True
            if rebuild:
                METADATA.drop_all(connection)
            METADATA.create_all(connection)
            if rebuild:
                rows = [{"name": name, "value": value} for name, value in named.items()]
                connection.execute(insert(META), rows)
            self._rows.forget()

    def is_of(self, genesis: bytes) -> bool:
        """Whether there are rows of this network; asks only, where ``prepare`` makes tables."""
        with self.reading() as connection:
            if not inspect(connection).has_table(META.name):
                return False
            chosen = select(META.c.value).where(META.c.name == "genesis")
            return connection.execute(chosen).scalar() == genesis.hex()

    # Positions

    def position(self, application: str) -> Position:
        """How far a ledger was followed; before its first commit where it never was."""
        with self.reading() as connection:
            return position_in(connection, application)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection on which every statement sees one and the same state."""
        opened = self.engine.connect().execution_options(**self._reading)
        with opened as connection, connection.begin():
            yield connection

    def apply(self, before: Position, after: Position, commits: Sequence[ProjectedCommit]) -> None:
        """Take commits and the position after them, all or nothing.

        Raises ``Overtaken`` unless the position still is ``before``.
        """
        with self._writing, self._write() as connection:
            self._compare_and_set(connection, before, after)
            if commits:
                with self._rows.batch(connection):
                    self._fold(commits)
                self._consume(connection, after.application, commits)
        with self._moved:
            self._moved.notify_all()

    def _fold(self, commits: Sequence[ProjectedCommit]) -> None:
        rows = self._rows
        ledger = next((at.ledger for each in commits for at, _, _ in each.events), None)
        if ledger is None:
            return
        rows.prefetch(touched(ledger, (said for each in commits for _, _, said in each.events)))
        for each in commits:
            for at, recorded, said in each.events:
                fold(rows, at, recorded, said)

    def _consume(
        self, connection: Connection, application: str, commits: Sequence[ProjectedCommit]
    ) -> None:
        last = {
            (topic, partition): following
            for each in commits
            for topic, partition, following in each.consumed
        }
        if last:
            rows = [
                {"application": application, "topic": topic, "partition": partition, "next": next_}
                for (topic, partition), next_ in last.items()
            ]
            connection.execute(upsert(CONSUMED, connection), rows)

    def _compare_and_set(self, connection: Connection, before: Position, after: Position) -> None:
        values = asdict(after)
        if before.height < 0 and before.next_offset == 0 and before.notification_id is None:
            try:
                with connection.begin_nested():
                    connection.execute(insert(POSITION), values)
            except RowStandsAlready:
                pass
            else:
                return
        unmoved = and_(
            POSITION.c.application == before.application,
            POSITION.c.height == before.height,
            POSITION.c.hash == before.hash,
            POSITION.c.next_offset == before.next_offset,
        )
        if connection.execute(update(POSITION).where(unmoved), values).rowcount != 1:
            self._rows.forget()
            raise Overtaken(f"{before.application} is no longer at height {before.height}")

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        opened = self.engine.connect().execution_options(**{_WRITE: True})
        with opened as connection, connection.begin():
            yield connection

    # The library's tracking recorder

    def insert_tracking(self, tracking: Tracking) -> None:
        """Record progress alone; raises the library's ``IntegrityError`` unless it is progress."""
        name, number = tracking.application_name, tracking.notification_id
        with self._writing, self._write() as connection:
            behind = or_(POSITION.c.notification_id.is_(None), POSITION.c.notification_id < number)
            moved = update(POSITION).where(POSITION.c.application == name, behind)
            if connection.execute(moved.values(notification_id=number)).rowcount == 1:
                return
            if connection.scalar(select(POSITION.c.height).filter_by(application=name)) is not None:
                raise IntegrityError(f"{name} was followed to {number} already")
            first = replace(unfollowed(name), notification_id=number)
            connection.execute(insert(POSITION), asdict(first))

    def max_tracking_id(self, application_name: str) -> int | None:
        """How many events of an application the rows reflect."""
        return self.position(application_name).notification_id

    def await_move(self, timeout_s: float) -> None:
        """Return when this process has written a batch, or when the time has passed."""
        with self._moved:
            self._moved.wait(timeout_s)


def position_in(connection: Connection, application: str) -> Position:
    """A ledger's position as of the connection's transaction."""
    chosen = select(POSITION).where(POSITION.c.application == application)
    row = connection.execute(chosen).mappings().first()
    return unfollowed(application) if row is None else Position(**row)


def schema_digest(engine: Engine) -> str:
    """Names the tables and the version of the folds that fill them."""
    made: list[Any] = []
    for table in METADATA.sorted_tables:
        made.append(CreateTable(table))
        made += [CreateIndex(index) for index in sorted(table.indexes, key=lambda i: str(i.name))]
    text = "\n".join(str(each.compile(engine)) for each in made)
    return f"{VERSION}-{hashlib.sha256(text.encode()).hexdigest()}"


def _engine(url: str) -> Engine:
    if make_url(url).get_backend_name() != "sqlite":
        return create_engine(url)
    engine = create_engine(url, connect_args={"timeout": _BUSY_S})

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _: object) -> None:
        # The driver must not begin transactions by itself: it does so for writes only, and
        # answers are to be read from one state.
        connection.isolation_level = None
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "cache_size=-65536"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        write = connection.get_execution_options().get(_WRITE, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine
