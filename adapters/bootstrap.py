"""The composition root: the one place where domain, log, ledgers and chain are put together.

Nothing is built at import. ``Network`` is what everybody of one genesis shares; ``worker`` makes a
processor with its ledger on any log.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import count
from pathlib import Path
from typing import Any, Final, get_args

from adapters import ed25519, sodium_ed25519
from adapters.audit import (
    Diverged,
    LedgerAudit,
    LedgerReport,
    Verdict,
    Watch,
    hash_of_states,
)
from adapters.avro_codec import AvroCodec
from adapters.commits_ahead import CommitsAhead
from adapters.ed25519 import Signer, VerifyPool
from adapters.eventsourcing_index import Depth, LedgerIndex
from adapters.eventsourcing_mapper import AvroMapper
from adapters.eventsourcing_partition import LedgerIdentity, LedgerPartition
from adapters.eventsourcing_recorder import LedgerRecorder
from adapters.eventsourcing_threads import OwnThreadLog
from adapters.evm_keccak import keccak
from adapters.fastavro_witness import TELEMETRY_ONE_IN, FastavroWitness
from adapters.ledger_application import LedgerApplication
from adapters.settings import SnapshotSettings
from adapters.snapshot_keeper import SnapshotKeeper, SnapshotPolicy
from adapters.worker import Worker
from adapters.worker_reading import writer_of
from adapters.worker_stores import HeldStates, OwnLedger, Snapshots
from domain import market, metering, metering_states, settlement
from domain.account import AccountEvent
from domain.bid import BidEvent
from domain.checkpoint import CheckpointEvent
from domain.commit import (
    COMMANDS_TOPIC,
    COMMIT_BYTES_MAX,
    LEDGER_TOPICS,
    TELEMETRY_TOPIC,
    CommitBody,
    Ledger,
    body_of,
    parse,
    unpack_event,
)
from domain.epoch import EpochEvent
from domain.figures import Figures
from domain.genesis import Genesis, broken_bounds
from domain.ids import Bytes16, Hash32
from domain.key import KeyEvent
from domain.lease import LeaseEvent
from domain.ledger import (
    GenesisRecorded,
    LedgerEvent,
    LogBound,
    ParameterChanged,
    RulesActivated,
    TopicBound,
    WriterRotated,
)
from domain.market import Market
from domain.market_folds import Folds
from domain.metering import Metering
from domain.node import NodeEvent
from domain.offer import OfferEvent
from domain.ports import Log, SettingsRefused, TopicAdmin
from domain.pot import PotEvent
from domain.processor import DictStates, Evolve, Processor, States, Unit, full
from domain.provider import ProviderEvent
from domain.round import RoundEvent
from domain.settlement import Settlement
from domain.sla import SlaEvent
from domain.telemetry import MeteringEvent
from projections.free_capacity import FreeCapacity
from projections.node_health import NodeHealth
from projections.order_book import OrderBook
from projections.totals import Totals

_MARKET_EVENTS: Final = (
    AccountEvent,
    KeyEvent,
    ProviderEvent,
    NodeEvent,
    OfferEvent,
    BidEvent,
    RoundEvent,
    LeaseEvent,
    SlaEvent,
    PotEvent,
    EpochEvent,
)

#: Verified signatures that are remembered: one tick stands in every partition.
_VERIFIED_KEPT: Final = 1024
_SMALL: Final = 1024


def kinds(*unions: Any) -> tuple[type[Any], ...]:
    """The record types of unions of events; a single type is a union of one."""
    return tuple(kind for union in unions for kind in (get_args(union) or (union,)))


#: The allow-list of each ledger: no other record is ever taken for an event of it.
LEDGER_EVENTS: Final[dict[Ledger, tuple[type[Any], ...]]] = {
    Ledger.MARKET: kinds(LedgerEvent, *_MARKET_EVENTS),
    Ledger.METERING: kinds(LedgerEvent, MeteringEvent),
    Ledger.SETTLEMENT: kinds(LedgerEvent, CheckpointEvent),
}


@lru_cache(maxsize=_VERIFIED_KEPT)
def _verified(key: bytes, message: bytes, signature: bytes) -> bool:
    return ed25519.verify(key, message, signature)


def verify(key: bytes, message: bytes, signature: bytes) -> bool:
    """Verify; of small messages (ticks, commit heads) the last ones are remembered."""
    if len(message) <= _SMALL:
        return _verified(key, message, signature)
    return ed25519.verify(key, message, signature)


def verify_sooner(key: bytes, message: bytes, signature: bytes) -> bool:
    """``verify`` of ed25519, for half the time where the signature holds."""
    if not ed25519.is_weak(key) and sodium_ed25519.accepts(key, message, signature):
        return True
    return ed25519.verify(key, message, signature)


@lru_cache(maxsize=2)
def _verify_pool(*, audit: bool) -> VerifyPool:
    """One pool a process; its threads start with the first large batch. An auditor trusts one."""
    if audit or not sodium_ed25519.is_as_strict():
        return VerifyPool()
    return VerifyPool(verify_sooner)


class GenesisRefused(Exception):
    """A genesis that cannot be used; the text says what is wrong with it."""


class HashRefused(GenesisRefused):
    """A genesis whose hash begins with the byte that Confluent frames begin with."""


@dataclass(frozen=True, slots=True)
class Network:
    """What everybody of one genesis shares."""

    genesis: Genesis
    hash: Hash32
    shards: int
    codec: AvroCodec

    @classmethod
    def of(cls, genesis: Genesis, shards: int, codec: AvroCodec | None = None) -> Network:
        """Check a genesis and name its network. Raises ``GenesisRefused``."""
        codec = codec or AvroCodec()
        wrong = broken_bounds(genesis.parameters)
        if wrong:
            raise GenesisRefused("; ".join(wrong))
        digest = hashlib.sha256(codec.encode(genesis)).digest()
        if digest[0] == 0:
            # A bare Signed begins with this hash, the Confluent frame with a zero byte.
            raise HashRefused("the genesis hash begins with a zero byte; take another nonce")
        return cls(genesis, Hash32(digest), shards, codec)

    @classmethod
    def first(cls, make: Callable[[int], Genesis], shards: int) -> Network:
        """The network of the first nonce, from 0, whose genesis hash may be used."""
        codec = AvroCodec()
        for nonce in count():
            try:
                return cls.of(make(nonce), shards, codec)
            except HashRefused:
                # One hash in 256 begins with a zero byte.
                continue
        raise AssertionError("nonces do not end")

    def identity(self, ledger: Ledger, shard: int = 0) -> LedgerIdentity:
        """Where a ledger of this network stands."""
        return LedgerIdentity(
            genesis=self.hash,
            ledger=ledger,
            shard=shard,
            writer=writer_of(self.genesis, ledger),
            topic=LEDGER_TOPICS[ledger],
            partition=shard,
        )

    def ledgers(self) -> tuple[tuple[Ledger, int], ...]:
        """Every ledger with its shard, the market first."""
        return (
            (Ledger.MARKET, 0),
            *((Ledger.METERING, shard) for shard in range(self.shards)),
            (Ledger.SETTLEMENT, 0),
        )

    def topics(self) -> dict[str, int]:
        """Every topic of the network with its number of partitions."""
        return {
            COMMANDS_TOPIC: 1,
            TELEMETRY_TOPIC: self.shards,
            LEDGER_TOPICS[Ledger.MARKET]: 1,
            LEDGER_TOPICS[Ledger.METERING]: self.shards,
            LEDGER_TOPICS[Ledger.SETTLEMENT]: 1,
        }

    def bound_topics(self, log: Log) -> tuple[TopicBound, ...]:
        """The topics as they are on a log; ``SettingsRefused`` on another partition count."""
        bound = []
        for topic, partitions in sorted(self.topics().items()):
            found = log.partitions(topic)
            if found != partitions:
                raise SettingsRefused(
                    f"topic {topic} has {found} partitions, this network has {partitions}"
                )
            bound.append(
                TopicBound(topic=topic, id=Bytes16(log.topic_id(topic)), partitions=partitions)
            )
        return tuple(bound)

    def partition(
        self,
        ledger: Ledger,
        shard: int,
        *,
        log: Log,
        index: str | Path,
        depth: Depth,
        signer: Signer | None = None,
        successors: Sequence[Signer] = (),
    ) -> LedgerPartition:
        """A ledger on a log, for its writer (with a signer, and who may follow it) or a reader."""
        identity = self.identity(ledger, shard)
        return LedgerPartition(
            log=log,
            identity=identity,
            codec=self.codec,
            verify=verify,
            index=LedgerIndex(index, identity=identity.digest(), depth=depth),
            signer=signer,
            successors=successors,
        )

    def processor(
        self, ledger: Ledger, shard: int, states: States, *, audit: bool = False
    ) -> Processor:
        """A processor before its first event, over a store of its aggregates."""
        match ledger:
            case Ledger.MARKET:
                return Market(
                    genesis=self.genesis,
                    genesis_hash=self.hash,
                    shards=self.shards,
                    states=states,
                    folds=Folds(
                        self.genesis,
                        self.shards,
                        book=OrderBook(),
                        capacity=FreeCapacity(),
                        health=NodeHealth(),
                    ),
                    codec=self.codec,
                    verify=verify,
                )
            case Ledger.METERING:
                return Metering(
                    genesis=self.genesis,
                    genesis_hash=self.hash,
                    shard=shard,
                    shards=self.shards,
                    states=states,
                    codec=self.codec,
                    verify=verify,
                    verify_many=_verify_pool(audit=audit),
                )
            case Ledger.SETTLEMENT:
                return Settlement(
                    genesis=self.genesis,
                    genesis_hash=self.hash,
                    shards=self.shards,
                    states=states,
                    codec=self.codec,
                    verify=verify,
                    keccak=keccak,
                )

    def wanted(self, ledger: Ledger) -> Callable[[Ledger], dict[int, type[Any]]]:
        """What the processor of ``ledger`` decodes of the ledgers that it reads."""
        learned = {
            Ledger.MARKET: tuple(market.LEARN),
            Ledger.METERING: tuple(metering.LEARN),
            Ledger.SETTLEMENT: settlement.LEARNED,
        }[ledger]
        numbers = {
            self.codec.number(kind): kind
            for kind in (*learned, WriterRotated, RulesActivated, ParameterChanged)
        }
        return lambda _: numbers


EVOLVES: Final[dict[Ledger, Evolve]] = {
    Ledger.MARKET: market.evolve,
    Ledger.METERING: metering_states.evolve,
    Ledger.SETTLEMENT: settlement.dispatch,
}


def create_topics(network: Network, topics: TopicAdmin) -> None:
    """Make every topic of a network; existing ones are checked."""
    for topic, partitions in sorted(network.topics().items()):
        topics.create(topic, partitions, keep_forever=topic != TELEMETRY_TOPIC)


def application(partition: LedgerPartition, network: Network) -> LedgerApplication:
    """The library's application over one of our ledgers."""
    ledger = partition.identity.ledger
    mapper = AvroMapper(network.codec, LEDGER_EVENTS[ledger])
    recorder = LedgerRecorder(partition, schemas=mapper.schemas())
    name = f"{ledger.name.title()}{partition.identity.shard}"
    return LedgerApplication.named(name)(recorder, mapper, EVOLVES[ledger])


