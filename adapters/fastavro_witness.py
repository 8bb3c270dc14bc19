"""A second reading of what an audit re-derives, by a library that shares no code with our codec.

The hot path has a generated strict codec. A bug in it would be in the writer and in the auditor
alike, and so invisible to a comparison of bytes. This witness reads the same bytes with fastavro
and the committed schema files, and compares every field (docs/adr/0008).
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any, Final

import fastavro
from fastavro.schema import parse_schema

from domain.batch_columns import read_bytes_columns, read_long_columns
from domain.codec import Codec
from domain.refusal import Refused
from domain.signed import Signed
from domain.telemetry import Batch, BatchBytes
from schemas.lock import FOLDER

#: Of telemetry payloads one in so many is read again: fastavro takes longer for one than all else.
TELEMETRY_ONE_IN: Final = 64
_FRAME_BYTES: Final = 5

_COLUMNS: Final[dict[str, Callable[[bytes], Any]]] = {
    Batch.NAME: read_long_columns,  # type: ignore[attr-defined]
    BatchBytes.NAME: read_bytes_columns,  # type: ignore[attr-defined]
}


@cache
def _schema(name: str) -> Any:
    return parse_schema(json.loads((FOLDER / f"{name}.avsc").read_text()))


class FastavroWitness:
    """Reads records with fastavro by the committed schemas; each schema is parsed once."""

    def __init__(self, codec: Codec, *, telemetry_one_in: int = TELEMETRY_ONE_IN) -> None:
        """Bear witness to ``codec``; with ``telemetry_one_in`` 1 every payload is read again."""
        self._codec = codec
        self._one_in = telemetry_one_in
        self.read = 0

    def record(self, value: Any, data: bytes) -> str | None:
        """Where fastavro reads ``data`` otherwise than as ``value``; None if it agrees."""
        name: str = type(value).NAME
        found = self._found(name, data)
        return found if isinstance(found, str) else difference(value, found, name)

    def input(self, value: bytes) -> str | None:
        """The same for an input record that our codec takes for a signed one, and its payload."""
        signed = self._codec.open_signed(value)
        if isinstance(signed, Refused):
            return None
        bare = value[_FRAME_BYTES:] if value[0] == 0 else value
        return self.record(signed, bare) or self._payload(signed)

    def _payload(self, signed: Signed) -> str | None:
        columns = _COLUMNS.get(signed.kind)
        if columns is None:
            payload = self._codec.open_payload(signed)
            return None if isinstance(payload, Refused) else self.record(payload, signed.payload)
        # By its digest, so that two audits read the same ones.
        drawn = int.from_bytes(hashlib.sha256(signed.payload).digest()[:4], "big")
        if drawn % self._one_in:
            return None
        read = columns(signed.payload)
        plain = self._codec.open_payload(signed)
        if isinstance(read, Refused) or isinstance(plain, Refused):
            same = isinstance(read, Refused) and isinstance(plain, Refused)
            return None if same else f"{signed.kind}: its columns and its record disagree"
        found = self._found(signed.kind, signed.payload)
        if isinstance(found, str):
            return found
        if isinstance(plain, Batch) and read.rows >= 0 and read.plain() != plain:
            return f"{signed.kind}: its columns are not those of its record"
        return difference(plain, found, signed.kind)

    def _found(self, name: str, data: bytes) -> Any | str:
        schema = _schema(name)
        self.read += 1
        stream = io.BytesIO(data)
        try:
            found = fastavro.schemaless_reader(stream, schema, None)
        except (ValueError, EOFError, IndexError, OverflowError, StopIteration) as reason:
            return f"{name}: fastavro cannot read it: {reason}"
        left = len(data) - stream.tell()
        return f"{name}: fastavro leaves {left} bytes unread" if left else found


@cache
def _names(kind: type[Any]) -> list[str] | None:
    return [field.name for field in fields(kind)] if is_dataclass(kind) else None


def difference(ours: Any, found: Any, at: str) -> str | None:
    """The first field in which a value and fastavro's reading of it differ, with both."""
    kind = type(ours)
    if kind is type(found):
        # Lists and records of fastavro's are of no type of ours.
        return None if ours == found else f"{at}: {ours!r}, fastavro reads {found!r}"
    if kind is int and isinstance(found, bytes):
        # 128-bit numbers are fixed(16), big-endian, for every other reader too.
        return difference(ours, int.from_bytes(found, "big", signed=True), at)
    if kind is tuple:
        return _items_differ(ours, found, at)
    names = _names(kind)  # type: ignore[arg-type]
    if names is not None:
        if not isinstance(found, dict) or list(found) != names:
            return f"{at}: fastavro has other fields"
        for name in names:
            mine, other = getattr(ours, name), found[name]
            if mine is not other and (wrong := difference(mine, other, name)) is not None:
                return f"{at}.{wrong}"
        return None
    if isinstance(ours, Enum):
        return difference(ours.value, found, at)
    return f"{at}: {ours!r}, fastavro reads {found!r}"


def _items_differ(ours: Sequence[Any], found: Any, at: str) -> str | None:
    if not isinstance(found, list) or len(found) != len(ours):
        return f"{at}: fastavro has another length"
    for index, (mine, other) in enumerate(zip(ours, found, strict=True)):
        if mine is not other and (wrong := difference(mine, other, "")) is not None:
            return f"{at}[{index}]{wrong}"
    return None
