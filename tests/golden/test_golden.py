"""Ledgers of every format version ever recorded still decode, fold and audit."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from tests.golden.make import BUNDLE, EXPECTED, HASHES, SIZE_MAX
from tests.golden.read import expected_of

FOLDER = Path(__file__).parent
VERSIONS = sorted((path.parent for path in FOLDER.glob(f"*/{BUNDLE}")), key=lambda p: int(p.name))
WHAT_TO_DO = (
    "A format that ledgers were written in must be read for ever: keep the old code and add a new "
    "record or rules version. Only while schemas/lock.json says released: false may scripts/golden "
    "record the last format anew."
)


@pytest.mark.parametrize("folder", VERSIONS, ids=lambda folder: folder.name)
def test_a_golden_log_decodes_folds_and_audits_to_what_was_recorded(folder: Path) -> None:
    """Every event by today's codec, every commit decided again by the rules of its height."""
    assert expected_of(folder / BUNDLE) == json.loads((folder / EXPECTED).read_text()), WHAT_TO_DO


def test_no_golden_log_was_edited_left_out_or_let_grow() -> None:
    """The list has the hash of every file, and every file of the folders is on it."""
    listed = json.loads(HASHES.read_text())
    found = {
        f"{folder.name}/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest()
        for folder in VERSIONS
        for path in sorted(folder.iterdir())
    }
    assert found == listed, WHAT_TO_DO
    assert [int(folder.name) for folder in VERSIONS] == list(range(1, len(VERSIONS) + 1))
    assert all((folder / BUNDLE).stat().st_size < SIZE_MAX for folder in VERSIONS)


def test_a_golden_log_has_the_events_of_a_whole_life() -> None:
    """Leases from offer to close, faults, epochs, both kinds of telemetry's answers."""
    for folder in VERSIONS:
        kinds = json.loads((folder / EXPECTED).read_text())["events"]
        for name in (
            "synor.lease.v1.LeaseClosed",
            "synor.lease.v1.UsagePosted",
            "synor.metering.v1.TelemetryAccepted",
            "synor.metering.v1.ContradictionFound",
            "synor.provider.v1.StakeSlashed",
            "synor.settlement.v1.CheckpointMade",
            "synor.key.v1.KeyRegistered",
        ):
            assert kinds.get(name, 0) > 0, (folder.name, name)
