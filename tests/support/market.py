"""A market without a log: given, when, then, and the laws that hold after every item.

``World`` feeds commands of named actors, deadlines and metering events to a real ``Market`` over
states in memory. After each item it checks that every event has its Avro bytes within the bound
and that all money sums to zero; ``check_replay`` folds the recorded events into a fresh market and
compares every aggregate and every fold with the live one. Signatures are the gate's business and
tested there: here a command is opened by its actor's word.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from enum import Enum
from functools import cache
from typing import Any

from adapters.avro_codec import AvroCodec
from domain.account import AdmitAccount, ObserveDeposit, OpenAccount
from domain.commit import COMMANDS_TOPIC, EVENT_BYTES_MAX, Ledger
from domain.eligible_asks import EligibleAsks
from domain.gate import Opened
from domain.genesis import Genesis, GenesisKey, Parameters, Role, TimeSource, broken_bounds
from domain.ids import (
    AccountId,
    Address,
    Hash32,
    NodeId,
    ProviderId,
    PublicKey,
    Wide,
    account_of,
)
from domain.journal import NOBODY, Purse
from domain.key import CommandAnswered
from domain.ledger import LEDGER_ID, GenesisRecorded, LogBound
from domain.market import Market
from domain.market_folds import Folds, ShardPositions
from domain.node import Amount, AttestationRow, AttestNodes, NodeRow, RegisterNodes, leaf
from domain.ports import LogRecord
from domain.processor import DictStates, ForeignCommit, Source
from domain.provider import BondStake, RegisterProvider, provider_of
from domain.refusal import CODES
from domain.rules import NEWEST
from domain.signed import Signed
from domain.telemetry import NodeCameUp, NodeWentDown
from projections.free_capacity import FreeCapacity
from projections.node_health import NodeHealth
from projections.order_book import OrderBook

SYNOR = 1_000_000_000
SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
START = 1_700_000_000 * SECOND
H100 = "gpu.h100"
GENESIS_ACTORS = {
    "clock": Role.CLOCK,
    "watcher": Role.WATCHER,
    "operator": Role.OPERATOR,
    "attestor": Role.ATTESTOR,
    "attestor-2": Role.ATTESTOR,
    "arbiter": Role.ARBITER,
}
_COMMANDS = Source(COMMANDS_TOPIC, 0, None)


@cache
def codec() -> AvroCodec:
    """One codec for all tests: deriving the schemas takes a moment."""
    return AvroCodec()


def key_of(name: str) -> PublicKey:
    """The key of a named actor; not on the curve, since nothing here verifies."""
    return PublicKey(hashlib.sha256(f"key of {name}".encode()).digest())


def payee_of(name: str) -> Address:
    """The EVM address of a named actor."""
    return Address(hashlib.sha256(f"payee of {name}".encode()).digest()[:20])


def genesis_for_tests(
    parameters: Parameters | None = None, *, start_us: int = START, **changes: Any
) -> Genesis:
    """A genesis with the actors of ``GENESIS_ACTORS``; ``changes`` are further fields."""
    chosen = parameters or Parameters()
    assert broken_bounds(chosen) == ()
    made = Genesis(
        network="tests",
        nonce=1,
        start_us=start_us,
        time_source=TimeSource.LOGICAL,
        rules_version=NEWEST,
        market_writer=key_of("market writer"),
        metering_writer=key_of("metering writer"),
        settlement_writer=key_of("settlement writer"),
        keys=tuple(GenesisKey(key=key_of(n), role=r) for n, r in GENESIS_ACTORS.items()),
        chain_id=0,
        vault=Address(bytes(20)),
        parameters=chosen,
    )
    return replace(made, **changes)


def new_market(genesis: Genesis, shards: int, states: DictStates) -> Market:
    """A market before its first event, with the folds that production gives it."""
    folds = Folds(genesis, shards, book=OrderBook(), capacity=FreeCapacity(), health=NodeHealth())
    return Market(
        genesis=genesis,
        genesis_hash=hashlib.sha256(codec().encode(genesis)).digest(),
        shards=shards,
        states=states,
        folds=folds,
        codec=codec(),
        verify=lambda key, message, signature: True,
    )


@dataclass(frozen=True, slots=True)
class Recorded:
    """An event as the ledger would hold it."""

    aggregate: bytes
    version: int
    event: Any
    item: int


class World:
    """A market, its actors and its time."""

    def __init__(
        self,
        parameters: Parameters | None = None,
        *,
        shards: int = 1,
        start_us: int = START,
        genesis: Genesis | None = None,
    ) -> None:
        self.genesis = genesis or genesis_for_tests(parameters, start_us=start_us)
        self.shards = shards
        self.states = DictStates()
        self.market = new_market(self.genesis, shards, self.states)
        self.now = self.genesis.start_us
        self.recorded: list[Recorded] = []
        self._item = 0
        self.answer: CommandAnswered | None = None
        self._numbers: dict[str, int] = {}
        self._heights = [-1] * shards
        self._offset = 0
        self.market.emit(LEDGER_ID, LogBound(at_us=self.now, shards=shards, topics=()))
        self.market.emit(LEDGER_ID, GenesisRecorded(at_us=self.now, genesis=self.genesis))
        self._commit()

    # What is read

    @property
    def parameters(self) -> Parameters:
        """The parameters in force."""
        return self.market.parameters

    def events(self, *kinds: type[Any]) -> list[Any]:
        """All events so far, or those of some kinds."""
        return [r.event for r in self.recorded if not kinds or isinstance(r.event, kinds)]

    def last(self, kind: type[Any]) -> Any:
        """The latest event of a kind; fails where there is none."""
        return self.events(kind)[-1]

    def state(self, aggregate: bytes) -> Any:
        """The committed state of an aggregate, or None."""
        found = self.states.all.get(aggregate)  # type: ignore[call-overload]
        return None if found is None else found.state

    def balance(self, purse: Purse, owner: bytes = NOBODY) -> int:
        """What stands on an account of the ledger."""
        return self.market.folds.balances.of(purse, owner)

    def free(self, name: str) -> int:
        """An actor's spendable money."""
        return self.balance(Purse.FREE, self.account(name))

    @staticmethod
    def account(name: str) -> AccountId:
        """The account that an actor's key opens."""
        return account_of(key_of(name))

    @classmethod
    def provider_id(cls, name: str) -> ProviderId:
        """The provider that an actor's account runs."""
        return provider_of(cls.account(name))

    # Time

    def wait(self, us: int) -> list[Any]:
        """Let time pass; returns the events of the deadlines that fired."""
        return self.at(self.now + us)

    def at(self, us: int) -> list[Any]:
        """Let it be ``us``, never before now; deadlines fire item by item."""
        assert us >= self.now, "time does not go back"
        self.now = us
        return self._items(self.market.advance(us))

    # Commands

    def send(
        self, name: str, command: Any, *, number: int | None = None, session: int | None = None
    ) -> list[Any]:
        """An actor's command at this instant: its events, the answer last.

        Without a number each command gets the actor's next one.
        """
        if number is None:
            number = self._numbers.get(name, 0)
            self._numbers[name] = number + 1
        payload = codec().encode(command)
        assert codec().decode(type(command), payload) == command
        signed = Signed(
            genesis=Hash32(self.market.genesis_hash),
            kind=command.NAME,
            key=key_of(name),
            session=self.genesis.start_us if session is None else session,
            number=number,
            schema=Hash32(codec().fingerprint(type(command))),
            payload=payload,
            signature=bytes(64),
        )
        digest = hashlib.sha256(
            signed.key + f"{signed.session}/{number}/{command.NAME}".encode() + payload
        ).digest()
        self._offset += 1
        record = LogRecord(self._offset, self.now, b"")
        before = self._items(self.market.advance(self.now))
        self.market.hear(Opened(signed, command, digest), _COMMANDS, record)
        return before + self._commit()

    def ok(self, name: str, command: Any) -> list[Any]:
        """Send, and insist that the command and all its rows are accepted; without the answer."""
        events = self.send(name, command)
        answered = events[-1]
        assert isinstance(answered, CommandAnswered), "the gate has answered"
        assert answered.code == 0, f"{CODES[answered.code].name}: {answered.detail}"
        rows = [(r.row, CODES[r.code].name, r.detail) for r in answered.rows]
        assert rows == [], f"refused rows {rows}"
        return events[:-1]

    def refused(self, name: str, command: Any) -> str:
        """Send, and insist that it is refused without any other event; the refusal's name."""
        events = self.send(name, command)
        assert len(events) == 1, f"a refusal has no other event: {events}"
        (answered,) = events
        assert isinstance(answered, CommandAnswered)
        assert answered.code != 0, "the command was accepted"
        return CODES[answered.code].name

    def refused_rows(self, name: str, command: Any) -> dict[int, str]:
        """Send a batch; the refusal's name of each refused row."""
        answered = self.send(name, command)[-1]
        assert isinstance(answered, CommandAnswered)
        assert answered.code == 0, CODES[answered.code].name
        return {r.row: CODES[r.code].name for r in answered.rows}

    # What the metering shards say

    def metering(self, *events: Any, shard: int = 0, time_us: int | None = None) -> list[Any]:
        """One commit of a metering shard with these events, consumed now.

        ``time_us`` is the commit's time, by default now.
        """
        self._heights[shard] += 1
        height = self._heights[shard]
        commit = ForeignCommit(
            ledger=Ledger.METERING,
            shard=shard,
            height=height,
            hash=hashlib.sha256(f"commit {shard}/{height}".encode()).digest(),
            time_us=self.now if time_us is None else time_us,
            tree_root=hashlib.sha256(f"root {shard}/{height}".encode()).digest(),
            tree_size=height + 1,
            events=[(bytes(16), event) for event in events],
        )
        made = self._items(self.market.foreign(commit))
        self.now = max(self.now, self.market.time_us)
        return made

    def shards_pass(self, us: int | None = None) -> list[Any]:
        """Every shard says that it has passed an instant, by default now."""
        made: list[Any] = []
        for shard in range(self.shards):
            made += self.metering(shard=shard, time_us=self.now if us is None else us)
        return made

    def pass_to(self, us: int) -> list[Any]:
        """Let it be ``us`` for the market and for every shard."""
        return self.at(us) + self.shards_pass()

    def node_up(self, node: bytes, *, since_us: int | None = None, shard: int = 0) -> list[Any]:
        """The node gives a sign of life now: its first, or the first since ``since_us``."""
        since = self.now if since_us is None else since_us
        return self.metering(
            NodeCameUp(at_us=self.now, node=NodeId(node), since_us=since), shard=shard
        )

    def node_down(self, node: bytes, *, since_us: int | None = None, shard: int = 0) -> list[Any]:
        """The node's shard notices now that it was silent since then (by default grace ago)."""
        grace = self.parameters.grace_us + 1
        since = self.now - grace if since_us is None else since_us
        return self.metering(
            NodeWentDown(at_us=self.now, node=NodeId(node), since_us=since), shard=shard
        )

    # Given

    def deposit(self, name: str, nano: int) -> None:
        """A deposit of an actor, final on L1."""
        self._offset += 1
        self.ok(
            "watcher",
            ObserveDeposit(
                account=self.account(name),
                amount_nano=Wide(nano),
                block=self._offset,
                block_hash=Hash32(bytes(32)),
                transaction=Hash32(hashlib.sha256(str(self._offset).encode()).digest()),
                log_index=0,
            ),
        )

    def open(self, name: str, nano: int = 0, *, owner: str | None = None) -> AccountId:
        """An actor's account, with money on it; another actor admits it as its own if named."""
        owned = None if owner is None else self.account(owner)
        self.ok(name, OpenAccount(payee=payee_of(name), owner=owned))
        if owner is not None:
            self.ok(owner, AdmitAccount(account=self.account(name)))
        if nano:
            self.deposit(name, nano)
        return self.account(name)

    def provider(
        self, name: str, *, uptime_ppm: int = 999_000, nano: int = 0, stake_nano: int = 0
    ) -> ProviderId:
        """An actor's account as a provider, with free money and (not yet admitting) stake."""
        self.open(name, nano + stake_nano)
        self.ok(name, provider_command(uptime_ppm=uptime_ppm))
        if stake_nano:
            self.bond(name, stake_nano)
        return self.provider_id(name)

    def bond(self, name: str, nano: int) -> None:
        """Bond free money of a provider."""
        self.ok(name, BondStake(amount_nano=Wide(nano)))

    def node(
        self,
        name: str,
        node: str,
        *,
        capacity: Mapping[str, int] | None = None,
        region: str = "eu",
        attested: bool = True,
        up: bool = True,
        beat_us: int = 0,
        grace_us: int = 0,
        shard: int = 0,
    ) -> NodeId:
        """A node of a provider; by default one H100, attested for as long as allowed, and up."""
        row = node_row(node, capacity, region=region, beat_us=beat_us, grace_us=grace_us)
        events = self.ok(name, RegisterNodes(nodes=(row,)))
        made = NodeId(events[0].node)
        if attested:
            self.attest(made)
        if up:
            self.node_up(made, shard=shard)
        return made

    def attest(self, node: bytes, *, expires_us: int | None = None, by: str = "attestor") -> None:
        """An attestor vouches for the whole manifest of a node."""
        facts = self.market.folds.registry.node(NodeId(node))
        assert facts is not None
        expires = self.now + self.parameters.attestation_us if expires_us is None else expires_us
        leaves = tuple(leaf(node, r, a, 1) for r, a in sorted(facts.capacity.items()))
        row = AttestationRow(node=NodeId(node), leaves=leaves, expires_us=expires)
        self.ok(by, AttestNodes(attestations=(row,)))

    def admitted(
        self, name: str, nodes: int = 1, *, uptime_ppm: int = 999_000, nano: int = 0, **node: Any
    ) -> list[NodeId]:
        """An admitted provider whose stake is exactly what its nodes require; its nodes, up."""
        self.provider(name, uptime_ppm=uptime_ppm, nano=nano)
        made = [self.node(name, f"{name}-{number}", **node) for number in range(nodes)]
        required = self.market.folds.stake.required_nano(self.provider_id(name))
        self.deposit(name, required)
        self.bond(name, required)
        return made

    # Laws

    def check_money(self) -> None:
        """All balances, the L1 included, sum to zero; none but the L1 is negative."""
        balances = self.market.folds.balances.all()
        assert sum(balances.values()) == 0
        assert all(n >= 0 for (purse, _), n in balances.items() if purse is not Purse.EXTERNAL)

    def item_of(self, event: Any) -> int:
        """The number of the item that an event is of."""
        return next(each.item for each in self.recorded if each.event is event)

    def check_replay(self) -> None:
        """A fresh market that folds the same events is the same in every state and fold."""
        states = DictStates()
        again = new_market(self.genesis, self.shards, states)
        for recorded in self.recorded:
            again.unit.emit(recorded.aggregate, recorded.event)  # type: ignore[arg-type]
            again.apply(recorded.aggregate, recorded.event, None)  # type: ignore[arg-type]
        states.keep(again.unit.finals())
        assert states.all == self.states.all
        assert picture(again.folds) == picture(self.market.folds)
        assert picture(again.deadlines) == picture(self.market.deadlines)
        assert again.parameters == self.market.parameters

    def _items(self, items: Iterator[Any]) -> list[Any]:
        made: list[Any] = []
        for _ in items:
            made += self._commit()
        return made + self._commit()

    def _commit(self) -> list[Any]:
        unit = self.market.unit
        self._item += 1
        events = [e.event for e in unit.events]
        for emitted in unit.events:
            data = codec().encode(emitted.event)
            assert len(data) <= EVENT_BYTES_MAX, f"{type(emitted.event).__name__} is too large"
            assert codec().decode(type(emitted.event), data) == emitted.event
            self.recorded.append(
                Recorded(emitted.aggregate, emitted.version, emitted.event, self._item)
            )
            if isinstance(emitted.event, CommandAnswered):
                self.answer = emitted.event
        self.states.keep(unit.finals())
        self.market.begin()
        self.check_money()
        return events


