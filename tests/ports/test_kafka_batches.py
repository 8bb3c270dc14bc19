"""Record batches and fetch answers are read as kafka-python reads them; bad ones are refused."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
from collections.abc import Callable, Sequence
from uuid import UUID

import cramjam
import lz4.frame
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from kafka.errors import KafkaProtocolError
from kafka.protocol.consumer import FetchResponse
from kafka.record import MemoryRecords
from kafka.record.default_records import DefaultRecordBatchBuilder
from kafka.record.util import calc_crc32c

from adapters.kafka_batches import parse_batches
from adapters.kafka_codecs import INFLATED_MAX, RECORDS_MAX
from adapters.kafka_fetch import VERSION, fetch_answer
from domain.ports import LogError

LOG_APPEND_TIME = 0x08
LENGTH_AT, CRC_AT, ATTRIBUTES_AT, TIME_AT, HEAD_BYTES = 8, 17, 21, 35, 61
NEWEST_MS = 1_700_000_000_123
GZIP, SNAPPY, LZ4, ZSTANDARD = 1, 2, 3, 4
#: The library's parser is the oracle of these; it has no Snappy here.
THE_LIBRARYS = [0, GZIP, LZ4, ZSTANDARD]

Foreign = tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]]]

Packer = Callable[[bytes], bytes]

FOREIGN = st.tuples(
    st.none() | st.binary(max_size=80),
    st.none() | st.binary(max_size=300),
    st.lists(st.tuples(st.text(max_size=8), st.none() | st.binary(max_size=20)), max_size=3),
)


def sealed(batch: bytearray) -> bytes:
    """The batch with the checksum that its bytes have."""
    struct.pack_into(">I", batch, CRC_AT, calc_crc32c(memoryview(batch)[ATTRIBUTES_AT:]))
    return bytes(batch)


def batch_of(base: int, records: Sequence[Foreign], compression: int = 0) -> bytes:
    """A batch as a broker keeps it: base offset and append time are the broker's."""
    builder = DefaultRecordBatchBuilder(2, compression, False, -1, -1, -1, 1 << 20)
    for offset, (key, value, headers) in enumerate(records):
        builder.append(offset, 1000 + offset, key, value, headers)
    batch = bytearray(builder.build())
    struct.pack_into(">q", batch, 0, base)
    struct.pack_into(">q", batch, TIME_AT, NEWEST_MS)
    batch[ATTRIBUTES_AT + 1] |= LOG_APPEND_TIME
    return sealed(batch)


@given(
    st.lists(st.lists(FOREIGN, min_size=1, max_size=6), min_size=1, max_size=4),
    st.sampled_from(THE_LIBRARYS),
    st.data(),
)
def test_batches_are_read_as_the_library_reads_them(
    batches: list[list[Foreign]], compression: int, data: st.DataObject
) -> None:
    """Any keys, values and headers, compressed or not, from any offset, cut off at any byte."""
    base, stored = 10, b""
    for records in batches:
        stored += batch_of(base, records, compression)
        base += len(records)
    stored = stored[: data.draw(st.integers(0, len(stored)), "cut")]
    first = data.draw(st.integers(0, base + 1), "first")
    expected = []
    after = first
    whole = MemoryRecords(stored)
    while (batch := whole.next_batch()) is not None:
        expected += [(r.offset, r.value or b"") for r in batch if r.offset >= first]
        after = max(after, batch.next_offset)
    found, found_after = parse_batches("t/0", memoryview(stored), first)
    assert [(record.offset, record.value) for record in found] == expected
    assert {record.time_us for record in found} <= {NEWEST_MS * 1000}
    assert found_after == after


def packed(base: int, records: Sequence[Foreign], codec: int, pack: Packer) -> bytes:
    """A batch whose records are compressed by hand."""
    plain = bytearray(batch_of(base, records))
    batch = plain[:HEAD_BYTES] + pack(bytes(plain[HEAD_BYTES:]))
    struct.pack_into(">i", batch, LENGTH_AT, len(batch) - LENGTH_AT - 4)
    batch[ATTRIBUTES_AT + 1] |= codec
    return sealed(batch)


def snappy(data: bytes) -> bytes:
    """As librdkafka writes it."""
    return bytes(cramjam.snappy.compress_raw(data))


def xerial(data: bytes) -> bytes:
    """As producers in Java write it: a head, and blocks with their lengths."""
    blocks = [snappy(data[at : at + 64]) for at in range(0, len(data), 64)]
    return (
        b"\x82SNAPPY\x00"
        + struct.pack(">ii", 1, 1)
        + b"".join(struct.pack(">i", len(block)) + block for block in blocks)
    )


