"""What is asked for singly: a lease with its lines, an account's money, a scorecard, a book.

Each function takes a connection that shows one state of the read models, and gives plain rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import Connection, Table, and_, func, select

from adapters.api_problems import NOT_FOUND, Problem, code_of
from adapters.api_troubles import refuse_money
from domain.codec import Codec
from domain.commit import Ledger
from domain.journal import Purse
from projections.following import application_name
from projections.orders import RESTING
from projections.tables import (
    ACCOUNT,
    ANSWER,
    ATTESTATION,
    BALANCE,
    BID,
    CATALOGUE,
    CHECKPOINT,
    CLAIM,
    CONSUMED,
    EPOCH,
    HISTORY,
    INSTRUMENT,
    KEY,
    LEASE,
    LEASE_LINE,
    METER_NODE,
    METER_STATEMENT,
    NODE,
    NODE_CAPACITY,
    OFFER,
    PARAMETER,
    POSITION,
    POT,
    PROVIDER,
    SHARE,
    SLA_WINDOW,
    SLASH,
)

BOOK_DEPTH: Final = 200
_LATEST: Final = 10
_EVENTS_BACK: Final = 2_100

Row = dict[str, Any]


def heights(connection: Connection, shards: int) -> Row:
    """The position that an answer reflects: the height of each ledger, -1 before its first."""
    found = dict(connection.execute(select(POSITION.c.application, POSITION.c.height)).all())
    return {
        "market": found.get(application_name(Ledger.MARKET, 0), -1),
        "metering": [
            found.get(application_name(Ledger.METERING, shard), -1) for shard in range(shards)
        ],
        "settlement": found.get(application_name(Ledger.SETTLEMENT, 0), -1),
    }


def followed(connection: Connection) -> list[Row]:
    """Where each ledger was followed to."""
    columns = (
        POSITION.c.application,
        POSITION.c.notification_id.label("events"),
        POSITION.c.height,
        POSITION.c.hash,
        POSITION.c.time_us,
        POSITION.c.next_offset,
        POSITION.c.noise_count.label("noise"),
        POSITION.c.stopped,
    )
    chosen = select(*columns).order_by(POSITION.c.application)
    return [dict(row) for row in connection.execute(chosen).mappings()]


def consumed(connection: Connection, application: str, topic: str, partition: int) -> int:
    """The first offset of an input that a ledger has not consumed, as far as it is followed."""
    chosen = select(CONSUMED.c.next).where(
        CONSUMED.c.application == application,
        CONSUMED.c.topic == topic,
        CONSUMED.c.partition == partition,
    )
    return connection.scalar(chosen) or 0


def one(connection: Connection, table: Table, **key: Any) -> Row:
    """The row of a key. Raises ``Problem`` where there is none."""
    found = maybe(connection, table, **key)
    if found is None:
        texts = {n: value.hex() if isinstance(value, bytes) else value for n, value in key.items()}
        own = texts.keys() <= {table.name, "number"}
        named = ", ".join(f"{text}" if own else f"{name} {text}" for name, text in texts.items())
        raise Problem(NOT_FOUND, f"there is no {table.name} {'' if own else 'with '}{named}")
    return found


def maybe(connection: Connection, table: Table, **key: Any) -> Row | None:
    """The row of a key, or None."""
    chosen = select(table).where(and_(*(table.c[name] == value for name, value in key.items())))
    row = connection.execute(chosen).mappings().first()
    return None if row is None else dict(row)


def _all(connection: Connection, chosen: Any) -> list[Row]:
    return [dict(row) for row in connection.execute(chosen).mappings()]


# Money


def account(connection: Connection, account_id: bytes) -> Row:
    """An account with its keys and, by purse, all that is its money wherever it stands."""
    refuse_money(connection, BALANCE)
    opened = maybe(connection, ACCOUNT, account=account_id)
    purses: dict[str, tuple[int, int]] = {}
    held = select(BALANCE.c.purse, BALANCE.c.amount_nano).where(BALANCE.c.account == account_id)
    for purse, amount in connection.execute(held):
        total, places = purses.get(purse, (0, 0))
        purses[purse] = (total + amount, places + 1)
    if opened is None and not purses:
        raise Problem(NOT_FOUND, f"there is no account {account_id.hex()}")
    keys = select(KEY).where(KEY.c.account == account_id).order_by(KEY.c.position, KEY.c.key)
    provider = connection.scalar(select(PROVIDER.c.provider).filter_by(account=account_id))
    return {
        "account": account_id,
        "opened": opened,
        "provider": provider,
        "keys": _all(connection, keys.limit(_EVENTS_BACK)),
        "purses": [
            {"purse": purse.value, "amount_nano": purses[purse.value][0], "places": places}
            for purse in Purse
            if (places := purses.get(purse.value, (0, 0))[1])
        ],
    }


def purse(connection: Connection, kind: Purse, owner: bytes) -> int:
    """What stands on a purse."""
    return (
        connection.scalar(select(BALANCE.c.amount_nano).filter_by(purse=kind.value, owner=owner))
        or 0
    )


def lease(connection: Connection, lease_id: bytes) -> Row:
    """A lease with its lines in row order, what is left in its escrows, what its shard stated."""
    refuse_money(connection, LEASE)
    found = one(connection, LEASE, lease=lease_id)
    lines = (
        select(LEASE_LINE)
        .join(CATALOGUE, CATALOGUE.c.resource == LEASE_LINE.c.resource, isouter=True)
        .where(LEASE_LINE.c.lease == lease_id)
        .order_by(CATALOGUE.c.number, LEASE_LINE.c.resource)
    )
    found["escrow_allocated_left_nano"] = purse(connection, Purse.ESCROW_ALLOCATED, lease_id)
    found["escrow_usage_left_nano"] = purse(connection, Purse.ESCROW_USAGE, lease_id)
    found["lines"] = _all(connection, lines)
    found["stated"] = maybe(connection, METER_STATEMENT, lease=lease_id)
    for each in (*found["lines"], found["stated"] or {}):
        each.pop("lease", None)
    return found


# Providers and nodes


def provider(connection: Connection, provider_id: bytes) -> Row:
    """The scorecard: commitment, stake against what is required, nodes, uptime, slashes, earned."""
    refuse_money(connection, PROVIDER)
    found = one(connection, PROVIDER, provider=provider_id)
    pots = select(POT.c.pot, BALANCE.c.amount_nano).where(
        POT.c.provider == provider_id,
        BALANCE.c.owner == POT.c.pot,
        BALANCE.c.purse == Purse.POT.value,
    )
    found["bonded_nano"] = purse(connection, Purse.STAKE, provider_id)
    found["unbonding_nano"] = purse(connection, Purse.UNBONDING, provider_id)
    found["frozen_nano"] = sum(row.amount_nano for row in connection.execute(pots))
    found["pending_nano"] = purse(connection, Purse.PENDING, found["account"])
    found["earned_nano"] = purse(connection, Purse.EARNED, found["account"])
    obliged = found["obliged_us"]
    found["up_ppm"] = (obliged - found["down_us"]) * 1_000_000 // obliged if obliged else None
    health = (
        select(NODE.c.health, func.count())
        .where(NODE.c.provider == provider_id, NODE.c.retired_us.is_(None))
        .group_by(NODE.c.health)
    )
    found["health"] = dict(connection.execute(health).all())
    for name, table in (
        ("latest_windows", SLA_WINDOW),
        ("latest_slashes", SLASH),
        ("latest_pots", POT),
    ):
        latest = select(table).where(table.c.provider == provider_id)
        found[name] = _all(connection, latest.order_by(table.c.position.desc()).limit(_LATEST))
    return found


def node(connection: Connection, node_id: bytes) -> Row:
    """A node with its capacity, what of it is leased, its attestations and its shard's view."""
    found = one(connection, NODE, node=node_id)
    has = select(NODE_CAPACITY).filter_by(node=node_id).order_by(NODE_CAPACITY.c.resource)
    vouched = select(ATTESTATION).filter_by(node=node_id).order_by(ATTESTATION.c.position.desc())
    found["capacity"] = _all(connection, has)
    found["attestations"] = _all(connection, vouched.limit(_LATEST))
    found["metering"] = maybe(connection, METER_NODE, node=node_id)
    return found


