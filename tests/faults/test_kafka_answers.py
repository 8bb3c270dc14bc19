"""Appends whose answer is lost, late, doubled or an error: the tail of the log tells what happened.

The proxy knows a Produce from a Fetch, so reads go on while the answers to appends go wrong.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kafka.protocol.api_key import ApiKey

from adapters.eventsourcing_index import Depth
from adapters.kafka_log import KafkaLog
from domain.ports import AppendUnknown, LogError
from tests.eventsourcing.ledgers import LedgerStore
from tests.faults.scene import LONG, Resumed, forks, new_ledger, tally, writers
from tests.support.fault_matrix import FaultMatrix, Seen
from tests.support.kafka_broker import started_broker
from tests.support.kafka_proxy import (
    MESSAGE_TOO_LARGE,
    NOT_ENOUGH_REPLICAS,
    NOT_ENOUGH_REPLICAS_AFTER_APPEND,
    NOT_LEADER,
    REQUEST_TIMED_OUT,
    Do,
    Fault,
    KafkaProxy,
    SeededPlan,
    every_produce,
    first_produces,
    proxied,
    undisturbed,
)
from tests.support.ledger_writer import append_item, items_of

SEEDS = 20 if LONG else 2
BOUNCES = 10 if LONG else 2
APPENDS = 5 if LONG else 1
MIXED_ITEMS = 40
APPEND_S = 1.5
TEST = "tests/faults/test_kafka_answers.py"

#: What happens to every Produce of one append, what it is called, and whether the broker has it.
ANSWERS = [
    (Fault(do=Do.SWALLOW), "an append is swallowed, no answer", False),
    (Fault(do=Do.DROP_ANSWER), "the answer to an append is lost", True),
    (Fault(do=Do.CUT_BEFORE), "the connection is cut before the broker has the append", False),
    (Fault(do=Do.CUT_AFTER), "the connection is cut after the broker has the append", True),
    (Fault(do=Do.DELAY_ANSWER, seconds=3.0), "the answer to an append is too late", True),
    (Fault(do=Do.DELAY_REQUEST, seconds=3.0), "an append reaches the broker too late", None),
    (Fault(do=Do.DOUBLE_ANSWER), "the answer to an append comes twice", True),
    (Fault(do=Do.REFUSE, code=NOT_ENOUGH_REPLICAS), "not enough replicas", False),
    (
        Fault(do=Do.REFUSE_AFTER, code=NOT_ENOUGH_REPLICAS_AFTER_APPEND),
        "not enough replicas, after the append",
        True,
    ),
    (Fault(do=Do.REFUSE, code=REQUEST_TIMED_OUT), "the broker says timed out, not appended", False),
    (
        Fault(do=Do.REFUSE_AFTER, code=REQUEST_TIMED_OUT),
        "the broker says timed out, yet appended",
        True,
    ),
    (Fault(do=Do.REFUSE, code=NOT_LEADER), "the broker says it does not lead", False),
]

pytestmark = [pytest.mark.service, pytest.mark.slow, pytest.mark.timeout(900)]


@contextmanager
def through(kafka_broker: str) -> Iterator[tuple[LedgerStore, KafkaProxy, KafkaLog]]:
    """A ledger, the proxy before its broker, and a log that is impatient behind the proxy."""
    store = new_ledger(kafka_broker)
    with proxied(kafka_broker) as proxy:
        log = KafkaLog(
            proxy.bootstrap, client_id="tried", append_timeout_s=APPEND_S, read_timeout_s=3.0
        )
        yield store, proxy, log
        proxy.plan = undisturbed
        log.close()


@pytest.mark.parametrize(("fault", "name", "persisted"), ANSWERS, ids=[a[1] for a in ANSWERS])
def test_the_outcome_of_an_append_is_what_the_tail_says(
    fault: Fault,
    name: str,
    persisted: bool | None,
    kafka_broker: str,
    tmp_path: Path,
    fault_matrix: FaultMatrix,
) -> None:
    """Persisted: it counts, whatever the answer was. Not persisted: unknown, and decided again."""
    with through(kafka_broker) as (store, proxy, log):
        partition = store.partition(log, depth=Depth.COMMITS)
        middle = Resumed(store, tmp_path / "index.db")
        for item in range(0, 2 * APPENDS, 2):
            proxy.plan = undisturbed
            assert append_item(partition, "writer", item) == item
            middle.read()
            proxy.injected.clear()
            proxy.plan = every_produce(fault)
            counts = True
            try:
                assert append_item(partition, "writer", item + 1) == item + 1
            except AppendUnknown:
                counts = False
            assert proxy.injected[fault.do] >= 1
            if persisted is not None:
                assert counts is persisted
            proxy.plan = undisturbed
            if not counts:
                # Who decides again from the head gets the height, or finds that the first one has.
                assert append_item(partition, "writer", item + 1) == item + 1
        time.sleep(fault.seconds)
        partition.catch_up()
        seen = tally(items_of(store), {"writer": 2 * APPENDS})
        disagreeing = forks(store, middle.read())
    fault_matrix.record(
        Seen(
            fault=name,
            where="kafka append",
            runs=APPENDS,
            lost=seen.lost,
            doubled=seen.doubled,
            forked=disagreeing,
            test=TEST,
        )
    )
    assert (seen.lost, seen.doubled, seen.disordered, disagreeing) == (0, 0, 0, 0)


@pytest.mark.parametrize("do", [Do.REFUSE, Do.DOUBLE_REQUEST, Do.CUT_AFTER, Do.DROP_ANSWER])
def test_what_the_client_can_repeat_safely_it_repeats_unseen(do: Do, kafka_broker: str) -> None:
    """One error, one lost answer, one request sent twice: the idempotent producer settles it."""
    with through(kafka_broker) as (store, proxy, log):
        partition = store.partition(log, depth=Depth.COMMITS)
        append_item(partition, "writer", 0)
        proxy.plan = first_produces(Fault(do=do, code=NOT_ENOUGH_REPLICAS))
        assert append_item(partition, "writer", 1) == 1
        assert proxy.injected[do] == 1
        assert log.end(store.topic, 0) == 2


def test_a_record_that_the_broker_finds_too_large_is_refused_for_certain(kafka_broker: str) -> None:
    """The one answer after which nothing needs to be read: no append is unknown for nothing."""
    with through(kafka_broker) as (store, proxy, log):
        partition = store.partition(log, depth=Depth.COMMITS)
        proxy.plan = every_produce(Fault(do=Do.REFUSE, code=MESSAGE_TOO_LARGE))
        with pytest.raises(LogError, match="MessageSizeTooLarge") as raised:
            append_item(partition, "writer", 0)
        assert not isinstance(raised.value, AppendUnknown)
        proxy.plan = undisturbed
        assert append_item(partition, "writer", 0) == 0


@pytest.mark.parametrize("seed", range(SEEDS))
def test_two_writers_behind_a_faulty_network_lose_and_double_nothing(
    seed: int, kafka_broker: str, tmp_path: Path, fault_matrix: FaultMatrix
) -> None:
    """Every fault at random, on appends and on reads, from a seed; the writers go on unaided."""
    store = new_ledger(kafka_broker)
    middle = Resumed(store, tmp_path / "index.db")
    faults = [fault for fault, _, _ in ANSWERS if not fault.seconds]
    faults += [
        Fault(do=Do.DELAY_REQUEST, seconds=0.2),
        Fault(do=Do.DELAY_ANSWER, seconds=0.2),
        Fault(do=Do.DOUBLE_REQUEST),
    ]
    reads = [Fault(do=do) for do in (Do.CUT_BEFORE, Do.CUT_AFTER, Do.DOUBLE_ANSWER)]
    produce = SeededPlan(seed, faults, share=0.3)
    fetch = SeededPlan(seed, reads, share=0.05, apis=(ApiKey.Fetch,))
    with proxied(kafka_broker) as proxy:
        names = ("anna", "bert")
        with writers(*((proxy.bootstrap, store.topic, name) for name in names)) as pair:
            proxy.plan = lambda asked: (produce if asked.api == ApiKey.Produce else fetch)(asked)
            for each in pair:
                each.tell(f"run {MIXED_ITEMS}")
            said = [each.said(300.0) for each in pair]
            middle.read()
            proxy.plan = undisturbed
            for each in pair:
                each.tell("run 1")
            said = [each.said() for each in pair]
        injected = sum(proxy.injected.values())
    assert [words[:2] for words in said] == [["ran", str(MIXED_ITEMS + 1)]] * 2
    assert injected > 10
    seen = tally(items_of(store), dict.fromkeys(names, MIXED_ITEMS + 1))
    disagreeing = forks(store, middle.read())
    fault_matrix.record(
        Seen(
            fault="a seeded mix of all faults under two racing writers",
            where="kafka append",
            runs=injected,
            lost=seen.lost,
            doubled=seen.doubled,
            forked=disagreeing,
            test=TEST,
        )
    )
    assert (seen.lost, seen.doubled, seen.disordered, disagreeing) == (0, 0, 0, 0)


def test_a_broker_that_restarts_under_load_loses_nothing_that_it_acknowledged(
    tmp_path: Path, fault_matrix: FaultMatrix
) -> None:
    """Stopped in order and killed in turn, on the same data, while two writers go on writing."""
    broker = started_broker(tmp_path / "kafka")
    chance = random.Random(1)
    try:
        store = new_ledger(broker.bootstrap)
        middle = Resumed(store, tmp_path / "index.db")
        with writers(*((broker.bootstrap, store.topic, name) for name in ("anna", "bert"))) as pair:
            done, said = 0, [[""]]
            for bounce in range(BOUNCES):
                for each in pair:
                    each.tell("run 60")
                time.sleep(chance.uniform(0.05, 0.3))
                if bounce % 2:
                    broker.stop()
                else:
                    broker.kill()
                time.sleep(0.5)
                broker.start()
                done += 60
                said = [each.said() for each in pair]
                assert [words[:2] for words in said] == [["ran", str(done)]] * 2
                middle.read()
        troubles = sum(int(words[5]) + int(words[7]) for words in said)
        seen = tally(items_of(store), {"anna": done, "bert": done})
        disagreeing = forks(store, middle.read())
    finally:
        broker.stop()
    assert troubles > 0, "the writers noticed"
    fault_matrix.record(
        Seen(
            fault="the broker is stopped or killed, and started again, under load",
            where="kafka broker",
            runs=BOUNCES,
            lost=seen.lost,
            doubled=seen.doubled,
            forked=disagreeing,
            test=TEST,
        )
    )
    assert (seen.lost, seen.doubled, seen.disordered, disagreeing) == (0, 0, 0, 0)
