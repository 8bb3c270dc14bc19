"""``synor snapshots``: what is there, what is of no use, and how it goes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from adapters.snapshot_keeper import SnapshotPolicy
from tests.cli.commands import synor
from tests.recovery.snapshots import Kept
from tests.system.small import small_on_memory


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A network's folder with a snapshot of market and settlement."""
    system = small_on_memory().run(4)
    kept = Kept(tmp_path / "snapshots", SnapshotPolicy(events=1, seconds=0, rest=0))
    for ledger, shard in system.seats:
        worker = kept.worker(system, ledger, shard)
        worker.recover()
        worker.rest()
        worker.close()
    system.close()
    (tmp_path / "network.toml").write_text('format = 1\nshards = 2\n[log]\nkind = "sqlite"\n')
    return tmp_path


def test_snapshots_are_listed_and_dropped(folder: Path) -> None:
    """One that is damaged is named, and can be dropped alone."""
    found = synor("snapshots", "ls", "--network", folder, "--json").json["snapshots"]
    assert found
    assert {each["unfit"] for each in found} == {None}
    broken = folder / "snapshots" / "synor.ledger.market.v1.0.000000000000.snapshot"
    broken.write_bytes(b"?")
    listed = synor("snapshots", "ls", "--network", folder)
    assert "not used: it is no snapshot of this format" in " ".join(listed.out.split())
    dropped = synor("snapshots", "drop", "--unfit", "--network", folder, "--json").json
    assert dropped == {"dropped": [broken.name]}
    assert synor("snapshots", "drop", "--network", folder).out == f"{len(found)} dropped.\n"
    assert "There is no snapshot" in synor("snapshots", "ls", "--network", folder).out


def test_a_folder_without_snapshots_is_no_mistake(folder: Path) -> None:
    """Nothing was left yet, or all of it was deleted."""
    shutil.rmtree(folder / "snapshots")
    assert synor("snapshots", "ls", "--network", folder, "--json").json["snapshots"] == []
