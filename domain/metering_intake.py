"""Opening telemetry records in bulk, by the law of the gate (design 3).

The order of judging is the gate's, and a law holds the outcome equal to it; what differs is that
columns become arrays at once and that many signatures are checked together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, Protocol

from domain.batch_columns import (
    Columns,
    IdLists,
    read_bytes_columns,
    read_long_columns_many,
)
from domain.codec import Codec
from domain.gate import Opened, within_range
from domain.invariant import invariant
from domain.ports import LogRecord
from domain.refusal import BAD_SIGNATURE, OVERSIZE, Refused
from domain.signed import Signed, Verifier, message_of
from domain.telemetry import Batch, BatchBytes

RECORDS_AT_ONCE: Final = 256
BYTES_AT_ONCE: Final = 4 * 1024 * 1024


class VerifyMany(Protocol):
    """Checks many Ed25519 signatures."""

    def __call__(self, asked: Sequence[tuple[bytes, bytes, bytes]]) -> Sequence[bool]:
        """For each (key, message, signature), in order, what ``Verifier`` says. Never raises."""
        ...


def stretches(records: Sequence[LogRecord]) -> Iterator[Sequence[LogRecord]]:
    """The records in parts that are opened together: bounded in number and bytes."""
    start, size = 0, 0
    for index, record in enumerate(records):
        if index > start and (
            index - start >= RECORDS_AT_ONCE or size + len(record.value) > BYTES_AT_ONCE
        ):
            yield records[start:index]
            start, size = index, 0
        size += len(record.value)
    if start < len(records):
        yield records[start:]


class Intake:
    """Opens records of telemetry."""

    def __init__(self, codec: Codec, verify: Verifier, verify_many: VerifyMany | None) -> None:
        """Without ``verify_many`` signatures are checked one after another."""
        self._codec = codec
        self._verify = verify
        self._verify_many = verify_many
        self._lists = IdLists()
        self._long = codec.fingerprint(Batch), _name(Batch)
        self._bytes = codec.fingerprint(BatchBytes), _name(BatchBytes)
        # What is opened and may be asked for again: a step may be cut within a stretch.
        self._held: dict[int, tuple[LogRecord, Opened | Refused]] = {}

    def open_many(self, records: Sequence[LogRecord], size_max: int) -> list[Opened | Refused]:
        """What ``open_input`` says of each record; batches have ``Columns`` as payload."""
        kept = {
            offset: pair
            for offset, pair in (
                (record.offset, self._held.get(record.offset)) for record in records
            )
            if pair is not None
        }
        new = [
            record
            for record in records
            if record.offset not in kept or kept[record.offset][0] is not record
        ]
        for record, answer in zip(new, self._open_new(new, size_max), strict=True):
            kept[record.offset] = record, answer
        self._held = kept
        return [kept[record.offset][1] for record in records]

    def _open_new(self, records: Sequence[LogRecord], size_max: int) -> list[Opened | Refused]:
        envelopes = [self._envelope(record.value, size_max) for record in records]
        signed = [each for each in envelopes if isinstance(each, Signed)]
        payloads = self._payloads(signed)
        messages = [
            b"" if isinstance(payload, Refused) else message_of(each)
            for each, payload in zip(signed, payloads, strict=True)
        ]
        # What is refused already asks for no signature; its message is empty.
        asked = [
            (each.key, message, each.signature)
            for each, message in zip(signed, messages, strict=True)
            if message
        ]
        if self._verify_many is not None:
            verdicts = iter(self._verify_many(asked))
        else:
            verdicts = iter([self._verify(*each) for each in asked])
        judged = iter(
            [
                self._judged(each, payload, message, verdicts)
                for each, payload, message in zip(signed, payloads, messages, strict=True)
            ]
        )
        return [each if isinstance(each, Refused) else next(judged) for each in envelopes]

    def _envelope(self, value: bytes, size_max: int) -> Signed | Refused:
        if len(value) > size_max:
            return Refused(OVERSIZE, f"{len(value)} bytes, at most {size_max}")
        return self._codec.open_signed(value)

    def _payloads(self, envelopes: Sequence[Signed]) -> list[Any]:
        """The payload of each, or why it is refused; batches of longs are decoded together."""
        long = [s.payload for s in envelopes if (s.schema, s.kind) == self._long]
        columns = iter(read_long_columns_many(long, self._lists))
        found = [
            next(columns)
            if (signed.schema, signed.kind) == self._long
            else read_bytes_columns(signed.payload, self._lists)
            if (signed.schema, signed.kind) == self._bytes
            else None
            for signed in envelopes
        ]
        # Columns say that bytes are no batch; by which refusal is the codec's to say.
        return [
            within_range(
                signed,
                payload if isinstance(payload, Columns) else self._codec.open_payload(signed),
            )
            for signed, payload in zip(envelopes, found, strict=True)
        ]

    def _judged(
        self, signed: Signed, payload: Any, message: bytes, verdicts: Iterator[bool]
    ) -> Opened | Refused:
        if isinstance(payload, Refused):
            return payload
        if not next(verdicts):
            return Refused(BAD_SIGNATURE, signed.key.hex())
        return Opened(signed, payload, message)

    def reopen(self, value: bytes) -> Columns:
        """The columns of a record that was accepted once; its signature was checked then."""
        signed = self._codec.open_signed(value)
        invariant(isinstance(signed, Signed), "accepted bytes are a signed record")
        assert isinstance(signed, Signed)
        payload = self._payloads([signed])[0]
        invariant(isinstance(payload, Columns), "accepted bytes are a batch")
        assert isinstance(payload, Columns)
        return payload


def _name(kind: Any) -> str:
    name: str = kind.NAME
    return name
