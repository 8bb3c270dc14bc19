"""What the read models could not take, as the API, its pages and commands tell of it.

Views of money that stand still are not shown at all: the last figures before the event would look
like the right ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Table, select

from adapters.api_problems import MONEY_STOPPED, Problem
from adapters.read_model_catalogue import Entry
from domain.commit import Ledger
from projections.fold import MONEY_TABLES
from projections.held_tables import FOLDING, HELD_KEY

SHOWN: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Troubles:
    """Ledgers whose views of money stand still, and aggregates with a held event."""

    money: Sequence[Mapping[str, Any]]
    held: Sequence[Mapping[str, Any]]
    held_keys: int
    held_events: int

    def sentences(self) -> Sequence[str]:
        """For people, one each."""
        money = [
            f"Views of money stand still from {each['ledger']} {each['shard']}, event "
            f"{each['position']} ({each['event']}) on: {each['why']} ({each['reason']}). Mend the "
            "cause, then: synor projections retry"
            for each in self.money
        ]
        held = [
            f"Held: {each['ledger']} {each['shard']}, aggregate {each['aggregate'].hex()} from "
            f"event {each['position']} ({each['event']}) on: {each['why']} ({each['reason']})."
            for each in self.held
        ]
        return [*money, *held]


def troubles(connection: Connection) -> Troubles:
    """What stands still and what is held, the first of it."""
    rows = [dict(row) for row in connection.execute(select(FOLDING)).mappings()]
    chosen = select(HELD_KEY).order_by(HELD_KEY.c.ledger, HELD_KEY.c.shard, HELD_KEY.c.position)
    keys = connection.execute(chosen.limit(SHOWN)).mappings()
    return Troubles(
        money=[
            {
                "ledger": _name(row["ledger"]),
                "shard": row["shard"],
                **{
                    name: row[f"money_{name}"]
                    for name in ("position", "aggregate", "event", "reason", "why", "at_us")
                },
            }
            for row in rows
            if row["money_position"] is not None
        ],
        held=[{**key, "ledger": _name(key["ledger"])} for key in keys],
        held_keys=sum(row["held_keys"] for row in rows),
        held_events=sum(row["held_events"] for row in rows),
    )


def refuse_money(connection: Connection, *tables: Table) -> None:
    """Raise ``Problem`` where one of the tables is of a view of money that stands still."""
    ledgers = {int(MONEY_TABLES[table]) for table in tables if table in MONEY_TABLES}
    if not ledgers:
        return
    for each in troubles(connection).money:
        if int(Ledger[each["ledger"].upper()]) in ledgers:
            raise Problem(
                MONEY_STOPPED,
                f"The sums stand still from event {each['position']} of the {each['ledger']} "
                f"ledger ({each['event']}) on: {each['why']}.",
                stopped=each,
            )


def rebuild_of(entry: Entry) -> dict[str, Any]:
    """A generation in the making, with what is left of it."""
    return {
        "generation": entry.number,
        "version": entry.made.version,
        "done_records": entry.done_records,
        "total_records": entry.total_records,
        "eta_us": entry.eta_us,
        "told_us": entry.told_us,
    }


def _name(ledger: int) -> str:
    return Ledger(ledger).name.lower()
