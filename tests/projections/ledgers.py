"""Ledgers written by hand: events in, commits on a memory log out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from adapters.avro_codec import AvroCodec
from adapters.ed25519 import Signer, verify
from adapters.memory_log import MemoryLog, MemoryStore
from adapters.projector import Projector
from adapters.read_model import ReadModel
from domain.commit import (
    COMMANDS_TOPIC,
    LEDGER_TOPICS,
    NO_HASH,
    TELEMETRY_TOPIC,
    CommitBody,
    InputRun,
    Ledger,
    RecordedEvent,
    seal,
)
from domain.genesis import Genesis, GenesisKey, Parameters, Role, TimeSource
from domain.ids import Address, Bytes16, Hash32
from domain.ledger import LEDGER_ID, GenesisRecorded, LogBound, TopicBound
from domain.merkle import MerkleTree

WRITER = Signer(hashlib.sha256(b"writer").digest())
CLOCK = Signer(hashlib.sha256(b"clock").digest())
START_US = 1_700_000_000_000_000
VAULT = Address(b"\x11" * 20)
CHAIN_ID = 31337


@lru_cache(maxsize=1)
def codec() -> AvroCodec:
    """One codec for all tests: its schemas are derived once."""
    return AvroCodec()


def genesis_document() -> Genesis:
    """A genesis whose three ledgers have one writer."""
    return Genesis(
        network="test",
        nonce=1,
        start_us=START_US,
        time_source=TimeSource.LOGICAL,
        rules_version=1,
        market_writer=WRITER.public,
        metering_writer=WRITER.public,
        settlement_writer=WRITER.public,
        keys=(GenesisKey(key=CLOCK.public, role=Role.CLOCK),),
        chain_id=CHAIN_ID,
        vault=VAULT,
        parameters=Parameters(),
    )


@dataclass
class HandLedger:
    """One ledger partition in the making."""

    log: MemoryLog
    genesis: bytes
    ledger: Ledger
    shard: int
    signer: Signer = WRITER
    height: int = -1
    previous: bytes = NO_HASH
    tree: MerkleTree = field(default_factory=MerkleTree)
    versions: dict[bytes, int] = field(default_factory=dict)

    def record(
        self, time_us: int, events: Sequence[tuple[bytes, Any]], runs: tuple[InputRun, ...] = ()
    ) -> bytes:
        """The next commit's bytes."""
        leaves = []
        for aggregate, event in events:
            version = self.versions[aggregate] = self.versions.get(aggregate, 0) + 1
            recorded = RecordedEvent(
                aggregate, version, codec().number(type(event)), codec().encode(event)
            )
            leaves.append(recorded.pack())
        self.tree.extend(leaves)
        body = CommitBody(
            time_us=time_us,
            runs=runs,
            rules_version=1,
            refused=(),
            events=tuple(leaves),
            tree_root=Hash32(self.tree.root()),
            tree_size=self.tree.size,
        )
        encoded = codec().encode(body)
        unsigned = seal(
            genesis=self.genesis,
            ledger=self.ledger,
            shard=self.shard,
            height=self.height + 1,
            previous=self.previous,
            writer=self.signer.public,
            body=encoded,
        ).unsigned()
        envelope = unsigned + self.signer.sign(unsigned)
        self.height += 1
        self.previous = hashlib.sha256(envelope).digest()
        return envelope + encoded

    def beside(self, signer: Signer) -> HandLedger:
        """Another writer that stands where this one does, and knows nothing of what follows."""
        return replace(self, signer=signer, tree=self.tree.copy(), versions=dict(self.versions))

    def commit(
        self, time_us: int, events: Sequence[tuple[bytes, Any]], runs: tuple[InputRun, ...] = ()
    ) -> int:
        """Append the next commit; returns its height."""
        self.log.append(LEDGER_TOPICS[self.ledger], self.shard, self.record(time_us, events, runs))
        return self.height


class HandNetwork:
    """Every ledger of a network on one memory log, each with its genesis commit."""

    def __init__(self, shards: int = 2) -> None:
        self.now_us = START_US
        self.store = MemoryStore()
        self.log = self.open_log()
        self.genesis = genesis_document()
        self.hash = hashlib.sha256(codec().encode(self.genesis)).digest()
        self.shards = shards
        for topic, partitions in (
            (COMMANDS_TOPIC, 1),
            (TELEMETRY_TOPIC, shards),
            (LEDGER_TOPICS[Ledger.MARKET], 1),
            (LEDGER_TOPICS[Ledger.METERING], shards),
            (LEDGER_TOPICS[Ledger.SETTLEMENT], 1),
        ):
            self.log.create_topic(topic, partitions, keep_forever=True)
        self.market = self._ledger(Ledger.MARKET, 0)
        self.metering = [self._ledger(Ledger.METERING, shard) for shard in range(shards)]
        self.settlement = self._ledger(Ledger.SETTLEMENT, 0)
        for each in (self.market, *self.metering, self.settlement):
            each.commit(START_US, self._first())

    def open_log(self) -> MemoryLog:
        return MemoryLog(lambda: self.now_us, self.store)

    def projector(self, read_model: ReadModel) -> Projector:
        return Projector(
            log=self.open_log(),
            target=read_model,
            codec=codec(),
            verify=verify,
            genesis=self.genesis,
            genesis_hash=self.hash,
            shards=self.shards,
        )

    def _ledger(self, ledger: Ledger, shard: int) -> HandLedger:
        return HandLedger(self.log, self.hash, ledger, shard)

    def _first(self) -> list[tuple[bytes, Any]]:
        bound = TopicBound(topic=COMMANDS_TOPIC, id=Bytes16(bytes(16)), partitions=1)
        return [
            (LEDGER_ID, LogBound(at_us=START_US, shards=self.shards, topics=(bound,))),
            (LEDGER_ID, GenesisRecorded(at_us=START_US, genesis=self.genesis)),
        ]
