"""What the fault tests on the real broker share: a topic with one ledger, writers, two readers."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from adapters.eventsourcing_index import Depth
from adapters.kafka_broker import CHECKOUT, Guard, send
from adapters.kafka_log import KafkaLog
from adapters.kafka_topics import KafkaTopics
from tests.eventsourcing.ledgers import LedgerStore

LONG = os.environ.get("SYNOR_LONG") == "1"
ANSWER_S = 120.0


def new_ledger(bootstrap: str) -> LedgerStore:
    """A ledger on a topic of its own."""
    topic = f"fire.{uuid.uuid4().hex}"
    topics = KafkaTopics(bootstrap, client_id="fire-admin")
    topics.create(topic, 1, keep_forever=True)
    topics.close()
    return LedgerStore(lambda: KafkaLog(bootstrap, client_id="fire-reader"), topic)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What came of acknowledged items: how many are not there, twice there, or out of order."""

    lost: int
    doubled: int
    disordered: int


def tally(items: list[str], acknowledged: dict[str, int]) -> Tally:
    """Compare the items that count with the numbers of items that writers were told are there."""
    lost = doubled = disordered = 0
    for name, count in acknowledged.items():
        numbers = [int(item.split()[1]) for item in items if item.split()[0] == name]
        lost += len(set(range(count)) - set(numbers))
        doubled += len(numbers) - len(set(numbers))
        disordered += sum(a >= b for a, b in itertools.pairwise(numbers))
    return Tally(lost=lost, doubled=doubled, disordered=disordered)


class Resumed:
    """A reader that stops and goes on from its index, and so starts anywhere."""

    def __init__(self, store: LedgerStore, index: Path) -> None:
        self._store = store
        self._index = index

    def read(self) -> list[bytes]:
        """Open, read to the end, close; the hashes of every commit as it knows them."""
        log = self._store.open_log()
        at = self._store.partition(log, index=self._index, depth=Depth.COMMITS, signer=None)
        head = at.catch_up()
        found = [at.index.commit_at(height) for height in range(head.height + 1)]
        at.close()
        return [each.hash for each in found if each is not None]


def forks(store: LedgerStore, *others: list[bytes]) -> int:
    """At how many heights a reader from the first record and the others disagree."""
    first = [counted.hash for counted in store.verified()]
    return sum(
        len(other) != len(first) or a != b
        for other in others
        for a, b in itertools.zip_longest(first, other)
    )


def noise_of(store: LedgerStore) -> int:
    """How many records of the topic do not count."""
    log = store.open_log()
    records = log.end(store.topic, 0)
    log.close()
    return records - len(store.verified())


class WriterProcess:
    """`tests.support.ledger_writer` as a process; killed when the test ends, however it ends."""

    def __init__(self, bootstrap: str, topic: str, name: str) -> None:
        self.name = name
        command = [sys.executable, "-m", "tests.support.ledger_writer", bootstrap, topic, name]
        self._process = subprocess.Popen(
            command, cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._guard = Guard(self._process.pid)

    def tell(self, order: str) -> None:
        """Give an order; ``said`` waits for what it says."""
        assert self._process.stdin is not None
        self._process.stdin.write(order + "\n")
        self._process.stdin.flush()

    def said(self, within_s: float = ANSWER_S) -> list[str]:
        """The words of its next line."""
        assert self._process.stdout is not None
        late = threading.Timer(within_s, self._process.kill)
        late.start()
        line = self._process.stdout.readline()
        late.cancel()
        assert line, f"writer {self.name} ended or did not answer within {within_s:.0f} s"
        return line.split()

    def send(self, number: signal.Signals) -> None:
        """Send a signal; SIGSTOP has taken effect when this returns."""
        send(self._process, number)

    def end(self) -> None:
        """Kill it, stopped or not."""
        self._process.kill()
        self._process.wait(30)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._guard.dismiss()


@contextmanager
def writers(*places: tuple[str, str, str]) -> Iterator[list[WriterProcess]]:
    """Writers by (bootstrap, topic, name), ready."""
    made = [WriterProcess(*place) for place in places]
    try:
        for each in made:
            assert each.said() == ["ready"]
        yield made
    finally:
        for each in made:
            each.end()
