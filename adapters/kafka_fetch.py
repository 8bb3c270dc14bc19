"""The Fetch request for one partition, and its answer read without a copy of the records.

Only version 13 is spoken (Kafka 3.1 and later): the first that names topics by id, so that one that
was made again is not taken for the old.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from kafka.errors import KafkaProtocolError
from kafka.protocol.consumer import FetchRequest

VERSION: Final = 13
_READ_UNCOMMITTED: Final = 0
# The header: request number, no tags. Then throttle time, error, session.
_HEAD: Final = struct.Struct(">ixihi")
# Number, error, high watermark, last stable offset, start offset.
_PARTITION: Final = struct.Struct(">ihqqq")
_TOPIC_ID_BYTES: Final = 16
_ABORTED_BYTES: Final = 17
_REPLICA_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class FetchAnswer:
    """What a broker says of a partition: an error (0: none), its end, and record batches."""

    error_code: int
    end: int
    batches: memoryview


def fetch_request(
    topic_id: bytes, partition: int, offset: int, *, leader_epoch: int, max_bytes: int, wait_ms: int
) -> Any:
    """Ask for what a partition has from an offset on."""
    wanted = FetchRequest.FetchTopic.FetchPartition(
        partition=partition,
        current_leader_epoch=leader_epoch,
        fetch_offset=offset,
        last_fetched_epoch=-1,
        partition_max_bytes=max_bytes,
    )
    return FetchRequest(
        max_wait_ms=wait_ms,
        min_bytes=1,
        max_bytes=max_bytes,
        isolation_level=_READ_UNCOMMITTED,
        session_id=0,
        session_epoch=-1,
        topics=[FetchRequest.FetchTopic(topic_id=UUID(bytes=topic_id), partitions=[wanted])],
        forgotten_topics_data=[],
        rack_id="",
        min_version=VERSION,
        max_version=VERSION,
    )


def fetch_answer(frame: memoryview) -> FetchAnswer:
    """Read the answer to ``fetch_request``. Raises ``KafkaProtocolError``."""
    try:
        _, _, error, _ = _HEAD.unpack_from(frame)
        topics, at = _count(frame, _HEAD.size)
        if error or not topics:
            return FetchAnswer(error, -1, frame[:0])
        partitions, at = _count(frame, at + _TOPIC_ID_BYTES)
        _, error, end, _, _ = _PARTITION.unpack_from(frame, at)
        aborted, at = _count(frame, at + _PARTITION.size)
        length, at = _count(frame, at + max(aborted, 0) * _ABORTED_BYTES + _REPLICA_BYTES)
    except (IndexError, struct.error) as cut:
        raise KafkaProtocolError("a fetch answer that ends too soon") from cut
    if (topics, partitions) != (1, 1) or at + length > len(frame):
        raise KafkaProtocolError("a fetch answer to another question")
    return FetchAnswer(error, end, frame[at : at + max(length, 0)])


def _count(data: memoryview, at: int) -> tuple[int, int]:
    """A compact count, which is stored one higher (-1: null), and where it ends."""
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return number - 1, at