def worker(
    network: Network,
    ledger: Ledger,
    shard: int,
    *,
    log: Log,
    index: str | Path,
    signer: Signer,
    successors: Sequence[Signer] = (),
    topics: Sequence[TopicBound],
    clock_us: Callable[[], int] | None = None,
    cut: Callable[[Unit], bool] = full,
    figures: Figures | None = None,
    snapshots: Snapshots | None = None,
    own_log: OwnThreadLog | None = None,
) -> Worker:
    """A processor at work: its ledger written through the library, its inputs read from the log.

    With a log of its own for its ledger, a metering shard decides the next step while the last one
    is appended; without, each turn ends with what it decided on the log.
    """
    depth = Depth.COMMITS if ledger is Ledger.METERING else Depth.PAYLOADS
    partition = network.partition(
        ledger,
        shard,
        log=own_log or log,
        index=index,
        depth=depth,
        signer=signer,
        successors=successors,
    )
    application_ = application(partition, network)
    own: OwnLedger = application_
    if ledger is Ledger.METERING:
        own = HeldStates(
            application_ if own_log is None else CommitsAhead(application_),
            metering_states.is_over,
        )
    return Worker(
        make=lambda states: network.processor(ledger, shard, states),
        own=own,
        commits=partition,
        log=log,
        codec=network.codec,
        verify=verify,
        topics=topics,
        wanted=network.wanted(ledger),
        clock_us=clock_us,
        cut=cut,
        figures=figures,
        snapshots=snapshots,
    )


