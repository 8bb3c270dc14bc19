"""Where a worker stands in the partitions that it reads, and how it comes to stand there again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from domain.chain import NOISE_HEIGHTS, ChainReader, Counted, LedgerStopped
from domain.commit import NO_HASH, Envelope, InputRun, Ledger, RunDigest, body_of, parse
from domain.genesis import Genesis
from domain.ids import Hash32, PublicKey
from domain.invariant import invariant
from domain.ports import Fetched, LogRecord
from domain.processor import Source
from domain.signed import Verifier

READ_BYTES: Final = 4 * 1024 * 1024
_FIRST_LOOK: Final = 8


@dataclass(slots=True)
class Reading:
    """Where a source is read: next offset, and of a record that is partly done the items.

    ``noise_known`` is False where a foreign ledger's chain was resumed without the noise near it:
    then that is looked up before a fork is declared.
    """

    source: Source
    next_offset: int = 0
    items_done: int = -1
    chain: ChainReader | None = None
    noise_known: bool = True

    def standing(self) -> tuple[Any, ...]:
        """The position as plain values, for a snapshot; the reverse of ``stand``."""
        chain = self.chain
        stood = None
        if chain is not None:
            stood = (chain.height, chain.hash, chain.noise(), bytes(chain.writer), self.noise_known)
        return self.source.topic, self.source.partition, self.next_offset, self.items_done, stood

    def stand(self, standing: Sequence[Any]) -> None:
        """Stand where a snapshot says."""
        _, _, self.next_offset, self.items_done, stood = standing
        if self.chain is not None and stood is not None:
            height, head, noise, writer, self.noise_known = stood
            self.chain.resume(height, head, noise)
            self.chain.writer = PublicKey(writer)


@dataclass(slots=True)
class Run:
    """An input run in the making."""

    reading: Reading
    first: int
    next: int
    count: int = 0
    digest: RunDigest = field(default_factory=RunDigest)
    height: int = -1
    hash: bytes = NO_HASH
    items_done: int = -1
    time_us: int = 0
    events: int = 0

    def made(self) -> InputRun:
        """The run as recorded."""
        return InputRun(
            topic=self.reading.source.topic,
            partition=self.reading.source.partition,
            first=self.first,
            next=self.next,
            count=self.count,
            digest=self.digest.digest(),
            height=self.height,
            hash=Hash32(self.hash),
            items_done=self.items_done,
            time_us=self.time_us,
            events=self.events,
        )


#: Reads a source from an offset.
Fetch = Callable[[Reading, int], Fetched]


def writer_of(genesis: Genesis, ledger: Ledger) -> PublicKey:
    """The key that the genesis lets write a ledger."""
    match ledger:
        case Ledger.MARKET:
            return PublicKey(genesis.market_writer)
        case Ledger.METERING:
            return PublicKey(genesis.metering_writer)
        case Ledger.SETTLEMENT:
            return PublicKey(genesis.settlement_writer)


def new_chain(
    source: Source, genesis: Genesis, genesis_hash: bytes, verify: Verifier
) -> ChainReader:
    """A reader of a foreign ledger, before its first commit."""
    invariant(source.ledger is not None, "a chain is of a ledger")
    assert source.ledger is not None
    return ChainReader(
        genesis=genesis_hash,
        ledger=source.ledger,
        shard=source.partition,
        writer=writer_of(genesis, source.ledger),
        verify=verify,
    )


def resume(fetch: Fetch, reading: Reading, run: InputRun, consumer: str) -> Counted:
    """Stand in a foreign ledger where a run over it ended, and return its last commit.

    Only as much is read as it takes to find that commit. Noise near it is looked up when a record
    would else be a fork (``learn_noise``).
    """
    source, chain = reading.source, reading.chain
    assert chain is not None
    assert source.ledger is not None
    look = _FIRST_LOOK
    while True:
        low = max(run.next - look, 0)
        near = _near(fetch, reading, low, run.next)
        found = near.get(run.hash)
        if found is not None:
            break
        if low == 0:
            raise LedgerStopped(
                "truncated",
                source.ledger,
                source.partition,
                run.next,
                f"the commit that {consumer} has consumed is not on the log",
                height=run.height,
            )
        look *= 4
    record, envelope = found
    chain.resume(run.height, run.hash, {})
    chain.writer = PublicKey(envelope.writer)
    reading.noise_known = False
    return Counted(
        record.offset,
        record.time_us,
        envelope,
        run.hash,
        body_of(record.value, envelope),
        record.value,
    )


def learn_noise(fetch: Fetch, reading: Reading, verify: Verifier, before: int) -> None:
    """Look up the writer's noise at or above head − 64, from the log up to an offset."""
    chain = reading.chain
    assert chain is not None
    look = 2 * NOISE_HEIGHTS
    while True:
        low = max(before - look, 0)
        near = _near(fetch, reading, low, before)
        counting: set[bytes] = set()
        at = chain.hash
        lowest = chain.height + 1
        while at in near:
            counting.add(at)
            lowest = near[at][1].height
            at = near[at][1].previous
        if low == 0 or lowest <= chain.height - NOISE_HEIGHTS:
            break
        look *= 4
    # The key may have been rotated since.
    writers = {near[digest][1].writer for digest in counting}
    found = {
        digest: envelope.height
        for digest, (_, envelope) in near.items()
        if digest not in counting
        and envelope.height >= chain.height - NOISE_HEIGHTS
        and envelope.writer in writers
        and verify(envelope.writer, envelope.unsigned(), envelope.signature)
    }
    chain.resume(chain.height, chain.hash, {**found, **chain.noise()})
    reading.noise_known = True


def _near(
    fetch: Fetch, reading: Reading, first: int, next: int
) -> dict[bytes, tuple[LogRecord, Envelope]]:
    """Records of a range that parse, by their hash."""
    return {
        envelope.hash(): (record, envelope)
        for record in _range(fetch, reading, first, next)
        if (envelope := parse(record.value)) is not None
    }


def _range(fetch: Fetch, reading: Reading, first: int, next: int) -> Iterator[LogRecord]:
    while first < next:
        fetched = fetch(reading, first)
        if fetched.next_offset == first:
            return
        for record in fetched.records:
            if record.offset < next:
                yield record
        first = fetched.next_offset
