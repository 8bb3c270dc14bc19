"""A ledger whose writer was rotated, and readers that start again anywhere around that."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import closing
from functools import cache
from pathlib import Path

import pytest

from adapters.bootstrap import Network, create_topics, worker
from adapters.ed25519 import Signer, verify
from adapters.eventsourcing_index import Depth
from adapters.local_topics import LocalTopics
from adapters.memory_log import MemoryLog
from adapters.projector import Projector
from adapters.read_model import ReadModel
from domain.commit import LEDGER_TOPICS, Ledger
from domain.ids import Bytes16
from domain.ledger import (
    LEDGER_ID,
    GenesisRecorded,
    LogBound,
    ParameterChanged,
    TopicBound,
    WriterRotated,
)
from projections.following import application_name
from tests.projections.ledgers import START_US, WRITER, HandLedger, codec, genesis_document

NEW = Signer(hashlib.sha256(b"the writer after the rotation").digest())
TOPIC = LEDGER_TOPICS[Ledger.MARKET]
HEAD = 4


@cache
def network() -> Network:
    """A network of one shard."""
    return Network.of(genesis_document(), 1, codec())


@cache
def records() -> list[bytes]:
    """The market ledger: a rotation at height 2, and around it all that two old writers left."""
    genesis = network().genesis
    market = HandLedger(MemoryLog(lambda: 0), network().hash, Ledger.MARKET, 0)
    bound = TopicBound(topic=TOPIC, id=Bytes16(bytes(16)), partitions=1)

    def changed(value: int) -> list[tuple[bytes, ParameterChanged]]:
        return [(LEDGER_ID, ParameterChanged(at_us=START_US, name="stake_hours", value=value))]

    rotated = WriterRotated(at_us=START_US, writer=NEW.public)
    first = market.record(
        START_US,
        [
            (LEDGER_ID, LogBound(at_us=START_US, shards=1, topics=(bound,))),
            (LEDGER_ID, GenesisRecorded(at_us=START_US, genesis=genesis)),
        ],
    )
    second = market.record(START_US, changed(100))
    # One from a backup of before the rotation, which lost the race for it and does not know.
    restored = market.beside(WRITER)
    rotation = market.record(START_US, [(LEDGER_ID, rotated)])
    # One that saw the rotation, and writes on with the old key.
    stubborn = market.beside(WRITER)
    late, market = market.beside(NEW), market.beside(NEW)
    third = market.record(START_US, changed(300))
    return [
        first,
        second,
        rotation,
        restored.record(START_US, changed(7)),
        restored.record(START_US, changed(8)),
        stubborn.record(START_US, changed(9)),
        third,
        restored.record(START_US, changed(10)),
        late.record(START_US, changed(11)),
        stubborn.record(START_US, changed(12)),
        late.record(START_US, changed(13)),
        market.record(START_US, changed(400)),
        restored.record(START_US, changed(14)),
        stubborn.record(START_US, changed(15)),
        late.record(START_US, changed(16)),
    ]


#: Reads on what the log has by a reader that starts there, and says which height it has.
Read = Callable[[], int]


def _partition(log: MemoryLog, folder: Path, depth: Depth) -> Read:
    def read() -> int:
        partition = network().partition(
            Ledger.MARKET, 0, log=log, index=folder / f"{depth.name}.db", depth=depth
        )
        with closing(partition.index):
            return partition.catch_up().height

    return read


def _worker(log: MemoryLog, folder: Path, ledger: Ledger) -> Read:
    def read() -> int:
        at_work = worker(
            network(),
            ledger,
            0,
            log=log,
            index=folder / f"{ledger.name}.db",
            signer=WRITER,
            topics=network().bound_topics(log),
        )
        while at_work.turn():
            pass
        at_work.commit_now()
        (reading,) = (r for r in at_work._readings if r.source.ledger is Ledger.MARKET)
        at_work.close()
        assert reading.chain is not None
        return reading.chain.height

    return read


def _projector(log: MemoryLog, folder: Path) -> Read:
    url = f"sqlite:///{folder / 'rows.db'}"

    def read() -> int:
        model = ReadModel(url)
        model.prepare(network().hash)
        projector = Projector(
            log=log,
            target=model,
            codec=codec(),
            verify=verify,
            genesis=network().genesis,
            genesis_hash=network().hash,
            shards=1,
        )
        while projector.turn():
            pass
        height = model.position(application_name(Ledger.MARKET, 0)).height
        model.close()
        return height

    return read


READERS: dict[str, Callable[[MemoryLog, Path], Read]] = {
    "an index of commits": lambda log, folder: _partition(log, folder, Depth.COMMITS),
    "an index of payloads": lambda log, folder: _partition(log, folder, Depth.PAYLOADS),
    "a shard": lambda log, folder: _worker(log, folder, Ledger.METERING),
    "the settlement": lambda log, folder: _worker(log, folder, Ledger.SETTLEMENT),
    "a projector": _projector,
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("every", [1, 2, 3, 5])
def test_a_reader_restarted_around_a_rotation_declares_no_fork(
    reader: str, every: int, tmp_path: Path
) -> None:
    """What the old key writes after the rotation is noise, wherever a reader starts again."""
    for phase in range(every):
        folder = tmp_path / str(phase)
        folder.mkdir()
        log = MemoryLog(lambda: START_US)
        create_topics(network(), LocalTopics(log))
        read = READERS[reader](log, folder)
        for number, record in enumerate(records()):
            log.append(TOPIC, 0, record)
            if number % every == phase:
                read()
        assert read() == HEAD
