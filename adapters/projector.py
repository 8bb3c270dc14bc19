"""Follows the ledgers by the reader rule and hands their commits to the read models.

One turn reads what every ledger has, in batches that bound memory and transactions. Whoever runs
it (a turn loop, a thread, a worker of its own) may stop it anywhere: it goes on from the position
that stands with the rows.
"""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NoReturn

from domain.chain import ChainReader, Counted, LedgerStopped
from domain.codec import Codec, CodecError
from domain.commit import (
    LEDGER_TOPICS,
    CommitBody,
    Ledger,
    RecordedEvent,
    body_of,
    parse,
    unpack_event,
)
from domain.genesis import Genesis
from domain.ids import PublicKey
from domain.ledger import WriterRotated
from domain.ports import Log, LogTruncated
from domain.signed import Verifier
from domain.telemetry import TelemetryAccepted
from projections.fold_rows import At
from projections.following import (
    Overtaken,
    Position,
    ProjectedCommit,
    RowStore,
    application_name,
    unfollowed,
)
from projections.held import TooManyHeld

READ_BYTES: Final = 2 * 1024 * 1024
_END_EVERY_S: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerStatus:
    """How far one ledger is followed, and how far it is behind the head of the log.

    ``end`` is the log's as the projector last saw it, None before its first turn. The lag in
    events and in µs of the ledger's own time is None where the last record is no commit.
    """

    application: str
    ledger: Ledger
    shard: int
    height: int
    next_offset: int
    end: int | None
    lag: int | None
    lag_events: int | None
    lag_us: int | None
    noise: int
    stopped: str | None


class _Follower:
    """One ledger: its chain, its position, and the batch in the making."""

    def __init__(self, projector: Projector, ledger: Ledger, shard: int, writer: PublicKey) -> None:
        self.ledger = ledger
        self.shard = shard
        self.topic = LEDGER_TOPICS[ledger]
        self._writer = writer
        self._projector = projector
        self._application = application_name(ledger, shard)
        self._chain: ChainReader | None = None
        self._position = unfollowed(self._application)
        self._end: int | None = None
        self._head: tuple[int, int] | None = None
        self._seen_s = 0.0

    def status(self) -> LedgerStatus:
        """Where it stands against the end of its log. From any thread: the log is not asked."""
        at = self._projector.target.position(self._application)
        end = None if self._end is None else max(self._end, at.next_offset)
        lag_events, lag_us = self._lag(at, end)
        return LedgerStatus(
            application=self._application,
            ledger=self.ledger,
            shard=self.shard,
            height=at.height,
            next_offset=at.next_offset,
            end=end,
            lag=None if end is None else end - at.next_offset,
            lag_events=lag_events,
            lag_us=lag_us,
            noise=at.noise_count,
            stopped=at.stopped,
        )

    def _lag(self, at: Position, end: int | None) -> tuple[int | None, int | None]:
        """Events and µs that the log's last commit is ahead of a position."""
        if end is None:
            return None, None
        if end == at.next_offset:
            return 0, 0
        if self._head is None:
            return None, None
        events, time_us = self._head
        since_us = at.time_us if at.height >= 0 else self._projector.start_us
        return max(0, events - (at.notification_id or 0)), max(0, time_us - since_us)

    def turn(self, wait_s: float) -> bool:
        """Take one batch. True if there was anything, or another projector was before us."""
        chain = self._chain or self._start()
        before = self._position
        try:
            fetched = self._projector.log.read(
                self.topic,
                self.shard,
                before.next_offset,
                max_bytes=READ_BYTES,
                wait_s=wait_s,
            )
        except LogTruncated as error:
            self._stop("truncated", before.next_offset, str(error))
        self._see_end(before.next_offset, fetched.next_offset)
        if fetched.next_offset == before.next_offset:
            return False
        commits: list[ProjectedCommit] = []
        after = before
        stopped: LedgerStopped | None = None
        try:
            for record in fetched.records:
                verdict = chain.judge(record)
                if isinstance(verdict, Counted):
                    commit, after = self._understood(chain, verdict, after)
                    commits.append(commit)
                after = replace(after, next_offset=record.offset + 1)
            after = replace(after, next_offset=fetched.next_offset)
        except LedgerStopped as reason:
            # What counts before it still counts, and the read model says why it goes no further.
            stopped = reason
        noise = {digest.hex(): height for digest, height in chain.noise().items()}
        counted = before.noise_count + chain.noise_count
        chain.noise_count = 0
        after = replace(
            after,
            noise=noise,
            noise_count=counted,
            writer=bytes(chain.writer),
            stopped=None if stopped is None else str(stopped),
        )
        try:
            self._projector.target.apply(before, after, commits)
        except Overtaken:
            self._chain = None
            if stopped is None:
                return True
        except TooManyHeld as full:
            self._chain = None
            stop = LedgerStopped(
                "too_many_held", self.ledger, self.shard, before.next_offset, str(full)
            )
            self._projector.target.apply(before, replace(before, stopped=str(stop)), [])
            raise stop from full
        self._position = after
        if stopped is not None:
            self._chain = None
            raise stopped
        return True

    def look(self) -> None:
        """See how far the log is now, without reading on."""
        self._chain = self._chain or self._start()
        own = self._projector
        self._end, self._seen_s = own.log.end(self.topic, self.shard), own.now_s()
        self._head = self._head_at(self._end - 1)

    def _see_end(self, asked: int, following: int) -> None:
        """Know the log's end: a read that finds nothing tells it, else it is asked now and then."""
        if following == asked:
            self._end, self._seen_s = asked, self._projector.now_s()
        elif self._end is None or self._projector.now_s() - self._seen_s > _END_EVERY_S:
            self.look()

    def _head_at(self, offset: int) -> tuple[int, int] | None:
        """Events and time of the commit at an offset, as it says itself; it is not judged yet."""
        own = self._projector
        if offset < self._position.next_offset:
            return None
        records = own.log.read(self.topic, self.shard, offset, max_bytes=1).records
        found = parse(records[0].value) if records else None
        if (
            found is None
            or (found.genesis, found.ledger, found.shard)
            != (own.genesis_hash, self.ledger, self.shard)
            or not own.verify(found.writer, found.unsigned(), found.signature)
        ):
            return None
        try:
            body = own.codec.decode(CommitBody, body_of(records[0].value, found))
        except CodecError:
            return None
        return body.tree_size, body.time_us

    def _start(self) -> ChainReader:
        """Stand where the rows stand, once it is certain that the log still has that commit."""
        own = self._projector
        position = own.target.position(self._application)
        chain = ChainReader(
            genesis=own.genesis_hash,
            ledger=self.ledger,
            shard=self.shard,
            writer=PublicKey(position.writer or self._writer),
            verify=own.verify,
        )
        if position.head_offset >= 0:
            self._position = position
            self._cross_check(position)
        elif own.log.start(self.topic, self.shard) > 0:
            self._stop("truncated", 0, "the log does not start at its first record", height=0)
        noise = {bytes.fromhex(digest): height for digest, height in position.noise.items()}
        chain.resume(position.height, position.hash, noise)
        self._chain, self._position = chain, position
        return chain

    def _cross_check(self, position: Position) -> None:
        at = position.head_offset
        try:
            records = self._projector.log.read(self.topic, self.shard, at, max_bytes=1).records
        except LogTruncated as error:
            self._stop("truncated", at, str(error))
        found = parse(records[0].value) if records and records[0].offset == at else None
        if found is None or found.hash() != position.hash:
            self._stop("truncated", at, "the log lacks the commit that is in the rows")

    def _understood(
        self, chain: ChainReader, counted: Counted, at: Position
    ) -> tuple[ProjectedCommit, Position]:
        """A commit as the read model takes it, and the position after it."""
        own = self._projector
        events: list[tuple[At, RecordedEvent, Any]] = []
        try:
            body = own.codec.decode(CommitBody, counted.body)
            first = body.tree_size - len(body.events) + 1
            for position, data in enumerate(body.events, first):
                recorded = unpack_event(data)
                if recorded.schema == own.skipped:
                    continue
                kind: Any = own.codec.kind(recorded.schema)
                said: Any = own.codec.decode(kind, recorded.payload)
                if kind is WriterRotated:
                    chain.writer = said.writer
                place = At(self.ledger, self.shard, counted.envelope.height, position, kind.NAME)
                events.append((place, recorded, said))
        except (CodecError, struct.error) as error:
            why = f"the body cannot be read: {error}"
            self._stop("corrupt", counted.offset, why, height=counted.envelope.height)
        if first != (at.notification_id or 0) + 1:
            why = f"its first event is {first}"
            self._stop("corrupt", counted.offset, why, height=counted.envelope.height)
        commit = ProjectedCommit(
            events=events,
            consumed=[(run.topic, run.partition, run.next) for run in body.runs],
        )
        return commit, replace(
            at,
            notification_id=body.tree_size,
            height=counted.envelope.height,
            hash=counted.hash,
            head_offset=counted.offset,
            time_us=body.time_us,
        )

    def _stop(self, name: str, offset: int, why: str, height: int | None = None) -> NoReturn:
        height = self._position.height if height is None else height
        raise LedgerStopped(name, self.ledger, self.shard, offset, why, height=height)


