"""``synor simulate``: whole markets in virtual time, with everything going wrong."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Final

import typer

from adapters.cli_output import Json, document, facts, noted, said, table

if TYPE_CHECKING:
    from adapters.simulator_runs import Summary

EXIT_LAW_BROKEN: Final = 1
_PROGRESS_S: Final = 10.0


def simulate(
    seed: Annotated[int, typer.Option(min=0, help="The first seed.")] = 0,
    runs: Annotated[int, typer.Option(min=1, help="Seeds in all, one run each.")] = 200,
    jobs: Annotated[int, typer.Option(min=1, help="Processes to share them.")] = 1,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Steps with faults; by default the seed draws them.")
    ] = None,
    trace: Annotated[bool, typer.Option(help="Tell every step, for one run.")] = False,
    as_json: Json = False,
) -> None:
    """Run whole markets in one process, in virtual time, with faults drawn from seeds.

    After every step the laws of the chain and of the money are checked; at its end each run is
    audited. A failure names its seed, its step and the law, and the command that repeats it.
    """
    from adapters.simulator import simulate as simulate_one
    from adapters.simulator_runs import Summary, simulate_many

    summary = Summary()
    started = told = time.monotonic()
    if trace:
        for each in range(seed, seed + runs):
            summary.add(simulate_one(each, steps=steps, say=noted))
    else:
        for run in simulate_many(range(seed, seed + runs), steps=steps, jobs=jobs):
            summary.add(run)
            now = time.monotonic()
            if now - told > _PROGRESS_S:
                told = now
                noted(f"{summary.runs} of {runs} runs, {len(summary.failed)} failed")
    seconds = time.monotonic() - started
    if as_json:
        document({**summary.document(), "ms": int(seconds * 1000)})
    else:
        tell(summary, seconds, steps)
    if summary.failed:
        raise typer.Exit(EXIT_LAW_BROKEN)


def tell(summary: Summary, seconds: float, steps: int | None) -> None:
    """Print what runs came to, and of each that failed all that is needed to see it again."""
    from adapters.simulator_runs import replay

    table(
        ("fault", ">struck", ">in runs", ">lost", ">doubled", ">forked"),
        [
            (
                str(fault),
                str(fates.struck),
                str(fates.runs),
                str(fates.lost),
                str(fates.doubled),
                str(fates.forked),
            )
            for fault, fates in sorted(summary.faults.items())
        ],
    )
    facts(
        [
            ("runs", f"{summary.runs} in {seconds:.0f} s"),
            ("steps", str(summary.steps)),
            ("commits", f"{summary.commits} and {summary.noise} records of noise"),
            ("events", f"{summary.events} of {len(summary.kinds)} kinds"),
            ("client operations", str(summary.operations)),
            ("trace", summary.trace),
            ("failed", str(len(summary.failed))),
        ]
    )
    for run in summary.failed:
        said(f"seed {run.seed}, step {run.steps}: {run.law}: {run.why}")
        for anomaly in run.anomalies[1:]:
            said(f"  also: {anomaly}")
        said(f"  replay: {replay(run.seed, steps)}")
