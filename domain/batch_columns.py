"""A telemetry batch as integer arrays, decoded strictly from either encoding.

The arrays of long are decoded by one pass over all variable-length numbers of a batch, eight bytes
at a time, instead of one number after another: this was half the cost of metering. What is taken
and what is refused equals the codec's own reading of ``Batch`` and ``BatchBytes``, byte for byte;
a law holds them equal.
"""

from __future__ import annotations

from collections.abc import Sequence
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
_LITTLE: Final[tuple[np.dtype[Any], ...]] = (
    np.dtype("<u2"),
    np.dtype("<u2"),
    np.dtype("u1"),
    np.dtype("<i8"),
    np.dtype("<i8"),
)
#: Masks of a little-endian word that keep the low 7 bits of its first n bytes, n in 0..8.
_KEEP: Final = np.array([0x7F7F7F7F7F7F7F7F & (1 << 8 * n) - 1 for n in range(9)], np.uint64)
_CLOSE_UP: Final = (
    (np.uint64(0x7F007F007F007F00), np.uint64(1)),
    (np.uint64(0x3FFF00003FFF0000), np.uint64(2)),
    (np.uint64(0x0FFFFFFF00000000), np.uint64(4)),
)
_EMPTY: Final = np.empty(0, np.int64)
#: Batches are decoded together up to so many bytes, which the processor's cache holds.
_JOINED_BYTES: Final = 16 * 1024
_IDS_REMEMBERED: Final = 262_144
_NO_BATCH: Final = Refused(MALFORMED, "the bytes are no batch")


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
    lease, resource, generation, time_us, total = columns
    return Columns(nodes, leases, lease, resource, generation, time_us, total, rows)


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
    return read_long_columns_many([data])[0]


def read_long_columns_many(
    batches: Sequence[bytes], lists: IdLists | None = None
) -> list[Columns | Refused]:
    """``read_long_columns`` of each: many small batches cost hardly more than one."""
    lists = lists or IdLists()
    found: list[Columns | Refused] = []
    opened: list[tuple[bytes, int, tuple[bytes, ...], tuple[bytes, ...]] | None] = []
    for data in batches:
        try:
            nodes, at = lists.read(data, 0)
            leases, at = lists.read(data, at)
        except (_Wrong, IndexError):
            opened.append(None)
        else:
            opened.append((data, at, nodes, leases))
    first = 0
    while first < len(opened):
        tails: list[bytes] = []
        starts: list[int] = []
        size, last = 0, first
        while last < len(opened) and (last == first or size < _JOINED_BYTES):
            one = opened[last]
            tail = b"" if one is None else one[0][one[1] :]
            # A number that does not end would run on into the next batch.
            if tail and tail[-1] > 127:
                tail += b"\x00"
            tails.append(tail)
            starts.append(size)
            size += len(tail)
            last += 1
        numbers = _Numbers(b"".join(tails))
        places = np.searchsorted(numbers.ends, [*starts, size]).tolist()
        for number, one in enumerate(opened[first:last]):
            if one is None:
                found.append(_NO_BATCH)
                continue
            data, at, nodes, leases = one
            try:
                columns, end = numbers.arrays(places[number], places[number + 1])
            except _Wrong:
                found.append(_NO_BATCH)
                continue
            at += end - starts[number]
            if at < len(data):
                why = Refused(TRAILING_BYTES, f"{len(data) - at} bytes after the batch")
                found.append(why)
            else:
                found.append(_columns(nodes, leases, columns))
        first = last
    return found


def read_bytes_columns(data: bytes, lists: IdLists | None = None) -> Columns | Refused:
    """The columns of exactly the Avro bytes of a ``BatchBytes``; never raises."""
    lists = lists or IdLists()
    end = len(data)
    parts: list[bytes] = []
    try:
        nodes, at = lists.read(data, 0)
        leases, at = lists.read(data, at)
        for _ in range(_COLUMNS):
            length, at = _read_long(data, at)
            if not 0 <= length <= end - at:
                raise _Wrong
            parts.append(data[at : at + length])
            at += length
    except (_Wrong, IndexError):
        return _NO_BATCH
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


