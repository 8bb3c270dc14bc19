"""Clients, readers and a market that is restarted, on a real broker behind a faulty network.

Every operation is written down as its client knew it, ok, failed or unknown, and the histories are
judged by the checker that the simulator uses.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from adapters.actor import Actor
from adapters.bootstrap import Network, create_topics, worker
from adapters.ed25519 import Signer
from adapters.embedded import SystemKeys, derived_signer, genesis_of
from adapters.eventsourcing_index import Depth
from adapters.follow import Follower
from adapters.kafka_log import KafkaLog
from adapters.kafka_topics import KafkaTopics
from adapters.simulator_checker import check, counts
from adapters.simulator_history import (
    Answer,
    Effect,
    History,
    Outcome,
    Poll,
    Send,
    Submit,
    named,
)
from domain.account import ObserveDeposit, OpenAccount, Withdraw
from domain.bid import BidPlaced, BidRow, PlaceBids
from domain.commit import COMMANDS_TOPIC, Ledger
from domain.genesis import HOUR_US, Parameters, TimeSource
from domain.ids import Address, Hash32, Wide, account_of, derive
from domain.key import CommandAnswered
from domain.ports import AppendUnknown, LogError
from tests.support.fault_matrix import FaultMatrix, Seen
from tests.support.kafka_broker import started_broker
from tests.support.kafka_proxy import (
    NOT_ENOUGH_REPLICAS,
    REQUEST_TIMED_OUT,
    Do,
    Fault,
    SeededPlan,
    every_produce,
    proxied,
    undisturbed,
)

LONG = os.environ.get("SYNOR_LONG") == "1"
CLIENTS = 3
COMMANDS = 200 if LONG else 20
NANO = 1_000_000_000
PLACE = (COMMANDS_TOPIC, 0)
SEED = b"history on kafka"
KEYS = SystemKeys.derived(SEED)
FAULTS = [
    Fault(do=Do.SWALLOW),
    Fault(do=Do.CUT_BEFORE),
    Fault(do=Do.CUT_AFTER),
    Fault(do=Do.DROP_ANSWER),
    Fault(do=Do.DOUBLE_REQUEST),
    Fault(do=Do.REFUSE, code=NOT_ENOUGH_REPLICAS),
    Fault(do=Do.REFUSE_AFTER, code=REQUEST_TIMED_OUT),
]

pytestmark = [pytest.mark.service, pytest.mark.slow, pytest.mark.timeout(900 if LONG else 180)]


class Recorded:
    """A client's way to the commands, which writes every attempt down and repeats what failed."""

    def __init__(self, process: int, log: KafkaLog, history: History) -> None:
        self._process = process
        self._log = log
        self._history = history

    def append(self, topic: str, partition: int, value: bytes) -> None:
        while not self._attempt(topic, partition, value):
            pass

    def _attempt(self, topic: str, partition: int, value: bytes) -> bool:
        invoked = time.monotonic_ns()
        offset: int | None = None
        try:
            offset = self._log.append(topic, partition, value)
            outcome = Outcome.OK
        except AppendUnknown:
            outcome = Outcome.INFO
        except LogError:
            outcome = Outcome.FAIL
        self._history.add(
            Send(
                process=self._process,
                place=(topic, partition),
                value=named(value),
                outcome=outcome,
                offset=offset,
                invoked=invoked,
                completed=time.monotonic_ns(),
            )
        )
        return outcome is Outcome.OK


