"""Nodes: devices, manifest, attestation, health as the market knows it (R5.1, R6)."""

from __future__ import annotations

import hashlib
from typing import Annotated

from domain.ids import (
    AccountId,
    Hash32,
    NodeId,
    ProviderId,
    PublicKey,
    Wide,
    length_prefixed,
)
from domain.record import record


@record("synor.market.v1.Amount")
class Amount:
    """So much of a resource, in the thousandths or MB of its catalogue row."""

    resource: Annotated[str, "catalogue resource"]
    amount: Annotated[int, "milli-devices, milli-cores, MB, or thousandths of a piece"]


def leaf(node: bytes, resource: str, amount: int, version: int) -> Hash32:
    """The attestable leaf of one manifest field (R6.4)."""
    return Hash32(
        hashlib.sha256(
            length_prefixed(
                b"synor-leaf-v1",
                node,
                resource.encode(),
                amount.to_bytes(8, "big"),
                version.to_bytes(8, "big"),
            )
        ).digest()
    )


@record("synor.node.v1.NodeRegistered")
class NodeRegistered:
    """A node of a provider: what it has, how it beats, what stake it requires."""

    at_us: Annotated[int, "effective time, µs UTC"]
    node: Annotated[NodeId, "the node; aggregate id"]
    provider: Annotated[ProviderId, "its provider"]
    account: Annotated[AccountId, "the provider's account"]
    key: Annotated[PublicKey, "the node's own key"]
    region: Annotated[str, "region of its instruments"]
    capacity: Annotated[tuple[Amount, ...], "what it has, by resource; the attestable manifest"]
    identities: Annotated[tuple[Hash32, ...], "one per physical device: hash of its identity"]
    manifest_version: Annotated[int, "version of the manifest, from 1"]
    beat_us: Annotated[int, "interval of its beats"]
    grace_us: Annotated[int, "silence after which it is down"]
    required_nano: Annotated[Wide, "r(node): required stake (R6.2)"]


@record("synor.node.v1.NodeAttested")
class NodeAttested:
    """An attestor vouches for leaves of the manifest until they expire."""

    at_us: Annotated[int, "effective time, µs UTC"]
    node: Annotated[NodeId, "the node"]
    attestor: Annotated[PublicKey, "who attests"]
    leaves: Annotated[tuple[Hash32, ...], "attested leaves"]
    expires_us: Annotated[int, "valid before this instant"]


@record("synor.node.v1.NodeHealthChanged")
class NodeHealthChanged:
    """What the market learned from the node's metering shard, and acts on."""

    at_us: Annotated[int, "effective time in the market, µs UTC"]
    node: Annotated[NodeId, "the node"]
    up: Annotated[bool, "True: it gave a sign of life; False: it is down"]
    down_since_us: Annotated[int, "last sign of life before the silence"]
    up_us: Annotated[int, "the sign of life that ended it; 0 while it is down"]


@record("synor.node.v1.NodeRetired")
class NodeRetired:
    """The node is gone; its devices may be registered anew."""

    at_us: Annotated[int, "effective time, µs UTC"]
    node: Annotated[NodeId, "the node"]


NodeEvent = NodeRegistered | NodeAttested | NodeHealthChanged | NodeRetired


# Commands


@record("synor.command.v1.NodeRow")
class NodeRow:
    """One node to register."""

    key: Annotated[PublicKey, "the node's own key"]
    region: Annotated[str, "region, at most 64 characters"]
    capacity: Annotated[tuple[Amount, ...], "what it has, by resource, at most 32 rows"]
    identities: Annotated[tuple[Hash32, ...], "one per physical device"]
    beat_us: Annotated[int, "interval of beats; 0 for the default"] = 0
    grace_us: Annotated[int, "grace; 0 for the default"] = 0


@record("synor.command.v1.RegisterNodes")
class RegisterNodes:
    """An owner of a provider registers nodes; ids derive from (key, session, number, row)."""

    nodes: Annotated[tuple[NodeRow, ...], "nodes"]


@record("synor.command.v1.AttestationRow")
class AttestationRow:
    """Leaves of one node."""

    node: Annotated[NodeId, "the node"]
    leaves: Annotated[tuple[Hash32, ...], "leaves that the attestor saw to be true"]
    expires_us: Annotated[int, "valid before this instant"]


@record("synor.command.v1.AttestNodes")
class AttestNodes:
    """An attestor vouches for manifest leaves."""

    attestations: Annotated[tuple[AttestationRow, ...], "one per node"]


@record("synor.command.v1.RetireNode")
class RetireNode:
    """An owner retires a node without live leases."""

    node: Annotated[NodeId, "the node"]
