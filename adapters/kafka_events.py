"""The topic ``synor.events.v1``: records with headers, appended in batches and read back at start.

What has been published stands on the topic itself: each record carries where every ledger stood
before and after its batch. So a publisher that starts finds the last batch in the tail, and knows
of each of its events whether it is there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import kafka.errors as errors
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from adapters.kafka_tls import failed
from domain.commit import EVENTS_TOPIC
from domain.ports import LogError, SettingsRefused

BEFORE: Final = "synor_before"
AFTER: Final = "synor_after"
ID: Final = "ce_id"
_OURS: Final = frozenset({BEFORE, AFTER, ID})
_WITHIN_S: Final = 10.0
_TAIL: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """One record on its way."""

    partition: int
    key: bytes
    headers: Mapping[str, bytes]
    value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Tail:
    """The last batch: where the ledgers stood before and after it, and what of it is there.

    Heights, each the next, joined by commas; empty where nothing was published yet.
    """

    before: bytes = b""
    after: bytes = b""
    ids: frozenset[str] = frozenset()


class KafkaEvents:
    """The topic, for one publisher."""

    def __init__(self, bootstrap: str, *, security: Mapping[str, object]) -> None:
        """Connect. Raises ``LogError`` if no broker lets us in, ``SettingsRefused`` of no topic."""
        within_ms = int(_WITHIN_S * 1000)
        common: dict[str, Any] = {
            **security,
            "bootstrap_servers": bootstrap,
            "client_id": "synor-events",
            "bootstrap_timeout_ms": within_ms,
        }
        try:
            self._consumer: Any = KafkaConsumer(
                **common, enable_auto_commit=False, isolation_level="read_uncommitted"
            )
            self._producer: Any = KafkaProducer(
                **common,
                enable_idempotence=True,
                acks="all",
                linger_ms=5,
                allow_auto_create_topics=False,
                max_block_ms=within_ms,
                delivery_timeout_ms=within_ms,
                request_timeout_ms=within_ms * 4 // 10,
            )
            found = self._consumer.partitions_for_topic(EVENTS_TOPIC)
        except errors.KafkaError as error:
            why = failed(error, bootstrap, security)
            raise LogError(f"No broker at {bootstrap}: {why}") from error
        if not found:
            raise SettingsRefused(
                f"Topic {EVENTS_TOPIC} does not exist on the brokers: synor topics create"
            )
        self.partitions = len(found)

    def tail(self) -> Tail:
        """The last batch, as far as it is there."""
        places = [TopicPartition(EVENTS_TOPIC, p) for p in range(self.partitions)]
        try:
            self._consumer.assign(places)
            ends = self._consumer.end_offsets(places)
            starts = self._consumer.beginning_offsets(places)
            last = [
                record
                for place in places
                for record in next(self._back(place, starts[place], ends[place]), [])
            ]
            if not last:
                return Tail()
            newest = max(last, key=_before)
            before = _header(newest, BEFORE)
            ids: set[str] = set()
            for place in places:
                for records in self._back(place, starts[place], ends[place]):
                    same = [r for r in records if _header(r, BEFORE) == before]
                    ids.update(_header(record, ID).decode() for record in same)
                    if len(same) < len(records):
                        break
        except errors.KafkaError as error:
            raise LogError(f"{EVENTS_TOPIC}: {type(error).__name__} {error}") from error
        return Tail(before=before, after=_header(newest, AFTER), ids=frozenset(ids))

    def _back(self, place: Any, start: int, end: int) -> Iterator[list[Any]]:
        """Our records of a partition in stretches, the newest first; what others wrote is not."""
        size = _TAIL
        while end > start:
            first = max(start, end - size)
            ours = [r for r in self._read(place, first, end) if {h for h, _ in r.headers} >= _OURS]
            if ours:
                yield ours
            end, size = first, size * 4

    def _read(self, place: Any, first: int, end: int) -> list[Any]:
        """The records of [first, end): all that stand there."""
        found: list[Any] = []
        if first >= end:
            return found
        self._consumer.assign([place])
        self._consumer.seek(place, first)
        while self._consumer.position(place) < end:
            for records in self._consumer.poll(timeout_ms=500).values():
                found += [record for record in records if record.offset < end]
        return found

    def publish(self, records: Sequence[Outgoing]) -> None:
        """Append a batch; all of it stands when this returns.

        Raises ``LogError`` where it may not: whoever goes on reads the tail first.
        """
        try:
            sent = [
                self._producer.send(
                    EVENTS_TOPIC,
                    record.value,
                    key=record.key,
                    partition=record.partition,
                    headers=list(record.headers.items()),
                )
                for record in records
            ]
            self._producer.flush(_WITHIN_S * 2)
            for future in sent:
                future.get(_WITHIN_S)
        except errors.KafkaError as error:
            raise LogError(f"{EVENTS_TOPIC}: {type(error).__name__} {error}") from error

    def close(self) -> None:
        """Close the connections."""
        self._consumer.close()
        self._producer.close(timeout=1.0)


def _header(record: Any, name: str) -> bytes:
    return bytes(next(value for header, value in record.headers if header == name))


def _before(record: Any) -> int:
    """How far the ledgers were before a record's batch: a number that only grows."""
    return sum(int(part) for part in _header(record, BEFORE).split(b","))
