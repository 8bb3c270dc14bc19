"""Many seeds, over several processes, and what they come to together."""

from __future__ import annotations

import hashlib
import multiprocessing
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from adapters.simulator import Run, simulate
from adapters.simulator_faults import Fault


@dataclass(slots=True)
class Fates:
    """How often a kind of fault struck, in how many runs, and what the checker counted there."""

    struck: int = 0
    runs: int = 0
    lost: int = 0
    doubled: int = 0
    forked: int = 0


@dataclass(slots=True)
class Summary:
    """What runs come to, added up one by one in the order of their seeds."""

    runs: int = 0
    steps: int = 0
    commits: int = 0
    events: int = 0
    noise: int = 0
    operations: int = 0
    failed: list[Run] = field(default_factory=list)
    faults: dict[Fault, Fates] = field(default_factory=dict)
    kinds: Counter[str] = field(default_factory=Counter)
    by_time: Counter[str] = field(default_factory=Counter)
    _digest: Any = field(default_factory=hashlib.sha256)

    def add(self, run: Run) -> None:
        """Take in one run."""
        self.runs += 1
        self.steps += run.steps
        self.commits += run.commits
        self.events += run.events
        self.noise += run.noise
        self.operations += run.operations
        self.kinds.update(run.kinds)
        self.by_time[run.time_source] += 1
        self._digest.update(run.trace.encode())
        if run.failed:
            self.failed.append(run)
        lost, doubled, forked = run.damage()
        for fault, struck in run.faults.items():
            fates = self.faults.setdefault(fault, Fates())
            fates.struck += struck
            fates.runs += 1
            fates.lost += lost
            fates.doubled += doubled
            fates.forked += forked

    @property
    def trace(self) -> str:
        """SHA-256 over the traces of all runs: the same seeds give the same."""
        return str(self._digest.hexdigest())

    def document(self) -> dict[str, Any]:
        """The summary as JSON."""
        return {
            "runs": self.runs,
            "failed": len(self.failed),
            "steps": self.steps,
            "commits": self.commits,
            "events": self.events,
            "kinds": dict(sorted(self.kinds.items())),
            "noise": self.noise,
            "operations": self.operations,
            "trace": self.trace,
            "faults": [
                {
                    "fault": str(fault),
                    "struck": fates.struck,
                    "runs": fates.runs,
                    "lost": fates.lost,
                    "doubled": fates.doubled,
                    "forked": fates.forked,
                }
                for fault, fates in sorted(self.faults.items())
            ],
            "failures": [
                {
                    "seed": run.seed,
                    "step": run.steps,
                    "law": run.law,
                    "why": run.why,
                    "replay": replay(run.seed),
                }
                for run in self.failed
            ],
        }


def replay(seed: int, steps: int | None = None) -> str:
    """The one command that repeats a run and tells every step of it."""
    limited = "" if steps is None else f" --steps {steps}"
    return f"synor simulate --seed {seed} --runs 1{limited} --trace"


def simulate_many(
    seeds: Sequence[int], *, steps: int | None = None, jobs: int = 1
) -> Iterator[Run]:
    """Runs in the order of their seeds; each seed's run is the same for any number of jobs."""
    one = partial(simulate, steps=steps)
    if jobs == 1:
        yield from map(one, seeds)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        yield from pool.map(one, seeds, chunksize=8)
