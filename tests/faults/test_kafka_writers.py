"""Writers of one ledger on a real broker: racing, stopped in the middle of an append, replaced."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from kafka.protocol.api_key import ApiKey

from tests.faults.scene import LONG, Resumed, forks, new_ledger, noise_of, tally, writers
from tests.support.fault_matrix import FaultMatrix, Seen
from tests.support.kafka_proxy import Asked, Do, Fault, proxied, undisturbed
from tests.support.ledger_writer import items_of

ROUNDS = 1_000 if LONG else 100
FREEZES = 10 if LONG else 2

pytestmark = [pytest.mark.service, pytest.mark.slow, pytest.mark.timeout(600)]


def test_of_two_writers_that_race_one_wins_each_round_and_the_other_goes_on(
    kafka_broker: str, tmp_path: Path, fault_matrix: FaultMatrix
) -> None:
    """Two processes append from the same head at once; the loser reads, and races again."""
    store = new_ledger(kafka_broker)
    middle = Resumed(store, tmp_path / "index.db")
    won = {"anna": 0, "bert": 0}
    with writers(*((kafka_broker, store.topic, name) for name in won)) as pair:
        for height in range(ROUNDS):
            for each in pair:
                each.tell("try")
            said = [each.said() for each in pair]
            assert sorted(words[0] for words in said) == ["lost", "won"]
            assert {int(words[1]) for words in said} == {height}
            won[next(words[2] for words in said if words[0] == "won")] += 1
            if height == ROUNDS // 2:
                middle.read()
    items = items_of(store)
    seen = tally(items, won)
    assert (len(items), noise_of(store)) == (ROUNDS, ROUNDS)
    assert min(won.values()) > 0, "both won some round"
    disagreeing = forks(store, middle.read())
    fault_matrix.record(
        Seen(
            fault="two writers race for a height",
            where="kafka ledger",
            runs=ROUNDS,
            lost=seen.lost,
            doubled=seen.doubled,
            forked=disagreeing,
            test="tests/faults/test_kafka_writers.py",
        )
    )
    assert (seen.lost, seen.doubled, seen.disordered, disagreeing) == (0, 0, 0, 0)


def test_a_writer_that_is_stopped_in_an_append_and_woken_after_its_successor_forks_nothing(
    kafka_broker: str, tmp_path: Path, fault_matrix: FaultMatrix
) -> None:
    """SIGSTOP while its record is on the way; it lands behind the successor's, and is noise."""
    store = new_ledger(kafka_broker)
    middle = Resumed(store, tmp_path / "index.db")
    late = 0
    with proxied(kafka_broker) as proxy:
        places = (
            (proxy.bootstrap, store.topic, "sleeper"),
            (kafka_broker, store.topic, "successor"),
        )
        with writers(*places) as (sleeper, successor):
            sleeper.tell("run 3")
            assert sleeper.said()[:2] == ["ran", "3"]
            done = 3
            for freeze in range(FREEZES):
                held: list[Asked] = []

                def hold(asked: Asked, held: list[Asked] = held) -> Fault:
                    if asked.api != ApiKey.Produce or held:
                        return Fault(do=Do.PASS)
                    held.append(asked)
                    return Fault(do=Do.HOLD)

                proxy.plan = hold
                sleeper.tell("run 2")
                give_up = time.monotonic() + 60
                while not held and time.monotonic() < give_up:
                    time.sleep(0.005)
                sleeper.send(signal.SIGSTOP)
                successor.tell("run 4")
                assert successor.said()[:2] == ["ran", str(4 * (freeze + 1))]
                middle.read()
                before = noise_of(store)
                proxy.plan = undisturbed
                proxy.release()
                while noise_of(store) == before and time.monotonic() < give_up:
                    time.sleep(0.02)
                late += noise_of(store) - before
                sleeper.send(signal.SIGCONT)
                done += 2
                # It goes on by itself: the record that lost is decided again from the new head.
                assert sleeper.said()[:2] == ["ran", str(done)]
    seen = tally(items_of(store), {"sleeper": done, "successor": 4 * FREEZES})
    disagreeing = forks(store, middle.read())
    assert late == FREEZES, "every held record landed late, behind the successor's"
    fault_matrix.record(
        Seen(
            fault="a writer is stopped in an append, replaced and woken",
            where="kafka ledger",
            runs=FREEZES,
            lost=seen.lost,
            doubled=seen.doubled,
            forked=disagreeing,
            test="tests/faults/test_kafka_writers.py",
        )
    )
    assert (seen.lost, seen.doubled, seen.disordered, disagreeing) == (0, 0, 0, 0)
