"""Whole markets with everything going wrong: no law breaks, and each planted bug breaks one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from itertools import count

import pytest

from adapters.bootstrap import LEDGER_EVENTS
from adapters.cli_simulate import tell
from adapters.simulator import Run, simulate
from adapters.simulator_faults import Fault
from adapters.simulator_runs import Summary, replay, simulate_many
from domain import market_leases, market_orders, pot
from tests.simulator.bugs import BUGS, Bug
from tests.support.fault_matrix import FaultMatrix, Seen

LONG = os.environ.get("SYNOR_LONG") == "1"
RUNS = 10_000 if LONG else 200
#: So many seeds are one test: what was done when a long run is stopped is on the page.
SPAN = 1_000 if LONG else 200
#: Kinds of events that come of what nobody in a simulated market does, or of what is too long.
NEVER = {
    *("AccountAdmitted", "PayeeSet", "PriceRowAdded", "ReclaimAnnounced"),
    *("NodeRetired", "NodeWithdrawn", "PayablesAdded", "PayoutsAdded", "StakeReleased"),
    *("FillsAdded", "PotPartDivided"),
}
#: Those of a node that contradicts itself, which some hundred seeds may not see.
SELDOM = {
    *("ContradictionFound", "EvidenceAccepted", "PotOpened", "PotDivided"),
    *("StakeForfeited", "StakeFrozen", "StakeThawed"),
}
TEST = "tests/simulator/test_simulator.py"


@pytest.mark.slow
@pytest.mark.timeout(2 * 3600 if LONG else 900)
@pytest.mark.parametrize("first", range(0, RUNS, SPAN))
def test_whatever_goes_wrong_no_law_breaks(first: int, fault_matrix: FaultMatrix) -> None:
    """Chain and money after every step; audit, replay, projections, histories at each end."""
    summary = Summary()
    for run in simulate_many(range(first, first + SPAN), jobs=2):
        summary.add(run)
    failed = [f"{replay(run.seed)}: {run.law}: {run.why}" for run in summary.failed]
    assert failed == []
    assert set(summary.faults) == set(Fault), "every kind of fault has struck"
    for fault, fates in summary.faults.items():
        fault_matrix.record(
            Seen(
                fault=str(fault),
                where="simulator",
                runs=fates.struck,
                lost=fates.lost,
                doubled=fates.doubled,
                forked=fates.forked,
                test=TEST,
            )
        )
    kinds = {kind.__name__ for made in LEDGER_EVENTS.values() for kind in made}
    expected = kinds - NEVER - (set() if LONG else SELDOM)
    assert expected <= set(summary.kinds), "a market in which little happens proves little"
    assert min(summary.by_time.values()) > SPAN // 4, "both sources of time"


def test_no_law_breaks_where_one_instant_takes_many_items(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds told a fill at a time and leases ended one by one, with everything going wrong."""
    monkeypatch.setattr(market_orders, "FILLS_PER_EVENT", 1)
    monkeypatch.setattr(market_leases, "ENDS_PER_ITEM", 1)
    monkeypatch.setattr(pot, "CHARGES_PER_ITEM", 1)
    summary = Summary()
    for seed in range(600 if LONG else 30):
        summary.add(simulate(seed))
    assert [f"{run.seed}: {run.law}: {run.why}" for run in summary.failed] == []
    assert summary.kinds["FillsAdded"] > 0


def test_a_seed_is_a_run_to_the_byte_in_any_process() -> None:
    """Nothing depends on set order, on a clock, or on who ran before."""
    said = []
    for hash_seed, first in (("1", "40"), ("2", "41")):
        command = [sys.executable, "-c", "from adapters.cli import main; main()", "simulate"]
        done = subprocess.run(
            [*command, "--seed", first, "--runs", "2", "--steps", "80", "--json"],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=110,
        )
        said.append(json.loads(done.stdout))
    both = [simulate(seed, steps=80) for seed in (40, 41, 42)]
    for document, runs in zip(said, (both[:2], both[1:]), strict=True):
        summary = Summary()
        for run in runs:
            summary.add(run)
        assert document["trace"] == summary.trace
    assert len({run.trace for run in both}) == 3


def test_a_run_is_the_same_however_slow_the_machine_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that leaps at every look changes nothing: time is virtual everywhere."""
    before = [simulate(seed, steps=80).trace for seed in (0, 1, 2)]
    leaping = count(0.0, 7.0)
    monkeypatch.setattr(time, "monotonic", lambda: next(leaping))
    assert [simulate(seed, steps=80).trace for seed in (0, 1, 2)] == before


@pytest.mark.parametrize("bug", BUGS, ids=[bug.name for bug in BUGS])
def test_the_simulator_finds(bug: Bug, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each planted bug breaks a law within some seeds, and again when the seed is repeated."""
    parts = bug.plant(monkeypatch)
    found: Run | None = None
    for seed in range(bug.seeds):
        run = simulate(seed, parts=parts)
        if run.failed:
            found = run
            break
    assert found is not None, f"not within {bug.seeds} seeds"
    assert found.law in bug.laws, found.why
    again = simulate(found.seed, parts=parts)
    assert (again.law, again.why, again.steps, again.trace) == (
        found.law,
        found.why,
        found.steps,
        found.trace,
    )


def test_a_failure_names_its_seed_its_step_the_law_and_the_command_that_repeats_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a person needs to see it again."""
    bug = next(bug for bug in BUGS if bug.name == "a posting off by a nano")
    summary = Summary()
    summary.add(simulate(7, parts=bug.plant(monkeypatch)))
    (run,) = summary.failed
    tell(summary, 1.0, None)
    told = capsys.readouterr().out
    assert f"seed 7, step {run.steps}: postings sum to zero: " in told
    assert "sum to 1 nano" in told
    assert "replay: synor simulate --seed 7 --runs 1 --trace\n" in told
    assert summary.document()["failures"][0]["replay"] in told


def test_a_trace_tells_every_step_and_every_fault() -> None:
    """The lines are what the digest is made of, so a replay shows what happened."""
    lines: list[str] = []
    run = simulate(5, steps=120, say=lines.append)
    assert simulate(5, steps=120).trace == run.trace
    assert sum(line.startswith("  fault: ") for line in lines) == sum(run.faults.values())
    assert sum(not line.startswith("  ") for line in lines) >= run.steps


def test_runs_come_in_the_order_of_their_seeds_for_any_number_of_jobs() -> None:
    """Two processes give what one gives."""
    one = [run.trace for run in simulate_many(range(3), steps=60)]
    two = [run.trace for run in simulate_many(range(3), steps=60, jobs=2)]
    assert one == two
