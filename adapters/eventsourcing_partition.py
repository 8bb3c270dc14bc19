"""One ledger on one partition of a log: makes its commits, and reads them by the reader rule.

Everything the recorder needs beside the library's interface, and all that a processor or an
auditor needs without it. What a commit *is* is decided in ``domain.commit`` and ``domain.chain``;
here are the steps: seal, sign, append, and where anything but the expected offset comes back, read
and see who won.
"""

from __future__ import annotations

import hashlib
import struct
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from adapters.eventsourcing_index import (
    Depth,
    Head,
    IndexedCommit,
    LedgerIndex,
    Understood,
    VersionTwice,
)
from adapters.eventsourcing_writer import Signer, WritingKeys
from domain.chain import NOISE_HEIGHTS, ChainReader, Counted, LedgerStopped
from domain.codec import Codec, CodecError
from domain.commit import (
    COMMIT_BYTES_MAX,
    EVENT_BYTES_MAX,
    NO_HASH,
    CommitBody,
    CommitHeader,
    Ledger,
    RecordedEvent,
    body_of,
    pack_bulk,
    parse,
    seal,
    unpack_event,
)
from domain.ids import Hash32, PublicKey, length_prefixed
from domain.ledger import WriterRotated
from domain.merkle import MerkleTree
from domain.ports import AppendUnknown, Fetched, Log, LogRecord, LogTruncated
from domain.signed import Verifier

#: An input run with this prefix is the tracking of another application's notifications.
TRACKING_PREFIX: Final = "eventsourcing:"

READ_BYTES: Final = 8 * 1024 * 1024
_SETTLE_S: Final = 10.0
_REREAD_S: Final = 1.0
_BODIES_KEPT: Final = 16


class LostRace(Exception):
    """Another record counted at the height this commit was made for. The index has it."""


class TooLarge(Exception):
    """An event or a commit above the sizes that every reader can rely on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerIdentity:
    """Which ledger, where it stands, and the key that its genesis lets write it."""

    genesis: bytes
    ledger: Ledger
    shard: int
    writer: PublicKey
    topic: str
    partition: int

    def digest(self) -> bytes:
        """Names the ledger to an index: one of another ledger is never taken for this one's."""
        return hashlib.sha256(
            length_prefixed(
                self.genesis,
                bytes([self.ledger]),
                self.shard.to_bytes(2, "big"),
                self.writer,
                self.topic.encode(),
                self.partition.to_bytes(4, "big"),
            )
        ).digest()


