"""Snapshots are disposable: with them and without, recovery ends in the same state."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.local_topics import LocalTopics
from adapters.snapshot_keeper import SnapshotPolicy, snapshots_in
from adapters.worker import Worker
from domain.commit import Ledger
from domain.ids import AggregateId
from domain.processor import Versioned
from tests.recovery.snapshots import ALWAYS, Kept, recovered_hash
from tests.system.reading import Seat
from tests.system.reference import check_same, reference, reference_hash
from tests.system.small import STEPS, SmallSystem, memory_log, network

LONG = os.environ.get("SYNOR_LONG") == "1"
SEATS = tuple(network(2).ledgers())


def ended(folder: Path, *, steps: int = STEPS, policy: SnapshotPolicy = ALWAYS) -> SmallSystem:
    """A run whose workers leave snapshots and indexes in ``folder``; its workers are gone."""
    kept = Kept(folder, policy, at_once=True)
    made: list[SmallSystem] = []

    def make(ledger: Ledger, shard: int) -> Worker:
        return kept.worker(made[0], ledger, shard, index=index_of(folder, ledger, shard))

    log = memory_log()
    made.append(SmallSystem(log, LocalTopics(log), make_worker=make))
    made[0].run(steps)
    made[0].close()
    assert kept.said == []
    return made[0]


def index_of(folder: Path, ledger: Ledger, shard: int) -> str:
    """Where a worker's index is."""
    return str(folder / f"{ledger.name}{shard}.db")


@dataclass
class Run:
    """An ended run, and where its snapshots are."""

    system: SmallSystem
    folder: Path

    def worker(self, ledger: Ledger, shard: int, *, index: str | None = None) -> Worker:
        return Kept(self.folder).worker(
            self.system, ledger, shard, index=index or index_of(self.folder, ledger, shard)
        )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A whole run with a snapshot at nearly every commit."""
    folder = tmp_path_factory.mktemp("snapshots")
    return Run(ended(folder), folder)


def test_a_run_with_snapshots_writes_the_same_ledgers(run: Run) -> None:
    """Nothing that a snapshot does can be seen on a ledger."""
    check_same(run.system)


@pytest.mark.parametrize("seat", SEATS, ids=lambda seat: f"{seat[0].name}-{seat[1]}")
def test_a_worker_recovers_from_its_snapshot_and_folds_only_what_came_after(
    run: Run, seat: Seat
) -> None:
    """The newest snapshot is of one of the last commits; what is left is a short tail."""
    worker = run.worker(*seat)
    worker.recover()
    found = worker.recovery
    assert found is not None
    assert found.snapshot_height > 0
    assert found.folded < 10
    assert not worker.turn(), "everything was consumed: there is nothing to decide"
    worker.close()


def test_with_and_without_snapshots_recovery_ends_in_the_same_state_hash(run: Run) -> None:
    """All aggregates and balances of recovered workers, the auditor's own hash beside them."""
    without = recovered_hash(run.system, run.system.worker)
    assert recovered_hash(run.system, run.worker) == without == reference_hash()


def test_a_snapshot_of_a_recovered_worker_is_the_snapshot_it_recovered_from(run: Run) -> None:
    """What a snapshot holds is what it gives back, to the byte."""
    from adapters.snapshot_memory import recall, remember

    for ledger, shard in SEATS:
        worker = run.worker(ledger, shard)
        worker.recover()
        before = remember(worker.processor, {"head": 1}, [])
        again = run.system.worker(ledger, shard).processor
        recall(before, again)
        assert remember(again, {"head": 1}, []) == before
        worker.close()


