"""The demo: the main job from deposit to audit, told as it goes.

Twelve nodes of three providers, six buyers, thirty-two days of logical time on one machine. Every
figure that it ends with is read from the ledger by the audit, none from the script.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from adapters.actor import Actor
from adapters.audit import Verdict
from adapters.bootstrap import Network, create_topics
from adapters.bootstrap_audit import OpenLog, Progress, audit_on_cores, check_anchors
from adapters.demo_story import (
    BEAT_US,
    BUYERS,
    CAPACITY,
    CATALOGUE,
    CLAIM_DAY,
    CLASSES,
    DAYS,
    LIES_US,
    NANO,
    PARAMETERS,
    PRICES,
    PROVIDERS,
    REGION,
    RTX_BACK_US,
    RTX_FAILS_US,
    SHARDS,
    START_US,
    ProviderPart,
    Want,
    script,
)
from adapters.ed25519 import prove
from adapters.embedded import Embedded, SystemKeys, derived_signer, genesis_of
from adapters.eventsourcing_index import Depth
from adapters.evm_chain import EvmChain
from adapters.evm_embedded import EmbeddedChain
from adapters.evm_keccak import keccak
from adapters.evm_keys import LocalSigner
from adapters.evm_wallet import Wallet
from adapters.follow import Follower
from domain import payout_tree
from domain.account import OpenAccount
from domain.bid import PlaceBids
from domain.checkpoint import CheckpointAnchored, CheckpointMade, PayoutLeaf
from domain.commit import Ledger
from domain.genesis import DAY_US, HOUR_US, Role, TimeSource
from domain.ids import AccountId, Hash32, LeaseId, NodeId, Wide, account_of, derive, shard_of
from domain.key import CommandAnswered
from domain.l1 import account_word
from domain.lease import EndReason, LeaseClosed, LeaseEnded, LeaseOpened, LeaseReady, ReadyLeases
from domain.node import Amount, AttestationRow, AttestNodes, NodeRow, RegisterNodes, leaf
from domain.offer import OfferRow, PlaceOffers
from domain.ports import Log, TopicAdmin
from domain.provider import BondStake, RegisterProvider, StakeSlashed
from domain.refusal import CODES
from domain.round import RoundCleared
from domain.settlement import payouts_of
from domain.telemetry import Batch

SEED: Final = b"synor demo"
#: One process audits the market, two share the shards.
AUDITORS: Final = 3
SESSION_US: Final = START_US

Say = Callable[[str], None]


class DemoFailed(Exception):
    """A check of the demo does not hold; the text says which."""


def check(holds: bool, what: str) -> None:
    """Raise ``DemoFailed`` unless it holds."""
    if not holds:
        raise DemoFailed(what)


@dataclass(slots=True)
class Node:
    """A node of the cast: its key's actor and the counters that its leases read."""

    id: NodeId
    actor: Actor
    shard: int
    resource: str
    provider: str


@dataclass(slots=True)
class Running:
    """A lease that nodes report for."""

    lease: LeaseId
    node: NodeId
    rates: tuple[tuple[str, int], ...]
    buyer: str
    ready_us: int = 0
    ended: bool = False


@dataclass(slots=True)
class Told:
    """What the story has seen happen on the market ledger."""

    leases: dict[bytes, Running] = field(default_factory=dict)
    bids: dict[bytes, Want] = field(default_factory=dict)
    reasons: dict[EndReason, int] = field(default_factory=dict)
    to_ready: list[LeaseId] = field(default_factory=list)
    slashed: list[StakeSlashed] = field(default_factory=list)
    rounds: int = 0
    closed: int = 0


