"""One generation of the read models: rows and positions, moved together.

A batch of commits of one ledger is one transaction: the position moves by compare-and-set, then
the rows follow. So rows and position cannot disagree, and a projector that was overtaken while it
slept changes nothing.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, Final

from sqlalchemy import Connection, Engine, and_, insert, select, update
from sqlalchemy.exc import IntegrityError as RowStandsAlready
from sqlalchemy.schema import CreateIndex, CreateTable

from adapters.read_model_catalogue import POSTGRESQL, WRITE, available
from adapters.read_model_rows import SqlRows, upsert
from projections.columns import METADATA
from projections.fold import fold, touched
from projections.following import Overtaken, Position, ProjectedCommit, unfollowed
from projections.tables import CONSUMED, META, POSITION

_REVISION: Final = "revision"


class Generation:
    """The tables of one generation. Any thread may read; one at a time writes."""

    def __init__(self, engine: Engine) -> None:
        """Use a database of its own; its tables may not be there yet."""
        self.engine = engine
        self._rows = SqlRows()
        self._revision = ""
        self._writing = threading.Lock()
        self._reading = (
            {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
            if engine.dialect.name == POSTGRESQL
            else {}
        )

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()

    def position(self, application: str) -> Position:
        """How far a ledger was followed; before its first commit where it never was."""
        with self.reading() as connection:
            return position_in(connection, application)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection on which every statement sees one and the same state."""
        with (
            available(),
            self.engine.connect().execution_options(**self._reading) as connection,
            connection.begin(),
        ):
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that changes rows."""
        with (
            available(),
            self.engine.connect().execution_options(**{WRITE: True}) as connection,
            connection.begin(),
        ):
            yield connection

    def apply(self, before: Position, after: Position, commits: Sequence[ProjectedCommit]) -> None:
        """Take commits and the position after them, all or nothing.

        Raises ``Overtaken`` unless the position still is ``before``.
        """
        with self._writing, self.write() as connection:
            self._lock(connection)
            self._compare_and_set(connection, before, after)
            if commits:
                with self._rows.batch(connection):
                    self._fold(commits)
                self._consume(connection, after.application, commits)

    def mend(self, change: Callable[[SqlRows, Connection], None]) -> None:
        """Change rows outside of following; whoever follows loads its rows anew after that."""
        with self._writing, self.write() as connection:
            revision = int(self._lock(connection)) + 1
            with self._rows.batch(connection):
                change(self._rows, connection)
            named = META.c.name == _REVISION
            connection.execute(update(META).where(named).values(value=str(revision)))
            self._rows.forget()

    def still(self, connection: Connection) -> None:
        """Keep every other writer out until the transaction ends."""
        self._lock(connection)

    def _lock(self, connection: Connection) -> str:
        """One writer at a time; rows that another one has mended are not trusted."""
        chosen = select(META.c.value).filter_by(name=_REVISION).with_for_update()
        revision = connection.execute(chosen).scalar_one()
        if revision != self._revision:
            self._rows.forget()
            self._revision = revision
        return str(revision)

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


def create_tables(connection: Connection) -> None:
    """Make the tables where there is none yet."""
    METADATA.create_all(connection)
    connection.execute(insert(META), {"name": _REVISION, "value": "0"})


def position_in(connection: Connection, application: str) -> Position:
    """A ledger's position as of the connection's transaction."""
    chosen = select(POSITION).where(POSITION.c.application == application)
    row = connection.execute(chosen).mappings().first()
    return unfollowed(application) if row is None else Position(**row)


def heights_in(connection: Connection) -> dict[str, int]:
    """The height of every ledger that was followed."""
    found = connection.execute(select(POSITION.c.application, POSITION.c.height))
    return {row.application: row.height for row in found}


def tables_digest(engine: Engine) -> str:
    """Names the tables: a program reads those that it would make itself."""
    made: list[Any] = []
    for table in METADATA.sorted_tables:
        made.append(CreateTable(table))
        made += [CreateIndex(index) for index in sorted(table.indexes, key=lambda i: str(i.name))]
    text = "\n".join(str(each.compile(engine)) for each in made)
    return hashlib.sha256(text.encode()).hexdigest()
