"""Who acts in a replay: buyers, providers with a gateway, nodes; all keys derive from one seed.

Everything that a replay puts on the log is signed here by one of them, the attestor, or the
watcher: an L1 there is none, so the watcher says that the money of a bid or a stake came in.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from adapters.actor import Actor
from adapters.embedded import Embedded, derived_signer
from adapters.replay_mapping import Commitment
from domain.account import ObserveDeposit, OpenAccount
from domain.commit import COMMANDS_TOPIC, TELEMETRY_TOPIC
from domain.genesis import Role
from domain.ids import (
    AccountId,
    Address,
    BidId,
    Hash32,
    LeaseId,
    NodeId,
    OfferId,
    Wide,
    account_of,
)
from domain.key import RegisterKey
from domain.provider import BondStake, RegisterProvider

#: One in so many records is sent again at once, and one in so many again at the next instant.
AGAIN: Final = 4

UNREGISTERED: Final = NodeId(b"")


@dataclass(slots=True)
class Node:
    """A node of the replay; ``id`` is known once the market has registered it."""

    key: str
    provider: Provider
    capacity: tuple[tuple[str, int], ...]
    id: NodeId = UNREGISTERED
    shard: int = 0
    required_nano: int = 0
    silent_until_us: int = 0
    retired: bool = False
    offers: list[OfferId] = field(default_factory=list)
    leases: dict[LeaseId, Order] = field(default_factory=dict)


@dataclass(slots=True)
class Provider:
    """A provider: its owner, the gateway that signs for its nodes, and its stake.

    ``meter`` is the gateway's key in a session for telemetry alone, so that no number is left out
    there and the window of repeats reaches as far back as it can.
    """

    name: str
    owner: Actor
    gateway: Actor
    meter: Actor
    account: AccountId
    required_nano: int = 0
    bonded_nano: int = 0


@dataclass(slots=True)
class Order:
    """A bid of the replay, one lot, and the lease that fills it while it is not closed."""

    key: str
    buyer: str
    bid: BidId
    ready_wanted_us: int | None = None
    leases: dict[LeaseId, Node] = field(default_factory=dict)
    waiting: list[LeaseId] = field(default_factory=list)
    totals: dict[int, int] = field(default_factory=dict)


class Cast:
    """Every signer of a replay, and the one way by which their records come onto the log."""

    def __init__(
        self, system: Embedded, *, seed: bytes, commitment: Commitment, duplicates: int | None
    ) -> None:
        """``duplicates`` seeds which signed records are appended a second time, byte for byte."""
        self._system = system
        self._seed = seed
        self._commitment = commitment
        self._session_us = system.network.genesis.start_us
        self._again = None if duplicates is None else random.Random(duplicates)
        self._later: list[tuple[str, int, bytes]] = []
        self.buyers: dict[str, Actor] = {}
        self.providers: dict[str, Provider] = {}
        self.attestor = self._actor_of(system.keys.attestor)
        self._watcher = self._actor_of(system.keys.watcher)
        self._deposits = 0
        self.records = 0
        self.duplicates = 0

    def _actor_of(self, signer: Any) -> Actor:
        return self._system.actor(signer, self._session_us)

    def _actor(self, name: str) -> Actor:
        return self._actor_of(derived_signer(self._seed, name))

    def node(self, key: str) -> Actor:
        """A node's own key; its gateway signs for it."""
        return self._actor(f"node/{key}")

    # Sending

    def command(self, actor: Actor, payload: Any) -> int:
        """Append a command; its number."""
        number = actor.next_number
        self._append(COMMANDS_TOPIC, 0, actor.sign(payload))
        return number

    def telemetry(self, actor: Actor, shard: int, batch: Any) -> None:
        """Append a batch to its shard."""
        self._append(TELEMETRY_TOPIC, shard, actor.sign(batch))

    def _append(self, topic: str, partition: int, record: bytes) -> None:
        log = self._system.inputs
        log.append(topic, partition, record)
        self.records += 1
        if self._again is None:
            return
        if self._again.randrange(AGAIN) == 0:
            log.append(topic, partition, record)
            self.duplicates += 1
        if self._again.randrange(AGAIN) == 0:
            self._later.append((topic, partition, record))

    def send_again(self) -> None:
        """Append what was kept of an earlier instant a second time."""
        for topic, partition, record in self._later:
            self._system.inputs.append(topic, partition, record)
            self.duplicates += 1
        self._later.clear()

    # The cast

    def buyer(self, name: str) -> Actor:
        """A buyer, whose account is opened on first sight."""
        known = self.buyers.get(name)
        if known is None:
            self.buyers[name] = known = self._actor(f"buyer/{name}")
            self.command(known, OpenAccount(payee=_payee(known)))
        return known

    def provider(self, name: str) -> Provider:
        """A provider, registered with its gateway on first sight."""
        known = self.providers.get(name)
        if known is None:
            owner = self._actor(f"provider/{name}")
            signer = derived_signer(self._seed, f"gateway/{name}")
            gateway = self._actor_of(signer)
            known = Provider(
                name=name,
                owner=owner,
                gateway=gateway,
                meter=self._system.actor(signer, self._session_us + 1),
                account=account_of(owner.key),
            )
            self.providers[name] = known
            self.command(owner, OpenAccount(payee=_payee(owner)))
            said = self._commitment
            self.command(
                owner,
                RegisterProvider(
                    location=name[:100],
                    network=Hash32(hashlib.sha256(name.encode()).digest()),
                    uptime_ppm=said.uptime_ppm,
                    response_time_ms=said.response_time_ms,
                    durability_pp12=said.durability_pp12,
                    penalty_ppm=said.penalty_ppm,
                ),
            )
            self.command(
                owner,
                RegisterKey(
                    key=gateway.key,
                    role=Role.GATEWAY,
                    proof=gateway.prove(account_of(owner.key), Role.GATEWAY),
                ),
            )
        return known

    # Money

    def deposit(self, actor: Actor, nano: int) -> None:
        """The watcher says that so much came in for an account."""
        if nano == 0:
            return
        self._deposits += 1
        place = hashlib.sha256(b"replay deposit" + self._deposits.to_bytes(8, "big")).digest()
        self.command(
            self._watcher,
            ObserveDeposit(
                account=account_of(actor.key),
                amount_nano=Wide(nano),
                block=self._deposits,
                block_hash=Hash32(place),
                transaction=Hash32(place),
                log_index=0,
            ),
        )

    def stake(self, nodes: Sequence[Node]) -> None:
        """Bond what new nodes require; at least as much again, so that tranches stay few."""
        for provider in {node.provider.name: node.provider for node in nodes}.values():
            provider.required_nano += sum(
                node.required_nano for node in nodes if node.provider is provider
            )
            missing = provider.required_nano - provider.bonded_nano
            if missing > 0:
                nano = max(missing, provider.bonded_nano)
                provider.bonded_nano += nano
                self.deposit(provider.owner, nano)
                self.command(provider.owner, BondStake(amount_nano=Wide(nano)))


def _payee(actor: Actor) -> Address:
    return Address(hashlib.sha256(b"replay payee" + actor.key).digest()[:20])
