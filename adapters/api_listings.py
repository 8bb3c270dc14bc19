"""Lists: filters, order, and pages that neither skip nor repeat while rows are added.

Newcomer's index: ``LISTINGS``. Each is ordered by a key that a row never changes, made from the
position of the event that made the row, and a cursor is the key of the last row seen. A cursor is
bound to its list and filters, so it cannot be used by mistake with others.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Connection,
    FromClause,
    LargeBinary,
    String,
    Table,
    and_,
    exists,
    literal,
    null,
    select,
    tuple_,
    union_all,
)

from adapters.api_problems import BAD_CURSOR, BAD_PARAMETER, Problem
from adapters.api_troubles import refuse_money
from domain import outside_json
from domain.catalogue import How, Revenue
from domain.genesis import Role
from domain.journal import Purse
from domain.lease import EndReason
from domain.provider import Fault
from projections.leases import ACTIVE, CLOSED, CLOSING, OPENED
from projections.nodes import DOWN, UNKNOWN, UP
from projections.orders import CANCELLED, FILLED, RESTING, WITHDRAWN
from projections.tables import (
    ACCOUNT,
    BALANCE,
    BID,
    CATALOGUE,
    CLAIM,
    CONTRADICTION,
    EPOCH,
    EVIDENCE,
    HISTORY,
    INSTRUMENT,
    KEY,
    LEASE,
    NODE,
    OFFER,
    PARAMETER,
    PAYABLE,
    POSTING,
    POT,
    PROVIDER,
    ROUND,
    SLA_WINDOW,
    SLASH,
    TRADE,
)

LIMIT: Final = 50
LIMIT_MAX: Final = 200
ASCENDING: Final = "asc"
DESCENDING: Final = "desc"
_CURSOR_BYTES: Final = 600

Parse = Callable[[str, str], Any]


def integer(name: str, text: str) -> int:
    """A whole number within 64 bits."""
    digits = text[1:] if text.startswith("-") else text
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 19):
        raise Problem(BAD_PARAMETER, f"{name} must be a whole number, not {text[:40]!r}")
    value = int(text)
    if not -(2**63) <= value < 2**63:
        raise Problem(BAD_PARAMETER, f"{name} is beyond 64 bits")
    return value


def octets(name: str, text: str) -> bytes:
    """An id, key or hash in hex."""
    try:
        return bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        raise Problem(BAD_PARAMETER, f"{name} must be hex, not {text[:40]!r}") from None


def words(name: str, text: str) -> str:
    """Text as it is; no name is longer than that."""
    if len(text) > 100 or "\0" in text:
        raise Problem(BAD_PARAMETER, f"{name} is text of at most 100 characters")
    return text


def one_of(known: Sequence[str]) -> Parse:
    """A state or a reason, in any case; a word that no row can have is a mistake."""

    def parse(name: str, text: str) -> str:
        found = text.upper()
        if found not in known:
            raise Problem(BAD_PARAMETER, f"{name} is one of {', '.join(known)}, not {text[:40]!r}")
        return found

    return parse


def truth(name: str, text: str) -> bool:
    """True or false."""
    if text not in ("true", "false"):
        raise Problem(BAD_PARAMETER, f"{name} must be true or false, not {text[:40]!r}")
    return text == "true"


Make = Callable[[Any], ColumnElement[bool]]


@dataclass(frozen=True, slots=True)
class Filter:
    """One parameter that a list can be narrowed by."""

    parse: Parse
    matches: Make


def equals(column: Any, parse: Parse) -> Filter:
    """Rows whose column is the value."""
    return Filter(parse, lambda value: column == value)


def present(column: Any) -> Filter:
    """Rows whose column holds something (true) or nothing (false)."""
    return Filter(truth, lambda there: column.is_not(None) if there else column.is_(None))


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """One list: its rows, the key that orders them, and its filters; combined by AND."""

    name: str
    doc: str
    source: FromClause
    key: tuple[Any, ...]
    filters: Mapping[str, Filter]
    first: str = DESCENDING
    hidden: ColumnElement[bool] | None = None
    left_out: frozenset[str] = field(default_factory=frozenset)


@dataclass(frozen=True, slots=True)
class Page:
    """Rows in order, and the cursor of the next page; None after the last."""

    rows: Sequence[Mapping[str, Any]]
    next: str | None


def page(
    connection: Connection,
    listing: Listing,
    parameters: Mapping[str, str],
    fixed: Sequence[ColumnElement[bool]] = (),
) -> Page:
    """The page that the parameters ask for; ``fixed`` are conditions that the path sets.

    Raises ``Problem`` for a parameter that is unknown or cannot be read, and for a list of money
    whose sums stand still.
    """
    if isinstance(listing.source, Table):
        refuse_money(connection, listing.source)
    given = dict(parameters)
    limit = _limit(given.pop("limit", None))
    order = given.pop("order", listing.first)
    cursor = given.pop("cursor", None)
    if order not in (ASCENDING, DESCENDING):
        raise Problem(BAD_PARAMETER, "order must be asc or desc")
    conditions = list(fixed)
    for name, text in sorted(given.items()):
        chosen = listing.filters.get(name)
        if chosen is None:
            known = ", ".join(sorted(listing.filters)) or "none"
            raise Problem(BAD_PARAMETER, f"{name[:40]!r} is no filter here; there are: {known}")
        conditions.append(chosen.matches(chosen.parse(name, text)))
    if listing.hidden is not None:
        conditions.append(~listing.hidden)
    binding = _binding(listing, order, given, fixed)
    if cursor is not None:
        conditions.append(_beyond(listing, order, _opened(cursor, binding, len(listing.key))))
    sorts = [column.desc() if order == DESCENDING else column.asc() for column in listing.key]
    chosen_rows = (
        select(listing.source).where(and_(True, *conditions)).order_by(*sorts).limit(limit + 1)
    )
    rows = [dict(row) for row in connection.execute(chosen_rows).mappings()]
    more = len(rows) > limit
    rows = rows[:limit]
    following = None
    if more:
        following = _sealed([rows[-1][column.name] for column in listing.key], binding)
    for row in rows:
        for name in listing.left_out:
            del row[name]
    return Page(rows, following)


def _limit(text: str | None) -> int:
    if text is None:
        return LIMIT
    limit = integer("limit", text)
    if not 1 <= limit <= LIMIT_MAX:
        raise Problem(BAD_PARAMETER, f"limit is 1 to {LIMIT_MAX}")
    return limit


def _beyond(listing: Listing, order: str, key: Sequence[Any]) -> ColumnElement[bool]:
    if len(listing.key) == 1:
        column = listing.key[0]
        beyond: ColumnElement[bool] = column < key[0] if order == DESCENDING else column > key[0]
        return beyond
    here, there = tuple_(*listing.key), tuple_(*key, types=[c.type for c in listing.key])
    return here < there if order == DESCENDING else here > there


def _binding(
    listing: Listing,
    order: str,
    given: Mapping[str, str],
    fixed: Sequence[ColumnElement[bool]],
) -> str:
    paths = [str(each.compile(compile_kwargs={"literal_binds": False}).params) for each in fixed]
    text = json.dumps([listing.name, order, sorted(given.items()), paths])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _sealed(key: Sequence[Any], binding: str) -> str:
    plain = [{"x": each.hex()} if isinstance(each, bytes) else each for each in key]
    data = json.dumps([binding, plain], separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _opened(cursor: str, binding: str, length: int) -> list[Any]:
    try:
        if len(cursor) > _CURSOR_BYTES:
            raise ValueError("longer than any")
        padded = cursor + "=" * (-len(cursor) % 4)
        bound, plain = outside_json.parse(base64.b64decode(padded, altchars=b"-_", validate=True))
        key = [bytes.fromhex(each["x"]) if isinstance(each, dict) else each for each in plain]
    except (ValueError, TypeError, KeyError):
        raise Problem(BAD_CURSOR, "it cannot be read") from None
    if bound != binding or len(key) != length or not all(map(_is_key, key)):
        raise Problem(BAD_CURSOR, "it is of another list, order or filter")
    return key


def _is_key(value: Any) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, str | bytes) or (isinstance(value, int) and -(2**63) <= value < 2**63)


def _unseen(instrument: Any, position: Any) -> ColumnElement[bool]:
    """Whether no round of the instrument has cleared since the position (design 6)."""
    cleared = INSTRUMENT.alias("cleared")
    return ~exists(
        select(literal(1)).where(
            cleared.c.instrument == instrument, cleared.c.cleared_position > position
        )
    )


#: Both sides of the books as one list: what is open, at what price.
ORDER: Final = union_all(
    select(
        literal("BID").label("side"),
        BID.c.bid.label("order"),
        BID.c.order_no,
        BID.c.instrument,
        BID.c.resource,
        BID.c.region,
        BID.c.account,
        null().cast(LargeBinary).label("node"),
        BID.c.quantity_milli,
        (BID.c.open_lots * BID.c.lot_milli).label("open_milli"),
        BID.c.limit_nano.label("price_nano"),
        BID.c.placed_us,
        BID.c.state,
        BID.c.position,
    ),
    select(
        literal("ASK").label("side"),
        OFFER.c.offer.label("order"),
        OFFER.c.order_no,
        OFFER.c.instrument,
        OFFER.c.resource,
        OFFER.c.region,
        OFFER.c.account,
        OFFER.c.node,
        OFFER.c.quantity_milli,
        (OFFER.c.quantity_milli - OFFER.c.leased_milli).label("open_milli"),
        OFFER.c.ask_nano.label("price_nano"),
        OFFER.c.placed_us,
        OFFER.c.state,
        OFFER.c.position,
    ),
).subquery("orders")


def _filters(source: FromClause, *names: str) -> dict[str, Filter]:
    """Filters by equality; how a value is read follows from the column's type."""
    found = {}
    for name in names:
        column = source.c[name]
        if isinstance(column.type, LargeBinary):
            found[name] = equals(column, octets)
        elif isinstance(column.type, Boolean):
            found[name] = equals(column, truth)
        elif isinstance(column.type, String):
            known = _WORDS.get((column.table.name, name)) or _WORDS.get(("", name))
            found[name] = equals(column, words if known is None else one_of(known))
        else:
            found[name] = equals(column, integer)
    return found