PACKERS: list[tuple[int, Packer]] = [
    (GZIP, gzip.compress),
    (SNAPPY, snappy),
    (SNAPPY, xerial),
    (LZ4, lz4.frame.compress),
    (ZSTANDARD, zstandard.compress),
]


@given(st.lists(FOREIGN, min_size=1, max_size=6), st.sampled_from(PACKERS))
def test_every_codec_of_kafka_is_read(records: list[Foreign], packer: tuple[int, Packer]) -> None:
    """Whatever a foreign producer compresses with, the records are those that it sent."""
    plain, _ = parse_batches("t/0", memoryview(batch_of(7, records)), 7)
    found, after = parse_batches("t/0", memoryview(packed(7, records, *packer)), 7)
    assert (found, after) == (plain, 7 + len(records))


@pytest.mark.parametrize(("codec", "pack"), PACKERS)
def test_a_batch_that_inflates_beyond_any_sense_is_one_record_without_a_value(
    codec: int, pack: Packer
) -> None:
    """No more is inflated than the limit, however many of them a read has; none stops a reader."""
    if pack is xerial:
        pack = _xerial_of_large_blocks
    bomb = bytearray(packed(0, [(None, bytes(3 * INFLATED_MAX), [])], codec, pack))
    stored = b""
    for base in range(3, 43):
        struct.pack_into(">q", bomb, 0, base)
        stored += bomb
    data = memoryview(stored + batch_of(43, [(None, b"after it", [])]))
    tracemalloc.start()
    found, after = parse_batches("t/0", data, 3)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [(record.offset, record.value) for record in found] == [(3, b""), (4, b"")]
    assert after == 5
    assert parse_batches("t/0", data, 43)[0][-1].value == b"after it"
    assert peak < 4 * INFLATED_MAX


@pytest.mark.parametrize(("codec", "pack"), PACKERS)
@pytest.mark.parametrize("over", [0, 1])
def test_a_batch_of_more_records_than_any_sender_has_is_one_without_a_value(
    codec: int, pack: Packer, over: int
) -> None:
    """However small they are: each costs more here than there."""
    bomb = packed(3, [(None, b"", [])] * (RECORDS_MAX + over), codec, pack)
    data = memoryview(bytes(bomb) + batch_of(3 + RECORDS_MAX + over, [(None, b"after", [])]))
    found, after = parse_batches("t/0", data, 3)
    assert (found[0].offset, found[0].value) == (3, b"")
    assert (found[-1].offset, found[-1].value) == (3 + RECORDS_MAX + over, b"after")
    assert len(found) == (2 if over else RECORDS_MAX + 1)
    assert after == 4 + RECORDS_MAX + over


def _xerial_of_large_blocks(data: bytes) -> bytes:
    size = INFLATED_MAX // 2
    blocks = [snappy(data[at : at + size]) for at in range(0, len(data), size)]
    return (
        b"\x82SNAPPY\x00"
        + struct.pack(">ii", 1, 1)
        + b"".join(struct.pack(">i", len(block)) + block for block in blocks)
    )


#: Positions within a batch as a broker stores them, if a sender says so: it checks their number.
DELTAS = st.lists(st.integers(-3, 6) | st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=5)


@given(DELTAS, st.sampled_from(["plain", *PACKERS]), st.data())
def test_a_position_means_one_thing_wherever_a_reader_starts(
    deltas: list[int], packer: str | tuple[int, Packer], data: st.DataObject
) -> None:
    """Brokers store whatever offsets a sender gives the records of a batch, twice or far ahead."""
    batch = bytearray(batch_of(7, [(None, b"", [])] * len(deltas)))
    builder = DefaultRecordBatchBuilder(2, 0, False, -1, -1, -1, 1 << 20)
    for number, delta in enumerate(deltas):
        builder.append(delta, 1000, None, b"value %d" % number, [])
    body = bytes(builder.build())[HEAD_BYTES:]
    if isinstance(packer, tuple):
        batch[ATTRIBUTES_AT + 1] |= packer[0]
        body = packer[1](body)
    batch[HEAD_BYTES:] = body
    struct.pack_into(">i", batch, LENGTH_AT, len(batch) - LENGTH_AT - 4)
    stored = memoryview(sealed(batch) + batch_of(7 + len(deltas), [(None, b"after", [])]))
    found, after = parse_batches("t/0", stored, 7)
    assert after == 8 + len(deltas)
    if deltas == list(range(len(deltas))):
        assert [record.value for record in found[:-1]] == [b"value %d" % n for n in deltas]
    offsets = [record.offset for record in found]
    assert offsets == sorted(set(offsets))
    assert {*offsets} <= {*range(7, after)}
    start = data.draw(st.integers(7, after), "start")
    expected = [record for record in found if record.offset >= start]
    assert parse_batches("t/0", stored, start) == (expected, after)


