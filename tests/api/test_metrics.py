"""Figures for Prometheus: what the ledgers hold is what was counted while they were written."""

from __future__ import annotations

import urllib.request
from typing import Any, cast

import pytest
from prometheus_client.parser import text_string_to_metric_families

from adapters.local_topics import LocalTopics
from adapters.metrics import LOOPBACK, Metrics
from adapters.worker import Worker
from domain.chain import LedgerStopped
from domain.commit import COMMANDS_TOPIC, LEDGER_TOPICS, Ledger
from domain.ports import Log, LogError
from domain.telemetry import TelemetryAccepted
from tests.api.conftest import Scene
from tests.system.reading import commits, events, records
from tests.system.small import SmallSystem, memory_log
from tests.system.test_recovery import FaultyLog

Figures = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def read(text: bytes) -> Figures:
    """Every sample by its name and labels, as a monitor reads them."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def of(figures: Figures, figure: str, /, **labels: str) -> float:
    """One figure."""
    return figures[figure, tuple(sorted(labels.items()))]


def test_what_was_counted_is_what_stands_on_the_ledgers() -> None:
    """Commits, events, rows, bytes and recoveries of every processor; every third append twice."""
    metrics, log = Metrics(), memory_log()
    made: list[SmallSystem] = []

    def make(ledger: Ledger, shard: int) -> Worker:
        faulty = cast(Log, FaultyLog(log, "is written twice", lambda height: height % 3 == 1))
        return made[0].worker(ledger, shard, log=faulty, figures=metrics.of(ledger, shard))

    made.append(SmallSystem(log, LocalTopics(log), make_worker=make))
    system = made[0].run(16)
    figures = read(metrics.text())
    for ledger, shard in system.seats:
        place = {"ledger": ledger.name.lower(), "shard": str(shard)}
        bodies = commits(system.network, system.log, ledger, shard)
        said = events(system.network, system.log, ledger, shard)
        topic = LEDGER_TOPICS[ledger]
        values = {record.value for record in records(system.log, topic, shard)}
        rows = sum(
            each.rows - sum(byte.bit_count() for byte in each.refused)
            for each in said
            if isinstance(each, TelemetryAccepted)
        )
        assert of(figures, "synor_commits_total", **place) == len(bodies)
        assert of(figures, "synor_events_total", **place) == len(said)
        assert of(figures, "synor_commit_bytes_sum", **place) == sum(map(len, values))
        assert of(figures, "synor_commit_seconds_count", **place) == len(bodies)
        assert of(figures, "synor_recovery_seconds_count", **place) == 1
        assert of(figures, "synor_rows_total", **place) == rows
        assert (rows > 0) == (ledger is Ledger.METERING)
    market = {"ledger": "market", "shard": "0"}
    commands = {"topic": COMMANDS_TOPIC, "partition": "0"}
    assert of(figures, "synor_source_lag_records", **market, **commands) == 0
    noise = [value for (name, _), value in figures.items() if name == "synor_noise_records_total"]
    assert noise
    system.close()


def test_refusals_and_stops_are_counted_by_their_names() -> None:
    """Garbage among the commands is counted by code; a fork by its name, before the worker ends."""
    metrics, log = Metrics(), memory_log()
    made: list[SmallSystem] = []

    def make(ledger: Ledger, shard: int) -> Worker:
        return made[0].worker(ledger, shard, figures=metrics.of(ledger, shard))

    made.append(SmallSystem(log, LocalTopics(log), make_worker=make))
    log.append(COMMANDS_TOPIC, 0, b"garbage")
    log.append(COMMANDS_TOPIC, 0, b"more of it")
    system = made[0].run(2)
    figures = read(metrics.text())
    refused = {
        labels: value
        for (name, labels), value in figures.items()
        if name == "synor_gate_refusals_total"
    }
    assert sum(refused.values()) == 2
    assert all(dict(labels)["name"] for labels in refused)

    class Forked:
        """A log on which the market's ledger has a fork."""

        def read(self, *_: Any, **__: Any) -> Any:
            raise LedgerStopped("fork", Ledger.MARKET, 0, 7, "told by the test")

        def __getattr__(self, name: str) -> Any:
            return getattr(log, name)

    stopped = made[0].worker(
        Ledger.METERING,
        0,
        log=cast(Log, Forked()),
        figures=metrics.of(Ledger.METERING, 0),
    )
    with pytest.raises(LedgerStopped):
        stopped.turn()
    place = {"ledger": "metering", "shard": "0"}
    assert of(read(metrics.text()), "synor_stops_total", **place, name="fork") == 1
    system.close()


def test_figures_are_answered_on_a_port_of_loopback_and_a_taken_port_is_named() -> None:
    """Port 0 takes a free one; the same one again is refused with what to do."""
    metrics = Metrics()
    metrics.outbox.set(3)
    served = metrics.serve(0)
    try:
        with urllib.request.urlopen(f"http://{LOOPBACK}:{served.port}/metrics") as answer:
            assert of(read(answer.read()), "synor_l1_outbox_checkpoints") == 3
        with pytest.raises(LogError, match="--metrics-port"):
            Metrics().serve(served.port)
    finally:
        served.stop()


def test_the_api_answers_the_figures_of_its_process(scene: Scene) -> None:
    """How far each ledger is followed, in records."""
    answer = scene.client.get("/metrics")
    assert answer.status_code == 200
    figures = read(answer.content)
    scene.story.open_account()
    scene.story.flush()
    place = {"ledger": "market", "shard": "0"}
    assert of(figures, "synor_projection_lag_records", **place) == 0
