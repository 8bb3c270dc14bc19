"""A processor at work on its ledger: recover, read, decide, commit, in turns.

Recovery is the normal path: whatever goes wrong with a commit, the worker drops all it holds in
memory and folds its own ledger again. What a crash leaves at any step is a ledger that names, in
its last commit, exactly the inputs that it has consumed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from adapters.worker_told import Told
from domain.chain import ChainReader, Counted, LedgerStopped
from domain.codec import Codec
from domain.commit import (
    LEDGER_TOPICS,
    NO_HASH,
    CommitBody,
    CommitHeader,
    InputRun,
    Ledger,
    RunDigest,
    body_of,
    parse,
)
from domain.figures import Figures
from domain.ids import Hash32, PublicKey
from domain.invariant import invariant
from domain.ledger import LEDGER_ID, GenesisRecorded, LogBound, TopicBound, WriterRotated
from domain.ports import Fetched, Log, LogRecord, LogTruncated
from domain.processor import (
    DictStates,
    Emitted,
    ForeignCommit,
    Processor,
    Source,
    States,
    Unit,
    Versioned,
    decode_commit,
    full,
    header,
)
from domain.signed import Verifier

READ_BYTES: Final = 4 * 1024 * 1024
NOISE_LOOKBACK: Final = 512
CLOCK_SKEW_US: Final = 300 * 1_000_000


class ClockBehind(Exception):
    """The log's append times are ahead of this machine's clock: an operating guard, no rule."""


class OwnLedger(States, Protocol):
    """The store of a processor's own ledger; ``LedgerApplication`` is the one."""

    @property
    def lost(self) -> tuple[type[Exception], ...]:
        """What ``commit`` raises when another commit counts at the height."""
        ...

    def commit(
        self,
        events: Sequence[Emitted],
        states: Sequence[Versioned],
        header: CommitHeader,
        *,
        height: int,
    ) -> Any:
        """Record one step as the commit of ``height``; raises one of ``lost`` or a log error."""
        ...

    def forget(self) -> None:
        """Drop cached states."""
        ...


class HeldStates(DictStates):
    """An own ledger whose few, hot aggregates are all held in memory: a metering shard's.

    Folding an aggregate's events on first touch would read every accepted batch there ever was.
    """

    def __init__(self, own: OwnLedger) -> None:
        """Hold the states of ``own``, which records."""
        super().__init__()
        self._own = own
        self.lost: tuple[type[Exception], ...] = own.lost

    def commit(
        self,
        events: Sequence[Emitted],
        states: Sequence[Versioned],
        header: CommitHeader,
        *,
        height: int,
    ) -> Any:
        """Record, then hold the states."""
        said = self._own.commit(events, (), header, height=height)
        self.keep(states)
        return said

    def forget(self) -> None:
        """Drop all states; recovery brings them back."""
        self.all.clear()
        self._own.forget()


class Closing(Protocol):
    """Something to be closed."""

    def close(self) -> None:
        """Release it."""
        ...


class OwnCommits(Protocol):
    """The commits of the own ledger, by the reader rule; ``LedgerPartition`` is the one."""

    @property
    def index(self) -> Closing:
        """The droppable index."""
        ...

    @property
    def noise_count(self) -> int:
        """Records that did not count, as far as this reader has read."""
        ...

    @property
    def written_bytes(self) -> int:
        """Length of all commits that this writer has appended."""
        ...

    def catch_up(self) -> Any:
        """Read what the log has and is not known yet."""
        ...

    def head(self) -> Any:
        """Where the ledger stands: has ``height``."""
        ...

    def commits(self, from_height: int = 0) -> Iterator[Counted]:
        """Counting records in order."""
        ...


@dataclass(slots=True)
class _Reading:
    """Where a source is read: next offset, and of a record that is partly done the items."""

    source: Source
    next_offset: int = 0
    items_done: int = -1
    chain: ChainReader | None = None