#: What a column of words can hold, by table where tables differ.
_WORDS: Final[Mapping[tuple[str, str], Sequence[str]]] = {
    ("offer", "state"): (RESTING, WITHDRAWN),
    ("bid", "state"): (RESTING, FILLED, CANCELLED),
    ("orders", "state"): (RESTING, FILLED, CANCELLED, WITHDRAWN),
    ("lease", "state"): (OPENED, ACTIVE, CLOSING, CLOSED),
    ("", "side"): ("BID", "ASK"),
    ("", "health"): (UP, DOWN, UNKNOWN),
    ("", "reason"): tuple(each.value for each in EndReason),
    ("", "fault"): tuple(each.value for each in Fault),
    ("", "purse"): tuple(each.value for each in Purse),
    ("", "role"): tuple(each.value for each in Role),
    ("", "how"): tuple(each.value for each in How),
    ("", "revenue"): tuple(each.value for each in Revenue),
}


def _listing(
    name: str,
    doc: str,
    source: FromClause,
    key: tuple[str, ...],
    *names: str,
    first: str = DESCENDING,
    hidden: ColumnElement[bool] | None = None,
    more: Mapping[str, Filter] | None = None,
    left_out: frozenset[str] = frozenset(),
) -> Listing:
    return Listing(
        name=name,
        doc=doc,
        source=source,
        key=tuple(source.c[each] for each in key),
        filters={**_filters(source, *names), **(more or {})},
        first=first,
        hidden=hidden,
        left_out=left_out,
    )


