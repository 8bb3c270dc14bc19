"""A metering shard without a log: inputs in, events out, cut into commits wherever a test likes.

``Shard`` feeds real signed records and market commits to a real ``Metering`` as a worker does: a
step that is cut is left where it is, and what is not done is fed again. It may also be dropped and
recovered from its recorded commits at any cut. Signatures are a keyed hash, since Ed25519 is the
gate's business and slow.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from adapters.avro_codec import AvroCodec
from domain.batch_columns import Columns
from domain.bid import MeteredLimit
from domain.catalogue import VERSION_1
from domain.commit import BulkPart, CommitBody, Ledger, RecordedEvent
from domain.genesis import Genesis, Parameters, Role, TimeSource
from domain.ids import (
    AccountId,
    Address,
    BidId,
    Hash32,
    LeaseId,
    NodeId,
    OfferId,
    PublicKey,
    RoundId,
    Wide,
    derive,
    shard_of,
)
from domain.key import KeyRegistered
from domain.lease import EndReason, LeaseEnded, LeaseOpened, LeaseReady
from domain.ledger import LEDGER_ID, GenesisRecorded
from domain.metering import Metering
from domain.node import Amount, NodeRegistered
from domain.ports import LogRecord
from domain.processor import DictStates, ForeignCommit
from domain.provider import provider_of
from domain.readings import Readings
from domain.rules import NEWEST
from domain.signed import Signed, preimage
from domain.telemetry import Batch, BatchBytes

GENESIS_HASH = Hash32(hashlib.sha256(b"metering tests").digest())
ROW = {row.resource: i for i, row in enumerate(VERSION_1)}
TOKENS, EGRESS = ROW["inference.tokens"], ROW["network.egress"]
ACCOUNT = AccountId(derive("account", b"provider"))
GATEWAY = "gateway"


@cache
def codec() -> AvroCodec:
    """One codec for all tests."""
    return AvroCodec()


def key_of(name: str) -> PublicKey:
    """The key of a named signer."""
    return PublicKey(hashlib.sha256(f"key of {name}".encode()).digest())


def node_of(number: int, shard: int = 0, shards: int = 1) -> NodeId:
    """The node of this number within a shard."""
    tried = 0
    while True:
        node = NodeId(derive("node", number, tried))
        if shard_of(node, shards) == shard:
            return node
        tried += 1


def lease_of(number: int) -> LeaseId:
    """The lease of this number."""
    return LeaseId(derive("lease", number))


def _signature(key: bytes, message: bytes) -> bytes:
    return hashlib.sha512(key + message).digest()


def verify(key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether the keyed hash is right."""
    return signature == _signature(key, message)


def signed(
    signer: str, payload: Any, number: int, *, session: int = 0, genesis: Hash32 = GENESIS_HASH
) -> bytes:
    """The bytes of a payload, signed."""
    kind = type(payload)
    key, schema, data = key_of(signer), Hash32(codec().fingerprint(kind)), codec().encode(payload)
    message = preimage(genesis, kind.NAME, key, session, number, schema, data)
    return codec().encode(
        Signed(
            genesis=genesis,
            kind=kind.NAME,
            key=key,
            session=session,
            number=number,
            schema=schema,
            payload=data,
            signature=_signature(key, message),
        )
    )


Row = tuple[LeaseId, int, int, int, int]  # lease, resource, generation, time_us, total


def batch(nodes: Sequence[NodeId], rows: Sequence[Row] = ()) -> Batch:
    """A batch with arrays of long."""
    leases = tuple(dict.fromkeys(row[0] for row in rows))
    return Batch(
        nodes=tuple(nodes),
        leases=leases,
        lease=tuple(leases.index(row[0]) for row in rows),
        resource=tuple(row[1] for row in rows),
        generation=tuple(row[2] for row in rows),
        time_us=tuple(row[3] for row in rows),
        total=tuple(row[4] for row in rows),
    )


