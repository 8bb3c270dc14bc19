"""An application of the library as a user would write it, and processes that run it under fire.

Run as `python -m tests.eventsourcing.counted view`, it is the program of a read model, which a
test kills again and again.
"""

from __future__ import annotations

import sys
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from typing import Any
from uuid import UUID

from eventsourcing.application import Application
from eventsourcing.dispatch import singledispatchmethod
from eventsourcing.domain import Aggregate, event
from eventsourcing.persistence import IntegrityError, Tracking
from eventsourcing.projection import Projection, ProjectionRunner
from eventsourcing.sqlite import SQLiteCursor, SQLiteDatastore, SQLiteTrackingRecorder
from eventsourcing.utils import Environment


class Counter(Aggregate):
    """Who has counted, in order."""

    @event("Opened")
    def __init__(self) -> None:
        self.by: list[int] = []

    @event("Counted")
    def count(self, writer: int) -> None:
        """Count on."""
        self.by.append(writer)


class Counting(Application[UUID]):
    """The application."""


def race(
    settings: dict[str, str],
    counter: UUID,
    writer: int,
    rounds: int,
    together: Barrier,
    told: Queue[Any],
) -> None:
    """Append version n of one aggregate at the same time as another process, round by round."""
    won = 0
    with Counting(Environment("Counting", settings)) as app:
        for _ in range(rounds):
            aggregate: Counter = app.repository.get(counter)
            aggregate.count(writer)
            together.wait(60)
            try:
                app.save(aggregate)
                won += 1
            except IntegrityError:
                pass
            # Nobody reads the next version before both have tried this one.
            together.wait(60)
    told.put((writer, won))


class Tally(SQLiteTrackingRecorder):
    """The view: how often each counter counted."""

    def __init__(self, datastore: SQLiteDatastore, **more: Any) -> None:
        super().__init__(datastore, **more)
        self.create_table_statements.append(
            "CREATE TABLE IF NOT EXISTS tally (counter TEXT PRIMARY KEY, counted INTEGER)"
        )

    def add(self, counter: UUID, tracking: Tracking) -> None:
        """Count one event, and that it was counted, in one transaction."""
        with self.datastore.transaction(commit=True) as cursor:
            assert isinstance(cursor, SQLiteCursor)
            self._insert_tracking(cursor, tracking)
            cursor.execute(
                "INSERT INTO tally VALUES (?, 1) "
                "ON CONFLICT (counter) DO UPDATE SET counted = counted + 1",
                (str(counter),),
            )

    def counted(self) -> dict[str, int]:
        """The view's contents."""
        with self.datastore.transaction(commit=False) as cursor:
            cursor.execute("SELECT counter, counted FROM tally")
            return {row[0]: int(row[1]) for row in cursor.fetchall()}


class Tallied(Projection[Tally]):
    """Folds the counters' events into the view."""

    name = "tallied"
    topics = ()

    @singledispatchmethod
    def process_event(self, domain_event: Any, tracking: Tracking) -> None:
        """Every event counts for its aggregate."""
        self.view.add(domain_event.originator_id, tracking)


def view() -> None:
    """Run the read model until killed; the settings are in the environment."""
    with ProjectionRunner(
        application_class=Counting, projection_class=Tallied, view_class=Tally
    ) as runner:
        print("runs", flush=True)
        runner.run_forever()


if __name__ == "__main__" and sys.argv[1:] == ["view"]:
    view()
