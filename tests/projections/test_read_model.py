"""The read model: all or nothing, wherever it is cut, whoever else writes, in both databases."""

from __future__ import annotations

import random
import unittest
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from eventsourcing.persistence import TrackingRecorder
from eventsourcing.tests import persistence as shipped
from sqlalchemy import select

import adapters.projector
from adapters.read_model import ReadModel, ReadModelStale, Standing
from adapters.read_model_generation import Generation
from domain.chain import LedgerStopped
from domain.commit import LEDGER_TOPICS, Ledger
from domain.journal import Balances
from projections.following import Overtaken
from projections.order_book import OrderBook
from projections.orders import RESTING
from projections.tables import (
    BALANCE,
    BID,
    INSTRUMENT,
    LEASE,
    OFFER,
    PARAMETER,
    POSTING,
    PROVIDER,
)
from tests.projections.ledgers import HandNetwork
from tests.projections.plain import assert_equal, contents, events_of
from tests.projections.story import Story, tell_story

Open = Callable[[], ReadModel]


def _told(seed: int, events: int = 600) -> tuple[HandNetwork, Story]:
    network = HandNetwork()
    return network, tell_story(network, seed, events)


@pytest.mark.parametrize("seed", [1, 2])
def test_the_rows_are_those_of_a_plain_fold_of_the_same_log(
    open_read_model: Open, seed: int
) -> None:
    """Caches, batches and databases change nothing."""
    network, _ = _told(seed)
    read_model = open_read_model()
    read_model.prepare(network.hash)
    network.projector(read_model).catch_up()
    with read_model.reading() as connection:
        assert_equal(network, connection)