def test_states_that_nobody_asks_for_go_from_snapshot_to_snapshot(run: Run) -> None:
    """Started and killed again and again, with one aggregate in use: the others sleep on."""
    from adapters.snapshot_memory import recall, remember

    make = partial(run.system.worker, Ledger.MARKET, 0)
    ids = [AggregateId(n.to_bytes(16, "big")) for n in range(2500)]
    states = [Versioned(each, number, ("state", number)) for number, each in enumerate(ids)]
    data = remember(make().processor, {}, states)
    used: list[Versioned] = []
    for at in (7, 1030, 2499):
        remembered = recall(data, again := make().processor)
        found = remembered.asleep.wake(ids[at])
        assert found == states[at]
        assert remembered.asleep.wake(ids[at]) is None, "from then on it is the caller's"
        assert remembered.asleep.wake(ids[255]) == states[255]
        used = [each for each in states if each.id in {ids[at], ids[255]}]
        data = remember(again, {}, used, remembered.asleep)
    last = recall(data, make().processor).asleep
    assert [last.wake(each) for each in ids] == states


#: Plain values as folds hold them, of every size that a column is packed by.
KEYS = st.sampled_from([n.to_bytes(16, "big") for n in range(900)])
NUMBERS = st.one_of(st.integers(-300, 300), st.integers(-(2**80), 2**80))
VALUES = st.one_of(
    NUMBERS, KEYS, st.none(), st.booleans(), st.binary(max_size=20), st.tuples(KEYS, NUMBERS)
)


@settings(max_examples=40, deadline=None)
@given(
    drawn=st.lists(
        st.one_of(
            st.dictionaries(KEYS, VALUES, max_size=40), st.dictionaries(KEYS, NUMBERS, max_size=3)
        ),
        max_size=5,
    ),
    times=st.sampled_from((1, 7, 300)),
    large=st.integers(250, 900),
)
def test_what_is_packed_comes_back_with_its_order(
    drawn: list[dict[bytes, Any]], times: int, large: int
) -> None:
    """Dicts small and large, with columns that others have too, numbers of any width."""
    from adapters.snapshot_pack import pack
    from adapters.snapshot_unpack import unpack

    ids = [n.to_bytes(16, "big") for n in range(large)]
    root: dict[str, Any] = {
        "drawn": [dict(each) for each in drawn * times],
        "wide": {each: 2**70 if n == 9 else n for n, each in enumerate(reversed(ids))},
        "few": dict.fromkeys(ids, ids[0]),
        "keys": list(ids),
        "mixed": [ids[0], None, *range(large), (), "text", {}],
    }
    data = pack(root, outside={}, parts={}, skip={})
    found = unpack(data, outside={}, parts={})
    assert found == root
    assert list(found["wide"]) == list(root["wide"])
    assert pack(found, outside={}, parts={}, skip={}) == data


def test_a_shard_recovers_from_a_snapshot_without_an_index(run: Run) -> None:
    """A machine that is new to a shard reads its ledger from the snapshot on."""
    worker = run.worker(Ledger.METERING, 1, index=":memory:")
    worker.recover()
    assert worker.recovery is not None
    assert worker.recovery.snapshot_height > 10
    assert not worker.turn()
    worker.close()


@pytest.mark.parametrize("step", range(1, STEPS) if LONG else (3, 9, 21, 33))
def test_workers_that_die_at_a_step_go_on_from_their_snapshots(tmp_path: Path, step: int) -> None:
    """All workers die at once, in the middle of the story; the rest of it comes out the same."""
    kept = Kept(tmp_path, SnapshotPolicy(events=7, bulk_bytes=1 << 20, seconds=0, rest=0))
    made: list[SmallSystem] = []
    recovered: list[int] = []

    def make(ledger: Ledger, shard: int) -> Worker:
        worker = kept.worker(made[0], ledger, shard, index=index_of(tmp_path, ledger, shard))
        worker.recover()
        assert worker.recovery is not None
        recovered.append(worker.recovery.snapshot_height)
        return worker

    log = memory_log()
    made.append(SmallSystem(log, LocalTopics(log), make_worker=make))
    system = made[0]
    script = system.script

    for at in range(STEPS):
        if at == step:
            for each in system.workers:
                each.kill()
        system.time.advance_to(script_time(at), lambda at=at: script(at))  # type: ignore[misc]
    script.look()
    system.close()
    assert recovered[:4] == [-1] * 4
    assert max(recovered[4:]) >= 0, "nobody recovered from a snapshot"
    assert kept.said == []
    check_same(system)


