"""Telemetry: what a node fleet signs, and what a metering shard records of it (design 5).

A batch speaks for the nodes it lists (each a sign of life) and carries cumulative readings in
columns. The same columns come in two encodings: ``array<long>``, and little-endian ``bytes``.
"""

from __future__ import annotations

from typing import Annotated

from domain.bid import MeteredLimit
from domain.ids import (
    AggregateId,
    Hash32,
    LeaseId,
    NodeId,
    ProviderId,
    PublicKey,
    derive,
)
from domain.node import Amount
from domain.record import record

INTAKE = AggregateId(derive("intake"))


# Inputs


@record("synor.telemetry.v1.Batch")
class Batch:
    """Beats and cumulative readings; columns as arrays of long. All columns have equal length."""

    nodes: Annotated[tuple[NodeId, ...], "nodes that give a sign of life; all of one shard"]
    leases: Annotated[tuple[LeaseId, ...], "dictionary of the lease column"]
    lease: Annotated[tuple[int, ...], "index into leases"]
    resource: Annotated[tuple[int, ...], "row number of the resource in the catalogue"]
    generation: Annotated[tuple[int, ...], "generation of the counter, 0..63"]
    time_us: Annotated[tuple[int, ...], "when it was read, µs UTC; evidence only"]
    total: Annotated[tuple[int, ...], "cumulative total of this generation"]


@record("synor.telemetry.v1.BatchBytes")
class BatchBytes:
    """The same with little-endian columns: u16, u16, u8, i64, i64."""

    nodes: Annotated[tuple[NodeId, ...], "nodes that give a sign of life; all of one shard"]
    leases: Annotated[tuple[LeaseId, ...], "dictionary of the lease column"]
    lease: Annotated[bytes, "u16 little-endian: index into leases"]
    resource: Annotated[bytes, "u16 little-endian: row number in the catalogue"]
    generation: Annotated[bytes, "u8: generation of the counter, 0..63"]
    time_us: Annotated[bytes, "i64 little-endian: when it was read, µs UTC; evidence only"]
    total: Annotated[bytes, "i64 little-endian: cumulative total of this generation"]


# Events of a metering ledger


@record("synor.metering.v1.NodeAssigned")
class NodeAssigned:
    """The shard learned of a node of its own from the market."""

    at_us: Annotated[int, "effective time, µs UTC"]
    node: Annotated[NodeId, "the node; aggregate id"]
    provider: Annotated[ProviderId, "its provider"]
    key: Annotated[PublicKey, "its key"]
    beat_us: Annotated[int, "interval of its beats"]
    grace_us: Annotated[int, "silence after which it is down"]


@record("synor.metering.v1.NodeWithdrawn")
class NodeWithdrawn:
    """The shard learned that a node is retired; it is heard until its last lease has closed."""

    at_us: Annotated[int, "effective time, µs UTC"]
    node: Annotated[NodeId, "the node"]


@record("synor.metering.v1.KeyAssigned")
class KeyAssigned:
    """The shard learned that a key may sign for a node, or for all nodes of a provider."""

    at_us: Annotated[int, "effective time, µs UTC"]
    key: Annotated[PublicKey, "Ed25519 public key"]
    node: Annotated[NodeId | None, "the one node; None for a gateway key"]
    provider: Annotated[ProviderId, "the provider"]


@record("synor.metering.v1.KeyWithdrawn")
class KeyWithdrawn:
    """The shard learned that a key is revoked."""

    at_us: Annotated[int, "effective time, µs UTC"]
    key: Annotated[PublicKey, "Ed25519 public key"]


@record("synor.metering.v1.LeaseAssigned")
class LeaseAssigned:
    """The shard learned of a lease on one of its nodes."""

    at_us: Annotated[int, "effective time, µs UTC"]
    lease: Annotated[LeaseId, "the lease; aggregate id"]
    node: Annotated[NodeId, "its node"]
    allocations: Annotated[tuple[Amount, ...], "allocated resources: quantities are derived"]
    metered: Annotated[tuple[MeteredLimit, ...], "metered resources with their limits"]


@record("synor.metering.v1.LeaseActivated")
class LeaseActivated:
    """The lease is active from the market's instant on."""

    at_us: Annotated[int, "effective time, µs UTC"]
    lease: Annotated[LeaseId, "the lease"]
    ready_us: Annotated[int, "the market event's time"]


