"""Looks over the ledgers of a log without deciding anything again: what `synor topics check` says.

The audit proves a ledger and takes its time; this reads it once by the reader rule and asks what an
operator wants to know at night: does it end where everybody left it, does it fork, how much on it
is noise. What "everybody left it" means is gathered from all that remembers a ledger: the runs in
other ledgers, the workers' indexes, the read model, the vault.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from adapters.bootstrap import Network, verify
from adapters.eventsourcing_index import indexed_head
from adapters.worker_reading import writer_of
from domain.chain import BODY_CHANGED, ChainReader, Counted, LedgerStopped
from domain.checkpoint import CheckpointMade
from domain.codec import CodecError
from domain.commit import (
    COMMANDS_TOPIC,
    LEDGER_TOPICS,
    TELEMETRY_TOPIC,
    CommitBody,
    Ledger,
    unpack_event,
)
from domain.ledger import LogBound, TopicBound, WriterRotated
from domain.ports import Log, LogError

READ_BYTES: Final = 8 << 20
_HASH_BYTES: Final = 32
_INPUTS: Final = {Ledger.MARKET: COMMANDS_TOPIC, Ledger.METERING: TELEMETRY_TOPIC}


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Somebody's memory of a partition: where it had read to, and the last commit it had seen."""

    by: str
    topic: str
    partition: int
    next_offset: int
    height: int = -1
    hash: bytes = b""


@dataclass(slots=True)
class LedgerFound:
    """What stands on one ledger's partition."""

    ledger: Ledger
    shard: int
    height: int = -1
    records: int = 0
    end: int = 0
    #: Records that do not count, by why.
    noise: Counter[str] = field(default_factory=Counter)
    fault: LedgerStopped | None = None
    bound: Sequence[TopicBound] = ()
    epochs: int = 0
    #: Of a shard, by commit: its effective time in µs, and how far telemetry was consumed with it.
    times: array[int] = field(default_factory=partial(array, "q"))
    telemetry: array[int] = field(default_factory=partial(array, "q"))
    #: Of every commit, one after the other.
    hashes: bytearray = field(default_factory=bytearray)

    @property
    def topic(self) -> str:
        """Where it stands."""
        return LEDGER_TOPICS[self.ledger]

    def hash_at(self, height: int) -> bytes | None:
        """The commit of a height, or None beyond the head."""
        if not 0 <= height <= self.height:
            return None
        return bytes(self.hashes[height * _HASH_BYTES : (height + 1) * _HASH_BYTES])


def look_over(
    network: Network, log: Log, claims: Sequence[Claim] = (), *, anchored_epochs: int = 0
) -> list[LedgerFound]:
    """Read every ledger, and hold it against ``claims`` and against what the ledgers cite."""
    readings = [_Reading(network, log, *seat) for seat in network.ledgers()]
    for each in readings:
        each.read_on()
    places = {(LEDGER_TOPICS[r.found.ledger], r.found.shard): r for r in readings}
    cited = [claim for each in readings for claim in each.consumed.values()]
    for claim in [*claims, *cited]:
        place = (claim.topic, claim.partition)
        if place in places:
            places[place].hold(claim)
        else:
            owner = Ledger.MARKET if claim.topic == COMMANDS_TOPIC else Ledger.METERING
            places[LEDGER_TOPICS[owner], claim.partition].hold_input(claim)
    for each in readings:
        each.hold_topics()
        each.hold_beginning()
    settlement = places[LEDGER_TOPICS[Ledger.SETTLEMENT], 0]
    made = settlement.found.epochs
    if made < anchored_epochs:
        settlement.fail(f"the vault holds {anchored_epochs} epochs, the ledger {made}")
    return [each.found for each in readings]