@given(
    st.lists(FOREIGN, min_size=1, max_size=4),
    st.sampled_from([*PACKERS, (0, bytes)]),
    st.data(),
)
def test_bytes_that_nobody_can_read_stop_no_reader(
    records: list[Foreign], packer: tuple[int, Packer], data: st.DataObject
) -> None:
    """Behind a right checksum, so a sender did it: as many records in order, or an empty one."""
    batch = bytearray(packed(0, records, *packer))
    for _ in range(data.draw(st.integers(1, 3), "changes")):
        batch[data.draw(st.integers(HEAD_BYTES, len(batch) - 1))] = data.draw(st.integers(0, 255))
    found, after = parse_batches("t/0", memoryview(sealed(batch)), 0)
    assert after == len(records)
    offsets = [record.offset for record in found]
    assert offsets == list(range(len(records))) or [r.value for r in found] == [b""]


@pytest.mark.parametrize("twice", [gzip.compress, zstandard.compress])
def test_streams_that_a_broker_reads_one_after_the_other_stop_no_reader(twice: Packer) -> None:
    """Java reads on after the first stream of a batch; here the batch is one empty record."""
    batch = packed(
        5,
        [(None, b"v", [])] * 4,
        GZIP if twice is gzip.compress else ZSTANDARD,
        (lambda data: twice(data[:9]) + twice(data[9:])),
    )
    found, after = parse_batches("t/0", memoryview(batch), 5)
    assert ([(record.offset, record.value) for record in found], after) == ([(5, b"")], 9)


@given(st.lists(FOREIGN, min_size=1, max_size=4), st.data())
def test_bytes_that_are_no_batch_are_a_log_error(
    records: list[Foreign], data: st.DataObject
) -> None:
    """Whatever stands behind a right checksum: it is read, or it is an error by name."""
    batch = bytearray(batch_of(0, records))
    for _ in range(data.draw(st.integers(1, 3), "changes")):
        batch[data.draw(st.integers(ATTRIBUTES_AT + 2, len(batch) - 1))] = data.draw(
            st.integers(0, 255)
        )
    try:
        found, _ = parse_batches("t/0", memoryview(sealed(batch)), 0)
    except LogError:
        return
    assert all(isinstance(record.value, bytes) for record in found)


def test_a_changed_byte_fails_the_checksum() -> None:
    """No byte of a stored batch can change unseen."""
    stored = bytearray(batch_of(0, [(None, b"a value", [])]))
    stored[-3] ^= 1
    with pytest.raises(LogError, match="corrupt batch"):
        parse_batches("t/0", memoryview(stored), 0)


def answer_of(error: int, records: bytes | None, partitions: int = 1) -> bytes:
    """A fetch answer as a broker encodes it, behind its header."""
    part = FetchResponse.FetchableTopicResponse.PartitionData
    answer = FetchResponse(
        throttle_time_ms=7,
        error_code=0,
        session_id=0,
        responses=[
            FetchResponse.FetchableTopicResponse(
                topic_id=UUID(bytes=bytes(range(16))),
                partitions=[
                    part(
                        partition_index=number,
                        error_code=error,
                        high_watermark=77,
                        last_stable_offset=70,
                        log_start_offset=3,
                        aborted_transactions=None,
                        preferred_read_replica=-1,
                        records=records,
                    )
                    for number in range(partitions)
                ],
            )
        ],
    )
    return struct.pack(">ix", 5) + bytes(answer.encode(version=VERSION))


@pytest.mark.parametrize("records", [None, b"", b"x", b"many" * 100_000])
def test_a_fetch_answer_is_read_without_a_copy(records: bytes | None) -> None:
    """The end, the error, and the records as a part of the frame."""
    frame = answer_of(0, records)
    found = fetch_answer(memoryview(frame))
    assert (found.error_code, found.end, bytes(found.batches)) == (0, 77, records or b"")
    assert found.batches.obj is frame
    assert fetch_answer(memoryview(answer_of(6, None))).error_code == 6


def test_a_fetch_answer_that_is_cut_or_to_another_question_is_refused() -> None:
    """By name, so that the connection is opened anew."""
    frame = answer_of(0, b"records")
    for size in range(len(frame) - 3):
        with pytest.raises(KafkaProtocolError):
            fetch_answer(memoryview(frame[:size]))
    with pytest.raises(KafkaProtocolError, match="another question"):
        fetch_answer(memoryview(answer_of(0, b"r", partitions=2)))