def provider_command(
    *,
    uptime_ppm: int = 999_000,
    response_time_ms: int = 100,
    durability_pp12: int = 999_999_999_999,
    penalty_ppm: int = 100_000,
    location: str = "somewhere",
) -> RegisterProvider:
    """A registration with a commitment that is within all bounds."""
    return RegisterProvider(
        location=location,
        network=Hash32(bytes(32)),
        uptime_ppm=uptime_ppm,
        response_time_ms=response_time_ms,
        durability_pp12=durability_pp12,
        penalty_ppm=penalty_ppm,
    )


def node_row(
    node: str,
    capacity: Mapping[str, int] | None = None,
    *,
    region: str = "eu",
    beat_us: int = 0,
    grace_us: int = 0,
    identities: Iterable[str] | None = None,
) -> NodeRow:
    """A row that registers a node under the key of the actor ``node``; by default one H100."""
    has = {H100: 1000} if capacity is None else capacity
    devices = max(1, sum(-(-a // 1000) for r, a in has.items() if r.startswith("gpu.")))
    named = [f"{node}/{i}" for i in range(devices)] if identities is None else list(identities)
    return NodeRow(
        key=key_of(node),
        region=region,
        capacity=tuple(Amount(resource=r, amount=a) for r, a in has.items()),
        identities=tuple(Hash32(hashlib.sha256(i.encode()).digest()) for i in named),
        beat_us=beat_us,
        grace_us=grace_us,
    )


def picture(thing: Any) -> Any:
    """A fold as plain values that compare; the market that a fold is bound to is left out.

    Heaps are compared by content; positions of shards, which come from input runs, and the cache of
    asks that may match, which is tested against what it caches, not at all.
    """
    if thing is None or isinstance(thing, (int, str, bytes, bool, Enum, type)):
        return thing
    if isinstance(thing, (Market, ShardPositions, EligibleAsks)) or callable(thing):
        return None
    if isinstance(thing, Mapping):
        pictured = [(picture(k), picture(v)) for k, v in thing.items()]
        return ("map", sorted(pictured, key=repr))
    if isinstance(thing, (set, frozenset)):
        return ("set", sorted((picture(t) for t in thing), key=repr))
    if is_dataclass(thing) and not isinstance(thing, type):
        return (
            type(thing).__name__,
            [(f.name, picture(getattr(thing, f.name))) for f in fields(thing)],
        )
    if isinstance(thing, Sequence) or hasattr(thing, "__iter__"):
        return [picture(t) for t in thing]
    return (
        type(thing).__name__,
        [(name, _attribute(name, thing)) for name in sorted(_names(thing))],
    )


def _names(thing: Any) -> Iterable[str]:
    slots = (s for cls in type(thing).__mro__ for s in getattr(cls, "__slots__", ()))
    return {*slots, *getattr(thing, "__dict__", {})}


def _attribute(name: str, thing: Any) -> Any:
    value = picture(getattr(thing, name, None))
    if "heap" not in name:
        return value
    # What a lazily cleaned heap still holds depends on who looked at it, not on the events.
    return None
