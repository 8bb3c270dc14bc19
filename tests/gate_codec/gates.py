"""A market and a metering shard with real signatures, and inputs with as many faults as wanted.

``CommandGate`` and ``TelemetryGate`` feed one record after another to a real processor and keep its
commits, from which another worker, or the same one after a restart, folds the state. ``Recipe`` is
a right input that faults change; ``made`` applies them from the last stage of judging to the first,
so that an earlier fault is never hidden by a later one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Protocol

from adapters.bootstrap import Network
from adapters.ed25519 import Signer, prove
from adapters.embedded import SystemKeys, genesis_of
from domain.account import OpenAccount, SetPayee
from domain.commit import BulkPart, CommitBody, Ledger, RecordedEvent
from domain.genesis import Parameters, Role, TimeSource
from domain.ids import Address, Hash32, account_of
from domain.key import KeyRegistered, KeyRevoked, RegisterKey, RevokeKey
from domain.ledger import LEDGER_ID, GenesisRecorded, LogBound
from domain.ports import LogRecord
from domain.processor import DictStates, Processor
from domain.provider import provider_of
from domain.signed import Signed, preimage
from tests.support.metering import (
    batch,
    lease_of,
    lease_opened,
    lease_ready,
    market,
    node_of,
    node_registered,
)

START = 1_767_225_600_000_000
HOUR = 3_600_000_000
NOW = START + 10 * HOUR
#: The sessions of the key in force: the first is forgotten, the other two are kept.
FORGOTTEN, EARLIER, LATEST = (START + hours * HOUR for hours in (1, 2, 3))
#: The highest number of the latest session.
HIGHEST = 100_000
FRESH = HIGHEST + 1

KEYS = SystemKeys.derived(b"the gate")
SIGNER, REVOKED, STRANGER = (Signer(bytes([n]) * 32) for n in (11, 12, 13))
SHARDS = 4
#: Of shard 0: a node of the account, one of another provider, one that nobody registered.
NODE, FOREIGN, NOBODYS = (node_of(number, 0, SHARDS) for number in range(3))
ELSEWHERE = node_of(3, 1, SHARDS)
LEASE = lease_of(1)


@cache
def network() -> Network:
    """In broker time, so that a record's own time is its append time."""
    genesis = genesis_of(
        KEYS,
        name="gate",
        start_us=START,
        time_source=TimeSource.BROKER,
        parameters=Parameters(),
        nonce=4,
    )
    return Network.of(genesis, SHARDS)


def codec() -> Any:
    """The network's codec."""
    return network().codec


@dataclass(kw_only=True)
class Recipe:
    """An input: what is signed, and what becomes of its bytes. ``None`` is what is right."""

    payload: Any
    kind: str | None = None
    schema: bytes | None = None
    raw: bytes | None = None
    signer: Signer = SIGNER
    session: int = LATEST
    number: int = FRESH
    genesis: bytes = field(default_factory=lambda: network().hash)
    signature: Callable[[bytes], bytes] = bytes
    edits: list[Callable[[bytes], bytes]] = field(default_factory=list)

    def bytes(self) -> bytes:
        """The record's value."""
        kind = self.payload.NAME if self.kind is None else self.kind
        schema = codec().fingerprint(type(self.payload)) if self.schema is None else self.schema
        payload = codec().encode(self.payload) if self.raw is None else self.raw
        message = preimage(
            self.genesis, kind, self.signer.public, self.session, self.number, schema, payload
        )
        value: bytes = codec().encode(
            Signed(
                genesis=Hash32(self.genesis),
                kind=kind,
                key=self.signer.public,
                session=self.session,
                number=self.number,
                schema=Hash32(schema),
                payload=payload,
                signature=self.signature(self.signer.sign(message)),
            )
        )
        for edit in self.edits:
            value = edit(value)
        return value


Fault = Callable[[Recipe], None]


