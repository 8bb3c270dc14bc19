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
from typing import Any, Final

from eventsourcing.persistence import IntegrityError, Tracking, TrackingRecorder
from sqlalchemy import (
    Connection,
    Engine,
    and_,
    create_engine,
    event,
    insert,
    inspect,
    make_url,
    or_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError as RowStandsAlready
from sqlalchemy.schema import CreateIndex, CreateTable

from adapters.read_model_rows import SqlRows, upsert
from projections.columns import METADATA
from projections.fold import fold, touched
from projections.following import Overtaken, Position, ProjectedCommit, unfollowed
from projections.tables import CONSUMED, META, POSITION, VERSION

_WRITE: Final = "synor_write"
_BUSY_S: Final = 10.0


class ReadModelStale(Exception):
    """These tables are of another version or network; ``prepare(rebuild=True)`` makes them anew."""


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
