"""Publishes every event of every ledger once to ``synor.events.v1``, as CloudEvents.

Whole commits go out in batches, each acknowledged before the next begins. A publisher that starts
anew reads from the topic's own tail where the last batch began and which of its events stand there,
and sends the rest: nothing is missing and nothing doubled. (Where two publish at a time, or the
last request of one that died comes in after its successor has looked, an event may stand there
twice, to the byte the same and under the same id.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from adapters.bootstrap import Network
from adapters.cloudevents import cloud_event, event_id, partition_of
from adapters.eventsourcing_index import Depth
from adapters.eventsourcing_partition import LedgerPartition
from adapters.kafka_events import AFTER, BEFORE, KafkaEvents, Outgoing
from domain.commit import CommitBody, unpack_event
from domain.ports import Log, SettingsRefused

#: A batch ends with the commit that brings it to so many events.
BATCH_EVENTS: Final = 1_000


class Publisher:
    """Follows the ledgers by the reader rule and publishes; ``turn`` is called again and again."""

    def __init__(self, network: Network, log: Log, events: KafkaEvents) -> None:
        """Find in the topic's tail where an earlier publisher stopped."""
        self._network = network
        self._events = events
        self._ledgers: list[LedgerPartition] = [
            network.partition(ledger, shard, log=log, index=":memory:", depth=Depth.COMMITS)
            for ledger, shard in network.ledgers()
        ]
        tail = events.tail()
        self._next = _heights(tail.before) or [0] * len(self._ledgers)
        if len(self._next) != len(self._ledgers):
            raise SettingsRefused(
                f"The events topic is of {len(self._next)} ledgers, this network has "
                f"{len(self._ledgers)}: it is another network's."
            )
        #: The batch that was begun is ended as it was: to the same commits, without what is there.
        self._until: list[int] | None = _heights(tail.after) or None
        self._there = tail.ids
        self.published = 0

    def turn(self) -> bool:
        """Publish one batch. True if there was anything."""
        batch: list[tuple[str, Outgoing]] = []
        after = list(self._next)
        for number in range(len(self._ledgers)):
            for height, made in self._commits(number):
                if self._until is None and len(batch) >= BATCH_EVENTS:
                    break
                batch += made
                after[number] = height + 1
        marks = {BEFORE: _text(self._next), AFTER: _text(after)}
        missing = [
            replace(record, headers={**record.headers, **marks})
            for id, record in batch
            if id not in self._there
        ]
        self._events.publish(missing)
        self.published += len(missing)
        self._there, self._until = frozenset(), None
        moved = after != self._next
        self._next = after
        return moved

    def _commits(self, number: int) -> Iterator[tuple[int, list[tuple[str, Outgoing]]]]:
        ledger = self._ledgers[number]
        if ledger.catch_up().height < self._next[number]:
            return
        for counted in ledger.commits(self._next[number]):
            if self._until is not None and counted.envelope.height >= self._until[number]:
                return
            body = self._network.codec.decode(CommitBody, counted.body)
            first = body.tree_size - len(body.events)
            made = [
                self._outgoing(number, leaf, data) for leaf, data in enumerate(body.events, first)
            ]
            yield counted.envelope.height, made

    def _outgoing(self, number: int, leaf: int, data: bytes) -> tuple[str, Outgoing]:
        codec, identity = self._network.codec, self._ledgers[number].identity
        recorded = unpack_event(data)
        kind = codec.kind(recorded.schema)
        event = cloud_event(
            genesis_hash=self._network.hash,
            id=event_id(identity.ledger, identity.shard, leaf),
            name=kind.NAME,
            fingerprint=codec.fingerprint(kind),
            at_us=codec.decode(kind, recorded.payload).at_us,
            recorded=recorded,
        )
        return event.id, Outgoing(
            partition=partition_of(recorded.aggregate, self._events.partitions),
            key=event.key,
            headers=event.headers,
            value=event.value,
        )

    def close(self) -> None:
        """Let go of the ledgers; log and topic belong to the caller."""
        for ledger in self._ledgers:
            ledger.close()


def _heights(text: bytes) -> list[int]:
    return [int(height) for height in text.split(b",")] if text else []


def _text(heights: list[int]) -> bytes:
    return ",".join(map(str, heights)).encode()
