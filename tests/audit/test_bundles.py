"""A ledger exported into a file is audited from it alone, and says what the log says."""

from __future__ import annotations

import hashlib
import json
import zipfile
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from adapters.audit import Diverged
from adapters.bootstrap import audit
from adapters.bootstrap_audit import check_anchors
from adapters.bundle_l1 import RecordedChain, facts_of
from adapters.bundle_log import MANIFEST, BundleLog
from adapters.bundle_writer import NoSuchEpoch, Range
from adapters.local_topics import LocalTopics
from adapters.sqlite_log import SqliteLog
from domain.commit import COMMANDS_TOPIC, LEDGER_TOPICS, TELEMETRY_TOPIC, Ledger
from domain.l1 import BlockHash, L1Error
from domain.ports import Fetched, Log, LogDamaged, LogError
from tests.audit.forge import Book, exported
from tests.audit.test_anchors import vault, verdict
from tests.audit.test_deleted_telemetry import forgotten
from tests.cli.commands import synor
from tests.system.reference import reference, reference_hash
from tests.system.small import START_US, STEP_US, STEPS, SmallSystem, small_on_memory


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small system in a file."""
    system = reference()
    folder = tmp_path_factory.mktemp("bundles")
    return exported(system.network, system.log, folder / "whole.bundle")


def test_a_bundle_audits_to_the_same_verdict_as_its_log(whole: Path) -> None:
    """State, heads, sums."""
    system = reference()
    of_log = audit(system.network, system.log)
    of_bundle = audit(system.network, BundleLog(whole))
    assert of_bundle.state_hash == of_log.state_hash == reference_hash()
    assert [r.head for r in of_bundle.reports] == [r.head for r in of_log.reports]
    assert of_bundle.totals.charged == of_log.totals.charged


def test_the_same_log_gives_the_same_file(whole: Path, tmp_path: Path) -> None:
    """No clock stands in it, so two exporters can compare hashes."""
    system = reference()
    again = exported(system.network, system.log, tmp_path / "again.bundle")
    assert again.read_bytes() == whole.read_bytes()


def test_epochs_in_two_bundles_are_the_whole(tmp_path: Path) -> None:
    """The first is clean by itself; with the second it is everything; the second alone is not."""
    system = reference()
    first = exported(system.network, system.log, tmp_path / "1-2", Range(to=2))
    rest = exported(system.network, system.log, tmp_path / "3-", Range(after=2))
    of_two = audit(system.network, BundleLog(first))
    assert (of_two.totals.epochs, of_two.totals.readings > 0) == (2, True)
    assert BundleLog(first).origin.to_epoch == 2
    assert audit(system.network, BundleLog(first, rest)).state_hash == reference_hash()
    with pytest.raises(Diverged, match=r"truncated: .* not at its first"):
        audit(system.network, BundleLog(rest))
    with pytest.raises(LogError, match="what is before it ends at"):
        BundleLog(first, exported(system.network, system.log, tmp_path / "2-", Range(after=1)))
    with pytest.raises(NoSuchEpoch, match="epoch 9"):
        exported(system.network, system.log, tmp_path / "9", Range(to=9))
    assert not (tmp_path / "9").exists()


class _Growing:
    """A log whose system goes on with each look at an end: others write while it is exported."""

    def __init__(self, system: SmallSystem, from_step: int) -> None:
        self._system = system
        self._step = from_step

    def end(self, topic: str, partition: int) -> int:
        found = self._system.log.end(topic, partition)
        self._grow()
        return found

    def _grow(self) -> None:
        if self._step < STEPS:
            at = START_US + self._step * STEP_US
            self._system.time.advance_to(at, lambda step=self._step: self._system.script(step))  # type: ignore[misc]
            self._step += 1

    def read(self, topic: str, partition: int, offset: int, *, max_bytes: int) -> Fetched:
        self._grow()
        return self._system.log.read(topic, partition, offset, max_bytes=max_bytes)

    def __getattr__(self, name: str) -> object:
        return getattr(self._system.log, name)


@pytest.mark.parametrize("from_step", [2, 9, 23, 36])
def test_a_ledger_that_runs_is_exported_to_a_cut_that_audits(
    from_step: int, tmp_path: Path
) -> None:
    """Whatever a commit in the file has read is in the file too."""
    system = small_on_memory().run(from_step)
    growing: Log = _Growing(system, from_step)  # type: ignore[assignment]
    bundle = BundleLog(exported(system.network, growing, tmp_path / "live"))
    found = audit(system.network, bundle)
    now = {seat: system.log.end(LEDGER_TOPICS[seat[0]], seat[1]) for seat in system.seats}
    there = {(r.ledger, r.shard): r.offset for r in found.reports}
    assert all(there[seat] <= end for seat, end in now.items())
    assert sum(there.values()) < sum(now.values())
    system.close()


def test_a_ledger_without_its_telemetry_is_exported_and_audited(tmp_path: Path) -> None:
    """The bundle begins where the topic does."""
    system = reference()
    log = forgotten(Book(system.network, system.log).log(), 0.6)
    bundle = BundleLog(exported(system.network, log, tmp_path / "short"))
    assert bundle.start(TELEMETRY_TOPIC, 0) > 0
    found = audit(system.network, bundle)
    assert found.state_hash == reference_hash()
    assert sum(r.kept_runs for r in found.reports) > 0


# Altered bundles


def altered(path: Path, target: Path, topic: str, *, sealed: bool) -> Path:
    """The bundle with one byte of one value changed; ``sealed``: with a manifest that fits."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w") as new:
        manifest = json.loads(old.read(MANIFEST))
        (stream,) = (t["partitions"][0] for t in manifest["topics"] if t["topic"] == topic)
        part = stream["parts"][0]
        for name in old.namelist():
            data = old.read(name)
            if name == part["name"]:
                # The first value begins behind its offset, time and length.
                data = data[:60] + bytes([data[60] ^ 1]) + data[61:]
                if sealed:
                    part["sha256"] = hashlib.sha256(data).hexdigest()
            if name == MANIFEST:
                data = json.dumps(manifest).encode()
            new.writestr(name, data)
    return target