def as_bytes(plain: Batch) -> BatchBytes:
    """The same batch with little-endian columns."""

    def column(numbers: Sequence[int], width: int) -> bytes:
        return b"".join(n.to_bytes(width, "little", signed=width == 8) for n in numbers)

    return BatchBytes(
        nodes=plain.nodes,
        leases=plain.leases,
        lease=column(plain.lease, 2),
        resource=column(plain.resource, 2),
        generation=column(plain.generation, 1),
        time_us=column(plain.time_us, 8),
        total=column(plain.total, 8),
    )


def market(time_us: int, *events: Any) -> ForeignCommit:
    """A market commit."""
    return ForeignCommit(
        ledger=Ledger.MARKET,
        shard=0,
        height=1,
        hash=bytes(32),
        time_us=time_us,
        tree_root=bytes(32),
        tree_size=0,
        events=[(bytes(16), event) for event in events],
    )


def node_registered(node: NodeId, *, grace_us: int = 30, at_us: int = 0) -> NodeRegistered:
    """A node of the one provider; its own key is named after it."""
    return NodeRegistered(
        at_us=at_us,
        node=node,
        provider=provider_of(ACCOUNT),
        account=ACCOUNT,
        key=key_of(node.hex()),
        region="r",
        capacity=(),
        identities=(),
        manifest_version=1,
        beat_us=grace_us,
        grace_us=grace_us,
        required_nano=Wide(0),
    )


def gateway_registered(name: str = GATEWAY) -> KeyRegistered:
    """A gateway key of the one provider."""
    return KeyRegistered(at_us=0, key=key_of(name), role=Role.GATEWAY, account=ACCOUNT)


def lease_opened(
    lease: LeaseId,
    node: NodeId,
    *,
    at_us: int = 0,
    devices: int = 1000,
    limits: dict[str, int] | None = None,
) -> LeaseOpened:
    """A lease of ``devices`` milli-H100 with metered tokens and egress."""
    limits = {"inference.tokens": 10**15, "network.egress": 10**15} if limits is None else limits
    return LeaseOpened(
        at_us=at_us,
        lease=lease,
        bid=BidId(bytes(16)),
        offer=OfferId(bytes(16)),
        instrument=RoundId(bytes(16)),
        round=1,
        buyer=ACCOUNT,
        provider=provider_of(ACCOUNT),
        account=ACCOUNT,
        node=node,
        resource="gpu.h100",
        price_nano=1,
        term_us=10**12,
        ready_by_us=10**12,
        allocations=(Amount(resource="gpu.h100", amount=devices),) if devices else (),
        metered=tuple(MeteredLimit(resource=r, per_second=n) for r, n in limits.items()),
        interruptible=False,
        notice_us=0,
        reserved=True,
        escrow_allocated_nano=0,
        escrow_usage_nano=0,
        postings=(),
    )


def lease_ready(lease: LeaseId, node: NodeId, at_us: int) -> LeaseReady:
    """The lease is active from ``at_us`` on."""
    return LeaseReady(at_us=at_us, lease=lease, node=node, expires_us=at_us + 10**12)


def lease_ended(lease: LeaseId, node: NodeId, at_us: int, closing_us: int) -> LeaseEnded:
    """The lease ends at ``at_us`` and takes readings before ``closing_us``."""
    return LeaseEnded(
        at_us=at_us,
        lease=lease,
        node=node,
        reason=EndReason.COMPLETED,
        was_active=True,
        closing_us=closing_us,
        early_nano=0,
        postings=(),
    )


def genesis(parameters: Parameters, start_us: int = 0) -> Genesis:
    """A genesis in broker time."""
    zero = PublicKey(bytes(32))
    return Genesis(
        network="metering",
        nonce=1,
        start_us=start_us,
        time_source=TimeSource.BROKER,
        rules_version=NEWEST,
        market_writer=zero,
        metering_writer=zero,
        settlement_writer=zero,
        keys=(),
        chain_id=0,
        vault=Address(bytes(20)),
        parameters=parameters,
    )


