"""The tables of what could not be taken: held events, and views of money that stand still."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Index

from projections.columns import integer, octets, table, text

#: Of each ledger: how much is held, and from which event on its money views stand still.
FOLDING: Final = table(
    "folding",
    integer("ledger", key=True),
    integer("shard", key=True),
    integer("held_keys"),
    integer("held_events"),
    integer("money_position", null=True),
    octets("money_aggregate", null=True),
    text("money_event", null=True),
    text("money_reason", null=True),
    text("money_why", null=True),
    integer("money_at_us", null=True),
)
#: Aggregates with an event that could not be taken; all later ones of theirs wait behind it.
HELD_KEY: Final = table(
    "held_key",
    integer("ledger", key=True),
    integer("shard", key=True),
    octets("aggregate", key=True),
    integer("position"),
    text("event"),
    text("reason"),
    text("why"),
    integer("events"),
    integer("at_us"),
)
HELD: Final = table(
    "held",
    integer("ledger", key=True),
    integer("shard", key=True),
    integer("position", key=True),
    octets("aggregate"),
    Index("held_by_aggregate", "ledger", "shard", "aggregate", "position"),
)