class Town:
    """A network on a broker, and everybody who uses it, each with a connection of its own."""

    def __init__(self, broker: str, proxy: str, stack: ExitStack) -> None:
        self._broker = broker
        self._proxy = proxy
        self._stack = stack
        self.history = History()
        self.network = Network.first(
            lambda nonce: genesis_of(
                KEYS,
                name="history",
                start_us=time.time_ns() // 1000,
                time_source=TimeSource.BROKER,
                parameters=Parameters(),
                nonce=nonce,
            ),
            1,
        )
        with closing(KafkaTopics(broker, client_id="admin")) as topics:
            create_topics(self.network, topics)
        self.restarts = 0

    def log(self, name: str, *, faulty: bool = False) -> KafkaLog:
        """A connection; the broker's own, or through the proxy."""
        where = self._proxy if faulty else self._broker
        made = KafkaLog(where, client_id=name, append_timeout_s=0.8, read_timeout_s=5.0)
        self._stack.callback(made.close)
        return made

    def actor(self, signer: Signer, process: int, *, faulty: bool = True) -> Actor:
        """A signer whose sends are written down."""
        return Actor(
            log=Recorded(process, self.log(f"client-{process}", faulty=faulty), self.history),
            codec=self.network.codec,
            genesis_hash=self.network.hash,
            signer=signer,
            session_us=self.network.genesis.start_us,
        )

    def in_doubt(self) -> bool:
        """Whether somebody does not know what became of a command."""
        return any(each.outcome is Outcome.INFO for each in self.history.of(Send))

    def deposits(self, people: list[Actor]) -> None:
        """Everybody has an account with money."""
        watcher = self.actor(KEYS.watcher, 50, faulty=False)
        for number, person in enumerate(people, 1):
            person.command(OpenAccount(payee=Address(bytes(20))))
            watcher.command(
                ObserveDeposit(
                    account=account_of(person.key),
                    amount_nano=Wide(1_000 * NANO),
                    block=number,
                    block_hash=Hash32(bytes(32)),
                    transaction=Hash32(derive("deposit", number) * 2),
                    log_index=0,
                )
            )

    def trade(self, person: Actor, process: int) -> None:
        """Bids that are placed or refused, and withdrawals beyond what is there."""
        rng = random.Random(process)
        for _ in range(COMMANDS):
            before = person.next_number
            if rng.randrange(3):
                row = BidRow(
                    resource="gpu.h100",
                    region="eu",
                    quantity_milli=1_000,
                    limit_nano=rng.choice((3 * NANO, 3 * NANO + 7)),
                    term_us=rng.choice((1, 400)) * HOUR_US,
                )
                person.command(PlaceBids(bids=(row,)))
                makes = [person.id_of("bid", before)]
            else:
                person.command(Withdraw(amount_nano=Wide(10**15)))
                makes = []
            number = (bytes(person.key), person.session_us, before)
            self.history.add(
                Submit(process=process, number=number, outcome=Outcome.OK, makes=makes)
            )

    def work(self, stop: threading.Event, index: Path) -> None:
        """The market, which dies again and again; its index is what it finds."""
        log = self.log("market", faulty=True)
        direct = self.network.bound_topics(self.log("bound"))
        while True:
            made = worker(
                self.network,
                Ledger.MARKET,
                0,
                log=log,
                index=index,
                signer=KEYS.market,
                topics=direct,
            )
            until_s = time.monotonic() + 0.7
            try:
                while time.monotonic() < until_s:
                    moved = made.turn(wait_s=0.05)
                    if stop.is_set() and not moved and made.position(*PLACE) == log.end(*PLACE):
                        made.commit_now()
                        return
            except LogError:
                # It is made anew, as its supervisor would.
                pass
            finally:
                self.restarts += 1
                made.close()

    def read_inputs(self, stop: threading.Event, process: int) -> None:
        """A reader of the commands, to the end once the clients have stopped."""
        log, rng, at = self.log(f"reader-{process}"), random.Random(process), 0
        while True:
            stopping = stop.is_set()
            fetched = log.read(*PLACE, at, max_bytes=rng.choice((1, 2_000)), wait_s=0.05)
            found = [(record.offset, named(record.value)) for record in fetched.records]
            self.history.add(
                Poll(
                    process=process,
                    place=PLACE,
                    asked=at,
                    records=found,
                    following=fetched.next_offset,
                )
            )
            if stopping and not found and fetched.next_offset == at:
                return
            at = fetched.next_offset

    def read_ledger(self, stop: threading.Event, process: int) -> None:
        """A reader of the market's ledger, who writes down answers and what was made."""
        at = self.network.partition(
            Ledger.MARKET,
            0,
            log=self.log(f"ledger-{process}"),
            index=":memory:",
            depth=Depth.COMMITS,
        )
        follower = Follower(at, self.network.codec)
        while True:
            stopping = stop.is_set()
            for event in follower.new():
                self._note(process, event)
            if stopping:
                return
            time.sleep(0.05)

    def _note(self, process: int, event: Any) -> None:
        match event:
            case CommandAnswered():
                self.history.add(
                    Answer(
                        process=process,
                        number=(bytes(event.key), event.session, event.number),
                        digest=event.digest,
                        code=event.code,
                    )
                )
            case BidPlaced():
                self.history.add(Effect(process=process, made=bytes(event.bid)))
            case _:
                pass


