"""The three adapters of the log port, as one parametrised fixture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.kafka_log import KafkaLog
from adapters.kafka_topics import KafkaTopics
from adapters.local_topics import LocalTopics
from adapters.memory_log import MemoryLog, MemoryStore
from adapters.sqlite_log import SqliteLog
from tests.ports.harness import LogStore, wall_clock_us


def _memory_store() -> LogStore:
    store = MemoryStore()
    admin = LocalTopics(MemoryLog(wall_clock_us, store))
    return LogStore("memory", lambda: MemoryLog(wall_clock_us, store), admin)


def _sqlite_store(path: Path) -> LogStore:
    def open_log() -> SqliteLog:
        return SqliteLog(path, clock_us=wall_clock_us, durable=False)

    log = open_log()
    return LogStore("sqlite", open_log, LocalTopics(log), [log])


@pytest.fixture(params=["memory", "sqlite", pytest.param("kafka", marks=pytest.mark.service)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LogStore]:
    """A store of each adapter."""
    if request.param == "memory":
        made = _memory_store()
    elif request.param == "sqlite":
        made = _sqlite_store(tmp_path / "log.db")
    else:
        made = request.getfixturevalue("kafka_store")
    yield made
    made.close()


@pytest.fixture(scope="module")
def kafka_topics(kafka_broker: str) -> Iterator[KafkaTopics]:
    """The administration of the broker's topics."""
    topics = KafkaTopics(kafka_broker, client_id="contract-admin")
    yield topics
    topics.close()


@pytest.fixture
def kafka_store(kafka_broker: str, kafka_topics: KafkaTopics) -> LogStore:
    """A store on the real broker."""
    return LogStore("kafka", lambda: KafkaLog(kafka_broker, client_id="contract"), kafka_topics)