def never() -> bool:
    """Cut nowhere."""
    return False


@dataclass
class Shard:
    """One shard, its commits so far, and its offset in the telemetry partition."""

    parameters: Parameters
    shard: int = 0
    shards: int = 1
    cut: Callable[[], bool] = never
    recover_at_cuts: bool = False
    one_by_one: bool = False
    readings: Callable[[], Readings[Columns]] | None = None
    commits: list[tuple[CommitBody, tuple[BulkPart, ...]]] = field(default_factory=list)
    events: list[Any] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)
    metering: Metering = field(init=False)
    _last_whole: ForeignCommit | None = None
    _offset: int = 0
    _number: int = 0

    def __post_init__(self) -> None:
        """Make the processor and its ledger's first commit."""
        self._make()
        recorded = GenesisRecorded(at_us=0, genesis=self.metering.genesis)
        self.metering.emit(LEDGER_ID, recorded)
        self._commit()
        self.events.clear()

    def _make(self) -> None:
        self.states = DictStates()
        self.metering = Metering(
            genesis=genesis(self.parameters),
            genesis_hash=GENESIS_HASH,
            shard=self.shard,
            shards=self.shards,
            states=self.states,
            codec=codec(),
            verify=verify,
            readings=None if self.readings is None else self.readings(),
        )

    # Feeding, as a worker does

    def learn(self, commit: ForeignCommit) -> list[Any]:
        """Feed a market commit; returns the events that it made."""
        before = len(self.events)
        items = 0
        while True:
            done = items
            for done in self.metering.foreign(commit, items):  # noqa: B007
                if self.metering.step_ends or self.cut():
                    break
            else:
                break
            self._commit()
            items = done
        self._last_whole = commit
        self._commit()
        return self.events[before:]

    def take(self, *values: tuple[int, bytes]) -> list[Any]:
        """Feed records as (append time, bytes); returns the events that they made."""
        before = len(self.events)
        records = [
            LogRecord(self._offset + i, time_us, value) for i, (time_us, value) in enumerate(values)
        ]
        self._offset += len(records)
        fed = 0
        while fed < len(records):
            done = 0
            for done, _ in self._feed(records[fed:]):  # noqa: B007
                if self.metering.step_ends or self.cut():
                    break
            fed += done
            self._commit()
        return self.events[before:]

    def _feed(self, records: Sequence[LogRecord]) -> Iterator[tuple[int, int]]:
        source = self.metering.sources()[1]
        if self.one_by_one:
            # The base class's way, which judges each record by the gate itself.
            return super(Metering, self.metering).external_many(source, records)
        return self.metering.external_many(source, records)

    def _commit(self) -> None:
        unit = self.metering.unit
        if not unit.events and not unit.refused():
            return
        packed = tuple(
            RecordedEvent(
                e.aggregate, e.version, codec().number(type(e.event)), codec().encode(e.event)
            ).pack()
            for e in unit.events
        )
        body = CommitBody(
            time_us=self.metering.time_us,
            runs=(),
            rules_version=self.metering.rules_version,
            refused=unit.refused(),
            events=packed,
            tree_root=Hash32(bytes(32)),
            tree_size=0,
        )
        self.commits.append((body, tuple(unit.bulk)))
        self.events += [emitted.event for emitted in unit.events]
        for counted in unit.refused():
            self.refused += [counted.code] * counted.count
        self.states.keep(unit.finals())
        self.metering.begin()
        if self.recover_at_cuts:
            self.recover()

    def recover(self) -> None:
        """Drop everything in memory and fold the ledger again."""
        self._make()
        for body, bulk in self.commits:
            self.metering.adopt(body, bulk, self.states.keep)
        if self._last_whole is not None:
            self.metering.resume(self._last_whole)

    # Shorthands

    def send(self, time_us: int, payload: Any, *, signer: str = GATEWAY) -> list[Any]:
        """Sign a payload under the next number and feed it."""
        self._number += 1
        return self.take((time_us, signed(signer, payload, self._number)))
