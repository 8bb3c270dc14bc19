"""The audit's figures: against the metering itself, and against the bare libraries."""

from __future__ import annotations

import os

from adapters.bench_audit import bench_audit
from adapters.bench_metering import BenchLog, Shape
from adapters.metering_workload import Encoding

LONG = os.environ.get("SYNOR_LONG") == "1"


def test_the_audit_bench_stands_beside_the_metering_and_the_bare_libraries() -> None:
    """By CPU time, in one run; no more can be hashed or verified than the library does."""
    figures = bench_audit(Shape(BenchLog.SQLITE, 100, Encoding.LONG, 60_000))
    assert figures["share_of_metering_rate"] > 0
    assert 0 < figures["hashed_mb_share"] <= 2
    assert 0 < figures["signatures_share"] <= 2
    if LONG:
        more = bench_audit(Shape(BenchLog.SQLITE, 100, Encoding.LONG, 1_200_000))
        # Twenty times the log; a shard's memory is its leases and a commit's inputs.
        assert more["peak_mb"] <= figures["peak_mb"] * 1.25
