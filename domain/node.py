"""Nodes: devices, manifest, attestation, health as the market knows it (R5.1, R6)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Final, assert_never

from domain.catalogue import HOUR_MS, Catalogue, How, charge
from domain.genesis import Parameters
from domain.ids import (
    QUANTITY_MAX,
    AccountId,
    Hash32,
    NodeId,
    ProviderId,
    PublicKey,
    Wide,
    length_prefixed,
)
from domain.invariant import invariant
from domain.key import KEY_EXISTS, KEY_NOT_PROVEN
from domain.record import record
from domain.refusal import Refused, code
from domain.text import is_name


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


# States


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """A node in service. ``attested_until_us`` by leaf: the latest expiry that anyone gave it."""

    provider: ProviderId
    account: AccountId
    key: PublicKey
    region: str
    capacity: tuple[Amount, ...]
    identities: tuple[Hash32, ...]
    manifest_version: int
    beat_us: int
    grace_us: int
    required_nano: int
    attested_until_us: tuple[tuple[Hash32, int], ...] = ()
    up: bool = False
    down_since_us: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Retired:
    """Gone; its devices may be registered anew."""

    provider: ProviderId
    account: AccountId


NodeState = Registered | Retired


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
    proof: Annotated[bytes, "the key's Ed25519 signature that it is to be of this account"] = b""


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


# Refusals

REGION_INVALID: Final = code(
    410, "region_invalid", "Name a region in 1 to 64 characters of ASCII, no space around it."
)
CAPACITY_INVALID: Final = code(
    411, "capacity_invalid", "List 1 to 32 allocated catalogue resources, each once, above zero."
)
BEAT_OUT_OF_BOUNDS: Final = code(
    412, "beat_out_of_bounds", "Beat at least once per grace; the grace has a largest value."
)
IDENTITIES_INVALID: Final = code(
    413, "identities_invalid", "Name 1 to 64 devices, each once, at least as many as are offered."
)
DEVICE_IN_USE: Final = code(
    414, "device_in_use", "Retire the node that holds the device first (R6.4)."
)
NODE_UNKNOWN: Final = code(416, "node_unknown", "Name a registered node.")
NODE_NOT_YOURS: Final = code(417, "node_not_yours", "Name a node of your own provider.")
NODE_IS_RETIRED: Final = code(418, "node_is_retired", "Register the devices as another node.")
NODE_HAS_LEASES: Final = code(419, "node_has_leases", "Wait until the node's leases have ended.")
NODE_HAS_OFFERS: Final = code(420, "node_has_offers", "Withdraw the node's offers first.")
LEAF_NOT_OF_MANIFEST: Final = code(
    421, "leaf_not_of_manifest", "Attest leaves of the manifest's present version, each once."
)
EXPIRY_OUT_OF_BOUNDS: Final = code(
    422,
    "expiry_out_of_bounds",
    "Let it expire after now, by the longest life of an attestation."
    " The figures are µs since 1970, UTC.",
)

NODE_IS_BOUND: Final = code(
    423, "node_is_bound", "Wait until the time that its broken reservation binds it is over."
)

#: Beside devices (rows that rounds price), what a node's stake is measured on (R6.2).
CORES_AND_MEMORY: Final = ("container.cpu", "container.memory")


# Decide


def required_nano(capacity: Mapping[str, int], catalogue: Catalogue, stake_hours: int) -> int:
    """r(node): ``stake_hours`` hours of its devices, cores and memory at list price (R6.2)."""
    return sum(
        charge(row, amount * HOUR_MS * stake_hours)
        for resource, amount in capacity.items()
        if (row := catalogue.row(resource)) is not None
        and (row.market or resource in CORES_AND_MEMORY)
    )


def decide_register(
    row: NodeRow,
    *,
    node: NodeId,
    provider: ProviderId,
    account: AccountId,
    catalogue: Catalogue,
    parameters: Parameters,
    key_known: bool,
    key_proven: bool,
    in_use: Callable[[Hash32], bool],
    now_us: int,
) -> NodeRegistered | Refused:
    """One node of a batch; ``in_use`` says whether an unretired node holds a device."""
    if key_known:
        return Refused(KEY_EXISTS, row.key.hex())
    if not key_proven:
        return Refused(KEY_NOT_PROVEN, row.key.hex())
    if not 1 <= len(row.region) <= parameters.region_length or not is_name(row.region):
        return Refused(REGION_INVALID, row.region)
    wrong = _wrong_capacity(row.capacity, catalogue, parameters.node_rows)
    if wrong:
        return Refused(CAPACITY_INVALID, wrong)
    beat_us = row.beat_us or parameters.beat_us
    grace_us = row.grace_us or parameters.grace_us
    if not 0 < beat_us <= grace_us <= parameters.grace_max_us:
        return Refused(
            BEAT_OUT_OF_BOUNDS,
            f"beat {beat_us}, grace {grace_us}, largest grace {parameters.grace_max_us}",
        )
    capacity = {amount.resource: amount.amount for amount in row.capacity}
    devices = sum(
        -(-amount // 1000)
        for resource, amount in capacity.items()
        if (priced := catalogue.row(resource)) is not None and priced.market
    )
    named = len(row.identities)
    if not max(1, devices) <= len(set(row.identities)) == named <= parameters.node_devices:
        return Refused(IDENTITIES_INVALID, f"{named} for {devices} devices")
    held = next((identity for identity in row.identities if in_use(identity)), None)
    if held is not None:
        return Refused(DEVICE_IN_USE, held.hex())
    return NodeRegistered(
        at_us=now_us,
        node=node,
        provider=provider,
        account=account,
        key=row.key,
        region=row.region,
        capacity=row.capacity,
        identities=row.identities,
        manifest_version=1,
        beat_us=beat_us,
        grace_us=grace_us,
        required_nano=Wide(required_nano(capacity, catalogue, parameters.stake_hours)),
    )


def _wrong_capacity(capacity: tuple[Amount, ...], catalogue: Catalogue, most: int) -> str:
    if not 1 <= len(capacity) <= most:
        return f"{len(capacity)} rows"
    if len({amount.resource for amount in capacity}) < len(capacity):
        return "a resource stands twice"
    for amount in capacity:
        row = catalogue.row(amount.resource)
        if row is None or row.how is not How.ALLOCATED:
            return f"{amount.resource[:64]} is no allocated resource of the catalogue"
        # An hour of it must be a quantity (R1.6); longer terms are judged with their orders.
        if not 0 < amount.amount <= QUANTITY_MAX // HOUR_MS:
            return f"{amount.resource} {amount.amount}"
    return ""


def decide_attest(
    row: AttestationRow,
    state: NodeState | None,
    *,
    attestor: PublicKey,
    longest_us: int,
    now_us: int,
) -> NodeAttested | Refused:
    """Leaves of the present manifest, for at most ``longest_us`` from now (R6.4)."""
    if state is None:
        return Refused(NODE_UNKNOWN, row.node.hex())
    if isinstance(state, Retired):
        return Refused(NODE_IS_RETIRED, row.node.hex())
    present = {
        leaf(row.node, has.resource, has.amount, state.manifest_version) for has in state.capacity
    }
    if not row.leaves or len(set(row.leaves)) < len(row.leaves) or not present >= set(row.leaves):
        return Refused(LEAF_NOT_OF_MANIFEST, f"manifest version {state.manifest_version}")
    if not now_us < row.expires_us <= now_us + longest_us:
        return Refused(EXPIRY_OUT_OF_BOUNDS, f"{row.expires_us} at {now_us}")
    return NodeAttested(
        at_us=now_us,
        node=row.node,
        attestor=attestor,
        leaves=row.leaves,
        expires_us=row.expires_us,
    )


def decide_retire(
    node: NodeId,
    state: NodeState | None,
    *,
    account: AccountId,
    live_leases: int,
    live_offers: int,
    bound_until_us: int,
    now_us: int,
) -> NodeRetired | Refused:
    """A node that nobody leases, that is not offered, and that no broken reservation binds."""
    if state is None:
        return Refused(NODE_UNKNOWN, node.hex())
    if state.account != account:
        return Refused(NODE_NOT_YOURS, node.hex())
    if isinstance(state, Retired):
        return Refused(NODE_IS_RETIRED, node.hex())
    if live_leases:
        return Refused(NODE_HAS_LEASES, f"{live_leases}")
    if live_offers:
        return Refused(NODE_HAS_OFFERS, f"{live_offers}")
    if bound_until_us > now_us:
        return Refused(NODE_IS_BOUND, f"until {bound_until_us}")
    return NodeRetired(at_us=now_us, node=node)


# Evolve


def evolve(state: NodeState | None, event: NodeEvent) -> NodeState:
    """The node after one more event."""
    match event:
        case NodeRegistered():
            return Registered(
                provider=event.provider,
                account=event.account,
                key=event.key,
                region=event.region,
                capacity=event.capacity,
                identities=event.identities,
                manifest_version=event.manifest_version,
                beat_us=event.beat_us,
                grace_us=event.grace_us,
                required_nano=event.required_nano,
            )
        case NodeAttested():
            node = _registered(state)
            return replace(node, attested_until_us=attested_after(node.attested_until_us, event))
        case NodeHealthChanged():
            return replace(
                _registered(state),
                up=event.up,
                down_since_us=None if event.up else event.down_since_us,
            )
        case NodeRetired():
            gone = _registered(state)
            return Retired(provider=gone.provider, account=gone.account)
        case _:
            assert_never(event)


def attested_after(
    before: tuple[tuple[Hash32, int], ...], event: NodeAttested
) -> tuple[tuple[Hash32, int], ...]:
    """The latest expiry of each leaf, by leaf; an earlier one by somebody else takes nothing."""
    until = dict(before)
    for one in event.leaves:
        until[one] = max(until.get(one, 0), event.expires_us)
    return tuple(sorted(until.items()))


def _registered(state: NodeState | None) -> Registered:
    invariant(isinstance(state, Registered), "the node is in service")
    assert isinstance(state, Registered)
    return state
