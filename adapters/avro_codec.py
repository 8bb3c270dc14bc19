"""The domain's codec over Avro's binary encoding.

Schemas are derived from the declared records, numbers come from the committed lock file, and
nothing is fetched or registered at run time. Readers and writers are compiled on first use.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable
from importlib import resources
from typing import Any, Final, TypeVar

import domain
from domain import ids
from domain.codec import CodecError
from domain.record import RECORDS
from domain.refusal import (
    ARRAY_TOO_LONG,
    MALFORMED,
    TRAILING_BYTES,
    UNKNOWN_ENVELOPE,
    UNKNOWN_SCHEMA,
    Refused,
)
from domain.signed import Signed
from schemas.compiled import Compiler, TooLong, Trailing
from schemas.derive import Fixed, Underivable, Widths, fingerprint, schema_of
from schemas.lock import Lock, committed
from schemas.longs import Malformed

R = TypeVar("R")

_BYTES16: Final = Fixed("Bytes16", 16)
_BYTES32: Final = Fixed("Bytes32", 32)

#: The width of each id type. They share named types by size: what a field means is its name.
WIDTHS: Final[Widths] = {
    **dict.fromkeys(
        (
            ids.Bytes16,
            ids.AggregateId,
            ids.AccountId,
            ids.ProviderId,
            ids.NodeId,
            ids.OfferId,
            ids.BidId,
            ids.RoundId,
            ids.LeaseId,
            ids.PotId,
            ids.SlashId,
        ),
        _BYTES16,
    ),
    **dict.fromkeys((ids.Bytes32, ids.PublicKey, ids.Hash32), _BYTES32),
    ids.Address: Fixed("Address", 20),
    ids.Wide: Fixed("Wide", 16, integer=True),
}

_FRAME_MAGIC: Final = b"\x00"
_FRAME_BYTES: Final = 5


def declared() -> dict[str, type[Any]]:
    """Every record of the domain by its full name.

    Imports the modules of the domain that declare records, and no others: a node that signs
    telemetry has no use for the processors.
    """
    for found in pkgutil.iter_modules(domain.__path__):
        if "@record(" in resources.files(domain).joinpath(f"{found.name}.py").read_text():
            importlib.import_module(f"{domain.__name__}.{found.name}")
    inside = f"{domain.__name__}."
    return {name: kind for name, kind in RECORDS.items() if kind.__module__.startswith(inside)}


class AvroCodec:
    """``Codec`` for a set of record types; by default every record of the domain.

    A record that the lock file does not have yet encodes and decodes, but has no number; a test
    holds the committed lock file complete.
    """

    def __init__(
        self, records: dict[str, type[Any]] | None = None, lock: Lock | None = None
    ) -> None:
        """Derive the fingerprints of ``records``; raises ``CodecError`` where one has no schema."""
        self._records = declared() if records is None else dict(records)
        entries = (committed() if lock is None else lock).entries
        self._compiler = Compiler(WIDTHS)
        self._write: dict[type[Any], Any] = {}
        self._read: dict[type[Any], Any] = {}
        self._fingerprints: dict[type[Any], bytes] = {}
        for name, kind in self._records.items():
            try:
                self._fingerprints[kind] = fingerprint(schema_of(kind, WIDTHS))
            except Underivable as reason:
                raise CodecError(f"{name}: {reason}") from reason
        self._by_fingerprint = {print_: kind for kind, print_ in self._fingerprints.items()}
        self._numbers = {
            kind: entries[name].number for name, kind in self._records.items() if name in entries
        }
        self._by_number = {number: kind for kind, number in self._numbers.items()}
        self._frame = (
            _FRAME_MAGIC + self._numbers[Signed].to_bytes(4, "big")
            if Signed in self._numbers
            else None
        )

    def prepare(self, kinds: Iterable[type[Any]]) -> None:
        """Compile readers and writers now, which else happens at their first use."""
        for kind in kinds:
            if kind not in self._write:
                self._compile(kind)

    def encode(self, record: Any) -> bytes:
        kind = type(record)
        write = self._write.get(kind) or self._compile(kind).write
        try:
            made: bytes = write(record)
        except Malformed as reason:
            raise CodecError(str(reason)) from None
        return made

    def decode(self, kind: type[R], data: bytes) -> R:
        try:
            return self._reader(kind)(data)
        except Malformed as reason:
            raise CodecError(f"{kind.__name__}: {reason}") from None

    def number(self, kind: type[Any]) -> int:
        if kind not in self._numbers:
            raise CodecError(f"{kind.__name__} is not in the lock file: run scripts/schemas")
        return self._numbers[kind]

    def kind(self, number: int) -> type[Any]:
        if number not in self._by_number:
            raise CodecError(f"no schema has the number {number}")
        return self._by_number[number]

    def fingerprint(self, kind: type[Any]) -> bytes:
        if kind not in self._fingerprints:
            raise CodecError(f"{kind.__name__} is not a record of this codec")
        return self._fingerprints[kind]

    def open_signed(self, value: bytes) -> Signed | Refused:
        if not value:
            return Refused(UNKNOWN_ENVELOPE, "empty")
        # No genesis hash begins with zero, so a first byte of zero is the Confluent frame's.
        if value[0] == 0:
            if value[:_FRAME_BYTES] != self._frame:
                return Refused(UNKNOWN_ENVELOPE, f"frame {value[:_FRAME_BYTES].hex()}")
            value = value[_FRAME_BYTES:]
        trailing = None
        try:
            signed = self._reader(Signed)(value)
        except Trailing as reason:
            # An unknown schema is named before the bytes after the record that names it.
            trailing = Refused(TRAILING_BYTES, str(reason))
            signed = self._reader(Signed)(value[: -reason.left])
        except Malformed as reason:
            return Refused(MALFORMED, str(reason))
        kind = self._kind_of(signed)
        return kind if isinstance(kind, Refused) else trailing or signed

    def open_payload(self, signed: Signed) -> Any | Refused:
        kind = self._kind_of(signed)
        if isinstance(kind, Refused):
            return kind
        try:
            return self._reader(kind)(signed.payload)
        except Trailing as reason:
            return Refused(TRAILING_BYTES, str(reason))
        except TooLong as reason:
            return Refused(ARRAY_TOO_LONG, str(reason))
        except Malformed as reason:
            return Refused(MALFORMED, str(reason))

    def encode_frame(self, signed: Signed, *, confluent: bool) -> bytes:
        """The value of an input record as producers send it; bare Avro or in the frame."""
        if not confluent:
            return self.encode(signed)
        return _FRAME_MAGIC + self.number(Signed).to_bytes(4, "big") + self.encode(signed)

    def _kind_of(self, signed: Signed) -> type[Any] | Refused:
        """The payload's record type by its fingerprint, which must bear the name that is said."""
        kind = self._by_fingerprint.get(signed.schema)
        if kind is None:
            return Refused(UNKNOWN_SCHEMA, signed.schema.hex())
        if signed.kind != kind.NAME:
            return Refused(MALFORMED, f"the schema is that of {kind.NAME}")
        return kind

    def _reader(self, kind: type[R]) -> Callable[[bytes], R]:
        read: Callable[[bytes], R] = self._read.get(kind) or self._compile(kind).read
        return read

    def _compile(self, kind: type[Any]) -> Any:
        if kind not in self._fingerprints:
            raise CodecError(f"{kind.__name__} is not a record of this codec")
        made = self._compiler.compiled(kind)
        self._write[kind] = made.write
        self._read[kind] = made.read
        return made
