"""Every event of every ledger stands once on synor.events.v1, as a CloudEvent anyone can read."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from confluent_kafka import Consumer, TopicPartition

from adapters import roles_events
from adapters.kafka_events import KafkaEvents, Outgoing
from adapters.kafka_topics import KafkaTopics
from adapters.roles_events import Publisher
from domain.commit import EVENTS_TOPIC, unpack_event
from domain.ports import LogError
from schemas.lock import committed
from tests.system.reading import commits
from tests.system.reference import reference

PARTITIONS = 3

pytestmark = [pytest.mark.service]


@pytest.fixture(scope="module")
def broker(kafka_broker: str) -> str:
    """The session's broker with the topic; no other test of the session publishes."""
    with closing(KafkaTopics(kafka_broker, client_id="events-admin")) as topics:
        topics.create(EVENTS_TOPIC, PARTITIONS, keep_forever=False)
    return kafka_broker


#: What somebody else has written; the publisher goes on behind it.
NOISE = Outgoing(partition=1, key=b"noise", headers={}, value=b"noise")


class Dying(KafkaEvents):
    """Sends a part of some batches, in any order of partitions, and is gone."""

    chance = random.Random(7)

    def publish(self, records: Sequence[Outgoing]) -> None:
        """Die in every third batch."""
        if records and self.chance.random() < 0.34:
            cut = {p: self.chance.randrange(len(records) + 1) for p in range(PARTITIONS)}
            sent = [r for at, r in enumerate(records) if at < cut[r.partition]]
            super().publish(sent)
            super().publish([NOISE] * 20)
            raise LogError("gone")
        super().publish(records)


def consumed(bootstrap: str) -> Iterator[tuple[int, KafkaMessage]]:
    """What anyone's consumer gets, as the SDK's message."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "synor-reader-test"})
    try:
        for partition in range(PARTITIONS):
            place = TopicPartition(EVENTS_TOPIC, partition, 0)
            _, end = consumer.get_watermark_offsets(place, timeout=10)
            consumer.assign([place])
            offset = 0
            while offset < end:
                message: Any = consumer.poll(10)
                assert message is not None
                assert message.error() is None
                offset = message.offset() + 1
                if message.value() == NOISE.value:
                    continue
                headers = {name: bytes(value) for name, value in message.headers()}
                yield partition, KafkaMessage(headers, message.key(), message.value())
    finally:
        consumer.close()


def test_every_event_is_published_once_though_the_publisher_dies_again_and_again(
    broker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole small market in batches of fifty; then the topic is what the ledgers are."""
    monkeypatch.setattr(roles_events, "BATCH_EVENTS", 50)
    system = reference()
    deaths = 0
    while True:
        with closing(Dying(broker, security={})) as topic:
            publisher = Publisher(system.network, system.log, topic)
            try:
                while publisher.turn():
                    pass
                break
            except LogError:
                deaths += 1
    assert deaths > 5

    wanted = {}
    for ledger, shard in system.network.ledgers():
        leaf = 0
        for body in commits(system.network, system.log, ledger, shard):
            for data in body.events:
                wanted[f"{ledger.name.lower()}/{shard}/{leaf}"] = unpack_event(data)
                leaf += 1
    fingerprints = {name: entry.fingerprint.hex() for name, entry in committed().entries.items()}
    codec = system.network.codec
    seen: list[str] = []
    versions: dict[str, list[int]] = {}
    places: dict[str, set[int]] = {}
    for partition, message in consumed(broker):
        event: Any = from_binary(message, JSONFormat(), CloudEvent)
        recorded = wanted[event.get_id()]
        kind = codec.kind(recorded.schema)
        seen.append(event.get_id())
        assert event.get_type() == kind.NAME
        assert event.get_source() == f"urn:synor:{system.network.hash.hex()}"
        assert event.get_subject() == recorded.aggregate.hex()
        assert event.get_dataschema() == f"urn:synor:schema:{fingerprints[kind.NAME]}"
        assert event.get_extension("partitionkey") == recorded.aggregate.hex()
        at_us = codec.decode(kind, recorded.payload).at_us
        assert round(event.get_time().timestamp() * 1_000_000) == at_us
        assert message.value == b"\x00" + recorded.schema.to_bytes(4, "big") + recorded.payload
        assert len(message.value) < 8 * 1024
        aggregate = f"{event.get_id().rpartition('/')[0]} {event.get_subject()}"
        versions.setdefault(aggregate, []).append(recorded.version)
        places.setdefault(event.get_subject(), set()).add(partition)
    assert sorted(seen) == sorted(wanted)
    # Of one aggregate everything is in one partition, in the order in which it happened.
    assert all(len(found) == 1 for found in places.values())
    assert all(found == sorted(found) for found in versions.values())

    with closing(KafkaEvents(broker, security={})) as topic:
        again = Publisher(system.network, system.log, topic)
        while again.turn():
            pass
        assert again.published == 0
