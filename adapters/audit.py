"""The audit: every commit of every ledger re-derived from its inputs and compared byte for byte.

It trusts no snapshot, index or read model, only the genesis hash that it is given: signatures are
verified again, inputs decided again, and the first divergence is named with its class, ledger,
height, offset and field.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from domain.account import ClaimSettled, DepositCredited
from domain.canonical import state_hash
from domain.chain import BODY_CHANGED, ChainReader, Counted, LedgerStopped, Noise
from domain.checkpoint import CheckpointAnchored, CheckpointMade
from domain.codec import Codec, CodecError
from domain.commit import (
    LEDGER_TOPICS,
    NO_HASH,
    CommitBody,
    InputRun,
    Ledger,
    RecordedEvent,
    RunDigest,
    unpack_event,
)
from domain.genesis import Genesis
from domain.ids import PublicKey
from domain.invariant import InvariantBroken
from domain.journal import NOBODY, Balances, Purse
from domain.lease import LeaseEnded, LeaseOpened, UsagePosted
from domain.ledger import LEDGER_ID, GenesisRecorded, LogBound, WriterRotated
from domain.market import Market
from domain.merkle import MerkleTree
from domain.ports import Log, LogRecord
from domain.processor import DictStates, Processor, Source, States, decode_commit
from domain.provider import StakeSlashed
from domain.signed import Verifier
from domain.telemetry import INTAKE, TelemetryAccepted

READ_BYTES: Final = 8 * 1024 * 1024

#: Classes of divergence and the exit code that each gives; 0 is a clean audit.
EXIT_CODES: Final = {
    "fork": 10,
    "truncated": 11,
    "corrupt": 12,
    "unknown_version": 13,
    "genesis": 14,
    "run_gap": 20,
    "run_digest": 21,
    "run_head": 22,
    "time": 23,
    "rules_version": 24,
    "gate_count": 25,
    "event_missing": 30,
    "event_surplus": 31,
    "event_differs": 32,
    "bulk_differs": 33,
    "merkle_root": 34,
    "law_broken": 40,
    "totals": 41,
    "anchor": 50,
    "not_a_ledger": 60,
}


class Diverged(Exception):
    """The first place where a ledger is not what its inputs make of it."""

    def __init__(
        self, name: str, ledger: Ledger, shard: int, height: int, offset: int, at: str, why: str
    ) -> None:
        """``at`` is the field; ``why`` gives what was found and what was expected."""
        super().__init__(
            f"{name}: {LEDGER_TOPICS[ledger]}[{shard}] height {height} offset {offset}, {at}: {why}"
        )
        self.name = name
        self.ledger = ledger
        self.shard = shard
        self.height = height
        self.offset = offset
        self.at = at
        self.exit_code = EXIT_CODES[name]


@dataclass(slots=True)
class LedgerReport:
    """What an audit found of one ledger."""

    ledger: Ledger
    shard: int
    commits: int = 0
    events: int = 0
    inputs: int = 0
    noise: int = 0
    input_bytes: int = 0
    head: bytes = NO_HASH
    root: bytes = b""


@dataclass(slots=True)
class Verdict:
    """A clean audit's findings."""

    state_hash: str
    reports: list[LedgerReport]
    states: dict[tuple[Ledger, int], DictStates]
    market: Market
    totals: Totals


@dataclass(slots=True)
class _Reading:
    source: Source
    next_offset: int = 0
    items_done: int = -1
    chain: ChainReader | None = None


Watch = Callable[[Ledger, int, Any], None]


