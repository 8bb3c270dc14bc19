"""What goes wrong in a simulation: drawn from the seed, counted, and nothing of it by itself.

Each seed draws which kinds of fault happen at all and how often (a swarm of different runs finds
more than many runs of one mixture). A writer that is paused is a call that has not returned while
others take their turns, so what it does when it wakes is decided on what it knew before.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any, Final

from adapters.evm_keys import Signed
from adapters.evm_outbox import Attempt, Outbox
from adapters.memory_log import MemoryLog
from domain.ids import Hash32
from domain.l1 import Sending, TxHash
from domain.ports import Fetched, LogError
from projections.following import Position, ProjectedCommit, RowStore


class Crash(BaseException):
    """The process is gone. No code of ours may catch it, so it is no ``Exception``."""


class Fault(StrEnum):
    """Every kind of fault; the text is what the fault matrix calls it."""

    DIES_BEFORE_APPEND = "a worker dies before its append"
    DIES_AFTER_APPEND = "a worker dies after its append, before the answer"
    DIES_READING = "a worker dies while it reads"
    LOST_WRITTEN = "an append's answer is lost, the record is written"
    LOST_UNWRITTEN = "an append's answer is lost, the record is not written"
    LOST_LATE = "an append's answer is lost, the record is written later"
    REFUSED = "an append is refused"
    TWICE = "an append is written twice"
    PAUSED_BEFORE = "a worker is paused before its append, and wakes"
    PAUSED_AFTER = "a worker is paused after its append, and wakes"
    SHORT_READ = "a read ends early"
    FAILED_READ = "a read fails"
    INDEX_DROPPED = "an index is dropped"
    SNAPSHOTS_DROPPED = "snapshots are dropped"
    CUT_STEP = "a step is cut anywhere"
    FOREIGN_RECORD = "bytes, copies and forgeries on a ledger"
    TELEMETRY_DELETED = "the beginning of telemetry is deleted, once it is consumed"
    SEND_LOST_WRITTEN = "a client's answer is lost, the record is written"
    SEND_LOST_UNWRITTEN = "a client's answer is lost, the record is not written"
    SEND_LATE = "a client's record arrives late, after others of its own"
    SEND_REFUSED = "a client's send is refused"
    SEND_TWICE = "a client sends twice"
    SEND_SHUFFLED = "deliveries of an instant are reordered"
    PROJECTOR_DIES_BEFORE_COMMIT = "a projector dies between its batch and its commit"
    PROJECTOR_DIES_AFTER_COMMIT = "a projector dies after its commit"
    PROJECTOR_PAUSED = "a projector is paused before its batch, and wakes"
    SENDER_DIES_BEFORE_OUTBOX = "the sender dies before its outbox is written"
    SENDER_DIES_AFTER_OUTBOX = "the sender dies after its outbox is written"
    SENDER_DIES_BEFORE_BROADCAST = "the sender dies before a broadcast"
    SENDER_DIES_AFTER_BROADCAST = "the sender dies after a broadcast"
    L1_UNREACHABLE = "the L1 does not answer"
    L1_ANSWER_LOST = "the L1's answer to a broadcast is lost"
    L1_REORGANISED = "the L1 is reorganised above finality"
    WATCHER_DIES = "the watcher dies and observes everything again"


#: How often an active kind strikes, in a thousand of its chances.
RATES: Final = (5, 20, 60)
#: Kinds with few chances in a run strike so many times as often.
SELDOM: Final = frozenset(
    {
        Fault.INDEX_DROPPED,
        Fault.SNAPSHOTS_DROPPED,
        Fault.TELEMETRY_DELETED,
        Fault.SEND_SHUFFLED,
        Fault.SENDER_DIES_BEFORE_BROADCAST,
        Fault.SENDER_DIES_AFTER_BROADCAST,
        Fault.L1_ANSWER_LOST,
    }
)
_OFTENER: Final = 5


class Faults:
    """The faults of one run."""

    def __init__(self, rng: random.Random, only: Sequence[Fault] | None = None) -> None:
        """Draw the run's mixture; ``only`` are the kinds that it may have, by default all."""
        self._rng = rng
        allowed = list(Fault) if only is None else list(only)
        self.rates = {
            fault: rng.choice(RATES) * (_OFTENER if fault in SELDOM else 1)
            for fault in Fault
            if rng.randrange(2) and fault in allowed
        }
        self.seen: Counter[Fault] = Counter()
        self.muted = False
        self.told: Callable[[Fault], None] = lambda fault: None

    def pick(self, *candidates: Fault) -> Fault | None:
        """The one of ``candidates`` that strikes now, if one does."""
        if self.muted:
            return None
        at = self._rng.randrange(1000)
        for fault in candidates:
            at -= self.rates.get(fault, 0)
            if at < 0:
                self.saw(fault)
                return fault
        return None

    def strikes(self, fault: Fault) -> bool:
        """Whether one kind strikes now."""
        return fault in self.rates and self.pick(fault) is not None

    def saw(self, fault: Fault) -> None:
        """Count a fault that happened."""
        self.seen[fault] += 1
        self.told(fault)