class IdLists:
    """Reads arrays of ids, and remembers the latest: a sender lists the same ones each time.

    Equal bytes give the same tuple object, which what looks ids up may use in turn.
    """

    def __init__(self) -> None:
        """Remember nothing."""
        self._known: dict[bytes, tuple[bytes, ...]] = {}
        self._ids = 0

    def read(self, data: bytes, at: int) -> tuple[tuple[bytes, ...], int]:
        """An array of ids in as many blocks as it came, and where it ends."""
        end = len(data)
        parts: list[bytes] = []
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
            parts.append(data[at:last])
            at = last
        return self._split(parts[0] if len(parts) == 1 else b"".join(parts)), at + 1

    def _split(self, joined: bytes) -> tuple[bytes, ...]:
        found = self._known.get(joined)
        if found is None:
            found = tuple(joined[i : i + _ID_BYTES] for i in range(0, len(joined), _ID_BYTES))
            self._ids += len(found) + 1
            if self._ids > _IDS_REMEMBERED:
                self._known.clear()
                self._ids = len(found) + 1
            self._known[joined] = found
        return found


class _Numbers:
    """All variable-length numbers of some bytes, decoded at once.

    After its ids a batch is nothing but such numbers: counts, sizes, items and the zeros that end
    arrays. So all are found by their last bytes, eight bytes of each are taken as one word, and
    then the few that are counts are followed.
    """

    def __init__(self, data: bytes) -> None:
        """Decode; numbers that are not in their shortest form within 64 bits get any value."""
        octets = np.frombuffer(data, np.uint8)
        self.ends = np.flatnonzero(octets < 128)
        starts = np.empty_like(self.ends)
        starts[:1] = 0
        np.add(self.ends[:-1], 1, out=starts[1:])
        self.lengths = self.ends - starts
        self.lengths += 1
        words = np.ndarray((len(data) + 1,), "<u8", data + bytes(8), 0, (1,)).take(starts)
        words &= _KEEP.take(np.minimum(self.lengths, 8))
        # Three times, neighbours of 7, 14 and 28 bits close up.
        for mask, shift in _CLOSE_UP:
            part = words & mask
            words ^= part
            part >>= shift
            words |= part
        self.wrong = (self.lengths > 1) & (octets.take(self.ends) == 0)
        long = np.flatnonzero(self.lengths > 8)
        if len(long):
            ninth = octets.take(starts[long] + 8).astype(np.uint64)
            words[long] |= (ninth & np.uint64(127)) << np.uint64(56)
            longer = long[self.lengths[long] > 9]
            tenth = octets.take(starts[longer] + 9).astype(np.uint64)
            words[longer] |= tenth << np.uint64(63)
            self.wrong[longer] |= (tenth > 1) | (self.lengths[longer] > 10)
        negative = words & np.uint64(1)
        words >>= np.uint64(1)
        np.negative(negative, out=negative)
        words ^= negative
        self.values = words.view(np.int64)
        self.any_wrong = bool(np.count_nonzero(self.wrong))

    def arrays(self, first: int, last: int) -> tuple[list[Ints], int]:
        """Five arrays among the numbers [first, last), and the byte after them."""
        values, ends = self.values, self.ends
        columns: list[Ints] = []
        at = first
        for _ in range(_COLUMNS):
            blocks: list[Ints] = []
            while True:
                if at >= last:
                    raise _Wrong
                count = int(values[at])
                at += 1
                if not count and self.lengths[at - 1] == 1:
                    break
                size = -1
                if count < 0:
                    count = -count
                    if at >= last:
                        raise _Wrong
                    size = int(values[at])
                    at += 1
                    if size < 0:
                        raise _Wrong
                if count > last - at:
                    raise _Wrong
                blocks.append(values[at : at + count])
                at += count
                if size >= 0 and size != int(ends[at - 1]) - int(ends[at - count - 1]):
                    raise _Wrong
            columns.append(blocks[0] if len(blocks) == 1 else np.concatenate([_EMPTY, *blocks]))
        if self.any_wrong and np.count_nonzero(self.wrong[first:at]):
            raise _Wrong
        return columns, int(ends[at - 1]) + 1
