"""Confluent's own registry client and (de)serialisers work with the committed schemas."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import uvicorn
from confluent_kafka.schema_registry import (
    Schema,
    SchemaRegistryClient,
    record_subject_name_strategy,
)
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.schema_registry.error import SchemaRegistryError
from confluent_kafka.serialization import MessageField, SerializationContext

from adapters.avro_codec import AvroCodec
from adapters.ed25519 import Signer, sign_input
from adapters.registry import registry
from domain.commit import COMMANDS_TOPIC, TELEMETRY_TOPIC
from domain.ids import Hash32
from domain.ledger import Tick
from domain.signed import Signed
from schemas.lock import FOLDER, committed

SIGNED = "synor.input.v1.Signed"
FRAME = 5


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The registry on a socket of loopback: librdkafka's clients speak real HTTP."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(registry(), log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join()


@pytest.fixture
def client(url: str) -> SchemaRegistryClient:
    """Confluent's client."""
    return SchemaRegistryClient({"url": url, "max.retries": 0})


def text(name: str) -> str:
    """A committed schema."""
    return (FOLDER / f"{name}.avsc").read_text()


def test_every_schema_is_found_by_id_by_subject_and_by_its_text(
    client: SchemaRegistryClient,
) -> None:
    """Ids are the numbers of the lock file."""
    entries = committed().entries
    assert {*client.get_subjects()} == {
        *entries,
        f"{COMMANDS_TOPIC}-value",
        f"{TELEMETRY_TOPIC}-value",
    }
    for name in (SIGNED, "synor.lease.v1.LeaseOpened", "synor.telemetry.v1.BatchBytes"):
        number = entries[name].number
        assert client.get_versions(name) == [1]
        assert client.get_latest_version(name).schema_id == number
        by_id = client.get_schema(number)
        found = client.lookup_schema(name, by_id)
        assert (found.schema_id, found.subject, found.version) == (number, name, 1)
        # As it stands in the checkout, docs, spaces and all: the same schema.
        assert client.register_schema(name, Schema(text(name), "AVRO")) == number
    assert client.get_compatibility() == "FULL_TRANSITIVE"
    assert client.get_compatibility(SIGNED) == "FORWARD_TRANSITIVE"


def test_nothing_can_be_changed_and_what_is_missing_is_said_in_its_own_form(
    client: SchemaRegistryClient, url: str
) -> None:
    """Codes as clients of Confluent's registry know them."""
    other = Schema('{"type":"record","name":"X","fields":[]}', "AVRO")
    for act, status, code in (
        (lambda: client.register_schema("x", other), 422, 42205),
        (lambda: client.register_schema(SIGNED, other), 422, 42205),
        (lambda: client.delete_subject(SIGNED), 422, 42205),
        (lambda: client.set_compatibility(level="NONE"), 422, 42205),
        (lambda: client.get_schema(999_999), 404, 40403),
        (lambda: client.get_latest_version("x"), 404, 40401),
        (lambda: client.get_version(SIGNED, 2), 404, 40402),
        (lambda: client.lookup_schema(SIGNED, other), 404, 40403),
    ):
        with pytest.raises(SchemaRegistryError) as refused:
            act()
        assert (refused.value.http_status_code, refused.value.error_code) == (status, code)
    for body in (b"", b"[]", b'{"schema": "{"}', b'{"schema": "{\\"type\\": []}"}', b"[" * 100_000):
        answer = httpx.post(f"{url}/subjects/{SIGNED}", content=body)
        assert answer.status_code in (404, 422), body[:20]
        assert {*answer.json()} == {"error_code", "message"}


def test_compatibility_is_tested_in_the_direction_of_the_subject(
    client: SchemaRegistryClient,
) -> None:
    """An input may get a field, an event only one with a default."""
    more = '{"name":"more","type":"long"},{"name":"'
    command = client.get_latest_version("synor.command.v1.Tick").schema.schema_str
    event = client.get_latest_version("synor.lease.v1.LeaseReady").schema.schema_str
    assert command is not None
    assert event is not None
    for name, schema, fine in (
        ("synor.command.v1.Tick", command.replace('{"name":"', more, 1), True),
        ("synor.lease.v1.LeaseReady", event.replace('{"name":"', more, 1), False),
        ("synor.lease.v1.LeaseReady", event, True),
    ):
        assert client.test_compatibility(name, Schema(schema, "AVRO")) is fine


def test_the_standard_deserialiser_reads_our_records_and_we_read_the_serialisers(
    client: SchemaRegistryClient,
) -> None:
    """Both ways over the Confluent frame, by topic name and by record name."""
    codec = AvroCodec()
    _, signed = sign_input(codec, Signer(b"\x01" * 32), Hash32(b"\x07" * 32), Tick(time_us=5), 6, 7)
    framed = codec.encode_frame(signed, confluent=True)
    context = SerializationContext(COMMANDS_TOPIC, MessageField.VALUE)
    read: Any = AvroDeserializer(client)(framed, context)
    assert read["number"] == 7
    assert read["signature"] == signed.signature
    for strategy in (None, record_subject_name_strategy):
        settings: dict[str, Any] = {"auto.register.schemas": False}
        if strategy is not None:
            settings["subject.name.strategy"] = strategy
        written = AvroSerializer(client, text(SIGNED), conf=settings)(read, context)
        assert written == framed
        assert codec.open_signed(framed) == signed
    payload = b"\x00" + codec.number(Tick).to_bytes(4, "big") + signed.payload
    assert AvroDeserializer(client)(payload, context) == {"time_us": 5}
    assert isinstance(codec.open_signed(framed[FRAME:]), Signed)
