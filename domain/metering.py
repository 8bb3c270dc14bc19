"""The metering processor: one shard's heartbeats and readings become statements.

Newcomer's index: ``LEARN`` says what is taken from the market ledger, ``handle`` judges a batch,
``fire`` does what time does, ``FOLD`` is what each event does to the shard's folds. All that is
remembered stands in events of this ledger, so recovery runs the same code as the live path.

Two clocks: effective time moves by telemetry alone, so that a node's silence never depends on how
far the market ledger was read; the market's passed time moves by its commits. A usage window is
stated when both have passed its end by the largest grace (R4.6).

A step may be cut after an event of the market, a deadline that yields an event, or a record. A
deadline that yields none is no place to cut: such deadlines may differ after a recovery.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from domain.batch_columns import Columns, columns_of
from domain.catalogue import How
from domain.codec import Codec
from domain.commit import LEDGER_TOPICS, TELEMETRY_TOPIC, BulkPart, Ledger
from domain.coverage import Coverage, MeteredLease, MeteredNode, UsageWindows
from domain.due import MeteringDue
from domain.gate import TELEMETRY_WINDOW, Answer, Opened, Repeat, Sequences
from domain.genesis import Genesis
from domain.ids import AggregateId, Hash32, LeaseId, NodeId, ProviderId, shard_of
from domain.invariant import invariant
from domain.ledger import ParameterChanged, PriceRowAdded
from domain.metering_intake import Intake, VerifyMany, stretches
from domain.metering_market import LEARN as LEARN
from domain.metering_statements import Plan, await_window, window_id
from domain.metering_statements import fire as fire_window
from domain.metering_states import evolve
from domain.ports import LogRecord
from domain.processor import ForeignCommit, Processor, Source, States
from domain.readings import (
    LEASE_INDEX,
    NO_NODE,
    UNEQUAL_COLUMNS,
    UNKNOWN_NODE,
    Contradiction,
    Moment,
    Readings,
)
from domain.readings_columns import ColumnReadings
from domain.refusal import (
    KEY_ROLE,
    REVOKED_KEY,
    TOO_MANY_ROWS,
    UNKNOWN_KEY,
    WRONG_KIND,
    WRONG_SHARD,
    Code,
    Refused,
)
from domain.signed import Signed, Verifier
from domain.telemetry import (
    INTAKE,
    Batch,
    BatchBytes,
    ContradictionFound,
    KeyAssigned,
    KeyWithdrawn,
    LeaseActivated,
    LeaseAssigned,
    LeaseStopped,
    NodeAssigned,
    NodeCameUp,
    NodeWentDown,
    NodeWithdrawn,
    TelemetryAccepted,
    TelemetryRefused,
    UsageStated,
    UsageWindowClosed,
)

#: Lists of nodes that are remembered, and the longest of them.
_LISTS_REMEMBERED: Final = 1024
_LIST_REMEMBERED: Final = 256


@dataclass(slots=True)
class _Key:
    """A key that may sign for one node, or for all of a provider."""

    number: int
    provider: ProviderId
    node: bytes | None
    withdrawn: bool = False

    def speaks_for(self, node: MeteredNode) -> bool:
        """Whether the key may sign for a node."""
        return self.node == node.id if self.node is not None else self.provider == node.provider


@dataclass(slots=True)
class _Listed:
    """The nodes of a batch's list: a sender lists the same ones each time."""

    nodes: list[MeteredNode]
    numbers: list[int]
    speakers: set[int]  # numbers of keys that sign for all of them


