"""A ledger with many live leases and readings, made by the real processors in one thread.

For the benches of recovery and growth: who bids, serves and reports is made up, and everything
that stands on the ledgers was decided by the same code as anywhere. The log's clock is a made-up
one that ends now, so that the ledger can be gone on with.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from adapters import key_files, roles_genesis, settings
from adapters.actor import Actor, Gathered
from adapters.avro_codec import AvroCodec
from adapters.bootstrap import Network, create_topics, snapshots_by, worker
from adapters.cli_key import address_of
from adapters.ed25519 import Signer
from adapters.embedded import SystemKeys, genesis_of
from adapters.local_topics import LocalTopics
from adapters.sqlite_log import SqliteLog
from adapters.worker import Worker
from domain.account import ObserveDeposit, OpenAccount
from domain.bid import BidRow, MeteredLimit, PlaceBids
from domain.catalogue import VERSION_1
from domain.commit import COMMANDS_TOPIC, LEDGER_TOPICS, TELEMETRY_TOPIC, CommitBody, Ledger
from domain.commit import unpack_event as unpacked
from domain.genesis import DAY_US, HOUR_US, SECOND_US, Parameters, Role, TimeSource
from domain.ids import Address, Hash32, LeaseId, NodeId, Wide, account_of, derive, shard_of
from domain.lease import LeaseOpened, ReadyLeases
from domain.ledger import Tick
from domain.node import Amount, AttestationRow, AttestNodes, NodeRow, RegisterNodes, leaf
from domain.offer import OfferRow, PlaceOffers
from domain.provider import BondStake, RegisterProvider
from domain.telemetry import Batch

SEED: Final = b"synor bench leases"
SHARDS: Final = 4
H100: Final = "gpu.h100"
EGRESS: Final = "network.egress"
NANO: Final = 10**9
BUYERS: Final = 20
DEVICES: Final = 64
LEASE_MILLI: Final = 125
LEASES_A_NODE: Final = DEVICES * 1000 // LEASE_MILLI
NODES_A_COMMAND: Final = 50
ROWS_A_COMMAND: Final = 1000
PER_SECOND: Final = 1_000_000
BACK_US: Final = 4 * HOUR_US

#: Nothing is due for hours, so that a bench measures what it does and not what falls due.
QUIET: Final = Parameters(
    beat_us=HOUR_US,
    grace_us=12 * HOUR_US,
    grace_max_us=12 * HOUR_US,
    usage_window_us=2 * DAY_US,
    closing_us=DAY_US,
    node_down_us=DAY_US,
    ready_within_us=6 * HOUR_US,
    epoch_us=2 * DAY_US,
    unbonding_us=40 * DAY_US,
    live_orders=1_000_000,
)


@dataclass
class MadeUpClock:
    """Stands until it is moved."""

    now_us: int

    def __call__(self) -> int:
        """The time."""
        return self.now_us


@dataclass(slots=True)
class _Lease:
    lease: LeaseId
    ready_us: int = 0


@dataclass
class Story:
    """A network in a folder, its people, and how far the story is told."""

    folder: Path
    network: Network
    keys: SystemKeys
    log: SqliteLog
    clock: MadeUpClock
    workers: dict[tuple[Ledger, int], Worker]
    say: Callable[[str], None]
    inputs: Gathered = field(init=False)
    nodes: list[NodeId] = field(default_factory=list)
    leases: dict[NodeId, list[_Lease]] = field(default_factory=dict)
    lease_milli: int = LEASE_MILLI
    _read: int = 0

    def __post_init__(self) -> None:
        """Gather inputs, so that they go out in few transactions."""
        self.inputs = Gathered(self.log)
        self._clock = self.actor(self.keys.clock)
        self._watcher = self.actor(self.keys.watcher)
        self._attestor = self.actor(self.keys.attestor)
        self._provider = self.actor(person("provider"))
        self._buyers = [self.actor(person(f"buyer {n}")) for n in range(BUYERS)]
        self._at_node: dict[NodeId, Actor] = {}
        self._deposits = 0

    def actor(self, signer: Signer, session_us: int | None = None) -> Actor:
        """Whoever holds a key, in the session that began with the network or in a later one."""
        return Actor(
            log=self.inputs,
            codec=self.network.codec,
            genesis_hash=self.network.hash,
            signer=signer,
            session_us=session_us or self.network.genesis.start_us,
        )

    def settle(self, after_us: int = 0) -> None:
        """Move the clock, tick, and let every worker come to rest."""
        self.tick(after_us)
        moved = True
        while moved:
            # Every worker has its turn, whether or not one before it has moved.
            moved = sum(each.turn() for each in self.workers.values()) > 0

    def tick(self, after_us: int) -> None:
        """Move the clock and append a tick to every partition, after what was gathered for it."""
        self.clock.now_us += after_us
        for topic, partitions in ((COMMANDS_TOPIC, 1), (TELEMETRY_TOPIC, SHARDS)):
            for partition in range(partitions):
                self.inputs.append(topic, partition, self._clock.sign(Tick(time_us=self.clock())))
        with self.log.group():
            self.inputs.flush()

    # The story

    def found(self, leases: int) -> None:
        """People, money, nodes with attested devices, and offers."""
        every = [self._provider, *self._buyers]
        for who in every:
            who.command(OpenAccount(payee=Address(derive("payee", who.key) + bytes(4))))
        self.settle(SECOND_US)
        for who in every:
            self._deposits += 1
            self._watcher.command(
                ObserveDeposit(
                    account=account_of(who.key),
                    amount_nano=Wide(10**10 * NANO),
                    block=self._deposits,
                    block_hash=Hash32(derive("block", self._deposits) * 2),
                    transaction=Hash32(derive("transaction", self._deposits) * 2),
                    log_index=0,
                )
            )
        self._provider.command(
            RegisterProvider(
                location="Luleå",
                network=Hash32(bytes(32)),
                uptime_ppm=990_000,
                response_time_ms=50,
                durability_pp12=10**12 - 1000,
                penalty_ppm=100_000,
            )
        )
        self.settle(SECOND_US)
        capacity = (Amount(resource=H100, amount=DEVICES * 1000),)
        wanted = -(-leases * self.lease_milli // (DEVICES * 1000))
        for first in range(0, wanted, NODES_A_COMMAND):
            rows = range(first, min(first + NODES_A_COMMAND, wanted))
            self._register(rows, capacity)
        self._provider.command(BondStake(amount_nano=Wide(5 * 10**9 * NANO)))
        self.settle(SECOND_US)
        expires_us = self.clock() + 20 * DAY_US
        for first in range(0, wanted, ROWS_A_COMMAND):
            nodes = self.nodes[first : first + ROWS_A_COMMAND]
            self._attestor.command(
                AttestNodes(
                    attestations=tuple(
                        AttestationRow(
                            node=node,
                            leaves=tuple(leaf(node, a.resource, a.amount, 1) for a in capacity),
                            expires_us=expires_us,
                        )
                        for node in nodes
                    )
                )
            )
            self.settle(SECOND_US)
            self._provider.command(
                PlaceOffers(
                    offers=tuple(
                        OfferRow(
                            node=node,
                            resource=H100,
                            quantity_milli=DEVICES * 1000,
                            ask_nano=3 * NANO,
                        )
                        for node in nodes
                    )
                )
            )
        self.settle(10 * SECOND_US)
        # A node has to be heard of before its offers match.
        for node in self.nodes:
            self._batch(node, ())
        self.settle(SECOND_US)

    def _register(self, rows: range, capacity: tuple[Amount, ...]) -> None:
        signers = [person(f"node {row}") for row in rows]
        account = account_of(self._provider.key)
        number = self._provider.command(
            RegisterNodes(
                nodes=tuple(
                    NodeRow(
                        key=signer.public,
                        region="eu",
                        capacity=capacity,
                        identities=tuple(
                            Hash32(derive("device", row, each) * 2) for each in range(DEVICES)
                        ),
                        proof=self.actor(signer).prove(account, Role.NODE),
                    )
                    for row, signer in zip(rows, signers, strict=True)
                )
            )
        )
        self.settle(SECOND_US)
        for at, signer in enumerate(signers):
            node = NodeId(self._provider.id_of("node", number, at))
            self.nodes.append(node)
            self.leases[node] = []
            self._at_node[node] = self.actor(signer)

    def let(self, leases: int) -> None:
        """Bid until so many leases are ready."""
        row = lease_bid(limit_nano=4 * NANO, milli=self.lease_milli)
        placed = 0
        while placed < leases:
            for buyer in self._buyers:
                rows = min(ROWS_A_COMMAND, leases - placed)
                if rows:
                    buyer.command(PlaceBids(bids=(row,) * rows))
                    placed += rows
                    self.settle(SECOND_US)
            self.settle(10 * SECOND_US)
            self._make_ready()
            self.say(f"{sum(map(len, self.leases.values()))} leases")
        while (made := sum(map(len, self.leases.values()))) < leases:
            self.settle(10 * SECOND_US)
            self._make_ready()
            if sum(map(len, self.leases.values())) == made:
                raise RuntimeError(f"only {made} of {leases} leases were opened")

    def _make_ready(self) -> None:
        opened = list(self.opened())
        for first in range(0, len(opened), ROWS_A_COMMAND):
            self._provider.command(
                ReadyLeases(leases=tuple(each.lease for each in opened[first:][:ROWS_A_COMMAND]))
            )
        for each in opened:
            self.leases[each.node].append(_Lease(each.lease, self.clock()))
        self.settle(SECOND_US)

    def opened(self) -> Iterator[LeaseOpened]:
        """Leases that the market has opened since this was last asked."""
        codec = self.network.codec
        number = codec.number(LeaseOpened)
        market = self.workers[Ledger.MARKET, 0]
        for counted in market.counted(self._read):
            self._read = counted.envelope.height + 1
            for event in map(unpacked, codec.decode(CommitBody, counted.body).events):
                if event.schema == number:
                    yield codec.decode(LeaseOpened, event.payload)

    def report(self, readings: int) -> None:
        """Telemetry of all nodes, beat after beat, until so many readings are accepted."""
        sent = 0
        number = 0
        while sent < readings:
            number += 1
            self.clock.now_us += 10 * SECOND_US
            for node, leases in self.leases.items():
                if leases and sent < readings:
                    sent += len(leases)
                    self._batch(node, leases)
            self.settle()
            if number % 20 == 0:
                self.say(f"{sent} readings")

    def _batch(self, node: NodeId, leases: Sequence[_Lease]) -> None:
        found = [(each.lease, each.ready_us) for each in leases]
        batch = node_batch(node, found, self.clock())
        self._at_node[node].telemetry(shard_of(node, SHARDS), batch)

    def close(self) -> None:
        """Let go of workers and log."""
        for each in self.workers.values():
            each.close()
        self.log.close()


_EGRESS: Final = next(i for i, row in enumerate(VERSION_1) if row.resource == EGRESS)


def lease_bid(*, limit_nano: int, milli: int = LEASE_MILLI) -> BidRow:
    """A bid for one lease of the bench."""
    return BidRow(
        resource=H100,
        region="eu",
        quantity_milli=milli,
        limit_nano=limit_nano,
        term_us=30 * DAY_US,
        metered=(MeteredLimit(resource=EGRESS, per_second=PER_SECOND),),
        usage_budget_nano=NANO,
    )


def node_batch(node: NodeId, leases: Sequence[tuple[LeaseId, int]], now_us: int) -> Batch:
    """What a node reports of its leases, each with the time from which it was ready."""
    return Batch(
        nodes=(node,),
        leases=tuple(lease for lease, _ in leases),
        lease=tuple(range(len(leases))),
        resource=(_EGRESS,) * len(leases),
        generation=(0,) * len(leases),
        time_us=(now_us,) * len(leases),
        total=tuple((now_us - ready_us) // SECOND_US * 1000 for _, ready_us in leases),
    )


def person(name: str) -> Signer:
    """A key by name."""
    return Signer(_secret(name))


def _secret(name: str) -> bytes:
    return hashlib.sha256(SEED + name.encode()).digest()


def make_network(
    folder: Path, *, port: int, snapshot_events: int, parameters: Parameters = QUIET
) -> None:
    """Settings, genesis and keys of a network on SQLite, as ``synor network new`` makes them."""
    (folder / "keys").mkdir(parents=True)
    codec = AvroCodec()
    for role in settings.ROLES:
        key_files.write(
            folder / "keys" / f"{role}.pem",
            key_files.Identity(ledger=_secret(role), evm=None),
            None,
            address_of=address_of,
        )
    keys = _keys()
    start_us = time.time_ns() // 1000 - BACK_US
    genesis = roles_genesis.drawn(
        lambda nonce: genesis_of(
            keys,
            name="synor-bench",
            start_us=start_us,
            time_source=TimeSource.BROKER,
            parameters=parameters,
            nonce=nonce,
        ),
        codec,
    )
    roles_genesis.write(folder / "genesis.avro", genesis, codec)
    settings.write(
        folder / settings.FILE_NAME,
        {
            "": {"format": settings.FORMAT, "genesis": "genesis.avro", "shards": SHARDS},
            "log": {"kind": settings.LogKind.SQLITE, "file": "ledger.db"},
            "read_model": {"url": "sqlite:///read.db"},
            "api": {"host": "127.0.0.1", "port": port},
            "work": {"snapshot_events": snapshot_events},
            "keys": {role: f"keys/{role}.pem" for role in settings.ROLES},
        },
        "A network of `synor bench`.",
    )


def _keys() -> SystemKeys:
    return SystemKeys(*(person(name) for name in SystemKeys.__slots__))


def open_story(folder: Path, say: Callable[[str], None]) -> Story:
    """The network of a folder with workers of all its ledgers, before the story begins."""
    found = settings.load(folder)
    network = roles_genesis.network_of(found, AvroCodec())
    keys = _keys()
    clock = MadeUpClock(network.genesis.start_us)
    assert found.log.file is not None
    log = SqliteLog(found.log.file, clock_us=clock, durable=False)
    create_topics(network, LocalTopics(log))
    found.index.mkdir(exist_ok=True)
    signers = {
        Ledger.MARKET: keys.market,
        Ledger.METERING: keys.metering,
        Ledger.SETTLEMENT: keys.settlement,
    }
    workers = {
        (ledger, shard): worker(
            network,
            ledger,
            shard,
            log=log,
            index=found.index / f"{LEDGER_TOPICS[ledger]}.{shard}.db",
            signer=signers[ledger],
            topics=network.bound_topics(log),
            snapshots=snapshots_by(
                found.snapshots, network, ledger, shard, signer=signers[ledger], say=say
            ),
        )
        for ledger, shard in network.ledgers()
    }
    return Story(folder, network, keys, log, clock, workers, say)