def snapshots_of(
    network: Network,
    ledger: Ledger,
    shard: int,
    *,
    folder: Path,
    signer: Signer,
    successors: Sequence[Signer] = (),
    policy: SnapshotPolicy,
    say: Callable[[str], None],
) -> SnapshotKeeper:
    """The snapshots of one worker, in a folder that others may share."""
    return SnapshotKeeper(
        folder,
        ledger=ledger,
        shard=shard,
        genesis=network.hash,
        signer=signer,
        successors=successors,
        verify=verify,
        policy=policy,
        say=say,
    )


def snapshots_by(
    settings: SnapshotSettings,
    network: Network,
    ledger: Ledger,
    shard: int,
    *,
    signer: Signer,
    successors: Sequence[Signer] = (),
    say: Callable[[str], None],
) -> SnapshotKeeper | None:
    """The snapshots of one worker as the settings want them; None where they want none."""
    if not settings.events:
        return None
    return snapshots_of(
        network,
        ledger,
        shard,
        folder=settings.folder,
        signer=signer,
        successors=successors,
        policy=SnapshotPolicy(
            events=settings.events,
            bulk_bytes=settings.bulk_bytes,
            seconds=settings.seconds,
            # The market's tail costs most to fold, so it must not grow long under load.
            rest=10 if ledger is Ledger.MARKET else 20,
        ),
        say=say,
    )


