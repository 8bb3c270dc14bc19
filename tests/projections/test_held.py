"""Poison: held per key with its reason while others go on; views of money stop, and say why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters.read_model import ReadModel
from domain.chain import LedgerStopped
from domain.commit import Ledger
from projections import held
from projections.fold import MONEY_TABLES
from projections.fold_rows import Key, Row, Rows, Unfoldable
from projections.held_tables import FOLDING, HELD, HELD_KEY
from projections.tables import BALANCE, HISTORY, INSTRUMENT, LEASE, NODE, POSTING, PROVIDER
from tests.projections.ledgers import HandNetwork
from tests.projections.plain import assert_equal, contents, plain_fold
from tests.projections.poison import (
    endless_volume,
    orphan_statement,
    stranger_falls,
    unstorable_region,
)
from tests.projections.story import Story, tell_story

Open = Callable[[], ReadModel]


def _poisoned(seed: int = 31) -> tuple[HandNetwork, Story]:
    network = HandNetwork()
    return network, tell_story(network, seed, 250)


def _tables(read_model: ReadModel) -> dict[Any, dict[Key, Row]]:
    with read_model.reading() as connection:
        return contents(connection)


def test_an_event_that_the_rows_cannot_take_is_held_with_its_reason_and_others_go_on(
    open_read_model: Open,
) -> None:
    """The health of a node that nobody registered waits, and so does what is said of it later."""
    network, story = _poisoned()
    sick = stranger_falls(story)
    stranger_falls(story, sick)
    story.fall()
    well = story.everything[-1][0]
    story.flush()
    read_model = open_read_model()
    read_model.prepare(network.hash)
    network.projector(read_model).catch_up()
    found = _tables(read_model)
    (key,) = found[HELD_KEY].values()
    assert key["aggregate"] == sick
    assert key["reason"] == "missing_row"
    assert key["why"] == f"there is no node {sick.hex()}"
    assert key["events"] == len(found[HELD]) == 2
    assert found[NODE][well,]["health"] == "DOWN"
    assert found[FOLDING][int(Ledger.MARKET), 0]["money_position"] is None
    with read_model.reading() as connection:
        assert_equal(network, connection)


@pytest.mark.parametrize(
    ("poison", "reason"),
    [
        (stranger_falls, "missing_row"),
        (unstorable_region, "unstorable_text"),
        (endless_volume, "out_of_range"),
    ],
)
def test_poison_is_the_same_in_memory_and_in_either_database(
    open_read_model: Open, poison: Callable[[Story], bytes], reason: str
) -> None:
    """A row that is missing, text and numbers that a database cannot store; money goes on."""
    network, story = _poisoned()
    aggregate = poison(story)
    story.open_account()
    story.flush()
    read_model = open_read_model()
    read_model.prepare(network.hash)
    network.projector(read_model).catch_up()
    found = _tables(read_model)
    assert [(key["aggregate"], key["reason"]) for key in found[HELD_KEY].values()] == [
        (aggregate, reason)
    ]
    balances = {(row["purse"], row["owner"]): row["amount_nano"] for row in found[BALANCE].values()}
    assert balances == {
        (purse.value, owner): nano for (purse, owner), nano in story.balances.all().items() if nano
    }
    with read_model.reading() as connection:
        assert_equal(network, connection)


def test_views_of_money_stop_at_the_event_and_everything_else_goes_on(
    open_read_model: Open,
) -> None:
    """A statement for a lease that is not there: no sum moves after it, orders and history do."""
    network, story = _poisoned()
    story.flush()
    before = plain_fold(network)
    orphan_statement(story)
    story.flush()
    at = network.market.tree.size
    story.open_account()
    story.offer()
    story.flush()
    read_model = open_read_model()
    read_model.prepare(network.hash)
    network.projector(read_model).catch_up()
    found = _tables(read_model)
    stopped = found[FOLDING][int(Ledger.MARKET), 0]
    assert stopped["money_position"] == at
    assert stopped["money_reason"] == "missing_row"
    assert stopped["money_event"].endswith("UsagePosted")
    for table in (BALANCE, POSTING, LEASE, PROVIDER):
        assert found[table] == before[table], table.name
    assert max(key[2] for key in found[HISTORY] if key[0] == Ledger.MARKET) > at
    assert max(row["position"] for row in found[INSTRUMENT].values()) >= (
        max(row["position"] for row in before[INSTRUMENT].values())
    )
    with read_model.reading() as connection:
        assert_equal(network, connection)


def test_every_view_that_shows_money_stops_and_no_other() -> None:
    """By the tables that they fill; orders, nodes, keys, answers and the history go on."""
    named = {table.name for table in MONEY_TABLES}
    assert {"balance", "posting", "claim", "lease", "lease_line", "provider", "epoch"} <= named
    assert {"payable", "payout_leaf", "checkpoint", "slash", "pot"} <= named
    assert not named & {"bid", "offer", "node", "key", "account", "answer", "history", "round"}


def test_what_is_held_is_bounded(open_read_model: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound the ledger is not followed further, and the read model says so."""
    network, story = _poisoned()
    monkeypatch.setattr(held, "HELD_MAX", 3)
    sick = stranger_falls(story)
    for _ in range(3):
        stranger_falls(story, sick)
    story.flush()
    read_model = open_read_model()
    read_model.prepare(network.hash)
    projector = network.projector(read_model)
    with pytest.raises(LedgerStopped, match="too_many_held"):
        projector.catch_up()
    market = next(each for each in projector.status() if each.ledger is Ledger.MARKET)
    assert market.stopped is not None
    assert market.stopped.startswith("too_many_held")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(st.sampled_from("ABC"), st.booleans(), st.integers(-(2**70), 2**70)),
        max_size=40,
    )
)
def test_whatever_fails_rows_are_those_of_the_events_that_were_taken(
    changes: list[tuple[str, bool, int]],
) -> None:
    """Undo leaves no trace: a fold with failures equals one in which they were never tried."""
    tried, taken = Rows(), Rows()

    def row(name: str, value: int) -> Row:
        return {
            "ledger": 1,
            "shard": 0,
            "position": value,
            "aggregate": name.encode(),
        }

    for name, doomed, value in changes:
        tried.begin()
        failed = False
        try:
            tried.put(HELD, row(name, 7))
            if doomed:
                tried.delete(HELD, 1, 0, 7)
            tried.put(HELD, row(name, value))
        except Unfoldable:
            failed = True
        if failed:
            tried.undo()
        else:
            tried.keep()
            taken.put(HELD, row(name, 7))
            if doomed:
                taken.delete(HELD, 1, 0, 7)
            taken.put(HELD, row(name, value))
        assert failed == (not -(2**63) <= value < 2**63)
    assert tried.contents(HELD) == taken.contents(HELD)