class LedgerPartition:
    """A ledger's commits. Reads only, until the first ``append``.

    Methods take turns on ``lock``, so any thread may call them if the log can be used from any
    thread (``OwnThreadLog`` can); ``LogError`` of the log passes through.
    """

    def __init__(
        self,
        *,
        log: Log,
        identity: LedgerIdentity,
        codec: Codec,
        verify: Verifier,
        index: LedgerIndex,
        signer: Signer | None = None,
        successors: Sequence[Signer] = (),
    ) -> None:
        """Use the log, index and keys; nothing is read before the first call.

        ``signer`` writes, or that of the ``successors`` which a rotation has made the writer.
        """
        self.identity = identity
        self.index = index
        self.lock = threading.RLock()
        self._log = log
        self._codec = codec
        self._verify = verify
        self._keys = WritingKeys(identity.ledger, identity.shard, signer, successors)
        self._rotation = codec.number(WriterRotated)
        #: Length of all commits that this object has appended.
        self.written_bytes = 0
        self._started = False
        self._caught_up = False
        self._stopped: LedgerStopped | None = None
        self._chain = self._new_chain()
        self._head = _before_genesis(identity.writer)
        self._tree = MerkleTree()
        self._bodies: OrderedDict[int, tuple[bytes, ...]] = OrderedDict()

    @property
    def noise_count(self) -> int:
        """Records that did not count, since this reader began."""
        return self._chain.noise_count

    def close(self) -> None:
        """Close index and log."""
        with self.lock:
            self.index.close()
            self._log.close()

    # Where it stands

    def head(self) -> Head:
        """Where this object has read to; ``catch_up`` first to see what others appended."""
        with self.lock:
            self._start()
            return self._head

    def catch_up(self) -> Head:
        """Read what the log has now and is not indexed yet. Raises ``LedgerStopped``."""
        with self.lock:
            self._start()
            while True:
                fetched = self._read(self._head.next_offset)
                if fetched.next_offset == self._head.next_offset:
                    self._caught_up = True
                    return self._head
                self._fold(fetched)

    @property
    def caught_up(self) -> bool:
        """Whether this object has ever read to the end."""
        return self._caught_up

    def rebuild(self) -> Head:
        """Drop the index and build it from the first record."""
        with self.lock:
            self.index.clear()
            self._started = False
            self._stopped = None
            self._bodies.clear()
            return self.catch_up()

    # Snapshots

    def standing(self) -> dict[str, Any]:
        """Where it stands, as plain values: what ``stand`` takes, in this process or another."""
        with self.lock:
            head = self.head()
            return {name: getattr(head, name) for name in Head.__dataclass_fields__} | {
                "noise": self._chain.noise()
            }

    def stand(self, at: Mapping[str, Any]) -> bool:
        """Whether the ledger has the commit at which somebody stood; catches up.

        An index that holds commits only need not begin at the first: where it is empty it begins
        here, so that a worker new to a shard reads nothing that its snapshot has already.
        """
        noise = dict(at["noise"])
        head = Head(**{name: at[name] for name in Head.__dataclass_fields__})
        with self.lock:
            self._start()
            if self._head.height < 0 and self.depth is Depth.COMMITS and self._has(head):
                self.index.apply([], head, noise)
                self._started = False
            self.catch_up()
            if self._head.height == head.height:
                return self._head.hash == head.hash
            known = self.index.commit_at(head.height)
            later = self.index.commit_at(head.height + 1)
            if known is not None:
                return known.hash == head.hash
            # An index that begins here holds what came later, whose chain it has checked.
            return later is not None and self._follows(later, head)

    def _has(self, head: Head) -> bool:
        if self._log.end(self.identity.topic, self.identity.partition) <= head.offset:
            return False
        record = self._record_at(head.offset)
        envelope = None if record is None else parse(record.value)
        return envelope is not None and envelope.hash() == head.hash

    def _follows(self, later: IndexedCommit, head: Head) -> bool:
        record = self._record_at(later.offset)
        envelope = None if record is None else parse(record.value)
        return envelope is not None and envelope.previous == head.hash

    def whole(self) -> None:
        """Let the index begin at the first commit, and catch up."""
        with self.lock:
            if self.catch_up().height >= 0 and self.index.commit_at(0) is None:
                self.rebuild()

    def _new_chain(self) -> ChainReader:
        at = self.identity
        return ChainReader(
            genesis=at.genesis,
            ledger=at.ledger,
            shard=at.shard,
            writer=at.writer,
            verify=self._verify,
        )

    def _start(self) -> None:
        """Resume from the index, once it is certain that the log still has what it says."""
        if self._stopped is not None:
            raise self._stopped
        if self._started:
            return
        self._chain = self._new_chain()
        head = self.index.head()
        if head is None:
            first = self._log.start(self.identity.topic, self.identity.partition)
            if first > 0:
                why = f"the log starts at offset {first}, not at its first"
                self._stop("truncated", 0, why, height=0)
            head = _before_genesis(self.identity.writer)
        self._chain.resume(head.height, head.hash, self.index.noise())
        self._chain.writer = PublicKey(head.writer)
        if head.height >= 0:
            self._cross_check(head)
        self._tree = MerkleTree(head.size, head.edge)
        self._head = head
        self._started = True

    def _cross_check(self, head: Head) -> None:
        record = self._record_at(head.offset)
        envelope = None if record is None else parse(record.value)
        if envelope is None or envelope.hash() != head.hash:
            self._stop(
                "truncated",
                head.offset,
                "the log has not the commit that was indexed",
                height=head.height,
            )

    def _stop(self, name: str, offset: int, why: str, height: int | None = None) -> NoReturn:
        at = self.identity
        height = self._chain.height if height is None else height
        self._stopped = LedgerStopped(name, at.ledger, at.shard, offset, why, height=height)
        raise self._stopped

    # Reading the log

    def _read(self, offset: int, *, max_bytes: int = READ_BYTES, wait_s: float = 0.0) -> Fetched:
        at = self.identity
        try:
            return self._log.read(
                at.topic, at.partition, offset, max_bytes=max_bytes, wait_s=wait_s
            )
        except LogTruncated as error:
            self._stop("truncated", offset, str(error))

    def _record_at(self, offset: int) -> LogRecord | None:
        """The record at an offset that was read before; a replica may show it only in a moment."""
        deadline = time.monotonic() + _REREAD_S
        while True:
            records = self._read(offset, max_bytes=1, wait_s=0.1).records
            if records or time.monotonic() > deadline:
                return records[0] if records and records[0].offset == offset else None

    def _fold(self, fetched: Fetched) -> None:
        """Judge records and index those that count, up to the first that stops every reader."""
        understood: list[Understood] = []
        position = self._head.next_offset
        head = self._head
        try:
            for record in fetched.records:
                verdict = self._chain.judge(record)
                if isinstance(verdict, Counted):
                    each, head = self._understand(verdict, head)
                    understood.append(each)
                position = record.offset + 1
            position = fetched.next_offset
        except LedgerStopped as stopped:
            self._stopped = stopped
            raise
        finally:
            self._store(understood, head, position)

    def _understand(self, counted: Counted, before: Head) -> tuple[Understood, Head]:
        """What the index takes from a commit, and the head after it."""
        try:
            body = self._codec.decode(CommitBody, counted.body)
            events = [unpack_event(data) for data in body.events]
            writer = self._writer_after(events, before.writer)
        except (CodecError, struct.error) as error:
            self._stop("corrupt", counted.offset, f"the body cannot be read: {error}")
        tree = self._tree.copy()
        tree.extend(body.events)
        if tree.size != body.tree_size or tree.root() != body.tree_root:
            self._stop("corrupt", counted.offset, "the Merkle root is not that of the events")
        self._tree = tree
        commit = IndexedCommit(
            counted.envelope.height,
            counted.offset,
            counted.hash,
            body.time_us,
            before.size + 1,
            len(events),
        )
        return self._taken(commit, events, body, writer)

    def _writer_after(self, events: Sequence[RecordedEvent], writer: bytes) -> bytes:
        """The key that writes from the next height on."""
        for event in events:
            if event.schema == self._rotation:
                writer = self._codec.decode(WriterRotated, event.payload).writer
        return writer

    def _taken(
        self,
        commit: IndexedCommit,
        events: Sequence[RecordedEvent],
        body: CommitBody,
        writer: bytes,
    ) -> tuple[Understood, Head]:
        self._chain.writer = PublicKey(writer)
        tracking = [
            (run.topic.removeprefix(TRACKING_PREFIX), run.next - 1)
            for run in body.runs
            if run.topic.startswith(TRACKING_PREFIX)
        ]
        head = Head(
            height=commit.height,
            hash=commit.hash,
            offset=commit.offset,
            next_offset=commit.offset + 1,
            time_us=commit.time_us,
            size=self._tree.size,
            edge=self._tree.edge(),
            writer=writer,
        )
        return Understood(commit, events, tracking), head

    def _store(self, understood: Sequence[Understood], head: Head, next_offset: int) -> None:
        if next_offset == self._head.next_offset:
            return
        if head.next_offset != next_offset:
            head = _moved(head, next_offset)
        # Until the index has it, what this object knows is ahead of what it can answer.
        self._started = False
        try:
            self.index.apply(understood, head, self._chain.noise())
        except (VersionTwice, ValueError) as error:
            self._stop("corrupt", head.offset, str(error))
        self._head = head
        self._started = True

    # Appending

    def append(
        self, header: CommitHeader, events: Sequence[RecordedEvent], *, height: int | None = None
    ) -> IndexedCommit:
        """Make one commit of the header and the events in order, and return it once it counts.

        The commit stands on the head as this object knows it: nothing is read before, since the
        caller decided from that head. ``height`` is the one that it decided for, where other
        threads may have caught up meanwhile.

        Raises ``LostRace`` when another record took the height, ``TooLarge`` and ``NotTheWriter``
        before anything is written, ``AppendUnknown`` when the record is not on the log now but may
        still arrive. After any of them but ``TooLarge`` the caller decides anew from the head.
        """
        with self.lock:
            self._start()
            if height is not None and height != self._head.height + 1:
                raise LostRace(f"another commit counts at height {height}")
            return self._append(header, events)

    def may_write(self) -> None:
        """Raises ``NotTheWriter`` where none of the keys writes the next height."""
        with self.lock:
            self._start()
            self._writing_key()

    def _writing_key(self) -> Signer:
        return self._keys.of(self._chain.writer, self._head.height + 1)

    def _append(self, header: CommitHeader, events: Sequence[RecordedEvent]) -> IndexedCommit:
        signer = self._writing_key()
        before = self._head
        leaves = [event.pack() for event in events]
        for leaf in leaves:
            if len(leaf) > EVENT_BYTES_MAX:
                raise TooLarge(f"an event of {len(leaf)} bytes; at most {EVENT_BYTES_MAX} are read")
        tree = self._tree.copy()
        tree.extend(leaves)
        body = CommitBody(
            time_us=header.time_us,
            runs=header.runs,
            rules_version=header.rules_version,
            refused=header.refused,
            events=tuple(leaves),
            tree_root=Hash32(tree.root()),
            tree_size=tree.size,
        )
        encoded = self._codec.encode(body)
        unsigned = seal(
            genesis=self.identity.genesis,
            ledger=self.identity.ledger,
            shard=self.identity.shard,
            height=before.height + 1,
            previous=before.hash,
            writer=signer.public,
            body=encoded,
            bulk=header.bulk,
        ).unsigned()
        envelope = unsigned + signer.sign(unsigned)
        value = b"".join((envelope, encoded, pack_bulk(header.bulk)))
        if len(value) > COMMIT_BYTES_MAX:
            raise TooLarge(f"a commit of {len(value)} bytes; at most {COMMIT_BYTES_MAX} are read")
        digest = hashlib.sha256(envelope).digest()
        try:
            offset = self._log.append(self.identity.topic, self.identity.partition, value)
        except AppendUnknown:
            self.catch_up()
            if self._head.height == before.height:
                raise
            return self._won(before.height + 1, digest)
        self.written_bytes += len(value)
        if offset != before.next_offset:
            self._read_to(offset)
            return self._won(before.height + 1, digest)
        return self._counted(
            IndexedCommit(
                before.height + 1, offset, digest, header.time_us, before.size + 1, len(events)
            ),
            events,
            body,
            tree,
        )

    def _counted(
        self,
        commit: IndexedCommit,
        events: Sequence[RecordedEvent],
        body: CommitBody,
        tree: MerkleTree,
    ) -> IndexedCommit:
        """Index our own commit unread: at the next offset after the head nothing was before it."""
        low = commit.height - NOISE_HEIGHTS
        noise = {digest: at for digest, at in self._chain.noise().items() if at >= low}
        self._chain.resume(commit.height, commit.hash, noise)
        self._tree = tree
        writer = self._writer_after(events, self._head.writer)
        understood, head = self._taken(commit, events, body, writer)
        self._store([understood], head, head.next_offset)
        return commit

    def _won(self, height: int, digest: bytes) -> IndexedCommit:
        found = self.index.commit_at(height)
        if found is None or found.hash != digest:
            raise LostRace(f"another commit counts at height {height}")
        return found

    def _read_to(self, offset: int) -> None:
        """Read on until the record at an offset is judged; its append was acknowledged."""
        if offset < self._head.next_offset:
            self._stop("truncated", offset, "an append got an offset that was read before")
        deadline = time.monotonic() + _SETTLE_S
        while self._head.next_offset <= offset:
            fetched = self._read(self._head.next_offset, wait_s=0.1)
            if fetched.next_offset > self._head.next_offset:
                self._fold(fetched)
            elif time.monotonic() > deadline:
                raise AppendUnknown(f"the record acknowledged at offset {offset} cannot be read")

    # Commits, for processors and auditors

    def commit_at(self, height: int) -> Counted | None:
        """The counting record of a height, read from the log, or None beyond the head."""
        self.head()
        known = self.index.commit_at(height)
        if known is None:
            return None
        with self.lock:
            record = self._record_at(known.offset)
        return self._known(record, known)

    def offset_of(self, height: int) -> int | None:
        """The offset of the counting record of a height, or None beyond the head."""
        known = self.index.commit_at(height)
        return None if known is None else known.offset

    def commits(self, from_height: int = 0) -> Iterator[Counted]:
        """Counting records in order up to where the index stands when it gets there."""
        self.head()
        known = self.index.commit_at(from_height)
        while known is not None:
            records: Sequence[LogRecord | None]
            with self.lock:
                records = self._read(known.offset).records or [self._record_at(known.offset)]
            for record in records:
                if known is None:
                    return
                if record is None or record.offset >= known.offset:
                    yield self._known(record, known)
                    known = self.index.commit_at(known.height + 1)

    def _known(self, record: LogRecord | None, known: IndexedCommit) -> Counted:
        """A record that counted before; it must still be the same one."""
        envelope = None if record is None else parse(record.value)
        if record is None or envelope is None or envelope.hash() != known.hash:
            self._stop(
                "truncated",
                known.offset,
                "the log has not the commit that was indexed",
                height=known.height,
            )
        return Counted(
            record.offset,
            record.time_us,
            envelope,
            known.hash,
            body_of(record.value, envelope),
            record.value,
        )

    def recorded(self, notification_id: int) -> RecordedEvent | None:
        """An event by its notification id, read from the log, or None beyond the head."""
        commit = self.index.commit_of(notification_id)
        if commit is None:
            return None
        return unpack_event(self.leaves(commit)[notification_id - commit.first])

    def leaves(self, commit: IndexedCommit) -> tuple[bytes, ...]:
        """The recorded events of a commit, read from the log; the last few are kept."""
        with self.lock:
            kept = self._bodies.get(commit.height)
            if kept is None:
                counted = self._known(self._record_at(commit.offset), commit)
                kept = self._codec.decode(CommitBody, counted.body).events
                self._bodies[commit.height] = kept
                if len(self._bodies) > _BODIES_KEPT:
                    self._bodies.popitem(last=False)
            return kept

    @property
    def depth(self) -> Depth:
        """How much of each event the index holds."""
        return self.index.depth


def _before_genesis(writer: bytes) -> Head:
    return Head(
        height=-1, hash=NO_HASH, offset=-1, next_offset=0, time_us=0, size=0, edge=(), writer=writer
    )


def _moved(head: Head, next_offset: int) -> Head:
    return Head(
        height=head.height,
        hash=head.hash,
        offset=head.offset,
        next_offset=next_offset,
        time_us=head.time_us,
        size=head.size,
        edge=head.edge,
        writer=head.writer,
    )
