"""Telemetry of a producer that knows only the published format is charged like our own agent's."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from adapters.bootstrap import audit
from adapters.kafka_broker import CHECKOUT
from adapters.kafka_log import KafkaLog
from adapters.kafka_topics import KafkaTopics
from domain.commit import TELEMETRY_TOPIC, Ledger
from domain.telemetry import TelemetryAccepted, TelemetryRefused
from tests.services import foreign
from tests.support import kcat
from tests.support.kafka_broker import started_broker
from tests.support.kcat import require_kcat
from tests.system.reading import events
from tests.system.reference import reference_hash
from tests.system.small import EGRESS, PRICES, SEED, START_US, SmallSystem

#: The shard whose telemetry kcat sends.
BY_KCAT = 1
ALLOWED = {"__future__", "hashlib", "io", "json", "collections", "pathlib", "typing"} | {
    "fastavro",
    "confluent_kafka",
    "cryptography",
}


def test_the_foreign_producer_imports_nothing_of_ours() -> None:
    """Public libraries and the standard one."""
    tree = ast.parse(Path(foreign.__file__).read_text())
    names = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert names <= ALLOWED


@pytest.mark.service
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_leases_are_charged_by_what_a_foreign_producer_sends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole small life on a real broker: every beat and reading signed, encoded and sent by it.

    Both encodings of the columns and both framings in turn, for two nodes on two shards, the one
    sent by confluent-kafka and the other by kcat; the state is that of the run in which our own
    code sends.
    """
    require_kcat()
    broker = started_broker(tmp_path)
    try:
        with (
            closing(KafkaTopics(broker.bootstrap, client_id="foreign-admin")) as topics,
            closing(KafkaLog(broker.bootstrap, client_id="foreign")) as log,
        ):
            system = SmallSystem(log, topics)
            _speak_for_the_nodes(system, broker.bootstrap, monkeypatch, tmp_path)
            system.run()
            ours = (system.network, system.log, Ledger.METERING)
            taken = [event for shard in range(2) for event in events(*ours, shard)]
            assert audit(system.network, system.log).state_hash == reference_hash()
            system.close()
    finally:
        broker.stop()
    assert [event for event in taken if isinstance(event, TelemetryRefused)] == []
    assert sum(isinstance(event, TelemetryAccepted) for event in taken) > 60


def _speak_for_the_nodes(
    system: SmallSystem, bootstrap: str, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    shards, inputs, script = system.network.shards, system.inputs, system.script
    fleets = {
        name: foreign.Fleet(
            bootstrap,
            CHECKOUT / "schemas",
            genesis=bytes(system.network.hash),
            private=hashlib.sha256(b"synor-dev-key" + SEED + name.encode()).digest(),
            session_us=START_US,
        )
        for name in script.nodes
    }
    sent = 0

    def batch(name: str, rows: Sequence[tuple[Any, int, int, int]]) -> None:
        nonlocal sent
        sent += 1
        node = bytes(script.ids[name])
        columns = [
            (bytes(lease.lease), PRICES.number[EGRESS], generation, time_us, total)
            for lease, time_us, generation, total in rows
        ]
        value = fleets[name].value(node, columns, columns_as_bytes=sent % 4 > 1)
        inputs.append(TELEMETRY_TOPIC, foreign.shard_of(node, shards), value)

    def flush() -> None:
        """Telemetry goes out by a foreign client, the ticks among it too, in their order."""
        waiting, inputs._waiting = inputs._waiting, {}
        for (topic, partition), values in waiting.items():
            if topic == TELEMETRY_TOPIC and partition == BY_KCAT:
                kcat.produce(bootstrap, topic, partition, values, folder)
            elif topic == TELEMETRY_TOPIC:
                next(iter(fleets.values())).produce(partition, values)
            else:
                system.log.append_many(topic, partition, values)

    monkeypatch.setattr(script, "_batch", batch)
    monkeypatch.setattr(inputs, "flush", flush)
