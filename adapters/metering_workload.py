"""A fleet under load: keys, nodes, leases and signed batches, the same on every run.

For the metering benchmark and for tests. Each gateway signs for the nodes of a provider of its own;
its batch holds one reading of every metered resource of every lease on those nodes, as a gateway
sends it once a beat, so totals and times rise from batch to batch and no row is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from domain.bid import MeteredLimit
from domain.catalogue import VERSION_1, How
from domain.commit import Ledger
from domain.genesis import Role
from domain.ids import (
    BidId,
    LeaseId,
    NodeId,
    OfferId,
    PublicKey,
    RoundId,
    Wide,
    account_of,
    derive,
    shard_of,
)
from domain.key import KeyRegistered
from domain.lease import LeaseOpened, LeaseReady
from domain.node import Amount, NodeRegistered
from domain.processor import ForeignCommit
from domain.provider import provider_of
from domain.telemetry import Batch, BatchBytes

METERED: Final = ("inference.tokens", "network.ingress", "network.egress", "function.invocations")
LEASES_PER_NODE: Final = 5
BEAT_US: Final = 10_000_000
PER_SECOND: Final = 1_000_000_000
_RISE: Final = 1_000_003
_DAY_US: Final = 86_400_000_000
_ROWS: Final = {row.resource: i for i, row in enumerate(VERSION_1)}


class Encoding(Enum):
    """The two encodings of the columns."""

    LONG = "long"
    BYTES = "bytes"


@dataclass(frozen=True, slots=True)
class Gateway:
    """One signer with its nodes and leases."""

    number: int
    key: PublicKey
    nodes: tuple[NodeId, ...]
    leases: tuple[tuple[LeaseId, NodeId], ...]


#: Signs a payload as gateway number so-and-so: (gateway, payload, session, number) → wire bytes.
Sign = Callable[[int, Any, int, int], bytes]


def resource_rows() -> tuple[int, ...]:
    """Row numbers of the metered resources that leases of the fleet have."""
    assert all(VERSION_1[_ROWS[name]].how is How.METERED for name in METERED)
    return tuple(_ROWS[name] for name in METERED)


class Fleet:
    """Gateways of one shard and what the market said of them."""

    def __init__(
        self,
        *,
        key_of: Callable[[int], PublicKey],
        start_us: int,
        shard: int = 0,
        shards: int = 1,
        gateways: int = 16,
        rows: int = 1000,
    ) -> None:
        """``rows`` readings a batch; ``key_of`` gives each gateway's public key."""
        self.start_us = start_us
        self.rows = rows
        leases = -(-rows // len(METERED))
        self.gateways = tuple(
            self._gateway(number, key_of(number), leases, shard, shards)
            for number in range(gateways)
        )

    @staticmethod
    def _gateway(number: int, key: PublicKey, leases: int, shard: int, shards: int) -> Gateway:
        nodes: list[NodeId] = []
        tried = 0
        while len(nodes) < -(-leases // LEASES_PER_NODE):
            node = NodeId(derive("bench-node", number, tried))
            tried += 1
            if shard_of(node, shards) == shard:
                nodes.append(node)
        placed = tuple(
            (LeaseId(derive("bench-lease", number, i)), nodes[i // LEASES_PER_NODE])
            for i in range(leases)
        )
        return Gateway(number, key, tuple(nodes), placed)

    def market(self) -> ForeignCommit:
        """The market's commit that made the fleet: nodes, gateway keys, leases that are ready."""
        events: list[tuple[bytes, Any]] = []
        for gateway in self.gateways:
            account = account_of(gateway.key)
            registered = KeyRegistered(
                at_us=self.start_us, key=gateway.key, role=Role.GATEWAY, account=account
            )
            events.append((gateway.key[:16], registered))
            events += [(node, self._node(node, gateway)) for node in gateway.nodes]
            for lease, node in gateway.leases:
                events.append((lease, self._opened(lease, node, gateway)))
                ready = LeaseReady(
                    at_us=self.start_us,
                    lease=lease,
                    node=node,
                    expires_us=self.start_us + 90 * _DAY_US,
                )
                events.append((lease, ready))
        return ForeignCommit(
            ledger=Ledger.MARKET,
            shard=0,
            height=1,
            hash=bytes(32),
            time_us=self.start_us,
            tree_root=bytes(32),
            tree_size=len(events),
            events=events,
        )

    def _node(self, node: NodeId, gateway: Gateway) -> NodeRegistered:
        account = account_of(gateway.key)
        return NodeRegistered(
            at_us=self.start_us,
            node=node,
            provider=provider_of(account),
            account=account,
            key=PublicKey(derive("bench-key", node) * 2),
            region="bench",
            capacity=(Amount(resource="gpu.h100", amount=8000),),
            identities=(),
            manifest_version=1,
            beat_us=BEAT_US,
            grace_us=3 * BEAT_US,
            required_nano=Wide(0),
        )

    def _opened(self, lease: LeaseId, node: NodeId, gateway: Gateway) -> LeaseOpened:
        account = account_of(gateway.key)
        return LeaseOpened(
            at_us=self.start_us,
            lease=lease,
            bid=BidId(derive("bench-bid", lease)),
            offer=OfferId(derive("bench-offer", lease)),
            instrument=RoundId(bytes(16)),
            round=1,
            buyer=account,
            provider=provider_of(account),
            account=account,
            node=node,
            resource="gpu.h100",
            price_nano=1,
            term_us=90 * _DAY_US,
            ready_by_us=self.start_us,
            allocations=(Amount(resource="gpu.h100", amount=1000),),
            metered=tuple(MeteredLimit(resource=name, per_second=PER_SECOND) for name in METERED),
            interruptible=False,
            notice_us=0,
            reserved=True,
            escrow_allocated_nano=0,
            escrow_usage_nano=0,
            postings=(),
        )

    def batch(self, gateway: Gateway, beat: int, encoding: Encoding) -> Batch | BatchBytes:
        """The gateway's batch at its beat of this number."""
        rows, width = self.rows, len(METERED)
        resources = resource_rows()
        now_us = self.start_us + beat * BEAT_US
        lease = [row // width for row in range(rows)]
        resource = [resources[row % width] for row in range(rows)]
        time_us = [now_us - row for row in range(rows)]
        total = [(beat + 1) * _RISE + row for row in range(rows)]
        leases = tuple(id for id, _ in gateway.leases)
        if encoding is Encoding.LONG:
            return Batch(
                nodes=gateway.nodes,
                leases=leases,
                lease=tuple(lease),
                resource=tuple(resource),
                generation=(0,) * rows,
                time_us=tuple(time_us),
                total=tuple(total),
            )
        return BatchBytes(
            nodes=gateway.nodes,
            leases=leases,
            lease=_little(lease, 2),
            resource=_little(resource, 2),
            generation=bytes(rows),
            time_us=_little(time_us, 8),
            total=_little(total, 8),
        )

    def highest(self, batches: int) -> int:
        """The sum of the highest totals of all counters after so many batches."""
        beats = [-(-(batches - turn) // len(self.gateways)) for turn in range(len(self.gateways))]
        within = sum(range(self.rows))
        return sum(beat * _RISE * self.rows + within for beat in beats if beat)

    def values(
        self, sign: Sign, batches: int, encoding: Encoding = Encoding.LONG
    ) -> Iterator[tuple[int, bytes]]:
        """(Time, record) of so many batches, gateway after gateway, beat after beat."""
        count = len(self.gateways)
        for number in range(batches):
            beat, turn = divmod(number, count)
            gateway = self.gateways[turn]
            payload = self.batch(gateway, beat, encoding)
            at_us = self.start_us + beat * BEAT_US + turn
            yield at_us, sign(gateway.number, payload, self.start_us, beat)


def _little(column: list[int], width: int) -> bytes:
    return b"".join(number.to_bytes(width, "little", signed=width == 8) for number in column)
