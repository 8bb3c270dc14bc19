"""What the metering shards say of nodes and leases, before the market has acted on it.

Accepted telemetry is left out: it is a million times more, and the statements hold its sum.
"""

from __future__ import annotations

from typing import Final

from domain.commit import Ledger
from domain.telemetry import (
    ContradictionFound,
    NodeAssigned,
    NodeCameUp,
    NodeWentDown,
    UsageStated,
)
from projections.fold_rows import At, Projection, Rows, copied
from projections.tables import CONTRADICTION, METER_NODE, METER_STATEMENT


def _assigned(rows: Rows, at: At, event: NodeAssigned) -> None:
    row = {"shard": at.shard, "up": False, "changed_us": event.at_us}
    rows.put(METER_NODE, copied(event, METER_NODE, **row))


def _health(rows: Rows, at: At, event: NodeWentDown | NodeCameUp) -> None:
    row = {
        "shard": at.shard,
        "up": isinstance(event, NodeCameUp),
        "changed_us": event.at_us,
    }
    rows.put(METER_NODE, copied(event, METER_NODE, **row))


def _stated(rows: Rows, at: At, event: UsageStated) -> None:
    rows.put(METER_STATEMENT, copied(event, METER_STATEMENT, shard=at.shard))


def _contradiction(rows: Rows, at: At, event: ContradictionFound) -> None:
    row = {"shard": at.shard, "position": at.position}
    rows.add(CONTRADICTION, copied(event, CONTRADICTION, **row))


METERING: Final = Projection(
    name="metering",
    ledger=Ledger.METERING,
    tables=(METER_NODE, METER_STATEMENT, CONTRADICTION),
    handlers={
        NodeAssigned: _assigned,
        NodeWentDown: _health,
        NodeCameUp: _health,
        UsageStated: _stated,
        ContradictionFound: _contradiction,
    },
)
