"""What only Kafka can do to a log: foreign transactions, weak topics, brokers that fall silent."""

from __future__ import annotations

import socket
import struct
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import confluent_kafka
import pytest
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from kafka.protocol.producer import ProduceRequest
from kafka.record.default_records import DefaultRecordBatchBuilder

from adapters.kafka_broker import KafkaBroker
from adapters.kafka_codecs import INFLATED_MAX
from adapters.kafka_log import MAX_RECORD_BYTES, KafkaLog
from adapters.kafka_topics import KafkaTopics
from domain.ports import AppendUnknown, LogError, LogTruncated, SettingsRefused
from tests.ports.harness import LogStore, read_all

pytestmark = pytest.mark.service

_STRONG = {
    "message.timestamp.type": "LogAppendTime",
    "max.message.bytes": str((8 << 20) + (64 << 10)),
    "retention.ms": "-1",
    "retention.bytes": "-1",
}


@pytest.fixture
def log(kafka_broker: str) -> Iterator[KafkaLog]:
    """A log on the broker that all tests have in common."""
    made = KafkaLog(kafka_broker, client_id="kafka-test")
    yield made
    made.close()


@pytest.fixture
def admin(kafka_broker: str) -> Iterator[KafkaAdminClient]:
    """Somebody who may create topics in any way."""
    made = KafkaAdminClient(bootstrap_servers=kafka_broker)
    yield made
    made.close()


def _create(admin: KafkaAdminClient, configs: dict[str, str]) -> str:
    name = f"weak.{uuid.uuid4().hex}"
    wanted = {"num_partitions": 1, "replication_factor": 1, "configs": configs}
    admin.create_topics({name: wanted}, wait_for_metadata=True)
    return name


def test_the_end_of_a_foreign_transaction_takes_an_offset_without_a_record(
    kafka_store: LogStore, kafka_broker: str, log: KafkaLog
) -> None:
    """Aborted records are read as any other, and the position moves over the markers."""
    topic = kafka_store.new_topic()
    log.append(topic, 0, b"ours")
    foreign = KafkaProducer(
        bootstrap_servers=kafka_broker, transactional_id=f"foreign-{uuid.uuid4().hex}"
    )
    foreign.init_transactions()
    foreign.begin_transaction()
    foreign.send(topic, b"theirs", partition=0).get(20)
    foreign.abort_transaction()
    foreign.close(timeout=10)
    deadline = time.monotonic() + 20
    while log.end(topic, 0) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    fetched = log.read(topic, 0, 2, max_bytes=100)
    assert (list(fetched.records), fetched.next_offset) == ([], 3)
    assert log.append(topic, 0, b"ours again") == 3
    found = [(r.offset, r.value) for r in read_all(log, topic)]
    assert found == [(0, b"ours"), (1, b"theirs"), (3, b"ours again")]
    assert [r.offset for r in log.read(topic, 0, 2, max_bytes=100).records] == [3]


def test_a_foreign_tombstone_is_an_empty_value(
    kafka_store: LogStore, kafka_broker: str, log: KafkaLog
) -> None:
    """A record without a value cannot stop a reader."""
    topic = kafka_store.new_topic()
    foreign = KafkaProducer(bootstrap_servers=kafka_broker)
    foreign.send(topic, None, key=b"key", partition=0).get(20)
    foreign.close(timeout=10)
    assert [r.value for r in read_all(log, topic)] == [b""]


def test_a_record_over_the_limit_is_refused_with_nothing_written(
    kafka_store: LogStore, log: KafkaLog
) -> None:
    """It is known that nothing was written, so the error is not AppendUnknown."""
    topic = kafka_store.new_topic()
    with pytest.raises(LogError, match="over the") as raised:
        log.append(topic, 0, bytes(MAX_RECORD_BYTES + 1))
    assert not isinstance(raised.value, AppendUnknown)
    assert log.append(topic, 0, bytes(MAX_RECORD_BYTES)) == 0


def test_a_record_that_the_topic_does_not_take_is_refused(
    admin: KafkaAdminClient, log: KafkaLog
) -> None:
    """The broker judges the size before it writes."""
    topic = _create(admin, {**_STRONG, "max.message.bytes": "1000"})
    with pytest.raises(LogError, match="MessageSizeTooLarge") as raised:
        log.append(topic, 0, bytes(5_000))
    assert not isinstance(raised.value, AppendUnknown)
    assert log.append(topic, 0, b"small") == 0


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_compressed_records_are_read_as_they_were_appended(
    kafka_store: LogStore, kafka_broker: str, log: KafkaLog, compression: str
) -> None:
    """Compression is the producer's and the reader's business alone."""
    topic = kafka_store.new_topic()
    writer = KafkaLog(kafka_broker, client_id="compressing", compression=compression)
    values = [b"much the same " * i for i in range(300)]
    writer.append_many(topic, 0, values)
    writer.close()
    assert [r.value for r in read_all(log, topic, max_bytes=10_000)] == values


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_what_a_foreign_client_compresses_is_read_whichever_codec_it_takes(
    kafka_store: LogStore, kafka_broker: str, log: KafkaLog, codec: str
) -> None:
    """A record that inflates beyond any sense is empty, and the records after it are read."""
    topic = kafka_store.new_topic()
    foreign = confluent_kafka.Producer(
        {
            "bootstrap.servers": kafka_broker,
            "compression.codec": codec,
            "message.max.bytes": 100_000_000,
            "linger.ms": 50,
        }
    )
    values = [b"much the same " * i for i in range(300)]
    for value in values:
        foreign.produce(topic, value, partition=0)
    assert foreign.flush(30) == 0
    foreign.produce(topic, bytes(3 * INFLATED_MAX), partition=0)
    assert foreign.flush(30) == 0
    log.append(topic, 0, b"after it")
    assert [r.value for r in read_all(log, topic, max_bytes=10_000)] == [*values, b"", b"after it"]