# The book


def book(connection: Connection, instrument: bytes, level: int) -> Row:
    """L2 (by price) or L3 (by order) of what rests from closed rounds, best first."""
    found = one(connection, INSTRUMENT, instrument=instrument)
    cleared = found["cleared_position"]
    bids = (
        select(
            BID.c.bid.label("order"),
            BID.c.order_no,
            BID.c.limit_nano.label("price_nano"),
            (BID.c.open_lots * BID.c.lot_milli).label("quantity_milli"),
            BID.c.lot_milli,
            BID.c.reserved,
        )
        .where(
            BID.c.instrument == instrument,
            BID.c.state == RESTING,
            BID.c.position < cleared,
            BID.c.open_lots > 0,
        )
        .order_by(BID.c.limit_nano.desc(), BID.c.order_no)
    )
    asks = (
        select(
            OFFER.c.offer.label("order"),
            OFFER.c.order_no,
            OFFER.c.ask_nano.label("price_nano"),
            (OFFER.c.quantity_milli - OFFER.c.leased_milli).label("quantity_milli"),
            OFFER.c.node,
            OFFER.c.provider,
            OFFER.c.interruptible,
            NODE.c.health,
        )
        .join(NODE, NODE.c.node == OFFER.c.node, isouter=True)
        .where(
            OFFER.c.instrument == instrument,
            OFFER.c.state == RESTING,
            OFFER.c.position < cleared,
        )
        .order_by(OFFER.c.ask_nano, OFFER.c.order_no)
    )
    if level == 3:
        sides = {
            "bids": _all(connection, bids.limit(BOOK_DEPTH)),
            "asks": _all(connection, asks.limit(BOOK_DEPTH)),
        }
    else:
        sides = {
            name: _levels(connection, side.order_by(None).subquery(), downward=name == "bids")
            for name, side in (("bids", bids), ("asks", asks))
        }
    return {"instrument": found, "level": level, **sides}


