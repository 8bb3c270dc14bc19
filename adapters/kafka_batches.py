"""Record batches as the brokers keep them (format 2), taken apart with one copy of each value.

kafka-python's parser copies a batch, and each value twice more, and reads what nobody here wants
(keys, headers).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from struct import Struct
from typing import Final

from kafka.record.util import calc_crc32c, decode_varint

from adapters.kafka_codecs import INFLATED_MAX, RECORDS_MAX, CannotInflate, inflate
from domain.ports import LogError, LogRecord, SettingsRefused

# Base offset, length, leader epoch, magic, CRC, attributes, last offset delta, first and last time,
# producer id, epoch and sequence, number of records.
_HEAD: Final = Struct(">qiibIhiqqqhii")
_BEFORE_LENGTH_COUNTS: Final = 12
_BEFORE_CRC_COUNTS: Final = 21
_FORMAT: Final = 2
_COMPRESSED: Final = 0x07
_LOG_APPEND_TIME: Final = 0x08
_CONTROL: Final = 0x20


def parse_batches(where: str, data: memoryview, offset: int) -> tuple[list[LogRecord], int]:
    """The records from ``offset`` on, and the offset after the last batch that was read.

    The data may end within a batch, and is not read on when compressed batches have become very
    large. One that nobody can or should take apart is one record without a value. Raises
    ``LogError`` for bytes that are no batches, and ``SettingsRefused`` where a record's time is not
    the brokers'.
    """
    records: list[LogRecord] = []
    at = inflated = 0
    while len(data) - at >= _HEAD.size and inflated <= INFLATED_MAX:
        base, length, _, magic, crc, attributes, last, _, newest_ms, _, _, _, count = (
            _HEAD.unpack_from(data, at)
        )
        start, end = at + _HEAD.size, at + _BEFORE_LENGTH_COUNTS + length
        if end > len(data):
            break
        if (
            magic != _FORMAT
            or end < start
            or calc_crc32c(data[at + _BEFORE_CRC_COUNTS : end]) != crc
        ):
            raise LogError(f"{where} has a corrupt batch after offset {offset}.")
        if not attributes & _CONTROL and base + last >= offset:
            if not attributes & _LOG_APPEND_TIME:
                raise SettingsRefused(
                    f"{where}: message.timestamp.type was CreateTime at offset"
                    f" {base}, must be LogAppendTime."
                )
            time_us = newest_ms * 1000
            if attributes & _COMPRESSED:
                found, size = _inflated(
                    attributes & _COMPRESSED, data[start:end], base, last, count
                )
                inflated += size
            else:
                found = _taken_apart(data, start, end, base, last, count)
            # The data begins with the whole batch that holds the offset.
            records += [
                LogRecord(number, time_us, value) for number, value in found if number >= offset
            ]
        offset = max(offset, base + last + 1)
        at = end
    return records, offset


def _taken_apart(
    data: memoryview, start: int, end: int, base: int, last: int, count: int
) -> Sequence[tuple[int, bytes]]:
    """Offsets and values of a batch whose checksum is right, so that a sender made it as it is.

    Brokers do not refuse all that is wrong with its records, above all made-up offsets. A position
    must mean one thing to every reader, wherever it starts: such a batch is one empty record.
    """
    try:
        return list(_values(data, start, end, base, last, count))
    except (IndexError, ValueError):
        return [(base, b"")]


def _values(
    data: memoryview, at: int, end: int, base: int, last: int, count: int
) -> Iterator[tuple[int, bytes]]:
    """Offset and value of each record. One without a value is a foreign tombstone: it is empty."""
    before = -1
    for _ in range(count):
        length, at = decode_varint(data, at)
        after = at + length
        _, at = decode_varint(data, at + 1)
        delta, at = decode_varint(data, at)
        key, at = decode_varint(data, at)
        size, at = decode_varint(data, at + max(key, 0))
        size = max(size, 0)
        if at + size > after or after > end:
            raise ValueError("a record that is longer than it says")
        if not before < delta <= last:
            raise ValueError("an offset that is not after the one before, or beyond the batch")
        before = delta
        yield base + delta, bytes(data[at : at + size])
        at = after
    if at != end:
        raise ValueError("bytes after the last record")


def _inflated(
    codec: int, data: memoryview, base: int, last: int, count: int
) -> tuple[Sequence[tuple[int, bytes]], int]:
    """Offsets and values of a compressed batch, and its size.

    Brokers read some things that our codecs do not, and inflate anything. That is a sender's doing
    and must stop nobody: such a batch is one empty record, which is refused and counted as noise.
    """
    if count > RECORDS_MAX:
        return [(base, b"")], 0
    try:
        whole = inflate(codec, data)
    except CannotInflate:
        return [(base, b"")], INFLATED_MAX
    return _taken_apart(memoryview(whole), 0, len(whole), base, last, count), len(whole)
