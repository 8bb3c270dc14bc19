"""An audit of a ledger whose telemetry was deleted after it was committed (design 2, ADR 0013)."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from kafka import TopicPartition
from kafka.admin import KafkaAdminClient

from adapters.audit import Diverged, Verdict
from adapters.bootstrap import audit, ledger_audit
from adapters.bundle_log import BundleLog
from adapters.kafka_log import KafkaLog
from adapters.kafka_topics import KafkaTopics
from adapters.local_topics import LocalTopics
from adapters.memory_log import MemoryLog
from adapters.sqlite_log import SqliteLog
from domain.commit import COMMANDS_TOPIC, TELEMETRY_TOPIC, Ledger, part_of
from domain.ids import NodeId
from domain.telemetry import Batch, TelemetryAccepted, TelemetryRefused
from tests.audit.forge import Book, Commit, exported, flipped
from tests.support.kafka_broker import started_broker
from tests.system.reading import Seat
from tests.system.reference import reference, reference_hash
from tests.system.small import START_US, STEPS, SmallSystem, memory_log

SHARD: Seat = (Ledger.METERING, 1)
PARTITIONS = (0, 1)


def forgotten(log: MemoryLog, part: float = 1.0) -> MemoryLog:
    """The log without the first ``part`` of the telemetry."""
    for partition in PARTITIONS:
        end = log.end(TELEMETRY_TOPIC, partition)
        log.delete_before(TELEMETRY_TOPIC, partition, start=int(end * part))
    return log


def kept(verdict: Verdict) -> list[int]:
    """Runs that were taken from the bulk, by shard."""
    return [r.kept_runs for r in verdict.reports if r.ledger is Ledger.METERING]


@pytest.mark.parametrize("part", [0.02, 0.1, 0.3, 0.5, 0.77, 1.0])
def test_a_ledger_without_its_telemetry_audits_to_the_same_state(part: float) -> None:
    """Wherever the deletion ends, within a run or not: the rest is derived from the bulk."""
    system = reference()
    verdict = audit(system.network, forgotten(Book(system.network, system.log).log(), part))
    assert verdict.state_hash == reference_hash()
    assert all(runs > 0 for runs in kept(verdict))
    assert sum(r.inputs for r in verdict.reports) == sum(
        r.inputs for r in audit(system.network, system.log).reports
    )


@cache
def cut_anywhere() -> SmallSystem:
    """A system whose commits end after any item, and whose node-a signs what is refused."""
    log = memory_log()
    chance = random.Random(7)
    system = SmallSystem(
        log,
        LocalTopics(log),
        make_worker=lambda ledger, shard: system.worker(
            ledger, shard, cut=lambda unit: bool(unit.events) and chance.random() < 0.5
        ),
    )

    def at(step: int) -> None:
        system.script(step)
        if step in (6, 19):
            for partition in PARTITIONS:
                nobody = Batch(
                    nodes=(NodeId(bytes(16)),) if step == 6 else (),
                    leases=(),
                    lease=(),
                    resource=(),
                    generation=(),
                    time_us=(),
                    total=(),
                )
                for node in system.script.nodes.values():
                    node.telemetry(partition, nobody)

    system.live(range(STEPS), at)
    return system


@pytest.mark.parametrize("part", [0.2, 0.6, 1.0])
def test_commits_that_end_within_a_record_and_refused_batches_are_derived_too(part: float) -> None:
    """A refused batch stands in the bulk, so that its refusal is judged again."""
    system = cut_anywhere()
    whole = audit(system.network, system.log)
    book = Book(system.network, system.log)
    bodies = [
        commit.body for seat in ((Ledger.METERING, 0), SHARD) for commit in book.commits(seat)
    ]
    assert any(run.items_done >= 0 for body in bodies for run in body.runs)
    assert book.find(SHARD, TelemetryRefused)
    verdict = audit(system.network, forgotten(book.log(), part))
    assert verdict.state_hash == whole.state_hash
    assert [r.head for r in verdict.reports] == [r.head for r in whole.reports]


def _swapped(book: Book) -> tuple[str, str]:
    height, _ = book.find(SHARD, TelemetryAccepted)
    forged = part_of(flipped(book.commit(SHARD, height).bulk[0].data, 70))
    book.forge(SHARD, height, lambda c: replace(c, bulk=(forged, *c.bulk[1:])))
    return "bulk_differs", "bulk"


def _hidden(book: Book) -> tuple[str, str]:
    height, _ = book.find(SHARD, TelemetryAccepted)
    book.forge(SHARD, height, lambda c: replace(c, bulk=c.bulk[1:]))
    return "bulk_differs", "bulk"


def _of_another_commit(book: Book) -> tuple[str, str]:
    """Validly signed, by the same node, at another time."""
    found = [
        (height, index)
        for height, commit in enumerate(book.commits(SHARD))
        for index, event in enumerate(book.events(commit))
        if isinstance(event, TelemetryAccepted)
    ]
    (height, index), (other, _) = found[0], found[9]
    bulk = book.commit(SHARD, other).bulk[:1]
    book.forge(SHARD, height, lambda c: replace(c, bulk=(*bulk, *c.bulk[1:])))
    return "event_differs", f"events[{index}]"


def _surplus(book: Book) -> tuple[str, str]:
    height, _ = book.find(SHARD, TelemetryAccepted)
    book.forge(SHARD, height, lambda c: replace(c, bulk=(*c.bulk, c.bulk[0])))
    return "bulk_differs", "bulk"


def _a_byte(book: Book) -> tuple[str, str]:
    height, _ = book.find(SHARD, TelemetryAccepted)
    ledger = book.ledger(SHARD)
    ledger[height] = flipped(ledger[height], len(ledger[height]) - 1)
    return "corrupt", "bulk"


def _batch_and_event_hidden(book: Book) -> tuple[str, str]:
    """Nothing of the batch is left; what was stated of its readings is."""
    found = [
        (height, index)
        for height, commit in enumerate(book.commits(SHARD))
        for index, event in enumerate(book.events(commit))
        if isinstance(event, TelemetryAccepted) and event.rows
    ]
    height, index = found[-1]

    def hidden(commit: Commit) -> Commit:
        events = commit.body.events
        runs = tuple(replace(r, events=max(r.events - 1, 0)) for r in commit.body.runs)
        at = sum(isinstance(event, TelemetryAccepted) for event in book.events(commit)[:index])
        return replace(
            commit,
            body=replace(commit.body, events=(*events[:index], *events[index + 1 :]), runs=runs),
            bulk=(*commit.bulk[:at], *commit.bulk[at + 1 :]),
        )

    book.forge(SHARD, height, hidden)
    return "event_differs", "events["


def _time_that_falls(book: Book) -> tuple[str, str]:
    found = [
        (height, index)
        for height, commit in enumerate(book.commits(SHARD))
        for index, event in enumerate(book.events(commit))
        if isinstance(event, TelemetryAccepted)
    ]
    height, index = found[3]
    book.forge(
        SHARD,
        height,
        lambda c: book.with_event(c, index, lambda e: replace(e, at_us=START_US - 1)),
    )
    return "time", f"events[{index}].at_us"


def _more_garbage_than_there_was_room_for(book: Book) -> tuple[str, str]:
    commit = next(c for c in book.commits(SHARD) if c.body.refused or c.bulk)
    height = commit.envelope.height
    run = next(r for r in commit.body.runs if r.topic == TELEMETRY_TOPIC)
    number = commit.body.runs.index(run)
    forged = replace(run, count=run.next - run.first + 1)
    runs = (*commit.body.runs[:number], forged, *commit.body.runs[number + 1 :])
    book.forge(SHARD, height, lambda c: replace(c, body=replace(c.body, runs=runs)))
    return "run_digest", f"runs[{number}].count"


def _range_hidden(book: Book) -> tuple[str, str]:
    height, _ = book.find(SHARD, TelemetryAccepted)
    commit = book.commit(SHARD, height)
    number = next(n for n, r in enumerate(commit.body.runs) if r.topic == TELEMETRY_TOPIC)
    run = commit.body.runs[number]
    forged = replace(run, first=run.first + 1, count=run.count - 1)
    runs = (*commit.body.runs[:number], forged, *commit.body.runs[number + 1 :])
    book.forge(SHARD, height, lambda c: replace(c, body=replace(c.body, runs=runs)))
    return "run_gap", f"runs[{number}].first"


@pytest.mark.parametrize(
    "forge",
    [
        _swapped,
        _hidden,
        _of_another_commit,
        _surplus,
        _a_byte,
        _batch_and_event_hidden,
        _time_that_falls,
        _more_garbage_than_there_was_room_for,
        _range_hidden,
    ],
)
def test_a_forged_bulk_is_named_where_the_topic_is_gone(
    forge: Callable[[Book], tuple[str, str]],
) -> None:
    """The writer's own key does not help: a node's signature stands over each batch."""
    system = reference()
    book = Book(system.network, system.log)
    name, at = forge(book)
    with pytest.raises(Diverged) as found:
        list(ledger_audit(system.network, forgotten(book.log()), *SHARD).run())
    assert found.value.name == name
    assert found.value.at.startswith(at)
    assert (found.value.ledger, found.value.shard) == SHARD


def test_commands_that_are_gone_are_an_error() -> None:
    """They are kept for ever; nothing else has them."""
    system = reference()
    log = Book(system.network, system.log).log()
    log.delete_before(COMMANDS_TOPIC, 0, start=1)
    with pytest.raises(Diverged) as found:
        audit(system.network, log)
    assert (found.value.name, found.value.exit_code) == ("inputs_deleted", 26)
    assert COMMANDS_TOPIC in found.value.why


def test_telemetry_deleted_from_a_sqlite_file_is_no_fault(tmp_path: Path) -> None:
    """The rows are gone up to a committed offset, and the log's start says so."""
    with closing(SqliteLog(tmp_path / "log.db", clock_us=lambda: 0, durable=False)) as log:
        system = SmallSystem(log, LocalTopics(log)).run()
        for partition in PARTITIONS:
            log.delete_before(TELEMETRY_TOPIC, partition, 50)
        assert [log.start(TELEMETRY_TOPIC, partition) for partition in PARTITIONS] == [50, 50]
        verdict = audit(system.network, log)
        system.close()
    assert verdict.state_hash == reference_hash()
    assert all(runs > 0 for runs in kept(verdict))


@pytest.mark.service
def test_telemetry_deleted_from_a_topic_is_no_fault(tmp_path: Path) -> None:
    """Kafka's own deletion of records, as its retention does it; exported before, and audited."""
    # A broker of its own: the topics of a network have fixed names.
    broker = started_broker(tmp_path)
    topics = KafkaTopics(broker.bootstrap, client_id="audit-test")
    with closing(KafkaLog(broker.bootstrap, client_id="audit-test", sole_writer=True)) as log:
        system = SmallSystem(log, topics).run()
        assert audit(system.network, log).state_hash == reference_hash()
        bundle = BundleLog(exported(system.network, log, tmp_path / "kafka.bundle"))
        assert audit(system.network, bundle).state_hash == reference_hash()
        admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap)
        admin.delete_records({TopicPartition(TELEMETRY_TOPIC, p): 50 for p in PARTITIONS})
        admin.close()
        verdict = audit(system.network, log)
        system.close()
    topics.close()
    broker.stop()
    assert verdict.state_hash == reference_hash()
    assert all(runs > 0 for runs in kept(verdict))
