"""``synor bench audit``: the audit of a metering shard against the metering itself and bare limits.

One process audits what a worker has just metered, by itself: its CPU time is the measure, so that
neither the other core nor the worker counts. Then, in the same process and over the same bytes, its
hashing and its signature checks are timed against nothing but ``hashlib`` and ``cryptography``.
"""

from __future__ import annotations

import hashlib
import resource
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from adapters.avro_codec import AvroCodec
from adapters.bench_metering import BenchLog, Place, Shape, metered
from adapters.bootstrap import Network, ledger_audit
from adapters.ed25519 import VerifyPool
from domain.commit import (
    LEDGER_TOPICS,
    TELEMETRY_TOPIC,
    CommitBody,
    Ledger,
    RunDigest,
    body_of,
    parse,
)
from domain.genesis import Genesis
from domain.ids import Hash32
from domain.merkle import MerkleTree
from domain.ports import Log, LogRecord
from domain.signed import Signed, message_of

READ_BYTES: Final = 4 * 1024 * 1024
_TWO_DIGESTS: Final = bytes(65)
#: Readings that take an audit some seconds, by rows of a batch.
ENOUGH: Final = ((1000, 2_000_000), (100, 1_000_000), (1, 200_000))


@dataclass(slots=True)
class _Spent:
    """CPU seconds of one way to do a thing, and how much of it was done."""

    ours: float = 0.0
    bare: float = 0.0
    done: int = 0

    def figures(self, name: str, unit: int) -> dict[str, Any]:
        """Rates of both, and how near the first comes to the second."""
        return {
            f"{name}_per_s": round(self.done / unit / self.ours),
            f"{name}_limit_per_s": round(self.done / unit / self.bare),
            f"{name}_share": round(self.bare / self.ours, 3),
        }


def bench_audit(shape: Shape) -> dict[str, Any]:
    """Meter, audit, and compare; the log must be one that another process can open."""
    if shape.log is BenchLog.MEMORY:
        raise ValueError("an audit is measured in a process of its own; memory is not shared")
    with metered(shape) as it:
        genesis = it.network.codec.encode(it.network.genesis)
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            found = pool.submit(_audited, it.place, genesis, it.network.shards).result()
        metering_us = it.figures["cpu_us_per_reading"]
        return {
            "log": shape.log.value,
            "columns": shape.columns.value,
            "batch": shape.rows,
            **found,
            "metering_cpu_us_per_reading": metering_us,
            "share_of_metering_rate": round(metering_us / found["cpu_us_per_reading"], 3),
        }


def _audited(place: Place, genesis: bytes, shards: int) -> dict[str, Any]:
    codec = AvroCodec()
    network = Network(
        codec.decode(Genesis, genesis), Hash32(hashlib.sha256(genesis).digest()), shards, codec
    )
    with closing(place.open()) as log:
        one = ledger_audit(network, log, Ledger.METERING, 0)
        wall, cpu = time.perf_counter(), time.process_time()
        for report in one.run():
            if not report.readings:
                # The fleet's registration is no part of the metering's figure either.
                wall, cpu = time.perf_counter(), time.process_time()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        hashing, signatures = _limits(codec, log)
    readings = one.report.readings
    return {
        "readings": readings,
        "commits": one.report.commits,
        "seconds": round(wall, 3),
        "readings_per_s": round(readings / wall),
        "readings_per_cpu_s": round(readings / cpu),
        "cpu_us_per_reading": round(cpu / readings * 1e6, 4),
        "peak_mb": round(peak_mb, 1),
        **hashing.figures("hashed_mb", 1_000_000),
        **signatures.figures("signatures", 1),
        # What is left of the audit when decoding, deciding and comparing are left out.
        "limits_share_of_audit": round((hashing.bare + signatures.bare) / cpu, 3),
    }


def _limits(codec: AvroCodec, log: Log) -> tuple[_Spent, _Spent]:
    """The audit's hashing and signature checks over all inputs and commits, and the bare ones."""
    hashing, signatures = _Spent(), _Spent()
    verify_many = VerifyPool()
    digest, tree = RunDigest(), MerkleTree()
    for records in _fetches(log, TELEMETRY_TOPIC):
        _hash_inputs(records, digest, hashing)
        _check(codec, records, verify_many, signatures)
    for records in _fetches(log, LEDGER_TOPICS[Ledger.METERING]):
        _hash_commits(codec, records, tree, hashing)
    verify_many.close()
    return hashing, signatures


def _fetches(log: Log, topic: str) -> Iterator[Sequence[LogRecord]]:
    offset = 0
    while (fetched := log.read(topic, 0, offset, max_bytes=READ_BYTES)).next_offset != offset:
        yield fetched.records
        offset = fetched.next_offset


def _hash_inputs(records: Sequence[LogRecord], digest: RunDigest, spent: _Spent) -> None:
    began = time.process_time()
    for record in records:
        digest.add(record)
    between = time.process_time()
    for record in records:
        hashlib.sha256(record.value).digest()
    spent.ours += between - began
    spent.bare += time.process_time() - between
    spent.done += sum(len(record.value) for record in records)


def _hash_commits(
    codec: AvroCodec, records: Sequence[LogRecord], tree: MerkleTree, spent: _Spent
) -> None:
    """Envelope, body and the tree over its events; bare: the same hashes and nothing else.

    A tree of n leaves is n hashes of leaves and as many, less one, of two digests each.
    """
    for record in records:
        envelope = parse(record.value)
        if envelope is None:
            continue
        body = body_of(record.value, envelope)
        events = codec.decode(CommitBody, body).events
        began = time.process_time()
        envelope.hash()
        hashlib.sha256(body).digest()
        tree.extend(events)
        between = time.process_time()
        hashlib.sha256(body).digest()
        for event in events:
            hashlib.sha256(event).digest()
            hashlib.sha256(_TWO_DIGESTS).digest()
        spent.ours += between - began
        spent.bare += time.process_time() - between
        spent.done += len(body) + sum(len(event) + len(_TWO_DIGESTS) for event in events)


def _check(
    codec: AvroCodec, records: Sequence[LogRecord], verify_many: VerifyPool, spent: _Spent
) -> None:
    asked = []
    for record in records:
        signed = codec.open_signed(record.value)
        if isinstance(signed, Signed):
            message = message_of(signed)
            asked.append((signed.key, message, signed.signature))
    keys = {key: Ed25519PublicKey.from_public_bytes(key) for key, _, _ in asked}
    began = time.process_time()
    answers = verify_many(asked)
    between = time.process_time()
    for key, message, signature in asked:
        keys[key].verify(signature, message)
    spent.ours += between - began
    spent.bare += time.process_time() - between
    spent.done += len(asked)
    if not all(answers):
        raise RuntimeError("a signature of the bench's own does not hold")