@dataclass(slots=True)
class _Run:
    """An input run in the making."""

    reading: _Reading
    first: int
    next: int
    count: int = 0
    digest: RunDigest = field(default_factory=RunDigest)
    height: int = -1
    hash: bytes = NO_HASH
    items_done: int = -1

    def made(self) -> InputRun:
        """The run as recorded."""
        return InputRun(
            topic=self.reading.source.topic,
            partition=self.reading.source.partition,
            first=self.first,
            next=self.next,
            count=self.count,
            digest=self.digest.digest(),
            height=self.height,
            hash=Hash32(self.hash),
            items_done=self.items_done,
        )


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
    ) -> None:
        """Work with what the composition root gives; nothing is read before the first turn.

        ``wanted`` names the schema numbers that this processor learns from a foreign ledger.
        ``clock_us`` is given where time is the broker's: it guards against a clock gone wrong.
        ``cut`` says after each item whether the step ends there; no rule may see where it does. A
        step that activates rules ends in any case. ``figures`` is told how the
        work goes.
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
        self._height = -1
        self._runs: list[_Run] = []
        self._readings: list[_Reading] = []
        self._recovered = False
        self.processor: Processor = make(own)
        self.commits = 0
        self.lost_races = 0

    # Turns

    def turn(self, *, wait_s: float = 0.0) -> bool:
        """Read what every source has, decide, commit. True if anything was appended.

        With ``wait_s`` the first source without a record is waited on. Raises ``LedgerStopped``
        where no reader may go on, ``RulesUnknown`` where this program may not, and the log's
        operating errors.
        """
        before = self.commits
        try:
            if not self._recovered:
                self.recover()
            for reading in self._readings:
                self._read(reading, wait_s if reading is self._readings[0] else 0.0)
            self._commit_if_due()
            self._tell_noise()
        except Exception as error:
            # Whatever it was, what this step decided is not on the ledger, or not known to be.
            self._recovered = False
            if isinstance(error, self._own.lost):
                self.lost_races += 1
                self._told.raced()
                return True
            if isinstance(error, LedgerStopped):
                self._told.stopped(error.name)
            raise
        return self.commits != before

    def position(self, topic: str, partition: int) -> int:
        """The offset that is read next of a source, committed or not."""
        return self._reading(topic, partition).next_offset

    def committed(self, topic: str, partition: int) -> int:
        """The offset up to which a source is consumed by commits."""
        reading = self._reading(topic, partition)
        waiting = [run.first for run in self._runs if run.reading is reading]
        return min(waiting, default=reading.next_offset)

    def commit_now(self) -> None:
        """Commit what was consumed, if anything was; else a step waits for the idle interval."""
        if self._runs:
            self._commit()

    def _reading(self, topic: str, partition: int) -> _Reading:
        return next(
            r for r in self._readings if (r.source.topic, r.source.partition) == (topic, partition)
        )

    def close(self) -> None:
        """Release the ledger's index; the log belongs to the caller."""
        self._commits.index.close()

    def recover(self) -> None:
        """Fold the own ledger from its first commit, and stand where its last commit says."""
        began_ns = time.perf_counter_ns()
        self._own.forget()
        processor = self._make(self._own)
        self.processor = processor
        self._runs = []
        self._readings = [_Reading(source) for source in processor.sources()]
        keep = self._own.keep if isinstance(self._own, HeldStates) else None
        by_place = {(r.source.topic, r.source.partition): r for r in self._readings}
        last: dict[tuple[str, int], InputRun] = {}
        self._commits.catch_up()
        self._height = -1
        for counted in self._commits.commits(0):
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
            for run in body.runs:
                known = last.get((run.topic, run.partition))
                if run.height < 0 and known is not None and known.height >= 0:
                    run = _with_height(run, known)
                last[run.topic, run.partition] = run
        for place, run in last.items():
            reading = by_place[place]
            reading.next_offset = run.next
            reading.items_done = run.items_done
        for reading in self._readings:
            if reading.source.ledger is not None:
                at = last.get((reading.source.topic, reading.source.partition))
                self._resume_chain(reading, at)
        self._told.recovered(commits=self._height + 1, began_ns=began_ns)
        if self._height < 0:
            self._begin_ledger()
        self._recovered = True

    def _begin_ledger(self) -> None:
        processor = self.processor
        start = processor.genesis.start_us
        processor.emit(
            LEDGER_ID, LogBound(at_us=start, shards=processor.shards, topics=self._topics)
        )
        processor.emit(LEDGER_ID, GenesisRecorded(at_us=start, genesis=processor.genesis))
        self._commit()

    def _resume_chain(self, reading: _Reading, run: InputRun | None) -> None:
        """Stand in a foreign ledger where the last run over it ended, noise near it included."""
        source = reading.source
        invariant(source.ledger is not None, "a chain is of a ledger")
        assert source.ledger is not None
        genesis = self.processor.genesis
        reading.chain = ChainReader(
            genesis=self.processor.genesis_hash,
            ledger=source.ledger,
            shard=source.partition,
            writer=writer_of(genesis, source.ledger),
            verify=self._verify,
        )
        if run is None or run.height < 0:
            return
        low = max(run.next - NOISE_LOOKBACK, 0)
        while True:
            near = {
                envelope.hash(): (record, envelope)
                for record in self._range(reading, low, run.next)
                if (envelope := parse(record.value)) is not None
            }
            if run.hash in near or low == 0:
                break
            low = max(low - NOISE_LOOKBACK, 0)
        if run.hash not in near:
            raise LedgerStopped(
                "truncated",
                source.ledger,
                source.partition,
                run.next,
                f"the commit that {self._name()} has consumed is not on the log",
                height=run.height,
            )
        chain: set[bytes] = set()
        at: bytes = run.hash
        while at in near:
            chain.add(at)
            at = near[at][1].previous
        # The key may have been rotated since the genesis.
        writers = {near[digest][1].writer for digest in chain}
        noise = {
            digest: envelope.height
            for digest, (_, envelope) in near.items()
            if digest not in chain
            and envelope.writer in writers
            and self._verify(envelope.writer, envelope.unsigned(), envelope.signature)
        }
        reading.chain.resume(run.height, run.hash, noise)
        head, envelope = near[run.hash]
        reading.chain.writer = PublicKey(envelope.writer)
        counted = Counted(
            head.offset,
            head.time_us,
            envelope,
            run.hash,
            body_of(head.value, envelope),
            head.value,
        )
        self.processor.resume(self._foreign(reading, counted))

    def _fetch(self, reading: _Reading, offset: int, wait_s: float) -> Fetched:
        """Read a source. Raises ``LedgerStopped`` where what was consumed of it is gone."""
        source, processor, chain = reading.source, self.processor, reading.chain
        try:
            return self._log.read(
                source.topic, source.partition, offset, max_bytes=READ_BYTES, wait_s=wait_s
            )
        except LogTruncated as error:
            ledger, shard, height = processor.ledger, processor.shard, self._height
            if source.ledger is not None and chain is not None:
                ledger, shard, height = source.ledger, source.partition, max(chain.height, 0)
            why = f"{error} {self._name()} has consumed up to there."
            raise LedgerStopped("truncated", ledger, shard, offset, why, height=height) from error

    def _name(self) -> str:
        return f"{LEDGER_TOPICS[self.processor.ledger]}[{self.processor.shard}]"

    def _range(self, reading: _Reading, first: int, next: int) -> Iterator[LogRecord]:
        while first < next:
            fetched = self._fetch(reading, first, 0.0)
            if fetched.next_offset == first:
                return
            for record in fetched.records:
                if record.offset < next:
                    yield record
            first = fetched.next_offset

    # Reading

    def _read(self, reading: _Reading, wait_s: float) -> None:
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

    def _feed_external(self, reading: _Reading, records: Sequence[LogRecord]) -> None:
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

    def _feed_foreign(self, reading: _Reading, record: LogRecord) -> None:
        chain = reading.chain
        invariant(chain is not None, "a foreign ledger is read by its chain")
        assert chain is not None
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

    def _foreign(self, reading: _Reading, counted: Counted) -> ForeignCommit:
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

    def _run_of(self, reading: _Reading) -> _Run:
        if not self._runs or self._runs[-1].reading is not reading:
            self._runs.append(_Run(reading, reading.next_offset, reading.next_offset))
        return self._runs[-1]

    def _take(self, reading: _Reading, record: LogRecord, counted: Counted | None = None) -> None:
        """A record is consumed: it belongs to the current run."""
        run = self._run_of(reading)
        run.count += 1
        run.digest.add(record)
        run.next = reading.next_offset = record.offset + 1
        run.items_done = reading.items_done = -1
        if counted is not None:
            run.height, run.hash = counted.envelope.height, counted.hash

    def _consumed(self, reading: _Reading, next_offset: int, items_done: int = -1) -> None:
        """The position moved without a record, or into one."""
        if next_offset == reading.next_offset and items_done < 0:
            return
        run = self._run_of(reading)
        run.next = reading.next_offset = next_offset
        run.items_done = reading.items_done = items_done

    # Committing

    def _tell_noise(self) -> None:
        own = self.processor
        self._told.noise((LEDGER_TOPICS[own.ledger], own.shard), self._commits.noise_count)
        for reading in self._readings:
            if reading.chain is not None:
                source = reading.source
                self._told.noise((source.topic, source.partition), reading.chain.noise_count)

    def _commit_if_due(self) -> None:
        unit = self.processor.unit
        if unit.events or (self._runs and self.processor.idle_is_due()):
            self._commit()

    def _commit(self) -> None:
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
        # From here the step is durable; a crash before the next line changes nothing.
        self._height += 1
        self.commits += 1
        size_bytes = self._commits.written_bytes - before
        self._told.committed(processor.unit, size_bytes=size_bytes, began_ns=began_ns)
        self._runs = []
        processor.begin()


def _with_height(run: InputRun, known: InputRun) -> InputRun:
    """A later run that saw only noise: the last counting commit is still the earlier run's."""
    return replace(run, height=known.height, hash=known.hash)


def writer_of(genesis: Any, ledger: Ledger) -> PublicKey:
    """The key that the genesis lets write a ledger."""
    match ledger:
        case Ledger.MARKET:
            return PublicKey(genesis.market_writer)
        case Ledger.METERING:
            return PublicKey(genesis.metering_writer)
        case Ledger.SETTLEMENT:
            return PublicKey(genesis.settlement_writer)
