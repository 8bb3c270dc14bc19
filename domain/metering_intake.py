"""Opening telemetry records in bulk, by the law of the gate (design 3).

The order of judging is the gate's, and a law holds the outcome equal to it; what differs is that
columns become arrays at once and that many signatures are checked together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, Final, Protocol

from domain.batch_columns import Columns, columns_of, read_bytes_columns, read_long_columns
from domain.codec import Codec
from domain.gate import Opened
from domain.invariant import invariant
from domain.ports import LogRecord
from domain.refusal import BAD_SIGNATURE, OVERSIZE, WRONG_NETWORK, Refused
from domain.signed import Signed, Verifier, preimage
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
    """Opens records for one network."""

    def __init__(
        self,
        genesis_hash: bytes,
        codec: Codec,
        verify: Verifier,
        verify_many: VerifyMany | None,
    ) -> None:
        """Without ``verify_many`` signatures are checked one after another."""
        self._genesis_hash = genesis_hash
        self._codec = codec
        self._verify = verify
        self._verify_many = verify_many
        # What is opened and may be asked for again: a step may be cut within a stretch.
        self._held: dict[int, tuple[LogRecord, Opened | Refused]] = {}
        self._readers = {
            codec.fingerprint(Batch): (Batch.NAME, read_long_columns),  # type: ignore[attr-defined]
            codec.fingerprint(BatchBytes): (BatchBytes.NAME, read_bytes_columns),  # type: ignore[attr-defined]
        }

    def open_many(self, records: Sequence[LogRecord], size_max: int) -> list[Opened | Refused]:
        """What ``open_input`` says of each record; batches have ``Columns`` as payload."""
        held = [self._held.get(record.offset) for record in records]
        known = [
            each is not None and each[0] is record
            for each, record in zip(held, records, strict=True)
        ]
        new = [record for record, is_known in zip(records, known, strict=True) if not is_known]
        opened = iter(self._open_new(new, size_max))
        answers = [
            each[1] if is_known and each is not None else next(opened)
            for each, is_known in zip(held, known, strict=True)
        ]
        self._held = {
            record.offset: (record, answer) for record, answer in zip(records, answers, strict=True)
        }
        return answers

    def _open_new(self, records: Sequence[LogRecord], size_max: int) -> list[Opened | Refused]:
        found: list[Refused | tuple[Signed, Any, bytes]] = [
            self._read(record.value, size_max) for record in records
        ]
        asked = [(each[0].key, each[2], each[0].signature) for each in found if type(each) is tuple]
        if self._verify_many is not None:
            answers = iter(self._verify_many(asked))
        else:
            answers = iter([self._verify(*each) for each in asked])
        opened: list[Opened | Refused] = []
        for each in found:
            if isinstance(each, Refused):
                opened.append(each)
                continue
            signed, payload, message = each
            if not next(answers):
                opened.append(Refused(BAD_SIGNATURE, signed.key.hex()))
            elif signed.genesis != self._genesis_hash:
                opened.append(Refused(WRONG_NETWORK, f"signed for {signed.genesis.hex()}"))
            else:
                opened.append(Opened(signed, payload, hashlib.sha256(message).digest()))
        return opened

    def _read(self, value: bytes, size_max: int) -> Refused | tuple[Signed, Any, bytes]:
        if len(value) > size_max:
            return Refused(OVERSIZE, f"{len(value)} bytes, at most {size_max}")
        signed = self._codec.open_signed(value)
        if isinstance(signed, Refused):
            return signed
        payload = self._payload(signed)
        if isinstance(payload, Refused):
            return payload
        message = preimage(
            signed.genesis,
            signed.kind,
            signed.key,
            signed.session,
            signed.number,
            signed.schema,
            signed.payload,
        )
        return signed, payload, message

    def _payload(self, signed: Signed) -> Any | Refused:
        name, read = self._readers.get(signed.schema, ("", None))
        if read is None or signed.kind != name:
            return self._codec.open_payload(signed)
        return read(signed.payload)

    def reopen(self, value: bytes) -> Columns:
        """The columns of a record that was accepted once; its signature was checked then."""
        signed = self._codec.open_signed(value)
        invariant(isinstance(signed, Signed), "accepted bytes are a signed record")
        payload = self._payload(signed)
        if isinstance(payload, Columns):
            return payload
        invariant(isinstance(payload, Batch | BatchBytes), "accepted bytes are a batch")
        return columns_of(payload)
