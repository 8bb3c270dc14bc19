"""The broker of the tests: Apache Kafka itself, one for the session."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.kafka_broker import BrokerUnavailable, KafkaBroker


def started_broker(directory: Path, **properties: str) -> KafkaBroker:
    """A running broker of its own, for tests that kill or freeze it; the caller stops it.

    Properties are given with underscores for dots: `log_retention_ms="1000"`.
    """
    broker = KafkaBroker(
        directory,
        properties={name.replace("_", "."): value for name, value in properties.items()},
    )
    try:
        broker.start()
    except BrokerUnavailable as reason:
        pytest.fail(str(reason), pytrace=False)
    return broker


@pytest.fixture(scope="session")
def kafka_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The bootstrap address of a broker that all tests of the session share.

    Tests must name their topics after themselves and leave the broker running.
    """
    broker = started_broker(tmp_path_factory.mktemp("kafka"))
    yield broker.bootstrap
    broker.stop()
