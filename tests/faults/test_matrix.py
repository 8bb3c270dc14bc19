"""The page of the fault matrix is what the tests recorded, and nothing else."""

from __future__ import annotations

from pathlib import Path

from tests.support.fault_matrix import FaultMatrix, Seen, read


def seen(fault: str, test: str, runs: int = 1, lost: int = 0) -> Seen:
    """A row of the part that this test is about."""
    return Seen(fault=fault, where="a log", runs=runs, lost=lost, test=test)


def test_runs_of_one_fault_add_up(tmp_path: Path) -> None:
    """Two recordings of one fault are one row with the sum of both."""
    matrix = FaultMatrix()
    matrix.record(seen("killed", "tests/a.py", runs=2, lost=1))
    matrix.record(seen("killed", "tests/a.py", runs=3))
    matrix.write(tmp_path / "page.md")
    assert read((tmp_path / "page.md").read_text()) == [seen("killed", "tests/a.py", 5, 1)]


def test_a_run_of_some_tests_replaces_the_rows_of_just_those(tmp_path: Path) -> None:
    """What another test recorded earlier stays; a fault its own test no longer has goes."""
    path = tmp_path / "page.md"
    before = FaultMatrix()
    before.record(seen("killed", "tests/a.py"))
    before.record(seen("renamed since", "tests/a.py"))
    before.record(seen("paused", "tests/b.py"))
    before.write(path)
    now = FaultMatrix()
    now.record(seen("killed", "tests/a.py", runs=9))
    now.write(path)
    assert read(path.read_text()) == [
        seen("killed", "tests/a.py", runs=9),
        seen("paused", "tests/b.py"),
    ]
