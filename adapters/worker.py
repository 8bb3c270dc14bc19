"""A processor at work on its ledger: recover, read, decide, commit, in turns.

Recovery is the normal path: whatever goes wrong with a commit, the worker drops all it holds in
memory and folds its own ledger again. What a crash leaves at any step is a ledger that names, in
its last commit, exactly the inputs that it has consumed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final

from adapters.worker_reading import (
    READ_BYTES,
    Reading,
    Run,
    learn_noise,
    new_chain,
    resume,
)
from adapters.worker_stores import HeldStates, OwnCommits, OwnLedger, Snapshots
from adapters.worker_told import Told
from domain.chain import Counted, LedgerStopped
from domain.codec import Codec
from domain.commit import LEDGER_TOPICS, CommitBody, InputRun, Ledger
from domain.figures import Figures
from domain.invariant import invariant
from domain.ledger import LEDGER_ID, GenesisRecorded, LogBound, TopicBound, WriterRotated
from domain.ports import Fetched, Log, LogError, LogRecord, LogTruncated
from domain.processor import (
    ForeignCommit,
    Processor,
    States,
    Unit,
    Versioned,
    decode_commit,
    full,
    header,
)
from domain.signed import Verifier

CLOCK_SKEW_US: Final = 300 * 1_000_000
_FLYING_WAIT_S: Final = 0.005


class ClockBehind(Exception):
    """The log's append times are ahead of this machine's clock: an operating guard, no rule."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """What the last recovery did: figures for those who watch a worker."""

    snapshot_height: int  # -1: there was none that fits
    folded: int
    seconds: float


@dataclass(frozen=True, slots=True)
class _Flying:
    """A commit that was given to the own ledger and is not known to be on it."""

    unit: Unit
    runs: list[Run]
    bytes_before: int
    began_ns: int


class Worker:
    """One processor, its own ledger, and the partitions that it reads."""

    def __init__(
        self,
        *,
        make: Callable[[States], Processor],
        own: OwnLedger,
        commits: OwnCommits,
        log: Log,
        codec: Codec,
        verify: Verifier,
        topics: Sequence[TopicBound],
        wanted: Callable[[Ledger], dict[int, type[Any]]],
        clock_us: Callable[[], int] | None = None,
        cut: Callable[[Unit], bool] = full,
        figures: Figures | None = None,
        snapshots: Snapshots | None = None,
    ) -> None:
        """Work with what the composition root gives; nothing is read before the first turn.

        ``wanted`` names the schema numbers that this processor learns from a foreign ledger.
        ``clock_us`` is given where time is the broker's: it guards against a clock gone wrong.
        ``cut`` says after each item whether the step ends there; no rule may see where it does. A
        step that activates rules ends in any case. ``figures`` is told how the work goes. Without
        ``snapshots`` a recovery folds the whole ledger; it ends in the same state.
        """
        self._make = make
        self._own = own
        self._commits = commits
        self._log = log
        self._codec = codec
        self._verify = verify
        self._topics = tuple(topics)
        self._wanted = wanted
        self._clock_us = clock_us
        self._cut: Callable[[Unit], bool] = lambda unit: self.processor.step_ends or cut(unit)
        self._told = Told(figures, log, clock_us)
        self._snapshots = snapshots
        self._height = -1
        self._runs: list[Run] = []
        self._flying: _Flying | None = None
        self._readings: list[Reading] = []
        self._recovered = False
        self.processor: Processor = make(own)
        self.commits = 0
        self.lost_races = 0
        self.recovery: Recovery | None = None

    # Turns

    def turn(self, *, wait_s: float = 0.0) -> bool:
        """Read what every source has, decide, commit. True if anything was or is being appended.

        With ``wait_s`` the processor's own input is waited on, or its first source where it has
        none; while a commit is on its way, only briefly, since that is to be followed up. Raises
        ``LedgerStopped`` where no reader may go on, ``RulesUnknown`` where this program may not,
        and the log's operating errors.
        """
        before = self.commits
        try:
            if not self._recovered:
                self.recover()
            if self._flying is not None:
                wait_s = min(wait_s, _FLYING_WAIT_S)
            awaited = next((r for r in self._readings if r.chain is None), self._readings[0])
            # A record that the last commit ended inside of goes on before anything else is read, as
            # it does where nobody dies: what a processor made of its first part is in no event.
            for reading in sorted(self._readings, key=lambda each: each.items_done < 0):
                self._read(reading, wait_s if reading is awaited else 0.0)
            self._commit_if_due()
            self._tell_noise()
            if self._snapshots is not None and self.commits != before and self._snapshots.due():
                self._settle(wait=True)
                self._commit_if_due()
                self._settle(wait=True)
                self._remember(self._snapshots)
        except Exception as error:
            # Whatever it was, what this step decided is not on the ledger, or not known to be.
            self._recovered = False
            self._flying = None
            if isinstance(error, self._own.lost):
                self.lost_races += 1
                self._told.raced()
                return True
            if isinstance(error, LedgerStopped):
                self._told.stopped(error.name)
            raise
        return self.commits != before or self._flying is not None

    def position(self, topic: str, partition: int) -> int:
        """The offset that is read next of a source, committed or not."""
        return self._reading(topic, partition).next_offset

    def committed(self, topic: str, partition: int) -> int:
        """The offset up to which a source is consumed by commits."""
        reading = self._reading(topic, partition)
        flying = self._flying.runs if self._flying is not None else ()
        waiting = [run.first for run in (*flying, *self._runs) if run.reading is reading]
        return min(waiting, default=reading.next_offset)

    def commit_now(self) -> None:
        """Commit what was consumed, if anything was; else a step waits for the idle interval."""
        if self._runs:
            self._commit()
        self._settle(wait=True)

    def _reading(self, topic: str, partition: int) -> Reading:
        return next(
            r for r in self._readings if (r.source.topic, r.source.partition) == (topic, partition)
        )

    def close(self) -> None:
        """Release the ledger's index; the log belongs to the caller."""
        try:
            with suppress(*self._own.lost):
                self._settle(wait=True)
        finally:
            if self._snapshots is not None:
                self._snapshots.close()
            self._commits.index.close()

    def counted(self, from_height: int) -> Iterator[Counted]:
        """The commits of the own ledger from a height on."""
        return self._commits.commits(from_height)

    def rest(self) -> None:
        """Commit what was consumed and leave a snapshot, if there is one worth while."""
        snapshots = self._snapshots
        if snapshots is not None and self._recovered and snapshots.worthwhile():
            missed: tuple[type[Exception], ...] = (*self._own.lost, LogError)
            try:
                self.commit_now()
            except missed:
                # Whoever starts next folds a little more.
                self._recovered = False
                return
            self._remember(snapshots)

    def recover(self) -> None:
        """Stand where the last commit of the own ledger says: from a snapshot, or its first one."""
        began_ns = time.perf_counter_ns()
        self._own.forget()
        self._runs = []
        self._flying = None
        before = self._recall()
        keep = self._own.keep if isinstance(self._own, HeldStates) else None
        last: dict[tuple[str, int], InputRun] = {}
        folded = 0
        for counted in self._commits.commits(self._height + 1):
            self._adopt(counted, keep, last)
            folded += 1
        for reading in self._readings:
            run = last.get((reading.source.topic, reading.source.partition))
            if run is not None:
                self._stand_after(reading, run)
        self._commits.may_write()
        self._told.recovered(commits=folded, began_ns=began_ns)
        self.recovery = Recovery(
            snapshot_height=before,
            folded=folded,
            seconds=(time.perf_counter_ns() - began_ns) / 1e9,
        )
        if self._height < 0:
            self._begin_ledger()
        self._recovered = True

    def _recall(self) -> int:
        """Remember a snapshot, or nothing; the height at which it was made, or -1."""
        found = None
        if self._snapshots is not None:
            found = self._snapshots.recall(lambda: self._make(self._own), self._stands)
        self.processor = processor = self._make(self._own) if found is None else found[0]
        self._readings = [Reading(source) for source in processor.sources()]
        for reading in self._readings:
            if reading.source.ledger is not None:
                reading.chain = new_chain(
                    reading.source, processor.genesis, processor.genesis_hash, self._verify
                )
        if found is None:
            self._commits.whole()
            self._height = -1
            return -1
        _, recalled = found
        self._own.seed(recalled.asleep)
        for reading, standing in zip(self._readings, recalled.where["sources"], strict=True):
            reading.stand(standing)
        self._height = recalled.where["head"]["height"]
        return self._height

    def _stands(self, where: Mapping[str, Any]) -> bool:
        sources = [(source.topic, source.partition) for source in self.processor.sources()]
        return [
            (topic, partition) for topic, partition, *_ in where["sources"]
        ] == sources and self._commits.stand(where["head"])

    def _remember(self, snapshots: Snapshots) -> None:
        """Take a snapshot as of the last commit, unless that ended inside a record."""
        if self._runs or any(reading.items_done >= 0 for reading in self._readings):
            return
        where: dict[str, Any] = {
            "head": dict(self._commits.standing()),
            "sources": [reading.standing() for reading in self._readings],
        }
        if where["head"]["height"] == self._height:
            snapshots.take(self.processor, where, self._own.held(), self._own.asleep)

    def _adopt(
        self,
        counted: Counted,
        keep: Callable[[Sequence[Versioned]], None] | None,
        last: dict[tuple[str, int], InputRun],
    ) -> None:
        processor = self.processor
        parts = counted.parts()
        if parts is None:
            raise LedgerStopped(
                "corrupt",
                processor.ledger,
                processor.shard,
                counted.offset,
                "the bulk does not hash as the envelope says",
                height=counted.envelope.height,
            )
        body = self._codec.decode(CommitBody, counted.body)
        processor.adopt(body, parts, keep)
        self._height = counted.envelope.height
        if self._snapshots is not None:
            self._snapshots.committed(len(body.events), sum(len(part.data) for part in parts))
        for run in body.runs:
            known = last.get((run.topic, run.partition))
            if run.height < 0 and known is not None and known.height >= 0:
                run = _with_height(run, known)
            last[run.topic, run.partition] = run

    def _stand_after(self, reading: Reading, run: InputRun) -> None:
        """Stand where a run ended; a foreign ledger's last commit in it is known again."""
        reading.next_offset, reading.items_done = run.next, run.items_done
        reading.noise_known = reading.chain is None
        if run.height >= 0:
            self.processor.resume(
                self._foreign(reading, resume(self._fetch, reading, run, self._name()))
            )

    def _begin_ledger(self) -> None:
        processor = self.processor
        start = processor.genesis.start_us
        processor.emit(
            LEDGER_ID, LogBound(at_us=start, shards=processor.shards, topics=self._topics)
        )
        processor.emit(LEDGER_ID, GenesisRecorded(at_us=start, genesis=processor.genesis))
        self._commit()

    # Reading

    def _fetch(self, reading: Reading, offset: int, wait_s: float = 0.0) -> Fetched:
        """Read a source. Raises ``LedgerStopped`` where what was consumed of it is gone."""
        source, processor, chain = reading.source, self.processor, reading.chain
        try:
            return self._log.read(
                source.topic, source.partition, offset, max_bytes=READ_BYTES, wait_s=wait_s
            )
        except LogError as error:
            # A ledger is kept for ever: a beginning that is gone is lost as an end is.
            ended = isinstance(error, LogTruncated)
            if not ended and (
                source.ledger is None or self._log.start(source.topic, source.partition) <= offset
            ):
                raise
            ledger, shard, height = processor.ledger, processor.shard, self._height
            if source.ledger is not None and chain is not None:
                ledger, shard, height = source.ledger, source.partition, max(chain.height, 0)
            why = f"{error} {self._name()} has consumed up to there."
            raise LedgerStopped("truncated", ledger, shard, offset, why, height=height) from error

    def _name(self) -> str:
        return f"{LEDGER_TOPICS[self.processor.ledger]}[{self.processor.shard}]"

    def _read(self, reading: Reading, wait_s: float) -> None:
        source = reading.source
        while True:
            fetched = self._fetch(reading, reading.next_offset, wait_s)
            self._told.read(source, fetched)
            if fetched.next_offset == reading.next_offset:
                return
            self._guard_clock(fetched.records)
            if source.ledger is None:
                self._feed_external(reading, fetched.records)
            else:
                for record in fetched.records:
                    self._feed_foreign(reading, record)
            self._consumed(reading, fetched.next_offset)
            if self._clock_us is not None:
                # In production a busy source must not keep the others waiting for ever.
                return
            wait_s = 0.0

    def _guard_clock(self, records: Sequence[LogRecord]) -> None:
        if self._clock_us is None or not records:
            return
        ahead = records[-1].time_us - self._clock_us()
        if ahead > CLOCK_SKEW_US:
            raise ClockBehind(
                f"the log's time is {ahead // 1_000_000} s ahead of this machine's clock; "
                "set the clock right and start again"
            )

    def _feed_external(self, reading: Reading, records: Sequence[LogRecord]) -> None:
        fed = 0
        while fed < len(records):
            rest = records[fed:] if fed else records
            done = items = 0
            cut = False
            for done, items in self.processor.external_many(reading.source, rest):  # noqa: B007
                cut = self._cut(self.processor.unit)
                if cut:
                    break
            for record in rest[:done]:
                self._take(reading, record)
            fed += done
            if cut:
                if done < len(rest):
                    # Of a record that went on in this step too, the items of both steps are done.
                    before = max(reading.items_done, 0) if done == 0 else 0
                    self._consumed(reading, rest[done].offset, items_done=before + items or -1)
                self._commit()

    def _feed_foreign(self, reading: Reading, record: LogRecord) -> None:
        chain = reading.chain
        invariant(chain is not None, "a foreign ledger is read by its chain")
        assert chain is not None
        try:
            counted = chain.judge(record)
        except LedgerStopped as stopped:
            if stopped.name != "fork" or reading.noise_known:
                raise
            learn_noise(self._fetch, reading, self._verify, record.offset)
            counted = chain.judge(record)
        if not isinstance(counted, Counted):
            self._take(reading, record)
            return
        commit = self._foreign(reading, counted)
        items = max(reading.items_done, 0)
        while True:
            done = items
            for done in self.processor.foreign(commit, items):  # noqa: B007
                if self._cut(self.processor.unit):
                    break
            else:
                break
            self._consumed(reading, record.offset, items_done=done)
            self._commit()
            items = done
        reading.items_done = -1
        self._take(reading, record, counted)

    def _foreign(self, reading: Reading, counted: Counted) -> ForeignCommit:
        ledger = reading.source.ledger
        assert ledger is not None
        body = self._codec.decode(CommitBody, counted.body)
        commit = decode_commit(
            self._codec,
            ledger=ledger,
            shard=reading.source.partition,
            height=counted.envelope.height,
            hash=counted.hash,
            body=body,
            wanted=self._wanted(ledger),
        )
        for _, event in commit.events:
            if isinstance(event, WriterRotated) and reading.chain is not None:
                reading.chain.writer = event.writer
        return commit

    # Runs

    def _run_of(self, reading: Reading) -> Run:
        if not self._runs or self._runs[-1].reading is not reading:
            self._runs.append(Run(reading, reading.next_offset, reading.next_offset))
        return self._runs[-1]

    def _take(self, reading: Reading, record: LogRecord, counted: Counted | None = None) -> None:
        """A record is consumed: it belongs to the current run."""
        run = self._run_of(reading)
        run.count += 1
        run.digest.add(record)
        run.next = reading.next_offset = record.offset + 1
        run.items_done = reading.items_done = -1
        self._reached(run)
        if counted is not None:
            run.height, run.hash = counted.envelope.height, counted.hash

    def _consumed(self, reading: Reading, next_offset: int, items_done: int = -1) -> None:
        """The position moved without a record, or into one."""
        if next_offset == reading.next_offset and items_done < 0:
            return
        run = self._run_of(reading)
        run.next = reading.next_offset = next_offset
        run.items_done = reading.items_done = items_done
        self._reached(run)

    def _reached(self, run: Run) -> None:
        """Where the step is when the run ends: told again with each record of it."""
        run.time_us = self.processor.time_us
        run.events = len(self.processor.unit.events)

    # Committing

    def _tell_noise(self) -> None:
        own = self.processor
        self._told.noise((LEDGER_TOPICS[own.ledger], own.shard), self._commits.noise_count)
        for reading in self._readings:
            if reading.chain is not None:
                source = reading.source
                self._told.noise((source.topic, source.partition), reading.chain.noise_count)

    def _commit_if_due(self) -> None:
        if not self._settle(wait=False):
            # What comes until then goes into the next commit together.
            return
        unit = self.processor.unit
        if unit.events or (self._runs and self.processor.idle_is_due()):
            self._commit()

    def _commit(self) -> None:
        self._settle(wait=True)
        processor = self.processor
        before, began_ns = self._commits.written_bytes, time.perf_counter_ns()
        self._own.commit(
            processor.unit.events,
            processor.unit.finals(),
            header(
                processor.unit,
                processor.time_us,
                processor.rules.version,
                [run.made() for run in self._runs],
            ),
            height=self._height + 1,
        )
        self._flying = _Flying(processor.unit, self._runs, before, began_ns)
        self._height += 1
        self._runs = []
        processor.begin()
        self._settle(wait=False)

    def _settle(self, *, wait: bool) -> bool:
        """Whether all that was given to the ledger is durable on it; raises what prevents that."""
        flying = self._flying
        if flying is None:
            return True
        if not self._own.settle(wait=wait):
            return False
        self._flying = None
        self.commits += 1
        size_bytes = self._commits.written_bytes - flying.bytes_before
        self._told.committed(flying.unit, size_bytes=size_bytes, began_ns=flying.began_ns)
        if self._snapshots is not None:
            self._snapshots.committed(len(flying.unit.events), flying.unit.bulk_bytes)
        return True


def _with_height(run: InputRun, known: InputRun) -> InputRun:
    """A later run that saw only noise: the last counting commit is still the earlier run's."""
    return replace(run, height=known.height, hash=known.hash)
