"""What the three processors share: inputs, time, deadlines, and the unit of work of a step.

State is a fold over the processor's own ledger; inputs are evidence. A processor is fed one input
after another and may be cut into a commit after any item (one deadline, one input, one event of a
foreign commit): **no rule sees a commit boundary**. Nothing here reads a clock.

Effective time of an input = max(its time, effective time of the one before). Before an input of
effective time t every deadline d ≤ t fires, ordered by (d, kind, id), its event carrying d.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from domain.codec import Codec
from domain.commit import (
    BulkPart,
    CommitBody,
    CommitHeader,
    GateCount,
    Ledger,
    RecordedEvent,
    unpack_event,
)
from domain.gate import Opened, for_network, open_input
from domain.genesis import Genesis, Role, TimeSource
from domain.ids import AggregateId, Hash32
from domain.invariant import invariant
from domain.ledger import RulesActivated, Tick
from domain.ports import LogRecord
from domain.refusal import KEY_ROLE, Code, Refused
from domain.rules import Rules, rules_of
from domain.signed import Verifier

Evolve = Callable[[Any, Any], Any]  # (state | None, event) -> state


@dataclass(frozen=True, slots=True)
class Versioned:
    """An aggregate's state and the number of events that made it."""

    id: AggregateId
    version: int
    state: Any


class States(Protocol):
    """Committed states of this processor's own ledger; never an uncommitted one."""

    def load(self, aggregate: AggregateId) -> Versioned | None:
        """The aggregate's state, or None where it has no event yet."""
        ...


class Asleep(Protocol):
    """Committed states that are known and not in memory yet, each to be had once."""

    def wake(self, aggregate: AggregateId) -> Versioned | None:
        """The aggregate's state, which is the caller's to keep from now on, or None."""
        ...


class DictStates:
    """All states in memory: for auditors and tests. ``keep`` is the fold's target."""

    def __init__(self) -> None:
        """Start with no aggregate."""
        self.all: dict[AggregateId, Versioned] = {}

    def load(self, aggregate: AggregateId) -> Versioned | None:
        """See ``States``."""
        return self.all.get(aggregate)

    def keep(self, states: Sequence[Versioned]) -> None:
        """Take over the states of a committed step."""
        for state in states:
            self.all[state.id] = state


@dataclass(frozen=True, slots=True)
class Emitted:
    """An event of a step, with the aggregate and the version that it gets.

    ``payload`` are its bytes, where they are known already.
    """

    aggregate: AggregateId
    version: int
    event: Any
    payload: bytes | None = None


class Unit:
    """A step in the making: its events in order, the states they lead to, bulk, gate counts."""

    def __init__(self, states: States, evolve: Evolve) -> None:
        """Start empty over committed states; ``evolve`` is the processor's dispatch table."""
        self._states = states
        self._evolve = evolve
        self._touched: dict[AggregateId, Versioned] = {}
        self.events: list[Emitted] = []
        self.bulk: list[BulkPart] = []
        self.bulk_bytes = 0
        #: Of the events whose bytes are known: all without a part in the bulk; those that have one
        #: are small beside it.
        self.event_bytes = 0
        self._garbage: dict[int, tuple[int, Any]] = {}

    def state(self, aggregate: AggregateId) -> Any:
        """The state as of the last emitted event, or None; first touch loads it."""
        found = self._known(aggregate)
        return None if found is None else found.state

    def version(self, aggregate: AggregateId) -> int:
        """Number of events of the aggregate so far."""
        found = self._known(aggregate)
        return 0 if found is None else found.version

    def _known(self, aggregate: AggregateId) -> Versioned | None:
        found = self._touched.get(aggregate)
        if found is None:
            found = self._states.load(aggregate)
            if found is not None:
                self._touched[aggregate] = found
        return found

    def emit(self, aggregate: AggregateId, event: Any, payload: bytes | None = None) -> None:
        """Record an event and evolve its aggregate. Folds are the processor's business."""
        # Asked once: of a new aggregate every look at the store is in vain.
        known = self._known(aggregate)
        state, version = (None, 1) if known is None else (known.state, known.version + 1)
        self._touched[aggregate] = Versioned(aggregate, version, self._evolve(state, event))
        self.events.append(Emitted(aggregate, version, event, payload))
        if payload is not None:
            self.event_bytes += RECORDED_BYTES + len(payload)

    def add_bulk(self, part: BulkPart) -> None:
        """Keep an input in the commit's bulk."""
        self.bulk.append(part)
        self.bulk_bytes += len(part.data)

    def count(self, code: int, offset: int) -> None:
        """Count a record that the gate refused without an event."""
        count, sha = self._garbage.get(code, (0, None))
        if sha is None:
            sha = hashlib.sha256()
        sha.update(offset.to_bytes(8, "big"))
        self._garbage[code] = (count + 1, sha)

    def refused(self) -> tuple[GateCount, ...]:
        """The gate's counters of this step, by code."""
        return tuple(
            GateCount(code=code, count=count, digest=Hash32(sha.digest()))
            for code, (count, sha) in sorted(self._garbage.items())
        )

    def finals(self) -> list[Versioned]:
        """The states of the aggregates that this step emitted events for."""
        ids = dict.fromkeys(emitted.aggregate for emitted in self.events)
        return [self._touched[aggregate] for aggregate in ids]


