"""The library's own cases for applications, projections and factories, by our module's name only.

Each runs against the persistence module as anyone would use it: environment variables, no code.
"""

from __future__ import annotations

import os
import tempfile
import uuid
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import pytest
from eventsourcing.persistence import (
    AggregateRecorder,
    ApplicationRecorder,
    InfrastructureFactory,
    InfrastructureFactoryError,
    ProcessRecorder,
    Tracking,
    TrackingRecorder,
)
from eventsourcing.sqlite import SQLiteCursor, SQLiteDatastore, SQLiteTrackingRecorder
from eventsourcing.tests import application as shipped_application
from eventsourcing.tests import persistence as shipped_persistence
from eventsourcing.tests import projection as shipped_projection
from eventsourcing.tests.projection import EventCountersView
from eventsourcing.utils import Environment

from adapters.bootstrap_eventsourcing import LedgerFactory, make_key
from adapters.eventsourcing_recorder import LedgerAggregateRecorder, LedgerRecorder

MODULE = "adapters.bootstrap_eventsourcing"


class SqliteCounters(SQLiteTrackingRecorder, EventCountersView):
    """The read model that the shipped projection case asks for."""

    def __init__(self, datastore: SQLiteDatastore) -> None:
        super().__init__(datastore)
        self.create_table_statements.append(
            "CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, count INTEGER)"
        )

    def get_created_event_counter(self) -> int:
        return self._count("created")

    def get_subsequent_event_counter(self) -> int:
        return self._count("subsequent")

    def incr_created_event_counter(self, tracking: Tracking) -> None:
        self._increment("created", tracking)

    def incr_subsequent_event_counter(self, tracking: Tracking) -> None:
        self._increment("subsequent", tracking)

    def _count(self, name: str) -> int:
        with self.datastore.transaction(commit=False) as cursor:
            cursor.execute("SELECT count FROM counters WHERE name = ?", (name,))
            row = cursor.fetchone()
        return 0 if row is None else int(row[0])

    def _increment(self, name: str, tracking: Tracking) -> None:
        with self.datastore.transaction(commit=True) as cursor:
            assert isinstance(cursor, SQLiteCursor)
            self._insert_tracking(cursor, tracking)
            cursor.execute(
                "INSERT INTO counters VALUES (?, 1) "
                "ON CONFLICT (name) DO UPDATE SET count = count + 1",
                (name,),
            )


class Table(SQLiteTrackingRecorder):
    """A tracking recorder of a user's own."""


