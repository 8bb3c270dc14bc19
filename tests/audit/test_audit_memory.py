"""An audit on several cores keeps of every shard what lives there, and nothing of its history."""

from __future__ import annotations

import os
import resource
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from adapters.avro_codec import AvroCodec
from adapters.bench_leases import make_network, open_story
from adapters.bootstrap import Network, first_genesis
from adapters.bootstrap_audit import audit_on_cores
from adapters.sqlite_log import SqliteLog

LONG = os.environ.get("SYNOR_LONG") == "1"
LEASES = 512
#: Readings before the first audit, and then before the second.
READINGS = (100_000, 900_000) if LONG else (40_000, 160_000)


@dataclass(frozen=True, slots=True)
class Audited:
    """Readings by shard, and the most memory of the market's process and of the shards'."""

    readings: dict[int, int]
    peaks_kib: tuple[int, int]


def opened(path: Path) -> SqliteLog:
    """The log, for reading."""
    return SqliteLog(path, clock_us=lambda: 0)


def audited(path: Path) -> Audited:
    """Audit everything; for a process of its own, whose children are the shards' process."""
    codec = AvroCodec()
    with closing(opened(path)) as log:
        genesis, shards = first_genesis(log, codec)
    verdict = audit_on_cores(Network.of(genesis, shards, codec), partial(opened, path), jobs=2)
    return Audited(
        {each.shard: each.readings for each in verdict.reports if each.readings},
        (
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
            resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss,
        ),
    )


def test_memory_does_not_grow_with_the_readings_of_several_shards(tmp_path: Path) -> None:
    """Several times the history, the same leases: what was read is let go of, in every shard."""
    folder = tmp_path / "network"
    make_network(folder, port=1, snapshot_events=0)
    found: list[Audited] = []
    with closing(open_story(folder, lambda _: None)) as story:
        # Leases of a whole device, so that they are on many nodes and so in several shards.
        story.lease_milli = 1000
        story.found(LEASES)
        story.let(LEASES)
        for readings in READINGS:
            story.report(readings)
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                found.append(pool.submit(audited, folder / "ledger.db").result())
    little, much = found
    assert len(much.readings) > 1
    assert sum(little.readings.values()) >= READINGS[0]
    assert sum(much.readings.values()) >= sum(READINGS)
    for before, after in zip(little.peaks_kib, much.peaks_kib, strict=True):
        assert after <= before * 1.25
