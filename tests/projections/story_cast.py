"""Who is in a story: accounts, providers and nodes, and how events are told."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from domain.account import (
    AccountOpened,
    DepositCredited,
)
from domain.bid import BidPlaced
from domain.commit import COMMANDS_TOPIC, InputRun
from domain.genesis import Role
from domain.ids import (
    AccountId,
    Address,
    Hash32,
    LeaseId,
    NodeId,
    OfferId,
    PublicKey,
    Wide,
    account_of,
    derive,
)
from domain.journal import NOBODY, Balances, Purse, move
from domain.key import CommandAnswered, KeyRegistered, RowRefused, key_aggregate
from domain.node import Amount, NodeHealthChanged, NodeRegistered
from domain.offer import OfferPlaced
from domain.provider import (
    ProviderAdmitted,
    ProviderRegistered,
    StakeBonded,
    provider_of,
)
from domain.round import instrument_of
from domain.telemetry import (
    NodeAssigned,
    NodeCameUp,
    NodeWentDown,
)
from tests.projections.ledgers import START_US, HandNetwork

SECOND = 1_000_000
REGIONS = ("eu", "us")
DEVICES = ("gpu.h100", "gpu.rtx4090")
PRICE_NANO = 4_000_000_000


def hashed(*parts: object) -> Hash32:
    """A hash that only looks like one."""
    return Hash32(hashlib.sha256(repr(parts).encode()).digest())


INSTRUMENTS = {
    instrument_of(device, region): (device, region) for device in DEVICES for region in REGIONS
}


def names_of(instrument: bytes) -> tuple[str, str]:
    """Device and region of an instrument."""
    return next(names for known, names in INSTRUMENTS.items() if known == instrument)


def instrument_of_order(order: BidPlaced | OfferPlaced) -> bytes:
    """The instrument that an order is in."""
    return instrument_of(order.resource, order.region)


@dataclass
class Lease:
    lease: LeaseId
    offer: OfferId
    device_milli: int
    buyer: AccountId
    account: AccountId
    node: NodeId
    ready: bool = False
    quantity: int = 0
    posted: int = 0
    protocol: int = 0


@dataclass
class Telling:
    """Tells events to a network, commit by commit, and keeps the balances that they add up to."""

    network: HandNetwork
    random: random.Random
    per_commit: int = 12
    time_us: int = START_US
    balances: Balances = field(default_factory=Balances)
    accounts: list[AccountId] = field(default_factory=list)
    keys: dict[AccountId, PublicKey] = field(default_factory=dict)
    nodes: list[tuple[NodeId, AccountId, str, str]] = field(default_factory=list)
    offers: list[OfferPlaced] = field(default_factory=list)
    bids: list[BidPlaced] = field(default_factory=list)
    open_rounds: dict[bytes, int] = field(default_factory=dict)
    rounds: dict[bytes, int] = field(default_factory=dict)
    leases: list[Lease] = field(default_factory=list)
    taken_milli: dict[OfferId, int] = field(default_factory=dict)
    payable: dict[AccountId, int] = field(default_factory=dict)
    previous: Hash32 = field(default_factory=lambda: Hash32(bytes(32)))
    epoch: int = 0
    told: int = 0
    everything: list[tuple[bytes, Any]] = field(default_factory=list)
    _waiting: list[tuple[bytes, Any]] = field(default_factory=list)
    _number: int = 0
    _commands: int = 0

    # Telling

    def tell(self, aggregate: bytes, event: Any) -> None:
        """One market event."""
        postings = getattr(event, "postings", ())
        self.balances.post(postings)
        self._waiting.append((aggregate, event))
        self.everything.append((aggregate, event))
        self.told += 1
        if len(self._waiting) >= self.per_commit:
            self.flush()

    def flush(self) -> int:
        """Commit what was told, with the commands that it came from."""
        if self._waiting:
            first, self._commands = self._commands, self._commands + 1
            run = InputRun(
                topic=COMMANDS_TOPIC,
                partition=0,
                first=first,
                next=first + 1,
                count=1,
                digest=hashed(first),
            )
            self.network.market.commit(self.time_us, self._waiting, (run,))
            self._waiting = []
        return self.network.market.height

    def step(self) -> int:
        """Time passes."""
        self.time_us += self.random.randrange(1, 3 * SECOND)
        return self.time_us

    def fresh(self, kind: str) -> bytes:
        """A new id."""
        self._number += 1
        return derive(kind, self._number)

    def answer(
        self,
        account: AccountId,
        kind: str,
        code: int = 0,
        rows: Sequence[RowRefused] = (),
        events: int = 1,
    ) -> tuple[PublicKey, int, int]:
        """The answer that follows a command's events; a refusal follows none."""
        self._number += 1
        key = self.keys[account]
        self.tell(
            key_aggregate(key),
            CommandAnswered(
                at_us=self.time_us,
                key=key,
                session=1,
                number=self._number,
                digest=hashed("command", self._number),
                kind=f"synor.command.v1.{kind}",
                code=code,
                detail="" if code == 0 else "because of the test",
                rows=tuple(rows),
                events=0 if code else events,
            ),
        )
        return key, 1, self._number

    # Subjects

    def open_account(self, deposit_nano: int = 10**15) -> AccountId:
        """An account with money."""
        now = self.step()
        key = PublicKey(hashed("key", len(self.accounts)))
        account = account_of(key)
        self.accounts.append(account)
        self.keys[account] = key
        payee = Address(hashed("payee", account)[:20])
        opened = AccountOpened(at_us=now, account=account, key=key, owner=account, payee=payee)
        self.tell(account, opened)
        registered = KeyRegistered(at_us=now, key=key, role=Role.OWNER, account=account)
        self.tell(key_aggregate(key), registered)
        self.answer(account, "OpenAccount", events=2)
        self.tell(
            account,
            DepositCredited(
                at_us=now,
                account=account,
                amount_nano=Wide(deposit_nano),
                block=len(self.accounts),
                transaction=hashed("deposit", account),
                log_index=0,
                postings=move((Purse.EXTERNAL, NOBODY), (Purse.FREE, account), deposit_nano),
            ),
        )
        return account

    def open_provider(self, nodes: int = 2) -> AccountId:
        """A provider with stake and nodes."""
        account = self.open_account()
        now = self.step()
        provider = provider_of(account)
        self.tell(
            provider,
            ProviderRegistered(
                at_us=now,
                provider=provider,
                account=account,
                location="Reykjavík <hall 2>",
                network=hashed("network", account),
                uptime_ppm=999_000,
                response_time_ms=50,
                durability_pp12=999_999_999_999,
                penalty_ppm=100_000,
            ),
        )
        stake = 10**14
        self.tell(
            provider,
            StakeBonded(
                at_us=now,
                provider=provider,
                tranche=0,
                amount_nano=Wide(stake),
                postings=move((Purse.FREE, account), (Purse.STAKE, provider), stake),
            ),
        )
        for _ in range(nodes):
            self.add_node(account)
        admitted = ProviderAdmitted(
            at_us=now, provider=provider, required_nano=Wide(nodes * 10**12)
        )
        self.tell(provider, admitted)
        return account

    def add_node(self, account: AccountId) -> NodeId:
        """A node that beats, and its metering shard that knows it."""
        node = NodeId(self.fresh("node"))
        device, region = self.random.choice(DEVICES), self.random.choice(REGIONS)
        provider = provider_of(account)
        key = PublicKey(hashed("node key", node))
        self.nodes.append((node, account, device, region))
        self.tell(
            node,
            NodeRegistered(
                at_us=self.time_us,
                node=node,
                provider=provider,
                account=account,
                key=key,
                region=region,
                capacity=(
                    Amount(resource=device, amount=8000),
                    Amount(resource="storage.hot", amount=10**6),
                ),
                identities=(hashed("device", node),),
                manifest_version=1,
                beat_us=10 * SECOND,
                grace_us=30 * SECOND,
                required_nano=Wide(10**12),
            ),
        )
        shard = self.shard(node)
        assigned = NodeAssigned(
            at_us=self.time_us,
            node=node,
            provider=provider,
            key=key,
            beat_us=10 * SECOND,
            grace_us=30 * SECOND,
        )
        came = NodeCameUp(at_us=self.time_us, node=node, since_us=self.time_us)
        self.network.metering[shard].commit(self.time_us, [(node, assigned), (node, came)])
        self._health(node, up=True)
        return node

    def shard(self, node: bytes) -> int:
        """Some shard of the node."""
        return node[0] % self.network.shards

    def _health(self, node: NodeId, *, up: bool) -> None:
        changed = NodeHealthChanged(
            at_us=self.time_us,
            node=node,
            up=up,
            down_since_us=self.time_us - SECOND,
            up_us=self.time_us if up else 0,
        )
        self.tell(node, changed)

    def fall(self) -> None:
        """A node goes down."""
        if not self.nodes:
            return
        now = self.step()
        node = self.random.choice(self.nodes)[0]
        down = NodeWentDown(at_us=now, node=node, since_us=now - 31 * SECOND)
        self.network.metering[self.shard(node)].commit(now, [(node, down)])
        self._health(node, up=False)