class LedgerAudit:
    """Re-derives one ledger."""

    def __init__(
        self,
        *,
        log: Log,
        codec: Codec,
        verify: Verifier,
        genesis: Genesis,
        genesis_hash: bytes,
        ledger: Ledger,
        shard: int,
        writers: Callable[[Ledger], PublicKey],
        make: Callable[[States], Processor],
        wanted: dict[int, type[Any]],
        watch: Watch | None = None,
    ) -> None:
        """Read ``log``; ``make`` gives a fresh processor; ``watch`` is told of every event."""
        self._log = log
        self._codec = codec
        self._verify = verify
        self._genesis = genesis
        self._genesis_hash = genesis_hash
        self._writers = writers
        self._wanted = wanted
        self._watch = watch
        self.states = DictStates()
        self.processor = make(self.states)
        self.report = LedgerReport(ledger, shard)
        self._chain = self._chain_of(ledger, shard)
        self._readings = {
            (source.topic, source.partition): _Reading(
                source,
                chain=None
                if source.ledger is None
                else self._chain_of(source.ledger, source.partition),
            )
            for source in self.processor.sources()
        }
        self._tree = MerkleTree()
        self._offset = 0
        self._height = -1

    def _chain_of(self, ledger: Ledger, shard: int) -> ChainReader:
        return ChainReader(
            genesis=self._genesis_hash,
            ledger=ledger,
            shard=shard,
            writer=self._writers(ledger),
            verify=self._verify,
        )

    def run(self) -> Iterator[LedgerReport]:
        """Re-derive commit after commit; yields the report after each. Raises ``Diverged``."""
        report = self.report
        topic = LEDGER_TOPICS[report.ledger]
        try:
            for record in self._records(topic, report.shard, 0, None):
                counted = self._chain.judge(record)
                report.noise = self._chain.noise_count
                if isinstance(counted, Noise):
                    if counted.why == BODY_CHANGED:
                        self._offset, self._height = record.offset, self._height + 1
                        self._diverge("corrupt", "body", counted.why)
                    continue
                self._offset, self._height = counted.offset, counted.envelope.height
                self._commit(counted)
                yield report
        except LedgerStopped as stopped:
            raise Diverged(
                stopped.name,
                stopped.ledger,
                stopped.shard,
                self._height + 1,
                stopped.offset,
                "envelope",
                str(stopped),
            ) from stopped
        except InvariantBroken as broken:
            self._diverge("law_broken", "inputs", str(broken))
        except CodecError as error:
            self._diverge("corrupt", "body", str(error))

    def _diverge(self, name: str, at: str, why: str) -> None:
        raise Diverged(
            name, self.report.ledger, self.report.shard, self._height, self._offset, at, why
        )

    def _records(
        self, topic: str, partition: int, first: int, next: int | None
    ) -> Iterator[LogRecord]:
        while next is None or first < next:
            fetched = self._log.read(topic, partition, first, max_bytes=READ_BYTES)
            if fetched.next_offset == first:
                return
            for record in fetched.records:
                if next is not None and record.offset >= next:
                    return
                yield record
            first = fetched.next_offset

    def _commit(self, counted: Counted) -> None:
        body = self._codec.decode(CommitBody, counted.body)
        if self._codec.encode(body) != counted.body:
            self._diverge("corrupt", "body", "its bytes are not the canonical ones")
        if not counted.bulk_is_right():
            self._diverge("corrupt", "bulk", "it does not hash as the envelope says")
        if counted.envelope.height == 0:
            self._first(body)
        else:
            self._feed(body)
        self._compare(body, counted)
        processor = self.processor
        self.states.keep(processor.unit.finals())
        if self._watch is not None:
            for emitted in processor.unit.events:
                self._watch(self.report.ledger, self.report.shard, emitted.event)
        processor.begin()
        self.report.commits += 1
        self.report.events += len(body.events)
        self.report.head = counted.hash
        self.report.root = body.tree_root

    def _first(self, body: CommitBody) -> None:
        """Height 0: bound to this log, and holding the genesis that its hash names."""
        events = [unpack_event(data) for data in body.events]
        decoded = [self._codec.decode(self._codec.kind(e.schema), e.payload) for e in events]
        if (
            len(decoded) != 2
            or not isinstance(decoded[0], LogBound)
            or not isinstance(decoded[1], GenesisRecorded)
        ):
            self._diverge("genesis", "events", "the first commit is LogBound, GenesisRecorded")
        bound, recorded = decoded
        digest = hashlib.sha256(self._codec.encode(recorded.genesis)).digest()
        if digest != self._genesis_hash:
            self._diverge("genesis", "genesis", f"hashes to {digest.hex()}")
        for topic in bound.topics:
            if self._log.topic_id(topic.topic) != topic.id:
                self._diverge("genesis", "topics", f"{topic.topic} is another incarnation")
        self.processor.emit(LEDGER_ID, bound)
        self.processor.emit(LEDGER_ID, recorded)

    # Inputs

    def _feed(self, body: CommitBody) -> None:
        wanted = len(body.events)
        for number, run in enumerate(body.runs):
            reading = self._readings.get((run.topic, run.partition))
            if reading is None:
                self._diverge("run_gap", f"runs[{number}]", f"{run.topic} is no input")
            assert reading is not None
            if run.first != reading.next_offset:
                self._diverge(
                    "run_gap",
                    f"runs[{number}].first",
                    f"{run.first}, the last run ended at {reading.next_offset}",
                )
            self._feed_run(reading, run, f"runs[{number}]")
            if run.items_done >= 0:
                self._feed_part(reading, run, wanted)
        if body.time_us != self.processor.time_us:
            self._diverge("time", "time_us", f"{body.time_us}, not {self.processor.time_us}")

    def _feed_run(self, reading: _Reading, run: InputRun, at: str) -> None:
        digest = RunDigest()
        count = 0
        height, head = -1, NO_HASH
        external: list[LogRecord] = []
        for record in self._records(run.topic, run.partition, run.first, run.next):
            digest.add(record.offset, record.time_us, record.value)
            count += 1
            self.report.input_bytes += len(record.value)
            if reading.source.ledger is None:
                external.append(record)
                continue
            assert reading.chain is not None
            counted = reading.chain.judge(record)
            if isinstance(counted, Counted):
                height, head = counted.envelope.height, counted.hash
                for _ in self.processor.foreign(
                    self._foreign(reading, counted), max(reading.items_done, 0)
                ):
                    pass
                reading.items_done = -1
        if count != run.count:
            self._diverge("run_digest", f"{at}.count", f"{run.count}, the log has {count}")
        if digest.digest() != run.digest:
            self._diverge("run_digest", f"{at}.digest", "the inputs are not those consumed")
        if (height, head) != (run.height, run.hash):
            self._diverge("run_head", f"{at}.height", f"{run.height}, the log has {height}")
        if external:
            for _ in self.processor.external_many(reading.source, external):
                pass
        self.report.inputs += count
        reading.next_offset = run.next

    def _feed_part(self, reading: _Reading, run: InputRun, wanted: int) -> None:
        """The record that a commit ends inside of: go on until the commit's events are there."""
        processor = self.processor
        record = next(iter(self._records(run.topic, run.partition, run.next, run.next + 1)), None)
        if record is None:
            self._diverge("run_digest", "runs[-1].next", "the record that goes on is missing")
        assert record is not None
        items: Iterator[Any]
        if reading.source.ledger is None:
            items = processor.external_many(reading.source, [record])
        else:
            assert reading.chain is not None
            state = (reading.chain.height, reading.chain.hash, reading.chain.noise())
            counted = reading.chain.judge(record)
            # It is judged again when it is read whole.
            reading.chain.resume(*state)
            if not isinstance(counted, Counted):
                self._diverge("run_digest", "runs[-1].next", "the record that goes on is noise")
            assert isinstance(counted, Counted)
            items = processor.foreign(self._foreign(reading, counted), max(reading.items_done, 0))
        while len(processor.unit.events) < wanted and next(items, None) is not None:
            pass
        reading.items_done = run.items_done

    def _foreign(self, reading: _Reading, counted: Counted) -> Any:
        ledger = reading.source.ledger
        assert ledger is not None
        commit = decode_commit(
            self._codec,
            ledger=ledger,
            shard=reading.source.partition,
            height=counted.envelope.height,
            hash=counted.hash,
            body=self._codec.decode(CommitBody, counted.body),
            wanted=self._wanted,
        )
        for _, event in commit.events:
            if isinstance(event, WriterRotated) and reading.chain is not None:
                reading.chain.writer = event.writer
        return commit

    # Comparing

    def _compare(self, body: CommitBody, counted: Counted) -> None:
        unit = self.processor.unit
        codec = self._codec
        for number, emitted in enumerate(unit.events):
            packed = RecordedEvent(
                emitted.aggregate,
                emitted.version,
                codec.number(type(emitted.event)),
                codec.encode(emitted.event),
            ).pack()
            if number >= len(body.events):
                self._diverge(
                    "event_missing",
                    f"events[{number}]",
                    f"{type(emitted.event).__name__} follows from the inputs",
                )
            if packed != body.events[number]:
                self._diverge(
                    "event_differs", f"events[{number}]", self._difference(body, number, emitted)
                )
        if len(unit.events) < len(body.events):
            at = len(unit.events)
            self._diverge(
                "event_surplus", f"events[{at}]", f"{self._shown(body.events[at])} does not follow"
            )
        if unit.refused() != body.refused:
            self._diverge("gate_count", "refused", f"{body.refused}, not {unit.refused()}")
        if body.rules_version != self.processor.rules_version:
            self._diverge("rules_version", "rules_version", f"{body.rules_version}")
        if b"".join(unit.bulk) != counted.bulk():
            self._diverge("bulk_differs", "bulk", "it is not the accepted telemetry in order")
        self._tree.extend(body.events)
        if self._tree.size != body.tree_size or self._tree.root() != body.tree_root:
            self._diverge("merkle_root", "tree_root", f"{body.tree_root.hex()}")

    def _shown(self, data: bytes) -> str:
        recorded = unpack_event(data)
        event = self._codec.decode(self._codec.kind(recorded.schema), recorded.payload)
        return type(event).__name__

    def _difference(self, body: CommitBody, number: int, emitted: Any) -> str:
        """Which field of an event differs, found and expected."""
        recorded = unpack_event(body.events[number])
        try:
            found = self._codec.decode(self._codec.kind(recorded.schema), recorded.payload)
        except CodecError as error:
            return f"cannot be read: {error}"
        expected = emitted.event
        if type(found) is not type(expected):
            return f"{type(found).__name__}, expected {type(expected).__name__}"
        for name in type(expected).__dataclass_fields__:
            if getattr(found, name) != getattr(expected, name):
                return (
                    f"{type(found).__name__}.{name} is {getattr(found, name)!r}, "
                    f"expected {getattr(expected, name)!r}"
                )
        return f"{type(found).__name__}: aggregate or version"


