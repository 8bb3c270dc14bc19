"""Read models made anew: the old ones serve until one transaction, wherever the maker dies."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy import inspect

import adapters.projector
import adapters.read_model
from adapters.bootstrap import Network
from adapters.metrics import Views
from adapters.projector import Projector
from adapters.read_model import (
    LEAVES_AFTER_US,
    BeingRebuilt,
    ReadModel,
    ReadModelStale,
    Standing,
)
from adapters.read_model_catalogue import State
from adapters.read_model_generation import Generation
from adapters.read_model_retry import Retry
from adapters.read_model_rows import SqlRows
from adapters.roles_follow import Following
from domain.commit import Ledger
from domain.lease import UsagePosted
from domain.node import NodeHealthChanged
from domain.ports import LogError
from projections.fold import HANDLERS, MONEY_HANDLERS
from projections.held import release, resume_money
from projections.held_tables import FOLDING, HELD_KEY
from tests.projections.ledgers import HandNetwork, codec
from tests.projections.plain import assert_equal, contents, plain_fold
from tests.projections.poison import endless_volume, orphan_statement, stranger_falls
from tests.projections.story import Story, tell_story
from tests.support.fault_matrix import FaultMatrix, Seen

Open = Callable[[], ReadModel]
NOW_US = 1_800_000_000_000_000


def _there(read_model: ReadModel) -> list[int]:
    """Generations whose tables are in the database, by number, as the database itself says."""
    engine = read_model.catalogue.engine
    if engine.dialect.name == "sqlite":
        folder = Path(str(engine.url.database)).parent
        return sorted(int(path.suffixes[-2][2:]) for path in folder.glob("*.g*.db"))
    names = inspect(engine).get_schema_names()
    return sorted(int(name[7:]) for name in names if name.startswith("synor_g"))


class _Named:
    """What who follows needs to know of a network."""

    def __init__(self, network: HandNetwork) -> None:
        self.hash = network.hash
        self.genesis = network.genesis
        self.shards = network.shards
        self.codec = codec()


def _filled(network: HandNetwork, target: Generation) -> Projector:
    return network.projector(target)  # type: ignore[arg-type]


def _told(seed: int, events: int = 150) -> tuple[HandNetwork, Story]:
    network = HandNetwork()
    return network, tell_story(network, seed, events)


def _serving(read_model: ReadModel, network: HandNetwork) -> None:
    read_model.prepare(network.hash)
    network.projector(read_model).catch_up()


def test_a_rebuild_is_seen_by_nobody_until_it_serves_and_then_by_all(
    open_read_model: Open,
) -> None:
    """Other connections and a projector of another process go on without a break."""
    network, story = _told(41)
    read_model, other = open_read_model(), open_read_model()
    _serving(read_model, network)
    follows = network.projector(other)
    entry, filled = read_model.begin(network.hash, NOW_US)
    projector = _filled(network, filled)
    while projector.turn():
        with other.reading() as connection:
            assert_equal(network, connection)
        assert read_model.catalogue.serving() != entry
    story.offer()
    story.flush()
    follows.catch_up()
    assert not read_model.switch(entry.number, filled, NOW_US)
    projector.catch_up()
    assert read_model.switch(entry.number, filled, NOW_US)
    assert read_model.switch(entry.number, filled, NOW_US)
    serving = other.catalogue.serving()
    assert serving is not None
    assert serving.number == entry.number
    with other.reading() as connection:
        assert_equal(network, connection)
    story.bid()
    story.flush()
    follows.catch_up()
    with read_model.reading() as connection:
        assert_equal(network, connection)
    filled.close()


def test_the_old_generation_goes_when_nobody_can_still_read_it(open_read_model: Open) -> None:
    """A minute after the switch; who reads at the switch reads on."""
    network, _ = _told(42, 60)
    read_model = open_read_model()
    _serving(read_model, network)
    entry, filled = read_model.begin(network.hash, NOW_US)
    _filled(network, filled).catch_up()
    with read_model.reading() as before:
        assert read_model.switch(entry.number, filled, NOW_US)
        assert_equal(network, before)
    read_model.sweep(NOW_US + LEAVES_AFTER_US - 1)
    assert [each.state for each in read_model.catalogue.entries()] == [
        State.LEAVING,
        State.SERVING,
    ]
    assert _there(read_model) == [1, 2]
    read_model.sweep(NOW_US + LEAVES_AFTER_US)
    assert [each.state for each in read_model.catalogue.entries()] == [State.SERVING]
    assert _there(read_model) == [2]
    with read_model.reading() as connection:
        assert_equal(network, connection)
    filled.close()


def test_a_rebuild_killed_anywhere_leaves_the_old_one_serving_and_is_gone_on_with(
    open_read_model: Open, monkeypatch: pytest.MonkeyPatch, fault_matrix: FaultMatrix
) -> None:
    """Between batches, within one, and on either side of the switch."""
    network, _ = _told(43, 150)
    monkeypatch.setattr(adapters.projector, "READ_BYTES", 8_000)
    first = open_read_model()
    _serving(first, network)
    old = first.catalogue.serving()
    assert old is not None

    class Killed(Exception):
        """Stands for the end of the process."""

    def killed(*_: Any, **__: Any) -> None:
        raise Killed

    plan: list[tuple[type[Any], str]] = [(Generation, "_consume")] * 3
    plan += [(ReadModel, "_switched")] * 2
    kills, numbers = 0, set()
    while True:
        read_model = open_read_model()
        entry, filled = read_model.begin(network.hash, NOW_US)
        numbers.add(entry.number)
        projector = _filled(network, filled)
        try:
            with monkeypatch.context() as here:
                for _ in range(kills):
                    projector.turn()
                if kills < len(plan):
                    here.setattr(*plan[kills], killed)
                projector.turn()
                if read_model.switch(entry.number, filled, NOW_US):
                    break
        except Killed:
            kills += 1
            with first.reading() as connection:
                assert_equal(network, connection)
            serving = first.catalogue.serving()
            assert serving is not None
            assert serving.number == old.number
        filled.close()
        read_model.close()
    assert kills == len(plan)
    assert len(numbers) == 1
    with first.reading() as connection:
        assert_equal(network, connection)
        rows, expected = contents(connection), plain_fold(network)
    lost = sum(len(expected[table].keys() - rows[table].keys()) for table in expected)
    doubled = sum(len(rows[table].keys() - expected[table].keys()) for table in expected)
    fault_matrix.record(
        Seen(
            fault="whoever rebuilds the read models is killed, before the switch and at it",
            where=f"read models, {first.catalogue.engine.dialect.name}",
            runs=kills,
            lost=lost,
            doubled=doubled,
            forked=0,
            test="tests/projections/test_rebuild.py",
        )
    )
    assert (lost, doubled) == (0, 0)
    filled.close()


def test_a_raised_version_asks_for_a_rebuild_and_the_old_one_serves_meanwhile(
    open_read_model: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It can be read, and is not written by folds that are not its own."""
    network, _ = _told(44, 80)
    old = open_read_model()
    _serving(old, network)
    monkeypatch.setattr(adapters.read_model, "VERSION", 10_000)
    new = open_read_model()
    assert new.prepare(network.hash) is Standing.OLD_FOLDS
    entry, filled = new.begin(network.hash, NOW_US)
    _filled(network, filled).catch_up()
    with new.reading() as connection:
        assert_equal(network, connection)
    assert new.switch(entry.number, filled, NOW_US)
    assert new.prepare(network.hash) is Standing.CURRENT
    filled.close()