def test_small_batches_give_the_rows_of_large_ones(
    open_read_model: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No fold may see where a transaction ends."""
    network, _ = _told(3, 300)
    read_model = open_read_model()
    read_model.prepare(network.hash)
    monkeypatch.setattr(adapters.projector, "READ_BYTES", 1)
    network.projector(read_model).catch_up()
    with read_model.reading() as connection:
        assert_equal(network, connection)


def test_a_projector_killed_anywhere_goes_on_to_equal_rows(
    open_read_model: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows and position are written together: between batches, and within one."""
    network, _ = _told(4, 400)
    monkeypatch.setattr(adapters.projector, "READ_BYTES", 40_000)
    dice = random.Random(4)

    class Killed(Exception):
        """Stands for the end of the process."""

    def killed(*_: Any) -> None:
        raise Killed

    moved = True
    kills = 0
    while moved:
        read_model = open_read_model()
        read_model.prepare(network.hash)
        dies = dice.random() < 0.5 and kills < 8
        projector = network.projector(read_model)
        try:
            with monkeypatch.context() as here:
                if dies:
                    here.setattr(Generation, "_consume", killed)
                for _ in range(dice.randrange(1, 3)):
                    moved = projector.turn()
        except Killed:
            kills += 1
            read_model.close()
    assert kills
    with open_read_model().reading() as connection:
        assert_equal(network, connection)


def test_a_zombie_projector_changes_nothing(open_read_model: Open) -> None:
    """Who was overtaken while it slept writes no row and reads on from the new position."""
    network, _ = _told(5, 200)
    awake, asleep = open_read_model(), open_read_model()
    awake.prepare(network.hash)
    zombie = network.projector(asleep)
    before = asleep.position("Market0")
    network.projector(awake).catch_up()
    with awake.reading() as connection:
        expected = contents(connection)
    with pytest.raises(Overtaken):
        asleep.apply(before, replace(before, height=5, next_offset=6), [])
    zombie.catch_up()
    with awake.reading() as connection:
        assert contents(connection) == expected
    tell_more = Story(network=network, random=random.Random(1), time_us=network.now_us)
    tell_more.open_account()
    tell_more.flush()
    zombie.catch_up()
    network.projector(awake).catch_up()
    with awake.reading() as connection:
        assert_equal(network, connection)


def test_two_projectors_in_turns_make_the_rows_of_one(
    open_read_model: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ownership is for liveness; safety never depends on it."""
    network, _ = _told(6, 200)
    monkeypatch.setattr(adapters.projector, "READ_BYTES", 5_000)
    first = open_read_model()
    first.prepare(network.hash)
    projectors = [network.projector(first), network.projector(open_read_model())]
    moved = [True]
    while any(moved):
        moved = [projector.turn() for projector in projectors]
    with first.reading() as connection:
        assert_equal(network, connection)


def test_tables_of_another_network_are_not_used(open_read_model: Open) -> None:
    """Two networks never mix in one database; who wants the other one there removes the first."""
    read_model = open_read_model()
    assert read_model.prepare(bytes(32)) is Standing.CURRENT
    assert read_model.prepare(bytes(32)) is Standing.CURRENT
    with pytest.raises(ReadModelStale, match="another network"):
        read_model.prepare(b"\1" * 32)
    read_model.drop()
    with pytest.raises(ReadModelStale, match="no read models"):
        read_model.position("Market0")
    assert read_model.prepare(b"\1" * 32) is Standing.CURRENT
    assert read_model.position("Market0").height == -1


def test_a_log_that_lost_commits_stops_the_projector(open_read_model: Open) -> None:
    """Rows of commits that are gone must not be read on from."""
    network, _ = _told(8, 100)
    read_model = open_read_model()
    read_model.prepare(network.hash)
    network.projector(read_model).catch_up()
    network.log.truncate(LEDGER_TOPICS[Ledger.MARKET], 0, end=2)
    with pytest.raises(LedgerStopped, match="truncated"):
        network.projector(read_model).turn()


def test_a_fork_stops_the_projector_and_is_shown(open_read_model: Open) -> None:
    """What counts before it is shown, and why it goes no further."""
    network, _ = _told(9, 100)
    read_model = open_read_model()
    read_model.prepare(network.hash)
    height = network.market.height
    network.market.previous = b"\7" * 32
    network.market.commit(network.now_us, [])
    with pytest.raises(LedgerStopped, match="fork"):
        network.projector(read_model).catch_up()
    position = read_model.position("Market0")
    assert position.height == height
    assert position.stopped is not None
    assert "fork" in position.stopped


def test_noise_is_counted_and_changes_no_row(open_read_model: Open) -> None:
    """A record that does not count is nobody's business but the operator's."""
    network, _ = _told(10, 100)
    topic = LEDGER_TOPICS[Ledger.MARKET]
    first = network.log.read(topic, 0, 1, max_bytes=1).records[0]
    network.log.append(topic, 0, first.value)
    network.log.append(topic, 0, b"garbage")
    read_model = open_read_model()
    read_model.prepare(network.hash)
    network.projector(read_model).catch_up()
    assert read_model.position("Market0").noise_count == 2
    with read_model.reading() as connection:
        assert_equal(network, connection)


def test_balances_are_those_of_the_journal(open_read_model: Open) -> None:
    """The rows agree with the fold by which the market decides, and postings add up to them."""
    network, story = _told(11)
    read_model = open_read_model()
    read_model.prepare(network.hash)
    network.projector(read_model).catch_up()
    balances = Balances()
    for _, event in story.everything:
        balances.post(getattr(event, "postings", ()))
    with read_model.reading() as connection:
        rows = connection.execute(select(BALANCE.c.purse, BALANCE.c.owner, BALANCE.c.amount_nano))
        assert {(purse, owner): nano for purse, owner, nano in rows} == {
            (purse.value, owner): nano for (purse, owner), nano in balances.all().items()
        }
        added: dict[Any, int] = {}
        for row in connection.execute(select(POSTING).order_by(POSTING.c.position, POSTING.c.row)):
            key = (row.purse, row.owner)
            added[key] = added.get(key, 0) + row.amount_nano
            assert row.balance_nano == added[key]


def test_money_wider_than_64_bits_is_kept_exactly(open_read_model: Open) -> None:
    """Totals are 128-bit (R1.6)."""
    network = HandNetwork()
    story = Story(network=network, random=random.Random(1))
    account = story.open_account(deposit_nano=2**100 + 1)
    story.flush()
    read_model = open_read_model()
    read_model.prepare(network.hash)
    network.projector(read_model).catch_up()
    with read_model.reading() as connection:
        chosen = select(BALANCE.c.amount_nano).filter_by(owner=account)
        assert connection.scalars(chosen).all() == [2**100 + 1]


def test_the_book_in_rows_is_that_of_the_market(open_read_model: Open) -> None:
    """What rests, and how much of it, as the in-process book has it."""
    network, _ = _told(12)
    book = OrderBook()
    for _, _, event in events_of(network, Ledger.MARKET, 0):
        book.apply(event)
    read_model = open_read_model()
    read_model.prepare(network.hash)
    network.projector(read_model).catch_up()
    seen = 0
    with read_model.reading() as connection:
        for instrument in connection.execute(select(INSTRUMENT)):
            bids, asks = book.orders(instrument.instrument)
            cleared = instrument.cleared_position
            rested = connection.execute(
                select(BID.c.bid, BID.c.open_lots)
                .filter_by(instrument=instrument.instrument, state=RESTING)
                .where(BID.c.position < cleared)
                .order_by(BID.c.limit_nano.desc(), BID.c.order_no)
            )
            assert list(rested) == [(bid.bid, bid.open_lots) for bid in bids]
            offered = connection.execute(
                select(OFFER.c.offer, OFFER.c.leased_milli)
                .filter_by(instrument=instrument.instrument, state=RESTING)
                .where(OFFER.c.position < cleared)
                .order_by(OFFER.c.ask_nano, OFFER.c.order_no)
            )
            assert list(offered) == [(ask.offer, ask.taken_milli) for ask in asks]
            seen += len(bids) + len(asks)
    assert seen


def test_a_provider_is_owed_what_its_leases_posted(open_read_model: Open) -> None:
    """The scorecard's running figures are sums over the leases' own."""
    network, _ = _told(13)
    read_model = open_read_model()
    read_model.prepare(network.hash)
    network.projector(read_model).catch_up()
    with read_model.reading() as connection:
        posted: dict[bytes, int] = {}
        for lease in connection.execute(select(LEASE)):
            posted[lease.provider] = posted.get(lease.provider, 0) + lease.provider_nano
        providers = connection.execute(select(PROVIDER.c.provider, PROVIDER.c.posted_nano))
        assert {name: nano for name, nano in providers if nano} == {
            name: nano for name, nano in posted.items() if nano
        }


def test_the_genesis_fills_the_parameters(open_read_model: Open) -> None:
    """No number of the rules is a constant of the program."""
    network = HandNetwork()
    read_model = open_read_model()
    read_model.prepare(network.hash)
    network.projector(read_model).catch_up()
    with read_model.reading() as connection:
        row = connection.execute(select(PARAMETER).filter_by(name="round_us")).one()
    assert row.value == network.genesis.parameters.round_us


def test_the_projector_says_how_far_it_is(
    open_read_model: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Position, end and lag of each ledger."""
    network, _ = _told(14, 60)
    read_model = open_read_model()
    read_model.prepare(network.hash)
    projector = network.projector(read_model)
    assert [status.lag for status in projector.status()] == [None] * 4
    monkeypatch.setattr(adapters.projector, "READ_BYTES", 1)
    projector.turn()
    market = projector.status()[0]
    assert market.height == 0
    assert market.lag == network.market.height
    projector.catch_up()
    assert [status.lag for status in projector.status()] == [0] * 4


def test_the_librarys_tracking_recorder_cases_pass(open_read_model: Open) -> None:
    """The test cases that ``eventsourcing`` ships, unmodified."""
    read_model = open_read_model()

    class Cases(shipped.TrackingRecorderTestCase):
        """Run on the read model."""

        def create_recorder(self) -> TrackingRecorder:
            """A read model in which no ledger was followed yet."""
            read_model.drop()
            read_model.prepare(bytes(32))
            return read_model

    outcome = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(Cases).run(outcome)
    assert outcome.testsRun == 2
    assert outcome.wasSuccessful(), outcome.failures + outcome.errors
