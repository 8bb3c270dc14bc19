"""Reads of Kafka partitions as plain questions and answers, without a consumer's state.

A ``KafkaConsumer`` fetches ahead, in a thread of its own, from one position per partition. Several
processors read one ledger at different positions, and each asks "what is there now?"; a seek behind
a fetch that waits for data stalls them. So a read here is one Fetch request to the partition's
leader, on the caller's thread, over kafka-python's connections. It is also many times cheaper per
record, and an answer holds the log's end, so no second request asks for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import kafka.errors as errors
from kafka.protocol.consumer import ListOffsetsRequest
from kafka.protocol.metadata import MetadataRequest

from adapters.kafka_batches import parse_batches
from adapters.kafka_exchange import Exchange, decoded
from adapters.kafka_fetch import FetchAnswer, fetch_answer, fetch_request
from adapters.kafka_tls import failed
from domain.ports import LogError, LogRecord, LogTruncated, SettingsRefused

_EARLIEST: Final = -2
_LATEST: Final = -1
_READ_UNCOMMITTED: Final = 0
_LONGEST_POLL_S: Final = 5.0
_LARGEST_ANSWER: Final = 256 << 20
_RETRY_NAP_S: Final = 0.05

_Ask = Callable[[int], Any]
_Pick = Callable[[Any, memoryview], Any]


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
            "request_timeout_ms": int(timeout_s * 1000),
            # A broker that comes back is wanted within a second, not within the default thirty.
            "reconnect_backoff_max_ms": 1000,
        }
        self._exchange: Exchange | None = None
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
            records, after = parse_batches(f"{topic}/{partition}", answer.batches, offset)
            chunk = Chunk(records, after, answer.end)
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
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.close()

    # How they are asked

    def _fetch_once(
        self, topic: str, partition: int, offset: int, max_bytes: int, poll_s: float
    ) -> FetchAnswer:
        def ask(leader_epoch: int) -> Any:
            return fetch_request(
                self._followed(topic),
                partition,
                offset,
                leader_epoch=leader_epoch,
                max_bytes=max_bytes,
                wait_ms=int(poll_s * 1000),
            )

        def pick(_: Any, frame: memoryview) -> FetchAnswer:
            return fetch_answer(frame)

        answer: FetchAnswer = self._ask(topic, partition, ask, pick, poll_s)
        return answer

    def _followed(self, topic: str) -> bytes:
        """The id of a topic, which stays that of the first read: offsets belong to it."""
        found = self.topic(topic).id
        if self._ids.setdefault(topic, found) != found:
            raise LogTruncated(f"Topic {topic} was deleted and made again since it was read.")
        return found

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

        def pick(request: Any, frame: memoryview) -> Any:
            return decoded(request, frame).topics[0].partitions[0]

        return int(self._ask(topic, partition, ask, pick, 0.0).offset)

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
                answer = self._send(ask(leader_epoch), node, deadline, pick)
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
        request = MetadataRequest(
            topics=[MetadataRequest.MetadataRequestTopic(name=name)],
            # A topic that a broker makes up has its defaults, which are weaker than ours.
            allow_auto_topic_creation=False,
            include_cluster_authorized_operations=False,
            include_topic_authorized_operations=False,
            min_version=10,
        )
        answer = self._send(request, None, deadline, decoded)
        self._connected(deadline).learn(answer)
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

    def _send(self, request: Any, node: int | None, deadline: float, pick: _Pick) -> Any:
        return pick(request, self._connected(deadline).ask(request, node, deadline))

    def _connected(self, deadline: float) -> Exchange:
        if self._exchange is None:
            timeout_s = max(0.001, deadline - time.monotonic())
            self._exchange = Exchange(self._config, largest=_LARGEST_ANSWER, timeout_s=timeout_s)
        return self._exchange
