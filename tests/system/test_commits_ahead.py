"""Deciding while the last commit is on its way: the same ledger, whatever becomes of the append."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, cast

import pytest

from adapters.bootstrap import audit
from adapters.commits_ahead import CommitsAhead
from adapters.eventsourcing_threads import OwnThreadLog
from adapters.local_topics import LocalTopics
from adapters.memory_log import MemoryLog
from adapters.worker import Worker
from domain.commit import LEDGER_TOPICS, CommitHeader, Ledger, parse
from domain.ports import AppendUnknown, Log
from tests.system.reading import Seat, commits, story_of
from tests.system.reference import reference_hash, reference_story
from tests.system.small import Crash, SmallSystem, memory_log

HEADER = CommitHeader(time_us=1)
FAULTS = {
    "dies after the append": (True, Crash),
    "is not answered, not persisted": (False, AppendUnknown),
}


class OwnLog:
    """The log of a shard's own ledger, on which the first append of each height goes wrong."""

    def __init__(self, log: MemoryLog, persist: bool, fault: type[BaseException]) -> None:
        self._log = log
        self._persist = persist
        self._fault = fault
        self.failed: set[int] = set()

    def append(self, topic: str, partition: int, value: bytes) -> int:
        envelope = parse(value)
        assert envelope is not None
        if envelope.height in self.failed:
            return self._log.append(topic, partition, value)
        self.failed.add(envelope.height)
        if self._persist:
            self._log.append(topic, partition, value)
        raise self._fault

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


def turns_until_it_rests(worker: Worker) -> Callable[..., bool]:
    """A shard's turn that leaves nothing in flight, so that the run is the same each time."""
    turn = worker.turn

    def turns(**wait: float) -> bool:
        appended = False
        while turn(**wait):
            appended = True
        return appended

    return turns


@pytest.mark.parametrize("fault", FAULTS)
def test_a_shard_that_decides_ahead_writes_the_same_ledger(fault: str) -> None:
    """What stood on a commit that failed is dropped, and decided again from what is there."""
    log = memory_log()
    made: list[SmallSystem] = []
    logs: dict[Seat, OwnLog] = {}
    threads: list[OwnThreadLog] = []

    def make(ledger: Ledger, shard: int) -> Worker:
        if ledger is not Ledger.METERING:
            return made[0].worker(ledger, shard)
        own = logs.setdefault((ledger, shard), OwnLog(log, *FAULTS[fault]))
        threads.append(OwnThreadLog(lambda: cast(Log, own)))
        # Small steps, so that there is often one decided while another is appended.
        worker = made[0].worker(
            ledger, shard, own_log=threads[-1], cut=lambda unit: len(unit.events) >= 4
        )
        worker.turn = turns_until_it_rests(worker)  # type: ignore[method-assign]
        return worker

    made.append(SmallSystem(log, LocalTopics(log), make_worker=make))
    system = made[0].run()
    system.close()
    for thread in threads:
        thread.close()
    for seat, own in logs.items():
        heights = len(commits(system.network, log, *seat))
        assert len(own.failed) == heights
    # A turn that failed half-way lets the market see one shard's commits before another's.
    assert audit(system.network, log).state_hash == reference_hash()
    told = story_of(system.network, log)
    assert all(told[seat] == reference_story()[seat] for seat in logs)


def test_a_step_is_decided_while_the_last_one_is_appended() -> None:
    """What is read runs ahead of what is on the ledger; at the end both are equal."""
    log = memory_log()
    system = SmallSystem(log, LocalTopics(log)).run(6)
    system.close()
    own = LEDGER_TOPICS[Ledger.METERING]
    log.truncate(own, 0, end=0)
    opened, waiting = threading.Event(), threading.Event()

    class Slow:
        """Appends no commit after the first until it is let."""

        def append(self, topic: str, partition: int, value: bytes) -> int:
            if log.end(own, 0):
                waiting.set()
                assert opened.wait(20)
            return log.append(topic, partition, value)

        def __getattr__(self, name: str) -> Any:
            return getattr(log, name)

    thread = OwnThreadLog(lambda: cast(Log, Slow()))
    worker = system.worker(Ledger.METERING, 0, own_log=thread)
    place = (LEDGER_TOPICS[Ledger.MARKET], 0)
    while not waiting.is_set():
        assert worker.turn()
    assert worker.turn(), "an append is in flight"
    assert worker.committed(*place) == 0 < worker.position(*place)
    assert log.end(own, 0) == 1
    opened.set()
    worker.commit_now()
    assert worker.committed(*place) == worker.position(*place)
    assert log.end(own, 0) > 1
    worker.close()
    thread.close()


class Slowly:
    """Records what it is given once it is let, or raises."""

    lost = (LookupError,)

    def __init__(self) -> None:
        self.may = threading.Event()
        self.heights: list[int] = []
        self.fails: Callable[[int], bool] = lambda height: False
        self.forgot = 0

    def commit(self, events: Any, states: Any, header: Any, *, height: int) -> None:
        assert self.may.wait(20)
        self.heights.append(height)
        if self.fails(height):
            raise LookupError(height)

    def forget(self) -> None:
        self.forgot += 1


def test_a_commit_is_in_flight_until_it_is_recorded_and_the_next_one_waits_for_it() -> None:
    """One at a time, in order."""
    slow = Slowly()
    ahead = CommitsAhead(slow)
    ahead.commit((), (), HEADER, height=0)
    assert not ahead.settle(wait=False)
    assert slow.heights == []
    slow.may.set()
    ahead.commit((), (), HEADER, height=1)
    assert slow.heights[:1] == [0]
    assert ahead.settle(wait=True)
    assert slow.heights == [0, 1]


def test_what_becomes_of_a_commit_is_raised_once_and_nothing_is_recorded_after_it() -> None:
    """The caller drops what it decided since and recovers."""
    slow = Slowly()
    slow.may.set()
    slow.fails = lambda height: height == 0
    ahead = CommitsAhead(slow)
    ahead.commit((), (), HEADER, height=0)
    with pytest.raises(LookupError):
        ahead.commit((), (), HEADER, height=1)
    assert slow.heights == [0]
    assert ahead.settle(wait=True)


def test_to_forget_lets_the_commit_in_flight_come_to_its_end() -> None:
    """Else its record could still land behind what a recovery has read."""
    slow = Slowly()
    slow.fails = lambda height: True
    ahead = CommitsAhead(slow)
    ahead.commit((), (), HEADER, height=0)
    opener = threading.Timer(0.05, slow.may.set)
    opener.start()
    ahead.forget()
    assert (slow.heights, slow.forgot) == ([0], 1)
    assert ahead.settle(wait=True)
    opener.join()