#: Entries of no more use that a queue may hold beside as many as are of use.
_STALE: Final = 64


class Deadlines:
    """The queue of (due, kind, id), derived by folds from events; ``kind`` is a small number.

    Setting a (kind, id) again moves it; clearing removes it. Both are O(log n) amortised.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._due: dict[tuple[int, bytes], int] = {}
        self._heap: list[tuple[int, int, bytes]] = []

    def set(self, kind: int, id: bytes, due_us: int) -> None:
        """Fire (kind, id) at ``due_us``; replaces an earlier time."""
        self._due[kind, id] = due_us
        heapq.heappush(self._heap, (due_us, kind, id))
        if len(self._heap) > 2 * len(self._due) + _STALE:
            # Terms of months that ended early would else wait in the heap until they are due.
            self._heap = [(due, kind, id) for (kind, id), due in self._due.items()]
            heapq.heapify(self._heap)

    def clear(self, kind: int, id: bytes) -> None:
        """Do not fire (kind, id)."""
        self._due.pop((kind, id), None)

    def next(self) -> tuple[int, int, bytes] | None:
        """The first deadline, or None; stays in the queue."""
        heap = self._heap
        while heap:
            due, kind, id = heap[0]
            if self._due.get((kind, id)) == due:
                return heap[0]
            heapq.heappop(heap)
        return None

    def pop(self) -> None:
        """Remove the deadline that ``next`` gave."""
        _, kind, id = heapq.heappop(self._heap)
        del self._due[kind, id]

    def __len__(self) -> int:
        """Deadlines that wait."""
        return len(self._due)


@dataclass(frozen=True, slots=True)
class Source:
    """A partition that a processor reads; ``ledger`` is None for an external input."""

    topic: str
    partition: int
    ledger: Ledger | None


@dataclass(frozen=True, slots=True)
class ForeignCommit:
    """A counting commit of another ledger, decoded: what a processor reads of it."""

    ledger: Ledger
    shard: int
    height: int
    hash: bytes
    time_us: int
    tree_root: bytes
    tree_size: int
    events: Sequence[tuple[bytes, Any]]  # (aggregate id, event)


class Processor:
    """Base of market, metering and settlement. Subclasses give the tables, never the loop."""

    ledger: Ledger

    def __init__(
        self,
        *,
        genesis: Genesis,
        genesis_hash: bytes,
        shard: int,
        shards: int,
        states: States,
        evolve: Evolve,
        codec: Codec,
        verify: Verifier,
    ) -> None:
        """A processor before its first event; ``adopt`` folds what its ledger already has."""
        self.genesis = genesis
        self.genesis_hash = genesis_hash
        self.shard = shard
        self.shards = shards
        self.codec = codec
        self.verify = verify
        self.time_us = genesis.start_us
        self.committed_us = genesis.start_us
        self.rules_version = genesis.rules_version
        #: Whose times inputs have. An auditor who feeds what the ledger itself kept of a topic
        #: sets the broker's, and gives each record the time that its event carries.
        self.time_source = genesis.time_source
        self.parameters = genesis.parameters
        self.deadlines = Deadlines()
        self._states = states
        self._evolve = evolve
        self._clock_keys = {k.key for k in genesis.keys if k.role is Role.CLOCK}
        self._ticks: dict[tuple[str, int], int] = {}
        self._next_rules: int | None = None
        self.unit = Unit(states, evolve)

    @property
    def rules(self) -> Rules:
        """What is decided by now. Raises ``RulesUnknown`` where this program lacks the version."""
        return rules_of(self.rules_version)

    @property
    def step_ends(self) -> bool:
        """Whether the step has to end here: rules were activated, for the next height."""
        return self._next_rules is not None

    # What a subclass gives

    def sources(self) -> tuple[Source, ...]:
        """The partitions it reads, in the order in which a turn reads them."""
        raise AssertionError("a processor names its sources")

    def key_fault(self, opened: Opened) -> Code | None:
        """Why the key that signed is not heard: nobody knows it, or it was revoked."""
        raise AssertionError("a processor knows the keys of its inputs")

    def handle(self, opened: Opened, source: Source, record: LogRecord) -> None:
        """Decide on an input of this network, by a key that is heard, that is no tick.

        Emits; a step never fails here.
        """
        raise AssertionError("a processor handles its inputs")

    def learn(self, commit: ForeignCommit, aggregate: bytes, event: Any) -> None:
        """Take notice of one event of another ledger."""
        raise AssertionError("a processor learns from other ledgers")

    def passed(self, commit: ForeignCommit) -> Iterator[None]:
        """Another ledger has passed ``commit.time_us``; all events of it were learned.

        Yields after each item; begun again after a cut it goes on with what is left.
        """
        yield from ()

    def resume(self, commit: ForeignCommit) -> None:
        """At recovery: the last commit of another ledger that the own ledger consumed whole."""

    def fire(self, due_us: int, kind: int, id: bytes) -> None:
        """A deadline is due."""
        raise AssertionError("a processor fires its deadlines")

    def apply(self, aggregate: AggregateId, event: Any, bulk: bytes | None) -> None:
        """Fold one event into the in-process folds: live and at recovery, the same code.

        ``bulk`` are the bytes that the event has in the bulk, where it has any (accepted
        telemetry).
        """
        raise AssertionError("a processor folds its events")

    # The loop

    def emit(self, aggregate: AggregateId, event: Any, part: BulkPart | None = None) -> None:
        """Record an event in the step, evolve its aggregate and fold it."""
        self.unit.emit(aggregate, event, None if part is not None else self.codec.encode(event))
        if part is not None:
            self.unit.add_bulk(part)
        self._follow_rules(event)
        self.apply(aggregate, event, None if part is None else part.data)

    def _follow_rules(self, event: Any) -> None:
        if isinstance(event, RulesActivated):
            self._next_rules = event.version

    def _enter(self) -> None:
        """A step is over: rules that were activated in it are in force, if we have them."""
        if self._next_rules is not None:
            self.rules_version, self._next_rules = self._next_rules, None
        rules_of(self.rules_version)

    def begin_item(self) -> None:
        """Insist that an item may begin: none does in a step that rules have ended."""
        invariant(not self.step_ends, "a step ends where rules are activated")

    def external(self, source: Source, record: LogRecord) -> Iterator[None]:
        """Feed one record of an input topic; yields after each item: a step may be cut there."""
        opened = open_input(
            record.value,
            size_max=self.parameters.input_bytes,
            codec=self.codec,
            verify=self.verify,
        )
        opened, tick = self.tick_of(opened)
        yield from self.advance(self.time_of(source, record, tick))
        if tick is None:
            self.hear(opened, source, record)

    def hear(self, opened: Opened | Refused, source: Source, record: LogRecord) -> None:
        """Count what is refused up to the network it is signed for, and decide on the rest."""
        if isinstance(opened, Refused):
            why: Code | None = opened.code
        else:
            why = self.key_fault(opened)
            if why is None and (wrong := for_network(opened.signed, self.genesis_hash)) is not None:
                why = wrong.code
        if why is not None:
            self.unit.count(why.number, record.offset)
        elif isinstance(opened, Opened):
            self.handle(opened, source, record)

    def external_many(
        self, source: Source, records: Sequence[LogRecord]
    ) -> Iterator[tuple[int, int]]:
        """Feed records of an input topic in order; yields wherever a step may be cut.

        Yields (records done, items done of the next one): of a record that has begun, deadlines
        before it have fired; fed again it goes on. A subclass may be faster, never different.
        """
        for done, record in enumerate(records):
            for items, _ in enumerate(self.external(source, record), 1):
                yield done, items
            yield done + 1, 0

    def tick_of(self, opened: Opened | Refused) -> tuple[Opened | Refused, Tick | None]:
        """The tick that an input is, where it is one.

        One that no clock signed, or that a clock signed for another network, is refused.
        """
        if not isinstance(opened, Opened) or not isinstance(opened.payload, Tick):
            return opened, None
        if opened.signed.key not in self._clock_keys:
            return Refused(KEY_ROLE, "a tick is signed by a clock key"), None
        wrong = for_network(opened.signed, self.genesis_hash)
        return (opened, opened.payload) if wrong is None else (wrong, None)

    def time_of(self, source: Source, record: LogRecord, tick: Tick | None) -> int:
        """The input's own time: append time, or the last tick's in its partition."""
        if self.time_source is TimeSource.BROKER:
            return record.time_us
        place = (source.topic, source.partition)
        if tick is not None:
            now = max(tick.time_us, self._ticks.get(place, 0))
            self._ticks[place] = now
        return self._ticks.get(place, 0)

    def foreign(self, commit: ForeignCommit, items_done: int = 0) -> Iterator[int]:
        """Feed one commit of another ledger; yields the number of its events learned so far."""
        for done, (aggregate, event) in enumerate(commit.events[items_done:], items_done + 1):
            for _ in self.advance(event.at_us):
                yield done - 1
            self.learn(commit, aggregate, event)
            yield done
        for _ in self.passed(commit):
            yield len(commit.events)

    def advance(self, time_us: int) -> Iterator[None]:
        """Fire what is due up to an input's effective time, then let that time be now.

        A deadline that yields no event is no item: a step is not cut after it, so that what a
        commit says of its last record is the same whether or not the worker was started anew.
        """
        self.begin_item()
        effective = max(time_us, self.time_us)
        while (first := self.deadlines.next()) is not None and first[0] <= effective:
            due, kind, id = first
            self.deadlines.pop()
            self.time_us = max(self.time_us, due)
            before = len(self.unit.events)
            self.fire(due, kind, id)
            if len(self.unit.events) != before:
                yield
        self.time_us = effective

    def next_due_us(self) -> int | None:
        """When the first deadline is due: what a driver of logical time waits for."""
        first = self.deadlines.next()
        return None if first is None else first[0]

    def idle_is_due(self) -> bool:
        """Whether a commit without events is due (design 2)."""
        return self.time_us >= self.committed_us + self.parameters.idle_us

    def begin(self) -> None:
        """Start the next step, the last one being committed. Raises ``RulesUnknown``."""
        self.unit = Unit(self._states, self._evolve)
        self.committed_us = self.time_us
        self._enter()

    def adopt(
        self,
        body: CommitBody,
        bulk: Sequence[BulkPart],
        keep: Callable[[Sequence[Versioned]], None] | None,
    ) -> None:
        """Fold a committed step of the own ledger: recovery, after which this goes on live.

        The in-process folds follow. Aggregates' states are the store's own fold of the same
        ledger; a store that has none of its own gives ``keep`` and gets them from here. Raises
        ``RulesUnknown`` where this program cannot go on by the rules that are then in force.
        """
        unit = Unit(self._states, self._evolve)
        parts = iter(bulk)
        for data in body.events:
            recorded = unpack_event(data)
            event = self.codec.decode(self.codec.kind(recorded.schema), recorded.payload)
            aggregate = AggregateId(recorded.aggregate)
            part = next(parts, None) if getattr(event, "length", 0) else None
            if keep is not None:
                unit.emit(aggregate, event)
            self._follow_rules(event)
            self.apply(aggregate, event, None if part is None else part.data)
        if keep is not None:
            keep(unit.finals())
        invariant(next(parts, None) is None, "the bulk has a part for each event that names one")
        self.time_us = self.committed_us = body.time_us
        self.rules_version = body.rules_version
        self.unit = Unit(self._states, self._evolve)
        for run in body.runs:
            self._ticks[run.topic, run.partition] = body.time_us
        self._enter()


def decode_commit(
    codec: Codec,
    *,
    ledger: Ledger,
    shard: int,
    height: int,
    hash: bytes,
    body: CommitBody,
    wanted: Mapping[int, type[Any]] | None = None,
) -> ForeignCommit:
    """A body as another processor reads it; ``wanted`` limits which schema numbers are decoded.

    Events that nobody here wants are skipped by their number, undecoded.
    """
    events: list[tuple[bytes, Any]] = []
    for data in body.events:
        recorded: RecordedEvent = unpack_event(data)
        if wanted is not None and recorded.schema not in wanted:
            continue
        events.append(
            (recorded.aggregate, codec.decode(codec.kind(recorded.schema), recorded.payload))
        )
    return ForeignCommit(
        ledger=ledger,
        shard=shard,
        height=height,
        hash=hash,
        time_us=body.time_us,
        tree_root=body.tree_root,
        tree_size=body.tree_size,
        events=events,
    )


EVENTS_PER_COMMIT: Final = 2000
EVENT_BYTES_PER_COMMIT: Final = 1024 * 1024
BULK_PER_COMMIT: Final = 2 * 1024 * 1024
#: What a recorded event has beside its own bytes, at most.
RECORDED_BYTES: Final = 40


def full(unit: Unit) -> bool:
    """Whether a step should be cut now to stay within a commit's bounds, with one more item."""
    return (
        len(unit.events) >= EVENTS_PER_COMMIT
        or unit.event_bytes >= EVENT_BYTES_PER_COMMIT
        or unit.bulk_bytes >= BULK_PER_COMMIT
    )


def header(unit: Unit, time_us: int, rules_version: int, runs: Any) -> CommitHeader:
    """The header of the commit that a step becomes."""
    return CommitHeader(
        time_us=time_us,
        runs=tuple(runs),
        rules_version=rules_version,
        refused=unit.refused(),
        bulk=tuple(unit.bulk),
    )
