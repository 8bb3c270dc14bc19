"""A step as the library's unit of work: one save, one commit, states from the cache."""

from __future__ import annotations

import os
from typing import Any
from unittest import mock
from uuid import UUID

import pytest
from eventsourcing.domain import CollectEventsProtocol, DomainEventProtocol
from eventsourcing.persistence import IntegrityError

from adapters.eventsourcing_mapper import AvroMapper, LedgerEvent
from adapters.eventsourcing_recorder import LedgerRecorder
from adapters.ledger_application import LedgerApplication
from domain.commit import CommitHeader
from domain.ids import AggregateId
from domain.ledger import RulesActivated
from domain.ports import Log, LogError
from domain.processor import Emitted, Unit, Versioned
from tests.eventsourcing.events import HEADER
from tests.eventsourcing.ledgers import LedgerStore, codec, memory_ledger

ONE, TWO = AggregateId(bytes(15) + b"\1"), AggregateId(bytes(15) + b"\2")


class Evolve:
    """Sums versions, and counts how often it was called."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, state: Any, event: Any) -> Any:
        self.calls += 1
        return (state or 0) + event.version


def made(ledger: LedgerStore, log: Log) -> tuple[LedgerApplication, LedgerRecorder, Evolve]:
    """An application on the ledger, caught up, with the fold that it uses."""
    mapper = AvroMapper(codec(), [RulesActivated])
    recorder = LedgerRecorder(ledger.partition(log), schemas=mapper.schemas())
    recorder.catch_up()
    evolve = Evolve()
    return LedgerApplication.named("market")(recorder, mapper, evolve), recorder, evolve


def emitted(aggregate: AggregateId, version: int, amount: int = 1) -> Emitted:
    """An event that adds ``amount`` to an aggregate's state."""
    return Emitted(aggregate, version, RulesActivated(at_us=1, version=amount))


def test_a_step_is_saved_as_one_commit_with_its_events_in_order() -> None:
    """Events of several aggregates keep the order in which they were decided."""
    ledger, log = memory_ledger()
    application, recorder, evolve = made(ledger, log)
    unit = Unit(application, evolve)
    for aggregate in (ONE, TWO, ONE, TWO):
        unit.emit(aggregate, RulesActivated(at_us=1, version=5))
    head = application.commit(unit.events, unit.finals(), HEADER)
    assert (head.height, head.size) == (0, 4)
    found = recorder.select_notifications(None, 10)
    assert [(each.originator_id, each.originator_version) for each in found] == [
        (UUID(bytes=aggregate), version) for version in (1, 2) for aggregate in (ONE, TWO)
    ]
    assert application.load(ONE) == Versioned(ONE, 2, 10)


def test_saved_states_are_answered_from_the_cache_as_they_are() -> None:
    """No event is folded again, and nothing is copied."""
    ledger, log = memory_ledger()
    application, _, evolve = made(ledger, log)
    state = Versioned(ONE, 1, object())
    application.commit([emitted(ONE, 1)], [state], HEADER)
    assert application.load(ONE) is state
    assert evolve.calls == 0


def test_an_uncached_aggregate_is_folded_from_its_events_once() -> None:
    """By our projector, whose result is what is cached."""
    ledger, log = memory_ledger()
    application, _, _ = made(ledger, log)
    application.commit([emitted(ONE, i + 1, 7) for i in range(3)], [], HEADER)
    other, _, evolve = made(ledger, ledger.open_log())
    assert other.load(ONE) == Versioned(ONE, 3, 21)
    assert other.load(ONE) is other.load(ONE)
    assert evolve.calls == 3
    assert other.load(TWO) is None


def test_a_step_without_events_is_a_commit_too() -> None:
    """The library's save has nothing to record, the ledger has the inputs."""
    ledger, log = memory_ledger()
    application, _, _ = made(ledger, log)
    assert application.commit([], [], HEADER).height == 0
    assert application.commit([], [], CommitHeader(time_us=9)).time_us == 9
    assert len(ledger.verified()) == 2