class FaultyLog:
    """A worker's connection to the log. Its reads and appends go wrong as the run draws."""

    def __init__(
        self,
        log: MemoryLog,
        faults: Faults,
        *,
        pause: Callable[[], None],
        later: Callable[[str, int, bytes], None],
    ) -> None:
        """``pause`` lets others take turns, ``later`` keeps a record that arrives in a while."""
        self._log = log
        self._faults = faults
        self._pause = pause
        self._later = later

    def append(self, topic: str, partition: int, value: bytes) -> int:
        """See the port: whatever happens here a log may do."""
        log = self._log
        fault = self._faults.pick(
            Fault.DIES_BEFORE_APPEND,
            Fault.DIES_AFTER_APPEND,
            Fault.LOST_WRITTEN,
            Fault.LOST_UNWRITTEN,
            Fault.LOST_LATE,
            Fault.REFUSED,
            Fault.TWICE,
            Fault.PAUSED_BEFORE,
            Fault.PAUSED_AFTER,
        )
        match fault:
            case Fault.DIES_BEFORE_APPEND:
                raise Crash
            case Fault.DIES_AFTER_APPEND:
                log.append(topic, partition, value)
                raise Crash
            case Fault.LOST_WRITTEN:
                log.fail_next_append(persist=True)
            case Fault.LOST_UNWRITTEN:
                log.fail_next_append(persist=False)
            case Fault.LOST_LATE:
                self._later(topic, partition, value)
                log.fail_next_append(persist=False)
            case Fault.REFUSED:
                log.refuse_next_append()
            case Fault.TWICE:
                log.duplicate_next_append()
            case Fault.PAUSED_BEFORE:
                self._pause()
            case Fault.PAUSED_AFTER:
                offset = log.append(topic, partition, value)
                self._pause()
                return offset
            case _:
                pass
        return log.append(topic, partition, value)

    def append_many(self, topic: str, partition: int, values: Sequence[bytes]) -> Sequence[int]:
        """One after the other."""
        return [self.append(topic, partition, value) for value in values]

    def read(
        self, topic: str, partition: int, offset: int, *, max_bytes: int, wait_s: float = 0.0
    ) -> Fetched:
        """See the port. Nobody waits: time is virtual."""
        fault = self._faults.pick(Fault.DIES_READING, Fault.SHORT_READ, Fault.FAILED_READ)
        if fault is Fault.DIES_READING:
            raise Crash
        if fault is Fault.FAILED_READ:
            raise LogError("The read was failed by the simulation.")
        if fault is Fault.SHORT_READ:
            max_bytes = 1
        return self._log.read(topic, partition, offset, max_bytes=max_bytes)

    def topic_id(self, topic: str) -> bytes:
        """See the port."""
        return self._log.topic_id(topic)

    def partitions(self, topic: str) -> int:
        """See the port."""
        return self._log.partitions(topic)

    def end(self, topic: str, partition: int) -> int:
        """See the port."""
        return self._log.end(topic, partition)

    def start(self, topic: str, partition: int) -> int:
        """See the port."""
        return self._log.start(topic, partition)

    def close(self) -> None:
        """See the port."""


class FaultyOutbox(Outbox):
    """An outbox that outlives its sender, in memory; the sender dies before or after a write."""

    def __init__(self, faults: Faults) -> None:
        """Begin empty."""
        super().__init__(None)
        self._faults = faults

    def _write(self, write: Callable[[], Any]) -> Any:
        fault = self._faults.pick(Fault.SENDER_DIES_BEFORE_OUTBOX, Fault.SENDER_DIES_AFTER_OUTBOX)
        if fault is Fault.SENDER_DIES_BEFORE_OUTBOX:
            raise Crash
        said = write()
        if fault is Fault.SENDER_DIES_AFTER_OUTBOX:
            raise Crash
        return said

    def add(self, checkpoint: Hash32, epoch: int, data: bytes) -> None:
        """See the outbox."""
        self._write(lambda: super(FaultyOutbox, self).add(checkpoint, epoch, data))

    def put(self, sending: Sending) -> None:
        """See the outbox."""
        self._write(lambda: super(FaultyOutbox, self).put(sending))

    def sent(self, transaction: TxHash, head: int) -> None:
        """See the outbox."""
        self._write(lambda: super(FaultyOutbox, self).sent(transaction, head))

    def sign(self, sending: Sending, signed: Signed, attempt: Attempt) -> Sending:
        """See the outbox."""
        made: Sending = self._write(
            lambda: super(FaultyOutbox, self).sign(sending, signed, attempt)
        )
        return made


class PausedRows:
    """A projector's way to its rows, on which it may be overtaken or die after the commit."""

    def __init__(self, target: RowStore, faults: Faults, pause: Callable[[], None]) -> None:
        """Hand everything to ``target``."""
        self._target = target
        self._faults = faults
        self._pause = pause

    def position(self, application: str) -> Position:
        """See ``RowStore``."""
        return self._target.position(application)

    def apply(self, before: Position, after: Position, commits: Sequence[ProjectedCommit]) -> None:
        """See ``RowStore``."""
        fault = self._faults.pick(Fault.PROJECTOR_PAUSED, Fault.PROJECTOR_DIES_AFTER_COMMIT)
        if fault is Fault.PROJECTOR_PAUSED:
            self._pause()
        self._target.apply(before, after, commits)
        if fault is Fault.PROJECTOR_DIES_AFTER_COMMIT:
            raise Crash
