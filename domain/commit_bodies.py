"""The commits on a ledger as their envelopes say, for those who need not know which of them count.

What counts is for ``domain.chain`` to judge; this is for a ledger that its reader has just written,
or that is judged elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from domain.codec import Codec
from domain.commit import CommitBody, body_of, parse
from domain.ports import Log, LogRecord

_READ_BYTES: Final = 4 * 1024 * 1024


def commit_bodies(
    log: Log, codec: Codec, topic: str, partition: int, first: int
) -> Iterator[tuple[LogRecord, CommitBody]]:
    """Each record from an offset on that has an envelope, and its body. Raises ``CodecError``."""
    while (fetched := log.read(topic, partition, first, max_bytes=_READ_BYTES)).next_offset > first:
        first = fetched.next_offset
        for record in fetched.records:
            envelope = parse(record.value)
            if envelope is not None:
                yield record, codec.decode(CommitBody, body_of(record.value, envelope))
