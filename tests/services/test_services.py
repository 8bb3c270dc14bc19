"""Each real server that tests rely on starts on this machine and does its work."""

import http.server
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psycopg
import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic
from kafka.errors import KafkaTimeoutError

from adapters.kafka_broker import KafkaBroker
from tests.support.anvil import json_rpc, running_anvil
from tests.support.chromium import page_source, screenshot
from tests.support.kafka_broker import started_broker
from tests.support.postgres import PostgresServer

pytestmark = pytest.mark.service


def _create_topic(bootstrap: str, name: str) -> None:
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    admin.create_topics([NewTopic(name, num_partitions=1, replication_factor=1)])
    admin.close()


def _produce(bootstrap: str, topic: str, value: bytes) -> int:
    producer = KafkaProducer(bootstrap_servers=bootstrap, acks="all", compression_type="zstd")
    offset = producer.send(topic, value, partition=0).get(timeout=30).offset
    producer.close()
    return int(offset)


def _consume(bootstrap: str, topic: str, count: int) -> list[bytes]:
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    consumer.assign([TopicPartition(topic, 0)])
    values: list[bytes] = []
    for _ in range(30):
        for records in consumer.poll(timeout_ms=1_000).values():
            values.extend(record.value for record in records)
        if len(values) >= count:
            break
    consumer.close()
    return values


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[KafkaBroker]:
    """A broker that the test may kill."""
    with_settings = started_broker(tmp_path / "kafka", log_message_timestamp_type="LogAppendTime")
    yield with_settings
    with_settings.__exit__(None, None, None)


def test_a_record_produced_to_the_broker_is_consumed_from_it(kafka_broker: str) -> None:
    """What goes in comes out, at offset zero of a new topic."""
    _create_topic(kafka_broker, "services.record")
    assert _produce(kafka_broker, "services.record", b"a beat") == 0
    assert _consume(kafka_broker, "services.record", 1) == [b"a beat"]


def test_the_broker_creates_no_topic_that_nobody_asked_for(kafka_broker: str) -> None:
    """A misspelt topic is an error, not a new topic with weaker settings."""
    producer = KafkaProducer(bootstrap_servers=kafka_broker, max_block_ms=1_000)
    with pytest.raises(KafkaTimeoutError, match="metadata"):
        producer.send("services.misspelt", b"lost").get(timeout=5)
    producer.close()


def test_a_killed_broker_comes_back_with_its_records(own_broker: KafkaBroker) -> None:
    """An acknowledged record survives a crash of the broker, on the same address."""
    address = own_broker.bootstrap
    _create_topic(address, "services.crash")
    _produce(address, "services.crash", b"before")
    own_broker.kill()
    own_broker.start()
    assert own_broker.bootstrap == address
    _produce(address, "services.crash", b"after")
    assert _consume(address, "services.crash", 2) == [b"before", b"after"]


def test_each_test_has_an_empty_postgres_database_of_its_own(
    postgres_url: str, postgres_server: PostgresServer
) -> None:
    """A table made in one database is not seen in another."""
    with psycopg.connect(postgres_url) as connection:
        connection.execute("CREATE TABLE lease (id bigint)")
        row = connection.execute("SELECT count(*) FROM lease").fetchone()
        assert row == (0,)
    other = postgres_server.create_database()
    with psycopg.connect(postgres_server.url(other)) as connection:
        row = connection.execute("SELECT to_regclass('lease')").fetchone()
        assert row == (None,)
    postgres_server.drop_database(other)


def test_anvil_answers_with_the_chain_id_it_was_given(tmp_path: Path) -> None:
    """A node started for chain 4242 says that it is chain 4242."""
    with running_anvil(tmp_path, chain_id=4242) as url:
        assert json_rpc(url, "eth_chainId") == hex(4242)


def test_chromium_shows_a_page_after_its_scripts_have_run(tmp_path: Path) -> None:
    """The text that a script wrote is in the page, and a picture of it can be taken."""
    page = "<title>t</title><p id=p></p><script>p.textContent = 'lease ' + (40 + 2)</script>"
    (tmp_path / "index.html").write_text(page)
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/"
        assert "lease 42" in page_source(url)
        picture = tmp_path / "page.png"
        screenshot(url, picture, width=400, height=300)
        server.shutdown()
    assert picture.read_bytes().startswith(b"\x89PNG")
