"""``synor bench``: measures of the processors, one line of JSON each."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from adapters.bench_audit import ENOUGH as AUDIT_ENOUGH
from adapters.bench_audit import bench_audit
from adapters.bench_hashing import bench_hashing
from adapters.bench_metering import BenchLog, Shape, bench_growth, bench_metering
from adapters.bench_peers import Peer, PeerMissing
from adapters.cli_failures import Asked
from adapters.metering_workload import Encoding

app = typer.Typer(no_args_is_help=True)

#: Readings that keep a worker busy for some seconds, by rows of a batch.
ENOUGH = ((1000, 4_000_000), (100, 1_500_000), (1, 300_000))


#: Seconds of load before each kill at work: about a snapshot's distance, and between.
KILLS = [20.0, 35.0, 50.0]


@app.callback()
def bench() -> None:
    """Measure on this machine; figures of one run are comparable with one another."""


@app.command()
def metering(
    log: Annotated[BenchLog, typer.Option(help="What the topics stand on.")] = BenchLog.KAFKA,
    batch: Annotated[int, typer.Option(min=1, max=10_000, help="Readings a batch.")] = 1000,
    columns: Annotated[Encoding, typer.Option(help="Encoding of the columns.")] = Encoding.LONG,
    readings: Annotated[
        int, typer.Option(min=0, help="Readings in all; 0 for some seconds' worth.")
    ] = 0,
    peer: Annotated[
        Peer | None, typer.Option(help="Also measure a peer on the same records.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON.")] = False,
) -> None:
    """One worker, all checks on: throughput on a full topic, then latency at half that rate."""
    enough = readings or next(number for rows, number in ENOUGH if batch >= rows)
    try:
        figures = bench_metering(Shape(log, batch, columns, enough), peer)
    except PeerMissing as missing:
        raise typer.BadParameter(str(missing)) from missing
    _show(figures, as_json=as_json)


@app.command()
def growth(
    log: Annotated[BenchLog, typer.Option(help="What the topics stand on.")] = BenchLog.KAFKA,
    batch: Annotated[int, typer.Option(min=1, max=10_000, help="Readings a batch.")] = 1000,
    columns: Annotated[Encoding, typer.Option(help="Encoding of the columns.")] = Encoding.LONG,
    readings: Annotated[int, typer.Option(min=1, help="Readings of the first part.")] = 1_000_000,
    times: Annotated[int, typer.Option(min=2, help="Parts in all.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON.")] = False,
) -> None:
    """CPU per reading and memory of one worker after one part of a history and after all parts."""
    _show(bench_growth(Shape(log, batch, columns, readings), times), as_json=as_json)


@app.command()
def hashing(
    batch: Annotated[int, typer.Option(min=1, max=10_000, help="Readings a batch.")] = 1000,
    records: Annotated[int, typer.Option(min=64, help="Batches.")] = 512,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON.")] = False,
) -> None:
    """SHA-256 and signatures as gate and audit do them, against hashlib and cryptography alone."""
    _show(bench_hashing(batch, records), as_json=as_json)


def _show(figures: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(figures))
        return
    for name, value in figures.items():
        typer.echo(f"{name:20} {value}")


@app.command()
def recovery(
    leases: Annotated[int, typer.Option(min=1, help="Live leases.")] = 100_000,
    readings: Annotated[int, typer.Option(min=0, help="Readings accepted.")] = 5_000_000,
    folder: Annotated[
        Path | None,
        typer.Option(help="Keep the network here, and use the one that is here already."),
    ] = None,
    load_s: Annotated[
        list[float],
        typer.Option(min=0, help="Seconds of load before a kill at work; may be given again."),
    ] = KILLS,
    readings_s: Annotated[
        int, typer.Option(min=1, help="The load: readings a second, and an order with each 100.")
    ] = 20_000,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON.")] = False,
) -> None:
    """Kill a network at once; time until it serves again, with snapshots and without.

    Then killed at work: with load that goes on until the instant of the kill.
    """
    from adapters.bench_recovery import bench_recovery

    def say(text: str) -> None:
        typer.echo(text, err=True)

    with ExitStack() as stack:
        place = folder or Path(stack.enter_context(TemporaryDirectory(prefix="synor-bench-")))
        figures = bench_recovery(
            leases,
            readings,
            place / "network",
            say,
            load_s=[each for each in load_s if each],
            readings_s=readings_s,
        )
    if as_json:
        typer.echo(json.dumps(figures))
        return
    for name, value in figures.items():
        if not isinstance(value, dict):
            typer.echo(f"{name:20} {value}")
    how = [name for name in ("with", "without", "at_work") if name in figures]
    typer.echo(" ".join((f"{'':20}", *(f"{name:>10}" for name in how))))
    for name in figures["with"]:
        typer.echo(" ".join((f"{name:20}", *(f"{figures[each][name]:>10}" for each in how))))
    if "at_work" in figures:
        typer.echo(f"{'all_s':20} {figures['at_work']['all_s']}")


@app.command()
def market(
    commits: Annotated[int, typer.Option(min=100, help="Commits of the market.")] = 50_000,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON.")] = False,
) -> None:
    """CPU of a market commit as the ledger grows, in ten parts: leases come, report and go."""
    from adapters.bench_market import bench_market

    _show(bench_market(commits, lambda text: typer.echo(text, err=True)), as_json=as_json)


@app.command()
def audit(
    log: Annotated[BenchLog, typer.Option(help="What the topics stand on.")] = BenchLog.SQLITE,
    batch: Annotated[int, typer.Option(min=1, max=10_000, help="Readings a batch.")] = 1000,
    columns: Annotated[Encoding, typer.Option(help="Encoding of the columns.")] = Encoding.LONG,
    readings: Annotated[
        int, typer.Option(min=0, help="Readings in all; 0 for some seconds' worth.")
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON.")] = False,
) -> None:
    """Audit what a worker metered: CPU a reading beside the metering's, and the bare limits."""
    if log is BenchLog.MEMORY:
        raise Asked(
            "An audit is measured in a process of its own, which sees no log in memory.",
            "Take --log sqlite or --log kafka.",
        )
    enough = readings or next(number for rows, number in AUDIT_ENOUGH if batch >= rows)
    figures = bench_audit(Shape(log, batch, columns, enough))
    if as_json:
        typer.echo(json.dumps(figures))
        return
    for name, value in figures.items():
        typer.echo(f"{name:28} {value}")
