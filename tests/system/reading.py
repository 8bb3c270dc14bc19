"""Reads what stands on a log: records, commits, events, and the story that they tell."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from adapters.bootstrap import Network
from adapters.eventsourcing_index import Depth
from domain.canonical import canonical
from domain.commit import LEDGER_TOPICS, CommitBody, Ledger, parse, unpack_event
from domain.ports import Log, LogRecord
from domain.telemetry import ContradictionFound, NodeCameUp, NodeWentDown, TelemetryAccepted

Seat = tuple[Ledger, int]
#: What a shard sees by itself: its time is the input's, or the deadline's.
_OBSERVED = (TelemetryAccepted, NodeCameUp, NodeWentDown, ContradictionFound)


def records(log: Log, topic: str, partition: int = 0) -> Iterator[LogRecord]:
    """Every record of a partition."""
    offset, end = log.start(topic, partition), log.end(topic, partition)
    while offset < end:
        fetched = log.read(topic, partition, offset, max_bytes=1 << 20)
        yield from fetched.records
        offset = fetched.next_offset


def commits(system: Network, log: Log, ledger: Ledger, shard: int = 0) -> list[CommitBody]:
    """The bodies of a ledger's counting commits, in order."""
    at = system.partition(ledger, shard, log=log, index=":memory:", depth=Depth.COMMITS)
    at.catch_up()
    return [system.codec.decode(CommitBody, counted.body) for counted in at.commits(0)]


def events(system: Network, log: Log, ledger: Ledger, shard: int = 0) -> list[Any]:
    """A ledger's events, decoded, in order."""
    return [
        system.codec.decode(system.codec.kind(recorded.schema), recorded.payload)
        for body in commits(system, log, ledger, shard)
        for recorded in map(unpack_event, body.events)
    ]


def story_of(system: Network, log: Log) -> dict[Seat, list[bytes]]:
    """What every ledger says, without what depends on where it and the ledgers it reads were cut.

    Market and settlement: every event in order. A shard learns of the market when it reads it, so
    the times and places of what it learned may differ, and what it says of leases may not.
    """
    story: dict[Seat, list[bytes]] = {}
    for ledger, shard in system.ledgers():
        found = events(system, log, ledger, shard)[1:]
        if ledger is Ledger.METERING:
            story[ledger, shard] = sorted(
                canonical(event if isinstance(event, _OBSERVED) else replace(event, at_us=0))
                for event in found
            )
        else:
            story[ledger, shard] = [canonical(event) for event in found]
    return story


def heights(log: Log, ledger: Ledger, shard: int = 0) -> list[int]:
    """The height of every record of a ledger's partition that parses."""
    found = (parse(record.value) for record in records(log, LEDGER_TOPICS[ledger], shard))
    return [envelope.height for envelope in found if envelope is not None]
