"""What the domain asks of a serialisation: strict both ways, and numbered for ever."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

from domain.refusal import Refused
from domain.signed import Signed

R = TypeVar("R")


class CodecError(Exception):
    """Bytes that are not exactly one record of the schema, or a value outside its type."""


class Codec(Protocol):
    """Avro by the schemas of ``schemas/``; deterministic: equal records give equal bytes."""

    def encode(self, record: Any) -> bytes:
        """The Avro bytes of a declared record; raises ``CodecError`` on a value out of type."""
        ...

    def decode(self, kind: type[R], data: bytes) -> R:
        """The record of exactly these bytes; raises ``CodecError`` for anything else."""
        ...

    def number(self, kind: type[Any]) -> int:
        """The schema's number in the lock file: what stands in a recorded event."""
        ...

    def kind(self, number: int) -> type[Any]:
        """The record type of a schema number; raises ``CodecError`` if there is none."""
        ...

    def fingerprint(self, kind: type[Any]) -> bytes:
        """SHA-256 of the full normalised schema (32 bytes)."""
        ...

    def open_signed(self, value: bytes) -> Signed | Refused:
        """The ``Signed`` on the wire, bare Avro or Confluent frame, of a schema that is known.

        Of several faults the first: framing, Avro, schema, its name, bytes after the record. Never
        raises.
        """
        ...

    def open_payload(self, signed: Signed) -> Any | Refused:
        """The payload by its fingerprint, strictly decoded; never raises.

        An array that says it has more items than the bytes could hold is ``ARRAY_TOO_LONG``.
        """
        ...
