"""A telemetry batch as integer arrays, decoded strictly from either encoding.

The arrays of long are decoded by one pass over all variable-length numbers of a batch, eight bytes
at a time, instead of one number after another: this was half the cost of metering. What is taken
and what is refused equals the codec's own reading of ``Batch`` and ``BatchBytes``, byte for byte;
a law holds them equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from domain.ids import LeaseId, NodeId
from domain.refusal import MALFORMED, TRAILING_BYTES, Refused
from domain.telemetry import Batch, BatchBytes

Ints = NDArray[Any]

_ID_BYTES: Final = 16
_COLUMNS: Final = 5
_WIDE: Final = np.dtype("<i8")
_LITTLE: Final = (
    np.dtype("<u2"),
    np.dtype("<u2"),
    np.dtype("u1"),
    _WIDE,
    _WIDE,
)
#: Masks of a little-endian word that keep the low 7 bits of its first n bytes, n in 0..8.
_KEEP: Final = np.array([0x7F7F7F7F7F7F7F7F & (1 << 8 * n) - 1 for n in range(9)], np.uint64)


@dataclass(frozen=True, slots=True)
class Columns:
    """A batch in arrays. ``rows`` is -1 where the columns are not of one length."""

    nodes: tuple[bytes, ...]
    leases: tuple[bytes, ...]
    lease: Ints
    resource: Ints
    generation: Ints
    time_us: Ints
    total: Ints
    rows: int

    def points_within(self) -> bool:
        """Whether every entry of the lease column has a lease."""
        # As an unsigned number an index below zero lies above all others.
        index = self.lease.view(f"u{self.lease.itemsize}")
        return not np.count_nonzero(index >= len(self.leases))

    def plain(self) -> Batch:
        """The same batch for the plain twin."""
        return Batch(
            nodes=tuple(NodeId(node) for node in self.nodes),
            leases=tuple(LeaseId(lease) for lease in self.leases),
            lease=tuple(self.lease.tolist()),
            resource=tuple(self.resource.tolist()),
            generation=tuple(self.generation.tolist()),
            time_us=tuple(self.time_us.tolist()),
            total=tuple(self.total.tolist()),
        )


class _Wrong(Exception):
    """Bytes that are no batch."""


def _columns(
    nodes: tuple[bytes, ...], leases: tuple[bytes, ...], columns: list[Ints], *, whole: bool = True
) -> Columns:
    rows = len(columns[0])
    if not whole or any(len(column) != rows for column in columns):
        rows = -1
    return Columns(nodes, leases, *columns, rows=rows)


def columns_of(payload: Batch | BatchBytes) -> Columns:
    """The columns of a decoded payload."""
    if isinstance(payload, Batch):
        longs = (payload.lease, payload.resource, payload.generation, payload.time_us)
        return _columns(
            payload.nodes,
            payload.leases,
            [np.array(column, np.int64) for column in (*longs, payload.total)],
        )
    parts = (payload.lease, payload.resource, payload.generation, payload.time_us, payload.total)
    return _little(payload.nodes, payload.leases, parts)


def _little(
    nodes: tuple[bytes, ...], leases: tuple[bytes, ...], parts: tuple[bytes, ...]
) -> Columns:
    columns: list[Ints] = []
    whole = True
    for part, kind in zip(parts, _LITTLE, strict=True):
        entries, odd = divmod(len(part), kind.itemsize)
        whole = whole and not odd
        columns.append(np.frombuffer(part, kind, entries))
    return _columns(nodes, leases, columns, whole=whole)


def read_long_columns(data: bytes) -> Columns | Refused:
    """The columns of exactly the Avro bytes of a ``Batch``; never raises."""
    try:
        nodes, at = _read_ids(data, 0)
        leases, at = _read_ids(data, at)
        columns, at = _read_arrays(data, at)
    except (_Wrong, IndexError):
        return Refused(MALFORMED, "the bytes are no batch")
    if at < len(data):
        return Refused(TRAILING_BYTES, f"{len(data) - at} bytes after the batch")
    return _columns(nodes, leases, columns)


def read_bytes_columns(data: bytes) -> Columns | Refused:
    """The columns of exactly the Avro bytes of a ``BatchBytes``; never raises."""
    end = len(data)
    parts: list[bytes] = []
    try:
        nodes, at = _read_ids(data, 0)
        leases, at = _read_ids(data, at)
        for _ in range(_COLUMNS):
            length, at = _read_long(data, at)
            if not 0 <= length <= end - at:
                raise _Wrong
            parts.append(data[at : at + length])
            at += length
    except (_Wrong, IndexError):
        return Refused(MALFORMED, "the bytes are no batch")
    if at < end:
        return Refused(TRAILING_BYTES, f"{end - at} bytes after the batch")
    return _little(nodes, leases, tuple(parts))


def _read_long(data: bytes, at: int) -> tuple[int, int]:
    """One long in its shortest form within 64 bits, and where it ends."""
    byte = data[at]
    at += 1
    rest = byte & 127
    shift = 7
    while byte > 127:
        byte = data[at]
        at += 1
        if byte == 0 or shift > 63:
            raise _Wrong
        rest |= (byte & 127) << shift
        shift += 7
    if rest >> 64:
        raise _Wrong
    return rest >> 1 ^ -(rest & 1), at


def _read_ids(data: bytes, at: int) -> tuple[tuple[bytes, ...], int]:
    """An array of ids, in as many blocks as it came."""
    end = len(data)
    found: list[bytes] = []
    while data[at]:
        count, at = _read_long(data, at)
        stop = -1
        if count < 0:
            count = -count
            size, at = _read_long(data, at)
            stop = at + size
            if size < 0 or stop > end:
                raise _Wrong
        last = at + count * _ID_BYTES
        if last > end or (stop >= 0 and last != stop):
            raise _Wrong
        found += [data[i : i + _ID_BYTES] for i in range(at, last, _ID_BYTES)]
        at = last
    return tuple(found), at + 1


def _read_arrays(data: bytes, start: int) -> tuple[list[Ints], int]:
    """Five arrays of long, and where they end.

    From ``start`` on everything is variable-length numbers: counts, sizes, items and the zeros
    that end arrays. So all are found by their last bytes and decoded at once; then the few that
    are counts are followed.
    """
    octets = np.frombuffer(data, np.uint8, len(data) - start, start)
    ends = np.flatnonzero(octets < 128)
    if not len(ends):
        raise _Wrong
    values, lengths = _decode(data, start, octets, ends)
    number = len(values)
    columns: list[Ints] = []
    at = 0
    for _ in range(_COLUMNS):
        blocks: list[Ints] = []
        while True:
            if at >= number:
                raise _Wrong
            count = int(values[at])
            zero = count == 0 and lengths[at] == 1
            at += 1
            if zero:
                break
            size = -1
            if count < 0:
                count = -count
                if at >= number:
                    raise _Wrong
                size = int(values[at])
                at += 1
                if size < 0:
                    raise _Wrong
            if count > number - at:
                raise _Wrong
            blocks.append(values[at : at + count])
            at += count
            if size >= 0 and size != int(ends[at - 1]) - int(ends[at - count - 1]):
                raise _Wrong
        columns.append(
            blocks[0] if len(blocks) == 1 else np.concatenate([np.empty(0, np.int64), *blocks])
        )
    used = lengths[:at]
    # What is not in its shortest form, or is beyond ten bytes or 64 bits, is no number.
    if np.count_nonzero(used > 8) and _overlong(octets, ends[:at], used):
        raise _Wrong
    zeros = octets[ends[:at]] == 0
    if np.count_nonzero(zeros) and np.count_nonzero(zeros & (used > 1)):
        raise _Wrong
    return columns, start + int(ends[at - 1]) + 1


def _decode(data: bytes, start: int, octets: Ints, ends: Ints) -> tuple[Ints, Ints]:
    """All numbers that end at ``ends``, and their lengths; wrong ones get any value."""
    starts = np.empty_like(ends)
    starts[0] = 0
    np.add(ends[:-1], 1, out=starts[1:])
    lengths = ends - starts
    lengths += 1
    # Eight bytes from each start on, as one little-endian word, with room behind the last.
    padded = data[start:] + bytes(8)
    words = np.ndarray((len(octets) + 1,), "<u8", padded, 0, (1,)).take(starts)
    low = words & _KEEP.take(np.minimum(lengths, 8))
    # Three times, neighbours of 7, 14 and 28 bits close up.
    part = low & np.uint64(0x7F007F007F007F00)
    low ^= part
    part >>= np.uint64(1)
    low |= part
    np.bitwise_and(low, np.uint64(0x3FFF00003FFF0000), out=part)
    low ^= part
    part >>= np.uint64(2)
    low |= part
    np.bitwise_and(low, np.uint64(0x0FFFFFFF00000000), out=part)
    low ^= part
    part >>= np.uint64(4)
    low |= part
    long = lengths > 8
    if np.count_nonzero(long):
        for i in np.flatnonzero(long).tolist():
            first = int(starts[i])
            high = octets[first + 8 : min(int(ends[i]) + 1, first + 10)]
            more = sum((int(byte) & 127) << 7 * place for place, byte in enumerate(high, 8))
            low[i] |= np.uint64(more & (1 << 64) - 1)
    negative = low & np.uint64(1)
    low >>= np.uint64(1)
    np.negative(negative, out=negative)
    low ^= negative
    return low.view(np.int64), lengths


def _overlong(octets: Ints, ends: Ints, lengths: Ints) -> bool:
    """Whether a number has more than ten bytes, or ten of which the last is beyond 64 bits."""
    if np.count_nonzero(lengths > 10):
        return True
    return bool(np.count_nonzero(octets[ends[lengths == 10]] > 1))
