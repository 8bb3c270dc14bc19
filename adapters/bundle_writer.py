"""Writes a ledger from any log into one file, in one pass, with a few MiB of memory a partition.

What a commit has read must be in the bundle too, and a live log grows while it is copied. So the
ledgers are walked together: each commit says how far it has read its inputs and the other ledgers,
and these are taken at least that far. Commits name what was there before them, so this ends.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from adapters.bundle_log import FORMAT, L1_FACTS, MANIFEST, RECORD
from domain.account import ClaimSettled, DepositCredited
from domain.checkpoint import CheckpointMade
from domain.codec import Codec, CodecError
from domain.commit import LEDGER_TOPICS, CommitBody, Ledger, body_of, parse, unpack_event
from domain.commit_bodies import commit_bodies
from domain.epoch import EpochAnchored
from domain.ports import Log, LogError, LogRecord

PART_BYTES: Final = 2 * 1024 * 1024
READ_BYTES: Final = 4 * 1024 * 1024
#: Signed telemetry hardly gets smaller by trying harder, and four times slower.
_DEFLATE_LEVEL: Final = 1

Place = tuple[str, int]
Take = Callable[[Place, LogRecord], None]
#: What the L1 says of these accounts, and of the block before this one: the bytes of ``l1.json``.
AskL1 = Callable[[Collection[bytes], int], bytes]
_LEDGER_OF: Final = {topic: ledger for ledger, topic in LEDGER_TOPICS.items()}


class NoSuchEpoch(LogError):
    """An epoch without a checkpoint on this log."""


@dataclass(slots=True)
class _Filling:
    """A partition on its way into the file."""

    start: int
    next: int
    parts: list[dict[str, Any]] = field(default_factory=list)
    part_first: int = 0
    waiting: bytearray = field(default_factory=bytearray)
    records: int = 0


@dataclass(frozen=True, slots=True)
class Exported:
    """What stands in a bundle."""

    records: int
    bytes: int
    parts: int


class BundleWriter:
    """One bundle in the making; it has its name only when it is whole."""

    def __init__(self, path: Path) -> None:
        """Begin a file. Raises ``LogError`` where there is one already."""
        if path.exists():
            raise LogError(f"{path} exists already; a bundle is never written over.")
        self._path = path
        self._draft = path.with_name(f".{path.name}.part")
        self._archive = zipfile.ZipFile(
            self._draft, "w", zipfile.ZIP_DEFLATED, compresslevel=_DEFLATE_LEVEL
        )
        self._filling: dict[Place, _Filling] = {}
        self.records = self.bytes = self.parts = 0

    def begin(self, place: Place, start: int) -> None:
        """A partition of which the records from ``start`` on will come."""
        self._filling[place] = _Filling(start, start, part_first=start)

    def take(self, place: Place, record: LogRecord) -> None:
        """The next record of a partition."""
        filling = self._filling[place]
        if filling.waiting and len(filling.waiting) + len(record.value) > PART_BYTES:
            self._close_part(place, filling)
        filling.waiting += RECORD.pack(record.offset, record.time_us, len(record.value))
        filling.waiting += record.value
        filling.records += 1
        filling.next = record.offset + 1
        self.records += 1
        self.bytes += len(record.value)

    def ended(self, place: Place, end: int) -> None:
        """Offsets before ``end`` without a record are legal."""
        filling = self._filling[place]
        filling.next = end
        self._close_part(place, filling)

    def _close_part(self, place: Place, filling: _Filling) -> None:
        if filling.next == filling.part_first:
            return
        data = bytes(filling.waiting)
        name = f"{place[0]}/{place[1]}/{filling.part_first:016}"
        self._write(name, data)
        filling.parts.append(
            {
                "name": name,
                "first": filling.part_first,
                "next": filling.next,
                "records": filling.records,
                "bytes": len(data),
                "sha256": hashlib.sha256(data).hexdigest(),
            }
        )
        self.parts += 1
        filling.part_first, filling.records = filling.next, 0
        filling.waiting.clear()

    def _write(self, name: str, data: bytes) -> None:
        # With a fixed date the same records give the same file.
        entry = zipfile.ZipInfo(name)
        entry.compress_type = zipfile.ZIP_DEFLATED
        self._archive.writestr(entry, data, compresslevel=_DEFLATE_LEVEL)

    def finish(self, about: Mapping[str, Any], ids: Mapping[str, bytes], l1: bytes | None) -> None:
        """Write the manifest; from here on the file is there."""
        topics = []
        for topic, id in sorted(ids.items()):
            partitions = sorted(place for place in self._filling if place[0] == topic)
            filled = [self._filling[place] for place in partitions]
            topics.append(
                {
                    "topic": topic,
                    "id": id.hex(),
                    "partitions": [
                        {"start": each.start, "end": each.next, "parts": each.parts}
                        for each in filled
                    ],
                }
            )
        if l1 is not None:
            self._write(L1_FACTS, l1)
        manifest = {
            "format": FORMAT,
            **about,
            "l1": "" if l1 is None else hashlib.sha256(l1).hexdigest(),
            "topics": topics,
        }
        self._write(MANIFEST, json.dumps(manifest, indent=1).encode())
        self._archive.close()
        self._draft.replace(self._path)

    def abandon(self) -> None:
        """Leave nothing behind."""
        self._archive.close()
        self._draft.unlink(missing_ok=True)


class _Walk:
    """Ledgers read together, each as far as it is wanted, with what their commits have read."""

    def __init__(self, log: Log, codec: Codec, genesis: bytes, at: dict[Place, int]) -> None:
        self._log = log
        self._codec = codec
        self._genesis = genesis
        self._seen = {codec.number(k): k for k in (DepositCredited, ClaimSettled, EpochAnchored)}
        self.at = at
        self.wanted: dict[Place, int] = {}
        #: What the market has taken from the L1: the claimants, and the last block.
        self.claimants: set[bytes] = set()
        self.observed_block = -1

    def want(self, place: Place, offset: int) -> None:
        """Take a partition up to an offset, or to its end where a forged record claims more."""
        if place in self.at and offset > self.wanted.get(place, 0):
            self.wanted[place] = min(offset, self._log.end(*place))

    def go(self, take: Take) -> None:
        """Read until nothing that is wanted is missing."""
        while short := [p for p, wanted in self.wanted.items() if self.at[p] < wanted]:
            # Ledgers first: they say how far the inputs are wanted.
            short.sort(key=lambda place: (place[0] not in _LEDGER_OF, place))
            self._read(short[0], take)

    def _read(self, place: Place, take: Take) -> None:
        fetched = self._log.read(*place, self.at[place], max_bytes=READ_BYTES)
        wanted = self.wanted[place]
        ledger = _LEDGER_OF.get(place[0])
        for record in fetched.records:
            if record.offset >= wanted:
                break
            take(place, record)
            if ledger is not None:
                self._follow(record, ledger)
        self.at[place] = (
            wanted if fetched.next_offset == self.at[place] else min(fetched.next_offset, wanted)
        )

    def _follow(self, record: LogRecord, ledger: Ledger) -> None:
        """Want what a commit has read; a record that is none wants nothing."""
        envelope = parse(record.value)
        if envelope is None or (envelope.genesis, envelope.ledger) != (self._genesis, ledger):
            return
        try:
            body = self._codec.decode(CommitBody, body_of(record.value, envelope))
        except CodecError:
            return
        for run in body.runs:
            within = run.items_done >= 0
            self.want((run.topic, run.partition), run.next + within)
        if ledger is Ledger.MARKET:
            for recorded in map(unpack_event, body.events):
                if (kind := self._seen.get(recorded.schema)) is not None:
                    self._observed(self._codec.decode(kind, recorded.payload))

    def _observed(self, event: object) -> None:
        if isinstance(event, ClaimSettled):
            self.claimants.add(event.account)
        elif isinstance(event, DepositCredited | EpochAnchored):
            self.observed_block = max(self.observed_block, event.block)


def _drop(place: Place, record: LogRecord) -> None:
    """Of what comes before the first wanted epoch only the positions are needed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """The epochs of a bundle; 0 leaves an end open."""

    after: int = 0
    to: int = 0


