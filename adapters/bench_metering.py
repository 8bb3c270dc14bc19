"""``synor bench metering``: the metering path with all its checks on, one worker.

Throughput: a topic filled beforehand, from the first read to the last commit. Latency: an open loop
at half that rate, each batch timed from the instant it was planned to be sent until the commit that
holds it was acknowledged, so a stall is counted against every batch that it delays.
"""

from __future__ import annotations

import gc
import hashlib
import multiprocessing
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import psutil

from adapters.avro_codec import AvroCodec
from adapters.bench_peers import Peer, measure, require
from adapters.bootstrap import Network, create_topics, kinds, worker
from adapters.ed25519 import Signer, sign_input
from adapters.embedded import SystemKeys, genesis_of
from adapters.eventsourcing_index import Depth
from adapters.eventsourcing_threads import OwnThreadLog
from adapters.metering_workload import Encoding, Fleet
from adapters.roles_memory import settle
from adapters.worker import Worker
from domain.commit import (
    LEDGER_TOPICS,
    TELEMETRY_TOPIC,
    CommitBody,
    CommitHeader,
    Ledger,
    RecordedEvent,
    unpack_event,
)
from domain.commit_bodies import commit_bodies
from domain.genesis import Parameters, TimeSource
from domain.ids import Hash32, PublicKey
from domain.ledger import LEDGER_ID, GenesisRecorded, LogBound
from domain.ports import Log, TopicAdmin
from domain.signed import Signed
from domain.telemetry import Batch, BatchBytes, MeteringEvent, TelemetryAccepted

SEED: Final = b"synor bench"
GATEWAYS: Final = 16
EVENTS_A_COMMIT: Final = 1000
FILL_AT_ONCE: Final = 500
#: The fleet began this long ago: its readings run on from there, and none may be of the future.
BEFORE_US: Final = 20 * 3_600_000_000
LATENCY_S: Final = 8.0
LATENCY_WARM_UP_S: Final = 2.0


class BenchLog(Enum):
    """What the topics stand on."""

    KAFKA = "kafka"
    SQLITE = "sqlite"
    MEMORY = "memory"


