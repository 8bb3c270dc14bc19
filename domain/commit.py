"""A commit is one record: envelope, body, bulk (design 2).

The envelope's format never changes. It is fixed binary, big-endian::

    magic        8   b"SYNORL2\\x01"
    genesis     32   SHA-256 of the genesis document
    ledger       1   1 market, 2 metering, 3 settlement
    shard        2
    height       8
    previous    32   hash of the previous commit; zero at height 0
    writer      32   Ed25519 public key
    version      2   version of the body's format
    body length  4,  body SHA-256 32
    bulk length  4,  bulk hash 32
    signature   64   Ed25519 over everything before it

The hash of a commit is the SHA-256 of its whole envelope, signature included; body and bulk are
covered through their hashes. The bulk is a list of inputs as received, each behind its length
(4 bytes); its hash is the SHA-256 over the SHA-256 of each, in order. So an input is hashed once,
and the run that read it, the event that took it and the bulk that keeps it all cite that digest.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, Final

from domain.ids import Hash32
from domain.ports import LogRecord
from domain.record import record

MAGIC: Final = b"SYNORL2\x01"
BODY_VERSION: Final = 1
NO_HASH: Final = bytes(32)
COMMIT_BYTES_MAX: Final = 4 * 1024 * 1024
EVENT_BYTES_MAX: Final = 512 * 1024

_HEAD: Final = struct.Struct(">8s32sBHQ32s32sHI32sI32s")
SIGNATURE_BYTES: Final = 64
ENVELOPE_BYTES: Final = _HEAD.size + SIGNATURE_BYTES
_EVENT: Final = struct.Struct(">16sQI")
_LENGTH: Final = struct.Struct(">I")


class Ledger(IntEnum):
    """The three ledgers; the number stands in the envelope."""

    MARKET = 1
    METERING = 2
    SETTLEMENT = 3


#: Topic of each ledger and of the two inputs.
LEDGER_TOPICS: Final = {
    Ledger.MARKET: "synor.ledger.market.v1",
    Ledger.METERING: "synor.ledger.metering.v1",
    Ledger.SETTLEMENT: "synor.ledger.settlement.v1",
}
COMMANDS_TOPIC: Final = "synor.commands.v1"
TELEMETRY_TOPIC: Final = "synor.telemetry.v1"
#: Derived from the ledgers, for consumers that know none of this: no ledger reads it.
EVENTS_TOPIC: Final = "synor.events.v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """The parsed envelope; ``hash`` names the commit."""

    genesis: bytes
    ledger: Ledger
    shard: int
    height: int
    previous: bytes
    writer: bytes
    version: int
    body_length: int
    body_hash: bytes
    bulk_length: int
    bulk_hash: bytes
    signature: bytes

    def unsigned(self) -> bytes:
        """The bytes that the writer signs."""
        return _HEAD.pack(
            MAGIC,
            self.genesis,
            self.ledger,
            self.shard,
            self.height,
            self.previous,
            self.writer,
            self.version,
            self.body_length,
            self.body_hash,
            self.bulk_length,
            self.bulk_hash,
        )

    def hash(self) -> bytes:
        """What the next commit cites."""
        return hashlib.sha256(self.unsigned() + self.signature).digest()


def parse(value: bytes) -> Envelope | None:
    """The envelope of a record, or None where the record is not a commit at all."""
    if len(value) < ENVELOPE_BYTES:
        return None
    (
        magic,
        genesis,
        ledger,
        shard,
        height,
        previous,
        writer,
        version,
        body_length,
        body_hash,
        bulk_length,
        bulk_hash,
    ) = _HEAD.unpack_from(value)
    if magic != MAGIC or ledger not in (1, 2, 3):
        return None
    if len(value) != ENVELOPE_BYTES + body_length + bulk_length:
        return None
    return Envelope(
        genesis=genesis,
        ledger=Ledger(ledger),
        shard=shard,
        height=height,
        previous=previous,
        writer=writer,
        version=version,
        body_length=body_length,
        body_hash=body_hash,
        bulk_length=bulk_length,
        bulk_hash=bulk_hash,
        signature=value[_HEAD.size : ENVELOPE_BYTES],
    )


def body_of(value: bytes, envelope: Envelope) -> bytes:
    """The body's bytes of a record that ``parse`` accepted."""
    return value[ENVELOPE_BYTES : ENVELOPE_BYTES + envelope.body_length]


def bulk_of(value: bytes, envelope: Envelope) -> bytes:
    """The bulk's bytes of a record that ``parse`` accepted."""
    return value[ENVELOPE_BYTES + envelope.body_length :]


@dataclass(frozen=True, slots=True)
class BulkPart:
    """An input that is kept in the bulk, as received, and its SHA-256."""

    data: bytes
    digest: bytes


def part_of(data: bytes) -> BulkPart:
    """The part for bytes whose digest nobody has computed yet."""
    return BulkPart(data, hashlib.sha256(data).digest())