def made_again(network: Network, log: Log, ledger: Ledger, shard: int) -> LedgerStopped | None:
    """Whether a topic that a ledger is bound to was deleted and made again: a worker's first look.

    A worker that went on would take the new records for those after the ones that it has consumed.
    """
    reading = _Reading(network, log, ledger, shard)
    reading.read_on(until=0)
    reading.hold_topics()
    return reading.found.fault


def index_claims(network: Network, folder: Path) -> Iterator[Claim]:
    """What the workers' indexes remember; the index of a running worker is locked, and its own."""
    for ledger, shard in network.ledgers():
        path = folder / f"{LEDGER_TOPICS[ledger]}.{shard}.db"
        identity = network.identity(ledger, shard).digest()
        head = indexed_head(path, identity) if path.exists() else None
        if head is not None:
            yield Claim(
                by=f"the index {path.name}",
                topic=LEDGER_TOPICS[ledger],
                partition=shard,
                next_offset=head.next_offset,
                height=head.height,
                hash=head.hash,
            )


def row_claims(network: Network, url: str) -> Iterator[Claim]:
    """What the read model remembers, where there is one of this network."""
    from sqlalchemy import make_url
    from sqlalchemy.exc import SQLAlchemyError

    from adapters.read_model import ReadModel
    from projections.following import application_name

    at_url = make_url(url)
    if at_url.get_backend_name() == "sqlite" and not Path(at_url.database or "").exists():
        return
    try:
        with closing(ReadModel(url)) as rows:
            if not rows.is_of(network.hash):
                return
            for ledger, shard in network.ledgers():
                at = rows.position(application_name(ledger, shard))
                yield Claim(
                    by="the read model",
                    topic=LEDGER_TOPICS[ledger],
                    partition=shard,
                    next_offset=at.next_offset,
                    height=at.height,
                    hash=at.hash,
                )
    except SQLAlchemyError as error:
        raise LogError(f"The read model cannot be asked: {error}") from error


