"""Workers that die, that are not answered, that have rivals: the ledgers come out the same."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from adapters.bootstrap import audit
from adapters.local_topics import LocalTopics
from adapters.memory_log import MemoryLog
from adapters.worker import ClockBehind, Worker
from adapters.worker_reading import Reading
from domain.chain import LedgerStopped
from domain.commit import LEDGER_TOPICS, Ledger, parse
from domain.ports import Log
from tests.system.reading import Seat, commits, events, records
from tests.system.reference import (
    check_heard,
    check_same,
    check_same_in_any_order,
    reference,
    reference_hash,
)
from tests.system.small import Crash, SmallSystem, memory_log, network, small_on_memory

LONG = os.environ.get("SYNOR_LONG") == "1"
MARKET: Seat = (Ledger.MARKET, 0)
FAULTS = (
    "dies before the append",
    "dies after the append",
    "is not answered, persisted",
    "is not answered, not persisted",
    "is written twice",
)


class FaultyLog:
    """A worker's log on which the first append of chosen heights goes wrong."""

    def __init__(self, log: MemoryLog, fault: str, chosen: Callable[[int], bool]) -> None:
        self._log = log
        self._fault = fault
        self._chosen = chosen
        self.failed: set[int] = set()

    def append(self, topic: str, partition: int, value: bytes) -> int:
        envelope = parse(value)
        assert envelope is not None
        if envelope.height in self.failed or not self._chosen(envelope.height):
            return self._log.append(topic, partition, value)
        self.failed.add(envelope.height)
        match self._fault:
            case "dies before the append":
                raise Crash
            case "dies after the append":
                self._log.append(topic, partition, value)
                raise Crash
            case "is not answered, persisted":
                self._log.fail_next_append(persist=True)
            case "is not answered, not persisted":
                self._log.fail_next_append(persist=False)
            case _:
                self._log.duplicate_next_append()
        return self._log.append(topic, partition, value)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


def faulty_run(
    fault: str,
    chosen: Callable[[Seat, int], bool],
    *,
    patient: bool = True,
    folder: Path | None = None,
) -> tuple[SmallSystem, int]:
    """The run in which the first append of every chosen height goes wrong, and how many did."""
    log = memory_log()
    logs: dict[Seat, FaultyLog] = {}
    made: list[SmallSystem] = []

    def make(ledger: Ledger, shard: int) -> Worker:
        seat = (ledger, shard)
        faulty = logs.get(seat) or FaultyLog(log, fault, lambda height: chosen(seat, height))
        logs[seat] = faulty
        index = ":memory:" if folder is None else str(folder / f"{ledger.name}{shard}.db")
        return made[0].worker(ledger, shard, log=cast(Log, faulty), index=index)

    made.append(SmallSystem(log, LocalTopics(log), make_worker=make))
    for supervised in made[0].workers:
        supervised.patient = patient
    system = made[0].run()
    system.close()
    return system, sum(len(each.failed) for each in logs.values())


