"""The audit: every commit of every ledger re-derived from its inputs and compared byte for byte.

It trusts no snapshot, index or read model, only the genesis hash that it is given: signatures are
verified again, inputs decided again, and the first divergence is named with its class, ledger,
height, offset and field. It streams: beside the folded state it holds one commit's inputs.

Where the telemetry topic no longer has what a shard has read, the shard is derived from what its
ledger kept: each signed batch stands in the bulk, its time in its event (docs/adr/0013).
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn, Protocol

from adapters.audit_faults import EXIT_CODES as EXIT_CODES
from adapters.audit_faults import Diverged as Diverged
from adapters.audit_reading import READ_BYTES, Reading
from adapters.audit_report import LedgerReport as LedgerReport
from adapters.audit_report import Verdict as Verdict
from adapters.audit_report import hash_of_states as hash_of_states
from domain.chain import BODY_CHANGED, ChainReader, Counted, LedgerStopped, Noise
from domain.codec import Codec, CodecError
from domain.commit import (
    COMMANDS_TOPIC,
    LEDGER_TOPICS,
    NO_HASH,
    TELEMETRY_TOPIC,
    BulkPart,
    CommitBody,
    InputRun,
    Ledger,
    RecordedEvent,
    RunDigest,
    bulk_hash,
    pack_bulk,
    parse,
    unpack_event,
)
from domain.genesis import Genesis, TimeSource
from domain.ids import Bytes16, PublicKey
from domain.invariant import InvariantBroken
from domain.ledger import LEDGER_ID, GenesisRecorded, LogBound, TopicBound, WriterRotated
from domain.merkle import MerkleTree
from domain.ports import Log, LogDamaged, LogRecord, LogTruncated
from domain.processor import DictStates, Processor, States, decode_commit
from domain.rules import RulesUnknown
from domain.signed import Verifier
from domain.telemetry import TelemetryAccepted, TelemetryRefused

Watch = Callable[[Ledger, int, Any], None]


class Witness(Protocol):
    """A second reader of the same bytes; says where it disagrees with our codec, else None."""

    @property
    def read(self) -> int:
        """How many records it has read."""
        ...

    def record(self, value: Any, data: bytes) -> str | None:
        """Read ``data`` again, of which our codec made ``value``."""
        ...

    def input(self, value: bytes) -> str | None:
        """Read an input record again, where our codec takes it for a signed one."""
        ...


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
        witness: Witness | None = None,
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
        self._witness = witness
        self.states = DictStates()
        self.processor = make(self.states)
        self.report = LedgerReport(ledger, shard)
        self._chain = self._chain_of(ledger, shard)
        self._readings = {
            (source.topic, source.partition): Reading(
                log,
                source,
                None if source.ledger is None else self._chain_of(source.ledger, source.partition),
            )
            for source in self.processor.sources()
        }
        self._batches = {codec.number(kind): kind for kind in (TelemetryAccepted, TelemetryRefused)}
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
        report.end_offset = self._log.end(topic, report.shard)
        first = self._log.start(topic, report.shard)
        if first > 0:
            self._height = 0
            self._diverge("truncated", "log", f"it starts at offset {first}, not at its first")
        try:
            for record in self._own():
                report.offset = record.offset + 1
                counted = self._chain.judge(record)
                report.noise = self._chain.noise_count
                if isinstance(counted, Noise):
                    self._noise(record, counted)
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
        except RulesUnknown as unknown:
            self._diverge("unknown_rules", "rules_version", str(unknown))
        except (CodecError, struct.error) as error:
            self._diverge("corrupt", "body", str(error))
        except LogTruncated as error:
            self._diverge("truncated", "log", str(error))
        except LogDamaged as error:
            self._diverge("damaged", "log", str(error))
        if report.commits == 0:
            self._diverge("not_a_ledger", "log", f"{topic} has no commit of this genesis")

    def _noise(self, record: LogRecord, noise: Noise) -> None:
        """Noise is legal, but for what only a changed log can explain."""
        if noise.why == BODY_CHANGED:
            self._offset, self._height = record.offset, self._height + 1
            self._diverge("corrupt", "body", noise.why)
        envelope = parse(record.value)
        if self._height < 0 and envelope is not None and envelope.genesis != self._genesis_hash:
            self._offset = record.offset
            self._diverge("genesis", "envelope", f"of the network {envelope.genesis.hex()}")

    def _diverge(self, name: str, at: str, why: str) -> NoReturn:
        raise Diverged(
            name, self.report.ledger, self.report.shard, self._height, self._offset, at, why
        )

    def _own(self) -> Iterator[LogRecord]:
        topic, partition, offset = LEDGER_TOPICS[self.report.ledger], self.report.shard, 0
        while True:
            fetched = self._log.read(topic, partition, offset, max_bytes=READ_BYTES)
            if fetched.next_offset == offset:
                return
            yield from fetched.records
            offset = fetched.next_offset

    def _commit(self, counted: Counted) -> None:
        body = self._codec.decode(CommitBody, counted.body)
        if self._codec.encode(body) != counted.body:
            self._diverge("corrupt", "body", "its bytes are not the canonical ones")
        self._agreed(None if self._witness is None else self._witness.record(body, counted.body))
        if counted.envelope.height == 0:
            self._first(body)
        else:
            self._feed(body, counted)
        if body.time_us != self.processor.time_us:
            self._diverge("time", "time_us", f"{body.time_us}, not {self.processor.time_us}")
        self._compare(body, counted)
        processor = self.processor
        self.states.keep(processor.unit.finals())
        for emitted in processor.unit.events:
            if isinstance(emitted.event, WriterRotated):
                self._chain.writer = emitted.event.writer
            elif isinstance(emitted.event, TelemetryAccepted):
                self.report.readings += emitted.event.rows
            if self._watch is not None:
                self._watch(self.report.ledger, self.report.shard, emitted.event)
        processor.begin()
        self.report.commits += 1
        self.report.events += len(body.events)
        self.report.head = counted.hash
        self.report.root = body.tree_root
        if self._witness is not None:
            self.report.witnessed = self._witness.read

    def _agreed(self, disagreement: str | None) -> None:
        if disagreement is not None:
            self._diverge("decoded_differs", "bytes", disagreement)

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
        if body.runs:
            self._diverge("genesis", "runs", "the first commit has read nothing")
        start_us, shards = self._genesis.start_us, self.processor.shards
        topics = {COMMANDS_TOPIC: 1, **dict.fromkeys(LEDGER_TOPICS.values(), 1)}
        topics |= {TELEMETRY_TOPIC: shards, LEDGER_TOPICS[Ledger.METERING]: shards}
        here = LogBound(
            at_us=start_us,
            shards=shards,
            topics=tuple(
                TopicBound(topic=topic, id=Bytes16(self._log.topic_id(topic)), partitions=count)
                for topic, count in sorted(topics.items())
            ),
        )
        if bound != here:
            self._diverge("genesis", "topics", "it is bound to another log than this one")
        self.processor.emit(LEDGER_ID, here)
        self.processor.emit(LEDGER_ID, GenesisRecorded(at_us=start_us, genesis=self._genesis))

    # Inputs

    def _feed(self, body: CommitBody, counted: Counted) -> None:
        self._contiguous(body)
        for number, run in enumerate(body.runs):
            at = f"runs[{number}]"
            reading = self._readings[run.topic, run.partition]
            place = f"{run.topic}[{run.partition}]"
            if run.first >= reading.start:
                self._feed_run(reading, run, at)
                if run.items_done >= 0:
                    self._feed_part(reading, run, body, at)
            elif run.topic == TELEMETRY_TOPIC:
                self._feed_kept(reading, run, body, counted, at)
            else:
                self._diverge("inputs_deleted", f"{at}.first", f"{place} begins at {reading.start}")
            self._ended(run, body, at)

    def _contiguous(self, body: CommitBody) -> None:
        """No range is hidden and none is read twice: looked at before any of it is decided."""
        positions = {place: reading.next_offset for place, reading in self._readings.items()}
        for number, run in enumerate(body.runs):
            at, place = f"runs[{number}]", f"{run.topic}[{run.partition}]"
            position = positions.get((run.topic, run.partition))
            if position is None:
                self._diverge("run_gap", f"{at}.topic", f"{place} is no input")
            if run.first != position or run.next < run.first:
                self._diverge(
                    "run_gap",
                    f"{at}.first",
                    f"{run.first} to {run.next}, the last run of {place} ended at {position}",
                )
            if run.items_done >= 0 and number != len(body.runs) - 1:
                self._diverge("run_gap", f"{at}.items_done", "only the last run ends in a record")
            positions[run.topic, run.partition] = run.next
            reading = self._readings[run.topic, run.partition]
            if run.next > reading.end:
                reading.look()
            if run.next > reading.end:
                self._diverge(
                    "truncated", f"{at}.next", f"{run.next}, {place} ends at {reading.end}"
                )

    def _ended(self, run: InputRun, body: CommitBody, at: str) -> None:
        """A run says where the step is at its end, so that what follows can be told apart."""
        time_us, events = self.processor.time_us, len(self.processor.unit.events)
        if run.time_us != time_us:
            self._diverge("time", f"{at}.time_us", f"{run.time_us}, not {time_us}")
        if run.events != events:
            self._compare_events(body)
            self._diverge("run_events", f"{at}.events", f"{run.events}, {events} have followed")

    def _feed_kept(
        self, reading: Reading, run: InputRun, body: CommitBody, counted: Counted, at: str
    ) -> None:
        """Telemetry that the topic no longer has: its signed batches from the bulk.

        Each is verified, decoded and judged again, at the time that its event carries; time may
        not fall, and every deadline on the way fires. What was neither accepted nor refused by
        name (ticks, garbage, repeats) left only counts, which cannot be compared.
        """
        parts = counted.parts()
        if parts is None:
            self._diverge("corrupt", "bulk", "it does not hash as the envelope says")
        processor, unit = self.processor, self.processor.unit
        records: list[LogRecord] = []
        before_us = processor.time_us
        for number, data in enumerate(body.events[: run.events]):
            recorded = unpack_event(data)
            kind = self._batches.get(recorded.schema)
            if number < len(unit.events) or kind is None:
                continue
            event: Any = self._codec.decode(kind, recorded.payload)
            taken = len(unit.bulk) + len(records)
            if taken >= len(parts):
                self._diverge("bulk_differs", "bulk", f"it has no part for events[{number}]")
            if event.at_us < before_us:
                self._diverge("time", f"events[{number}].at_us", f"{event.at_us} < {before_us}")
            before_us = event.at_us
            records.append(LogRecord(run.first + len(records), event.at_us, parts[taken].data))
        if not len(records) <= run.count <= run.next - run.first:
            self._diverge("run_digest", f"{at}.count", f"{run.count}, the bulk has {len(records)}")
        if self._witness is not None:
            for record in records:
                self._agreed(self._witness.input(record.value))
        garbage = sum(each.count for each in unit.refused())
        source_of_time, processor.time_source = processor.time_source, TimeSource.BROKER
        for _ in processor.external_many(reading.source, records):
            pass
        processor.time_source = source_of_time
        garbage = sum(each.count for each in unit.refused()) - garbage
        if garbage:
            self._diverge("bulk_differs", "bulk", f"the gate refuses {garbage} batches of it")
        if run.time_us < processor.time_us:
            self._diverge("time", f"{at}.time_us", f"{run.time_us} < {processor.time_us}")
        for _ in processor.advance(run.time_us):
            if run.items_done >= 0 and len(unit.events) >= run.events:
                break
        reading.skip(run.next)
        reading.items_done = run.items_done
        reading.next_offset = run.next
        self.report.kept_runs += 1
        self.report.kept_inputs += run.count
        self.report.inputs += run.count

    def _feed_run(self, reading: Reading, run: InputRun, at: str) -> None:
        place = f"{run.topic}[{run.partition}]"
        digest = RunDigest()
        count = 0
        height, head = -1, NO_HASH
        external: list[LogRecord] = []
        for record in reading.until(run.next):
            digest.add(record)
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
            self._diverge("run_digest", f"{at}.count", f"{run.count}, {place} has {count}")
        if digest.digest() != run.digest:
            self._diverge(
                "run_digest",
                f"{at}.digest",
                f"{place} from {run.first} to {run.next} is not what was consumed",
            )
        if (height, head) != (run.height, run.hash):
            self._diverge("run_head", f"{at}.height", f"{run.height}, {place} has {height}")
        if external:
            if self._witness is not None:
                for record in external:
                    self._agreed(self._witness.input(record.value))
            for _ in self.processor.external_many(reading.source, external):
                pass
            reading.items_done = -1
        self.report.inputs += count
        reading.next_offset = run.next

    def _feed_part(self, reading: Reading, run: InputRun, body: CommitBody, at: str) -> None:
        """The record that a commit ends inside of: go on to the item that it says."""
        processor = self.processor
        record = reading.peek(run.next)
        if record is None:
            self._diverge("run_digest", f"{at}.next", "the record that goes on is missing")
        if reading.source.ledger is None:
            # Each item before the record is a deadline with an event; the last would be the record.
            before = max(reading.items_done, 0)
            fed = processor.external_many(reading.source, [record])
            reached = any(before + i == run.items_done for done, i in fed if not done)
        else:
            assert reading.chain is not None
            chain = reading.chain
            state = (chain.height, chain.hash, chain.noise(), chain.writer)
            counted = chain.judge(record)
            if not isinstance(counted, Counted):
                self._diverge("run_digest", f"{at}.next", "the record that goes on is noise")
            commit = self._foreign(reading, counted)
            # It is judged again when it is read whole.
            chain.resume(*state[:3])
            chain.writer = state[3]
            # Several cuts may lie between two events: this one has its events and its time.
            reached = any(
                done == run.items_done
                and len(processor.unit.events) >= len(body.events)
                and processor.time_us >= body.time_us
                for done in processor.foreign(commit, max(reading.items_done, 0))
            )
        if not reached:
            self._diverge("run_gap", f"{at}.items_done", f"no step ends after {run.items_done}")
        reading.items_done = run.items_done

    def _foreign(self, reading: Reading, counted: Counted) -> Any:
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

    def _compare_events(self, body: CommitBody) -> None:
        """What has followed so far, with what the commit has there."""
        unit, codec = self.processor.unit, self._codec
        for number, emitted in enumerate(unit.events):
            packed = RecordedEvent(
                emitted.aggregate,
                emitted.version,
                codec.number(type(emitted.event)),
                emitted.payload or codec.encode(emitted.event),
            ).pack()
            if number >= len(body.events):
                self._diverge(
                    "event_missing",
                    f"events[{number}]",
                    f"{type(emitted.event).__name__} follows from the inputs",
                )
            if packed != body.events[number]:
                self._differs(body, number, emitted)
            if self._witness is not None:
                payload = unpack_event(packed).payload
                self._agreed(self._witness.record(emitted.event, payload))

    def _compare(self, body: CommitBody, counted: Counted) -> None:
        self._compare_events(body)
        unit = self.processor.unit
        if len(unit.events) < len(body.events):
            at = len(unit.events)
            self._diverge(
                "event_surplus",
                f"events[{at}]",
                f"{self._named(unpack_event(body.events[at]).schema)} does not follow",
            )
        self._compare_counts(body)
        if body.rules_version != self.processor.rules_version:
            self._diverge(
                "rules_version",
                "rules_version",
                f"{body.rules_version}, in force is {self.processor.rules_version}",
            )
        self._compare_bulk(unit.bulk, counted)
        self._tree.extend(body.events)
        if self._tree.size != body.tree_size or self._tree.root() != body.tree_root:
            self._diverge("merkle_root", "tree_root", f"{body.tree_root.hex()}")

    def _compare_counts(self, body: CommitBody) -> None:
        """Garbage of a topic that is gone is known by these counts alone."""
        found = self.processor.unit.refused()
        if not self._kept_any(body):
            if found != body.refused:
                self._diverge("gate_count", "refused", f"{body.refused}, not {found}")
            return
        most = sum(run.count for run in body.runs if run.topic == TELEMETRY_TOPIC)
        claimed = sum(each.count for each in body.refused)
        batches = len(self.processor.unit.bulk)
        if claimed + batches > most:
            self._diverge("gate_count", "refused", f"{claimed} and {batches} batches of {most}")

    def _kept_any(self, body: CommitBody) -> bool:
        return any(
            run.topic == TELEMETRY_TOPIC
            and run.first < self._readings[run.topic, run.partition].start
            for run in body.runs
        )

    def _compare_bulk(self, expected: Sequence[BulkPart], counted: Counted) -> None:
        """Bytes that equal the inputs need no second hash: the digests of those are known."""
        if pack_bulk(expected) != counted.bulk():
            if counted.parts() is None:
                self._diverge("corrupt", "bulk", "it does not hash as the envelope says")
            self._diverge("bulk_differs", "bulk", "it is not the accepted telemetry in order")
        if bulk_hash(part.digest for part in expected) != counted.envelope.bulk_hash:
            self._diverge("corrupt", "bulk", "the envelope says another hash")

    def _named(self, schema: int) -> str:
        try:
            return self._codec.kind(schema).__name__
        except CodecError:
            return f"schema {schema}"

    def _differs(self, body: CommitBody, number: int, emitted: Any) -> NoReturn:
        """Name the first field in which an event differs, with what was found and expected."""
        at = f"events[{number}]"
        recorded = unpack_event(body.events[number])
        expected = emitted.event
        name = type(expected).__name__
        if recorded.schema != self._codec.number(type(expected)):
            self._diverge(
                "event_differs", f"{at}.schema", f"{self._named(recorded.schema)}, expected {name}"
            )
        try:
            event = self._codec.decode(type(expected), recorded.payload)
        except CodecError as error:
            self._diverge("event_differs", f"{at}.payload", f"no {name}: {error}")
        for field in type(expected).__dataclass_fields__:
            ours, theirs = getattr(expected, field), getattr(event, field)
            if ours != theirs:
                self._diverge(
                    "event_differs",
                    f"{at}.{field}",
                    f"{name}.{field} is {theirs!r}, expected {ours!r}",
                )
        for field in ("aggregate", "version"):
            ours, theirs = getattr(emitted, field), getattr(recorded, field)
            if ours != theirs:
                self._diverge("event_differs", f"{at}.{field}", f"{theirs!r}, expected {ours!r}")
        self._diverge("event_differs", f"{at}.payload", "its bytes are not the canonical ones")
