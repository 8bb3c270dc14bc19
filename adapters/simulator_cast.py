"""Who lives in a simulated market: providers, nodes, buyers, and people who send garbage.

What they send is drawn from the seed and from what they have read of the ledgers, as anybody's
would be: valid, invalid, late, twice, or nothing for a while. They know nothing of faults but what
a client sees of them, and send again what was not answered.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from adapters.actor import Actor
from adapters.ed25519 import Signer
from adapters.embedded import SystemKeys, derived_signer
from adapters.simulator_history import Answer, Effect, History, Outcome, Submit
from adapters.simulator_l1 import SimulatedL1
from adapters.simulator_mail import Mail
from adapters.simulator_people import KeyChanges, Node, Person
from domain.account import AccountOpened, DepositCredited, OpenAccount, Withdraw
from domain.bid import BidPlaced, BidRow, CancelBid, MeteredLimit, PlaceBids
from domain.catalogue import SHARES_1, VERSION_1, Catalogue
from domain.commit import COMMANDS_TOPIC, TELEMETRY_TOPIC, Ledger
from domain.genesis import HOUR_US, MINUTE_US, Role
from domain.ids import AccountId, Address, Hash32, LeaseId, NodeId, Wide, account_of, derive
from domain.ids import shard_of as shard_of_node
from domain.key import CommandAnswered, KeyRegistered, KeyRevoked
from domain.lease import (
    CloseLease,
    CompleteLease,
    Escrow,
    FailLease,
    LeaseEnded,
    LeaseOpened,
    LeaseReady,
    ReadyLeases,
    RejectLease,
    TopUpLease,
)
from domain.ledger import ActivateRules, ChangeParameter, RotateWriter
from domain.node import (
    Amount,
    AttestationRow,
    AttestNodes,
    NodeAttested,
    NodeRegistered,
    NodeRow,
    RegisterNodes,
    leaf,
)
from domain.offer import OfferPlaced, OfferRow, OfferWithdrawn, PlaceOffers, WithdrawOffer
from domain.provider import (
    BondStake,
    ProviderRegistered,
    RegisterProvider,
    StakeBonded,
    UnbondStake,
    provider_of,
)
from domain.rules import RULES
from domain.telemetry import Batch

NANO: Final = 1_000_000_000
H100: Final = "gpu.h100"
EGRESS: Final = "network.egress"
CAPACITY: Final = (
    Amount(resource=H100, amount=1_000),
    Amount(resource="storage.hot", amount=1_000_000),
)
_PRICES: Final = Catalogue(VERSION_1, SHARES_1)
#: What the operator changes while everything runs; some of it is out of bounds.
_SETTINGS: Final = (
    ("round_us", tuple(n * MINUTE_US for n in (1, 5, 20, -1, 10**6))),
    ("epoch_us", tuple(n * HOUR_US for n in (0, 2, 3, 5, 10**3))),
    ("sla_window_us", (2 * HOUR_US, 4 * HOUR_US)),
    ("closing_us", tuple(n * MINUTE_US for n in (10, 60, 90))),
    ("ready_within_us", (0, HOUR_US, 3 * HOUR_US)),
    ("node_down_us", tuple(n * MINUTE_US for n in (10, 60, 120))),
    ("maturity_us", (0, HOUR_US, 2 * HOUR_US)),
    ("pot_us", (0, HOUR_US)),
    ("minimum_charge_us", (0, 10 * MINUTE_US, HOUR_US)),
    ("stake_hours", (1, 400, 500)),
    ("slash_hour_ppm", (0, 10_000, 1_000_000)),
    ("no_such_thing", (1,)),
)
#: What a shard judges telemetry by: it makes a difference which of the two it reads first.
_OF_SHARDS: Final = (
    ("usage_window_us", tuple(n * MINUTE_US for n in (0, 20, 60, 90))),
    ("batch_rows", (0, 1, 10_000)),
    ("generations", (2, 64)),
    ("early_us", (0, 5 * MINUTE_US)),
    ("late_us", (0, HOUR_US, 24 * HOUR_US)),
)
#: The reader of the ledgers, as histories number processes.
LEDGER_READER: Final = 0


@dataclass(slots=True)
class _Lease:
    lease: LeaseId
    node: NodeId
    buyer: AccountId
    rate: int
    ready_us: int = 0
    ended: bool = False
    generation: int = 0


ActorOf = Callable[[Signer], Actor]


class Cast:
    """Everybody who sends inputs but the clock and the watcher."""

    def __init__(
        self,
        rng: random.Random,
        *,
        seed: bytes,
        keys: SystemKeys,
        writers: Mapping[Ledger, Sequence[Signer]],
        shards: int,
        actor: ActorOf,
        mail: Mail,
        chain: SimulatedL1,
        history: History,
        now_us: Callable[[], int],
        apart: bool,
    ) -> None:
        """Draw who there is; ``actor`` makes a signer whose records are mailed.

        ``writers`` are the keys to which the operator may give each ledger.

        With ``apart`` nothing is changed that decides on telemetry of the same instant, so that
        the state at the end does not depend on which of them a shard reads first.
        """
        self._rng = rng
        self._shards = shards
        self._chain = chain
        self._history = history
        self._now_us = now_us
        self._attestor = actor(keys.attestor)
        self._operator = actor(keys.operator)
        self._writers = {
            ledger: [actor(each) for each in signers] for ledger, signers in writers.items()
        }
        self._stranger = actor(derived_signer(seed, "stranger"))
        self._mail = mail
        self.people: list[Person] = []
        for number in range(rng.randrange(1, 3)):
            person = self._person(f"provider-{number}", actor(derived_signer(seed, f"p{number}")))
            person.provider = True
            for place in range(rng.randrange(1, 3)):
                name = f"node-{number}-{place}"
                person.nodes.append(Node(name, actor(derived_signer(seed, name))))
            self.people.append(person)
        for number in range(rng.randrange(1, 4)):
            name = f"buyer-{number}"
            self.people.append(self._person(name, actor(derived_signer(seed, name))))
        self._by_account = {person.account: person for person in self.people}
        self._nodes: dict[bytes, Node] = {}
        self._node_keys = {node.actor.key: node for p in self.people for node in p.nodes}
        self._leases: dict[bytes, _Lease] = {}
        self._rates: dict[bytes, int] = {}
        self._offers: dict[bytes, Person] = {}
        self._keys = KeyChanges(rng, seed=seed, actor=actor, send=self._send, apart=apart)
        self._settings = _SETTINGS if apart else (*_SETTINGS, *_OF_SHARDS)

    @staticmethod
    def _person(name: str, actor: Actor) -> Person:
        return Person(name, actor, account_of(actor.key))

    # What they read

    def see(self, ledger: Ledger, shard: int, event: Any) -> None:
        """Take notice of an event, and write down for the checker what it answers and makes."""
        match event:
            case CommandAnswered():
                number = (bytes(event.key), event.session, event.number)
                self._history.add(
                    Answer(
                        process=LEDGER_READER,
                        number=number,
                        digest=event.digest,
                        code=event.code,
                    )
                )
            case KeyRegistered() | KeyRevoked():
                self._keys.see(event)
            case AccountOpened():
                if (person := self._by_account.get(event.account)) is not None:
                    person.opened = True
            case DepositCredited():
                if (person := self._by_account.get(event.account)) is not None:
                    person.funded = True
            case ProviderRegistered():
                self._by_account[event.account].registered = True
            case StakeBonded():
                for person in self.people:
                    person.bonded |= provider_of(person.account) == event.provider
            case NodeRegistered():
                self._made(event.node)
                node = self._node_keys[event.key]
                node.id = event.node
                self._nodes[event.node] = node
            case NodeAttested():
                self._nodes[event.node].attested = True
            case OfferPlaced():
                self._made(event.offer)
                self._nodes[event.node].offered = True
                self._offers[event.offer] = self._by_account[event.account]
            case OfferWithdrawn():
                self._offers.pop(event.offer, None)
            case BidPlaced():
                self._made(event.bid)
                self._by_account[event.account].bids.append(event.bid)
            case LeaseOpened():
                rate = self._rates.get(event.bid, 1)
                self._leases[event.lease] = _Lease(event.lease, event.node, event.buyer, rate)
            case LeaseReady():
                self._leases[event.lease].ready_us = event.at_us
            case LeaseEnded():
                self._leases[event.lease].ended = True
            case _:
                pass

    def _made(self, id: bytes) -> None:
        self._history.add(Effect(process=LEDGER_READER, made=bytes(id)))

    # What they send

    def act(self) -> None:
        """One instant: everybody does what they would do now, or not."""
        for person in self.people:
            if not person.opened:
                self._open(person)
                continue
            if self._chance(6):
                self._chain.claim(person.account)
            if self._chance(25):
                self._withdraw(person)
            self._keys.act(person)
            if person.provider:
                self._provide(person)
            else:
                self._buy(person)
        self._attest()
        self._telemetry()
        if self._chance(5):
            self._garbage()
        self._operate()

    def _operate(self) -> None:
        """The operator: parameters, also beyond their bounds, versions of the rules, writers."""
        if self._chance(12):
            name, values = self._rng.choice(self._settings)
            value = self._rng.choice(values)
            self._send(self._operator, ChangeParameter(name=name, value=value))
        if self._chance(15):
            version = self._rng.choice(sorted(RULES))
            self._send(self._operator, ActivateRules(version=version))
        if self._chance(15):
            ledger = self._rng.choice(list(Ledger))
            new = self._rng.choice(self._writers[ledger])
            proof = b"" if self._chance(5) else new.prove_writer(ledger)
            command = RotateWriter(ledger=int(ledger), writer=new.key, proof=proof)
            self._send(self._operator if self._rng.randrange(5) else new, command)

    def _chance(self, one_in: int) -> bool:
        return self._rng.randrange(one_in) == 0

    def _send(self, actor: Actor, command: Any, *kinds: str, rows: int = 1) -> int:
        """Send a command; ``kinds`` are those of the ids that it can make."""
        number = actor.command(command)
        makes = [actor.id_of(kind, number, row) for kind in kinds for row in range(rows)]
        if makes:
            self._history.add(
                Submit(
                    process=LEDGER_READER,
                    number=(bytes(actor.key), actor.session_us, number),
                    outcome=Outcome.INFO,
                    makes=makes,
                )
            )
        return number

    def _open(self, person: Person) -> None:
        if not person.ready_to("open"):
            return
        payee = Address(derive(person.name, b"payee") + bytes(4))
        self._send(person.actor, OpenAccount(payee=payee))
        if not person.patience.get("deposit"):
            person.patience["deposit"] = 1
            nano = 5_000 * len(person.nodes) if person.provider else self._rng.randrange(20, 900)
            self._chain.deposit(person.account, nano * NANO)

    def _withdraw(self, person: Person) -> None:
        nano = self._rng.choice((0, 1, NANO, 7 * NANO, 10**6 * NANO))
        self._send(person.actor, Withdraw(amount_nano=Wide(nano)))

    def _provide(self, person: Person) -> None:
        if not person.registered and person.ready_to("register"):
            self._send(person.actor, self._registration())
        if any(node.id is None for node in person.nodes) and person.ready_to("nodes"):
            rows = tuple(
                NodeRow(
                    key=node.actor.key,
                    region="eu",
                    capacity=CAPACITY,
                    identities=(Hash32(derive("device", node.name) * 2),),
                    proof=b"" if self._chance(9) else self._proof(person, node),
                )
                for node in person.nodes
            )
            self._send(person.actor, RegisterNodes(nodes=rows), "node", rows=len(rows))
        if person.registered and person.funded and not person.bonded:
            if person.ready_to("bond"):
                nano = 4_000 * len(person.nodes) * NANO
                self._send(person.actor, BondStake(amount_nano=Wide(nano)))
            return
        wanted = [node for node in person.nodes if node.id is not None and not node.offered]
        if wanted and person.ready_to("offer"):
            offers = tuple(
                OfferRow(
                    node=node.id,
                    resource=H100,
                    quantity_milli=1_000,
                    ask_nano=self._rng.randrange(1_000, 4_000) * 1_000_000,
                )
                for node in wanted
                if node.id is not None
            )
            self._send(person.actor, PlaceOffers(offers=offers), "offer", rows=len(offers))
        self._serve(person)

    @staticmethod
    def _proof(person: Person, node: Node) -> bytes:
        return node.actor.prove(person.account, Role.NODE)

    def _serve(self, person: Person) -> None:
        own = {node.id for node in person.nodes}
        fresh = [
            each.lease
            for each in self._leases.values()
            if each.node in own and not each.ready_us and not each.ended
        ]
        if fresh and not self._chance(6):
            self._send(person.actor, ReadyLeases(leases=tuple(fresh)))
        running = self._running(lambda lease: lease.node in own)
        if running and self._chance(40):
            self._send(person.actor, FailLease(lease=self._rng.choice(running).lease))
        if running and self._chance(40):
            lease = self._rng.choice(running)
            self._send(self._nodes[lease.node].actor, CompleteLease(lease=lease.lease))
        if self._chance(30):
            nano = self._rng.choice((1, 100, 10**5)) * NANO
            self._send(person.actor, UnbondStake(amount_nano=Wide(nano)))
        offers = [offer for offer, owner in self._offers.items() if owner is person]
        if offers and self._chance(40):
            self._send(person.actor, WithdrawOffer(offer=self._rng.choice(offers)))  # type: ignore[arg-type]

    def _registration(self) -> RegisterProvider:
        return RegisterProvider(
            location="Luleå",
            network=Hash32(bytes(32)),
            uptime_ppm=self._rng.choice((990_000, 990_000, 990_000, 900_000, 900_000, 10)),
            response_time_ms=50,
            durability_pp12=10**12 - 1000,
            penalty_ppm=100_000,
        )

    def _buy(self, person: Person) -> None:
        rng = self._rng
        if person.funded and self._chance(3):
            limit = rng.choice((1, 4_000, 4_000, 5_000)) * 1_000_000 + (7 if self._chance(9) else 0)
            rate = rng.choice((10, 50_000, 250_000))
            row = BidRow(
                resource=H100,
                region=rng.choice(("eu",) * 8 + ("nowhere",)),
                quantity_milli=rng.choice((1_000, 1_000, 500, 500, 500, 0)),
                limit_nano=limit,
                term_us=rng.randrange(1, 9) * HOUR_US,
                allocations=(Amount(resource="storage.hot", amount=500_000),),
                metered=(MeteredLimit(resource=EGRESS, per_second=10 * rate),),
                usage_budget_nano=rng.choice((0, NANO // 50, NANO, 2 * NANO)),
                reserved=self._chance(4),
            )
            number = self._send(person.actor, PlaceBids(bids=(row,)), "bid")
            self._rates[person.actor.id_of("bid", number)] = rate
        if person.bids and self._chance(12):
            self._send(person.actor, CancelBid(bid=rng.choice(person.bids)))
        running = self._running(lambda lease: lease.buyer == person.account)
        if not running:
            return
        lease = rng.choice(running).lease
        if self._chance(8):
            nano = rng.choice((0, NANO // 10, 3 * NANO, 10**6 * NANO))
            escrow = rng.choice((Escrow.ALLOCATED, Escrow.USAGE))
            self._send(person.actor, TopUpLease(lease=lease, escrow=escrow, amount_nano=nano))
        if self._chance(12):
            self._send(person.actor, CloseLease(lease=lease))
        if self._chance(25):
            self._send(person.actor, RejectLease(lease=lease))

    def _running(self, which: Callable[[_Lease], bool]) -> list[_Lease]:
        return [
            lease
            for lease in self._leases.values()
            if lease.ready_us and not lease.ended and which(lease)
        ]

    def _attest(self) -> None:
        rows = tuple(
            AttestationRow(
                node=id,
                leaves=tuple(leaf(id, each.resource, each.amount, 1) for each in CAPACITY),
                expires_us=self._now_us() + 20 * 24 * HOUR_US,
            )
            for id, node in ((NodeId(key), node) for key, node in self._nodes.items())
            if not node.attested
        )
        if rows:
            self._send(self._attestor, AttestNodes(attestations=rows))

    # What nodes send

    def _telemetry(self) -> None:
        for name, node in self._nodes.items():
            if node.silent:
                node.silent -= 1
                continue
            if self._chance(25):
                node.silent = self._rng.randrange(1, 6)
                continue
            running = self._running(lambda lease, name=name: lease.node == name)  # type: ignore[misc]
            now_us = self._now_us()
            self._batch(node, [(lease, self._total(lease, now_us)) for lease in running])
            if running and self._chance(60):
                # The same counter and instant with another total: a lie that convicts itself.
                lease = running[0]
                self._batch(node, [(lease, self._total(lease, now_us) + 7)])

    def _total(self, lease: _Lease, now_us: int) -> int:
        if self._chance(20):
            lease.generation = min(lease.generation + 1, 63)
        wild = self._rng.choice((0, 0, 0, 0, 0, 0, 0, 0, -1, 10**15)) if self._chance(4) else 0
        return max(0, lease.rate * ((now_us - lease.ready_us) // 1_000_000) + wild)

    def _batch(self, node: Node, rows: list[tuple[_Lease, int]]) -> None:
        assert node.id is not None
        now_us = self._now_us()
        shard = shard_of_node(node.id, self._shards)
        if self._chance(30):
            shard = self._rng.randrange(self._shards)
        person = next(each for each in self.people if node in each.nodes)
        self._keys.reporter(person, node).telemetry(
            shard,
            Batch(
                nodes=(node.id,),
                leases=tuple(lease.lease for lease, _ in rows),
                lease=tuple(range(len(rows))),
                resource=(_PRICES.number[EGRESS],) * len(rows),
                generation=tuple(lease.generation for lease, _ in rows),
                time_us=(now_us,) * len(rows),
                total=tuple(total for _, total in rows),
            ),
        )

    # What anyone may send

    def _garbage(self) -> None:
        topic, partition = self._rng.choice(
            [(COMMANDS_TOPIC, 0), *((TELEMETRY_TOPIC, shard) for shard in range(self._shards))]
        )
        signed = self._stranger.sign(Withdraw(amount_nano=Wide(1)))
        value = self._mail.last.get((topic, partition)) or signed
        match self._rng.randrange(5):
            case 0:
                value = self._rng.randbytes(self._rng.randrange(200))
            case 1:
                value = signed
            case 2:
                at = self._rng.randrange(len(value))
                value = (
                    value[:at] + bytes([value[at] ^ 1 << self._rng.randrange(8)]) + value[at + 1 :]
                )
            case 3:
                value = value[: self._rng.randrange(len(value))] + b"\0"
            case _:
                pass
        self._mail.append(topic, partition, value)