def export(
    log: Log,
    path: Path,
    *,
    codec: Codec,
    genesis: bytes,
    topics: Mapping[str, int],
    shards: int,
    epochs: Range = Range(),
    ask_l1: AskL1 | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Exported:
    """Write what ``epochs`` take to derive; ``progress`` hears of records and bytes.

    With ``epochs.to`` the bundle ends where settlement made that epoch's checkpoint, with all that
    this follows from; with ``epochs.after`` it begins where the bundle to that epoch ends.
    """
    places = [(topic, p) for topic, count in sorted(topics.items()) for p in range(count)]
    walk = _Walk(log, codec, genesis, {place: log.start(*place) for place in places})
    settlement = (LEDGER_TOPICS[Ledger.SETTLEMENT], 0)
    if epochs.after:
        walk.want(settlement, _end_of_epoch(log, codec, epochs.after))
        walk.go(_drop)
    writer = BundleWriter(path)
    try:
        for place in places:
            writer.begin(place, walk.at[place])

        def take(place: Place, record: LogRecord) -> None:
            writer.take(place, record)
            if progress is not None:
                progress(writer.records, writer.bytes)

        if epochs.to:
            walk.want(settlement, _end_of_epoch(log, codec, epochs.to))
        else:
            # Settlement last: the market may have seen anchored what settlement made before.
            for place in sorted(places, key=lambda place: place == settlement):
                walk.want(place, log.end(*place))
        walk.go(take)
        for place in places:
            writer.ended(place, walk.at[place])
        writer.finish(
            {"genesis": genesis.hex(), "shards": shards, "to_epoch": epochs.to},
            {topic: log.topic_id(topic) for topic in topics},
            None if ask_l1 is None else ask_l1(walk.claimants, walk.observed_block),
        )
    except BaseException:
        writer.abandon()
        raise
    return Exported(writer.records, writer.bytes, writer.parts)


def _end_of_epoch(log: Log, codec: Codec, epoch: int) -> int:
    """The offset after the commit that made an epoch's checkpoint."""
    place = (LEDGER_TOPICS[Ledger.SETTLEMENT], 0)
    number = codec.number(CheckpointMade)
    for record, body in commit_bodies(log, codec, *place, log.start(*place)):
        for event in map(unpack_event, body.events):
            if event.schema == number:
                made = codec.decode(CheckpointMade, event.payload)
                if made.epoch == epoch:
                    return record.offset + 1
    raise NoSuchEpoch(f"There is no checkpoint of epoch {epoch} on this log yet.")