def pack_bulk(parts: Sequence[BulkPart]) -> bytes:
    """The bytes of a bulk of these parts."""
    pieces: list[bytes] = []
    for part in parts:
        pieces += (_LENGTH.pack(len(part.data)), part.data)
    return b"".join(pieces)


def bulk_hash(digests: Iterable[bytes]) -> bytes:
    """The hash of a bulk whose parts have these digests."""
    return hashlib.sha256(b"".join(digests)).digest()


def split_bulk(value: bytes, at: int = 0) -> tuple[BulkPart, ...] | None:
    """The parts of a bulk that begins at an offset, or None where it is no list of parts."""
    parts: list[BulkPart] = []
    end = len(value)
    while at < end:
        start = at + _LENGTH.size
        if start > end:
            return None
        at = start + _LENGTH.unpack_from(value, at)[0]
        if at > end:
            return None
        parts.append(part_of(value[start:at]))
    return tuple(parts)


@record("synor.ledger.v1.InputRun")
class InputRun:
    """Records of one partition that a commit consumed, in the order applied.

    The digest is SHA-256 over, per record as read: offset (8 bytes), append time in µs (8),
    length of the value (4), all big-endian, and the SHA-256 of the value.
    """

    topic: Annotated[str, "topic that was read"]
    partition: Annotated[int, "partition that was read"]
    first: Annotated[int, "offset from which was read"]
    next: Annotated[int, "offset to read from next"]
    count: Annotated[int, "records within [first, next); offsets without a record are legal"]
    digest: Annotated[Hash32, "SHA-256 over the records as read"]
    height: Annotated[int, "of a ledger: height of its last counting commit; else -1"] = -1
    hash: Annotated[Hash32, "of a ledger: hash of that commit; else zero"] = Hash32(NO_HASH)
    items_done: Annotated[int, "-1, or items done of the record at `next`, which goes on"] = -1
    time_us: Annotated[int, "effective time after its last item, µs UTC"] = 0
    events: Annotated[int, "events of the commit up to its end: those of its own come last"] = 0


@record("synor.ledger.v1.GateCount")
class GateCount:
    """Records refused up to the signature check: counted, no event, no number touched."""

    code: Annotated[int, "number of the refusal"]
    count: Annotated[int, "how many records"]
    digest: Annotated[Hash32, "SHA-256 over their offsets (8 bytes each) in order"]


@record("synor.ledger.v1.CommitBody")
class CommitBody:
    """The body of a commit, version 1."""

    time_us: Annotated[int, "effective time after the last input, µs UTC"]
    runs: Annotated[tuple[InputRun, ...], "inputs in the order applied"]
    rules_version: Annotated[int, "version of the rules that decided"]
    refused: Annotated[tuple[GateCount, ...], "garbage of the gate, by code"]
    events: Annotated[tuple[bytes, ...], "recorded events: aggregate 16, version 8, schema 4, Avro"]
    tree_root: Annotated[Hash32, "RFC 6962 root over all recorded events of the ledger so far"]
    tree_size: Annotated[int, "number of leaves of that tree"]


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """An event as recorded; its bytes are the Merkle leaf."""

    aggregate: bytes
    version: int
    schema: int
    payload: bytes

    def pack(self) -> bytes:
        """The bytes of the leaf."""
        return _EVENT.pack(self.aggregate, self.version, self.schema) + self.payload


def unpack_event(data: bytes) -> RecordedEvent:
    """The recorded event of a leaf's bytes; raises ``struct.error`` where they are too short."""
    aggregate, version, schema = _EVENT.unpack_from(data)
    return RecordedEvent(aggregate, version, schema, data[_EVENT.size :])


class RunDigest:
    """Builds the digest of an input run record by record."""

    __slots__ = ("_sha",)
    _RECORD = struct.Struct(">QQI32s")

    def __init__(self) -> None:
        """Start with no record."""
        self._sha = hashlib.sha256()

    def add(self, record: LogRecord) -> None:
        """Add one record as read."""
        self._sha.update(
            self._RECORD.pack(record.offset, record.time_us, len(record.value), record.digest())
        )

    def digest(self) -> Hash32:
        """The digest so far."""
        return Hash32(self._sha.digest())


def seal(
    *,
    genesis: bytes,
    ledger: Ledger,
    shard: int,
    height: int,
    previous: bytes,
    writer: bytes,
    body: bytes,
    bulk: Sequence[BulkPart] = (),
) -> Envelope:
    """The envelope of a new commit, its signature still empty."""
    return Envelope(
        genesis=genesis,
        ledger=ledger,
        shard=shard,
        height=height,
        previous=previous,
        writer=writer,
        version=BODY_VERSION,
        body_length=len(body),
        body_hash=hashlib.sha256(body).digest(),
        bulk_length=sum(_LENGTH.size + len(part.data) for part in bulk),
        bulk_hash=bulk_hash(part.digest for part in bulk),
        signature=b"",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitHeader:
    """What a step says of itself beside its events; the recorder makes the commit from both."""

    time_us: int
    runs: tuple[InputRun, ...] = ()
    rules_version: int = 1
    refused: tuple[GateCount, ...] = ()
    bulk: tuple[BulkPart, ...] = ()
