"""The people of a simulated market, and how their keys come and go while everything runs."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from adapters.actor import Actor
from adapters.ed25519 import Signer
from adapters.embedded import derived_signer
from domain.genesis import Role
from domain.ids import AccountId, BidId, NodeId
from domain.key import KeyRegistered, KeyRevoked, RegisterKey, RevokeKey


@dataclass(slots=True)
class Node:
    """A node, and what is known of it."""

    name: str
    actor: Actor
    id: NodeId | None = None
    attested: bool = False
    offered: bool = False
    silent: int = 0


@dataclass(slots=True)
class Person:
    """A buyer or a provider. Its account is that of its first key; ``actor`` is the one in use."""

    name: str
    actor: Actor
    account: AccountId
    opened: bool = False
    provider: bool = False
    registered: bool = False
    bonded: bool = False
    funded: bool = False
    nodes: list[Node] = field(default_factory=list)
    bids: list[BidId] = field(default_factory=list)
    #: The owner key that is to follow the one in use, and a gateway for the nodes.
    heir: Actor | None = None
    gateway: Actor | None = None
    keys_made: int = 0
    #: Instants for which no second attempt is made.
    patience: dict[str, int] = field(default_factory=dict)

    def ready_to(self, what: str) -> bool:
        """Whether to do it now: not again before an answer had time to come."""
        left = self.patience.get(what, 0)
        self.patience[what] = left - 1 if left else 2
        return left == 0


class KeyChanges:
    """Owner keys that are followed by others, gateways that come and go, node keys that go."""

    def __init__(
        self,
        rng: random.Random,
        *,
        seed: bytes,
        actor: Callable[[Signer], Actor],
        send: Callable[[Actor, Any], object],
        apart: bool,
    ) -> None:
        """``send`` sends a command; with ``apart`` the keys of telemetry stay as they are."""
        self._rng = rng
        self._seed = seed
        self._actor = actor
        self._send = send
        self._apart = apart
        self._registered: set[bytes] = set()
        self._revoked: set[bytes] = set()

    def see(self, event: KeyRegistered | KeyRevoked) -> None:
        """Follow what the market says of keys."""
        keys = self._registered if isinstance(event, KeyRegistered) else self._revoked
        keys.add(event.key)

    def act(self, person: Person) -> None:
        """What a person does about keys at one instant; mostly nothing."""
        self._owner(person)
        if person.provider and not self._apart:
            self._gateway(person)
            named = [node for node in person.nodes if node.id is not None]
            if named and self._chance(80):
                self._revoke(person.actor, self._rng.choice(named).actor)

    def reporter(self, person: Person, node: Node) -> Actor:
        """Who signs for a node now; also keys that are revoked, or not yet registered."""
        gateway = person.gateway
        if gateway is None:
            return node.actor
        gone = node.actor.key in self._revoked
        return gateway if self._chance(3) != gone else node.actor

    def _owner(self, person: Person) -> None:
        if person.heir is None and self._chance(20):
            person.heir = self._new(person)
        heir = person.heir
        if heir is None:
            return
        if heir.key not in self._registered:
            if person.ready_to("heir"):
                self._register(person, heir, Role.OWNER)
        elif self._chance(3):
            self._revoke(self._rng.choice((heir, person.actor)), person.actor)
            if self._rng.randrange(3):
                person.actor, person.heir = heir, None

    def _gateway(self, person: Person) -> None:
        gateway = person.gateway
        if gateway is None:
            if self._chance(6):
                person.gateway = self._new(person)
        elif gateway.key in self._revoked:
            if self._chance(3):
                person.gateway = None
        elif gateway.key not in self._registered:
            if person.ready_to("gateway"):
                self._register(person, gateway, Role.GATEWAY)
        elif self._chance(12):
            self._revoke(person.actor, gateway)

    def _new(self, person: Person) -> Actor:
        person.keys_made += 1
        return self._actor(derived_signer(self._seed, f"{person.name} key {person.keys_made}"))

    def _register(self, person: Person, new: Actor, role: Role) -> None:
        proof = b"" if self._chance(5) else new.prove(person.account, role)
        self._send(person.actor, RegisterKey(key=new.key, role=role, proof=proof))

    def _revoke(self, by: Actor, gone: Actor) -> None:
        self._send(by, RevokeKey(key=gone.key))

    def _chance(self, one_in: int) -> bool:
        return self._rng.randrange(one_in) == 0