def first_genesis(log: Log, codec: AvroCodec) -> tuple[Genesis, int]:
    """The genesis and P that a log's market ledger claims; trusted by nobody before its audit."""
    topic = LEDGER_TOPICS[Ledger.MARKET]
    for record in log.read(topic, 0, log.start(topic, 0), max_bytes=COMMIT_BYTES_MAX).records:
        envelope = parse(record.value)
        if envelope is None or envelope.height != 0:
            continue
        body = codec.decode(CommitBody, body_of(record.value, envelope))
        bound, recorded = (
            codec.decode(codec.kind(event.schema), event.payload)
            for event in map(unpack_event, body.events[:2])
        )
        if isinstance(bound, LogBound) and isinstance(recorded, GenesisRecorded):
            return recorded.genesis, bound.shards
    raise GenesisRefused(f"{topic} does not begin with a genesis commit")


def ledger_audit(
    network: Network,
    log: Log,
    ledger: Ledger,
    shard: int,
    watch: Watch | None = None,
    *,
    every: int = TELEMETRY_ONE_IN,
) -> LedgerAudit:
    """The audit of one ledger, before its first commit; ``every`` is the witness's share."""
    return LedgerAudit(
        log=log,
        codec=network.codec,
        verify=verify,
        genesis=network.genesis,
        genesis_hash=network.hash,
        ledger=ledger,
        shard=shard,
        writers=lambda which: writer_of(network.genesis, which),
        make=partial(network.processor, ledger, shard, audit=True),
        wanted=network.wanted(ledger)(ledger),
        watch=watch,
        witness=FastavroWitness(network.codec, telemetry_one_in=every),
    )


def audit(
    network: Network,
    log: Log,
    progress: Callable[[LedgerReport], None] | None = None,
    *,
    every: int = TELEMETRY_ONE_IN,
) -> Verdict:
    """Re-derive every ledger of a network from a log. Raises ``Diverged`` at the first fault."""
    totals = Totals()
    reports, states = [], {}
    processors: dict[Ledger, Processor] = {}
    for ledger, shard in network.ledgers():
        one = ledger_audit(network, log, ledger, shard, totals.see, every=every)
        for report in one.run():
            if progress is not None:
                progress(report)
        reports.append(one.report)
        states[ledger, shard] = one.states
        processors[ledger] = one.processor
    found = processors[Ledger.MARKET]
    assert isinstance(found, Market)
    return concluded(found, reports, states, totals)


def concluded(
    market: Market,
    reports: list[LedgerReport],
    states: dict[tuple[Ledger, int], DictStates],
    totals: Totals,
) -> Verdict:
    """The verdict on ledgers that are each what their inputs make of them."""
    for why in totals.broken(market.folds.balances.all()):
        raise Diverged("totals", Ledger.MARKET, 0, reports[0].commits - 1, -1, "balances", why)
    return Verdict(
        state_hash=hash_of_states(market, states),
        reports=reports,
        states=states,
        market=market,
        totals=totals,
    )