class Projector:
    """Follows every ledger of a network into one read model. One thread at a time."""

    def __init__(
        self,
        *,
        log: Log,
        target: RowStore,
        codec: Codec,
        verify: Verifier,
        genesis: Genesis,
        genesis_hash: bytes,
        shards: int,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is read before the first turn.

        ``now_s`` says when to look at a log's end again; no row depends on it.
        """
        self.now_s = now_s
        self.log = log
        self.target = target
        self.codec = codec
        self.verify = verify
        self.genesis_hash = genesis_hash
        self.start_us = genesis.start_us
        self.skipped = codec.number(TelemetryAccepted)
        self._followers = [
            _Follower(self, Ledger.MARKET, 0, genesis.market_writer),
            *(
                _Follower(self, Ledger.METERING, shard, genesis.metering_writer)
                for shard in range(shards)
            ),
            _Follower(self, Ledger.SETTLEMENT, 0, genesis.settlement_writer),
        ]

    def turn(self, *, wait_s: float = 0.0) -> bool:
        """Take one batch of each ledger; True if anything was there.

        With ``wait_s`` the market's ledger is waited on for the first record. Raises
        ``LedgerStopped`` where no reader may go on, and the log's operating errors.
        """
        moved = False
        for follower in self._followers:
            moved |= follower.turn(wait_s if follower is self._followers[0] else 0.0)
        return moved

    def catch_up(self) -> None:
        """Take turns until nothing is left of what the log has now."""
        while self.turn():
            pass

    def run(self, stop: threading.Event, *, wait_s: float = 0.2) -> None:
        """Take turns until ``stop`` is set; what a turn raises ends it."""
        while not stop.is_set():
            self.turn(wait_s=wait_s)

    def look(self) -> None:
        """See how far every ledger's log is now, without reading on."""
        for follower in self._followers:
            follower.look()

    def status(self) -> Sequence[LedgerStatus]:
        """How far each ledger is followed; from any thread, also while another takes turns."""
        return [follower.status() for follower in self._followers]