class Metering(Processor):
    """One shard: nodes, their signs of life, counters of their leases, statements."""

    ledger = Ledger.METERING

    def __init__(
        self,
        *,
        genesis: Genesis,
        genesis_hash: bytes,
        shard: int,
        shards: int,
        states: States,
        codec: Codec,
        verify: Verifier,
        verify_many: VerifyMany | None = None,
        readings: Readings[Columns] | None = None,
    ) -> None:
        """A shard before its first event.

        ``verify_many`` checks many signatures at once, in their order, on as many cores as it
        likes; without it ``verify`` checks one after another. ``readings`` are empty and belong to
        this shard alone; without them they are columns.
        """
        super().__init__(
            genesis=genesis,
            genesis_hash=genesis_hash,
            shard=shard,
            shards=shards,
            states=states,
            evolve=evolve,
            codec=codec,
            verify=verify,
        )
        metered = [row.how is How.METERED for row in genesis.catalogue]
        self._metered = frozenset(i for i, is_metered in enumerate(metered) if is_metered)
        self.resources = [row.resource for row in genesis.catalogue]
        self.row_of = {name: i for i, name in enumerate(self.resources)}
        self.readings = ColumnReadings(metered) if readings is None else readings
        self._intake = Intake(codec, verify, verify_many)
        self.coverage = Coverage(UsageWindows(self.parameters.usage_window_us))
        self.nodes: dict[bytes, MeteredNode] = {}
        self._numbers = 0
        self.keys: dict[bytes, _Key] = {}
        self.leases: dict[bytes, MeteredLease] = {}
        self._sequences = Sequences(TELEMETRY_WINDOW)
        self.market_us = genesis.start_us
        self.plan: Plan | None = None
        self._decoded: tuple[bytes, Columns] | None = None
        self._lists: dict[tuple[bytes, ...], _Listed] = {}

    def sources(self) -> tuple[Source, ...]:
        """The market ledger first, so that a batch is judged by what the market has decided."""
        return (
            Source(LEDGER_TOPICS[Ledger.MARKET], 0, Ledger.MARKET),
            Source(TELEMETRY_TOPIC, self.shard, None),
        )

    # Telemetry

    def external_many(
        self, source: Source, records: Sequence[LogRecord]
    ) -> Iterator[tuple[int, int]]:
        """Feed records of the telemetry partition: the law of ``external``, in bulk.

        Signatures and columns of a stretch of records are opened together before the first of
        them is taken.
        """
        done = 0
        for stretch in stretches(records):
            opened = self._intake.open_many(stretch, self.parameters.input_bytes)
            for record, found in zip(stretch, opened, strict=True):
                judged, tick = self.tick_of(found)
                for items, _ in enumerate(self.advance(self.time_of(source, record, tick)), 1):
                    yield done, items
                if tick is None:
                    self.hear(judged, source, record)
                done += 1
                yield done, 0

    def key_fault(self, opened: Opened) -> Code | None:
        """By what the market has told up to the height that this shard has consumed."""
        key = self.keys.get(opened.signed.key)
        if key is None:
            return UNKNOWN_KEY
        return REVOKED_KEY if key.withdrawn else None

    def handle(self, opened: Opened, source: Source, record: LogRecord) -> None:
        """Judge a batch: its shard, its number, its nodes, its columns, its rows."""
        signed, payload = opened.signed, opened.payload
        if isinstance(payload, Columns):
            batch = payload
        elif isinstance(payload, Batch | BatchBytes):
            batch = columns_of(payload)
        else:
            self.unit.count(WRONG_KIND.number, record.offset)
            return
        key, nodes = self.keys[signed.key], self._nodes_of(batch.nodes)
        elsewhere = self._elsewhere(batch) if nodes is None else None
        if elsewhere is not None and not self._concerns(batch):
            # Whoever may write telemetry can copy a signed batch to where it does not belong; the
            # signer's numbers here must be none the worse for it.
            self.unit.count(elsewhere.code.number, record.offset)
            return
        verdict = self._sequences.judge(
            signed.key,
            signed.session,
            signed.number,
            record.digest(),
            self.time_us + self.parameters.session_ahead_us,
        )
        if isinstance(verdict, Repeat):
            return
        if isinstance(verdict, Refused):
            # Of a batch for another shard that is said, whatever its number is refused for.
            self.unit.count((elsewhere or verdict).code.number, record.offset)
            return
        listed = elsewhere or self._listed(batch, nodes, key)
        if isinstance(listed, Refused):
            self._refuse(signed, record, listed)
        else:
            self._accept(signed, batch, key, listed, record)

    def _refuse(self, signed: Signed, record: LogRecord, why: Refused) -> None:
        self.emit(
            INTAKE,
            TelemetryRefused(
                at_us=self.time_us,
                key=signed.key,
                session=signed.session,
                number=signed.number,
                digest=Hash32(record.digest()),
                code=why.code.number,
                detail=why.detail,
                length=len(record.value),
            ),
            BulkPart(record.value, record.digest()),
        )

    def _nodes_of(self, ids: tuple[bytes, ...]) -> _Listed | None:
        """The nodes of a list, or None where one is not known."""
        found = self._lists.get(ids)
        if found is None:
            nodes = []
            for id in ids:
                node = self.nodes.get(id)
                if node is None:
                    return None
                nodes.append(node)
            found = _Listed(nodes, [node.number for node in nodes], set())
            if len(ids) <= _LIST_REMEMBERED:
                if len(self._lists) >= _LISTS_REMEMBERED:
                    self._lists.clear()
                self._lists[ids] = found
        return found

    def _elsewhere(self, batch: Columns) -> Refused | None:
        """The refusal of a batch that lists a node of another shard; those known are of this."""
        for id in batch.nodes:
            if id not in self.nodes and (right := shard_of(id, self.shards)) != self.shard:
                return Refused(WRONG_SHARD, f"node {id.hex()} is of shard {right}")
        return None

    def _concerns(self, batch: Columns) -> bool:
        """Whether a node of this shard is listed, known or not."""
        return any(shard_of(id, self.shards) == self.shard for id in batch.nodes)

    def _listed(self, batch: Columns, listed: _Listed | None, key: _Key) -> _Listed | Refused:
        """The nodes that a batch speaks for, or why it is refused as a whole."""
        if not batch.nodes:
            return Refused(NO_NODE)
        if listed is None:
            id = next(id for id in batch.nodes if id not in self.nodes)
            return Refused(UNKNOWN_NODE, id.hex())
        if key.number not in listed.speakers:
            for node in listed.nodes:
                if not key.speaks_for(node):
                    return Refused(KEY_ROLE, f"the key does not sign for node {node.id.hex()}")
            listed.speakers.add(key.number)
        most = max(len(batch.nodes), len(batch.leases), len(batch.lease), len(batch.total))
        if most > self.parameters.batch_rows:
            return Refused(TOO_MANY_ROWS, f"{most}, at most {self.parameters.batch_rows}")
        if batch.rows < 0:
            return Refused(UNEQUAL_COLUMNS)
        if batch.rows and not batch.points_within():
            return Refused(LEASE_INDEX, f"{len(batch.leases)} leases are listed")
        return listed

    def _accept(
        self,
        signed: Signed,
        batch: Columns,
        key: _Key,
        listed: _Listed,
        record: LogRecord,
    ) -> None:
        now_us = self.time_us
        judged = self.readings.judge(
            batch, listed.numbers, key.number, Moment.of(now_us, self.parameters)
        )
        for node in listed.nodes:
            if not node.up:
                came_up = NodeCameUp(
                    at_us=now_us,
                    node=NodeId(node.id),
                    since_us=now_us if node.last_us < 0 else node.last_us,
                )
                self.emit(AggregateId(node.id), came_up)
        self._decoded = record.value, batch
        self.emit(
            INTAKE,
            TelemetryAccepted(
                at_us=now_us,
                key=signed.key,
                session=signed.session,
                number=signed.number,
                digest=Hash32(record.digest()),
                length=len(record.value),
                rows=batch.rows,
                refused=judged.refused,
            ),
            BulkPart(record.value, record.digest()),
        )
        if judged.contradiction is not None:
            self._contradict(judged.contradiction, signed, record)

    def _contradict(self, found: Contradiction, signed: Signed, record: LogRecord) -> None:
        node = self.leases[found.lease].node.id
        self.emit(
            AggregateId(node),
            ContradictionFound(
                at_us=self.time_us,
                node=NodeId(node),
                lease=LeaseId(found.lease),
                resource=self.resources[found.resource],
                generation=found.generation,
                time_us=found.time_us,
                key=signed.key,
                first_total=found.first_total,
                second_total=found.second_total,
                first=Hash32(found.first),
                second=Hash32(record.digest()),
            ),
        )

    # The market ledger

    def foreign(self, commit: ForeignCommit, items_done: int = 0) -> Iterator[int]:
        """Learn a market commit's events; effective time does not move by them."""
        for done, (aggregate, event) in enumerate(commit.events[items_done:], items_done + 1):
            self.begin_item()
            self.learn(commit, aggregate, event)
            yield done
        for _ in self.passed(commit):
            yield len(commit.events)

    def learn(self, commit: ForeignCommit, aggregate: bytes, event: Any) -> None:
        """Take notice of an event of the market."""
        taught = LEARN.get(type(event))
        if taught is not None:
            taught(self, event)

    def passed(self, commit: ForeignCommit) -> Iterator[None]:
        """The market has passed a time: windows that waited for it are stated."""
        self.resume(commit)
        for window_us, pending in self.coverage.pending.items():
            if pending.due_us <= self.market_us:
                await_window(self, window_us)
        yield from self.advance(self.time_us)

    def resume(self, commit: ForeignCommit) -> None:
        """Remember the time that the market has passed."""
        self.market_us = max(self.market_us, commit.time_us)

    # Time

    def advance(self, time_us: int) -> Iterator[None]:
        """Fire what is due; a deadline that yields no event is no item."""
        self.begin_item()
        effective = max(time_us, self.time_us)
        while (first := self.deadlines.next()) is not None and first[0] <= effective:
            due_us, kind, id = first
            self.deadlines.pop()
            self.time_us = max(self.time_us, due_us)
            before = len(self.unit.events)
            self.fire(due_us, kind, id)
            if len(self.unit.events) != before:
                yield
        self.time_us = effective

    def next_due_us(self) -> int | None:
        """Deadlines of nodes that have given signs since are moved first, and not waited for."""
        while (first := self.deadlines.next()) is not None:
            due_us, kind, id = first
            node = self.nodes.get(id) if kind == MeteringDue.NODE_SILENT else None
            if node is None or node.down_us() <= due_us:
                return due_us
            self.deadlines.set(MeteringDue.NODE_SILENT, id, node.down_us())
        return None

    def fire(self, due_us: int, kind: int, id: bytes) -> None:
        """A node fell silent, or a usage window is ripe for the telemetry clock."""
        if kind == MeteringDue.NODE_SILENT:
            self._fall_silent(due_us, id)
        else:
            fire_window(self, due_us, id)

    def _fall_silent(self, due_us: int, id: bytes) -> None:
        node = self.nodes.get(id)
        if node is None or not node.up:
            return
        if node.down_us() > due_us:
            # Signs came since the deadline was set; it is moved here, once, and not by each sign.
            self.deadlines.set(MeteringDue.NODE_SILENT, id, node.down_us())
            return
        went_down = NodeWentDown(at_us=due_us, node=NodeId(id), since_us=node.last_us)
        self.emit(AggregateId(id), went_down)

    # Folds

    def apply(self, aggregate: AggregateId, event: Any, bulk: bytes | None) -> None:
        """Fold an event; the bulk of an accepted batch is its signed bytes."""
        if isinstance(event, TelemetryAccepted):
            invariant(bulk is not None, "an accepted batch has its bytes")
            self._fold_accepted(event, bulk or b"")
            return
        fold = FOLD.get(type(event))
        if fold is not None:
            fold(self, event)

    def _fold_accepted(self, event: TelemetryAccepted, bulk: bytes) -> None:
        decoded, self._decoded = self._decoded, None
        if decoded is not None and decoded[0] is bulk:
            batch = decoded[1]
        else:
            batch = self._intake.reopen(bulk)
        now_us, coverage = event.at_us, self.coverage
        if coverage.enter(now_us, self.parameters.grace_max_us):
            await_window(self, coverage.window_us)
        listed = self._nodes_of(batch.nodes)
        invariant(listed is not None, "an accepted batch lists nodes that are known")
        assert listed is not None
        coverage.sign(listed.nodes, now_us)
        self.readings.fold(
            batch,
            event.refused,
            self.keys[event.key].number,
            event.digest,
            now_us,
            coverage.window_us,
        )
        self._sequences.answered(
            event.key, event.session, event.number, Answer(event.digest, 0, "")
        )

    def _fold_refused(self, event: TelemetryRefused) -> None:
        answer = Answer(event.digest, event.code, event.detail)
        self._sequences.answered(event.key, event.session, event.number, answer)

    def _fold_node(self, event: NodeAssigned) -> None:
        self._lists.clear()
        self._numbers += 1
        self.nodes[event.node] = MeteredNode(
            event.node, self._numbers, event.provider, event.grace_us
        )

    def _fold_withdrawn_node(self, event: NodeWithdrawn) -> None:
        node = self.nodes[event.node]
        node.withdrawn = True
        self._drop_if_done(node)

    def _drop_if_done(self, node: MeteredNode) -> None:
        if node.withdrawn and not node.leases:
            self.coverage.leave(node)
            del self.nodes[node.id]
            self._lists.clear()
            self.deadlines.clear(MeteringDue.NODE_SILENT, node.id)

    def _fold_up(self, event: NodeCameUp) -> None:
        node = self.nodes[event.node]
        self.coverage.up(node, event.at_us)
        self.deadlines.set(MeteringDue.NODE_SILENT, node.id, node.down_us())

    def _fold_down(self, event: NodeWentDown) -> None:
        self.nodes[event.node].up = False
        self.deadlines.clear(MeteringDue.NODE_SILENT, event.node)

    def _fold_key(self, event: KeyAssigned) -> None:
        self.keys[event.key] = _Key(len(self.keys) + 1, event.provider, event.node)

    def _fold_withdrawn_key(self, event: KeyWithdrawn) -> None:
        self.keys[event.key].withdrawn = True

    def _fold_lease(self, event: LeaseAssigned) -> None:
        node = self.nodes[event.node]
        amounts: dict[int, int] = {}
        for allocation in event.allocations:
            row = self.row_of[allocation.resource]
            amounts[row] = amounts.get(row, 0) + allocation.amount
        limits = {
            self.row_of[limit.resource]: limit.per_second
            for limit in event.metered
            if self.row_of[limit.resource] in self._metered
        }
        lease = MeteredLease(event.lease, node, amounts)
        self.leases[event.lease] = node.leases[event.lease] = lease
        self.readings.assign(event.lease, node.number, limits)

    def _fold_active(self, event: LeaseActivated) -> None:
        self.leases[event.lease].ready_us = event.ready_us
        self.readings.activate(event.lease, event.ready_us)

    def _fold_stopped(self, event: LeaseStopped) -> None:
        lease = self.leases[event.lease]
        lease.end_us, lease.closing_us = event.end_us, event.closing_us
        self.readings.stop(event.lease, event.closing_us)
        self._place_final(lease)

    def _place_final(self, lease: MeteredLease) -> None:
        """Let the lease's last window be the one that ends at its closing, rounded up (R4.6)."""
        coverage = self.coverage
        if lease.final_us is not None:
            coverage.pending[lease.final_us].finals.pop(lease.id)
        closing_us = lease.closing_us or 0
        lease.final_us = coverage.windows.end(max(closing_us - 1, lease.settled_us))
        pending = coverage.open(lease.final_us, self.parameters.grace_max_us)
        pending.finals[lease.id] = None
        await_window(self, lease.final_us)

    def _fold_stated(self, event: UsageStated) -> None:
        lease = self.leases[event.lease]
        if event.final:
            del self.leases[event.lease], lease.node.leases[event.lease]
            self.coverage.pending[event.window_end_us].finals.pop(event.lease, None)
            self.readings.forget(event.lease)
            self._drop_if_done(lease.node)
            return
        lease.covered_us, lease.settled_us = event.covered_us, event.window_end_us
        lease.stated = tuple(
            (self.row_of[each.resource], each.quantity) for each in event.quantities
        )
        lease.metered = {row: q for row, q in lease.stated if row not in lease.amounts}

    def _fold_closed(self, event: UsageWindowClosed) -> None:
        window_us = event.window_end_us
        self.coverage.close(window_us)
        self.readings.close(window_us)
        self.plan = None
        self.deadlines.clear(MeteringDue.STATEMENT, window_id(window_us))

    def _fold_parameter(self, event: ParameterChanged) -> None:
        changes: dict[str, Any] = {event.name: event.value}
        self.parameters = replace(self.parameters, **changes)
        self.readings.limits_moved()
        if event.name == "usage_window_us":
            self.coverage.windows.change(event.at_us, event.value)
            for lease in self.leases.values():
                if lease.final_us is not None:
                    self._place_final(lease)

    def _fold_row(self, event: PriceRowAdded) -> None:
        self.row_of[event.resource] = len(self.resources)
        self.resources.append(event.resource)


#: What each event does to the folds, beside accepted telemetry.
FOLD: Final[Mapping[type[Any], Callable[[Metering, Any], None]]] = {
    TelemetryRefused: Metering._fold_refused,
    NodeAssigned: Metering._fold_node,
    NodeWithdrawn: Metering._fold_withdrawn_node,
    NodeCameUp: Metering._fold_up,
    NodeWentDown: Metering._fold_down,
    KeyAssigned: Metering._fold_key,
    KeyWithdrawn: Metering._fold_withdrawn_key,
    LeaseAssigned: Metering._fold_lease,
    LeaseActivated: Metering._fold_active,
    LeaseStopped: Metering._fold_stopped,
    UsageStated: Metering._fold_stated,
    UsageWindowClosed: Metering._fold_closed,
    ParameterChanged: Metering._fold_parameter,
    PriceRowAdded: Metering._fold_row,
}
