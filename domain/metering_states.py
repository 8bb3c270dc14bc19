"""What a metering ledger's aggregates have become: nodes, keys, leases, and the intake itself.

The shard's rules read its own folds (counters, runs of signs); these states are what the library,
snapshots and the state hash see. ``evolve`` has no rules.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from domain.ids import LeaseId, NodeId, ProviderId, PublicKey
from domain.ledger import (
    GenesisRecorded,
    LogBound,
    ParameterChanged,
    PriceRowAdded,
    RulesActivated,
    WriterRotated,
)
from domain.ledger import evolve as evolve_ledger
from domain.telemetry import (
    ContradictionFound,
    KeyAssigned,
    KeyWithdrawn,
    LeaseActivated,
    LeaseAssigned,
    LeaseStopped,
    NodeAssigned,
    NodeCameUp,
    NodeWentDown,
    NodeWithdrawn,
    Quantity,
    TelemetryAccepted,
    TelemetryRefused,
    UsageStated,
    UsageWindowClosed,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeMetered:
    """A node of the shard."""

    node: NodeId
    provider: ProviderId
    beat_us: int
    grace_us: int
    up: bool = False
    changed_us: int = 0  # the sign that brought it up, or the last one before it went down
    contradictions: int = 0
    withdrawn: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyMetered:
    """A key that may sign telemetry, or might once."""

    key: PublicKey
    provider: ProviderId
    node: NodeId | None
    withdrawn: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseWaiting:
    """A lease that is not active yet."""

    lease: LeaseId
    node: NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseMetered:
    """A lease that is active, or is closing: then ``end_us`` is known."""

    lease: LeaseId
    node: NodeId
    ready_us: int | None  # None where it ended before it was ready
    end_us: int | None = None
    window_end_us: int = 0
    covered_us: int = 0
    quantities: tuple[Quantity, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseStated:
    """A lease with its final statement; nothing more is metered."""

    lease: LeaseId
    node: NodeId
    window_end_us: int
    covered_us: int
    quantities: tuple[Quantity, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Intake:
    """How much the shard took in. Counts only; no part of the state hash."""

    accepted: int = 0
    refused: int = 0
    rows: int = 0
    window_end_us: int = 0


def _node_assigned(state: None, event: NodeAssigned) -> NodeMetered:
    return NodeMetered(
        node=event.node, provider=event.provider, beat_us=event.beat_us, grace_us=event.grace_us
    )


def _came_up(state: NodeMetered, event: NodeCameUp) -> NodeMetered:
    return replace(state, up=True, changed_us=event.at_us)


def _went_down(state: NodeMetered, event: NodeWentDown) -> NodeMetered:
    return replace(state, up=False, changed_us=event.since_us)


def _contradicted(state: NodeMetered, event: ContradictionFound) -> NodeMetered:
    return replace(state, contradictions=state.contradictions + 1)


def _node_withdrawn(state: NodeMetered, event: NodeWithdrawn) -> NodeMetered:
    return replace(state, withdrawn=True)


def _key_assigned(state: None, event: KeyAssigned) -> KeyMetered:
    return KeyMetered(key=event.key, provider=event.provider, node=event.node)


def _key_withdrawn(state: KeyMetered, event: KeyWithdrawn) -> KeyMetered:
    return replace(state, withdrawn=True)


def _lease_assigned(state: None, event: LeaseAssigned) -> LeaseWaiting:
    return LeaseWaiting(lease=event.lease, node=event.node)


def _lease_activated(state: LeaseWaiting, event: LeaseActivated) -> LeaseMetered:
    return LeaseMetered(lease=state.lease, node=state.node, ready_us=event.ready_us)


def _lease_stopped(state: LeaseWaiting | LeaseMetered, event: LeaseStopped) -> LeaseMetered:
    if isinstance(state, LeaseWaiting):
        return LeaseMetered(lease=state.lease, node=state.node, ready_us=None, end_us=event.end_us)
    return replace(state, end_us=event.end_us)


def _usage_stated(state: LeaseMetered, event: UsageStated) -> LeaseMetered | LeaseStated:
    if event.final:
        return LeaseStated(
            lease=state.lease,
            node=state.node,
            window_end_us=event.window_end_us,
            covered_us=event.covered_us,
            quantities=event.quantities,
        )
    return replace(
        state,
        window_end_us=event.window_end_us,
        covered_us=event.covered_us,
        quantities=event.quantities,
    )


_NOTHING_YET: Final = Intake()


def _accepted(state: Intake | None, event: TelemetryAccepted) -> Intake:
    old = state or _NOTHING_YET
    return Intake(
        accepted=old.accepted + 1,
        refused=old.refused,
        rows=old.rows + event.rows,
        window_end_us=old.window_end_us,
    )


def _refused(state: Intake | None, event: TelemetryRefused) -> Intake:
    old = state or _NOTHING_YET
    return replace(old, refused=old.refused + 1)


def _window_closed(state: Intake | None, event: UsageWindowClosed) -> Intake:
    return replace(state or _NOTHING_YET, window_end_us=event.window_end_us)


EVOLVE: Final[Mapping[type[Any], Callable[[Any, Any], Any]]] = {
    NodeAssigned: _node_assigned,
    NodeCameUp: _came_up,
    NodeWentDown: _went_down,
    NodeWithdrawn: _node_withdrawn,
    ContradictionFound: _contradicted,
    KeyAssigned: _key_assigned,
    KeyWithdrawn: _key_withdrawn,
    LeaseAssigned: _lease_assigned,
    LeaseActivated: _lease_activated,
    LeaseStopped: _lease_stopped,
    UsageStated: _usage_stated,
    TelemetryAccepted: _accepted,
    TelemetryRefused: _refused,
    UsageWindowClosed: _window_closed,
    LogBound: evolve_ledger,
    GenesisRecorded: evolve_ledger,
    RulesActivated: evolve_ledger,
    WriterRotated: evolve_ledger,
    ParameterChanged: evolve_ledger,
    PriceRowAdded: evolve_ledger,
}


def is_over(state: Any) -> bool:
    """Whether no event follows: the final statement of a lease is the last that is said of it."""
    return isinstance(state, LeaseStated)


def evolve(state: Any, event: Any) -> Any:
    """The aggregate's next state; an event without an entry in ``EVOLVE`` is a bug."""
    return EVOLVE[type(event)](state, event)
