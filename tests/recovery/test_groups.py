"""Shards that move between workers on a real broker: nothing is lost and nothing doubled."""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from adapters import kafka_group, key_files, roles_genesis, settings
from adapters.audit_report import hash_of_states
from adapters.avro_codec import AvroCodec
from adapters.bootstrap import Network, worker
from adapters.ed25519 import Signer, sign_input
from adapters.eventsourcing_index import Depth
from adapters.kafka_broker import KafkaBroker
from adapters.kafka_group import KafkaGroup
from adapters.kafka_log import KafkaLog
from adapters.kafka_topics import KafkaTopics
from adapters.local_topics import LocalTopics
from adapters.memory_log import MemoryLog
from adapters.metering_workload import Encoding, Fleet
from adapters.roles_clock import now_us
from domain.canonical import canonical
from domain.commit import (
    LEDGER_TOPICS,
    TELEMETRY_TOPIC,
    CommitBody,
    CommitHeader,
    Ledger,
    RecordedEvent,
)
from domain.genesis import HOUR_US
from domain.ids import PublicKey
from domain.ledger import LEDGER_ID, GenesisRecorded, LogBound
from domain.market import Market
from domain.ports import Log
from domain.processor import DictStates
from domain.telemetry import TelemetryAccepted, UsageStated
from tests.cli.commands import Running, stopped_at_the_end, synor, until
from tests.support.fault_matrix import FaultMatrix, Seen
from tests.support.kafka_broker import started_broker
from tests.system.reading import events, heights, records

LONG = os.environ.get("SYNOR_LONG") == "1"
SHARDS = 4
GATEWAYS = 2
ROWS = 40
TINY = Path(__file__).parents[1] / "cli" / "tiny.toml"

pytestmark = [pytest.mark.service, pytest.mark.slow, pytest.mark.timeout(900 if LONG else 300)]


def gateway(shard: int, number: int) -> Signer:
    """The key of a gateway."""
    return Signer(hashlib.sha256(b"group test" + bytes((shard, number))).digest())


class Town:
    """A network on a broker whose market is over, fleets that report, and workers that come."""

    def __init__(self, folder: Path, brokers: str) -> None:
        self.folder = folder
        self.brokers = brokers
        where = folder / "network"
        genesis = folder / "four.toml"
        genesis.write_text(TINY.read_text().replace("shards = 2", f"shards = {SHARDS}"))
        arguments = ("--kafka", brokers, "--genesis", genesis, "--port", "0")
        assert synor("network", "new", where, *arguments).code == 0
        self.env = {"SYNOR_NETWORK": str(where)}
        assert synor("topics", "create", env=self.env).code == 0
        self.network = roles_genesis.network_of(settings.load(where), AvroCodec())
        self.start_us = now_us() - HOUR_US
        self.workers: list[Running] = []
        self.sent = 0

    def key(self, role: str) -> Signer:
        """A role's key."""
        found, _ = key_files.read(self.folder / "network" / "keys" / f"{role}.pem", lambda: None)
        return Signer(found.ledger)

    @cached_property
    def fleets(self) -> list[Fleet]:
        """One fleet for each shard."""
        return [
            Fleet(
                key_of=lambda n, shard=shard: PublicKey(gateway(shard, n).public),  # type: ignore[misc]
                start_us=self.start_us,
                shard=shard,
                shards=SHARDS,
                gateways=GATEWAYS,
                rows=ROWS,
            )
            for shard in range(SHARDS)
        ]

    def write_market(self, log: Log) -> None:
        """A market ledger that registers the fleets, and a last commit that passes every window."""
        network = self.network
        partition = network.partition(
            Ledger.MARKET,
            0,
            log=log,
            index=":memory:",
            depth=Depth.COMMITS,
            signer=self.key("market"),
        )
        start = network.genesis.start_us
        first: list[tuple[bytes, Any]] = [
            (LEDGER_ID, LogBound(at_us=start, shards=SHARDS, topics=network.bound_topics(log))),
            (LEDGER_ID, GenesisRecorded(at_us=start, genesis=network.genesis)),
        ]
        for made in (first, *(list(fleet.market().events) for fleet in self.fleets)):
            partition.append(
                CommitHeader(time_us=start),
                [
                    RecordedEvent(
                        aggregate,
                        1,
                        network.codec.number(type(event)),
                        network.codec.encode(event),
                    )
                    for aggregate, event in made
                ],
            )
        partition.append(CommitHeader(time_us=start + HOUR_US), [])

    def report(self, log: Log, beats: int) -> None:
        """Every gateway sends a batch a beat."""
        for _ in range(beats):
            for shard, fleet in enumerate(self.fleets):
                for number, at in enumerate(fleet.gateways):
                    payload = fleet.batch(at, self.sent, Encoding.LONG)
                    wire, _ = sign_input(
                        self.network.codec,
                        gateway(shard, number),
                        self.network.hash,
                        payload,
                        self.start_us,
                        self.sent,
                    )
                    log.append(TELEMETRY_TOPIC, shard, wire)
            self.sent += 1
            time.sleep(0.05)

    def join(self) -> Running:
        """One more worker in the group."""
        name = f"worker-{len(self.workers)}"
        made = Running(
            *("work", "metering", "--group", "synor-metering"),
            env=self.env,
            log=self.folder / f"{name}.txt",
        )
        self.workers.append(made)
        return made

    def held(self, worker: Running) -> set[int]:
        """The shards that a worker has begun to work and not let go of, by what it says."""
        held: set[int] = set()
        for shard, what in re.findall(r"metering (\d+) (works|is another)", worker.text()):
            (held.add if what == "works" else held.discard)(int(shard))
        return held

    def covered(self, *workers: Running) -> bool:
        """Whether these workers together work every shard, each some of them."""
        found = [self.held(worker) for worker in workers]
        return all(found) and set().union(*found) == set(range(SHARDS))

    def accepted(self, log: Log, shard: int) -> list[TelemetryAccepted]:
        """What a shard's ledger says it has taken in."""
        found = events(self.network, log, Ledger.METERING, shard)
        return [event for event in found if isinstance(event, TelemetryAccepted)]


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    """A broker of its own, since topics have the names of production."""
    broker = started_broker(tmp_path / "kafka")
    made: Town | None = None
    try:
        made = Town(tmp_path, broker.bootstrap)
        yield made
    finally:
        with stopped_at_the_end([] if made is None else made.workers):
            pass
        broker.stop()


