"""A ledger that crosses a change of its rules: audited, cut, sharded, and met by an old program."""

from __future__ import annotations

import random
from contextlib import closing
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from adapters.audit import EXIT_CODES, Diverged
from adapters.bootstrap import audit
from adapters.local_topics import LocalTopics
from adapters.sqlite_log import SqliteLog
from adapters.worker import Worker
from domain.commit import LEDGER_TOPICS, Ledger, unpack_event
from domain.key import CommandAnswered
from domain.lease import CompleteLease, EndReason
from domain.ledger import ActivateRules, RulesActivated
from domain.processor import Processor
from domain.refusal import CODES
from domain.rules import NEWEST, RULES, RulesUnknown
from tests.system.reading import Seat, commits, story_of
from tests.system.small import Script, SmallSystem, memory_log, small_on_memory

MARKET: Seat = (Ledger.MARKET, 0)


def _complete(script: Script) -> None:
    """The node of the youngest lease that runs says that its workload is over."""
    running = [each for each in script.seen.leases.values() if each.ready_us and each.ended is None]
    youngest = max(running, key=lambda each: (each.ready_us, each.lease))
    script.nodes[youngest.node].command(CompleteLease(lease=youngest.lease))


CROSSING = {
    4: _complete,  # half an hour after it was ready
    8: lambda script: script.operator.command(ActivateRules(version=2)),
    12: _complete,  # half an hour after it was ready
    13: _complete,  # an hour
}


def crossing(log: Any, topics: Any, **changes: Any) -> SmallSystem:
    """The small system with version 1, in which version 2 is activated after four hours."""
    return SmallSystem(log, topics, rules_version=1, more=CROSSING, **changes)


@cache
def crossed(shards: int = 2) -> SmallSystem:
    """Lived through without a disturbance; nobody may append to its log."""
    log = memory_log()
    return crossing(log, LocalTopics(log), shards=shards).run()


@cache
def crossed_hash(shards: int = 2) -> str:
    """The state that the auditor derives."""
    system = crossed(shards)
    return audit(system.network, system.log).state_hash


def check_same(system: SmallSystem) -> None:
    """The audit is clean, and the ledgers say what the undisturbed ones say."""
    assert audit(system.network, system.log).state_hash == crossed_hash()
    assert story_of(system.network, system.log) == story_of(crossed().network, crossed().log)


def answers_to_nodes(system: SmallSystem) -> list[str]:
    """What nodes were told that said that a workload is over."""
    said = [a for a in system.script.seen.answers if a.kind == "synor.command.v1.CompleteLease"]
    return [CODES[answer.code].name if answer.code else "accepted" for answer in said]


def test_the_same_word_ends_a_lease_before_the_activation_and_not_after_it() -> None:
    """R4.4, R8.3: version 1 takes it in the first hour, version 2 only when that has passed."""
    system = crossed()
    assert answers_to_nodes(system) == ["accepted", "completed_too_early", "accepted"]
    assert system.script.seen.ends().count(EndReason.COMPLETED) == 2


def test_a_ledger_that_crosses_an_activation_audits_by_the_version_of_each_height() -> None:
    """Every ledger goes on by version 2 right after the commit that says so, and not before."""
    system = crossed()
    codec = system.network.codec
    audit(system.network, system.log)
    for ledger, shard in system.network.ledgers():
        bodies = commits(system.network, system.log, ledger, shard)
        versions = [body.rules_version for body in bodies]
        assert sorted(set(versions)) == [1, 2]
        (at,) = [
            height
            for height, body in enumerate(bodies)
            if RulesActivated in _kinds(codec, body.events)
        ]
        assert versions == [1] * (at + 1) + [2] * (len(versions) - at - 1)
        after = _kinds(codec, bodies[at].events)
        after = after[after.index(RulesActivated) + 1 :]
        assert after == ([CommandAnswered] if ledger is Ledger.MARKET else [])


def _kinds(codec: Any, packed: Any) -> list[type[Any]]:
    return [codec.kind(unpack_event(data).schema) for data in packed]


def test_by_one_version_throughout_the_same_inputs_make_another_ledger() -> None:
    """The change is one of outcome: version 2 from the start refuses what version 1 took."""
    system = small_on_memory(more={4: _complete}).run(8)
    assert answers_to_nodes(system) == ["completed_too_early"]
    system.close()


