"""The driver of a replay: actions of rows become signed inputs, instant by instant.

It follows the market's ledger as anyone could: a lease is made ready because its ``LeaseOpened``
was read, a stake is bonded because ``NodeRegistered`` said what is required. Nodes beat on a grid
of the genesis' interval from their registration on, one batch per provider and shard.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from adapters.embedded import Embedded
from adapters.eventsourcing_index import Depth
from adapters.follow import Follower
from adapters.replay_actions import (
    AddBid,
    AddNode,
    AddOffer,
    Beat,
    CancelBidding,
    EndLeases,
    MakeReady,
    Reading,
    RetireOne,
    Silence,
    WithdrawNode,
)
from adapters.replay_cast import Cast, Node, Order
from adapters.replay_files import Timed
from adapters.replay_mapping import ReplayMapping
from adapters.replay_tally import MARKET_EVENTS, METERING_EVENTS, Tally
from adapters.replay_telemetry import Telemetry
from adapters.replay_values import ReplayRefused
from domain.bid import (
    BidCancelled,
    BidRow,
    CancelBid,
    MeteredLimit,
    PlaceBids,
    lot_worst_case,
)
from domain.catalogue import Catalogue
from domain.commit import Ledger
from domain.genesis import Role
from domain.ids import BidId, Hash32, LeaseId, OfferId, account_of, shard_of
from domain.lease import (
    CloseLease,
    CompleteLease,
    FailLease,
    LeaseClosed,
    LeaseEnded,
    LeaseOpened,
    ReadyLeases,
    ReclaimLease,
)
from domain.node import (
    Amount,
    AttestationRow,
    AttestNodes,
    NodeRegistered,
    NodeRow,
    RegisterNodes,
    RetireNode,
    leaf,
)
from domain.offer import OfferRow, PlaceOffers, WithdrawOffer
from domain.refusal import CODES

#: Rows of one command: far below the bounds on rows and bytes, whatever a row holds.
ROWS: Final = 100


def chunks(rows: Sequence[Any], size: int = ROWS) -> Iterator[Sequence[Any]]:
    """A long list in parts."""
    for first in range(0, len(rows), size):
        yield rows[first : first + size]


class Driver:
    """One replay on one system."""

    def __init__(
        self,
        system: Embedded,
        mapping: ReplayMapping,
        *,
        shuffle: int | None = None,
        duplicates: int | None = None,
    ) -> None:
        """``shuffle`` permutes beats and readings within the bounds that the genesis sets."""
        self._system = system
        self._mapping = mapping
        genesis = system.network.genesis
        self._parameters = genesis.parameters
        self._start_us = genesis.start_us
        self._catalogue = Catalogue(genesis.catalogue, genesis.shares)
        seed = hashlib.sha256(b"synor replay" + mapping.name.encode()).digest()
        self.cast = Cast(system, seed=seed, commitment=mapping.commitment, duplicates=duplicates)
        self.tally = Tally()
        self._nodes: dict[str, Node] = {}
        self._by_key: dict[bytes, Node] = {}
        self._by_id: dict[bytes, Node] = {}
        self._orders: dict[str, Order] = {}
        self._by_bid: dict[bytes, Order] = {}
        self._registered: list[Node] = []
        self._attested: deque[tuple[int, Node]] = deque()
        self._by_lease: dict[LeaseId, Order] = {}
        self._became_ready: list[tuple[LeaseId, Node]] = []
        self._telemetry = Telemetry(self.cast, self._catalogue, mapping, genesis, shuffle=shuffle)
        network = system.network
        self.market = Follower(
            network.partition(
                Ledger.MARKET, 0, log=system.log, index=":memory:", depth=Depth.COMMITS
            ),
            network.codec,
            MARKET_EVENTS,
        )
        self.meters = [
            Follower(
                network.partition(
                    Ledger.METERING, shard, log=system.log, index=":memory:", depth=Depth.COMMITS
                ),
                network.codec,
                METERING_EVENTS,
            )
            for shard in range(network.shards)
        ]
        self.late_ready = self.ends_of_no_lease = 0
        self.active_at_end = 0

    # Time

    def run(self, instants: Iterable[tuple[int, list[Timed]]]) -> None:
        """Replay everything, then let time pass until every lease is closed and paid for."""
        for at_us, timed in instants:
            now_us = self._mapping.origin_us + at_us
            self._pass_to(now_us)
            if self._telemetry.gathers and all(isinstance(t.action, Reading) for t in timed):
                # Sent with others later: nothing happens on the ledger at this instant.
                self._read([one.action for one in timed], now_us)
            else:
                self._instant(now_us, timed)
        self._look()
        self.active_at_end = self.tally.active
        self._finish()
        for meter in self.meters:
            for event in meter.new():
                self.tally.see(event)

    def _pass_to(self, time_us: int) -> None:
        """Beat and send readings at each of their instants before ``time_us``."""
        while (due_us := self._telemetry.next_us()) is not None and due_us < time_us:
            self._instant(due_us, ())

    def _instant(self, now_us: int, timed: Sequence[Timed]) -> None:
        by_kind: dict[type[Any], list[Any]] = {}
        for one in timed:
            by_kind.setdefault(type(one.action), []).append(one.action)
        time = self._system.time
        time.advance_to(now_us, lambda: self._send(now_us, by_kind))
        if AddNode in by_kind or AddOffer in by_kind:
            self._found(now_us, by_kind)
        self._look()
        if self._became_ready:
            self._ready()
            time.settle()

    def _settle(self) -> None:
        self._system.time.settle()
        self._look()

    def _send(self, now_us: int, actions: dict[type[Any], list[Any]]) -> None:
        """Everything of an instant that needs nothing of the same instant to be known."""
        self._look()
        self.cast.send_again()
        self._renew(now_us)
        for name in (WithdrawNode, EndLeases, CancelBidding, RetireOne):
            for action in actions.get(name, ()):
                self._leave(action, now_us)
        self._register(actions.get(AddNode, ()))
        if AddOffer not in actions:
            self._bid(actions.get(AddBid, ()))
        for ready in actions.get(MakeReady, ()):
            self._want_ready(ready)
        self._ready()
        for silence in actions.get(Silence, ()):
            until_us = silence.until_us
            if until_us is not None:
                until_us += self._mapping.origin_us
            self._telemetry.silence(self._node(silence.node), now_us, until_us)
        for beat in actions.get(Beat, ()):
            self._telemetry.beat(self._node(beat.node))
        self._read(actions.get(Reading, ()), now_us)
        self._telemetry.send(now_us, self._nodes.values())

    def _read(self, readings: Sequence[Any], now_us: int) -> None:
        for reading in readings:
            self._telemetry.read(self._order(reading.bid), reading, now_us)

    def _finish(self) -> None:
        """Beat on until all is closed; then to an end that does not depend on the last inputs."""
        p = self._parameters
        longest = (
            p.ready_within_us
            + p.term_max_us
            + p.closing_us
            + 2 * p.usage_window_us
            + 2 * p.grace_max_us
            + 2 * p.beat_us
        )
        bound_us = self._system.time.now_us + longest
        while self.tally.open_leases or self._telemetry.waits():
            now_us = self._system.time.now_us
            if now_us > bound_us:
                raise ReplayRefused(
                    f"{self.tally.open_leases} leases are not closed {longest} µs after the last "
                    "row; do their nodes beat?"
                )
            due_us = self._telemetry.next_us()
            self._instant(now_us + p.usage_window_us if due_us is None else due_us, ())
        self._leave_stage()
        matured_us = self._system.time.now_us + p.maturity_us - self._start_us
        end_us = self._start_us + (-(-matured_us // p.epoch_us) + 1) * p.epoch_us
        self._pass_to(end_us)
        self._instant(end_us, ())

    def _leave_stage(self) -> None:
        """All nodes withdraw, give a last sign of life and retire: nobody needs them to beat on."""
        nodes = list(self._nodes.values())
        for node in nodes:
            self._leave(WithdrawNode(node=node.key), self._system.time.now_us)
        self._settle()
        self._telemetry.last_beats(nodes)
        self._settle()
        for node in nodes:
            self._leave(RetireOne(node=node.key), self._system.time.now_us)
        self._settle()

    # What the ledgers say

    def _look(self) -> None:
        for event in self.market.new():
            self.tally.see(event)
            match event:
                case NodeRegistered():
                    node = self._by_key.pop(event.key)
                    node.id = event.node
                    node.required_nano = event.required_nano
                    node.shard = shard_of(event.node, self._system.network.shards)
                    self._by_id[event.node] = node
                    self._registered.append(node)
                case LeaseOpened():
                    self._opened(self._by_bid[event.bid], event.lease, self._by_id[event.node])
                case LeaseEnded():
                    order = self._by_id[event.node].leases.pop(event.lease)
                    if event.lease in order.waiting:
                        order.waiting.remove(event.lease)
                case LeaseClosed():
                    self._forget(self._by_lease.pop(event.lease))
                case BidCancelled():
                    if not self._by_bid[event.bid].leases:
                        self._forget(self._by_bid[event.bid])
                case _:
                    pass

    def _opened(self, order: Order, lease: LeaseId, node: Node) -> None:
        order.leases[lease] = node
        node.leases[lease] = order
        self._by_lease[lease] = order
        wanted_us = order.ready_wanted_us
        if wanted_us is not None:
            self.late_ready += wanted_us < self._system.time.now_us
            self._became_ready.append((lease, node))
        else:
            order.waiting.append(lease)

    def _forget(self, order: Order) -> None:
        del self._orders[order.key], self._by_bid[order.bid]
        self._telemetry.forget(order)

    # Nodes and offers

    def _node(self, key: str) -> Node:
        found = self._nodes.get(key)
        if found is None:
            raise ReplayRefused(f"no row has become a node {key!r} yet")
        return found

    def _register(self, wanted: Sequence[AddNode]) -> None:
        rows: dict[str, list[NodeRow]] = {}
        for one in wanted:
            if one.key in self._nodes:
                raise ReplayRefused(f"two rows become the node {one.key!r}")
            provider = self.cast.provider(one.provider)
            node = Node(key=one.key, provider=provider, capacity=one.capacity)
            own = self.cast.node(one.key)
            public = own.key
            self._nodes[one.key] = self._by_key[public] = node
            rows.setdefault(one.provider, []).append(
                NodeRow(
                    key=public,
                    proof=own.prove(account_of(provider.owner.key), Role.NODE),
                    region=one.region,
                    capacity=tuple(Amount(resource=r, amount=a) for r, a in one.capacity),
                    identities=tuple(
                        Hash32(hashlib.sha256(public + number.to_bytes(4, "big")).digest())
                        for number in range(one.devices or self._devices(one))
                    ),
                )
            )
        for name, nodes in rows.items():
            for part in chunks(nodes):
                owner = self.cast.provider(name).owner
                self.cast.command(owner, RegisterNodes(nodes=tuple(part)))

    def _devices(self, node: AddNode) -> int:
        """A device for each begun thousand of what rounds price."""
        devices = 0
        for resource, amount in node.capacity:
            row = self._catalogue.row(resource)
            if row is not None and row.market:
                devices += -(-amount // 1000)
        return max(1, devices)

    def _found(self, now_us: int, actions: dict[type[Any], list[Any]]) -> None:
        """New nodes are staked, attested and up before what they offer is placed."""
        if AddNode in actions:
            self._look()
            names = self.tally.refused
            for node in self._by_key.values():
                why = [f"{c.name}: {c.remedy}" for c in CODES.values() if c.name in names]
                raise ReplayRefused(f"the ledger took no node {node.key!r}. {' '.join(why)}")
            new, self._registered = self._registered, []
            self.cast.stake(new)
            self._attest(new, now_us)
            self._telemetry.first_beats(new)
            self._settle()
        self._offer(actions.get(AddOffer, ()))
        if AddOffer in actions:
            self._bid(actions.get(AddBid, ()))
        self._system.time.settle()

    def _attest(self, nodes: Sequence[Node], now_us: int) -> None:
        expires_us = now_us + self._parameters.attestation_us
        self._attested.extend((expires_us, node) for node in nodes)
        rows = [
            AttestationRow(
                node=node.id,
                leaves=tuple(leaf(node.id, r, a, 1) for r, a in node.capacity),
                expires_us=expires_us,
            )
            for node in nodes
        ]
        for part in chunks(rows):
            self.cast.command(self.cast.attestor, AttestNodes(attestations=tuple(part)))

    def _renew(self, now_us: int) -> None:
        """Attest again what is in its last tenth, so that offers go on matching (R6.4)."""
        ahead_us = self._parameters.attestation_us // 10
        due: list[Node] = []
        while self._attested and self._attested[0][0] - ahead_us <= now_us:
            node = self._attested.popleft()[1]
            if not node.retired:
                due.append(node)
        if due:
            self._attest(due, now_us)

    def _offer(self, wanted: Sequence[AddOffer]) -> None:
        asks: dict[str, list[tuple[Node, OfferRow]]] = {}
        for one in wanted:
            node = self._node(one.node)
            row = OfferRow(
                node=node.id,
                resource=one.resource,
                quantity_milli=one.quantity_milli,
                ask_nano=self._list_price(one.resource) if one.ask_nano is None else one.ask_nano,
                interruptible=one.notice_us is not None,
                notice_us=one.notice_us or 0,
            )
            asks.setdefault(node.provider.name, []).append((node, row))
        for name, rows in asks.items():
            gateway = self.cast.provider(name).gateway
            for part in chunks(rows):
                number = self.cast.command(
                    gateway, PlaceOffers(offers=tuple(row for _, row in part))
                )
                for place, (node, _) in enumerate(part):
                    node.offers.append(OfferId(gateway.id_of("offer", number, place)))

    def _list_price(self, resource: str) -> int:
        row = self._catalogue.row(resource)
        if row is None:
            raise ReplayRefused(f"{resource} is no resource of the mapping's catalogue")
        return row.price_nano

    # Bids

    def _order(self, key: str) -> Order:
        found = self._orders.get(key)
        if found is None:
            raise ReplayRefused(f"no row has become a bid {key!r}, or it was cancelled")
        return found

    def _bid(self, wanted: Sequence[AddBid]) -> None:
        bids: dict[str, list[tuple[str, BidRow]]] = {}
        for one in wanted:
            if one.key in self._orders:
                raise ReplayRefused(f"two rows become the bid {one.key!r}")
            limit = one.limit_nano
            row = BidRow(
                resource=one.resource,
                region=one.region,
                quantity_milli=one.quantity_milli,
                limit_nano=self._list_price(one.resource) if limit is None else limit,
                term_us=one.term_us,
                allocations=tuple(Amount(resource=r, amount=a) for r, a in one.allocations),
                metered=tuple(MeteredLimit(resource=r, per_second=a) for r, a in one.metered),
                usage_budget_nano=one.usage_budget_nano,
            )
            bids.setdefault(one.buyer, []).append((one.key, row))
        for name, rows in bids.items():
            buyer = self.cast.buyer(name)
            self.cast.deposit(buyer, sum(self._worst_case(row) for _, row in rows))
            for part in chunks(rows):
                number = self.cast.command(buyer, PlaceBids(bids=tuple(row for _, row in part)))
                for place, (key, _) in enumerate(part):
                    bid = BidId(buyer.id_of("bid", number, place))
                    order = Order(key=key, buyer=name, bid=bid)
                    self._orders[key] = self._by_bid[bid] = order

    def _worst_case(self, row: BidRow) -> int:
        for named in (row.resource, *(amount.resource for amount in row.allocations)):
            self._list_price(named)
        return row.usage_budget_nano + lot_worst_case(
            self._catalogue,
            resource=row.resource,
            lot_milli=row.quantity_milli,
            price_nano=row.limit_nano,
            term_us=row.term_us,
            allocations=row.allocations,
        )

    # Leases

    def _want_ready(self, wanted: MakeReady) -> None:
        order = self._order(wanted.bid)
        self._became_ready += [(lease, order.leases[lease]) for lease in order.waiting]
        order.waiting.clear()
        order.ready_wanted_us = self._system.time.now_us

    def _ready(self) -> None:
        """Say that the leases whose time has come can be used."""
        by_provider: dict[str, list[LeaseId]] = {}
        for lease, node in self._became_ready:
            by_provider.setdefault(node.provider.name, []).append(lease)
        self._became_ready.clear()
        for name, ready in by_provider.items():
            for part in chunks(ready):
                gateway = self.cast.provider(name).gateway
                self.cast.command(gateway, ReadyLeases(leases=tuple(part)))

    def _leave(self, action: Any, now_us: int) -> None:
        match action:
            case WithdrawNode():
                node = self._node(action.node)
                for offer in node.offers:
                    self.cast.command(node.provider.gateway, WithdrawOffer(offer=offer))
                node.offers.clear()
            case EndLeases():
                self._end(action, now_us)
            case CancelBidding():
                order = self._order(action.bid)
                self.cast.command(self.cast.buyer(order.buyer), CancelBid(bid=order.bid))
            case RetireOne():
                node = self._node(action.node)
                del self._nodes[action.node], self._by_id[node.id]
                node.retired = True
                self.cast.command(node.provider.owner, RetireNode(node=node.id))
                node.provider.required_nano -= node.required_nano
            case _:
                raise ReplayRefused(f"{action} ends nothing")

    def _end(self, action: EndLeases, now_us: int) -> None:
        if action.node is not None:
            ending = list(self._node(action.node).leases)
        else:
            order = self._order(action.bid or "")
            ending = [lease for lease, node in order.leases.items() if lease in node.leases]
        self.ends_of_no_lease += not ending
        for lease in ending:
            order = self._by_lease[lease]
            gateway = order.leases[lease].provider.gateway
            match action.how:
                case "reclaim":
                    self.cast.command(gateway, ReclaimLease(lease=lease, deadline_us=now_us))
                case "close":
                    self.cast.command(self.cast.buyer(order.buyer), CloseLease(lease=lease))
                case "complete":
                    self.cast.command(gateway, CompleteLease(lease=lease))
                case _:
                    self.cast.command(gateway, FailLease(lease=lease))
