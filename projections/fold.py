"""The one fold of the read models. ``PROJECTIONS`` is the newcomer's index.

It is what the SQL read model runs, and what a plain fold in memory runs: a law holds both equal.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from typing import Any, Final

from sqlalchemy import Table

from domain.commit import Ledger, RecordedEvent
from projections.accounts import ACCOUNTS, post
from projections.answers import COMMAND_ANSWERS, TELEMETRY_REFUSALS
from projections.epochs import CHECKPOINTS, EPOCHS
from projections.fold_rows import At, Handler, Key, Projection, Rows
from projections.history import remember
from projections.leases import LEASES
from projections.metering import METERING
from projections.orders import ORDERS
from projections.scorecard import SCORECARD
from projections.settings import SETTINGS
from projections.tables import BALANCE, BID, LEASE, NODE, OFFER, POT, PROVIDER

#: Every read model, in the order in which they take an event. ``ORDERS`` takes the end of a lease
#: after ``LEASES`` has its row; money comes last, when every owner of a purse has its row.
PROJECTIONS: Final[tuple[Projection, ...]] = (
    SETTINGS,
    LEASES,
    ORDERS,
    SCORECARD,
    EPOCHS,
    ACCOUNTS,
    COMMAND_ANSWERS,
    CHECKPOINTS,
    METERING,
    TELEMETRY_REFUSALS,
)

#: Rows that an event names by these fields: read ahead for a whole batch.
NAMED: Final[Mapping[str, Table]] = {
    "lease": LEASE,
    "bid": BID,
    "offer": OFFER,
    "node": NODE,
    "provider": PROVIDER,
    "pot": POT,
}


def _handlers() -> dict[tuple[Ledger, type[Any]], tuple[Handler, ...]]:
    found: dict[tuple[Ledger, type[Any]], tuple[Handler, ...]] = {}
    for projection in PROJECTIONS:
        for kind, handler in projection.handlers.items():
            key = (projection.ledger, kind)
            found[key] = (*found.get(key, ()), handler)
    return found


def _named_by(kind: type[Any]) -> tuple[tuple[str, Table], ...]:
    """The fields of an event type that name rows."""
    return tuple((field.name, NAMED[field.name]) for field in fields(kind) if field.name in NAMED)


HANDLERS: Final = _handlers()
_NAMING: Final[dict[type[Any], tuple[tuple[str, Table], ...]]] = {}


def fold(rows: Rows, at: At, recorded: RecordedEvent, event: Any) -> None:
    """Take one event into every read model."""
    for handler in HANDLERS.get((at.ledger, type(event)), ()):
        handler(rows, at, event)
    if at.ledger is Ledger.MARKET and getattr(event, "postings", None):
        post(rows, at, event)
    remember(rows, at, recorded, event)


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