@record("synor.metering.v1.LeaseStopped")
class LeaseStopped:
    """The lease ended at the market's instant; readings are taken until closing has passed."""

    at_us: Annotated[int, "effective time, µs UTC"]
    lease: Annotated[LeaseId, "the lease"]
    end_us: Annotated[int, "the market event's time"]
    closing_us: Annotated[int, "readings are taken before this instant"]


@record("synor.metering.v1.TelemetryAccepted")
class TelemetryAccepted:
    """A batch that counts: the record as received stands in the commit's bulk, in order."""

    at_us: Annotated[int, "effective time, µs UTC"]
    key: Annotated[PublicKey, "signer"]
    session: Annotated[int, "signer's session"]
    number: Annotated[int, "number within the session"]
    digest: Annotated[Hash32, "SHA-256 of the record as received"]
    length: Annotated[int, "length of the record in the bulk"]
    rows: Annotated[int, "number of readings"]
    refused: Annotated[bytes, "bitmap of refused rows, bit i of byte i//8; empty for none"]


@record("synor.metering.v1.TelemetryRefused")
class TelemetryRefused:
    """A correctly signed batch that is refused as a whole; final for its number.

    Its record stands in the bulk too: the refusal can be judged again when the topic is gone.
    """

    at_us: Annotated[int, "effective time, µs UTC"]
    key: Annotated[PublicKey, "signer"]
    session: Annotated[int, "signer's session"]
    number: Annotated[int, "number within the session"]
    digest: Annotated[Hash32, "SHA-256 of the record as received"]
    code: Annotated[int, "number of the refusal"]
    detail: Annotated[str, "the figures that explain it"]
    length: Annotated[int, "length of the record in the bulk"] = 0


@record("synor.metering.v1.NodeWentDown")
class NodeWentDown:
    """Silence beyond the grace: down from the last sign of life."""

    at_us: Annotated[int, "the deadline: last sign + grace + 1 µs"]
    node: Annotated[NodeId, "the node"]
    since_us: Annotated[int, "last sign of life"]


@record("synor.metering.v1.NodeCameUp")
class NodeCameUp:
    """The sign of life that ends a silence, or the node's first."""

    at_us: Annotated[int, "effective time: the sign of life"]
    node: Annotated[NodeId, "the node"]
    since_us: Annotated[int, "last sign of life before; at_us for the first"]


@record("synor.metering.v1.Quantity")
class Quantity:
    """A cumulative quantity of a lease."""

    resource: Annotated[str, "catalogue resource"]
    quantity: Annotated[int, "base units since the lease's start"]


@record("synor.metering.v1.UsageStated")
class UsageStated:
    """The statement of a usage window of one lease (R4.6), everything cumulative."""

    at_us: Annotated[int, "effective time in the shard when it was written, µs UTC"]
    lease: Annotated[LeaseId, "the lease"]
    window_end_us: Annotated[int, "b: end of the window, the statement's own time"]
    covered_us: Annotated[int, "cumulative covered time"]
    quantities: Annotated[tuple[Quantity, ...], "all resources that are not zero, in row order"]
    final: Annotated[bool, "the lease's last statement"]


@record("synor.metering.v1.UsageWindowClosed")
class UsageWindowClosed:
    """All statements of a usage window are written; what was kept for it is settled."""

    at_us: Annotated[int, "effective time in the shard, µs UTC"]
    window_end_us: Annotated[int, "end of the window"]


@record("synor.metering.v1.ContradictionFound")
class ContradictionFound:
    """Two signed readings of one key with different totals for one counter and time (R5.6)."""

    at_us: Annotated[int, "effective time, µs UTC"]
    node: Annotated[NodeId, "the node"]
    lease: Annotated[LeaseId, "the lease"]
    resource: Annotated[str, "catalogue resource"]
    generation: Annotated[int, "generation of the counter"]
    time_us: Annotated[int, "the readings' own time"]
    key: Annotated[PublicKey, "key that signed both"]
    first_total: Annotated[int, "the accepted total"]
    second_total: Annotated[int, "the other"]
    first: Annotated[Hash32, "digest of the batch that was accepted first"]
    second: Annotated[Hash32, "digest of the other batch"]


MeteringEvent = (
    NodeAssigned
    | NodeWithdrawn
    | KeyAssigned
    | KeyWithdrawn
    | LeaseAssigned
    | LeaseActivated
    | LeaseStopped
    | TelemetryAccepted
    | TelemetryRefused
    | NodeWentDown
    | NodeCameUp
    | UsageStated
    | UsageWindowClosed
    | ContradictionFound
)
