"""Every list with any filters, order and page size: what looking at all of the log gives."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Table

from adapters.api_json import jsonable
from adapters.api_listings import LISTINGS, Listing
from adapters.api_problems import Problem
from domain.commit import Ledger
from domain.record import RECORDS
from projections.fold_rows import Row
from projections.tables import BID, HISTORY, INSTRUMENT, OFFER
from tests.api.conftest import Scene
from tests.api.test_listings import PRESENT
from tests.projections.ledgers import HandNetwork, codec
from tests.projections.plain import plain_fold

#: Lists of orders: those of an open round are nobody's to see.
SEALED = ("orders", "offers", "bids")
#: What a list of the history may be narrowed by, and how a row is held against the value.
SPANS: Mapping[str, Any] = {
    "from": lambda row, value: row["position"] >= value,
    "to": lambda row, value: row["position"] < value,
    "since_us": lambda row, value: row["at_us"] >= value,
    "until_us": lambda row, value: row["at_us"] < value,
    "height": lambda row, value: row["height"] == value,
    "aggregate": lambda row, value: row["aggregate"] == value,
}

LONG = os.environ.get("SYNOR_LONG") == "1"
_LAW = settings(
    max_examples=2_000 if LONG else 50,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@cache
def _tables(network: HandNetwork) -> dict[Table, list[Row]]:
    """The whole log, folded plainly."""
    return {table: list(rows.values()) for table, rows in plain_fold(network).items()}


@cache
def _rows(network: HandNetwork, name: str) -> list[Row]:
    """What a list holds before any filter."""
    tables = _tables(network)
    if name == "orders":
        found = [_order("BID", row) for row in tables[BID]]
        found += [_order("ASK", row) for row in tables[OFFER]]
    else:
        source = LISTINGS[name].source
        assert isinstance(source, Table)
        found = tables[source]
    if name in SEALED:
        found = [row for row in found if _seen(network, row["instrument"], row["position"])]
    return found


def _seen(network: HandNetwork, instrument: bytes | None, position: int) -> bool:
    return any(
        row["instrument"] == instrument and row["cleared_position"] > position
        for row in _tables(network)[INSTRUMENT]
    )


def _order(side: str, row: Row) -> Row:
    bid = side == "BID"
    return {
        "side": side,
        "order": row["bid" if bid else "offer"],
        **{name: row[name] for name in ("order_no", "instrument", "resource", "region")},
        "account": row["account"],
        "node": None if bid else row["node"],
        "quantity_milli": row["quantity_milli"],
        "open_milli": row["open_lots"] * row["lot_milli"]
        if bid
        else row["quantity_milli"] - row["leased_milli"],
        "price_nano": row["limit_nano" if bid else "ask_nano"],
        **{name: row[name] for name in ("placed_us", "state", "position")},
    }


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.hex() if isinstance(value, bytes) else str(value)


def _asked(scene: Scene, path: str, given: Mapping[str, str]) -> list[Any]:
    """Every item, page by page."""
    items: list[Any] = []
    cursor: dict[str, str] = {}
    for _ in range(2_000):
        answer = scene.client.get(f"/v1/{path}", params={**given, **cursor})
        assert answer.status_code == 200, answer.text
        page = answer.json()
        assert len(page["items"]) <= int(given["limit"])
        items += page["items"]
        if page["next"] is None:
            return items
        cursor = {"cursor": page["next"]}
    raise AssertionError("the pages do not end")


def _limit(draw: Any, rows: int) -> str:
    """Small pages too, but not thousands of them."""
    return str(draw(st.integers(max(1, rows // 8), 200)))


def _cannot_be(listing: Listing, name: str, text: str) -> bool:
    """Whether no row of any log can have the value: a word that a closed list lacks."""
    try:
        listing.filters[name].parse(name, text)
    except Problem:
        return True
    return False


@_LAW
@given(st.data())
def test_a_list_with_any_filters_is_a_filter_over_the_log(
    shared: Scene, data: st.DataObject
) -> None:
    """Values that occur, values of other rows, values that nobody has; any order and page size."""
    name = data.draw(st.sampled_from(sorted(LISTINGS)))
    listing = LISTINGS[name]
    rows = _rows(shared.network, name)
    filters = sorted(listing.filters) if rows else []
    chosen = data.draw(st.permutations(filters))[: data.draw(st.integers(0, 4))]
    asked: dict[str, str] = {}
    expected = rows
    for each in chosen:
        column = PRESENT.get(each, each)
        value = data.draw(st.sampled_from(rows))[column]
        if each in PRESENT:
            there = data.draw(st.booleans())
            asked[each] = _text(there)
            expected = [row for row in expected if (row[column] is not None) is there]
        elif value is not None:
            if data.draw(st.integers(0, 9)) == 0 and not isinstance(value, bool):
                value = value + type(value)(1) if isinstance(value, int) else value + value
                if _cannot_be(listing, each, _text(value)):
                    answer = shared.client.get(f"/v1/{name}", params={each: _text(value)})
                    assert (answer.status_code, answer.json()["name"]) == (400, "bad_parameter")
                    continue
            asked[each] = _text(value)
            expected = [row for row in expected if row[column] == value]
    order = data.draw(st.sampled_from(["asc", "desc"]))
    expected = sorted(
        expected,
        key=lambda row: tuple(row[column.name] for column in listing.key),
        reverse=order == "desc",
    )
    limit = _limit(data.draw, len(expected))
    found = _asked(shared, name, {**asked, "order": order, "limit": limit})
    assert found == [jsonable(row) for row in expected], (name, asked)


@_LAW
@given(st.data())
def test_the_history_with_any_filters_is_a_filter_over_the_log(
    shared: Scene, data: st.DataObject
) -> None:
    """By ledger, shard, type, aggregate, height, and spans of positions and of time."""
    ledger = data.draw(st.sampled_from(Ledger))
    shards = shared.network.shards if ledger is Ledger.METERING else 1
    shard = data.draw(st.integers(0, shards - 1))
    rows = [
        row
        for row in _tables(shared.network)[HISTORY]
        if (row["ledger"], row["shard"]) == (int(ledger), shard)
    ]
    asked = {"ledger": ledger.name.lower(), "shard": str(shard)}
    expected = [
        row
        for row in rows
        if row["sealed_by"] is None or _seen(shared.network, row["sealed_by"], row["position"])
    ]
    for each in data.draw(st.lists(st.sampled_from(sorted(SPANS)), unique=True, max_size=3)):
        value = data.draw(st.sampled_from(rows))["position" if each in ("from", "to") else (
            "at_us" if each.endswith("_us") else each
        )]  # fmt: skip
        asked[each] = _text(value)
        expected = [row for row in expected if SPANS[each](row, value)]
    if data.draw(st.booleans()):
        schema = data.draw(st.sampled_from(rows))["schema"]
        asked["type"] = codec().kind(schema).NAME
        assert asked["type"] in RECORDS
        expected = [row for row in expected if row["schema"] == schema]
    order = data.draw(st.sampled_from(["asc", "desc"]))
    expected = sorted(expected, key=lambda row: row["position"], reverse=order == "desc")
    limit = _limit(data.draw, len(expected))
    found = _asked(shared, "history", {**asked, "order": order, "limit": limit})
    assert [item["position"] for item in found] == [row["position"] for row in expected]
    for item, row in zip(found, expected, strict=True):
        kind: Any = codec().kind(row["schema"])
        assert item["type"] == kind.NAME
        assert item["data"] == jsonable(codec().decode(kind, row["payload"]))
        assert item["aggregate"] == row["aggregate"].hex()
