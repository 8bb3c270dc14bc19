"""Answers by (key, session, number): the first and only one of each command and refused batch."""

from __future__ import annotations

from typing import Any, Final

from domain.commit import Ledger
from domain.key import CommandAnswered
from domain.telemetry import TelemetryRefused
from projections.fold_rows import At, Projection, Rows, copied
from projections.tables import ANSWER


def _answered(rows: Rows, at: At, event: CommandAnswered) -> None:
    place = {"ledger": int(at.ledger), "shard": at.shard, "height": at.height}
    rows.add(ANSWER, copied(event, ANSWER, position=at.position, **place))


def _refused(rows: Rows, at: At, event: TelemetryRefused) -> None:
    row: dict[str, Any] = {
        "ledger": int(at.ledger),
        "shard": at.shard,
        "height": at.height,
        "kind": "synor.telemetry.v1.Batch",
        "rows": [],
        "events": 0,
        "position": at.position,
    }
    rows.add(ANSWER, copied(event, ANSWER, **row))


COMMAND_ANSWERS: Final = Projection(
    name="command answers",
    ledger=Ledger.MARKET,
    tables=(ANSWER,),
    handlers={CommandAnswered: _answered},
)
TELEMETRY_REFUSALS: Final = Projection(
    name="telemetry refusals",
    ledger=Ledger.METERING,
    tables=(ANSWER,),
    handlers={TelemetryRefused: _refused},
)