def test_an_older_program_leaves_a_newer_generation_alone(
    open_read_model: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads it, but never folds into it by its own folds, also if it began before the switch."""
    network, story = _told(49, 60)
    old = open_read_model()
    _serving(old, network)
    follows = network.projector(old)
    follows.catch_up()
    with monkeypatch.context() as newer:
        newer.setattr(adapters.read_model, "VERSION", 10_000)
        new = open_read_model()
        entry, filled = new.begin(network.hash, NOW_US)
        _filled(network, filled).catch_up()
        assert new.switch(entry.number, filled, NOW_US)
        filled.close()
    assert old.prepare(network.hash) is Standing.NEWER
    story.offer()
    story.flush()
    with pytest.raises(BeingRebuilt, match="another version"):
        follows.turn()
    named = cast(Network, _Named(network))
    with pytest.raises(ReadModelStale, match="newer version"):
        Following(named, network.open_log(), old, lambda: NOW_US, print)


def test_who_follows_says_once_what_stands_still_and_when_it_is_mended(
    open_read_model: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And an old generation is rebuilt first; the figures show the same."""
    network, story = _told(50, 120)
    old = open_read_model()
    with monkeypatch.context() as older:
        older.setattr(adapters.read_model, "VERSION", 0)
        _serving(old, network)
    said: list[str] = []
    times = itertools.count(NOW_US, 2_000_000)
    read_model = open_read_model()
    following = Following(
        cast(Network, _Named(network)),
        network.open_log(),
        read_model,
        lambda: next(times),
        said.append,
    )
    assert "they are rebuilt" in said.pop()
    following.catch_up()
    assert read_model.prepare(network.hash) is Standing.OLD_FOLDS
    assert following.views().total_records > 0
    while following.turn() and not said:
        pass
    assert said == ["The read models are rebuilt and serve."]
    assert read_model.prepare(network.hash) is Standing.CURRENT
    stranger = stranger_falls(story)
    lease = orphan_statement(story)
    story.flush()
    following.catch_up()
    following.turn()
    held, money = said[1:]
    assert stranger.hex() in held
    assert lease.hex() in money
    assert "synor projections retry" in money
    assert following.views() == Views(held_keys=1, held_events=1, money_stopped=1)
    assert [each.lag_events for each in following.status()] == [0] * 4
    market, position = int(Ledger.MARKET), network.market.tree.size - 1

    def mended(rows: SqlRows, _: object) -> None:
        """As if what stood in the way had been mended and taken."""
        release(rows, market, 0, stranger, position)
        resume_money(rows, market, 0)

    read_model.mend(mended)
    following.turn()
    assert said[3:] == ["Nothing is held any more; every view is complete."]


def test_a_database_that_does_not_answer_is_named_and_may_be_tried_again() -> None:
    """An operating error like one of the log, so every role retries it with a bound."""
    read_model = ReadModel("postgresql+psycopg://nobody@127.0.0.1:1/none?connect_timeout=2")
    with pytest.raises(LogError, match="database of the read models cannot be used"):
        read_model.prepare(bytes(32))
    read_model.close()


def test_tables_of_another_program_are_named_with_how_far_the_new_ones_are(
    open_read_model: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They cannot be read: that is said, instead of an error from within the database."""
    network, _ = _told(45, 60)
    old = open_read_model()
    _serving(old, network)
    new = open_read_model()
    monkeypatch.setattr(new, "_tables", "other tables")
    assert new.prepare(network.hash) is Standing.OLD_TABLES
    with pytest.raises(BeingRebuilt, match="no rebuild has begun"), new.reading():
        pass
    entry, filled = new.begin(network.hash, NOW_US)
    new.tell(entry, done=3, total=9, now_us=NOW_US + 30)
    with pytest.raises(BeingRebuilt, match="3 of 9 records") as said, new.reading():
        pass
    assert said.value.entry is not None
    assert said.value.entry.eta_us == 60
    _filled(network, filled).catch_up()
    assert new.switch(entry.number, filled, NOW_US)
    with pytest.raises(BeingRebuilt), old.reading():
        pass
    filled.close()


def test_a_filling_of_another_version_is_dropped_and_begun_anew(
    open_read_model: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it holds was made by other folds."""
    network, _ = _told(46, 60)
    read_model = open_read_model()
    _serving(read_model, network)
    first, filled = read_model.begin(network.hash, NOW_US)
    filled.close()
    monkeypatch.setattr(adapters.read_model, "VERSION", 10_000)
    second, filled = read_model.begin(network.hash, NOW_US)
    assert second.made != first.made
    assert filled.position("Market0").height == -1
    assert [each.state for each in read_model.catalogue.entries()] == [
        State.SERVING,
        State.FILLING,
    ]
    filled.close()


def test_a_retry_takes_what_was_held_once_its_cause_is_mended(
    open_read_model: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By folds that are mended; a projector that runs meanwhile goes on with the new rows."""
    network, story = _told(47, 300)

    def sick(rows: Any, at: Any, event: Any) -> None:
        rows.known(FOLDING, 99, 99)

    read_model, other = open_read_model(), open_read_model()
    with monkeypatch.context() as here:
        falls: tuple[Ledger, type[Any]] = (Ledger.MARKET, NodeHealthChanged)
        pays: tuple[Ledger, type[Any]] = (Ledger.MARKET, UsagePosted)
        here.setitem(HANDLERS, falls, (sick,))
        here.setitem(MONEY_HANDLERS, pays, (sick,))
        read_model.prepare(network.hash)
        follows = network.projector(other)
        follows.catch_up()
        with read_model.reading() as connection:
            found = contents(connection)
        assert found[HELD_KEY]
        assert found[FOLDING][int(Ledger.MARKET), 0]["money_position"] is not None
        again = Retry(read_model, codec()).run()
        assert (again.released_keys, again.money_resumed) == (0, 0)
    done = Retry(read_model, codec()).run()
    assert done.released_keys == len(found[HELD_KEY])
    assert done.money_resumed == 1
    story.fall()
    story.usage()
    story.flush()
    follows.catch_up()
    with read_model.reading() as connection:
        after = contents(connection)
        folding = after[FOLDING].pop((int(Ledger.MARKET), 0))
        assert folding["held_events"] == folding["held_keys"] == 0
        assert folding["money_position"] is None
    _, filled = read_model.begin(network.hash, NOW_US)
    _filled(network, filled).catch_up()
    with filled.reading() as connection:
        expected = contents(connection)
    assert after == expected
    filled.close()


def test_a_retry_of_what_cannot_be_taken_names_it_again(open_read_model: Open) -> None:
    """Nothing changes but the events that could be taken."""
    network, story = _told(48, 120)
    stranger_falls(story)
    endless_volume(story)
    orphan_statement(story)
    story.flush()
    read_model = open_read_model()
    _serving(read_model, network)
    done = Retry(read_model, codec()).run()
    assert (done.released_events, done.released_keys, done.money_resumed) == (0, 0, 0)
    with read_model.reading() as connection:
        assert_equal(network, connection)
