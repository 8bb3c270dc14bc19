"""The one fold of the read models. ``PROJECTIONS`` is the newcomer's index.

It is what the SQL read model runs, and what a plain fold in memory runs: a law holds both equal.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from typing import Any, Final

from sqlalchemy import Table

from domain.commit import Ledger, RecordedEvent
from projections import held
from projections.accounts import ACCOUNTS
from projections.answers import COMMAND_ANSWERS, TELEMETRY_REFUSALS
from projections.epochs import CHECKPOINTS, EPOCHS
from projections.fold_rows import At, Handler, Key, Projection, Rows, Unfoldable
from projections.history import remember
from projections.journal import JOURNAL, post
from projections.leases import LEASES
from projections.metering import METERING
from projections.nodes import NODES
from projections.orders import ORDERS
from projections.scorecard import SCORECARD
from projections.settings import SETTINGS
from projections.tables import BALANCE, BID, LEASE, NODE, OFFER, POT, PROVIDER

#: Every read model, in the order in which they take an event: those of money come last, when every
#: owner of a purse has its row.
PROJECTIONS: Final[tuple[Projection, ...]] = (
    SETTINGS,
    ACCOUNTS,
    ORDERS,
    NODES,
    COMMAND_ANSWERS,
    METERING,
    TELEMETRY_REFUSALS,
    LEASES,
    SCORECARD,
    EPOCHS,
    JOURNAL,
    CHECKPOINTS,
)

#: Tables that show money, and whose events fill them.
MONEY_TABLES: Final[Mapping[Table, Ledger]] = {
    table: projection.ledger
    for projection in PROJECTIONS
    if projection.money
    for table in projection.tables
}

#: Rows that an event names by these fields: read ahead for a whole batch.
NAMED: Final[Mapping[str, Table]] = {
    "lease": LEASE,
    "bid": BID,
    "offer": OFFER,
    "node": NODE,
    "provider": PROVIDER,
    "pot": POT,
}


def _handlers(*, money: bool) -> dict[tuple[Ledger, type[Any]], tuple[Handler, ...]]:
    found: dict[tuple[Ledger, type[Any]], tuple[Handler, ...]] = {}
    for projection in PROJECTIONS:
        if projection.money is money:
            for kind, handler in projection.handlers.items():
                key = (projection.ledger, kind)
                found[key] = (*found.get(key, ()), handler)
    return found


def _named_by(kind: type[Any]) -> tuple[tuple[str, Table], ...]:
    """The fields of an event type that name rows."""
    return tuple((field.name, NAMED[field.name]) for field in fields(kind) if field.name in NAMED)


HANDLERS: Final = _handlers(money=False)
MONEY_HANDLERS: Final = _handlers(money=True)
_NAMING: Final[dict[type[Any], tuple[tuple[str, Table], ...]]] = {}


def fold(rows: Rows, at: At, recorded: RecordedEvent, event: Any) -> None:
    """Take one event into every read model, or hold it where its rows cannot (``held``)."""
    remember(rows, at, recorded, event)
    aggregate = recorded.aggregate
    if not held.waits(rows, at, aggregate):
        failed = attempt(rows, at, event, money=False)
        if failed is not None:
            held.hold(rows, at, aggregate, event.at_us, failed)
    if not held.money_stands(rows, at):
        failed = attempt(rows, at, event, money=True)
        if failed is not None:
            held.stop_money(rows, at, aggregate, event.at_us, failed)


def attempt(rows: Rows, at: At, event: Any, *, money: bool) -> Unfoldable | None:
    """Take an event into the views of money, or into all others: whole, or not at all."""
    handlers = (MONEY_HANDLERS if money else HANDLERS).get((at.ledger, type(event)), ())
    posts = money and at.ledger is Ledger.MARKET and getattr(event, "postings", None)
    if not handlers and not posts:
        return None
    rows.begin()
    try:
        for handler in handlers:
            handler(rows, at, event)
        if posts:
            post(rows, at, event)
    except Unfoldable as failed:
        rows.undo()
        return failed
    rows.keep()
    return None


def touched(ledger: Ledger, events: Iterable[Any]) -> Iterator[tuple[Table, Key]]:
    """Rows that the fold of these events will read, most of them; the others are read singly."""
    if ledger is not Ledger.MARKET:
        return
    for event in events:
        kind = type(event)
        names = _NAMING.get(kind)
        if names is None:
            names = _NAMING[kind] = _named_by(kind)
        for name, table in names:
            value = getattr(event, name)
            if value is not None:
                yield table, (value,)
        for posting in getattr(event, "postings", ()):
            yield BALANCE, (posting.purse.value, posting.owner)