@pytest.mark.parametrize("shards", [1, 3])
def test_an_activation_does_not_depend_on_the_number_of_shards(shards: int) -> None:
    """Each shard takes it over by an event of its own."""
    assert crossed_hash(shards) == crossed_hash()


@pytest.mark.parametrize("seed", range(3))
def test_an_activation_does_not_depend_on_where_commits_are_cut(seed: int) -> None:
    """Its own commit ends there whatever else; all others may end anywhere."""
    chance = random.Random(seed)
    often = chance.choice([0.0, 0.3, 1.0])
    log = memory_log()
    system: SmallSystem | None = None

    def make(ledger: Ledger, shard: int) -> Worker:
        assert system is not None
        return system.worker(
            ledger, shard, cut=lambda unit: bool(unit.events) and chance.random() < often
        )

    system = crossing(log, LocalTopics(log), make_worker=make)
    check_same(system.run())
    system.close()


def test_on_sqlite_an_activation_is_the_same(tmp_path: Path) -> None:
    """The log of the embedded system, and a worker that begins in the middle of it."""
    with closing(SqliteLog(tmp_path / "l.db", clock_us=lambda: 0, durable=False)) as log:
        system = crossing(log, LocalTopics(log))
        system.run()
        check_same(system)
        for ledger, shard in system.network.ledgers():
            fresh = system.worker(ledger, shard)
            fresh.recover()
            assert fresh.processor.rules_version == 2
            fresh.close()
        system.close()


# A program without the version


@pytest.fixture(scope="module")
def ahead() -> SmallSystem:
    """A ledger of a later release, whose table of rules has one more version; it is over now."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(RULES, NEWEST + 1, replace(RULES[NEWEST], version=NEWEST + 1))
        log = memory_log()
        activate = {8: lambda s: s.operator.command(ActivateRules(version=NEWEST + 1))}
        system = SmallSystem(log, LocalTopics(log), more=activate).run(12)
        audit(system.network, system.log)
        system.close()
    return system


def test_a_worker_without_the_version_in_force_does_not_write(ahead: SmallSystem) -> None:
    """It stops by name, turn after turn, with inputs that wait and nothing of its own appended."""
    system = ahead
    ends = {
        (ledger, shard): system.log.end(LEDGER_TOPICS[ledger], shard)
        for ledger, shard in system.network.ledgers()
    }
    for (ledger, shard), end in ends.items():
        old = system.worker(ledger, shard)
        for _ in range(3):
            with pytest.raises(RulesUnknown, match=f"unknown_rules: version {NEWEST + 1} of"):
                old.turn()
        old.close()
        assert system.log.end(LEDGER_TOPICS[ledger], shard) == end


def test_an_auditor_without_the_version_says_so_and_names_the_height(ahead: SmallSystem) -> None:
    """It vouches for what it can decide again, and for nothing beyond."""
    market = commits(ahead.network, ahead.log, Ledger.MARKET)
    last = max(h for h, body in enumerate(market) if body.rules_version == NEWEST)
    with pytest.raises(Diverged, match="install a release that has it") as found:
        audit(ahead.network, ahead.log)
    assert (found.value.name, found.value.height) == ("unknown_rules", last)
    assert found.value.exit_code == EXIT_CODES["unknown_rules"]


def test_a_network_of_a_later_release_is_not_even_begun() -> None:
    """A genesis that names a version that this program lacks."""
    log = memory_log()
    system = SmallSystem(log, LocalTopics(log), rules_version=NEWEST + 1)
    with pytest.raises(RulesUnknown):
        system.run(1)
    assert log.end(LEDGER_TOPICS[Ledger.MARKET], 0) == 0


def test_a_commit_that_goes_on_after_an_activation_is_named_by_the_audit() -> None:
    """A writer whose program does not end the step there: what follows has no version."""

    def both(script: Script) -> None:
        script.operator.command(ActivateRules(version=2))
        _complete(script)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Processor, "step_ends", property(lambda self: False))
        log = memory_log()
        system = SmallSystem(log, LocalTopics(log), rules_version=1, more={8: both}).run(10)
        system.close()
    with pytest.raises(Diverged, match="a step ends where rules are activated") as found:
        audit(system.network, system.log)
    assert (found.value.name, found.value.ledger) == ("law_broken", Ledger.MARKET)
