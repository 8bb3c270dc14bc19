"""A small system that lives through everything once: from deposits to claims in a day.

One provider with two nodes, two buyers, four leases: one expires, one exhausts, one is closed by
its buyer, one ends with its node. A node falls silent, a node contradicts itself, epochs are cut,
anchored and claimed. There is no EVM: the test holds the watcher's key. What is sent depends on
the ledgers alone, so the same inputs come however the workers are cut, killed or doubled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, cast

from eventsourcing.persistence import OperationalError

from adapters.actor import Actor, Gathered
from adapters.avro_codec import AvroCodec
from adapters.bootstrap import Network, create_topics, worker
from adapters.ed25519 import Signer
from adapters.embedded import SystemKeys, derived_signer, genesis_of
from adapters.eventsourcing_index import Depth
from adapters.follow import Follower
from adapters.local_topics import LocalTopics
from adapters.logical_time import LogicalTime
from adapters.memory_log import MemoryLog
from adapters.worker import Worker
from domain.account import ClaimSettled, ObserveClaim, ObserveDeposit, OpenAccount, Withdraw
from domain.bid import BidRow, CancelBid, MeteredLimit, PlaceBids
from domain.catalogue import SHARES_1, VERSION_1, Catalogue
from domain.checkpoint import CheckpointMade
from domain.commit import (
    COMMANDS_TOPIC,
    TELEMETRY_TOPIC,
    Ledger,
)
from domain.epoch import EpochAnchored, EpochCut, ObserveCheckpoint
from domain.genesis import DAY_US, HOUR_US, MINUTE_US, Parameters, Role, TimeSource
from domain.ids import (
    AccountId,
    Address,
    BidId,
    Hash32,
    LeaseId,
    NodeId,
    Wide,
    account_of,
    derive,
    shard_of,
)
from domain.key import CommandAnswered
from domain.lease import CloseLease, EndReason, LeaseEnded, LeaseOpened, LeaseReady, ReadyLeases
from domain.node import Amount, AttestationRow, AttestNodes, NodeRow, RegisterNodes, leaf
from domain.offer import OfferRow, PlaceOffers
from domain.ports import Log, LogError, TopicAdmin
from domain.provider import BondStake, RegisterProvider
from domain.rules import NEWEST
from domain.telemetry import Batch
from tests.system.reading import Seat

SEED = b"synor small system 1"
START_US = 1_767_225_600_000_000
STEP_US = 30 * MINUTE_US
STEPS = 44
NANO = 1_000_000_000
H100 = "gpu.h100"
EGRESS = "network.egress"
KEYS = SystemKeys.derived(SEED)
PRICES = Catalogue(VERSION_1, SHARES_1)
NODES = ("node-a", "node-b")
PARAMETERS = Parameters(
    beat_us=STEP_US,
    grace_us=STEP_US,
    grace_max_us=STEP_US,
    usage_window_us=HOUR_US,
    round_us=10 * MINUTE_US,
    ready_within_us=HOUR_US,
    closing_us=HOUR_US,
    node_down_us=2 * HOUR_US,
    idle_us=HOUR_US,
    sla_window_us=8 * HOUR_US,
    epoch_us=6 * HOUR_US,
    maturity_us=3 * HOUR_US,
    pot_us=HOUR_US,
    dispute_us=HOUR_US,
    evidence_age_us=DAY_US,
    unbonding_us=2 * DAY_US,
)

MakeWorker = Callable[[Ledger, int], Worker]
Story = Mapping[int, Callable[["Script"], None]]


@cache
def network(shards: int = 2, rules_version: int = NEWEST) -> Network:
    """The network of this genesis with P shards; the codec is shared, since it takes a moment."""
    return Network.of(
        genesis_of(
            KEYS,
            name="synor-small",
            start_us=START_US,
            time_source=TimeSource.LOGICAL,
            parameters=PARAMETERS,
            rules_version=rules_version,
        ),
        shards,
        _codec(),
    )


@cache
def _codec() -> AvroCodec:
    return AvroCodec()


def memory_log() -> MemoryLog:
    """A log whose append times are no matter: time is logical."""
    return MemoryLog(lambda: 0)


def signer_of(ledger: Ledger) -> Signer:
    """The key that writes a ledger."""
    return {
        Ledger.MARKET: KEYS.market,
        Ledger.METERING: KEYS.metering,
        Ledger.SETTLEMENT: KEYS.settlement,
    }[ledger]


class Crash(BaseException):
    """The process is gone. No code of ours may catch it."""


@dataclass
class Supervised:
    """A worker that is made anew whenever it died: what a process supervisor does."""

    make: Callable[[], Worker]
    #: An operating error of the log: the worker goes on, or another one does.
    patient: bool = True
    deaths: int = 0
    _worker: Worker | None = None

    @property
    def worker(self) -> Worker:
        if self._worker is None:
            self._worker = self.make()
        return self._worker

    @property
    def processor(self) -> Any:
        return self.worker.processor

    def turn(self) -> bool:
        try:
            return self.worker.turn()
        except Crash:
            self.kill()
        except (LogError, OperationalError):
            # The library gives an operating error of the log a name of its own.
            if not self.patient:
                self.kill()
        # Whoever failed may have left something on the log: the others must look.
        self.deaths += 1
        return True

    def kill(self) -> None:
        if self._worker is not None:
            self._worker.close()
            self._worker = None


class Sent(Gathered):
    """Remembers what was sent last to each partition, for those who send it again."""

    def __init__(self, log: Log) -> None:
        super().__init__(log)
        self.last: dict[tuple[str, int], bytes] = {}

    def append(self, topic: str, partition: int, value: bytes) -> None:
        super().append(topic, partition, value)
        self.last[topic, partition] = value


class SmallSystem:
    """Workers of all ledgers on one log, and the script that keeps them busy."""

    def __init__(
        self,
        log: Log,
        topics: TopicAdmin,
        *,
        shards: int = 2,
        make_worker: MakeWorker | None = None,
        rivals: Sequence[Seat] = (),
        make_inputs: Callable[[Log], Sent] = Sent,
        rules_version: int = NEWEST,
        more: Story | None = None,
    ) -> None:
        """``rivals`` are seats that a second worker, made the same way, writes too.

        ``more`` is told besides the story, after what the story tells at a step.
        """
        self.log = log
        self.network = network(shards, rules_version)
        create_topics(self.network, topics)
        self._bound = self.network.bound_topics(log)
        make = make_worker or self.worker
        self.seats = {
            seat: Supervised(lambda seat=seat: make(*seat))  # type: ignore[misc]
            for seat in self.network.ledgers()
        }
        seconds = [Supervised(lambda seat=seat: make(*seat)) for seat in rivals]  # type: ignore[misc]
        self.workers = [*self.seats.values(), *seconds]
        self.inputs = make_inputs(log)
        self.script = Script(self, more or {})
        self.time = LogicalTime(
            inputs=self.inputs,
            shards=shards,
            clock=self.actor(KEYS.clock),
            workers=cast(list[Worker], self.workers),
            turns=[each.turn for each in self.workers],
            start_us=START_US,
            idle_us=PARAMETERS.idle_us,
        )

    def worker(
        self,
        ledger: Ledger,
        shard: int,
        *,
        log: Log | None = None,
        index: str = ":memory:",
        **policy: Any,
    ) -> Worker:
        """A worker of this system; ``policy`` goes to the composition root."""
        return worker(
            self.network,
            ledger,
            shard,
            log=log or self.log,
            index=index,
            signer=signer_of(ledger),
            topics=self._bound,
            **policy,
        )

    def actor(self, signer: Signer) -> Actor:
        """A signer of this network, whose inputs go out with the instant's."""
        return Actor(
            log=self.inputs,
            codec=self.network.codec,
            genesis_hash=self.network.hash,
            signer=signer,
            session_us=START_US,
        )

    def follower(self, ledger: Ledger) -> Follower:
        """Reads a ledger from its start."""
        at = self.network.partition(ledger, 0, log=self.log, index=":memory:", depth=Depth.COMMITS)
        return Follower(at, self.network.codec)

    def run(self, steps: int = STEPS) -> SmallSystem:
        """Live through the script."""
        self.live(range(steps))
        self.script.look()
        return self

    def live(self, steps: Iterable[int], act: Callable[[int], None] | None = None) -> None:
        """Live through some steps of the script, or of what is done at them instead."""
        for step in steps:
            self.time.advance_to(START_US + step * STEP_US, partial(act or self.script, step))

    def close(self) -> None:
        """Let the workers go; the log belongs to the caller."""
        for each in self.workers:
            each.kill()