def produced(kafka_broker: str, topic: str, batch: bytes) -> int:
    """The error code of a Produce with this batch, past every client library."""
    data = ProduceRequest.TopicProduceData
    part = data.PartitionProduceData
    request = ProduceRequest[7](
        transactional_id=None,
        acks=-1,
        timeout_ms=5000,
        topic_data=[
            data(
                version=7,
                name=topic,
                partition_data=[part(version=7, index=0, records=batch)],
            )
        ],
    )
    request.with_header(correlation_id=1, client_id="raw")
    host, _, port = kafka_broker.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=20) as broker:
        broker.sendall(request.encode(header=True, framed=True))
        with broker.makefile("rb") as answers:
            (length,) = struct.unpack(">i", answers.read(4))
            answer = answers.read(length)
    # Correlation id, one topic, its name, one partition, its number; then the code.
    (code,) = struct.unpack_from(">h", answer, 4 + 4 + 2 + len(topic) + 4 + 4)
    return int(code)


@pytest.mark.parametrize("codec", [0, 1, 3])
@pytest.mark.parametrize("deltas", [(7, 1), (1, 0, 2), (0, 0, 2), (-3, 1), (10**8, 1)])
def test_offsets_that_a_sender_makes_up_move_no_reader(
    kafka_store: LogStore,
    kafka_broker: str,
    log: KafkaLog,
    codec: int,
    deltas: tuple[int, ...],
) -> None:
    """The broker stores such a batch; here it is one empty record, from wherever it is read."""
    topic = kafka_store.new_topic()
    log.append(topic, 0, b"before")
    builder = DefaultRecordBatchBuilder(2, codec, False, -1, -1, -1, 1 << 20)
    for delta in deltas:
        builder.append(delta, int(time.time() * 1000), None, b"made up", [])
    taken = produced(kafka_broker, topic, bytes(builder.build())) == 0
    # Some compressed ones a broker takes apart, and then refuses.
    assert taken or codec
    end = 1 + len(deltas) if taken else 1
    assert log.append(topic, 0, b"after") == end
    expected = [(0, b"before"), *([(1, b"")] if taken else []), (end, b"after")]
    for start in range(end + 1):
        found = log.read(topic, 0, start, max_bytes=10_000)
        assert [(r.offset, r.value) for r in found.records] == [
            each for each in expected if each[0] >= start
        ]
        assert found.next_offset == end + 1


def test_a_sole_writer_reads_its_end_without_asking(
    kafka_store: LogStore, kafka_broker: str
) -> None:
    """Tens of thousands of empty reads cost no round trip, and own appends are seen."""
    topic = kafka_store.new_topic()
    log = KafkaLog(kafka_broker, client_id="sole", sole_writer=True)
    log.append(topic, 0, b"a")
    began = time.perf_counter()
    for _ in range(20_000):
        assert not log.read(topic, 0, 1, max_bytes=100).records
    assert time.perf_counter() - began < 1.0
    log.append(topic, 0, b"b")
    assert [r.value for r in log.read(topic, 0, 1, max_bytes=100).records] == [b"b"]
    log.close()


def test_records_that_retention_deleted_are_an_error_but_no_truncation(
    kafka_store: LogStore, admin: KafkaAdminClient, log: KafkaLog
) -> None:
    """The start has moved; the end has not."""
    topic = kafka_store.new_topic()
    log.append_many(topic, 0, [b"a", b"b", b"c"])
    admin.delete_records({TopicPartition(topic, 0): 2})
    assert (log.start(topic, 0), log.end(topic, 0)) == (2, 3)
    with pytest.raises(LogError, match="starts at 2") as raised:
        log.read(topic, 0, 0, max_bytes=100)
    assert not isinstance(raised.value, LogTruncated)


