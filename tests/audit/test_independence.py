"""An audit trusts the log alone: no index, no snapshot, no read model; it opens none of them."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from adapters.local_topics import LocalTopics
from adapters.sqlite_log import SqliteLog
from tests.system.reference import reference_hash
from tests.system.small import SmallSystem

POISON = b"not what it was"
_WATCHED = """
import json, sys
folder, opened = sys.argv[1], set()
def hook(event, found):
    if event in ("open", "sqlite3.connect") and isinstance(found[0], str) and folder in found[0]:
        opened.add(found[0].removeprefix("file:").split("?")[0])
sys.addaudithook(hook)
sys.argv = ["synor", "audit", folder, "--json"]
from adapters.cli import main
try:
    main()
except SystemExit as ended:
    assert not ended.code, ended.code
print(json.dumps(sorted(opened)))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A ledger whose workers kept their indexes on disk, all of them poisoned since."""
    with closing(SqliteLog(tmp_path / "ledger.db", clock_us=lambda: 0, durable=False)) as log:
        system = SmallSystem(
            log,
            LocalTopics(log),
            make_worker=lambda ledger, shard: system.worker(
                ledger, shard, index=str(tmp_path / f"{ledger.name}-{shard}.index.db")
            ),
        )
        system.run().close()
    kept = [path for path in tmp_path.iterdir() if "index" in path.name]
    assert len(kept) >= len(system.seats)
    snapshots = tmp_path / "snapshots"
    snapshots.mkdir()
    for path in (*kept, tmp_path / "read.db", snapshots / "market-0"):
        path.write_bytes(POISON)
    return tmp_path


def test_an_audit_of_a_folder_with_poisoned_copies_is_clean_and_opens_only_the_log(
    folder: Path,
) -> None:
    """What is derived may lie; the audit neither reads nor mends it."""
    done = subprocess.run(
        [sys.executable, "-c", _WATCHED, str(folder)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    verdict, opened = map(json.loads, done.stdout.splitlines())
    assert (verdict["audit"], verdict["state_hash"]) == ("ok", reference_hash())
    assert {Path(path).name for path in opened} == {"ledger.db"}
    assert (folder / "read.db").read_bytes() == POISON