@dataclass
class _Lease:
    lease: LeaseId
    node: str
    buyer: str
    rate: int
    ready_us: int = 0
    ended: EndReason | None = None


@dataclass
class Seen:
    """What the script has read of the ledgers."""

    leases: dict[bytes, _Lease] = field(default_factory=dict)
    answers: list[CommandAnswered] = field(default_factory=list)
    checkpoints: list[CheckpointMade] = field(default_factory=list)
    payable: dict[bytes, int] = field(default_factory=dict)
    claimed: dict[bytes, int] = field(default_factory=dict)
    anchored: int = 0

    def ends(self) -> list[EndReason]:
        """Why leases ended, by lease."""
        return [each.ended for each in self.leases.values() if each.ended is not None]


class Script:
    """What people, nodes and the watcher send at each step."""

    def __init__(self, system: SmallSystem, more: Story) -> None:
        self._system = system
        self._more = more
        self._market = system.follower(Ledger.MARKET)
        self._settlement = system.follower(Ledger.SETTLEMENT)
        self._watcher = system.actor(KEYS.watcher)
        self._attestor = system.actor(KEYS.attestor)
        self.operator = system.actor(KEYS.operator)
        self.people = {
            name: system.actor(derived_signer(SEED, name)) for name in ("prov", "alice", "bob")
        }
        self.nodes = {name: system.actor(derived_signer(SEED, name)) for name in NODES}
        self.ids: dict[str, NodeId] = {}
        self._bids: dict[bytes, tuple[str, int]] = {}
        self._l1_events = 0
        self._told = 0
        self.seen = Seen()
        self._cancel: BidId | None = None

    def account(self, name: str) -> AccountId:
        """The account of a person."""
        return account_of(self.people[name].key)

    def __call__(self, step: int) -> None:
        self.look()
        self._watch()
        told = _STORY.get(step)
        if told is not None:
            told(self)
        if step in self._more:
            self._more[step](self)
        self._ready()
        if step >= 1:
            self._telemetry(step)

    # The story

    def open(self) -> None:
        for name, nano in (("prov", 9_000), ("alice", 900), ("bob", 300)):
            self.people[name].command(OpenAccount(payee=Address(derive(name, b"payee") + bytes(4))))
            self._watcher.command(
                ObserveDeposit(
                    account=self.account(name), amount_nano=Wide(nano * NANO), **self._place()
                )
            )

    def found(self) -> None:
        provider = self.people["prov"]
        provider.command(
            RegisterProvider(
                location="Luleå",
                network=Hash32(bytes(32)),
                uptime_ppm=990_000,
                response_time_ms=50,
                durability_pp12=10**12 - 1000,
                penalty_ppm=100_000,
            )
        )
        capacity = (
            Amount(resource=H100, amount=1_000),
            Amount(resource="storage.hot", amount=1_000_000),
        )
        number = provider.command(
            RegisterNodes(
                nodes=tuple(
                    NodeRow(
                        key=self.nodes[name].key,
                        proof=self.nodes[name].prove(self.account("prov"), Role.NODE),
                        region="eu",
                        capacity=capacity,
                        identities=(Hash32(derive("device", name) * 2),),
                    )
                    for name in NODES
                )
            )
        )
        provider.command(BondStake(amount_nano=Wide(8_000 * NANO)))
        for row, name in enumerate(NODES):
            self.ids[name] = NodeId(provider.id_of("node", number, row))
        self._attestor.command(
            AttestNodes(
                attestations=tuple(
                    AttestationRow(
                        node=id,
                        leaves=tuple(leaf(id, a.resource, a.amount, 1) for a in capacity),
                        expires_us=START_US + 20 * DAY_US,
                    )
                    for id in self.ids.values()
                )
            )
        )
        provider.command(
            PlaceOffers(
                offers=tuple(
                    OfferRow(node=id, resource=H100, quantity_milli=1_000, ask_nano=3 * NANO)
                    for id in self.ids.values()
                )
            )
        )

    def bid(self, buyer: str, hours: int, budget: int, rate: int, limit: int = 4 * NANO) -> BidId:
        person = self.people[buyer]
        row = BidRow(
            resource=H100,
            region="eu",
            quantity_milli=1_000,
            limit_nano=limit,
            term_us=hours * HOUR_US,
            allocations=(Amount(resource="storage.hot", amount=500_000),),
            metered=(MeteredLimit(resource=EGRESS, per_second=10 * rate),),
            usage_budget_nano=budget,
        )
        bid = BidId(person.id_of("bid", person.command(PlaceBids(bids=(row,)))))
        self._bids[bid] = buyer, rate
        return bid

    def first_bids(self) -> None:
        self.bid("alice", 6, 2 * NANO, 250_000)
        self.bid("bob", 9, NANO // 50, 100_000)

    def second_bids(self) -> None:
        self.bid("alice", 5, NANO, 50_000)
        self.bid("alice", 7, NANO, 75_000)

    def bid_in_vain(self) -> None:
        self._cancel = self.bid("bob", 3, 0, 10, limit=NANO)

    def cancel(self) -> None:
        assert self._cancel is not None
        self.people["bob"].command(CancelBid(bid=self._cancel))

    def withdraw(self) -> None:
        self.people["bob"].command(Withdraw(amount_nano=Wide(5 * NANO)))

    def close_early(self) -> None:
        for lease in self.seen.leases.values():
            if lease.buyer == "alice" and lease.ready_us and lease.ended is None:
                self.people["alice"].command(CloseLease(lease=lease.lease))
                return

    def garbage(self) -> None:
        """What anyone may put on an input topic: bytes, strangers, copies, forgeries."""
        log, system = self._system.inputs, self._system
        stranger = system.actor(derived_signer(SEED, "stranger"))
        for topic in (COMMANDS_TOPIC, TELEMETRY_TOPIC):
            log.append(topic, 0, b"garbage")
            log.append(topic, 0, stranger.sign(Withdraw(amount_nano=Wide(1))))
            forged = bytearray(stranger.sign(Withdraw(amount_nano=Wide(2))))
            forged[-1] ^= 1
            log.append(topic, 0, bytes(forged))
        self.people["bob"].command(Withdraw(amount_nano=Wide(10**18)))
        log.append(COMMANDS_TOPIC, 0, log.last[COMMANDS_TOPIC, 0])
        again = self.people["bob"].sign(Withdraw(amount_nano=Wide(10**18)))
        log.append(COMMANDS_TOPIC, 0, again)
        log.append(COMMANDS_TOPIC, 0, again)

    def claim(self) -> None:
        """The vault pays out what stands authorised and is anchored."""
        for account, cumulative in sorted(self.seen.payable.items()):
            paid = self.seen.claimed.get(account, 0)
            if cumulative > paid:
                self._watcher.command(
                    ObserveClaim(
                        account=AccountId(account),
                        amount_nano=Wide(cumulative - paid),
                        cumulative_nano=Wide(cumulative),
                        **self._place(),
                    )
                )

    def lie(self) -> None:
        """One node signs two totals for the same counter and instant."""
        for lease in self.seen.leases.values():
            if lease.node == "node-a" and lease.ready_us and lease.ended is None:
                now_us = self._system.time.now_us
                for total in (lease.rate * 1_000, lease.rate * 1_000 + 7):
                    self._batch("node-a", [(lease, now_us, 1, total)])
                return

    # What comes by itself

    def _watch(self) -> None:
        """The watcher sees a checkpoint on the L1 a step after it was made."""
        for made in self.seen.checkpoints[self._told :]:
            self._watcher.command(
                ObserveCheckpoint(epoch=made.epoch, checkpoint=made.checkpoint, **self._place())
            )
            self._told += 1

    def _place(self) -> dict[str, Any]:
        self._l1_events += 1
        at = self._l1_events
        return {
            "block": at,
            "block_hash": Hash32(derive("block", at) * 2),
            "transaction": Hash32(derive("transaction", at) * 2),
            "log_index": 0,
        }

    def _ready(self) -> None:
        fresh = [
            each.lease for each in self.seen.leases.values() if not each.ready_us and not each.ended
        ]
        if fresh:
            self.people["prov"].command(ReadyLeases(leases=tuple(fresh)))

    def _telemetry(self, step: int) -> None:
        now_us = self._system.time.now_us
        for name in NODES:
            if name == "node-b" and 14 <= step < 18:
                continue
            rows = [
                (each, now_us, 0, each.rate * ((now_us - each.ready_us) // 1_000_000))
                for each in self.seen.leases.values()
                if each.node == name and each.ready_us and not each.ended
            ]
            self._batch(name, rows if step % 2 == 0 else [])
        if step == 6:
            # Telemetry that comes twice counts once.
            shard = shard_of(self.ids["node-a"], self._system.network.shards)
            inputs = self._system.inputs
            inputs.append(TELEMETRY_TOPIC, shard, inputs.last[TELEMETRY_TOPIC, shard])

    def _batch(self, name: str, rows: Sequence[tuple[_Lease, int, int, int]]) -> None:
        node = self.ids[name]
        leases = tuple(dict.fromkeys(lease.lease for lease, _, _, _ in rows))
        self.nodes[name].telemetry(
            shard_of(node, self._system.network.shards),
            Batch(
                nodes=(node,),
                leases=leases,
                lease=tuple(leases.index(lease.lease) for lease, _, _, _ in rows),
                resource=(PRICES.number[EGRESS],) * len(rows),
                generation=tuple(generation for _, _, generation, _ in rows),
                time_us=tuple(time_us for _, time_us, _, _ in rows),
                total=tuple(total for _, _, _, total in rows),
            ),
        )

    def look(self) -> None:
        """Read what market and settlement have written."""
        seen = self.seen
        names = {id: name for name, id in self.ids.items()}
        for event in self._market.new():
            match event:
                case CommandAnswered():
                    seen.answers.append(event)
                case LeaseOpened():
                    buyer, rate = self._bids[event.bid]
                    seen.leases[event.lease] = _Lease(event.lease, names[event.node], buyer, rate)
                case LeaseReady():
                    seen.leases[event.lease].ready_us = event.at_us
                case LeaseEnded():
                    seen.leases[event.lease].ended = event.reason
                case EpochCut():
                    for payable in event.payables:
                        seen.payable[payable.account] = payable.cumulative_nano
                case EpochAnchored():
                    seen.anchored = event.number
                case ClaimSettled():
                    seen.claimed[event.account] = event.cumulative_nano
                case _:
                    pass
        seen.checkpoints.extend(e for e in self._settlement.new() if isinstance(e, CheckpointMade))


_STORY: Story = {
    0: Script.open,
    1: Script.found,
    2: Script.first_bids,
    5: Script.lie,
    8: Script.garbage,
    10: Script.second_bids,
    20: Script.withdraw,
    24: Script.close_early,
    30: Script.bid_in_vain,
    32: Script.cancel,
    40: Script.claim,
}


def small_on_memory(**changes: Any) -> SmallSystem:
    """A system on a new memory log."""
    log = memory_log()
    return SmallSystem(log, LocalTopics(log), **changes)
