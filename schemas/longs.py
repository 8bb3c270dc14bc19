"""The Avro encoding of longs: one at a time, and a whole column at once.

A telemetry batch is columns of thousands of numbers. Over a few dozen, numpy finds the borders of
all numbers in a few passes over the bytes, several times faster than a loop in Python; below that
its overhead loses. A test holds the two ways equal, refusals included.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1
LONG_BYTES_MAX: Final = 10
COLUMN_FROM: Final = 32

_TOO_WIDE: Final = "a number is beyond 64 bits"
_PADDED: Final = "a number is not in its shortest form within 64 bits"
_CUT: Final = "the record goes on beyond the bytes"


class Malformed(ValueError):
    """Bytes that are no value of the type, or a value that is none."""


def varint(number: int) -> bytes:
    """The zigzag encoding of a long; raises ``Malformed`` beyond 64 bits."""
    if not INT64_MIN <= number <= INT64_MAX:
        raise Malformed(_TOO_WIDE)
    rest = (number << 1) ^ (number >> 63)
    out = bytearray()
    while rest > 127:
        out.append(rest & 127 | 128)
        rest >>= 7
    out.append(rest)
    return bytes(out)


#: The encodings of 0 to 8191, which are nearly all lengths and most numbers.
SHORT: Final = tuple(varint(number) for number in range(8192))


def read_long(data: bytes, at: int) -> tuple[int, int]:
    """The long that starts at ``at`` and where it ends; ``IndexError`` past the end."""
    byte = data[at]
    at += 1
    rest = byte & 127
    shift = 7
    while byte > 127:
        byte = data[at]
        at += 1
        if byte == 0 or shift > 63:
            raise Malformed(_PADDED)
        rest |= (byte & 127) << shift
        shift += 7
    if rest >> 64:
        raise Malformed(_TOO_WIDE)
    return (rest >> 1) ^ -(rest & 1), at


def write_column(numbers: Sequence[int]) -> bytes:
    """The encodings of Python ints one after the other; raises ``Malformed`` beyond 64 bits."""
    if len(numbers) < COLUMN_FROM:
        return b"".join([SHORT[n] if 0 <= n < 8192 else varint(n) for n in numbers])
    try:
        signed = np.array(numbers, dtype=np.int64)
    except OverflowError:
        raise Malformed(_TOO_WIDE) from None
    rest = ((signed << 1) ^ (signed >> 63)).view(np.uint64)
    lengths = np.ones(len(rest), dtype=np.int64)
    most = int(rest.max())
    for bits in range(7, max(most.bit_length(), 1), 7):
        lengths += rest >= np.uint64(1 << bits)
    ends = np.cumsum(lengths)
    shifts = 7 * (np.arange(ends[-1]) - np.repeat(ends - lengths, lengths))
    groups = (np.repeat(rest, lengths) >> shifts.astype(np.uint64)).astype(np.uint8) | 128
    groups[ends - 1] &= 127
    return groups.tobytes()


def read_column(data: bytes, at: int, end: int, count: int) -> tuple[list[int], int]:
    """``count`` longs from ``at`` on and where they end; raises ``Malformed``.

    The caller has checked that ``count`` bytes are left, which bounds the memory.
    """
    if count < COLUMN_FROM:
        numbers = []
        for _ in range(count):
            number, at = read_long(data, at)
            numbers.append(number)
        return numbers, at
    window = np.frombuffer(
        data, dtype=np.uint8, offset=at, count=min(end - at, count * LONG_BYTES_MAX)
    )
    lasts = np.flatnonzero(window < 128)[:count]
    if len(lasts) == 0:
        raise Malformed(_CUT)
    ends = lasts + 1
    window = window[: ends[-1]]
    lengths = np.diff(ends, prepend=0)
    long = lengths > 1
    if lengths.max() > LONG_BYTES_MAX or not window[lasts[long]].all():
        raise Malformed(_PADDED)
    if (window[lasts[lengths == LONG_BYTES_MAX]] > 1).any():
        raise Malformed(_TOO_WIDE)
    if len(lasts) < count:
        raise Malformed(_CUT)
    return _decoded(window, ends - lengths, lengths).tolist(), at + int(ends[-1])


def _decoded(
    window: NDArray[np.uint8], starts: NDArray[np.intp], lengths: NDArray[np.intp]
) -> NDArray[np.int64]:
    """The numbers whose seven-bit groups stand in ``window``, lowest first."""
    if len(window) == len(starts):
        rest = window.astype(np.int64)
    else:
        shifts = 7 * (np.arange(len(window)) - np.repeat(starts, lengths))
        groups = (window & 127).astype(np.uint64) << shifts.astype(np.uint64)
        rest = np.bitwise_or.reduceat(groups, starts).view(np.int64)
    return ((rest >> 1) & INT64_MAX) ^ -(rest & 1)
