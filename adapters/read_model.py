"""The read models in SQL: SQLite or PostgreSQL, through SQLAlchemy Core.

They hold nothing that the ledgers do not, so they can always be made anew: a new generation of the
tables is filled while the old one serves, and takes its place in one transaction. A raised
``VERSION`` of the tables asks for that by itself.

It is a tracking recorder of the ``eventsourcing`` library: each ledger is one application, its
notification id the number of events that the rows reflect.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from enum import Enum, auto
from typing import Final

from eventsourcing.persistence import IntegrityError, Tracking, TrackingRecorder
from sqlalchemy import Connection, insert, or_, select, update

from adapters.read_model_catalogue import Catalogue, Entry, Made, State, entries_in
from adapters.read_model_generation import (
    Generation,
    create_tables,
    heights_in,
    tables_digest,
)
from adapters.read_model_rows import SqlRows
from projections.following import Position, ProjectedCommit, unfollowed
from projections.tables import POSITION, VERSION

#: So long a generation that was replaced is kept for those who still read it.
LEAVES_AFTER_US: Final = 60 * 1_000_000


class ReadModelStale(Exception):
    """The read models are of another network, or are not there at all."""


class BeingRebuilt(Exception):
    """What serves was made by another version of the program, and this one cannot use it.

    ``entry`` says how far the new tables are, where filling has begun.
    """

    def __init__(self, entry: Entry | None) -> None:
        """Say how far it is, or what to do."""
        if entry is None:
            text = (
                "The read models were made by another version of this program, and no rebuild has "
                "begun. Run the version that made them, or: synor projections rebuild"
            )
        else:
            text = (
                "The read models are being rebuilt: "
                f"{entry.done_records} of {entry.total_records} records."
            )
        super().__init__(text)
        self.entry = entry


class Standing(Enum):
    """What this program finds in a database."""

    NONE = auto()
    CURRENT = auto()
    OLD_FOLDS = auto()  # it can be read, and not written
    NEWER = auto()  # of a later version of this program
    OLD_TABLES = auto()  # it can be neither
    FOREIGN = auto()  # of another network


class ReadModel(TrackingRecorder):
    """The generation that serves, whichever it is at the moment. Any thread may use it."""

    def __init__(self, url: str) -> None:
        """Open a database by its SQLAlchemy URL: ``sqlite:///…`` or ``postgresql+psycopg://…``."""
        self.catalogue = Catalogue(url)
        self._tables = tables_digest(self.catalogue.engine)
        self._opened: tuple[int, Generation] | None = None
        self._opening = threading.Lock()

    def close(self) -> None:
        """Close every connection."""
        self.catalogue.close()
        if self._opened is not None:
            self._opened[1].close()

    # Making it

    def made(self, genesis: bytes) -> Made:
        """What this program makes of a network."""
        return Made(tables=self._tables, version=VERSION, genesis=genesis.hex())

    def standing(self, genesis: bytes) -> Standing:
        """What there is, as this program can use it."""
        entry = self.catalogue.serving()
        if entry is None:
            return Standing.NONE
        wanted = self.made(genesis)
        if entry.made.genesis != wanted.genesis:
            return Standing.FOREIGN
        if entry.made.version > wanted.version:
            return Standing.NEWER
        if entry.made.tables != wanted.tables:
            return Standing.OLD_TABLES
        return Standing.CURRENT if entry.made == wanted else Standing.OLD_FOLDS

    def prepare(self, genesis: bytes) -> Standing:
        """Make the first generation where there is none; say what there is then.

        Raises ``ReadModelStale`` where it is of another network: two never mix in one database.
        """
        found = self.standing(genesis)
        if found is Standing.FOREIGN:
            raise ReadModelStale(
                "The read models in this database are of another network. Name another database "
                "in [read_model] url, or remove them with: synor projections drop"
            )
        if found is not Standing.NONE:
            return found
        self.catalogue.create()
        with self.catalogue.writing() as connection:
            if all(entry.state is not State.SERVING for entry in entries_in(connection)):
                entry = self.catalogue.add(connection, State.SERVING, self.made(genesis), 0)
                self._make(connection, entry)
        return self.standing(genesis)

    def is_of(self, genesis: bytes) -> bool:
        """Whether there are rows of this network that this program can read; asks only."""
        return self.standing(genesis) in (Standing.CURRENT, Standing.OLD_FOLDS)

    def drop(self) -> None:
        """Remove every generation; the ledgers still hold all of it."""
        self.catalogue.create()
        with self.catalogue.writing() as connection:
            for entry in entries_in(connection):
                self.catalogue.drop(connection, entry.number)
        with self._opening:
            if self._opened is not None:
                self._opened[1].close()
                self._opened = None

    def _make(self, connection: Connection, entry: Entry) -> None:
        with self.catalogue.room(connection, entry.number) as there:
            create_tables(there)

    # Rebuilding it

    def begin(self, genesis: bytes, now_us: int) -> tuple[Entry, Generation]:
        """The generation to be filled: one that somebody began before, or a new one.

        Others that were begun are of no use to anybody and go.
        """
        wanted = self.made(genesis)
        with self.catalogue.writing() as connection:
            found: Entry | None = None
            for entry in entries_in(connection):
                if entry.state is State.FILLING and entry.made == wanted and found is None:
                    found = entry
                elif entry.state is State.FILLING:
                    self.catalogue.drop(connection, entry.number)
            if found is None:
                found = self.catalogue.add(connection, State.FILLING, wanted, now_us)
                self._make(connection, found)
            else:
                # Its pace is measured from here: nobody knows how long it lay idle.
                found = replace(
                    found, began_us=now_us, told_us=now_us, began_records=found.done_records
                )
                self.catalogue.keep(connection, found)
        return found, Generation(self.catalogue.open(found.number))

    def tell(self, entry: Entry, *, done: int, total: int, now_us: int) -> Entry:
        """Let everybody see how far a generation is filled."""
        told = replace(entry, done_records=done, total_records=total, told_us=now_us)
        with self.catalogue.writing() as connection:
            self.catalogue.keep(connection, told)
        return told

    def filling(self) -> Entry | None:
        """The generation that is being filled."""
        return next((e for e in self.catalogue.entries() if e.state is State.FILLING), None)

    def switch(self, number: int, filled: Generation, now_us: int) -> bool:
        """Let a filled generation serve, unless the one that serves is ahead of it.

        So no reader ever sees a ledger go back. One transaction of the catalogue.
        """
        serving = self.catalogue.serving()
        if serving is None:
            return self._switched(number, None, now_us)
        old = Generation(self.catalogue.open(serving.number))
        try:
            with old.write() as connection:
                old.still(connection)
                behind = heights_in(connection)
                with filled.reading() as ahead:
                    reached = heights_in(ahead)
                if any(reached.get(name, -1) < height for name, height in behind.items()):
                    return False
                return self._switched(number, serving.number, now_us)
        finally:
            old.close()

    def _switched(self, number: int, before: int | None, now_us: int) -> bool:
        with self.catalogue.writing() as connection:
            entries = {entry.number: entry for entry in entries_in(connection)}
            mine, old = entries.get(number), entries.get(before) if before is not None else None
            if mine is None or mine.state is not State.FILLING:
                # Another process that filled the same one was first.
                return mine is not None and mine.state is State.SERVING
            if old is not None:
                if old.state is not State.SERVING:
                    return False
                self.catalogue.keep(connection, replace(old, state=State.LEAVING, left_us=now_us))
            self.catalogue.keep(connection, replace(mine, state=State.SERVING, told_us=now_us))
        return True

    def sweep(self, now_us: int) -> None:
        """Remove generations that were replaced a while ago."""
        gone = [
            entry.number
            for entry in self.catalogue.entries()
            if entry.state is State.LEAVING and entry.left_us + LEAVES_AFTER_US <= now_us
        ]
        if gone:
            with self.catalogue.writing() as connection:
                for number in gone:
                    self.catalogue.drop(connection, number)

    # What serves

    def _serving(self, *, write: bool = False) -> Generation:
        entry = self.catalogue.serving()
        if entry is None:
            raise ReadModelStale("There are no read models yet; synor serve makes them.")
        if entry.made.tables != self._tables or (write and entry.made.version != VERSION):
            raise BeingRebuilt(self.filling())
        with self._opening:
            if self._opened is None or self._opened[0] != entry.number:
                if self._opened is not None:
                    # Connections in use go on to their end; only idle ones are closed here.
                    self._opened[1].close()
                self._opened = (entry.number, Generation(self.catalogue.open(entry.number)))
            return self._opened[1]

    def position(self, application: str) -> Position:
        """How far a ledger was followed; before its first commit where it never was."""
        return self._serving().position(application)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection on which every statement sees one and the same state.

        Raises ``BeingRebuilt`` where this program cannot read what serves.
        """
        with self._serving().reading() as connection:
            yield connection

    def apply(self, before: Position, after: Position, commits: Sequence[ProjectedCommit]) -> None:
        """Take commits and the position after them, all or nothing.

        Raises ``Overtaken`` unless the position still is ``before``, as after a switch, and
        ``BeingRebuilt`` where what serves now is of another version.
        """
        self._serving(write=True).apply(before, after, commits)

    def mend(self, change: Callable[[SqlRows, Connection], None]) -> None:
        """Change rows outside of following."""
        self._serving(write=True).mend(change)

    # The library's tracking recorder

    def insert_tracking(self, tracking: Tracking) -> None:
        """Record progress alone; raises the library's ``IntegrityError`` unless it is progress."""
        name, number = tracking.application_name, tracking.notification_id
        with self._serving(write=True).write() as connection:
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
