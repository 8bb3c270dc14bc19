"""What does not fit one event comes in several: the rows tell of all of them together."""

from __future__ import annotations

from typing import Any

import pytest

from domain import market_epochs, market_orders
from domain.account import Withdraw
from domain.commit import Ledger, RecordedEvent
from domain.epoch import EpochCut, PayablesAdded
from domain.ids import Wide
from domain.round import FillsAdded, RoundCleared
from projections.fold import fold
from projections.fold_rows import At, Rows
from projections.tables import EPOCH, INSTRUMENT, PAYABLE, ROUND, TRADE
from tests.domain.deals import bid, clear, market_of, offer
from tests.support.market import SYNOR, World, codec


def rows_of(world: World) -> Rows:
    """The market's events of a world, folded in memory."""
    rows = Rows()
    for position, recorded in enumerate(world.recorded, 1):
        event = recorded.event
        at = At(Ledger.MARKET, 0, position, position, event.NAME)
        data = RecordedEvent(recorded.aggregate, recorded.version, 0, codec().encode(event))
        fold(rows, at, data, event)
    return rows


def only(rows: Rows, table: Any) -> dict[str, Any]:
    """The one row of a table."""
    (row,) = rows.contents(table).values()
    return row


def test_a_round_that_clears_in_parts_has_the_volume_of_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """R8.1: three fills, two an event; the round, its instrument and the trades agree."""
    monkeypatch.setattr(market_orders, "FILLS_PER_EVENT", 2)
    world, nodes = market_of(nodes=3)
    for node in nodes:
        offer(world, "alice", node)
    bid(world, "bob", quantity_milli=3000, lot_milli=1000)
    clear(world)
    assert len(world.events(FillsAdded)) == len(world.events(RoundCleared)) == 1
    rows = rows_of(world)
    assert only(rows, ROUND)["volume_milli"] == only(rows, INSTRUMENT)["volume_milli"] == 3000
    assert sum(trade["quantity_milli"] for trade in rows.contents(TRADE).values()) == 3000


def test_an_epoch_counts_the_accounts_and_money_of_its_full_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """R9.1: two epochs of three accounts, two a part; the second does not count the first's."""
    monkeypatch.setattr(market_epochs, "PAYABLES_MAX", 2)
    world = World()
    for nano, name in enumerate(("alice", "bob", "carol"), 1):
        world.open(name, nano * SYNOR)
    for _ in range(2):
        for nano, name in enumerate(("alice", "bob", "carol"), 1):
            world.ok(name, Withdraw(amount_nano=Wide(nano)))
        world.wait(world.parameters.epoch_us)
    assert len(world.events(PayablesAdded)) == len(world.events(EpochCut)) == 2
    rows = rows_of(world)
    epochs = rows.contents(EPOCH).values()
    assert [(row["accounts"], row["added_nano"]) for row in epochs] == [(3, 6), (3, 6)]
    assert len(rows.contents(PAYABLE)) == 6
