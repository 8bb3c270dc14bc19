"""Generations of the read models: which one serves, which one is being filled, which is leaving.

A generation is a whole set of tables: a schema of its own in PostgreSQL, a file of its own beside
the named one with SQLite. The catalogue stands in the database that the settings name, and one
transaction on it is the switch from one generation to the next: killed at any instant, either the
old one serves or the new one does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    MetaData,
    String,
    Table,
    create_engine,
    delete,
    event,
    func,
    insert,
    inspect,
    make_url,
    select,
    text,
    update,
)
from sqlalchemy.exc import InterfaceError, OperationalError, ProgrammingError

from domain.ports import LogError

WRITE: Final = "synor_write"
POSTGRESQL: Final = "postgresql"
_BUSY_S: Final = 10.0
#: Everybody who writes the catalogue takes this lock of PostgreSQL first.
_LOCK: Final = 0x73796E6F72

_METADATA: Final = MetaData()
GENERATION: Final = Table(
    "generation",
    _METADATA,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("state", String, nullable=False),
    Column("tables", String, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("genesis", String, nullable=False),
    Column("began_us", BigInteger, nullable=False),
    Column("began_records", BigInteger, nullable=False),
    Column("done_records", BigInteger, nullable=False),
    Column("total_records", BigInteger, nullable=False),
    Column("told_us", BigInteger, nullable=False),
    Column("left_us", BigInteger, nullable=False),
)


class RowsUnavailable(LogError):
    """An operating error of the database: the caller may try again, nothing half is written."""


@contextmanager
def available() -> Iterator[None]:
    """Name what a database that is down, full, locked or shut to us raises within."""
    try:
        yield
    except (OperationalError, InterfaceError) as error:
        raise RowsUnavailable(
            f"The database of the read models cannot be used: {str(error.orig).strip()}"
        ) from error


class State(StrEnum):
    """Where a generation stands."""

    FILLING = "filling"
    SERVING = "serving"
    LEAVING = "leaving"


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What a generation is made by: tables, the version of the folds, the network."""

    tables: str
    version: int
    genesis: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A generation in the catalogue, with how far it is filled as last told."""

    number: int
    state: State
    made: Made
    began_us: int
    began_records: int
    done_records: int
    total_records: int
    told_us: int
    left_us: int

    @property
    def eta_us(self) -> int | None:
        """How long the filling still takes at its pace so far; None before that is known."""
        filled = self.done_records - self.began_records
        left = max(0, self.total_records - self.done_records)
        if filled <= 0:
            return None
        return (self.told_us - self.began_us) * left // filled


class Catalogue:
    """The generations of one database."""

    def __init__(self, url: str) -> None:
        """Open the database that the settings name."""
        self._url = make_url(url)
        self.engine = engine_of(url)
        self._there = False

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()

    def create(self) -> None:
        """Make the catalogue where there is none."""
        with self.writing() as connection:
            _METADATA.create_all(connection)

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that changes the catalogue, one at a time."""
        with (
            available(),
            self.engine.connect().execution_options(**{WRITE: True}) as connection,
            connection.begin(),
        ):
            if self.engine.dialect.name == POSTGRESQL:
                connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
            yield connection

    def entries(self) -> Sequence[Entry]:
        """Every generation, oldest first."""
        if not self._is_there():
            return ()
        with available(), self.engine.connect() as connection, connection.begin():
            return entries_in(connection)

    def serving(self) -> Entry | None:
        """The generation that serves."""
        if not self._is_there():
            return None
        chosen = select(GENERATION).where(GENERATION.c.state == State.SERVING)
        with available(), self.engine.connect() as connection, connection.begin():
            row = connection.execute(chosen).mappings().first()
        return None if row is None else _entry(row)

    def _is_there(self) -> bool:
        """Whether there is a catalogue; who only asks makes none."""
        if not self._there:
            with available():
                self._there = inspect(self.engine).has_table(GENERATION.name)
        return self._there

    def add(self, connection: Connection, state: State, made: Made, now_us: int) -> Entry:
        """A new generation with tables yet to be made."""
        number = (connection.scalar(select(func.max(GENERATION.c.number))) or 0) + 1
        row = {
            "number": number,
            "state": state,
            "tables": made.tables,
            "version": made.version,
            "genesis": made.genesis,
            "began_us": now_us,
            "began_records": 0,
            "done_records": 0,
            "total_records": 0,
            "told_us": now_us,
            "left_us": 0,
        }
        connection.execute(insert(GENERATION), row)
        return _entry(row)

    def keep(self, connection: Connection, entry: Entry) -> None:
        """Write an entry as it stands now."""
        connection.execute(
            update(GENERATION)
            .where(GENERATION.c.number == entry.number)
            .values(
                state=entry.state,
                began_us=entry.began_us,
                began_records=entry.began_records,
                done_records=entry.done_records,
                total_records=entry.total_records,
                told_us=entry.told_us,
                left_us=entry.left_us,
            )
        )

    def open(self, number: int) -> Engine:
        """The database of a generation; its tables may not be there yet."""
        if self._url.get_backend_name() != "sqlite":
            return engine_of(self._url.render_as_string(hide_password=False), _schema(number))
        return engine_of(f"sqlite:///{self._file(number)}")

    @contextmanager
    def room(self, connection: Connection, number: int) -> Iterator[Connection]:
        """A connection on which the tables of a new generation are to be made.

        ``connection`` is the transaction that enters it; nobody sees the generation before its end.
        """
        if self.engine.dialect.name == POSTGRESQL:
            try:
                connection.execute(text(f"CREATE SCHEMA {_schema(number)}"))
            except ProgrammingError as error:
                raise RowsUnavailable(
                    f"The read models need a schema of their own: {str(error.orig).strip()}. "
                    "Let the user create schemas: GRANT CREATE ON DATABASE … TO …"
                ) from error
            connection.execute(text(f"SET LOCAL search_path TO {_schema(number)}"))
            yield connection
            connection.execute(text("SET LOCAL search_path TO DEFAULT"))
            return
        # A file of this number is what a process left that died before it entered it.
        self._unlink(number)
        engine = self.open(number)
        with engine.connect().execution_options(**{WRITE: True}) as there, there.begin():
            yield there
        engine.dispose()

    def drop(self, connection: Connection, number: int) -> None:
        """Remove a generation and its entry."""
        if self.engine.dialect.name == POSTGRESQL:
            connection.execute(text(f"DROP SCHEMA IF EXISTS {_schema(number)} CASCADE"))
        else:
            self._unlink(number)
        connection.execute(delete(GENERATION).where(GENERATION.c.number == number))

    def _unlink(self, number: int) -> None:
        for suffix in ("", "-wal", "-shm"):
            self._file(number, suffix).unlink(missing_ok=True)

    def _file(self, number: int, suffix: str = "") -> Path:
        named = Path(self._url.database or "read.db")
        return named.with_name(f"{named.stem}.g{number}{named.suffix}{suffix}")


def entries_in(connection: Connection) -> Sequence[Entry]:
    """Every generation as of the connection's transaction, oldest first."""
    rows = connection.execute(select(GENERATION).order_by(GENERATION.c.number)).mappings()
    return [_entry(row) for row in rows]


def engine_of(url: str, schema: str | None = None) -> Engine:
    """An engine whose transactions begin as the read models need them."""
    if make_url(url).get_backend_name() != "sqlite":
        engine = create_engine(url)
        if schema is not None:

            @event.listens_for(engine, "connect", insert=True)
            def _search(connection: Any, _: object) -> None:
                # Outside of a transaction, so that no rollback takes it back.
                connection.autocommit = True
                connection.execute(f"SET search_path TO {schema}")
                connection.autocommit = False

        return engine
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
        write = connection.get_execution_options().get(WRITE, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


def _schema(number: int) -> str:
    return f"synor_g{number}"


def _entry(row: Any) -> Entry:
    values = dict(row)
    made = Made(**{name: values.pop(name) for name in ("tables", "version", "genesis")})
    return Entry(state=State(values.pop("state")), made=made, **values)