def test_after_a_lost_race_no_state_is_left_in_the_cache() -> None:
    """What the step was decided from is not what happened."""
    ledger, log = memory_ledger()
    application, recorder, _ = made(ledger, log)
    application.commit([emitted(ONE, 1)], [Versioned(ONE, 1, 1)], HEADER)
    winner, _, _ = made(ledger, ledger.open_log())
    winner.commit([emitted(ONE, 2, 100)], [], HEADER)
    with pytest.raises(IntegrityError):
        application.commit([emitted(ONE, 2, 5)], [Versioned(ONE, 2, 6)], HEADER)
    assert application.cached() == {}
    recorder.catch_up()
    assert application.load(ONE) == Versioned(ONE, 2, 101)
    application.commit([emitted(ONE, 3, 5)], [Versioned(ONE, 3, 106)], HEADER, height=2)
    assert len(ledger.leaves()) == 3


def test_a_commit_that_a_rival_wrote_alike_and_went_on_from_leaves_no_state_behind() -> None:
    """The same bytes count once; what is decided next must not mix two heights."""
    ledger, log = memory_ledger()
    application, _, _ = made(ledger, log)
    rival, _, _ = made(ledger, ledger.open_log())
    rival.commit([emitted(ONE, 1)], [Versioned(ONE, 1, 1)], HEADER, height=0)
    rival.commit([emitted(ONE, 2, 100)], [Versioned(ONE, 2, 101)], HEADER, height=1)
    with pytest.raises(IntegrityError, match="and so does 1"):
        application.commit([emitted(ONE, 1)], [Versioned(ONE, 1, 1)], HEADER, height=0)
    assert application.cached() == {}
    assert application.load(ONE) == Versioned(ONE, 2, 101)
    assert len(ledger.leaves()) == 2


def test_after_a_failed_append_no_state_is_left_in_the_cache() -> None:
    """Whether it is on the log or not is for the next reading to tell."""
    ledger, log = memory_ledger()
    application, _, _ = made(ledger, log)
    application.commit([emitted(ONE, 1)], [Versioned(ONE, 1, 1)], HEADER)
    log.refuse_next_append()
    with pytest.raises(LogError):
        application.commit([emitted(ONE, 2)], [Versioned(ONE, 2, 2)], HEADER)
    assert application.cached() == {}
    assert application.load(ONE) == Versioned(ONE, 1, 1)


def test_the_least_used_states_make_room() -> None:
    """Memory is bounded; what was dropped is read again."""
    ledger, log = memory_ledger()
    mapper = AvroMapper(codec(), [RulesActivated])
    recorder = LedgerRecorder(ledger.partition(log), schemas=mapper.schemas())
    application = LedgerApplication.named("small")(
        recorder, mapper, Evolve(), {"AGGREGATE_CACHE_MAXSIZE": "2"}
    )
    ids = [AggregateId(bytes(15) + bytes([i])) for i in range(5)]
    for aggregate in ids:
        application.commit([emitted(aggregate, 1)], [Versioned(aggregate, 1, 1)], HEADER)
    assert len(application.cached()) == 2
    assert [application.load(aggregate) for aggregate in ids] == [
        Versioned(aggregate, 1, 1) for aggregate in ids
    ]


def test_the_process_environment_changes_nothing() -> None:
    """A variable of the library, set for something else, must not reach a processor."""
    ledger, log = memory_ledger()
    with mock.patch.dict(
        os.environ,
        {"AGGREGATE_CACHE_FASTFORWARD": "y", "PERSISTENCE_MODULE": "eventsourcing.popo"},
    ):
        application, recorder, _ = made(ledger, log)
    assert application.repository.fastforward is False
    assert application.recorder is recorder
    assert application.name == "market"


def test_the_library_tells_a_state_from_an_event_as_our_save_does() -> None:
    """The short cut by type decides what the library's protocols would decide."""
    state, event = Versioned(ONE, 1, 1), LedgerEvent(UUID(bytes=ONE), 1, None)
    assert isinstance(event, DomainEventProtocol)
    assert not isinstance(state, DomainEventProtocol)
    assert not isinstance(state, CollectEventsProtocol)
