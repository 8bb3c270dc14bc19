"""The log on Kafka: the distributed default.

Writing goes through kafka-python's idempotent producer, so that its retries cannot duplicate, and
one request at a time, so that a failure leaves no hole: the records of a failed call that are there
are always a prefix. No transactions: a commit of the ledger is one record. Reading is in
``kafka_reader``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import kafka.errors as errors
from kafka import KafkaProducer

from adapters.kafka_reader import KafkaReader
from domain.ports import AppendUnknown, Fetched, LogError, LogRecord, SettingsRefused

MAX_RECORD_BYTES: Final = 8 << 20
# Room for what Kafka puts around a record: batch header, lengths, varints.
_OVERHEAD: Final = 64 << 10
_RECORD_OVERHEAD: Final = 32

# One request of append_many. It is also the bound on memory: kafka-python's accumulator has none.
_CHUNK_RECORDS: Final = 2_000
_CHUNK_BYTES: Final = 4 << 20
# A fetch below this size costs as much as one of this size.
_SMALLEST_FETCH: Final = 256 << 10

# The broker judges size before it writes, and judges a retry alike: nothing was written.
_KNOWN_REFUSALS: Final = (errors.MessageSizeTooLargeError, errors.RecordListTooLargeError)

_Key = tuple[str, int]


@dataclass(slots=True)
class _Ahead:
    """Records that came with a fetch and were more than the caller wanted: the next to be read."""

    offset: int
    records: list[LogRecord]
    position: int
    next_offset: int


class KafkaLog:
    """The ``Log`` port on Kafka.

    Durable: acknowledged by all in-sync replicas. Append times are the brokers' (LogAppendTime, in
    whole ms); topics without it are refused. They are handed on as the log has them, since digests
    count them: if a broker's clock steps back, so do they.
    """

    def __init__(
        self,
        bootstrap: str,
        *,
        client_id: str,
        security: Mapping[str, object] | None = None,
        sole_writer: bool = False,
        compression: str | None = None,
        append_timeout_s: float = 10.0,
        read_timeout_s: float = 10.0,
    ) -> None:
        """Connect at first use.

        ``security`` goes to every client as it is: kafka-python's ``security_protocol``, ``ssl_*``
        and ``sasl_*``. ``sole_writer`` promises that nobody else appends to the topics read here,
        so the end is known from the own appends and a read at the end asks no broker.
        ``compression`` (lz4, zstd) is for ``append_many`` only.
        """
        self._security = dict(security or {})
        self._bootstrap = bootstrap
        self._client_id = client_id
        self._sole_writer = sole_writer
        self._compression = compression
        self._append_timeout_s = append_timeout_s
        self._reader = KafkaReader(
            bootstrap, client_id=client_id, security=self._security, timeout_s=read_timeout_s
        )
        self._single: Any = None
        self._bulk: Any = None
        self._retiring: list[Any] = []
        self._ends: dict[_Key, int] = {}
        self._doubtful: set[_Key] = set()
        self._ahead: dict[_Key, _Ahead] = {}

    # Topics

    def topic_id(self, topic: str) -> bytes:
        """Kafka's own topic id, asked anew each time."""
        return self._reader.topic(topic, fresh=True).id

    def partitions(self, topic: str) -> int:
        """How many partitions the topic has. Raises ``SettingsRefused`` if there is no topic."""
        return len(self._reader.topic(topic).leaders)

    def _require(self, topic: str, partition: int) -> None:
        if partition not in self._reader.topic(topic).leaders:
            raise SettingsRefused(f"Topic {topic} has no partition {partition}.")

    # Appends

    def append(self, topic: str, partition: int, value: bytes) -> int:
        """Append one record; see the port. Returns or raises within about the append timeout."""
        self._require(topic, partition)
        if self._single is None:
            self._single = self._producer(linger_ms=0, compression=None)
        return self._send(self._single, topic, partition, [value])[0]

    def append_many(self, topic: str, partition: int, values: Sequence[bytes]) -> Sequence[int]:
        """Append records in order, in requests of at most 2,000 records and about 4 MiB each."""
        self._require(topic, partition)
        offsets: list[int] = []
        for chunk in _chunks(values):
            if self._bulk is None:
                # It lingers until the flush, so that a chunk is one batch: there whole or not.
                linger_ms = int(self._append_timeout_s * 300)
                self._bulk = self._producer(linger_ms=linger_ms, compression=self._compression)
            try:
                offsets += self._send(self._bulk, topic, partition, chunk)
            except AppendUnknown:
                raise
            except LogError as error:
                if not offsets:
                    raise
                raise AppendUnknown(
                    f"{len(offsets)} of {len(values)} records were appended, then: {error}"
                ) from error
        return offsets

    def _send(
        self, producer: Any, topic: str, partition: int, values: Sequence[bytes]
    ) -> list[int]:
        largest = max(map(len, values))
        if largest > MAX_RECORD_BYTES:
            raise LogError(f"A record of {largest} bytes is over the {MAX_RECORD_BYTES} allowed.")
        futures: list[Any] = []
        try:
            futures.extend(producer.send(topic, value, partition=partition) for value in values)
            if producer is self._bulk:
                producer.flush(self._append_timeout_s * 2)
            # The producer's own delivery timeout comes first; this one is for a dead sender thread.
            offsets = [future.get(self._append_timeout_s * 2).offset for future in futures]
        except errors.KafkaError as error:
            self._doubt(producer, (topic, partition))
            what = f"{topic}/{partition}: {type(error).__name__} {error}"
            if not futures or isinstance(error, _KNOWN_REFUSALS):
                raise LogError(f"Nothing was appended to {what}") from error
            if isinstance(error, errors.AuthorizationError):
                # An earlier try of the same request may have been let in.
                raise AppendUnknown(f"The brokers do not let us append to {what}") from error
            raise AppendUnknown(f"The answer was lost to an append to {what}") from error
        if offsets[0] < 0:
            # The broker knew the batch for a retry, but no longer where it had put it.
            self._doubt(producer, (topic, partition))
            raise AppendUnknown(f"{topic}/{partition}: appended, at an offset that was not told.")
        self._doubtful.discard((topic, partition))
        self._know_end((topic, partition), offsets[-1] + 1)
        return offsets

    def _know_end(self, key: _Key, end: int) -> None:
        if self._sole_writer and key not in self._doubtful:
            self._ends[key] = end

    def _doubt(self, producer: Any, key: _Key) -> None:
        """Believe no end until the next append: what was sent may still land after a look."""
        self._doubtful.add(key)
        self._ends.pop(key, None)
        self._retire(producer)

    def _producer(self, *, linger_ms: int, compression: str | None) -> Any:
        while self._retiring:
            # Until it has stopped, a retry of its last record could still land behind a new one.
            self._close(self._retiring[-1])
            self._retiring.pop()
        timeout_ms = int(self._append_timeout_s * 1000)
        try:
            return KafkaProducer(
                **self._security,
                bootstrap_servers=self._bootstrap,
                client_id=self._client_id,
                enable_idempotence=True,
                acks="all",
                linger_ms=linger_ms,
                compression_type=compression,
                batch_size=MAX_RECORD_BYTES,
                max_request_size=MAX_RECORD_BYTES + _OVERHEAD,
                allow_auto_create_topics=False,
                max_block_ms=timeout_ms,
                request_timeout_ms=timeout_ms * 4 // 10,
                delivery_timeout_ms=timeout_ms,
                bootstrap_timeout_ms=timeout_ms,
                reconnect_backoff_max_ms=1000,
                metrics_enabled=False,
            )
        except errors.KafkaError as error:
            raise LogError(f"No producer: {type(error).__name__} {error}") from error

    def _retire(self, producer: Any) -> None:
        """Stop a producer that failed: its state after a failure is not to be trusted."""
        if producer is self._single:
            self._single = None
        else:
            self._bulk = None
        try:
            self._close(producer)
        except LogError:
            self._retiring.append(producer)

    def _close(self, producer: Any) -> None:
        try:
            producer.close(timeout=1.0)
        except errors.KafkaError as error:
            raise LogError(f"A producer that failed does not stop: {error}") from error

    # Reads

    def read(
        self, topic: str, partition: int, offset: int, *, max_bytes: int, wait_s: float = 0.0
    ) -> Fetched:
        """Records from ``offset`` on; see the port."""
        key = (topic, partition)
        if not wait_s and self._ends.get(key) == offset:
            return Fetched((), offset)
        ahead = self._ahead.get(key)
        if ahead is None or ahead.offset != offset:
            chunk = self._reader.fetch(
                topic, partition, offset, max_bytes=max(max_bytes, _SMALLEST_FETCH), wait_s=wait_s
            )
            self._know_end(key, chunk.end)
            ahead = _Ahead(offset, chunk.records, 0, chunk.next_offset)
            self._ahead[key] = ahead
        return self._serve(key, ahead, max_bytes)

    def _serve(self, key: _Key, ahead: _Ahead, max_bytes: int) -> Fetched:
        first = position = ahead.position
        records = ahead.records
        size = 0
        while position < len(records):
            size += len(records[position].value)
            if size > max_bytes and position > first:
                ahead.position = position
                ahead.offset = records[position - 1].offset + 1
                return Fetched(records[first:position], ahead.offset)
            position += 1
        del self._ahead[key]
        return Fetched(records[first:] if first else records, ahead.next_offset)

    def end(self, topic: str, partition: int) -> int:
        """The offset that the next record would get."""
        known = self._ends.get((topic, partition))
        if known is not None:
            return known
        end = self._reader.end(topic, partition)
        self._know_end((topic, partition), end)
        return end

    def start(self, topic: str, partition: int) -> int:
        """The first offset still kept (0 unless retention deleted some)."""
        return self._reader.start(topic, partition)

    def close(self) -> None:
        """Close the producers and connections. Nothing is in flight between calls."""
        for producer in (self._single, self._bulk, *self._retiring):
            if producer is not None:
                self._close(producer)
        self._single = self._bulk = None
        self._retiring.clear()
        self._reader.close()


def _chunks(values: Sequence[bytes]) -> list[list[bytes]]:
    """Cut into chunks of at most 2,000 records and about 4 MiB; a larger record goes alone."""
    chunks: list[list[bytes]] = []
    size = 0
    for value in values:
        needed = len(value) + _RECORD_OVERHEAD
        if not chunks or size + needed > _CHUNK_BYTES or len(chunks[-1]) == _CHUNK_RECORDS:
            chunks.append([])
            size = 0
        chunks[-1].append(value)
        size += needed
    return chunks