class Running(threading.Thread):
    """A thread whose error is the test's."""

    def __init__(self, run: Callable[..., None], *given: Any) -> None:
        super().__init__(daemon=True)
        self._work = partial(run, *given)
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self.error = error
            raise

    def end(self) -> None:
        self.join(timeout=120)
        assert not self.is_alive(), "it has not come to its end"
        assert self.error is None, repr(self.error)


def test_what_clients_of_a_real_broker_were_told_is_so(
    tmp_path: Path, fault_matrix: FaultMatrix
) -> None:
    """Lost, doubled and late answers, and a market that dies: nothing lost, doubled or undone."""
    broker = started_broker(tmp_path / "kafka")
    try:
        with ExitStack() as stack:
            proxy = stack.enter_context(proxied(broker.bootstrap))
            town = Town(broker.bootstrap, proxy.bootstrap, stack)
            clients_done, inputs_done, ledger_done = (threading.Event() for _ in range(3))
            people = [
                town.actor(derived_signer(SEED, f"person {number}"), number)
                for number in range(CLIENTS)
            ]
            town.deposits(people)
            market = Running(town.work, clients_done, tmp_path / "market.db")
            inputs = [Running(town.read_inputs, inputs_done, 100 + n) for n in range(2)]
            ledger = Running(town.read_ledger, ledger_done, 200)
            # No answer arrives until somebody is in doubt: on a fast machine dice are not enough.
            proxy.plan = every_produce(Fault(do=Do.DROP_ANSWER), client="client-")
            clients = [Running(town.trade, p, n) for n, p in enumerate(people)]
            until_s = time.monotonic() + 20
            while time.monotonic() < until_s and not town.in_doubt():
                time.sleep(0.05)
            proxy.plan = SeededPlan(1, FAULTS, share=0.35)
            for client in clients:
                client.end()
            injected = sum(proxy.injected.values())
            proxy.plan = undisturbed
            clients_done.set()
            market.end()
            inputs_done.set()
            ledger_done.set()
            for each in [*inputs, ledger, Running(town.read_ledger, ledger_done, 201)]:
                each.end()
    finally:
        broker.stop()

    history = town.history
    outcomes = {each.outcome for each in history.of(Send)}
    assert {Outcome.OK, Outcome.INFO} <= outcomes, "answers were lost"
    answered = {each.number for each in history.of(Answer) if each.process == 201}
    assert {each.number for each in history.of(Submit)} <= answered
    assert len({each.code for each in history.of(Answer)}) > 1, "some were refused"
    assert town.restarts > 1
    found = check(history)
    lost, doubled, forked = counts(found)
    fault_matrix.record(
        Seen(
            fault="a seeded mix of all faults under clients, readers and a dying market",
            where="kafka histories",
            runs=injected,
            lost=lost,
            doubled=doubled,
            forked=forked,
            test="tests/faults/test_history_on_kafka.py",
        )
    )
    assert found == []
