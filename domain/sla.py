"""SLA windows: obligation, downtime, allowance, and the slash for what goes beyond (R5.1–R5.4)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, assert_never

from domain.genesis import HOUR_US
from domain.ids import AggregateId, NodeId, ProviderId, SlashId, Wide, derive
from domain.invariant import invariant
from domain.provider import Fault, slash_of
from domain.record import record


def window_aggregate(node: bytes, window_start_us: int) -> AggregateId:
    """The aggregate of one node's window."""
    return AggregateId(derive("sla", node, window_start_us))


@record("synor.sla.v1.WindowAssessed")
class WindowAssessed:
    """What a node owed and what it missed in one window of its provider."""

    at_us: Annotated[int, "effective time of the assessment, µs UTC"]
    node: Annotated[NodeId, "the node"]
    provider: Annotated[ProviderId, "its provider"]
    start_us: Annotated[int, "start of the window"]
    end_us: Annotated[int, "end of the window"]
    obliged_us: Annotated[int, "time offered or leased, less what is excused"]
    down_us: Annotated[int, "obliged time that it was down"]
    allowance_us: Annotated[int, "obliged × (10^6 − uptime) // 10^6"]
    excess_us: Annotated[int, "max(0, down − allowance)"]
    base_nano: Annotated[Wide, "stake that the penalty is measured on"]
    required_nano: Annotated[Wide, "r(node) at the base's instant"]
    required_all_nano: Annotated[Wide, "Σ r of unretired nodes at that instant"]
    slash_nano: Annotated[Wide, "min(share, share × excess // 360,000,000,000); 0 for none"]
    slash: Annotated[SlashId | None, "id of the slash, where there is one"] = None


SlaEvent = WindowAssessed


# State


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessed:
    """A node's window is assessed once, for ever."""

    obliged_us: int
    down_us: int
    excess_us: int
    slash_nano: int


# Decide

#: Half-open [start, end); an end of None is not known yet.
Span = tuple[int, int]
OpenSpan = tuple[int, int | None]

MILLION: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a provider had at an instant: all stake, and Σ r of its unretired nodes."""

    total_nano: int
    required_all_nano: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A node's window in time: what it owed, what it missed, when it first missed it."""

    obliged_us: int
    down_us: int
    first_down_us: int | None


def obligation(
    offered: Iterable[OpenSpan], leased: Iterable[OpenSpan], downs: Sequence[OpenSpan]
) -> list[OpenSpan]:
    """When a node is obliged (R5.2): while leased, and while offered.

    A withdrawal while it is silent counts from the node's next sign of life only.
    """
    spans = list(leased)
    for start, end in offered:
        silent = next((down for down in downs if _holds(down, end)), None)
        spans.append((start, end if silent is None else silent[1]))
    return spans


def _holds(span: OpenSpan, instant: int | None) -> bool:
    start, end = span
    return instant is not None and start <= instant and (end is None or instant < end)


def measure(
    *,
    offered: Iterable[OpenSpan],
    leased: Iterable[OpenSpan],
    downs: Sequence[OpenSpan],
    broken: Sequence[Span] = (),
    start_us: int,
    end_us: int,
) -> Measured:
    """Obliged time and obliged downtime within [start, end).

    A ``broken`` reservation's node is obliged and down for its time, whatever it does (R8.5).
    """
    obliged = union(clipped((*obligation(offered, leased, downs), *broken), start_us, end_us))
    missed = overlap(obliged, union(clipped((*downs, *broken), start_us, end_us)))
    return Measured(
        obliged_us=sum(end - start for start, end in obliged),
        down_us=sum(end - start for start, end in missed),
        first_down_us=missed[0][0] if missed else None,
    )


def clipped(spans: Iterable[OpenSpan], start_us: int, end_us: int) -> list[Span]:
    """The parts of spans within [start, end); what has no end yet lasts beyond it."""
    cut = [(max(a, start_us), end_us if b is None else min(b, end_us)) for a, b in spans]
    return [(a, b) for a, b in cut if a < b]


def union(spans: Iterable[Span]) -> list[Span]:
    """The same instants as disjoint spans in order of time."""
    made: list[Span] = []
    for start, end in sorted(spans):
        if made and start <= made[-1][1]:
            made[-1] = (made[-1][0], max(made[-1][1], end))
        else:
            made.append((start, end))
    return made


def overlap(one: Sequence[Span], other: Sequence[Span]) -> list[Span]:
    """The instants that two lists of disjoint spans in order of time share."""
    made: list[Span] = []
    i = j = 0
    while i < len(one) and j < len(other):
        start, end = max(one[i][0], other[j][0]), min(one[i][1], other[j][1])
        if start < end:
            made.append((start, end))
        if one[i][1] < other[j][1]:
            i += 1
        else:
            j += 1
    return made


def share_of(base_nano: int, required: int, required_all: int) -> int:
    """A node's share of a stake: base × r(node) // Σ r (R5.4); nothing where nothing is asked."""
    return base_nano * required // required_all if required_all else 0


def penalty(share_nano: int, excess_us: int, slash_hour_ppm: int) -> int:
    """So many ppm of the share per hour of excess, at most all of it (R5.4)."""
    return min(share_nano, share_nano * excess_us * slash_hour_ppm // (HOUR_US * MILLION))


def decide_assessment(
    *,
    node: NodeId,
    provider: ProviderId,
    start_us: int,
    end_us: int,
    measured: Measured,
    uptime_ppm: int,
    slash_hour_ppm: int,
    required_nano: int,
    at_start: Standing,
    at_first_down: Standing | None,
    now_us: int,
) -> WindowAssessed:
    """The assessment of one node's window (R5.4).

    The base is the larger of the stake at the window's start (a younger node's: at its
    registration) and at the first obliged instant that it was down.
    """
    allowance = measured.obliged_us * (MILLION - uptime_ppm) // MILLION
    excess = max(0, measured.down_us - allowance)
    base = at_start
    if at_first_down is not None and at_first_down.total_nano > at_start.total_nano:
        base = at_first_down
    share = share_of(base.total_nano, required_nano, base.required_all_nano)
    slash = penalty(share, excess, slash_hour_ppm)
    return WindowAssessed(
        at_us=now_us,
        node=node,
        provider=provider,
        start_us=start_us,
        end_us=end_us,
        obliged_us=measured.obliged_us,
        down_us=measured.down_us,
        allowance_us=allowance,
        excess_us=excess,
        base_nano=Wide(base.total_nano),
        required_nano=Wide(required_nano),
        required_all_nano=Wide(base.required_all_nano),
        slash_nano=Wide(slash),
        slash=slash_of(Fault.DOWNTIME, node, start_us) if slash else None,
    )


# Evolve


def evolve(state: Assessed | None, event: SlaEvent) -> Assessed:
    """The window after its one event."""
    match event:
        case WindowAssessed():
            invariant(state is None, "a window is assessed once")
            return Assessed(
                obliged_us=event.obliged_us,
                down_us=event.down_us,
                excess_us=event.excess_us,
                slash_nano=event.slash_nano,
            )
        case _:
            assert_never(event)