def hash_of_states(market: Market, states: dict[tuple[Ledger, int], DictStates]) -> str:
    """The ``state_hash``: all aggregates of all ledgers, and all balances."""
    entries: list[tuple[bytes, Any]] = []
    for (ledger, _), held in states.items():
        for aggregate, versioned in held.all.items():
            if aggregate not in (LEDGER_ID, INTAKE):
                entries.append((bytes([ledger]) + aggregate, versioned.state))
    for (purse, owner), nano in market.folds.balances.all().items():
        entries.append((b"\x00" + purse.value.encode() + owner, nano))
    return state_hash(entries)


class Totals:
    """The second way to every total: sums over leases' lines, against the journal's balances."""

    def __init__(self) -> None:
        """Start with nothing seen."""
        self.journal = Balances()
        self.deposited = self.claimed = self.provider = self.protocol = self.slashed = 0
        self.readings = self.leases = self.epochs = self.anchored = 0
        self._early = 0
        self.lines: dict[tuple[bytes, str], int] = {}
        self.deposits: dict[bytes, int] = {}
        self.claims: dict[bytes, int] = {}
        self.earned: dict[bytes, int] = {}
        self.spent: dict[bytes, int] = {}
        self.slashes: dict[bytes, int] = {}
        self._buyers: dict[bytes, bytes] = {}

    def see(self, ledger: Ledger, shard: int, event: Any) -> None:
        """Take in one event of any ledger."""
        match event:
            case TelemetryAccepted():
                self.readings += event.rows - sum(byte.bit_count() for byte in event.refused)
            case DepositCredited():
                self.deposited += event.amount_nano
                _add(self.deposits, event.account, event.amount_nano)
            case ClaimSettled():
                self.claimed += event.amount_nano
                _add(self.claims, event.account, event.amount_nano)
            case UsagePosted():
                self.provider += event.provider_nano
                self.protocol += event.protocol_nano
                _add(self.earned, event.account, event.provider_nano)
                both = event.provider_nano + event.protocol_nano
                _add(self.spent, self._buyers[event.lease], both)
                for line in event.lines:
                    self.lines[event.lease, line.resource] = line.posted_nano
            case LeaseEnded():
                self._early += event.early_nano
            case LeaseOpened():
                self.leases += 1
                self._buyers[event.lease] = event.buyer
            case StakeSlashed():
                self.slashed += event.taken_nano
                _add(self.slashes, event.provider, event.taken_nano)
            case CheckpointMade():
                self.epochs += 1
            case CheckpointAnchored():
                self.anchored += 1
            case _:
                pass
        if ledger is Ledger.MARKET and (postings := getattr(event, "postings", None)):
            self.journal.post(postings)

    @property
    def charged(self) -> int:
        """All that leases were charged."""
        return sum(self.lines.values())

    def broken(self, market: Market) -> Sequence[str]:
        """Laws that do not hold, as sentences."""
        balances = market.folds.balances.all()
        wrong = []
        if sum(balances.values()) != 0:
            wrong.append(f"all balances sum to {sum(balances.values())}, not zero")
        if dict(self.journal.all()) != dict(balances):
            wrong.append("the journal's balances are not the market's")
        if self.charged != self.provider + self.protocol:
            wrong.append(f"lines posted {self.charged}, shares {self.provider} + {self.protocol}")
        held = -balances.get((Purse.EXTERNAL, NOBODY), 0)
        if held != self.deposited - self.claimed:
            wrong.append(f"deposited {self.deposited} − claimed {self.claimed} is not {held}")
        return wrong


def _add(sums: dict[bytes, int], key: bytes, nano: int) -> None:
    sums[key] = sums.get(key, 0) + nano