class _OnSqlite:
    """Settings of a ledger in a SQLite file."""

    env: ClassVar[Any]

    def setUp(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        folder = Path(self.folder.name)
        make_key(folder / "key")
        self.settings = {
            "PERSISTENCE_MODULE": MODULE,
            "LEDGER_LOG": "sqlite",
            "LEDGER_FILE": str(folder / "ledger.db"),
            "LEDGER_DURABLE": "n",
            "WRITER_KEY_FILE": str(folder / "key"),
        }
        self._begin()

    def _begin(self) -> None:
        # The shipped cases keep settings in the class' env or in the process' environment.
        type(self).env = Environment("Application", self.settings)
        self.environment = mock.patch.dict(os.environ, self.settings)
        self.environment.start()
        getattr(super(), "setUp", lambda: None)()

    def tearDown(self) -> None:
        getattr(super(), "tearDown", lambda: None)()
        self.environment.stop()
        self.folder.cleanup()


@pytest.mark.service
class _OnKafka(_OnSqlite):
    """Settings of a ledger on the real broker; every application has a topic of its own."""

    @pytest.fixture(autouse=True)
    def _broker(self, kafka_broker: str) -> None:
        self.bootstrap = kafka_broker

    def _begin(self) -> None:
        run = uuid.uuid4().hex
        self.settings |= {
            "LEDGER_LOG": "kafka",
            "KAFKA_BOOTSTRAP": self.bootstrap,
            "LEDGER_TOPIC": f"eventsourcing.{run}",
            "COUNTERS_LEDGER_TOPIC": f"eventsourcing.{run}.counters",
        }
        super()._begin()


class _Factory:
    def expected_factory_class(self) -> type[LedgerFactory]:
        return LedgerFactory

    def expected_aggregate_recorder_class(self) -> type[AggregateRecorder]:
        return LedgerAggregateRecorder

    def expected_application_recorder_class(self) -> type[ApplicationRecorder]:
        return LedgerRecorder

    def expected_tracking_recorder_class(self) -> type[TrackingRecorder]:
        return SQLiteTrackingRecorder

    def tracking_recorder_subclass(self) -> type[TrackingRecorder]:
        return Table

    def expected_process_recorder_class(self) -> type[ProcessRecorder]:
        return LedgerRecorder


class TestFactoryOnSqlite(
    _OnSqlite, _Factory, shipped_persistence.InfrastructureFactoryTestCase[LedgerFactory]
):
    """Infrastructure factory, SQLite."""


class TestFactoryOnKafka(
    _OnKafka, _Factory, shipped_persistence.InfrastructureFactoryTestCase[LedgerFactory]
):
    """Infrastructure factory, Kafka."""


class TestExampleOnSqlite(_OnSqlite, shipped_application.ExampleApplicationTestCase):
    """The example application with snapshots, SQLite."""

    expected_factory_topic = f"{MODULE}:LedgerFactory"


class TestExampleOnKafka(_OnKafka, shipped_application.ExampleApplicationTestCase):
    """The example application with snapshots, Kafka."""

    expected_factory_topic = f"{MODULE}:LedgerFactory"


class TestApplicationOnSqlite(_OnSqlite, shipped_application.ApplicationTestCase):
    """Applications, their caches under a hundred threads among them, SQLite."""


class TestApplicationOnKafka(_OnKafka, shipped_application.ApplicationTestCase):
    """Applications, their caches under a hundred threads among them, Kafka."""


class TestProjectionOnSqlite(
    _OnSqlite, shipped_projection.AggregateEventCountersProjectionTestCase
):
    """A projection to a read model, SQLite."""

    view_class = SqliteCounters


class TestProjectionOnKafka(_OnKafka, shipped_projection.AggregateEventCountersProjectionTestCase):
    """A projection to a read model, Kafka."""

    view_class = SqliteCounters


class TestEventSourcedProjectionOnSqlite(
    _OnSqlite, shipped_projection.EventSourcedProjectionTestCase
):
    """A projection that is an application on a ledger of its own, SQLite."""


class TestEventSourcedProjectionOnKafka(
    _OnKafka, shipped_projection.EventSourcedProjectionTestCase
):
    """A projection that is an application on a ledger of its own, Kafka."""


class TestView(shipped_projection.EventCountersViewTestCase):
    """The read model itself, made by our factory."""

    def construct_event_counters_view(self) -> EventCountersView:
        factory = InfrastructureFactory.construct({"PERSISTENCE_MODULE": MODULE})
        view = factory.tracking_recorder(SqliteCounters)
        assert isinstance(view, SqliteCounters)
        return view


def test_the_module_without_composition_says_which_one_to_name() -> None:
    """Naming the recorder's module is the mistake one would make first."""
    factory = InfrastructureFactory.construct(
        {"PERSISTENCE_MODULE": "adapters.eventsourcing_recorder"}
    )
    with pytest.raises(InfrastructureFactoryError, match=MODULE):
        factory.application_recorder()


def test_a_missing_or_wrong_setting_is_named(tmp_path: Path) -> None:
    """An operator reads what to set."""
    settings = {"PERSISTENCE_MODULE": MODULE, "WRITER_KEY_FILE": str(tmp_path / "key")}

    def opened(**more: str) -> None:
        InfrastructureFactory.construct({**settings, **more}).application_recorder()

    with pytest.raises(OSError, match=f"{MODULE} .*key"):
        opened()
    public = make_key(tmp_path / "key")
    with pytest.raises(OSError, match="LEDGER_FILE"):
        opened(LEDGER_TOPIC="a")
    with pytest.raises(OSError, match="LEDGER_LOG"):
        opened(LEDGER_TOPIC="a", LEDGER_LOG="paper")
    with pytest.raises(OSError, match="LEDGER_TOPIC"):
        opened(LEDGER_TOPIC="a b", LEDGER_FILE=str(tmp_path / "ledger.db"))
    assert (tmp_path / "key").stat().st_mode & 0o077 == 0
    with pytest.raises(FileExistsError):
        make_key(tmp_path / "key")
    assert len(public) == 32
