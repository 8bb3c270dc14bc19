"""``synor bench recovery`` at a size that takes seconds: real processes, killed and started."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.commands import synor

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def test_a_killed_network_serves_again_with_snapshots_and_without(tmp_path: Path) -> None:
    """Every role is killed and started; the market, each shard and the API serve again.

    Killed at work too: what was committed and what waited comes first.
    """
    load = ("--load-s", "2", "--load-s", "3", "--readings-s", "2000")
    size = ("--leases", "600", "--readings", "3000", *load)
    said = synor("bench", "recovery", *size, "--folder", tmp_path / "kept", "--json")
    assert said.code == 0, said.err
    found = said.json
    assert (found["leases"], found["readings"]) == (600, 3000)
    assert found["snapshot_mb"] > 0
    assert len(found["at_work"]["all_s"]) == 2
    assert found["at_work"]["poured"] > 1000
    for how in ("with", "without", "at_work"):
        assert found[how]["serving_s"] >= max(found[how]["market_s"], found[how]["metering_s"])
    again = synor("snapshots", "ls", "--network", tmp_path / "kept" / "network", "--json").json
    assert {each["unfit"] for each in again["snapshots"]} == {None}