def script_time(step: int) -> int:
    """When a step of the story is."""
    from tests.system.small import START_US, STEP_US

    return START_US + step * STEP_US


# What does not fit


def _flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


def _of_other_code(path: Path) -> None:
    data = path.read_bytes()
    at = data.index(b'"code":"') + 8
    path.write_bytes(data[:at] + (b"1" if data[at : at + 1] != b"1" else b"2") + data[at + 1 :])


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a bit of its memory is turned": (lambda path: _flip(path, -100), "do not hash"),
    "it is cut short": (lambda path: path.write_bytes(path.read_bytes()[:-1]), "do not hash"),
    "it is empty": (lambda path: path.write_bytes(b""), "no snapshot of this format"),
    "its header was edited": (_of_other_code, "did not sign it"),
    "its header is cut": (lambda path: path.write_bytes(path.read_bytes()[:40]), "not whole"),
}


@pytest.fixture
def copied(run: Run, tmp_path: Path) -> Kept:
    """The snapshots of the run, to be damaged."""
    for file in Kept(run.folder).files():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return Kept(tmp_path)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_snapshot_is_thrown_away_with_a_message(
    run: Run, copied: Kept, damage: str
) -> None:
    """The newest one is damaged: the one before it serves; both are: the ledger does."""
    hurt, why = DAMAGES[damage]
    heights = []
    for _ in range(3):
        worker = copied.worker(run.system, Ledger.MARKET, 0)
        worker.recover()
        assert worker.recovery is not None
        heights.append(worker.recovery.snapshot_height)
        assert not worker.turn()
        worker.close()
        mine = [file for file in copied.files() if "market" in file.name]
        if mine:
            hurt(mine[-1])
    assert heights[0] > heights[1] > heights[2] == -1
    assert len(copied.said) == 2
    assert all(why in each for each in copied.said)


def test_a_snapshot_of_another_history_is_thrown_away(tmp_path: Path) -> None:
    """The log was restored from an old copy and went on differently: the ledger decides."""
    ended(tmp_path, steps=12)
    other = SmallSystem(log := memory_log(), LocalTopics(log))
    other.run(5)
    other.close()
    kept = Kept(tmp_path)
    worker = kept.worker(other, Ledger.MARKET, 0)
    worker.recover()
    assert worker.recovery is not None
    assert worker.recovery.snapshot_height == -1
    assert ["another commit at its height" in each for each in kept.said] == [True, True]
    worker.close()


def test_a_folder_keeps_two_snapshots_of_each_ledger(run: Run) -> None:
    """However many were made."""
    found = snapshots_in(run.folder)
    assert {each.unfit for each in found} == {None}
    assert sorted((each.ledger, each.shard) for each in found) == sorted(
        (ledger.name.lower(), shard) for ledger, shard in SEATS for _ in range(2)
    )


def test_a_worker_that_rests_leaves_a_snapshot_of_its_last_commit(tmp_path: Path) -> None:
    """A clean stop commits what was consumed, so that the next start folds nothing."""
    seldom = SnapshotPolicy(events=10**9, bulk_bytes=10**12, seconds=10**6, rest=0)
    log = memory_log()
    system = SmallSystem(log, LocalTopics(log)).run(20)
    kept = Kept(tmp_path, seldom)
    shard = kept.worker(system, Ledger.METERING, 0)
    shard.turn()
    shard.rest()
    shard.close()
    again = kept.worker(system, Ledger.METERING, 0)
    again.recover()
    assert again.recovery is not None
    assert again.recovery.snapshot_height >= 0
    assert again.recovery.folded == 0
    again.close()
    system.close()


def test_the_reference_has_enough_in_it() -> None:
    """Leases that live, ended ones, contradictions, epochs: what a snapshot must hold."""
    assert len(reference().script.seen.ends()) >= 4
