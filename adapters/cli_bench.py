"""``synor bench``: measures of the processors, one line of JSON each."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from adapters.bench_metering import BenchLog, Shape, bench_metering
from adapters.metering_workload import Encoding

app = typer.Typer(no_args_is_help=True)

#: Readings that keep a worker busy for some seconds, by rows of a batch.
ENOUGH = ((1000, 4_000_000), (100, 1_500_000), (1, 300_000))


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
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON.")] = False,
) -> None:
    """One worker, all checks on: throughput on a full topic, then latency at half that rate."""
    enough = readings or next(number for rows, number in ENOUGH if batch >= rows)
    figures = bench_metering(Shape(log, batch, columns, enough))
    if as_json:
        typer.echo(json.dumps(figures))
        return
    for name, value in figures.items():
        typer.echo(f"{name:20} {value}")