def made(right: Recipe, faults: Iterable[Fault]) -> bytes:
    """The input with these faults, which stand in the order in which they are judged."""
    for fault in reversed(list(faults)):
        fault(right)
    return right.bytes()


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of one step: its events, and how often each code was counted."""

    events: tuple[Any, ...]
    counted: dict[int, int]

    @property
    def answers(self) -> tuple[int, ...]:
        """The codes that were answered with an event."""
        return tuple(event.code for event in self.events if hasattr(event, "code"))


class Gate(Protocol):
    """A processor behind its gate."""

    def take(self, *values: bytes, time_us: int = NOW) -> Taken:
        """Feed records as one step."""
        ...

    def right(self, **fields: Any) -> Recipe:
        """An input that is accepted."""
        ...


class _Worked:
    """A processor with its ledger in memory."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.commits: list[tuple[CommitBody, tuple[BulkPart, ...]]] = []
        self._offset = 0
        self._start()
        if ledger is Ledger.MARKET:
            self.processor.emit(LEDGER_ID, LogBound(at_us=START, shards=SHARDS, topics=()))
        self.processor.emit(LEDGER_ID, GenesisRecorded(at_us=START, genesis=network().genesis))
        self._commit()

    def _start(self) -> None:
        self.states = DictStates()
        self.processor: Processor = network().processor(self.ledger, 0, self.states)
        self.source = next(s for s in self.processor.sources() if s.ledger is None)

    def restart(self) -> None:
        """Fold the commits anew, as the next worker does."""
        self._start()
        for body, bulk in self.commits:
            self.processor.adopt(body, bulk, self.states.keep)

    def take(self, *values: bytes, time_us: int = NOW) -> Taken:
        """Feed records as one step."""
        records = [LogRecord(self._offset + i, time_us, v) for i, v in enumerate(values)]
        self._offset += len(records)
        for _ in self.processor.external_many(self.source, records):
            pass
        return self._commit()

    def _commit(self) -> Taken:
        unit = self.processor.unit
        body = CommitBody(
            time_us=self.processor.time_us,
            runs=(),
            rules_version=self.processor.rules_version,
            refused=unit.refused(),
            events=tuple(
                RecordedEvent(
                    e.aggregate, e.version, codec().number(type(e.event)), codec().encode(e.event)
                ).pack()
                for e in unit.events
            ),
            tree_root=Hash32(bytes(32)),
            tree_size=0,
        )
        self.commits.append((body, tuple(unit.bulk)))
        self.states.keep(unit.finals())
        self.processor.begin()
        return Taken(
            tuple(emitted.event for emitted in unit.events),
            {counted.code: counted.count for counted in unit.refused()},
        )


class CommandGate(_Worked):
    """The market, an account of ``SIGNER`` with a revoked second key, and used numbers."""

    def __init__(self) -> None:
        """Everything comes through the gate itself."""
        super().__init__(Ledger.MARKET)
        opening = OpenAccount(payee=Address(bytes(20)))
        account = account_of(SIGNER.public)
        second = RegisterKey(
            key=REVOKED.public,
            role=Role.OWNER,
            proof=prove(REVOKED, network().hash, account, Role.OWNER),
        )
        for session, number, payload in (
            (FORGOTTEN, 0, opening),
            (FORGOTTEN, 1, second),
            (FORGOTTEN, 2, RevokeKey(key=REVOKED.public)),
            (EARLIER, 0, SetPayee(payee=Address(b"e" * 20))),
            (LATEST, HIGHEST, SetPayee(payee=Address(b"l" * 20))),
        ):
            taken = self.take(Recipe(payload=payload, session=session, number=number).bytes())
            assert taken.answers == (0,), taken

    def right(self, **fields: Any) -> Recipe:
        """An owner redirects payouts."""
        return Recipe(**{"payload": SetPayee(payee=Address(b"r" * 20))} | fields)


class TelemetryGate(_Worked):
    """A shard with one node, a gateway key in force, one revoked, and used numbers."""

    def __init__(self) -> None:
        """The keys come from the market's ledger."""
        super().__init__(Ledger.METERING)
        account = account_of(SIGNER.public)
        gateways = [
            KeyRegistered(at_us=START, key=each.public, role=Role.GATEWAY, account=account)
            for each in (SIGNER, REVOKED)
        ]
        node = node_registered(NODE, grace_us=30_000_000, at_us=START)
        own = replace(node, account=account, provider=provider_of(account))
        learned = (
            own,
            node_registered(FOREIGN, grace_us=30_000_000, at_us=START),
            *gateways,
            KeyRevoked(at_us=START, key=REVOKED.public),
            lease_opened(LEASE, NODE, at_us=START),
            lease_ready(LEASE, NODE, START),
        )
        self.learn(START, *learned)
        for session, number in ((FORGOTTEN, 0), (EARLIER, 0), (LATEST, HIGHEST)):
            twice = batch([NODE, NODE])
            taken = self.take(self.right(payload=twice, session=session, number=number).bytes())
            assert taken.counted == {}, taken

    def learn(self, time_us: int, *events: Any) -> Taken:
        """Consume a commit of the market's ledger."""
        for _ in self.processor.foreign(market(time_us, *events)):
            pass
        return self._commit()

    def right(self, **fields: Any) -> Recipe:
        """A sign of life."""
        return Recipe(**{"payload": batch([NODE])} | fields)
