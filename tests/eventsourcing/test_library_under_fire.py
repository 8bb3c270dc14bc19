"""What a user of the library relies on when processes race and die, on our module."""

from __future__ import annotations

import multiprocessing
import os
import random
import subprocess
import sys
import time
import uuid
from collections import Counter as Multiset
from pathlib import Path

import pytest
from eventsourcing.sqlite import SQLiteDatastore
from eventsourcing.utils import Environment

from adapters.bootstrap_eventsourcing import make_key
from adapters.kafka_broker import CHECKOUT
from tests.eventsourcing.counted import Counter, Counting, Tally, race
from tests.support.fault_matrix import LONG, FaultMatrix, Seen

ROUNDS = 1_000 if LONG else 100
EVENTS = 100_000 if LONG else 3_000
KILLS = 20 if LONG else 4
HERE = "tests/eventsourcing/test_library_under_fire.py"


@pytest.fixture(params=["sqlite", pytest.param("kafka", marks=pytest.mark.service)])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """The settings of an application on each log."""
    make_key(tmp_path / "key")
    chosen = {
        "PERSISTENCE_MODULE": "adapters.bootstrap_eventsourcing",
        "LEDGER_LOG": request.param,
        "LEDGER_FILE": str(tmp_path / "ledger.db"),
        "LEDGER_DURABLE": "n",
        "WRITER_KEY_FILE": str(tmp_path / "key"),
        "LEDGER_TOPIC": f"eventsourcing.{uuid.uuid4().hex}",
    }
    if request.param == "kafka":
        chosen["KAFKA_BOOTSTRAP"] = request.getfixturevalue("kafka_broker")
    return chosen


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_of_two_processes_that_append_one_version_exactly_one_wins_every_time(
    settings: dict[str, str], fault_matrix: FaultMatrix
) -> None:
    """The loser gets an `IntegrityError` each time, and the log holds each version once."""
    with Counting(Environment("Counting", settings)) as app:
        counter = Counter()
        app.save(counter)
    spawn = multiprocessing.get_context("spawn")
    together, told = spawn.Barrier(2), spawn.Queue()
    racers = [
        spawn.Process(target=race, args=(settings, counter.id, writer, ROUNDS, together, told))
        for writer in (0, 1)
    ]
    for racer in racers:
        racer.start()
    won = dict(told.get(timeout=600) for _ in racers)
    for racer in racers:
        racer.join(60)
    assert [racer.exitcode for racer in racers] == [0, 0]
    with Counting(Environment("Counting", settings)) as app:
        found: Counter = app.repository.get(counter.id)
        stored = list(app.recorder.select_events(counter.id))
    assert won[0] + won[1] == ROUNDS
    assert Multiset(found.by) == Multiset({writer: n for writer, n in won.items() if n})
    versions = [each.originator_version for each in stored]
    assert versions == list(range(1, ROUNDS + 2))
    fault_matrix.record(
        Seen(
            fault="two processes append one version of one aggregate",
            where=f"eventsourcing on {settings['LEDGER_LOG']}",
            runs=ROUNDS,
            lost=ROUNDS - len(found.by),
            doubled=len(versions) - len(set(versions)),
            test=HERE,
        )
    )


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_view_killed_at_random_ends_equal_to_the_reference_fold(
    settings: dict[str, str], tmp_path: Path, fault_matrix: FaultMatrix
) -> None:
    """Each event is applied once, and tracking ends at the head, whenever the runner died."""
    dice = random.Random(7)
    with Counting(Environment("Counting", settings)) as app:
        counters = [Counter() for _ in range(10)]
        app.save(*counters)
        for _ in range(EVENTS // 100):
            for _ in range(100):
                dice.choice(counters).count(0)
            app.save(*counters)
        reference = {str(each.id): each.version for each in counters}
        head = app.recorder.max_notification_id()
    view = {
        **{name: value for name, value in settings.items() if name != "PERSISTENCE_MODULE"},
        "COUNTING_PERSISTENCE_MODULE": settings["PERSISTENCE_MODULE"],
        "TALLIED_PERSISTENCE_MODULE": "eventsourcing.sqlite",
        "TALLIED_SQLITE_DBNAME": str(tmp_path / "view.db"),
    }
    tally = Tally(SQLiteDatastore(str(tmp_path / "view.db")))
    tally.create_table()
    kills = 0
    while (at := tally.max_tracking_id("Counting")) != head:
        with (tmp_path / f"view{kills}.txt").open("wb") as log:
            runner = subprocess.Popen(
                [sys.executable, "-m", "tests.eventsourcing.counted", "view"],
                cwd=CHECKOUT,
                env={**os.environ, **view},
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 300
        # Somewhere in the middle of what is left, or at its end when it has died often enough.
        share = dice.random() / (KILLS - kills) * 2 if kills < KILLS else 1.0
        until = min((at or 0) + max(int((head or 0) * share), 1), head or 0)
        while (tally.max_tracking_id("Counting") or 0) < until:
            said = (tmp_path / f"view{kills}.txt").read_text()
            assert runner.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.01)
        runner.kill()
        runner.wait(30)
        kills += 1
    found = tally.counted()
    assert found == reference
    assert kills > 1, "the runner was never killed before it had finished"
    fault_matrix.record(
        Seen(
            fault="a view's runner is killed with SIGKILL",
            where=f"eventsourcing on {settings['LEDGER_LOG']}",
            runs=kills,
            lost=sum(max(reference[each] - found[each], 0) for each in reference),
            doubled=sum(max(found[each] - reference[each], 0) for each in reference),
            test=HERE,
        )
    )
