"""A ledger as lists of records that can be edited, re-signed and re-chained with the right keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from adapters.bootstrap import Network, create_topics
from adapters.bundle_writer import Range, export
from adapters.local_topics import LocalTopics
from adapters.memory_log import MemoryLog
from domain.commit import (
    LEDGER_TOPICS,
    NO_HASH,
    BulkPart,
    CommitBody,
    Envelope,
    RecordedEvent,
    RunDigest,
    body_of,
    bulk_of,
    pack_bulk,
    parse,
    seal,
    split_bulk,
    unpack_event,
)
from domain.ids import Hash32
from domain.merkle import MerkleTree
from domain.ports import Log, LogRecord
from tests.system.reading import Seat, records
from tests.system.small import memory_log, signer_of

Place = tuple[str, int]


@dataclass(frozen=True)
class Commit:
    """A commit taken apart."""

    envelope: Envelope
    body: CommitBody
    bulk: tuple[BulkPart, ...]


class Book:
    """All partitions of a log as lists; offsets are positions."""

    def __init__(self, network: Network, log: Log) -> None:
        self.network = network
        self.codec = network.codec
        self.lists: dict[Place, list[bytes]] = {
            (topic, partition): [record.value for record in records(log, topic, partition)]
            for topic, partitions in network.topics().items()
            for partition in range(partitions)
        }

    def log(self) -> MemoryLog:
        """A new log with these records."""
        made = memory_log()
        create_topics(self.network, LocalTopics(made))
        for (topic, partition), values in self.lists.items():
            if values:
                made.append_many(topic, partition, values)
        return made

    def ledger(self, seat: Seat) -> list[bytes]:
        """The records of a ledger."""
        return self.lists[LEDGER_TOPICS[seat[0]], seat[1]]

    def commit(self, seat: Seat, height: int) -> Commit:
        """The commit at a height; nothing else is on these logs."""
        value = self.ledger(seat)[height]
        envelope = parse(value)
        assert envelope is not None
        body = self.codec.decode(CommitBody, body_of(value, envelope))
        bulk = split_bulk(bulk_of(value, envelope))
        assert bulk is not None
        return Commit(envelope, body, bulk)

    def commits(self, seat: Seat) -> Iterator[Commit]:
        """All of them."""
        for height in range(len(self.ledger(seat))):
            yield self.commit(seat, height)

    def events(self, commit: Commit) -> list[Any]:
        """The events of a commit, decoded."""
        return [
            self.codec.decode(self.codec.kind(event.schema), event.payload)
            for event in map(unpack_event, commit.body.events)
        ]

    def find(
        self, seat: Seat, kind: type[Any], wanted: Callable[[Any], bool] = lambda event: True
    ) -> tuple[int, int]:
        """Height and index of the first such event."""
        for height, commit in enumerate(self.commits(seat)):
            for index, event in enumerate(self.events(commit)):
                if isinstance(event, kind) and wanted(event):
                    return height, index
        raise AssertionError(f"no {kind.__name__}")

    # Forging

    def forge(self, seat: Seat, height: int, edit: Callable[[Commit], Commit]) -> None:
        """Edit a commit as its writer could: roots, hashes and signatures right from there on."""
        commits = list(self.commits(seat))
        commits[height] = edit(commits[height])
        tree = MerkleTree()
        previous = NO_HASH
        values = []
        for at, commit in enumerate(commits):
            tree.extend(commit.body.events)
            body = commit.body
            if at > height or body.tree_root == self.commit(seat, at).body.tree_root:
                body = replace(body, tree_root=Hash32(tree.root()), tree_size=tree.size)
            value, previous = self.sealed(seat, commit, body, previous)
            values.append(value)
        self.ledger(seat)[:] = values

    def rechain(self) -> None:
        """Make all ledgers agree again: runs digested, heads named, everything signed anew.

        What a commit has read comes before it, so each is sealed after all that it names.
        """
        old = {seat: list(self.commits(seat)) for seat in self.network.ledgers()}
        new: dict[Seat, list[bytes]] = {seat: [] for seat in old}
        hashes: dict[Seat, list[bytes]] = {seat: [] for seat in old}
        seat_of = {(LEDGER_TOPICS[seat[0]], seat[1]): seat for seat in old}

        def until(seat: Seat, height: int) -> None:
            while len(new[seat]) < height:
                commit = old[seat][len(new[seat])]
                runs = []
                for run in commit.body.runs:
                    source = seat_of.get((run.topic, run.partition))
                    if source is not None:
                        until(source, run.next)
                        if run.next > run.first:
                            head = Hash32(hashes[source][run.next - 1])
                            run = replace(run, height=run.next - 1, hash=head)
                        read = new[source]
                    else:
                        read = self.lists[run.topic, run.partition]
                    runs.append(replace(run, digest=_digest(read, run.first, run.next)))
                body = replace(commit.body, runs=tuple(runs))
                previous = hashes[seat][-1] if hashes[seat] else NO_HASH
                value, digest = self.sealed(seat, commit, body, previous)
                new[seat].append(value)
                hashes[seat].append(digest)

        for seat, commits in old.items():
            until(seat, len(commits))
            self.ledger(seat)[:] = new[seat]

    def sealed(
        self, seat: Seat, commit: Commit, body: CommitBody, previous: bytes
    ) -> tuple[bytes, bytes]:
        """The record of a commit with another body and parent, and its hash."""
        encoded = self.codec.encode(body)
        unsigned = seal(
            genesis=commit.envelope.genesis,
            ledger=seat[0],
            shard=seat[1],
            height=commit.envelope.height,
            previous=previous,
            writer=signer_of(seat[0]).public,
            body=encoded,
            bulk=commit.bulk,
        ).unsigned()
        envelope = unsigned + signer_of(seat[0]).sign(unsigned)
        value = envelope + encoded + pack_bulk(commit.bulk)
        parsed = parse(value)
        assert parsed is not None
        return value, parsed.hash()

    def with_event(self, commit: Commit, index: int, change: Callable[[Any], Any]) -> Commit:
        """The commit with one event changed."""
        recorded = unpack_event(commit.body.events[index])
        event = change(self.codec.decode(self.codec.kind(recorded.schema), recorded.payload))
        packed = RecordedEvent(
            recorded.aggregate,
            recorded.version,
            self.codec.number(type(event)),
            self.codec.encode(event),
        ).pack()
        events = (*commit.body.events[:index], packed, *commit.body.events[index + 1 :])
        return replace(commit, body=replace(commit.body, events=events))

    def with_run(self, commit: Commit, number: int, first: int, next: int) -> Commit:
        """The commit with a run over other offsets, honestly digested."""
        run = commit.body.runs[number]
        digest = RunDigest()
        values = self.lists[run.topic, run.partition][first:next]
        for offset, value in enumerate(values, first):
            digest.add(LogRecord(offset, 0, value))
        other = replace(run, first=first, next=next, count=len(values), digest=digest.digest())
        runs = (*commit.body.runs[:number], other, *commit.body.runs[number + 1 :])
        return replace(commit, body=replace(commit.body, runs=runs))


def _digest(values: list[bytes], first: int, next: int) -> Hash32:
    digest = RunDigest()
    for offset, value in enumerate(values[first:next], first):
        digest.add(LogRecord(offset, 0, value))
    return digest.digest()


def flipped(value: bytes, at: int) -> bytes:
    """The bytes with one bit of one byte changed."""
    return value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :]


def exported(network: Network, log: Log, path: Path, epochs: Range = Range()) -> Path:  # noqa: B008
    """A bundle of a log."""
    export(
        log,
        path,
        codec=network.codec,
        genesis=network.hash,
        topics=network.topics(),
        shards=network.shards,
        epochs=epochs,
    )
    return path
