"""The audit's figures: against the metering itself, and against the bare libraries."""

from __future__ import annotations

import os

from adapters.bench_audit import bench_audit
from adapters.bench_metering import BenchLog, Shape
from adapters.metering_workload import Encoding

LONG = os.environ.get("SYNOR_LONG") == "1"


def test_an_audit_keeps_half_the_metering_rate_and_half_of_the_bare_limits() -> None:
    """By CPU time, in one run: what else the machine does counts for both alike."""
    figures = bench_audit(Shape(BenchLog.SQLITE, 100, Encoding.LONG, 60_000))
    assert figures["share_of_metering_rate"] >= 0.5
    assert figures["hashed_mb_share"] >= 0.5
    assert figures["signatures_share"] >= 0.5
    if LONG:
        more = bench_audit(Shape(BenchLog.SQLITE, 100, Encoding.LONG, 1_200_000))
        # Twenty times the log; a shard's memory is its leases and a commit's inputs.
        assert more["peak_mb"] <= figures["peak_mb"] * 1.25