@dataclass(frozen=True, slots=True)
class Shape:
    """What is measured."""

    log: BenchLog
    rows: int
    columns: Encoding
    readings: int

    @property
    def batches(self) -> int:
        """How many batches of the shape hold the readings."""
        return -(-self.readings // self.rows)


@dataclass(frozen=True, slots=True)
class Place:
    """How another process opens the same log: by address, never by object."""

    kind: BenchLog
    address: str

    def open(self) -> Log:
        """Open it."""
        if self.kind is BenchLog.KAFKA:
            from adapters.kafka_log import KafkaLog

            return KafkaLog(self.address, client_id="synor-bench")
        from adapters.sqlite_log import SqliteLog

        return SqliteLog(Path(self.address), clock_us=now_us)


def now_us() -> int:
    """The machine's clock: in production time is the broker's, and so it is here."""
    return time.time_ns() // 1000


def network_of(start_us: int) -> Network:
    """The bench's own network, P = 1."""
    keys = SystemKeys.derived(SEED)
    return Network.first(
        lambda nonce: genesis_of(
            keys,
            name="synor-bench",
            start_us=start_us,
            time_source=TimeSource.BROKER,
            parameters=Parameters(),
            nonce=nonce,
        ),
        1,
    )


def gateway_signer(number: int) -> Signer:
    """The key of a gateway."""
    return Signer(hashlib.sha256(SEED + b"gateway" + number.to_bytes(2, "big")).digest())


def fleet_of(shape: Shape, start_us: int) -> Fleet:
    """The fleet that signs the bench's batches."""
    return Fleet(
        key_of=lambda number: PublicKey(gateway_signer(number).public),
        start_us=start_us,
        gateways=GATEWAYS,
        rows=shape.rows,
    )


def signed_batches(
    shape: Shape, start_us: int, genesis_hash: bytes, first: int, count: int
) -> Iterator[bytes]:
    """Batches number ``first`` and on, signed, as they stand on the wire."""
    codec = AvroCodec()
    fleet = fleet_of(shape, start_us)
    signers = [gateway_signer(number) for number in range(GATEWAYS)]
    for number in range(first, first + count):
        beat, gateway = divmod(number, GATEWAYS)
        payload = fleet.batch(fleet.gateways[gateway], beat, shape.columns)
        wire, _ = sign_input(codec, signers[gateway], Hash32(genesis_hash), payload, start_us, beat)
        yield wire


def fill(
    place: Place, shape: Shape, start_us: int, genesis_hash: bytes, first: int, count: int
) -> None:
    """Append batches as fast as the log takes them; runs in a process of its own."""
    log = place.open()
    waiting: list[bytes] = []
    for wire in signed_batches(shape, start_us, genesis_hash, first, count):
        waiting.append(wire)
        if len(waiting) == FILL_AT_ONCE:
            log.append_many(TELEMETRY_TOPIC, 0, waiting)
            waiting.clear()
    if waiting:
        log.append_many(TELEMETRY_TOPIC, 0, waiting)
    log.close()


def send_open_loop(
    place: Place,
    shape: Shape,
    start_us: int,
    genesis_hash: bytes,
    first: int,
    count: int,
    ready: Any,
    began: Any,
    per_s: float,
) -> None:
    """Send each batch at its planned instant, whatever became of the ones before."""
    log = place.open()
    wires = list(signed_batches(shape, start_us, genesis_hash, first, count))
    ready.set()
    began.acquire()
    start = time.monotonic()
    sent = 0
    while sent < count:
        due = min(int((time.monotonic() - start) * per_s) + 1, count)
        if due > sent:
            log.append_many(TELEMETRY_TOPIC, 0, wires[sent:due])
            sent = due
        else:
            time.sleep(max(0.0, start + sent / per_s - time.monotonic()))
    log.close()


def _write_market(network: Network, log: Log, fleet: Fleet, keys: SystemKeys) -> None:
    """The market ledger that the shard reads: its genesis and the fleet's registrations."""
    partition = network.partition(
        Ledger.MARKET, 0, log=log, index=":memory:", depth=Depth.COMMITS, signer=keys.market
    )
    codec = network.codec
    start = network.genesis.start_us
    events: list[tuple[bytes, Any]] = [
        (LEDGER_ID, LogBound(at_us=start, shards=1, topics=network.bound_topics(log))),
        (LEDGER_ID, GenesisRecorded(at_us=start, genesis=network.genesis)),
    ]
    recorded = [
        RecordedEvent(aggregate, 1, codec.number(type(event)), codec.encode(event))
        for aggregate, event in (*events, *fleet.market().events)
    ]
    partition.append(CommitHeader(time_us=start), recorded[:2])
    for at in range(2, len(recorded), EVENTS_A_COMMIT):
        partition.append(CommitHeader(time_us=start), recorded[at : at + EVENTS_A_COMMIT])


@contextmanager
def _topics(shape: Shape, folder: Path) -> Iterator[tuple[Place, TopicAdmin, Callable[[], Log]]]:
    if shape.log is BenchLog.KAFKA:
        from adapters.kafka_broker import KafkaBroker
        from adapters.kafka_topics import KafkaTopics

        with KafkaBroker(folder / "kafka") as broker:
            place = Place(shape.log, broker.bootstrap)
            admin = KafkaTopics(broker.bootstrap)
            yield place, admin, place.open
            admin.close()
    elif shape.log is BenchLog.SQLITE:
        from adapters.local_topics import LocalTopics
        from adapters.sqlite_log import SqliteLog

        place = Place(shape.log, str(folder / "log.db"))
        log = SqliteLog(Path(place.address), clock_us=now_us)
        yield place, LocalTopics(log), place.open
        log.close()
    else:
        from adapters.local_topics import LocalTopics
        from adapters.memory_log import MemoryLog

        memory = MemoryLog(now_us)
        yield Place(shape.log, ""), LocalTopics(memory), lambda: memory


class TimedLog(OwnThreadLog):
    """The log that commits are appended to; it notes when each append was acknowledged."""

    def __init__(self, open_log: Callable[[], Log]) -> None:
        """Open the log, see ``OwnThreadLog``."""
        super().__init__(open_log)
        self.acknowledged: dict[int, float] = {}  # offset: by the monotonic clock

    def append(self, topic: str, partition: int, value: bytes) -> int:
        """See the port."""
        offset = super().append(topic, partition, value)
        self.acknowledged[offset] = time.monotonic()
        return offset


@dataclass(frozen=True, slots=True)
class Bench:
    """A worker before a topic that is full."""

    network: Network
    place: Place
    log: Log
    own_log: TimedLog
    shard: Worker
    folder: Path


@contextmanager
def prepared(shape: Shape) -> Iterator[Bench]:
    """Topics, a market ledger with the fleet, a worker that has learned it, and a full topic."""
    start_us = now_us() - BEFORE_US
    keys = SystemKeys.derived(SEED)
    network = network_of(start_us)
    fleet = fleet_of(shape, start_us)
    with TemporaryDirectory(prefix="synor-bench-") as name, _topics(shape, Path(name)) as opened:
        place, admin, open_log = opened
        create_topics(network, admin)
        log = open_log()
        _write_market(network, log, fleet, keys)
        own_log = TimedLog(open_log)
        shard = worker(
            network,
            Ledger.METERING,
            0,
            log=log,
            index=Path(name) / "index.db",
            signer=keys.metering,
            topics=network.bound_topics(log),
            clock_us=now_us,
            own_log=own_log,
        )
        while shard.turn():
            pass
        _fill(place, log, shape, start_us, network.hash)
        # What a worker does at its start is not what a reading costs.
        network.codec.prepare(kinds(Signed, Batch, BatchBytes, CommitBody, MeteringEvent))
        settle()
        yield Bench(network, place, log, own_log, shard, Path(name))
        shard.close()
        own_log.close()


@dataclass(frozen=True, slots=True)
class Metered:
    """A topic that one worker has metered, and the figures of its throughput."""

    network: Network
    place: Place
    log: Log
    shard: Worker
    figures: dict[str, Any]


@contextmanager
def metered(shape: Shape) -> Iterator[Metered]:
    """Fill a topic, then let one worker meter it."""
    with prepared(shape) as bench:
        figures = _throughput(bench, shape)
        yield Metered(bench.network, bench.place, bench.log, bench.shard, figures)


def bench_metering(shape: Shape, peer: Peer | None = None) -> dict[str, Any]:
    """Measure one shape and give the figures of its one line of JSON.

    Raises ``PeerMissing`` where the peer cannot run.
    """
    if peer is not None:
        require(peer, kafka=shape.log is BenchLog.KAFKA)
    with prepared(shape) as bench:
        figures = _throughput(bench, shape)
        figures["peak_mb"] = peak_mb()
        if peer is not None:
            figures |= _beside(peer, bench, shape, figures)
        figures |= _latency(bench, shape, figures)
    return figures


def bench_growth(shape: Shape, times: int) -> dict[str, Any]:
    """CPU and memory after the shape's readings, and after so many times as many.

    One worker reads them all, so what grows with its history shows in the last part's figures.
    """
    whole = replace(shape, readings=shape.readings * times)
    with prepared(whole) as bench:
        parts: list[Part] = []
        for number in range(1, times + 1):
            until = whole.batches * number // times
            parts.append(_part(bench.shard, until))
    cpu = [part.cpu_s / (whole.batches / times * shape.rows) * 1e6 for part in parts]
    mean = sum(cpu) / times
    return {
        "log": shape.log.value,
        "columns": shape.columns.value,
        "batch": shape.rows,
        "readings": [shape.readings, whole.readings],
        "cpu_us_per_reading": [round(cpu[0], 4), round(mean, 4)],
        "cpu_us_last_part": round(cpu[-1], 4),
        "cpu_ratio": round(mean / cpu[0], 3),
        "memory_mb": [parts[0].memory_mb, parts[-1].memory_mb],
    }


@dataclass(frozen=True, slots=True)
class Part:
    """What a part of the records took, and the memory in use after it."""

    cpu_s: float
    memory_mb: float


def _part(shard: Worker, until: int) -> Part:
    cpu = time.process_time()
    while shard.position(TELEMETRY_TOPIC, 0) < until:
        shard.turn()
    shard.commit_now()
    gc.collect()
    memory = psutil.Process().memory_info().rss
    return Part(time.process_time() - cpu, round(memory / 2**20, 1))


def peak_mb() -> float:
    """The most memory that this process has had."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def _beside(peer: Peer, bench: Bench, shape: Shape, figures: dict[str, Any]) -> dict[str, Any]:
    """The peer's figures for the same records; it must have come to the same totals."""
    kafka = bench.place.address if shape.log is BenchLog.KAFKA else ""
    found = measure(peer, bench.log, kafka, shape.batches, bench.folder)
    expected = fleet_of(shape, bench.network.genesis.start_us).highest(shape.batches)
    if (found.readings, found.total) != (figures["readings"], expected):
        raise RuntimeError(
            f"{peer.value} counted {found.readings} readings with totals of {found.total}, "
            f"expected {figures['readings']} and {expected}"
        )
    per_s = found.readings / found.seconds
    return {
        "peer": peer.value,
        "peer_readings_per_s": round(per_s),
        "peer_cpu_us_per_reading": round(found.cpu_s / found.readings * 1e6, 4),
        "times_peer": round(figures["readings_per_s"] / per_s, 2),
    }


def _fill(place: Place, log: Log, shape: Shape, start_us: int, genesis_hash: bytes) -> None:
    if shape.log is BenchLog.MEMORY:
        wires = list(signed_batches(shape, start_us, genesis_hash, 0, shape.batches))
        log.append_many(TELEMETRY_TOPIC, 0, wires)
        return
    # In a process of its own, so that neither its memory nor its time counts.
    process = multiprocessing.get_context("spawn").Process(
        target=fill, args=(place, shape, start_us, genesis_hash, 0, shape.batches)
    )
    process.start()
    process.join()
    if process.exitcode != 0:
        raise RuntimeError("the topic could not be filled")


def _throughput(bench: Bench, shape: Shape) -> dict[str, Any]:
    shard, log = bench.shard, bench.log
    ledger = LEDGER_TOPICS[Ledger.METERING]
    before = log.end(ledger, 0)
    cpu, wall = time.process_time(), time.perf_counter()
    while shard.position(TELEMETRY_TOPIC, 0) < shape.batches:
        shard.turn()
    shard.commit_now()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    accepted, commits, ledger_bytes = _recorded(log, ledger, before)
    if accepted != shape.batches * shape.rows:
        raise RuntimeError(f"{accepted} readings were accepted of {shape.batches * shape.rows}")
    return {
        "log": shape.log.value,
        "columns": shape.columns.value,
        "batch": shape.rows,
        "readings": accepted,
        "commits": commits,
        "seconds": round(wall, 3),
        "readings_per_s": round(accepted / wall),
        "cpu_us_per_reading": round(cpu / accepted * 1e6, 4),
        "bytes_per_reading": round(ledger_bytes / accepted, 2),
    }


def _recorded(log: Log, ledger: str, first: int) -> tuple[int, int, int]:
    """Readings accepted, commits and bytes on the ledger from an offset on."""
    codec = AvroCodec()
    number = codec.number(TelemetryAccepted)
    readings = commits = size = 0
    for record, body in commit_bodies(log, codec, ledger, 0, first):
        commits += 1
        size += len(record.value)
        for event in map(unpack_event, body.events):
            if event.schema == number:
                accepted = codec.decode(TelemetryAccepted, event.payload)
                refused = sum(byte.bit_count() for byte in accepted.refused)
                readings += accepted.rows - refused
    return readings, commits, size


def _latency(bench: Bench, shape: Shape, figures: dict[str, Any]) -> dict[str, Any]:
    """Open loop at half the measured rate; None where no other process can write to the log."""
    if shape.log is BenchLog.MEMORY:
        return {"p50_ms": None, "p99_ms": None, "offered_per_s": None}
    shard, ledger = bench.shard, LEDGER_TOPICS[Ledger.METERING]
    before = bench.log.end(ledger, 0)
    per_s = figures["readings_per_s"] / 2 / shape.rows
    count = int(per_s * (LATENCY_S + LATENCY_WARM_UP_S))
    context = multiprocessing.get_context("spawn")
    ready, began = context.Event(), context.Semaphore(0)
    process = context.Process(
        target=send_open_loop,
        args=(
            bench.place,
            shape,
            bench.network.genesis.start_us,
            bench.network.hash,
            shape.batches,
            count,
            ready,
            began,
            per_s,
        ),
    )
    process.start()
    ready.wait()
    began.release()
    start = time.monotonic()
    while shard.committed(TELEMETRY_TOPIC, 0) < shape.batches + count:
        shard.turn(wait_s=0.005)
        if time.monotonic() - start > 6 * (LATENCY_S + LATENCY_WARM_UP_S):
            raise RuntimeError("the worker does not keep up with half of its own throughput")
    process.join()
    late: list[float] = []
    done = int(per_s * LATENCY_WARM_UP_S)
    for record, body in commit_bodies(bench.log, bench.network.codec, ledger, 0, before):
        acknowledged = bench.own_log.acknowledged[record.offset] - start
        for run in body.runs:
            if run.topic == TELEMETRY_TOPIC:
                late += [acknowledged - at / per_s for at in range(done, run.next - shape.batches)]
                done = max(done, run.next - shape.batches)
    late.sort()
    return {
        "p50_ms": round(late[len(late) // 2] * 1000, 2),
        "p99_ms": round(late[len(late) * 99 // 100] * 1000, 2),
        "offered_per_s": round(per_s * shape.rows),
    }
