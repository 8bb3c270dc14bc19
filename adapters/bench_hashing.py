"""``synor bench hashing``: how near gate and audit come to what the libraries can do.

Both ways see the same bytes in the same run, on one thread, and CPU time counts. The limit is the
bare call of ``hashlib`` and ``cryptography``. The way of gate and audit is all that surrounds it
here: for hashes the digest of each record, the run over them, and the bulk of commits, whose bytes
are compared with the records and whose hash with their digests. Their limit is to hash both. A
worker that starts has the bulk alone, takes it apart and hashes each part (``restart_of_limit``).
For signatures the envelope decoded, the preimage built, the key
judged. Of a small record the limit itself is mostly the call: what it takes to hash the same bytes
without one (``hash_share_of_limit``) tells how much.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import Any, Final

from adapters.bench_metering import (
    BenchLog,
    Shape,
    gateway_signer,
    network_of,
    now_us,
    signed_batches,
)
from adapters.ed25519 import verify
from adapters.metering_workload import Encoding
from domain.chain import Counted
from domain.commit import BulkPart, Ledger, RunDigest, bulk_hash, pack_bulk, part_of, seal
from domain.invariant import invariant
from domain.ports import LogRecord
from domain.signed import Signed, message_of

ROUNDS: Final = 5
RECORDS_A_COMMIT: Final = 64


def bench_hashing(rows: int, records: int) -> dict[str, Any]:
    """Measure and give the figures of one line of JSON."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    start_us = now_us()
    network = network_of(start_us)
    shape = Shape(BenchLog.MEMORY, rows, Encoding.LONG, rows * records)
    values = list(signed_batches(shape, start_us, network.hash, 0, records))
    codec = network.codec
    opened = [_signed(codec.open_signed(value)) for value in values]
    messages = [message_of(signed) for signed in opened]
    keys = [Ed25519PublicKey.from_public_bytes(signed.key) for signed in opened]
    commits = [
        _commit(values[at : at + RECORDS_A_COMMIT]) for at in range(0, records, RECORDS_A_COMMIT)
    ]

    def bare_hashes() -> None:
        for value in values:
            hashlib.sha256(value).digest()

    def only_hashes() -> None:
        sha256 = hashlib.sha256()
        for value in values:
            sha256.update(value)

    # A record keeps its digest, so each round has records of its own; reading makes them.
    rounds = [
        [LogRecord(offset, start_us, value) for offset, value in enumerate(values)]
        for _ in range(ROUNDS)
    ]

    def our_hashes() -> None:
        run, records = RunDigest(), rounds.pop()
        for record in records:
            run.add(record)
        run.digest()
        for number, commit in enumerate(commits):
            some = records[number * RECORDS_A_COMMIT : (number + 1) * RECORDS_A_COMMIT]
            parts = [BulkPart(record.value, record.digest()) for record in some]
            same = pack_bulk(parts) == commit.bulk()
            same = same and bulk_hash(part.digest for part in parts) == commit.envelope.bulk_hash
            invariant(same, "the bulk is the inputs")

    def restart_hashes() -> None:
        for commit in commits:
            invariant(commit.parts() is not None, "the bulk hashes right")

    def bare_signatures() -> None:
        for key, signed, message in zip(keys, opened, messages, strict=True):
            key.verify(signed.signature, message)

    def our_signatures() -> None:
        for value in values:
            signed = _signed(codec.open_signed(value))
            holds = verify(signed.key, message_of(signed), signed.signature)
            invariant(holds, "the signature holds")

    size = 2 * sum(map(len, values))
    only, once, hashes, restart = map(
        _seconds, (only_hashes, bare_hashes, our_hashes, restart_hashes)
    )
    hash_limit = 2 * once
    limit, signatures = _seconds(bare_signatures), _seconds(our_signatures)
    return {
        "batch": rows,
        "record_bytes": len(values[0]),
        "sha256_mb_per_s": round(size / hashes / 1e6),
        "hashlib_mb_per_s": round(size / hash_limit / 1e6),
        "sha256_of_limit": round(hash_limit / hashes, 3),
        "restart_of_limit": round(once / restart, 3),
        "hash_share_of_limit": round(only / once, 3),
        "us_per_record": round(hashes / records * 1e6, 3),
        "signatures_per_s": round(records / signatures),
        "cryptography_per_s": round(records / limit),
        "signatures_of_limit": round(limit / signatures, 3),
    }


def _seconds(work: Callable[[], None]) -> float:
    """CPU time of the best of some rounds: others on the machine only ever add to it."""
    best = float("inf")
    for _ in range(ROUNDS):
        before = time.thread_time()
        work()
        best = min(best, time.thread_time() - before)
    return best


def _signed(opened: Any) -> Signed:
    invariant(isinstance(opened, Signed), "a batch of ours is a signed record")
    assert isinstance(opened, Signed)
    return opened


def _commit(values: list[bytes]) -> Counted:
    parts = [part_of(value) for value in values]
    writer = gateway_signer(0)
    envelope = seal(
        genesis=bytes(32),
        ledger=Ledger.METERING,
        shard=0,
        height=0,
        previous=bytes(32),
        writer=writer.public,
        body=b"",
        bulk=parts,
    )
    unsigned = envelope.unsigned()
    value = unsigned + writer.sign(unsigned) + pack_bulk(parts)
    return Counted(0, 0, envelope, b"", b"", value)
