"""Compressed batches of foreign producers, inflated up to a limit.

Brokers keep what a producer sent, in any of Kafka's four codecs, and look at its size as sent: some
kilobytes may inflate to gigabytes. kafka-python inflates whatever it is, and Snappy, which many
producers in Java use, only with a package more.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Final

import cramjam
import lz4.frame
import zstandard

#: Twice what the largest record takes.
INFLATED_MAX: Final = 16 << 20
#: In a compressed batch: an empty record is a bit there, and a hundred bytes of memory here.
RECORDS_MAX: Final = 1 << 16

# What xerial's Snappy for Java puts before its blocks, each of which has a length of four bytes.
_XERIAL: Final = b"\x82SNAPPY\x00"
_XERIAL_HEAD: Final = 16
_LENGTH_BYTES: Final = 4


class CannotInflate(Exception):
    """The batch is nothing that its codec reads, or inflates to more than the limit."""


def inflate(codec: int, data: memoryview) -> bytes:
    """The records of a compressed batch; ``codec`` is Kafka's number of how.

    1 is gzip, 2 Snappy, 3 LZ4, 4 Zstandard. Raises ``CannotInflate``.
    """
    how = _CODECS.get(codec)
    if how is None:
        raise CannotInflate(f"no codec has the number {codec}")
    try:
        found = how(data)
    except (zlib.error, RuntimeError, zstandard.ZstdError, cramjam.DecompressionError) as error:
        raise CannotInflate(f"codec {codec}: {error}") from error
    if len(found) > INFLATED_MAX:
        raise CannotInflate("too large")
    return found


def _gzip(data: memoryview) -> bytes:
    return zlib.decompressobj(wbits=zlib.MAX_WBITS | 16).decompress(data, INFLATED_MAX + 1)


def _lz4(data: memoryview) -> bytes:
    with lz4.frame.LZ4FrameDecompressor() as frames:
        found: bytes = frames.decompress(data, max_length=INFLATED_MAX + 1)
    return found


def _zstandard(data: memoryview) -> bytes:
    with zstandard.ZstdDecompressor().stream_reader(data) as stream:
        return stream.read(INFLATED_MAX + 1)


def _snappy(data: memoryview) -> bytes:
    if bytes(data[: len(_XERIAL)]) != _XERIAL:
        return _snappy_block(data, INFLATED_MAX)
    found: list[bytes] = []
    at, left = _XERIAL_HEAD, INFLATED_MAX
    while at < len(data):
        length = bytes(data[at : at + _LENGTH_BYTES])
        at += _LENGTH_BYTES
        size = int.from_bytes(length, "big", signed=True)
        if len(length) < _LENGTH_BYTES or not 0 <= size <= len(data) - at:
            raise CannotInflate("a block of Snappy that is longer than the batch")
        found.append(_snappy_block(data[at : at + size], left))
        left -= len(found[-1])
        at += size
    return b"".join(found)


def _snappy_block(data: memoryview, most: int) -> bytes:
    """A block tells its length before it is inflated."""
    if cramjam.snappy.decompress_raw_len(data) > most:
        raise CannotInflate("too large")
    return bytes(cramjam.snappy.decompress_raw(data))


_CODECS: Final[dict[int, Callable[[memoryview], bytes]]] = {
    1: _gzip,
    2: _snappy,
    3: _lz4,
    4: _zstandard,
}
