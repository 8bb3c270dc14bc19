"""Peers of the metering path: the same records, the same machine, the same run, by other means.

What they leave out of ours: rules, refusals, sequence numbers, coverage, statements, a hash chain,
a durable result. What is left is what any consumer of signed batches has to do, written as their
documentation shows it. So their figures say what the checks and the ledger cost, or do not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import fastavro
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event

from domain.commit import TELEMETRY_TOPIC
from domain.ports import Log
from domain.signed import preimage

_READ_BYTES: Final = 4 * 1024 * 1024
_PAYLOADS: Final = ("synor.telemetry.v1.Batch", "synor.telemetry.v1.BatchBytes")
_SCHEMAS: Final = Path(__file__).parent.parent / "schemas"


class PeerMissing(Exception):
    """The peer cannot run here; the text says what to do."""


class Peer(Enum):
    """Who reads the records beside us."""

    BYTEWAX = "bytewax"
    EVENTSOURCING = "eventsourcing"


@dataclass(frozen=True, slots=True)
class PeerFigures:
    """What a peer took for all records, and the sum of the highest totals, which must be ours."""

    readings: int
    seconds: float
    cpu_s: float
    total: int


class Opener:
    """Decodes with fastavro and verifies with cryptography; raises where a record is wrong."""

    def __init__(self) -> None:
        """Read the committed schemas."""
        self._signed = _schema("synor.input.v1.Signed")
        self._payloads = {name: _schema(name) for name in _PAYLOADS}

    def __call__(self, value: bytes) -> tuple[bytes, dict[str, Any]]:
        """The signer's key and the batch."""
        signed: Any = fastavro.schemaless_reader(BytesIO(value), self._signed, None)
        kind, key, payload = signed["kind"], signed["key"], signed["payload"]
        message = preimage(
            signed["genesis"],
            kind,
            key,
            signed["session"],
            signed["number"],
            signed["schema"],
            payload,
        )
        Ed25519PublicKey.from_public_bytes(key).verify(signed["signature"], message)
        batch: Any = fastavro.schemaless_reader(BytesIO(payload), self._payloads[kind], None)
        return key, batch


def _schema(name: str) -> Any:
    return fastavro.schema.load_schema(str(_SCHEMAS / f"{name}.avsc"))


class Highest:
    """The highest total of each (lease, resource, generation)."""

    def __init__(self) -> None:
        """Start with no counter."""
        self._totals: dict[tuple[bytes, int, int], int] = {}

    def fold(self, batch: dict[str, Any]) -> int:
        """Fold a batch; returns its number of readings."""
        leases, totals = batch["leases"], self._totals
        rows = 0
        for lease, resource, generation, total in _rows(batch):
            rows += 1
            place = (leases[lease], resource, generation)
            if total > totals.get(place, -1):
                totals[place] = total
        return rows

    def sum(self) -> int:
        """Of all counters."""
        return sum(self._totals.values())


def _rows(batch: dict[str, Any]) -> Iterator[tuple[int, int, int, int]]:
    columns: list[Any] = [batch[name] for name in ("lease", "resource", "generation", "total")]
    if isinstance(columns[0], bytes):
        kinds = (np.dtype(kind) for kind in ("<u2", "<u2", "u1", "<i8"))
        pairs = zip(columns, kinds, strict=True)
        columns = [np.frombuffer(column, kind).tolist() for column, kind in pairs]
    return zip(*columns, strict=True)


class Fleet(Aggregate):
    """A signer's batches, each an event."""

    @event("Started")
    def __init__(self, key: str) -> None:
        """Begin with none."""
        self.key = key
        self.batches = 0

    @event("Received")
    def receive(self, value: str) -> None:
        """Keep a batch as received."""
        self.batches += 1


class Fleets(Application[UUID]):
    """Saves each batch."""


def require(peer: Peer, *, kafka: bool) -> None:
    """Raises ``PeerMissing`` where the peer cannot run."""
    if peer is Peer.BYTEWAX:
        if not kafka:
            raise PeerMissing("bytewax reads Kafka: take it with --log kafka")
        if find_spec("bytewax") is None:
            raise PeerMissing("bytewax is not installed: install the dependency group bench")


def measure(peer: Peer, log: Log, bootstrap: str, records: int, folder: Path) -> PeerFigures:
    """Let the peer read the first ``records`` of the telemetry topic."""
    run = _bytewax(bootstrap) if peer is Peer.BYTEWAX else _eventsourcing(log, records, folder)
    cpu, wall = time.process_time(), time.perf_counter()
    readings, total = run()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return PeerFigures(readings, wall, cpu, total)


_Run = Callable[[], tuple[int, int]]


def _bytewax(bootstrap: str) -> _Run:
    """A dataflow: Kafka source, one step that opens, one state per signer that folds."""
    import bytewax.operators as op
    from bytewax.connectors.kafka import KafkaSource
    from bytewax.dataflow import Dataflow
    from bytewax.testing import TestingSink, run_main

    opened = Opener()
    states: dict[int, Highest] = {}
    counts: list[tuple[str, int]] = []
    flow = Dataflow("peer")
    source: Any = KafkaSource([bootstrap], [TELEMETRY_TOPIC], tail=False, batch_size=500)
    messages: Any = op.input("telemetry", flow, source)

    def open_one(message: Any) -> tuple[str, dict[str, Any]]:
        key, batch = opened(message.value)
        return key.hex(), batch

    def fold(state: Highest | None, batch: dict[str, Any]) -> tuple[Highest, int]:
        state = state or states.setdefault(len(states), Highest())
        return state, state.fold(batch)

    batches: Any = op.map("open", messages, open_one)
    op.output("counts", op.stateful_map("fold", batches, fold), TestingSink(counts))

    def run() -> tuple[int, int]:
        main: Any = run_main
        main(flow)
        return sum(rows for _, rows in counts), sum(state.sum() for state in states.values())

    return run


def _eventsourcing(log: Log, records: int, folder: Path) -> _Run:
    """The library alone: an aggregate per signer, an event per batch, its SQLite recorder."""
    app = Fleets(
        env={
            "PERSISTENCE_MODULE": "eventsourcing.sqlite",
            "SQLITE_DBNAME": str(folder / "peer.db"),
        }
    )
    opened, highest = Opener(), Highest()

    def run() -> tuple[int, int]:
        fleets: dict[bytes, Fleet] = {}
        readings = 0
        for value in _values(log, records):
            key, batch = opened(value)
            readings += highest.fold(batch)
            fleet = fleets.get(key)
            if fleet is None:
                fleets[key] = fleet = Fleet(key.hex())
            fleet.receive(value.hex())
            app.save(fleet)
        app.close()
        return readings, highest.sum()

    return run


def _values(log: Log, records: int) -> Iterator[bytes]:
    offset = 0
    while offset < records:
        fetched = log.read(TELEMETRY_TOPIC, 0, offset, max_bytes=_READ_BYTES)
        found: Sequence[Any] = fetched.records
        yield from (record.value for record in found if record.offset < records)
        offset = fetched.next_offset
