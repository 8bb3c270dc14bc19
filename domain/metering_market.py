"""What a metering shard takes from the market ledger, each as an event of its own.

A shard takes notice of nodes, keys and leases of its own only; of gateway keys every shard does,
since a gateway's nodes may come later and what is not an event here is forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from domain.commit import Ledger
from domain.genesis import Role
from domain.ids import AggregateId, NodeId, ProviderId, PublicKey, shard_of
from domain.key import KeyRegistered, KeyRevoked, key_aggregate
from domain.lease import LeaseEnded, LeaseOpened, LeaseReady
from domain.ledger import (
    LEDGER_ID,
    ParameterChanged,
    PriceRowAdded,
    RulesActivated,
    WriterAppointed,
    WriterRotated,
)
from domain.node import NodeRegistered, NodeRetired
from domain.provider import provider_of
from domain.telemetry import (
    KeyAssigned,
    KeyWithdrawn,
    LeaseActivated,
    LeaseAssigned,
    LeaseStopped,
    NodeAssigned,
    NodeWithdrawn,
)

if TYPE_CHECKING:
    from domain.metering import Metering


def _node(metering: Metering, event: NodeRegistered) -> None:
    if shard_of(event.node, metering.shards) != metering.shard:
        return
    assigned = NodeAssigned(
        at_us=metering.time_us,
        node=event.node,
        provider=event.provider,
        key=event.key,
        beat_us=event.beat_us,
        grace_us=event.grace_us,
    )
    metering.emit(AggregateId(event.node), assigned)
    if event.key not in metering.keys:
        _assign(metering, event.key, event.node, event.provider)


def _retired(metering: Metering, event: NodeRetired) -> None:
    if event.node in metering.nodes:
        withdrawn = NodeWithdrawn(at_us=metering.time_us, node=event.node)
        metering.emit(AggregateId(event.node), withdrawn)


def _key(metering: Metering, event: KeyRegistered) -> None:
    of_shard = event.node is not None and shard_of(event.node, metering.shards) == metering.shard
    may_sign = event.role is Role.GATEWAY or (event.role is Role.NODE and of_shard)
    if may_sign and event.key not in metering.keys:
        node = event.node if event.role is Role.NODE else None
        _assign(metering, event.key, node, provider_of(event.account))


def _assign(metering: Metering, key: PublicKey, node: NodeId | None, provider: ProviderId) -> None:
    assigned = KeyAssigned(at_us=metering.time_us, key=key, node=node, provider=provider)
    metering.emit(key_aggregate(key), assigned)


def _revoked(metering: Metering, event: KeyRevoked) -> None:
    if event.key in metering.keys:
        withdrawn = KeyWithdrawn(at_us=metering.time_us, key=event.key)
        metering.emit(key_aggregate(event.key), withdrawn)


def _opened(metering: Metering, event: LeaseOpened) -> None:
    if event.node in metering.nodes:
        assigned = LeaseAssigned(
            at_us=metering.time_us,
            lease=event.lease,
            node=event.node,
            allocations=event.allocations,
            metered=event.metered,
        )
        metering.emit(AggregateId(event.lease), assigned)


def _ready(metering: Metering, event: LeaseReady) -> None:
    if event.lease in metering.leases:
        activated = LeaseActivated(at_us=metering.time_us, lease=event.lease, ready_us=event.at_us)
        metering.emit(AggregateId(event.lease), activated)


def _ended(metering: Metering, event: LeaseEnded) -> None:
    if event.lease in metering.leases:
        stopped = LeaseStopped(
            at_us=metering.time_us,
            lease=event.lease,
            end_us=event.at_us,
            closing_us=event.closing_us,
        )
        metering.emit(AggregateId(event.lease), stopped)


def _setting(metering: Metering, event: ParameterChanged | RulesActivated | PriceRowAdded) -> None:
    metering.emit(LEDGER_ID, replace(event, at_us=metering.time_us))


def _writer(metering: Metering, event: WriterAppointed) -> None:
    if event.ledger == Ledger.METERING:
        metering.emit(LEDGER_ID, WriterRotated(at_us=metering.time_us, writer=event.writer))


#: By kind of market event; a reader need not decode others.
LEARN: Final[Mapping[type[Any], Callable[[Metering, Any], None]]] = {
    NodeRegistered: _node,
    NodeRetired: _retired,
    KeyRegistered: _key,
    KeyRevoked: _revoked,
    LeaseOpened: _opened,
    LeaseReady: _ready,
    LeaseEnded: _ended,
    ParameterChanged: _setting,
    RulesActivated: _setting,
    PriceRowAdded: _setting,
    WriterAppointed: _writer,
}