@pytest.mark.parametrize(
    ("topic", "sealed", "name", "code"),
    [
        (COMMANDS_TOPIC, False, "damaged", 16),
        (COMMANDS_TOPIC, True, "run_digest", 21),
        (TELEMETRY_TOPIC, True, "run_digest", 21),
        (LEDGER_TOPICS[Ledger.SETTLEMENT], True, "fork", 10),
    ],
)
def test_an_altered_bundle_is_named(
    topic: str, sealed: bool, name: str, code: int, whole: Path, tmp_path: Path
) -> None:
    """By the manifest, or, where the forger made that fit, by what the commits say."""
    bundle = BundleLog(altered(whole, tmp_path / "altered", topic, sealed=sealed))
    with pytest.raises(Diverged) as found:
        audit(reference().network, bundle)
    assert (found.value.name, found.value.exit_code) == (name, code)


# The L1


def test_the_l1_as_recorded_is_compared_like_the_l1() -> None:
    """Checkpoints, sums and claims; the deposits at the observed block."""
    chain = vault()
    claimants = set(verdict().totals.claims)
    facts = facts_of(chain, 3, claimants, verdict().totals.observed_block)
    recorded = RecordedChain(facts)
    assert check_anchors(verdict(), recorded, at_least=recorded.at_least) == check_anchors(
        verdict(), chain
    )
    chain.checkpoints[2] = chain.checkpoints[1]
    forged = RecordedChain(facts_of(chain, 3, claimants, -1))
    with pytest.raises(Diverged) as found:
        check_anchors(verdict(), forged, at_least=3)
    assert (found.value.name, found.value.at) == ("anchor", "epoch 2")
    nowhere = BlockHash(bytes(32))
    for ask in (
        lambda: recorded.block(3),
        lambda: recorded.totals(nowhere),
        lambda: recorded.events(nowhere),
    ):
        with pytest.raises(L1Error):
            ask()
    with pytest.raises(LogDamaged, match="facts of the L1"):
        RecordedChain(facts[:-2])


def test_an_l1_that_anchors_while_a_ledger_is_audited_is_no_divergence() -> None:
    """The vault has an epoch that settlement made after its ledger was read."""
    chain = vault()
    chain.now = replace(chain.now, last_epoch=4, authorised_nano=chain.now.authorised_nano + 5)
    assert check_anchors(verdict(), chain, at_least=3).checkpoints == 3
    with pytest.raises(Diverged) as found:
        check_anchors(verdict(), chain)
    assert found.value.name == "truncated"


# By the command


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the small system's ledger."""
    made = tmp_path_factory.mktemp("ledger")
    with closing(SqliteLog(made / "ledger.db", clock_us=lambda: 0, durable=False)) as log:
        SmallSystem(log, LocalTopics(log)).run().close()
    return made


def test_a_file_of_synor_export_is_audited_by_synor_audit(folder: Path, tmp_path: Path) -> None:
    """The same line of JSON but for place and time; a changed file has the code of its class."""
    out = tmp_path / "out.bundle"
    made = synor("export", folder, out, "--json")
    assert made.code == 0, made.err
    assert made.json["records"] > 100
    of_file = synor("audit", out, "--json", "--jobs", "2")
    of_folder = synor("audit", folder, "--json", "--every", "1")
    assert of_file.code == of_folder.code == 0, of_file.err + of_folder.err
    both = [of_file.json, of_folder.json]
    for said in both:
        for varies in ("ledger", "seconds", "jobs", "every", "decoded_twice"):
            del said[varies]
        for name in [name for name in said if name.endswith("_per_s")]:
            del said[name]
    assert both[0] == both[1]
    assert both[0]["state_hash"] == reference_hash()
    again = synor("export", folder, out)
    assert (again.code, "exists already" in again.err) == (2, True)
    wrong = synor("audit", altered(out, tmp_path / "x", COMMANDS_TOPIC, sealed=False), "--json")
    assert (wrong.code, wrong.json["divergence"], wrong.json["exit"]) == (16, "damaged", 16)