def test_a_topic_made_again_is_another_topic(
    kafka_topics: KafkaTopics, admin: KafkaAdminClient, kafka_broker: str
) -> None:
    """Its id differs, and a reader that was further finds the log truncated."""
    topic = f"again.{uuid.uuid4().hex}"
    kafka_topics.create(topic, 1, keep_forever=True)
    log = KafkaLog(kafka_broker, client_id="again")
    log.append_many(topic, 0, [b"a", b"b"])
    first = log.topic_id(topic)
    admin.delete_topics([topic])
    kafka_topics.create(topic, 1, keep_forever=True)
    assert log.topic_id(topic) != first
    with pytest.raises(LogTruncated, match="ends at 0"):
        log.read(topic, 0, 2, max_bytes=100)
    log.close()


def test_a_topic_made_again_under_a_reader_is_truncated_however_long_it_has_become(
    kafka_topics: KafkaTopics, admin: KafkaAdminClient, kafka_broker: str
) -> None:
    """Its offsets are those of other records; who reads on would take them for what comes next."""
    topic = f"grown.{uuid.uuid4().hex}"
    kafka_topics.create(topic, 1, keep_forever=True)
    reader = KafkaLog(kafka_broker, client_id="follows")
    reader.append_many(topic, 0, [b"a", b"b"])
    assert reader.read(topic, 0, 0, max_bytes=100).next_offset == 2
    admin.delete_topics([topic])
    kafka_topics.create(topic, 1, keep_forever=True)
    writer = KafkaLog(kafka_broker, client_id="grows")
    writer.append_many(topic, 0, [b"c", b"d", b"e"])
    with pytest.raises(LogTruncated, match="made again"):
        reader.read(topic, 0, 2, max_bytes=100)
    assert [r.value for r in read_all(writer, topic)] == [b"c", b"d", b"e"]
    reader.close()
    writer.close()


def test_producers_times_are_refused(admin: KafkaAdminClient, log: KafkaLog) -> None:
    """A reader of a topic with CreateTime would believe anybody's clock."""
    topic = _create(admin, {})
    log.append(topic, 0, b"x")
    with pytest.raises(SettingsRefused, match=r"message\.timestamp\.type"):
        log.read(topic, 0, 0, max_bytes=100)


def test_each_weaker_setting_is_named_with_what_it_must_be(
    kafka_topics: KafkaTopics, admin: KafkaAdminClient
) -> None:
    """A topic with a broker's defaults lacks these, one sentence each."""
    topic = _create(admin, {"unclean.leader.election.enable": "true", "compression.type": "gzip"})
    sentences = kafka_topics.check(topic, 1)
    assert [sentence.split(": ")[1] for sentence in sentences] == [
        "message.timestamp.type is CreateTime, must be LogAppendTime.",
        "unclean.leader.election.enable is true, must be false.",
        "compression.type is gzip, must be producer.",
        "max.message.bytes is 1048588, must be at least 8454144.",
        "retention.ms is 604800000, must be -1.",
    ]
    assert all(topic in sentence for sentence in sentences)
    with pytest.raises(SettingsRefused, match=r"retention\.ms is 604800000"):
        kafka_topics.create(topic, 1, keep_forever=True)


def test_a_compacted_topic_is_named(kafka_topics: KafkaTopics, admin: KafkaAdminClient) -> None:
    """Compaction would drop records from the middle of the chain."""
    topic = _create(admin, {**_STRONG, "cleanup.policy": "compact"})
    (sentence,) = kafka_topics.check(topic, 1)
    assert "cleanup.policy is compact, must be delete" in sentence


@pytest.mark.slow
def test_a_broker_that_falls_silent_leaves_the_append_unknown_within_its_bound(
    tmp_path: Path,
) -> None:
    """Frozen, killed, started again: each call ends in time and the log goes on by itself."""
    with KafkaBroker(tmp_path / "broker") as broker:
        topics = KafkaTopics(broker.bootstrap)
        topics.create("t", 1, keep_forever=True)
        topics.close()
        log = KafkaLog(
            broker.bootstrap, client_id="silent", append_timeout_s=3.0, read_timeout_s=2.0
        )
        assert log.append("t", 0, b"before") == 0
        broker.pause()
        began = time.monotonic()
        with pytest.raises(AppendUnknown):
            log.append("t", 0, b"unknown")
        assert time.monotonic() - began < 8.0
        with pytest.raises(LogError, match="cannot be read"):
            log.read("t", 0, 0, max_bytes=100)
        assert time.monotonic() - began < 12.0
        broker.resume()
        after = log.append("t", 0, b"after")
        found = [r.value for r in read_all(log, "t")]
        assert found in ([b"before", b"after"], [b"before", b"unknown", b"after"])
        assert after == len(found) - 1
        broker.kill()
        began = time.monotonic()
        with pytest.raises(LogError):
            log.append("t", 0, b"gone")
        assert time.monotonic() - began < 8.0
        broker.start()
        assert log.append("t", 0, b"back") >= len(found)
        values = [r.value for r in read_all(log, "t")]
        assert values[: len(found)] == found
        assert values[-1] == b"back"
        assert values.count(b"gone") <= 1
        log.close()