_PLACE: Final = ("resource", "region")

#: Every list by its path below /v1.
LISTINGS: Final[Mapping[str, Listing]] = {
    each.name: each
    for each in (
        _listing(
            "instruments",
            "Instruments (device × region) with their last price and round.",
            INSTRUMENT,
            ("position",),
            *_PLACE,
            "open",
            first=ASCENDING,
        ),
        _listing(
            "orders",
            "Bids and asks of closed rounds; those of an open round are hidden.",
            ORDER,
            ("position",),
            "side",
            "instrument",
            *_PLACE,
            "account",
            "node",
            "state",
            hidden=_unseen(ORDER.c.instrument, ORDER.c.position),
        ),
        _listing(
            "offers",
            "Asks in full; those of an open round are hidden.",
            OFFER,
            ("position",),
            "offer",
            "instrument",
            *_PLACE,
            "node",
            "provider",
            "account",
            "state",
            "interruptible",
            hidden=_unseen(OFFER.c.instrument, OFFER.c.position),
        ),
        _listing(
            "bids",
            "Bids in full; those of an open round are hidden.",
            BID,
            ("position",),
            "bid",
            "instrument",
            *_PLACE,
            "account",
            "state",
            "reserved",
            hidden=_unseen(BID.c.instrument, BID.c.position),
        ),
        _listing(
            "rounds",
            "Rounds with their price and all that anyone needs to clear them again.",
            ROUND,
            ("position",),
            "instrument",
            "number",
            *_PLACE,
            more={"cleared": present(ROUND.c.cleared_us)},
        ),
        _listing(
            "trades",
            "Fills of cleared rounds.",
            TRADE,
            ("position", "row"),
            "instrument",
            "number",
            "bid",
            "offer",
            "node",
            "lease",
        ),
        _listing(
            "leases",
            "Leases with their terms, times and state.",
            LEASE,
            ("position",),
            "buyer",
            "provider",
            "account",
            "node",
            "bid",
            "offer",
            "instrument",
            "resource",
            "state",
            "reason",
        ),
        _listing("accounts", "Accounts.", ACCOUNT, ("position",), "owner", "key"),
        _listing(
            "keys", "Keys and what they may do.", KEY, ("key",), "key", "account", "role", "node"
        ),
        _listing(
            "balances",
            "Purses that are not empty.",
            BALANCE,
            ("purse", "owner"),
            "purse",
            "owner",
            "account",
            first=ASCENDING,
        ),
        _listing(
            "journal",
            "Postings with the balance after each.",
            POSTING,
            ("position", "row"),
            "purse",
            "owner",
            "account",
            "event",
        ),
        _listing("claims", "Claims final on L1.", CLAIM, ("position",), "account"),
        _listing(
            "providers",
            "Providers with their running figures.",
            PROVIDER,
            ("position",),
            "account",
            first=ASCENDING,
            more={"admitted": present(PROVIDER.c.admitted_us)},
        ),
        _listing(
            "nodes",
            "Nodes and their health as the market knows it.",
            NODE,
            ("position",),
            "provider",
            "account",
            "region",
            "health",
            first=ASCENDING,
            more={"retired": present(NODE.c.retired_us)},
        ),
        _listing(
            "windows",
            "Assessed SLA windows.",
            SLA_WINDOW,
            ("position",),
            "node",
            "provider",
        ),
        _listing("slashes", "Slashes.", SLASH, ("position",), "provider", "node", "fault", "pot"),
        _listing(
            "pots",
            "Pots of frozen stake.",
            POT,
            ("position",),
            "provider",
            more={"divided": present(POT.c.divided_us)},
        ),
        _listing(
            "evidence", "Accepted evidence.", EVIDENCE, ("position",), "pot", "provider", "node"
        ),
        _listing(
            "contradictions",
            "Contradictions as the metering shards found them.",
            CONTRADICTION,
            ("shard", "position"),
            "shard",
            "node",
            "lease",
            "key",
        ),
        _listing(
            "epochs", "Epochs.", EPOCH, ("number",), more={"anchored": present(EPOCH.c.anchored_us)}
        ),
        _listing(
            "payables",
            "What epochs made payable.",
            PAYABLE,
            ("epoch", "account"),
            "epoch",
            "account",
        ),
        _listing("parameters", "Parameters in force.", PARAMETER, ("name",), first=ASCENDING),
        _listing(
            "catalogue",
            "The price list in row order.",
            CATALOGUE,
            ("number",),
            "resource",
            "how",
            "revenue",
            "market",
            first=ASCENDING,
        ),
    )
}

#: Events of one ledger by position; orders of an open round are hidden.
EVENTS: Final = Listing(
    name="history",
    doc="Recorded events of one ledger, decoded; accepted telemetry is left out.",
    source=HISTORY,
    key=(HISTORY.c.position,),
    filters={
        "aggregate": equals(HISTORY.c.aggregate, octets),
        "height": equals(HISTORY.c.height, integer),
        "from": Filter(integer, lambda value: HISTORY.c.position >= value),
        "to": Filter(integer, lambda value: HISTORY.c.position < value),
        "since_us": Filter(integer, lambda value: HISTORY.c.at_us >= value),
        "until_us": Filter(integer, lambda value: HISTORY.c.at_us < value),
    },
    first=ASCENDING,
    hidden=and_(HISTORY.c.sealed_by.is_not(None), _unseen(HISTORY.c.sealed_by, HISTORY.c.position)),
    left_out=frozenset({"sealed_by"}),
)
