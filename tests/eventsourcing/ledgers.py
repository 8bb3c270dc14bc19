"""Ledgers on any log for these tests: opened, opened again beside, and read back by the rule."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from adapters.avro_codec import AvroCodec
from adapters.ed25519 import Signer, verify
from adapters.eventsourcing_index import MEMORY, Depth, LedgerIndex
from adapters.eventsourcing_partition import LedgerIdentity, LedgerPartition
from adapters.eventsourcing_recorder import LedgerRecorder
from adapters.eventsourcing_threads import OwnThreadLog
from adapters.local_topics import LocalTopics
from adapters.memory_log import MemoryLog, MemoryStore
from adapters.sqlite_log import SqliteLog
from domain.chain import ChainReader, Counted
from domain.commit import CommitBody, Ledger
from domain.merkle import MerkleTree
from domain.ports import Log

TOPIC = "synor.ledger.test.v1"
GENESIS = hashlib.sha256(b"a genesis of the tests").digest()
SIGNER = Signer(hashlib.sha256(b"a writer of the tests").digest())


@cache
def codec() -> AvroCodec:
    """One codec for all tests: deriving the schemas takes a moment."""
    return AvroCodec()


def counting_clock() -> Callable[[], int]:
    """A clock that moves by a second each time it is read."""
    ticks = itertools.count(1)
    return lambda: next(ticks) * 1_000_000


@dataclass
class LedgerStore:
    """One log store with one topic, on which ledgers are opened as often as a test likes."""

    open_log: Callable[[], Log]
    topic: str = TOPIC
    opened: list[LedgerRecorder] = field(default_factory=list)

    def identity(self) -> LedgerIdentity:
        return LedgerIdentity(
            genesis=GENESIS,
            ledger=Ledger.MARKET,
            shard=0,
            writer=SIGNER.public,
            topic=self.topic,
            partition=0,
        )

    def partition(
        self,
        log: Log,
        *,
        index: Path | str = MEMORY,
        depth: Depth = Depth.PAYLOADS,
        signer: Signer | None = SIGNER,
    ) -> LedgerPartition:
        identity = self.identity()
        return LedgerPartition(
            log=log,
            identity=identity,
            codec=codec(),
            verify=verify,
            index=LedgerIndex(index, identity=identity.digest(), depth=depth),
            signer=signer,
        )

    def recorder(
        self,
        *,
        log: Log | None = None,
        index: Path | str = MEMORY,
        depth: Depth = Depth.PAYLOADS,
        signer: Signer | None = SIGNER,
        live: bool = True,
    ) -> LedgerRecorder:
        """Another recorder on the ledger, with a log object of its own."""
        used = OwnThreadLog(self.open_log) if log is None else log
        made = LedgerRecorder(
            self.partition(used, index=index, depth=depth, signer=signer),
            clock_us=counting_clock(),
            live=live,
        )
        self.opened.append(made)
        return made

    def verified(self) -> list[Counted]:
        """Every counting commit, judged from the first record, roots and sizes checked."""
        at = self.identity()
        chain = ChainReader(
            genesis=at.genesis,
            ledger=at.ledger,
            shard=at.shard,
            writer=at.writer,
            verify=verify,
        )
        log = self.open_log()
        tree = MerkleTree()
        counted: list[Counted] = []
        offset = 0
        while True:
            fetched = log.read(self.topic, 0, offset, max_bytes=1 << 20)
            if fetched.next_offset == offset:
                log.close()
                return counted
            for record in fetched.records:
                verdict = chain.judge(record)
                if isinstance(verdict, Counted):
                    body = codec().decode(CommitBody, verdict.body)
                    tree.extend(body.events)
                    assert (tree.root(), tree.size) == (body.tree_root, body.tree_size)
                    counted.append(verdict)
            offset = fetched.next_offset

    def leaves(self) -> list[bytes]:
        """Every event that counts, in order."""
        return [
            leaf
            for each in self.verified()
            for leaf in codec().decode(CommitBody, each.body).events
        ]

    def close(self) -> None:
        for recorder in self.opened:
            recorder.close()
        self.opened.clear()


def memory_ledger() -> tuple[LedgerStore, MemoryLog]:
    """A ledger in memory, and a log object on it whose faults can be switched."""
    store = MemoryStore()
    clock_us = counting_clock()
    log = MemoryLog(clock_us, store)
    LocalTopics(log).create(TOPIC, 1, keep_forever=True)
    return LedgerStore(lambda: MemoryLog(clock_us, store)), log


def sqlite_ledger(path: Path) -> LedgerStore:
    """A ledger in a SQLite file."""
    clock_us = counting_clock()
    log = SqliteLog(path, clock_us=clock_us, durable=False)
    LocalTopics(log).create(TOPIC, 1, keep_forever=True)
    log.close()
    return LedgerStore(lambda: SqliteLog(path, clock_us=clock_us, durable=False))