class _Reading:
    """One ledger, read by the reader rule, and what its commits cite of others."""

    def __init__(self, network: Network, log: Log, ledger: Ledger, shard: int) -> None:
        self.found = LedgerFound(ledger, shard)
        #: By partition, the last run over it.
        self.consumed: dict[tuple[str, int], Claim] = {}
        self._network = network
        self._log = log
        self._topic = LEDGER_TOPICS[ledger]
        self._chain = ChainReader(
            genesis=network.hash,
            ledger=ledger,
            shard=shard,
            writer=writer_of(network.genesis, ledger),
            verify=verify,
        )

    def read_on(self, *, until: int | None = None) -> None:
        """Read what the log has now, up to the first fault or the commit of a height."""
        found, log = self.found, self._log
        # Up to a height it is the first commits that are wanted, of a ledger that may be long.
        at_once = READ_BYTES if until is None else 1
        first = log.start(self._topic, found.shard)
        if first > 0:
            self.fail(f"the log starts at offset {first}, not at its first", at=0, height=0)
        try:
            while found.fault is None and (until is None or found.height < until):
                fetched = log.read(self._topic, found.shard, found.end, max_bytes=at_once)
                if fetched.next_offset == found.end:
                    return
                for record in fetched.records:
                    found.records += 1
                    verdict = self._chain.judge(record)
                    if isinstance(verdict, Counted):
                        self._take(verdict)
                    else:
                        found.noise[verdict.why] += 1
                        if verdict.why == BODY_CHANGED:
                            # Signed for the head, and only a changed log explains the rest.
                            height = found.height + 1
                            self.fail(verdict.why, name="corrupt", at=record.offset, height=height)
                            return
                found.end = fetched.next_offset
        except LedgerStopped as fault:
            found.fault = fault

    def fail(
        self, why: str, *, name: str = "truncated", at: int | None = None, height: int | None = None
    ) -> None:
        """Note a fault, unless one is noted already."""
        found = self.found
        if found.fault is None:
            height = found.height if height is None else height
            at = found.end if at is None else at
            found.fault = LedgerStopped(
                name, found.ledger, found.shard, at, why, height=max(height, 0)
            )

    def hold(self, claim: Claim) -> None:
        """Whether the ledger still has what somebody remembers of it."""
        found = self.found
        if found.end < claim.next_offset:
            # It may have grown since; whoever cites it has read further.
            self.read_on()
        if found.end < claim.next_offset:
            why = f"it ends there, and {claim.by} has read up to offset {claim.next_offset}"
            self.fail(why, height=max(claim.height, 0))
        elif claim.height >= 0 and found.hash_at(claim.height) != claim.hash:
            why = f"it has not the commit that {claim.by} has read"
            self.fail(why, at=claim.next_offset - 1, height=claim.height)

    def hold_input(self, claim: Claim) -> None:
        """Inputs that a ledger has consumed must be there, or at least their offsets."""
        end = self._log.end(claim.topic, claim.partition)
        if end < claim.next_offset:
            self.fail(
                f"{claim.topic}[{claim.partition}] ends at offset {end}, and {claim.by} has "
                f"consumed it up to {claim.next_offset}",
                at=end,
            )

    def hold_topics(self) -> None:
        """Whether the topics are those of the beginning: others count their offsets from anew."""
        found = self.found
        own = {self._topic, _INPUTS.get(found.ledger)}
        for bound in found.bound:
            if bound.topic in own and self._log.topic_id(bound.topic) != bound.id:
                why = f"topic {bound.topic} was deleted and made again since the ledger began"
                self.fail(why, at=0, height=0)

    def hold_beginning(self) -> None:
        """Whether inputs are gone that the ledger needs: commands at all, telemetry unread."""
        found, topic = self.found, _INPUTS.get(self.found.ledger)
        if topic is None:
            return
        start = self._log.start(topic, found.shard)
        if topic == TELEMETRY_TOPIC and start > self._telemetry():
            # It may have been consumed and deleted since.
            self.read_on()
        kept = self._telemetry() if topic == TELEMETRY_TOPIC else 0
        if start > kept:
            why = f"{topic}[{found.shard}] starts at offset {start}, "
            self.fail(
                why + "and commands are kept for ever"
                if topic == COMMANDS_TOPIC
                else why + f"and the shard has consumed it up to {kept}: the rest is nowhere",
                name="inputs_deleted",
                at=start,
            )

    def _telemetry(self) -> int:
        return self.found.telemetry[-1] if self.found.telemetry else 0

    def _take(self, counted: Counted) -> None:
        found, codec = self.found, self._network.codec
        height = counted.envelope.height
        try:
            if counted.parts() is None:
                raise CodecError("the bulk does not hash as the envelope says")
            body = codec.decode(CommitBody, counted.body)
            for event in map(unpack_event, body.events):
                kind = codec.kind(event.schema)
                if kind is WriterRotated:
                    self._chain.writer = codec.decode(WriterRotated, event.payload).writer
                elif kind is LogBound:
                    found.bound = codec.decode(LogBound, event.payload).topics
                elif kind is CheckpointMade:
                    found.epochs = codec.decode(CheckpointMade, event.payload).epoch
        except CodecError as error:
            self.fail(str(error), name="corrupt", at=counted.offset, height=height)
            return
        found.height = height
        found.hashes += counted.hash
        for run in body.runs:
            before = self.consumed.get((run.topic, run.partition))
            # A run that saw only noise names no commit; the one before it still does.
            named = run if run.height >= 0 or before is None else before
            self.consumed[run.topic, run.partition] = Claim(
                by=f"{self._topic}[{found.shard}] height {height}",
                topic=run.topic,
                partition=run.partition,
                next_offset=run.next,
                height=named.height,
                hash=bytes(named.hash),
            )
        if found.ledger is Ledger.METERING:
            own = self.consumed.get((TELEMETRY_TOPIC, found.shard))
            found.times.append(body.time_us)
            found.telemetry.append(0 if own is None else own.next_offset)