def _levels(connection: Connection, side: Any, *, downward: bool) -> list[Row]:
    price = side.c.price_nano
    summed = (
        select(
            price,
            func.sum(side.c.quantity_milli).label("quantity_milli"),
            func.count().label("orders"),
        )
        .group_by(price)
        .order_by(price.desc() if downward else price)
        .limit(BOOK_DEPTH)
    )
    return [
        {**row, "quantity_milli": int(row["quantity_milli"])}
        for row in connection.execute(summed).mappings()
    ]


def instrument_at(connection: Connection, resource: str, region: str) -> bytes:
    """The instrument of a device and a region."""
    found: bytes = one(connection, INSTRUMENT, resource=resource, region=region)["instrument"]
    return found


# Epochs


def epoch(connection: Connection, number: int) -> Row:
    """An epoch as the market cut it, and settlement's checkpoint of it."""
    refuse_money(connection, EPOCH, CHECKPOINT)
    found = one(connection, EPOCH, number=number)
    found["checkpoint"] = maybe(connection, CHECKPOINT, epoch=number)
    return found


def latest_anchored(connection: Connection) -> int:
    """The last epoch that is final on L1. Raises ``Problem`` where there is none."""
    refuse_money(connection, EPOCH)
    found = connection.scalar(
        select(func.max(EPOCH.c.number)).where(EPOCH.c.anchored_us.is_not(None))
    )
    if found is None:
        raise Problem(NOT_FOUND, "no epoch is anchored yet")
    return int(found)


def claimed(connection: Connection, account_id: bytes) -> int:
    """All that an account ever claimed, as far as it is final on L1."""
    latest = select(CLAIM.c.cumulative_nano).filter_by(account=account_id)
    return connection.scalar(latest.order_by(CLAIM.c.position.desc()).limit(1)) or 0


# Settings


def shares(connection: Connection) -> list[Row]:
    """The protocol's share of each class of revenue."""
    return _all(connection, select(SHARE).order_by(SHARE.c.revenue))


def parameter(connection: Connection, name: str, otherwise: int) -> int:
    """A parameter in force, or the genesis' own before anything is followed."""
    found = maybe(connection, PARAMETER, name=name)
    return otherwise if found is None else int(found["value"])


# Events and answers


def event(row: Mapping[str, Any], codec: Codec) -> Row:
    """A row of the history with its event decoded."""
    kind: Any = codec.kind(row["schema"])
    return {
        **{name: value for name, value in row.items() if name not in ("payload", "sealed_by")},
        "type": kind.NAME,
        "data": codec.decode(kind, row["payload"]),
    }


def answer(
    connection: Connection, ledger: Ledger, key: bytes, session: int, number: int
) -> Row | None:
    """The answer to a number, or None where there is none yet."""
    return maybe(connection, ANSWER, ledger=int(ledger), key=key, session=session, number=number)


def told(connection: Connection, codec: Codec, found: Row) -> Row:
    """An answer as people read it: what it was, and the events or the refusal."""
    code = found["code"]
    said: Row = {
        **{
            name: found[name]
            for name in ("key", "session", "number", "kind", "at_us", "height", "shard", "digest")
        },
        "answer_position": found["position"],
        "accepted": code == 0,
    }
    if code:
        refusal = code_of(code)
        said.update(
            code=code, name=refusal.name, detail=found["detail"], remedy=refusal.remedy, events=[]
        )
        return said
    said["refused_rows"] = [
        {**row, "name": code_of(row["code"]).name, "remedy": code_of(row["code"]).remedy}
        for row in found["rows"]
    ]
    said["events"] = [event(row, codec) for row in events_of(connection, found)]
    return said


def events_of(connection: Connection, found: Row) -> list[Row]:
    """The events of an answered command: as many as it says, right before the answer."""
    last = found["position"]
    chosen = (
        select(HISTORY)
        .where(
            HISTORY.c.ledger == found["ledger"],
            HISTORY.c.shard == found["shard"],
            HISTORY.c.position < last,
            HISTORY.c.position >= last - found["events"],
        )
        .order_by(HISTORY.c.position)
    )
    return _all(connection, chosen)


def holder(connection: Connection, key: bytes) -> Row | None:
    """Who holds a key, as far as the market is followed."""
    return maybe(connection, KEY, key=key)
