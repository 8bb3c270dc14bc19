"""Logical time: the driver writes the ticks, and only when everything has come to rest (design 2).

Processors, watcher and sender take turns in a fixed order. When a whole round of turns appended
nothing, every input and ledger is read to its end, and the next tick may come: the same tick to
every partition, at each distinct input time, at each deadline, and once an idle interval.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Final

from adapters.actor import Actor, Gathered
from adapters.worker import Worker
from domain.commit import COMMANDS_TOPIC, TELEMETRY_TOPIC
from domain.invariant import invariant
from domain.ledger import Tick

Turn = Callable[[], bool]

#: Rounds after which a system that does not come to rest is taken for broken.
ROUNDS_MAX: Final = 10_000


class LogicalTime:
    """The clock of a system in one process."""

    def __init__(
        self,
        *,
        inputs: Gathered,
        shards: int,
        clock: Actor,
        workers: Sequence[Worker],
        turns: Sequence[Turn],
        start_us: int,
        idle_us: int,
        group: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """``turns`` in their fixed order; ``inputs`` of an instant go out together.

        ``group`` may join a tick's appends in a transaction.
        """
        self._inputs = inputs
        self._shards = shards
        self._clock = clock
        self._workers = workers
        self._turns = turns
        self._start_us = start_us
        self._idle_us = idle_us
        self._group = group
        self.now_us = start_us
        self.ticks = 0

    def settle(self) -> None:
        """Take turns until a whole round appended nothing."""
        with self._group():
            self._inputs.flush()
            self._settle()

    def _settle(self) -> None:
        for _ in range(ROUNDS_MAX):
            # Every turn is taken, also after one that appended.
            appended = [turn() for turn in self._turns]
            if not any(appended):
                return
        invariant(False, f"the system is not at rest after {ROUNDS_MAX} rounds")

    def tick(self, time_us: int, send: Callable[[], None] | None = None) -> None:
        """Let it be ``time_us`` everywhere, append what ``send`` sends, come to rest."""
        with self._group():
            record = self._clock.sign(Tick(time_us=time_us))
            self._inputs.append(COMMANDS_TOPIC, 0, record)
            for shard in range(self._shards):
                self._inputs.append(TELEMETRY_TOPIC, shard, record)
            self.now_us = time_us
            self.ticks += 1
            if send is not None:
                send()
            self._inputs.flush()
            self._settle()

    def advance_to(self, time_us: int, send: Callable[[], None] | None = None) -> None:
        """Tick at every deadline and idle instant before ``time_us``, then at ``time_us`` itself.

        ``send`` appends the inputs of that instant, after its tick.
        """
        while (due := self._next_due()) < time_us:
            self.tick(due)
        self.tick(time_us, send)

    def _next_due(self) -> int:
        passed = (self.now_us - self._start_us) // self._idle_us
        due = self._start_us + (passed + 1) * self._idle_us
        for worker in self._workers:
            first = worker.processor.next_due_us()
            if first is not None and self.now_us < first < due:
                due = first
        return due
