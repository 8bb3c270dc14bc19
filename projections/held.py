"""What happens to an event that the rows cannot take: it is held, and others go on.

Held per aggregate, with the reason: an aggregate's later events wait behind it, for they were made
on a state that the rows do not show. Views of money stop as a whole instead, at the position of the
event, since a sum that leaves something out is worse than none. Neither is decided by a database:
the same log gives the same holds in memory and in SQL.
"""

from __future__ import annotations

from typing import Any, Final

from projections.fold_rows import At, Row, Rows, Unfoldable
from projections.held_tables import FOLDING, HELD, HELD_KEY

#: A ledger with more held events than that is not followed further: something is wrong with all.
HELD_MAX: Final = 10_000


class TooManyHeld(Exception):
    """The bound of what is held is reached; whoever follows the ledger stops here."""


def waits(rows: Rows, at: At, aggregate: bytes) -> bool:
    """Whether an event must wait behind a held one of its aggregate; if so it does."""
    folding = rows.get(FOLDING, int(at.ledger), at.shard)
    if folding is None or not folding["held_keys"]:
        return False
    key = rows.get(HELD_KEY, int(at.ledger), at.shard, aggregate)
    if key is None:
        return False
    _queue(rows, at, aggregate, held_events=folding["held_events"] + 1)
    rows.change(HELD_KEY, int(at.ledger), at.shard, aggregate, events=key["events"] + 1)
    return True


def hold(rows: Rows, at: At, aggregate: bytes, at_us: int, failed: Unfoldable) -> None:
    """Hold the first event of an aggregate that cannot be taken."""
    folding = _folding(rows, at)
    _queue(
        rows,
        at,
        aggregate,
        held_keys=folding["held_keys"] + 1,
        held_events=folding["held_events"] + 1,
    )
    rows.put(
        HELD_KEY,
        {
            "ledger": int(at.ledger),
            "shard": at.shard,
            "aggregate": aggregate,
            "position": at.position,
            "event": at.name,
            "reason": failed.reason,
            "why": failed.why,
            "events": 1,
            "at_us": at_us,
        },
    )


def release(rows: Rows, ledger: int, shard: int, aggregate: bytes, position: int) -> None:
    """The first held event of an aggregate is taken now."""
    folding = rows.known(FOLDING, ledger, shard)
    key = rows.known(HELD_KEY, ledger, shard, aggregate)
    rows.delete(HELD, ledger, shard, position)
    last = key["events"] == 1
    rows.change(
        FOLDING,
        ledger,
        shard,
        held_events=folding["held_events"] - 1,
        held_keys=folding["held_keys"] - last,
    )
    if last:
        rows.delete(HELD_KEY, ledger, shard, aggregate)
    else:
        rows.change(HELD_KEY, ledger, shard, aggregate, events=key["events"] - 1)


def blame(rows: Rows, at: At, aggregate: bytes, at_us: int, failed: Unfoldable) -> None:
    """Another event of a held aggregate is the one that cannot be taken now, or for another why."""
    rows.change(
        HELD_KEY,
        int(at.ledger),
        at.shard,
        aggregate,
        position=at.position,
        event=at.name,
        reason=failed.reason,
        why=failed.why,
        at_us=at_us,
    )


def money_stands(rows: Rows, at: At) -> bool:
    """Whether the money views of the ledger stand still."""
    folding = rows.get(FOLDING, int(at.ledger), at.shard)
    return folding is not None and folding["money_position"] is not None


def stop_money(rows: Rows, at: At, aggregate: bytes, at_us: int, failed: Unfoldable) -> None:
    """The money views stand still from this event on."""
    _folding(rows, at)
    rows.change(
        FOLDING,
        int(at.ledger),
        at.shard,
        money_position=at.position,
        money_aggregate=aggregate,
        money_event=at.name,
        money_reason=failed.reason,
        money_why=failed.why,
        money_at_us=at_us,
    )


def resume_money(rows: Rows, ledger: int, shard: int) -> None:
    """The money views have caught up."""
    gone = dict.fromkeys(column.name for column in FOLDING.columns if column.nullable)
    rows.change(FOLDING, ledger, shard, **gone)


def _folding(rows: Rows, at: At) -> Row:
    found = rows.get(FOLDING, int(at.ledger), at.shard)
    if found is not None:
        return dict(found)
    row: dict[str, Any] = {column.name: None for column in FOLDING.columns}
    row.update(ledger=int(at.ledger), shard=at.shard, held_keys=0, held_events=0)
    rows.put(FOLDING, row)
    return row


def _queue(rows: Rows, at: At, aggregate: bytes, **counts: int) -> None:
    if counts["held_events"] > HELD_MAX:
        raise TooManyHeld(
            f"{HELD_MAX} events of {at.ledger.name.lower()} {at.shard} are held already"
        )
    ledger = int(at.ledger)
    rows.put(
        HELD,
        {"ledger": ledger, "shard": at.shard, "position": at.position, "aggregate": aggregate},
    )
    rows.change(FOLDING, ledger, at.shard, **counts)