def told(network: Network, log: Log, shard: int) -> list[bytes]:
    """What a shard's ledger says, without when it learned of the market."""
    return sorted(
        canonical(event if isinstance(event, TelemetryAccepted) else replace(event, at_us=0))
        for event in events(network, log, Ledger.METERING, shard)[1:]
    )


def state_of(network: Network, log: Log) -> str:
    """The ``state_hash`` of what the shards' ledgers fold to, wherever their commits end."""
    states: dict[tuple[Ledger, int], DictStates] = {}
    for shard in range(SHARDS):
        held = states[Ledger.METERING, shard] = DictStates()
        processor = network.processor(Ledger.METERING, shard, held)
        partition = network.partition(
            Ledger.METERING, shard, log=log, index=":memory:", depth=Depth.COMMITS
        )
        partition.catch_up()
        for counted in partition.commits(0):
            body = network.codec.decode(CommitBody, counted.body)
            processor.adopt(body, counted.parts() or (), held.keep)
        # At least its gateways, their nodes and a lease for each.
        assert len(held.all) > 3 * GATEWAYS
    nothing = network.processor(Ledger.MARKET, 0, DictStates())
    assert isinstance(nothing, Market)
    return hash_of_states(nothing, states)


def alone(town: Town, log: Log) -> MemoryLog:
    """The same inputs, with their append times, worked by one worker for each shard."""
    now = [0]
    copy = MemoryLog(lambda: now[0])
    topics = LocalTopics(copy)
    for topic, partitions in town.network.topics().items():
        topics.create(topic, partitions, keep_forever=True)
    market = LEDGER_TOPICS[Ledger.MARKET]
    for topic, shard in [(market, 0), *((TELEMETRY_TOPIC, shard) for shard in range(SHARDS))]:
        for record in records(log, topic, shard):
            now[0] = record.time_us
            copy.append(topic, shard, record.value)
    for shard in range(SHARDS):
        one = worker(
            town.network,
            Ledger.METERING,
            shard,
            log=copy,
            index=":memory:",
            signer=town.key("metering"),
            topics=town.network.bound_topics(copy),
        )
        while one.turn():
            pass
        one.commit_now()
        one.close()
    return copy