class Demo:
    """One run of the story."""

    def __init__(
        self,
        log: Log,
        topics: TopicAdmin,
        *,
        folder: Path,
        say: Say,
        group: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """Build the system in ``folder`` on ``log``, with its own L1."""
        self._say = say
        self.folder = folder
        keys = SystemKeys.derived(SEED)
        self.now_us = START_US
        self.chain = EmbeddedChain(
            folder / "l1.db",
            seed=SEED,
            clock=lambda: self.now_us // 1_000_000,
            genesis_s=START_US // 1_000_000 - 60,
        )
        self.network = Network.first(
            lambda nonce: genesis_of(
                keys,
                name="synor-demo",
                start_us=START_US,
                time_source=TimeSource.LOGICAL,
                parameters=PARAMETERS,
                chain_id=self.chain.config.chain_id,
                vault=self.chain.config.vault,
                catalogue=CATALOGUE,
                nonce=nonce,
            ),
            SHARDS,
        )
        create_topics(self.network, topics)
        self.system = Embedded(
            self.network, keys, log, folder=folder, chain=self.chain, group=group
        )
        self._log = log
        self._attestor = self.system.actor(keys.attestor, SESSION_US)
        self._people: dict[str, Actor] = {}
        self._payees: dict[str, LocalSigner] = {}
        self.nodes: dict[bytes, Node] = {}
        self.told = Told()
        self._market = self._follower(Ledger.MARKET)
        self._settlement = self._follower(Ledger.SETTLEMENT)
        self._leaves: dict[bytes, PayoutLeaf] = {}
        self._anchored = 0
        self._claimed_nano = 0
        self._lied = False
        self._wants = script()

    def _follower(self, ledger: Ledger) -> Follower:
        partition = self.network.partition(
            ledger, 0, log=self._log, index=":memory:", depth=Depth.COMMITS
        )
        return Follower(partition, self.network.codec)

    # The cast

    def _person(self, name: str) -> Actor:
        if name not in self._people:
            self._people[name] = self.system.actor(derived_signer(SEED, name), SESSION_US)
            self._payees[name] = self.chain.person(name)
        return self._people[name]

    def account(self, name: str) -> AccountId:
        """The account of a person of the cast."""
        return account_of(self._person(name).key)

    def _deposit(self, name: str, nano: int) -> None:
        payee = self._payees[name]
        self.chain.fund(payee.address, nano)
        wallet = Wallet(rpc=self.chain.rpc, config=self.chain.config, signer=payee)
        wallet.deposit(account_word(self.account(name)), nano)

    def _open(self) -> None:
        """Day 0: deposits on L1, accounts, providers, stake, nodes, attestations, offers."""
        for name in (*(p.name for p in PROVIDERS), *BUYERS):
            person = self._person(name)
            person.command(OpenAccount(payee=self._payees[name].address))
        for part in PROVIDERS:
            self._deposit(part.name, 40_000 * NANO)
        for name in BUYERS:
            self._deposit(name, 20_000 * NANO)

    def _register(self, part: ProviderPart) -> None:
        person = self._person(part.name)
        person.command(
            RegisterProvider(
                location=part.location,
                network=Hash32(derive("network", part.name) * 2),
                uptime_ppm=part.uptime_ppm,
                response_time_ms=50,
                durability_pp12=10**12 - 1000,
                penalty_ppm=100_000,
            )
        )
        rows = []
        signers = []
        for resource in CLASSES:
            signer = derived_signer(SEED, f"{part.name}/{resource}")
            signers.append(signer)
            rows.append(
                NodeRow(
                    key=signer.public,
                    proof=prove(signer, self.network.hash, account_of(person.key), Role.NODE),
                    region=REGION,
                    capacity=tuple(Amount(resource=r, amount=n) for r, n in CAPACITY[resource]),
                    identities=tuple(
                        Hash32(derive("device", part.name, resource, number) * 2)
                        for number in range(devices(resource))
                    ),
                )
            )
        number = person.command(RegisterNodes(nodes=tuple(rows)))
        person.command(BondStake(amount_nano=Wide(30_000 * NANO)))
        attested = []
        offers = []
        for row, resource in enumerate(CLASSES):
            node = NodeId(person.id_of("node", number, row))
            self.nodes[node] = Node(
                node,
                self.system.actor(signers[row], SESSION_US),
                shard_of(node, SHARDS),
                resource,
                part.name,
            )
            attested.append(
                AttestationRow(
                    node=node,
                    leaves=tuple(leaf(node, r, n, 1) for r, n in CAPACITY[resource]),
                    expires_us=START_US + 50 * DAY_US,
                )
            )
            for offered in (resource, "inference.slot"):
                milli = dict(CAPACITY[resource]).get(offered)
                price = PRICES.row(offered)
                if milli is not None and price is not None:
                    offers.append(
                        OfferRow(
                            node=node,
                            resource=offered,
                            quantity_milli=milli,
                            ask_nano=price.price_nano * (100 - part.discount_pct) // 100,
                        )
                    )
        self._attestor.command(AttestNodes(attestations=tuple(attested)))
        person.command(PlaceOffers(offers=tuple(offers)))

    # The days

    def run(self) -> None:
        """Tell the whole story."""
        self._tick(START_US, self._open)
        self._look()
        self._say(
            f"An L1 with the vault, {len(PROVIDERS)} providers and {len(BUYERS)} buyers "
            "who deposit on it."
        )

        def found() -> None:
            for part in PROVIDERS:
                self._register(part)

        self._tick(START_US + BEAT_US, found)
        self._look()
        self._say(
            f"{len(self.nodes)} nodes of {len(CLASSES)} device classes, staked, attested, offered."
        )
        wants = list(self._wants)
        step = START_US + 2 * BEAT_US
        while step <= START_US + DAYS * DAY_US + 4 * HOUR_US:
            day = (step - START_US) // DAY_US

            def send(step: int = step, day: int = day) -> None:
                while wants and wants[0].day <= day:
                    self._bid(wants.pop(0))
                self._ready()
                self._telemetry(step)

            self._tick(step, send)
            self._look()
            if (step - START_US) % DAY_US == 0:
                self._day(day)
            step += BEAT_US

    def _tick(self, time_us: int, send: Callable[[], None]) -> None:
        self.now_us = time_us
        self.system.time.advance_to(time_us, send)

    def _bid(self, want: Want) -> None:
        person = self._person(want.buyer)
        number = person.command(PlaceBids(bids=(want.row,)))
        self.told.bids[person.id_of("bid", number)] = want
        if want.story:
            self._say(f"Day {want.day}: {want.buyer} {want.story}.")

    def _ready(self) -> None:
        by_provider: dict[str, list[LeaseId]] = {}
        for lease in self.told.to_ready:
            running = self.told.leases[lease]
            by_provider.setdefault(self.nodes[running.node].provider, []).append(lease)
        self.told.to_ready.clear()
        for provider, leases in sorted(by_provider.items()):
            self._person(provider).command(ReadyLeases(leases=tuple(leases)))

    def _telemetry(self, now_us: int) -> None:
        """Every node beats; on the hour it reads the counters of its leases."""
        since = now_us - START_US
        hourly = since % HOUR_US == 0
        readings: dict[bytes, list[tuple[LeaseId, int, int]]] = {}
        if hourly:
            for running in self.told.leases.values():
                if running.ready_us and not running.ended:
                    seconds = (now_us - running.ready_us) // 1_000_000
                    for resource, rate in running.rates:
                        readings.setdefault(running.node, []).append(
                            (running.lease, PRICES.number[resource], rate * seconds)
                        )
        for node in self.nodes.values():
            silent = (
                node.provider == "south"
                and node.resource == "gpu.rtx4090"
                and RTX_FAILS_US <= since < RTX_BACK_US
            )
            if not silent:
                self._batch(node, now_us, readings.get(node.id, []))
        if since >= LIES_US and not self._lied:
            self._lie(now_us)

    def _batch(self, node: Node, now_us: int, rows: list[tuple[LeaseId, int, int]]) -> None:
        leases = tuple(dict.fromkeys(lease for lease, _, _ in rows))
        place = {lease: index for index, lease in enumerate(leases)}
        node.actor.telemetry(
            node.shard,
            Batch(
                nodes=(node.id,),
                leases=leases,
                lease=tuple(place[lease] for lease, _, _ in rows),
                resource=tuple(resource for _, resource, _ in rows),
                generation=(0,) * len(rows),
                time_us=(now_us,) * len(rows),
                total=tuple(total for _, _, total in rows),
            ),
        )

    def _lie(self, now_us: int) -> None:
        """A node that has not failed signs two totals for the same counter and instant."""
        for running in self.told.leases.values():
            node = self.nodes[running.node]
            if (
                node.provider != "south"
                and running.rates
                and running.ready_us
                and not running.ended
            ):
                seconds = (now_us - running.ready_us) // 1_000_000
                resource, rate = running.rates[0]
                row = PRICES.number[resource]
                self._batch(node, now_us, [(running.lease, row, rate * seconds)])
                self._batch(node, now_us, [(running.lease, row, rate * seconds + 7)])
                self._lied = True
                self._say(
                    f"Day {(now_us - START_US) // DAY_US}: a node of {node.provider} signs two "
                    "different totals for one counter and instant."
                )
                return

    def _look(self) -> None:
        """Read what the market and settlement have written, and remember it."""
        told = self.told
        for event in self._market.new():
            match event:
                case CommandAnswered() if event.code or event.rows:
                    refusals = [event.code] if event.code else [row.code for row in event.rows]
                    details = event.detail or "; ".join(row.detail for row in event.rows)
                    names = ", ".join(CODES[code].name for code in refusals)
                    raise DemoFailed(f"{event.kind} was refused: {names} ({details})")
                case LeaseOpened():
                    want = told.bids[event.bid]
                    told.leases[event.lease] = Running(
                        event.lease, event.node, want.rates, want.buyer
                    )
                    told.to_ready.append(event.lease)
                case LeaseReady():
                    told.leases[event.lease].ready_us = event.at_us
                case LeaseEnded():
                    told.leases[event.lease].ended = True
                    told.reasons[event.reason] = told.reasons.get(event.reason, 0) + 1
                    if event.reason not in (EndReason.EXPIRED,):
                        self._say(
                            f"Day {(event.at_us - START_US) // DAY_US}: a lease of "
                            f"{told.leases[event.lease].buyer} ends: "
                            f"{event.reason.value.lower().replace('_', ' ')}."
                        )
                case LeaseClosed():
                    told.closed += 1
                case StakeSlashed():
                    told.slashed.append(event)
                    self._say(
                        f"Day {(event.at_us - START_US) // DAY_US}: slashed for "
                        f"{event.fault.value.lower()}: {synor(event.taken_nano)} SYNOR."
                    )
                case RoundCleared():
                    told.rounds += 1
                case _:
                    pass
        for event in self._settlement.new():
            match event:
                case CheckpointMade():
                    self._leaves.update({leaf.account: leaf for leaf in event.payouts})
                case CheckpointAnchored():
                    self._anchored = event.epoch
                case _:
                    pass

    def _day(self, day: int) -> None:
        if day and day % 7 == 0:
            self._say(
                f"Day {day}: {self.told.rounds} rounds cleared, {len(self.told.leases)} leases, "
                f"{self._anchored} epochs anchored."
            )
        if day == CLAIM_DAY:
            self._claim("north")

    def _claim(self, name: str) -> None:
        """A provider takes what the latest epoch authorises, on L1."""
        account = self.account(name)
        domain = payout_tree.PayoutDomain(
            chain_id=self.chain.config.chain_id, vault=self.chain.config.vault
        )
        payouts = payouts_of(self._leaves.values())
        tree = payout_tree.build(keccak, domain, payouts)
        word = account_word(account)
        payout = next(p for p in payouts if p.account == word)
        wallet = Wallet(rpc=self.chain.rpc, config=self.chain.config, signer=self._payees[name])
        wallet.claim(payout, tree.proof(word))
        self._claimed_nano = payout.cumulative_nano
        self._say(f"Day {CLAIM_DAY}: {name} claims {synor(self._claimed_nano)} SYNOR on L1.")

    # The end

    def verify(self, open_log: OpenLog, progress: Progress | None = None) -> Verdict:
        """Audit the ledger and check that everything the story promises has happened.

        ``open_log`` opens the log anew, also in another process.
        """
        verdict = audit_on_cores(self.network, open_log, jobs=AUDITORS, progress=progress)
        check_anchors(verdict, EvmChain(self.chain.rpc, self.chain.config))
        reasons = self.told.reasons
        faults = {slash.fault.value for slash in self.told.slashed}
        check(reasons.get(EndReason.EXPIRED, 0) > 0, "leases expire")
        check(reasons.get(EndReason.EXHAUSTED, 0) == 1, "one lease exhausts")
        check(reasons.get(EndReason.NODE_DOWN_TOO_LONG, 0) > 0, "a failing node ends its leases")
        check("DOWNTIME" in faults, "a node is slashed for downtime beyond its SLA")
        check("CONTRADICTION" in faults, "a node is slashed for a contradiction")
        check(verdict.totals.anchored >= 30, "more than thirty epochs are anchored")
        check(verdict.totals.anchored == self._anchored, "every epoch that was seen is anchored")
        check(verdict.totals.claimed == self._claimed_nano, "the claim came back from L1")
        wallet = Wallet(rpc=self.chain.rpc, config=self.chain.config, signer=self.chain.faucet)
        check(
            wallet.balance_nano(self._payees["north"].address) == self._claimed_nano,
            "the L1 paid the claim",
        )
        charged = {resource for _, resource in verdict.totals.lines}
        missing = {row.resource for row in CATALOGUE if row.resource != "inference.slot"} - charged
        check(not missing, f"every resource of the price list is charged; not {sorted(missing)}")
        return verdict

    def people(self) -> Iterator[tuple[str, AccountId]]:
        """The cast with their accounts."""
        for name in (*(p.name for p in PROVIDERS), *BUYERS):
            yield name, self.account(name)


def devices(resource: str) -> int:
    """How many physical devices a node of a class has: all that rounds price."""
    return sum(
        milli // 1000
        for name, milli in CAPACITY[resource]
        if (row := PRICES.row(name)) is not None and row.market
    )


def synor(nano: int) -> str:
    """An amount as people write it, exact."""
    sign = "-" if nano < 0 else ""
    whole, part = divmod(abs(nano), NANO)
    return f"{sign}{whole:,}.{part:09d}"


def summary(demo: Demo, verdict: Verdict, seconds: float) -> dict[str, Any]:
    """The demo's last line."""
    totals = verdict.totals
    return {
        "events": sum(report.events for report in verdict.reports),
        "leases": totals.leases,
        "readings": totals.readings,
        "slashed_nano": totals.slashed,
        "charged_nano": totals.charged,
        "provider_nano": totals.provider,
        "protocol_nano": totals.protocol,
        "epochs_anchored": totals.anchored,
        "audit": "ok",
        "state_hash": verdict.state_hash,
        "ledger": str(demo.folder),
        "seconds": round(seconds, 1),
    }
