"""The market's in-process folds: what decisions need beside the aggregates they touch.

Each is a fold over events alone (never over states), so recovery needs no aggregate: balances,
keys, positions of the shards, and the order book, free capacity and node health whose code stands
in ``projections`` and also fills SQL.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any, Protocol

from domain.clearing import RestingAsk, RestingBid
from domain.eligible_asks import EligibleAsks
from domain.genesis import Genesis, Role
from domain.ids import AccountId, NodeId, PublicKey, account_of
from domain.invariant import invariant
from domain.journal import Balances
from domain.key import KeyRegistered, KeyRevoked
from domain.merkle import EMPTY_ROOT
from domain.round import FillsAdded, RoundCleared

if TYPE_CHECKING:
    from domain.market import Market
    from domain.processor import ForeignCommit


class Book(Protocol):
    """Resting orders by instrument, right from the instant at which a round clears."""

    def apply(self, event: Any) -> None:
        """Take in one event."""
        ...

    def bid(self, bid: bytes) -> RestingBid | None:
        """A bid that rests."""
        ...

    def ask(self, offer: bytes) -> RestingAsk | None:
        """An ask that rests."""
        ...

    def two_sided(self, instrument: bytes) -> bool:
        """Whether there is a bid and an ask."""
        ...

    def best_bid(self, instrument: bytes) -> int | None:
        """The highest limit, or None without a bid."""
        ...

    def bids_from(self, instrument: bytes, lowest: int) -> Iterator[RestingBid]:
        """Bids at ``lowest`` or above, best first."""
        ...


class Capacity(Protocol):
    """Free capacity by node and resource."""

    def apply(self, event: Any) -> None:
        """Take in one event."""
        ...

    def free(self, node: bytes, resource: str) -> int | None:
        """How much is free; None where the node does not list the resource."""
        ...


class Health(Protocol):
    """Which nodes are up, and since when."""

    def apply(self, event: Any) -> None:
        """Take in one event."""
        ...

    def up(self, node: bytes) -> bool:
        """Whether the last thing heard of the node is a sign of life."""
        ...

    def down_since(self, node: bytes) -> int | None:
        """The last sign of life of a node that is down; None if it is up or never was."""
        ...


class Fold(Protocol):
    """Anything that follows events."""

    def apply(self, event: Any) -> None:
        """Take in one event; events of no interest are ignored."""
        ...


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a key, and what for."""

    key: PublicKey
    role: Role
    account: AccountId
    node: NodeId | None = None
    revoked: bool = False
    new: bool = False

    @classmethod
    def newcomer(cls, key: PublicKey) -> Holder:
        """The signer of a first ``OpenAccount``."""
        return cls(key=key, role=Role.OWNER, account=account_of(key), new=True)


class Keys:
    """Keys in and out of force."""

    def __init__(self, genesis: Genesis) -> None:
        """Start with the genesis' keys."""
        self._holders: dict[bytes, Holder] = {
            k.key: Holder(k.key, k.role, AccountId(bytes(16))) for k in genesis.keys
        }

    def holder(self, key: bytes) -> Holder | None:
        """Who holds the key, or None where nobody registered it."""
        return self._holders.get(key)

    def owners(self, account: bytes) -> int:
        """How many owner keys of the account are in force."""
        return sum(
            1
            for h in self._holders.values()
            if h.account == account and h.role is Role.OWNER and not h.revoked
        )

    def apply(self, event: Any) -> None:
        """Follow registrations and revocations."""
        if isinstance(event, KeyRegistered):
            self._holders[event.key] = Holder(event.key, event.role, event.account, event.node)
        elif isinstance(event, KeyRevoked):
            held = self._holders[event.key]
            self._holders[event.key] = Holder(
                held.key, held.role, held.account, held.node, revoked=True
            )


class ShardPositions:
    """Which commit of each metering shard the market has consumed, and the time it passed."""

    def __init__(self, shards: int) -> None:
        """Start before the first commit of every shard."""
        self.passed_us = [0] * shards
        self.height = [-1] * shards
        self.hash = [bytes(32)] * shards
        self.root = [EMPTY_ROOT] * shards
        self.size = [0] * shards

    def consumed(self, commit: ForeignCommit) -> None:
        """A commit of a shard was read whole: its ledger has passed the commit's time."""
        shard = commit.shard
        self.passed_us[shard] = max(self.passed_us[shard], commit.time_us)
        self.height[shard] = commit.height
        self.hash[shard] = commit.hash
        self.root[shard] = commit.tree_root
        self.size[shard] = commit.tree_size

    def all_passed_us(self) -> int:
        """The instant that every shard has passed."""
        return min(self.passed_us)


class Folds:
    """Every in-process fold of the market, applied to each event in a fixed order.

    ``book``, ``capacity`` and ``health`` come from ``projections`` through the composition root.
    Subject folds (``registry``, ``orders``, ``leases``, ``stake``, ``epochs``) stand in the
    modules of their rules; they may set deadlines on the market that ``bind`` gives them.
    """

    def __init__(
        self, genesis: Genesis, shards: int, *, book: Book, capacity: Capacity, health: Health
    ) -> None:
        """Empty folds for one market."""
        from domain import (
            market_epochs,
            market_leases,
            market_orders,
            market_registry,
            market_stake,
        )

        self.balances = Balances()
        self.keys = Keys(genesis)
        self.shards = ShardPositions(shards)
        self.book = book
        self.capacity = capacity
        self.health = health
        self.registry = market_registry.RegistryFold(genesis)
        self.orders = market_orders.OrdersFold(genesis)
        self.leases = market_leases.LeasesFold(genesis)
        self.stake = market_stake.StakeFold(genesis)
        self.epochs = market_epochs.EpochsFold(genesis)
        self.eligible = EligibleAsks()
        #: Parts of the round that is being cleared.
        self.parts: list[FillsAdded] = []

    def bind(self, market: Market) -> None:
        """Give the subject folds the market whose deadlines they set."""
        for fold in (self.registry, self.orders, self.leases, self.stake, self.epochs):
            fold.bind(market)
        self.eligible.bind(market)

    def apply(self, event: Any) -> None:
        """Post the event's money, then follow it everywhere.

        A round that is told in parts is followed when all are there, as one event.
        """
        if isinstance(event, FillsAdded):
            self.parts.append(event)
            self.orders.apply(event)
            return
        if self.parts and isinstance(event, RoundCleared):
            event = _whole(self.parts, event)
            self.parts = []
        postings = getattr(event, "postings", None)
        if postings:
            self.balances.post(postings)
        self.keys.apply(event)
        self.book.apply(event)
        self.capacity.apply(event)
        self.health.apply(event)
        self.registry.apply(event)
        self.orders.apply(event)
        self.leases.apply(event)
        self.stake.apply(event)
        self.epochs.apply(event)
        self.eligible.apply(event)


def _whole(parts: Sequence[FillsAdded], last: RoundCleared) -> RoundCleared:
    """The round with the fills of all its parts."""
    told = all((each.instrument, each.number) == (last.instrument, last.number) for each in parts)
    invariant(told, "one round is told at a time")
    return replace(
        last,
        volume_milli=sum(each.volume_milli for each in parts) + last.volume_milli,
        fills=(*chain.from_iterable(each.fills for each in parts), *last.fills),
    )