def test_workers_that_come_and_are_killed_under_load_lose_and_double_nothing(
    town: Town, fault_matrix: FaultMatrix
) -> None:
    """Two share four shards, a third joins, one is killed; then the ledgers are one worker's."""
    kills = 10 if LONG else 1
    with closing(KafkaLog(town.brokers, client_id="test")) as log:
        town.write_market(log)
        first, second = town.join(), town.join()
        until(lambda: town.covered(first, second), 60)
        town.report(log, 10)
        working = [first, second]
        for _ in range(kills):
            third = town.join()
            until(lambda worker=third: town.held(worker), 60)
            town.report(log, 10)
            working.pop(0).kill()
            town.report(log, 10)
            working.append(third)
            until(lambda: town.covered(*working), 60)
        town.report(log, 10)
        expected = town.sent * GATEWAYS
        counts = until(
            lambda: (
                found
                if min(found := [len(town.accepted(log, s)) for s in range(SHARDS)]) >= expected
                else None
            ),
            60,
        )
        assert [worker.stop() for worker in working] == [0, 0]
        digests = [event.digest for shard in range(SHARDS) for event in town.accepted(log, shard)]
        lost = SHARDS * expected - len(set(digests))
        doubled = len(digests) - len(set(digests))
        found = heights(log, Ledger.METERING, 0)
        reference = alone(town, log)
        forked = sum(
            told(town.network, log, shard) != told(town.network, reference, shard)
            for shard in range(SHARDS)
        )
        same = state_of(town.network, log) == state_of(town.network, reference)
        fault_matrix.record(
            Seen(
                fault="a worker is killed under load while another joins its group",
                where="metering shards",
                runs=kills,
                lost=lost,
                doubled=doubled,
                forked=forked,
                test="tests/recovery/test_groups.py",
            )
        )
        assert (lost, doubled, forked) == (0, 0, 0)
        assert same, "another state than that of one worker for each shard"
        assert counts == [expected] * SHARDS
        assert found
        assert any(
            isinstance(event, UsageStated)
            for event in events(town.network, log, Ledger.METERING, 0)
        ), "no window was stated"


def test_members_whose_join_ended_between_polls_share_the_shards_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The topic comes after its members, and polls are too short to see a join's end."""
    monkeypatch.setattr(kafka_group, "_POLL_MS", 50)
    monkeypatch.setattr(kafka_group, "_JOINING_MS", 50)
    pairs = 6
    stop = threading.Event()
    held: dict[tuple[int, int], frozenset[int]] = {}

    def member(brokers: str, pair: int, number: int) -> None:
        with closing(
            KafkaGroup(brokers, f"group-{pair}", "late", client_id="late", session_s=6.0)
        ) as group:
            while not stop.is_set():
                held[pair, number] = group.shards()
                stop.wait(0.2)

    def shared() -> bool:
        """Whether each pair has every shard once."""
        found = [[*held[pair, 0], *held[pair, 1]] for pair in range(pairs)]
        return all(held.values()) and all(sorted(each) == list(range(SHARDS)) for each in found)

    with KafkaBroker(tmp_path / "kafka") as broker, ThreadPoolExecutor(2 * pairs) as pool:
        members = [
            pool.submit(member, broker.bootstrap, pair, number)
            for pair in range(pairs)
            for number in range(2)
        ]
        try:
            until(lambda: len(held) == 2 * pairs, 60)
            stop.wait(3.0)
            with closing(KafkaTopics(broker.bootstrap)) as topics:
                topics.create("late", SHARDS, keep_forever=True)
            until(shared, 60)
        finally:
            stop.set()
    for each in members:
        each.result()


def test_group_and_shards_exclude_each_other(tmp_path: Path) -> None:
    """Two ways to share the work at once would be a mistake, on a network that there is."""
    where = tmp_path / "network"
    made = synor("network", "new", where, "--kafka", "127.0.0.1:1", "--genesis", TINY)
    assert made.code == 0, made.err
    work = ("work", "metering", "--network", where)
    both = synor(*work, "--shards", "0", "--group", "g")
    assert both.code == 2
    assert "Take one of them" in both.err
    assert "Name the --group too" in synor(*work, "--member", "a").err
