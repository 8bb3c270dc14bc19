"""SLA windows: obligation, downtime, allowance, and the slash for what goes beyond (R5.1–R5.4)."""

from __future__ import annotations

from typing import Annotated

from domain.ids import AggregateId, NodeId, ProviderId, SlashId, Wide, derive
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
