"""Reads of Kafka partitions as plain questions and answers, without a consumer's state.

A ``KafkaConsumer`` fetches ahead, in a thread of its own, from one position per partition. Several
processors read one ledger at different positions, and each asks "what is there now?"; a seek behind
a fetch that waits for data stalls them. So a read here is one Fetch request to the partition's
leader, on the caller's thread, over kafka-python's connections and record parser. It is also three
times cheaper per record, and an answer holds the log's end, so no second request asks for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import kafka.errors as errors
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector
from kafka.protocol.consumer import FetchRequest, ListOffsetsRequest
from kafka.protocol.metadata import MetadataRequest
from kafka.record import MemoryRecords

from adapters.kafka_tls import failed
from domain.ports import LogError, LogRecord, LogTruncated, SettingsRefused

_EARLIEST: Final = -2
_LATEST: Final = -1
_READ_UNCOMMITTED: Final = 0
# The first Fetch version that names topics by id: one that was made again is not taken for the old.
_MAX_FETCH_VERSION: Final = 13
_LOG_APPEND_TIME: Final = 1
_LONGEST_POLL_S: Final = 5.0
_LARGEST_ANSWER: Final = 256 << 20
_RETRY_NAP_S: Final = 0.05

_Ask = Callable[[int], Any]
_Pick = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class TopicFacts:
    """A topic as the brokers describe it: its id and each partition's leader and leader epoch."""

    id: bytes
    leaders: Mapping[int, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one fetch brought: records, the offset after them, and the partition's end then."""

    records: list[LogRecord]
    next_offset: int
    end: int


class KafkaReader:
    """Metadata, offsets and records of partitions, for one thread; nothing runs between calls.

    What may be asked again is, with fresh metadata, for up to ``timeout_s``; then ``LogError``.
    """

    def __init__(
        self, bootstrap: str, *, client_id: str, security: Mapping[str, object], timeout_s: float
    ) -> None:
        """Connect at the first question, so a broker that is down is the question's error."""
        self._timeout_s = timeout_s
        self._bootstrap = bootstrap
        self._security = security
        self._config: dict[str, object] = {
            **security,
            "bootstrap_servers": bootstrap,
            "client_id": client_id,
            "receive_message_max_bytes": _LARGEST_ANSWER,
            "request_timeout_ms": int(timeout_s * 1000),
            # A broker that comes back is wanted within a second, not within the default thirty.
            "reconnect_backoff_max_ms": 1000,
        }
        self._net: Any = None
        self._manager: Any = None
        self._topics: dict[str, TopicFacts] = {}
        self._ids: dict[str, bytes] = {}

    # Questions

    def topic(self, name: str, *, fresh: bool = False) -> TopicFacts:
        """The topic's facts. Raises ``SettingsRefused`` if there is no such topic."""
        known = self._topics.get(name)
        if known is not None and not fresh:
            return known
        deadline = time.monotonic() + self._timeout_s
        while True:
            try:
                return self._describe(name, deadline)
            except errors.KafkaError as error:
                self._pause_or_fail(error, f"The brokers do not describe topic {name}", deadline)

    def fetch(
        self, topic: str, partition: int, offset: int, *, max_bytes: int, wait_s: float
    ) -> Chunk:
        """Records from ``offset`` on, in whole batches; waits up to ``wait_s`` for the first.

        Raises ``LogTruncated`` beyond the end, and ``LogError`` before the start.
        """
        deadline = time.monotonic() + wait_s
        while True:
            poll_s = max(0.0, min(deadline - time.monotonic(), _LONGEST_POLL_S))
            try:
                answer = self._fetch_once(topic, partition, offset, max_bytes, poll_s)
            except errors.OffsetOutOfRangeError:
                self._refuse_out_of_range(topic, partition, offset)
                raise LogError(
                    f"{topic}/{partition} had no offset {offset} for a moment."
                ) from None
            records, after = _parse(topic, partition, answer.records, offset)
            chunk = Chunk(records, after, answer.high_watermark)
            if records:
                return chunk
            # Offsets without records moved the position: what comes after them is wanted.
            moved, offset = after > offset, after
            if not (moved and after < chunk.end) and time.monotonic() >= deadline:
                return chunk

    def start(self, topic: str, partition: int) -> int:
        """The first offset still kept."""
        return self._offset_at(topic, partition, _EARLIEST)

    def end(self, topic: str, partition: int) -> int:
        """The offset that the next record would get."""
        return self._offset_at(topic, partition, _LATEST)

    def close(self) -> None:
        """Close the connections; the next question opens them again."""
        if self._manager is not None:
            self._manager.close()
            self._net.close()
            self._manager = self._net = None

    # How they are asked

    def _fetch_once(
        self, topic: str, partition: int, offset: int, max_bytes: int, poll_s: float
    ) -> Any:
        def ask(leader_epoch: int) -> Any:
            wanted = FetchRequest.FetchTopic.FetchPartition(
                partition=partition,
                current_leader_epoch=leader_epoch,
                fetch_offset=offset,
                last_fetched_epoch=-1,
                partition_max_bytes=max_bytes,
            )
            return FetchRequest(
                max_wait_ms=int(poll_s * 1000),
                min_bytes=1,
                max_bytes=max_bytes,
                isolation_level=_READ_UNCOMMITTED,
                session_id=0,
                session_epoch=-1,
                topics=[
                    FetchRequest.FetchTopic(
                        topic=topic, topic_id=self._followed(topic), partitions=[wanted]
                    )
                ],
                forgotten_topics_data=[],
                rack_id="",
                min_version=4,
                max_version=_MAX_FETCH_VERSION,
            )

        return self._ask(
            topic, partition, ask, lambda answer: answer.responses[0].partitions[0], poll_s
        )

    def _followed(self, topic: str) -> UUID:
        """The id of a topic, which stays that of the first read: offsets belong to it."""
        found = self.topic(topic).id
        if self._ids.setdefault(topic, found) != found:
            raise LogTruncated(f"Topic {topic} was deleted and made again since it was read.")
        return UUID(bytes=found)

    def _offset_at(self, topic: str, partition: int, timestamp: int) -> int:
        def ask(leader_epoch: int) -> Any:
            wanted = ListOffsetsRequest.ListOffsetsTopic.ListOffsetsPartition(
                partition_index=partition,
                current_leader_epoch=leader_epoch,
                timestamp=timestamp,
            )
            return ListOffsetsRequest(
                replica_id=-1,
                isolation_level=_READ_UNCOMMITTED,
                topics=[ListOffsetsRequest.ListOffsetsTopic(name=topic, partitions=[wanted])],
                min_version=1,
                max_version=7,
            )

        found = self._ask(topic, partition, ask, lambda answer: answer.topics[0].partitions[0], 0.0)
        return int(found.offset)

    def _ask(
        self, topic: str, partition: int, ask: _Ask, pick: _Pick, broker_waits_s: float
    ) -> Any:
        """Put a question to the partition's leader until it answers or the time is up."""
        deadline = time.monotonic() + self._timeout_s + broker_waits_s
        while True:
            leaders = self.topic(topic).leaders
            if partition not in leaders:
                raise SettingsRefused(f"Topic {topic} has no partition {partition}.")
            node, leader_epoch = leaders[partition]
            try:
                answer = pick(self._send(ask(leader_epoch), node, deadline))
                if answer.error_code == 0:
                    return answer
                raise errors.for_code(answer.error_code)()
            except errors.OffsetOutOfRangeError:
                raise
            except errors.KafkaError as error:
                self._topics.pop(topic, None)
                self._pause_or_fail(error, f"{topic}/{partition} cannot be read", deadline)

    def _pause_or_fail(self, error: errors.KafkaError, what: str, deadline: float) -> None:
        retriable = isinstance(error, (errors.RetriableError, errors.UnknownBrokerIdError))
        if not retriable or time.monotonic() + _RETRY_NAP_S >= deadline:
            # The brokers' addresses may have changed for good; start over from the bootstrap list.
            self.close()
            why = failed(error, self._bootstrap, self._security)
            raise LogError(f"{what}: {why}") from error
        time.sleep(_RETRY_NAP_S)

    def _refuse_out_of_range(self, topic: str, partition: int, offset: int) -> None:
        start, end = self.start(topic, partition), self.end(topic, partition)
        if offset > end:
            raise LogTruncated(f"{topic}/{partition} ends at {end}, before the offset {offset}.")
        if offset < start:
            raise LogError(f"{topic}/{partition} starts at {start}, after the offset {offset}.")

    def _describe(self, name: str, deadline: float) -> TopicFacts:
        manager = self._connected(deadline)
        request = MetadataRequest(
            topics=[MetadataRequest.MetadataRequestTopic(name=name)],
            # A topic that a broker makes up has its defaults, which are weaker than ours.
            allow_auto_topic_creation=False,
            include_cluster_authorized_operations=False,
            include_topic_authorized_operations=False,
            min_version=10,
        )
        answer = self._send(request, None, deadline)
        manager.cluster.update_metadata(answer)
        (found,) = answer.topics
        error = errors.for_code(found.error_code)
        if error is errors.UnknownTopicOrPartitionError:
            self._topics.pop(name, None)
            raise SettingsRefused(f"Topic {name} does not exist on the brokers.")
        if found.error_code:
            raise error()
        leaders = {p.partition_index: (p.leader_id, p.leader_epoch) for p in found.partitions}
        facts = TopicFacts(id=found.topic_id.bytes, leaders=leaders)
        self._topics[name] = facts
        return facts

    def _send(self, request: Any, node: int | None, deadline: float) -> Any:
        manager = self._connected(deadline)
        left_ms = max(1, int((deadline - time.monotonic()) * 1000))

        async def answer() -> Any:
            return await manager.send(request, node_id=node, request_timeout_ms=left_ms)

        return manager.run(answer)

    def _connected(self, deadline: float) -> Any:
        if self._manager is None:
            self._net = NetworkSelector(**self._config)
            self._manager = KafkaConnectionManager(self._net, **self._config)
            self._manager.bootstrap(max(1, int((deadline - time.monotonic()) * 1000)))
        return self._manager


def _parse(
    topic: str, partition: int, data: bytes | None, offset: int
) -> tuple[list[LogRecord], int]:
    """The records from ``offset`` on, and the offset after the last batch, whatever it holds."""
    records: list[LogRecord] = []
    batches = MemoryRecords(data or b"")
    while (batch := batches.next_batch()) is not None:
        if batch.magic != 2 or not batch.validate_crc():
            raise LogError(f"{topic}/{partition} has a corrupt batch after offset {offset}.")
        if not batch.is_control_batch:
            if batch.timestamp_type != _LOG_APPEND_TIME:
                raise SettingsRefused(
                    f"Topic {topic}: message.timestamp.type was CreateTime at offset"
                    f" {batch.base_offset}, must be LogAppendTime."
                )
            time_us = batch.max_timestamp * 1000
            # The answer begins with the whole batch that holds the offset. A record without a value
            # is a foreign tombstone, and as good as an empty one.
            records.extend(
                LogRecord(record.offset, time_us, record.value or b"")
                for record in batch
                if record.offset >= offset
            )
        offset = max(offset, batch.next_offset)
    return records, offset
