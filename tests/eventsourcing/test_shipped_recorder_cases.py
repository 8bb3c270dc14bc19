"""The test cases that the eventsourcing library ships for recorders, unmodified, on each log."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from eventsourcing.persistence import AggregateRecorder
from eventsourcing.tests import persistence as shipped

from adapters.eventsourcing_recorder import LedgerAggregateRecorder, LedgerRecorder, SynorFactory
from adapters.kafka_log import KafkaLog
from adapters.kafka_topics import KafkaTopics
from tests.eventsourcing.ledgers import LedgerStore, memory_ledger, sqlite_ledger


@pytest.fixture(scope="session")
def ledger_topics(kafka_broker: str) -> Iterator[KafkaTopics]:
    """The administration of the broker's topics."""
    topics = KafkaTopics(kafka_broker, client_id="eventsourcing-admin")
    yield topics
    topics.close()


class _OnMemory:
    def setUp(self) -> None:
        self.ledger, _ = memory_ledger()

    def tearDown(self) -> None:
        self.ledger.close()


class _OnSqlite:
    ledger: LedgerStore

    def setUp(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.ledger = sqlite_ledger(Path(self.folder.name) / "log.db")

    def tearDown(self) -> None:
        self.ledger.close()
        self.folder.cleanup()


@pytest.mark.service
class _OnKafka:
    ledger: LedgerStore

    @pytest.fixture(autouse=True)
    def _fresh_topic(self, kafka_broker: str, ledger_topics: KafkaTopics) -> Iterator[None]:
        topic = f"eventsourcing.{uuid.uuid4().hex}"
        ledger_topics.create(topic, 1, keep_forever=True)
        self.ledger = LedgerStore(
            lambda: KafkaLog(kafka_broker, client_id="eventsourcing"), topic=topic
        )
        yield
        self.ledger.close()


class _Recorder:
    ledger: LedgerStore

    def create_recorder(self) -> LedgerRecorder:
        return self.ledger.recorder()


class _Subscribing(_Recorder):
    def test_insert_subscribe(self) -> None:
        """The case that the library leaves to stores with subscriptions."""
        self.optional_test_insert_subscribe()  # type: ignore[attr-defined]


class _Events:
    ledger: LedgerStore

    def create_recorder(self) -> AggregateRecorder:
        return LedgerAggregateRecorder(self.ledger.recorder())


class _Snapshots:
    ledger: LedgerStore

    def create_recorder(self) -> AggregateRecorder:
        return SynorFactory.over(self.ledger.recorder()).aggregate_recorder("snapshots")


class TestEventsOnMemory(_OnMemory, _Events, shipped.AggregateRecorderTestCase):
    """Aggregate recorder, on the memory log."""


class TestSnapshotsOnMemory(_OnMemory, _Snapshots, shipped.AggregateRecorderTestCase):
    """Snapshots beside a ledger, on the memory log."""


class TestApplicationOnMemory(
    _OnMemory, _Subscribing, shipped.ApplicationRecorderTestCase[LedgerRecorder]
):
    """Application recorder with subscriptions, on the memory log."""


class TestNonInterleavingOnMemory(
    _OnMemory, _Recorder, shipped.NonInterleavingNotificationIDsBaseCase
):
    """Events of one insert stand together, on the memory log."""


class TestTrackingOnMemory(_OnMemory, _Recorder, shipped.TrackingRecorderTestCase):
    """Tracking in commits, on the memory log."""


class TestProcessOnMemory(_OnMemory, _Recorder, shipped.ProcessRecorderTestCase):
    """Process recorder, on the memory log."""


class TestEventsOnSqlite(_OnSqlite, _Events, shipped.AggregateRecorderTestCase):
    """Aggregate recorder, on the SQLite log."""


class TestSnapshotsOnSqlite(_OnSqlite, _Snapshots, shipped.AggregateRecorderTestCase):
    """Snapshots beside a ledger, on the SQLite log."""


class TestApplicationOnSqlite(
    _OnSqlite, _Subscribing, shipped.ApplicationRecorderTestCase[LedgerRecorder]
):
    """Application recorder with subscriptions, on the SQLite log."""


class TestNonInterleavingOnSqlite(
    _OnSqlite, _Recorder, shipped.NonInterleavingNotificationIDsBaseCase
):
    """Events of one insert stand together, on the SQLite log."""


class TestTrackingOnSqlite(_OnSqlite, _Recorder, shipped.TrackingRecorderTestCase):
    """Tracking in commits, on the SQLite log."""


class TestProcessOnSqlite(_OnSqlite, _Recorder, shipped.ProcessRecorderTestCase):
    """Process recorder, on the SQLite log."""


class TestEventsOnKafka(_OnKafka, _Events, shipped.AggregateRecorderTestCase):
    """Aggregate recorder, on Kafka."""


class TestSnapshotsOnKafka(_OnKafka, _Snapshots, shipped.AggregateRecorderTestCase):
    """Snapshots beside a ledger, on Kafka."""


class TestApplicationOnKafka(
    _OnKafka, _Subscribing, shipped.ApplicationRecorderTestCase[LedgerRecorder]
):
    """Application recorder with subscriptions, on Kafka."""


class TestNonInterleavingOnKafka(
    _OnKafka, _Recorder, shipped.NonInterleavingNotificationIDsBaseCase
):
    """Events of one insert stand together, on Kafka."""


class TestTrackingOnKafka(_OnKafka, _Recorder, shipped.TrackingRecorderTestCase):
    """Tracking in commits, on Kafka."""


class TestProcessOnKafka(_OnKafka, _Recorder, shipped.ProcessRecorderTestCase):
    """Process recorder, on Kafka."""
