"""Nodes: what they have, what of it is leased, who vouches for it, and how they are."""

from __future__ import annotations

from typing import Final

from domain.commit import Ledger
from domain.lease import LeaseEnded, LeaseOpened
from domain.node import NodeAttested, NodeHealthChanged, NodeRegistered, NodeRetired
from projections.fold_rows import At, Projection, Row, Rows, copied
from projections.tables import ATTESTATION, LEASE, NODE, NODE_CAPACITY

UNKNOWN: Final = "UNKNOWN"
UP: Final = "UP"
DOWN: Final = "DOWN"


def _node(rows: Rows, at: At, event: NodeRegistered) -> None:
    row: Row = {"registered_us": event.at_us, "health": UNKNOWN, "position": at.position}
    rows.put(NODE, copied(event, NODE, **row))
    for has in event.capacity:
        row = {
            "node": event.node,
            "resource": has.resource,
            "amount": has.amount,
            "leased": 0,
        }
        rows.put(NODE_CAPACITY, row)


def _attested(rows: Rows, at: At, event: NodeAttested) -> None:
    rows.add(ATTESTATION, copied(event, ATTESTATION, position=at.position))


def _health(rows: Rows, at: At, event: NodeHealthChanged) -> None:
    rows.change(
        NODE,
        event.node,
        health=UP if event.up else DOWN,
        down_since_us=event.down_since_us,
        up_us=event.up_us,
        health_us=event.at_us,
    )


def _retired(rows: Rows, at: At, event: NodeRetired) -> None:
    rows.change(NODE, event.node, retired_us=event.at_us)


def _leased(rows: Rows, at: At, event: LeaseOpened) -> None:
    for taken in event.allocations:
        _lease(rows, event.node, taken.resource, taken.amount)


def _returned(rows: Rows, at: At, event: LeaseEnded) -> None:
    for taken in rows.known(LEASE, event.lease)["allocations"]:
        _lease(rows, event.node, taken["resource"], -taken["amount"])


def _lease(rows: Rows, node: bytes, resource: str, amount: int) -> None:
    """More or less of a node's resource is leased; what its manifest lacks is not counted."""
    has = rows.get(NODE_CAPACITY, node, resource)
    if has is not None:
        rows.change(NODE_CAPACITY, node, resource, leased=has["leased"] + amount)


NODES: Final = Projection(
    name="nodes",
    ledger=Ledger.MARKET,
    tables=(NODE, NODE_CAPACITY, ATTESTATION),
    handlers={
        NodeRegistered: _node,
        NodeAttested: _attested,
        NodeHealthChanged: _health,
        NodeRetired: _retired,
        LeaseOpened: _leased,
        LeaseEnded: _returned,
    },
)