@pytest.mark.parametrize("patient", [True, False], ids=["the same goes on", "another goes on"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_worker_whose_every_commit_fails_once_writes_the_same_ledger(
    fault: str, patient: bool
) -> None:
    """Every height of every ledger is a crash point; nothing is lost, doubled or decided anew."""
    system, failed = faulty_run(fault, lambda seat, height: True, patient=patient)
    assert failed >= sum(len(commits(system.network, system.log, *s)) for s in system.seats)
    check_same(system)


@pytest.mark.parametrize("fault", FAULTS[:2])
def test_a_worker_that_finds_its_index_where_it_died_writes_the_same_ledger(
    fault: str, tmp_path: Path
) -> None:
    """An index that is behind the log, by a commit that its worker did not live to see."""
    system, _ = faulty_run(fault, lambda seat, height: height % 3 == 1, folder=tmp_path)
    check_same(system)


@pytest.mark.parametrize("fault", FAULTS[:4])
@pytest.mark.parametrize("height", range(60) if LONG else range(0, 60, 19))
def test_a_single_crash_leaves_no_trace(fault: str, height: int) -> None:
    """One crash at one height of one ledger, the rest of the run undisturbed.

    Who crashes loses a turn, so the market may hear its shards in another order than undisturbed.
    """
    for seat in network(2).ledgers() if LONG else (MARKET, (Ledger.METERING, 1)):
        system, _ = faulty_run(fault, lambda at, h, seat=seat: (at, h) == (seat, height))  # type: ignore[misc]
        if seat == MARKET:
            check_heard(system)
        else:
            check_same_in_any_order(system)


def test_index_files_that_were_deleted_are_built_again(tmp_path: Path) -> None:
    """Indexes are disposable: without them a new worker stands where the old one stood."""
    system, _ = faulty_run("dies before the append", lambda seat, height: False, folder=tmp_path)
    for file in tmp_path.iterdir():
        file.unlink()
    for ledger, shard in system.seats:
        worker = system.worker(ledger, shard, index=str(tmp_path / f"{ledger.name}{shard}.db"))
        assert not worker.turn(), "everything was consumed: there is nothing to decide"
        worker.close()
    check_same(system)


# Rivals


@pytest.mark.parametrize("seat", [MARKET, (Ledger.METERING, 0), (Ledger.SETTLEMENT, 0)])
def test_two_workers_on_one_ledger_lose_and_double_nothing(seat: Seat) -> None:
    """They take turns, so each finds the other's commits; every commit counts once."""
    system = small_on_memory(rivals=[seat]).run()
    check_same(system)
    system.close()


def test_of_two_workers_that_decide_at_the_same_time_one_wins_each_height() -> None:
    """Both decide from the same head; the second record at a height is noise for ever."""
    log = memory_log()
    made: list[SmallSystem] = []
    busy: list[bool] = []

    class Racing:
        """A log that lets the rival append first, as a slower process would find it."""

        def append(self, topic: str, partition: int, value: bytes) -> int:
            if not busy and topic == LEDGER_TOPICS[Ledger.MARKET]:
                busy.append(True)
                rival.turn()
                busy.pop()
            return log.append(topic, partition, value)

        def __getattr__(self, name: str) -> Any:
            return getattr(log, name)

    def make(ledger: Ledger, shard: int) -> Worker:
        return made[0].worker(ledger, shard, log=cast(Log, Racing()))

    made.append(SmallSystem(log, LocalTopics(log), make_worker=make))
    system = made[0]
    rival = system.worker(*MARKET)
    system.run()
    check_same(system)
    noise = audit(system.network, log).reports[0].noise
    losers = system.seats[MARKET].worker
    # The same decision from the same head is the same record to the byte: then both have won, and
    # the second one is noise all the same. Only where the rival had nothing to write it is not.
    appended = losers.lost_races + losers.commits
    assert appended >= noise >= appended - 1 > 40
    assert losers.lost_races > 0
    assert rival.lost_races == 0
    rival.close()
    system.close()


# What others put on the log


def test_foreign_records_and_copies_on_a_ledger_are_ignored_and_counted() -> None:
    """Bytes, another network's commits and copies of ours do not count, wherever they stand."""
    log = memory_log()
    made: list[SmallSystem] = []
    market = LEDGER_TOPICS[Ledger.MARKET]

    def disturb(turns: list[int] = [0]) -> None:  # noqa: B006
        turns[0] += 1
        if turns[0] % 7 == 0 and log.end(market, 0):
            log.append(market, 0, b"SYNORL2\x01 but not a commit")
            copied = log.read(market, 0, 0, max_bytes=1).records[0].value
            log.append(market, 0, copied)
            log.append(market, 0, copied[:60] + bytes([copied[60] ^ 1]) + copied[61:])

    class Disturbed:
        def append(self, topic: str, partition: int, value: bytes) -> int:
            disturb()
            return log.append(topic, partition, value)

        def __getattr__(self, name: str) -> Any:
            return getattr(log, name)

    def make(ledger: Ledger, shard: int) -> Worker:
        return made[0].worker(ledger, shard, log=cast(Log, Disturbed()))

    made.append(SmallSystem(log, LocalTopics(log), make_worker=make))
    system = made[0].run()
    check_same(system)
    assert audit(system.network, log).reports[0].noise > 30
    system.close()


def test_a_signed_commit_that_does_not_stand_on_the_head_is_a_fork_for_every_worker() -> None:
    """The writer's own key on another parent: no reader goes on, and each names it."""
    source = reference()
    market = LEDGER_TOPICS[Ledger.MARKET]
    log = memory_log()
    system = SmallSystem(log, LocalTopics(log))
    for record in list(records(source.log, market))[:10]:
        if record.offset != 8:
            log.append(market, 0, record.value)
    with pytest.raises(LedgerStopped, match="fork"):
        system.worker(*MARKET).turn()
    with pytest.raises(LedgerStopped, match="fork"):
        system.worker(Ledger.SETTLEMENT, 0).turn()


def test_a_worker_stops_where_the_log_is_ahead_of_its_clock() -> None:
    """An append time over five minutes ahead is an operating error, named; nothing is written."""
    now_us = [1_000_000_000]
    log = MemoryLog(lambda: now_us[0])
    system = SmallSystem(log, LocalTopics(log))
    system.time.tick(system.network.genesis.start_us)
    before = [commits(system.network, log, *seat) for seat in system.seats]
    now_us[0] += 301 * 1_000_000
    system.inputs.append("synor.commands.v1", 0, b"from the future")
    system.inputs.flush()
    behind = system.worker(*MARKET, clock_us=lambda: 1_000_000_000)
    with pytest.raises(ClockBehind, match="301 s ahead"):
        behind.turn()
    assert [commits(system.network, log, *seat) for seat in system.seats] == before
    now_us[0] -= 1_000_000
    patient = system.worker(*MARKET, clock_us=lambda: 1_000_000_000 + 2_000_000)
    patient.turn()
    for each in (behind, patient):
        each.close()
    system.close()


def test_a_repeat_of_every_input_changes_no_balance() -> None:
    """At-least-once delivery: every input record a second time at the end."""
    system = small_on_memory().run()
    for topic, partitions in (("synor.commands.v1", 1), ("synor.telemetry.v1", 2)):
        for partition in range(partitions):
            for record in list(records(system.log, topic, partition)):
                system.inputs.append(topic, partition, record.value)
    before = [len(events(system.network, system.log, *seat)) for seat in system.seats]
    system.time.settle()
    assert [len(events(system.network, system.log, *seat)) for seat in system.seats] == before
    system.close()
    assert audit(system.network, system.log).state_hash == reference_hash()


def test_a_record_that_a_commit_ended_inside_of_goes_on_before_anything_else_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After a death too: what its first part did may be in no event, as the position of a shard.

    Seed 666 of the simulator found an epoch that was cut between the parts.
    """
    system = small_on_memory().run(4)
    market = system.worker(*MARKET)
    market.recover()
    order: list[tuple[str, int]] = []
    read = Worker._read

    def told(worker: Worker, reading: Reading, wait_s: float) -> None:
        order.append((reading.source.topic, reading.source.partition))
        read(worker, reading, wait_s)

    monkeypatch.setattr(Worker, "_read", told)
    for number, reading in enumerate(market._readings):
        reading.items_done = 0
        market.turn()
        assert order[0] == (reading.source.topic, reading.source.partition), number
        assert len(order) == len(set(order)) == len(market._readings)
        reading.items_done = -1
        order.clear()
    market.close()
    system.close()
