"""``synor replay``: foreign data by a mapping, through the same gate and processors as all else."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from adapters.cli_failures import Asked, Unable
from adapters.cli_output import Json, document, facts, noted, said, table
from adapters.cli_units import shown_synor

#: The replay ran, but a figure is not what the mapping expects, or the audit found a divergence.
EXIT_UNLIKE: Final = 1


class LogKind(Enum):
    """What the ledger stands on."""

    SQLITE = "sqlite"
    KAFKA = "kafka"
    MEMORY = "memory"


def replay(
    mapping: Annotated[Path, typer.Argument(help="TOML file that says what rows become.")],
    data: Annotated[Path, typer.Argument(help="Folder of the data, or its one file.")],
    log: Annotated[LogKind, typer.Option(help="What the ledger stands on.")] = LogKind.SQLITE,
    folder: Annotated[
        Path | None, typer.Option(help="Empty folder for the ledger; default: a new one.")
    ] = None,
    shuffle: Annotated[
        int | None, typer.Option(help="Permute beats and readings within the bounds, by this seed.")
    ] = None,
    duplicates: Annotated[
        int | None, typer.Option(help="Append signed records a second time, by this seed.")
    ] = None,
    audit: Annotated[bool, typer.Option("--audit", help="Decide everything again.")] = False,
    as_json: Json = False,
) -> None:
    """Turn foreign data into signed inputs in logical time, and report totals from the ledger.

    Exits 0, or 1 where a figure is not the one that the mapping's [expect] names.
    """
    from adapters.audit import Diverged
    from adapters.kafka_broker import BrokerUnavailable
    from adapters.replay import run_replay
    from adapters.replay_values import ReplayRefused

    try:
        result = run_replay(
            mapping,
            data,
            log=log.value,
            folder=folder,
            shuffle=shuffle,
            duplicates=duplicates,
            audited=audit,
            say=noted,
        )
    except ReplayRefused as refused:
        raise Asked(str(refused)) from refused
    except BrokerUnavailable as absent:
        raise Unable(str(absent)) from absent
    except Diverged as diverged:
        noted(f"synor: the audit found a divergence: {diverged}")
        raise typer.Exit(EXIT_UNLIKE) from diverged
    if as_json:
        document({**result.figures, "unlike": list(result.unlike)})
    else:
        _tell(result.figures)
    for each in result.unlike:
        noted(f"synor: {each}")
    if result.unlike:
        raise typer.Exit(EXIT_UNLIKE)


def _tell(figures: dict[str, Any]) -> None:
    money = figures["money"]
    facts(
        [
            ("mapping", figures["mapping"]),
            ("rows", _counts(figures["rows"])),
            ("left out", _counts(figures["rows_left_out"])),
            ("became", _counts(figures["became"])),
            ("leases", f"{figures['leases']:,}: {_counts(figures['ended'])}"),
            ("never leased", f"{figures['orders_never_leased']:,} of {figures['orders']:,} orders"),
            ("peak", f"{figures['peak_active_leases']:,} active leases"),
            ("refused", _counts({**figures["refused"], **figures["gate_refused"]}) or "nothing"),
            ("deposited", shown_synor(money["deposited_nano"])),
            ("slashed", shown_synor(money["slashed_nano"])),
        ]
    )
    said("")
    table(
        ("resource", ">quantity", ">peak", ">billed SYNOR"),
        [
            (
                resource,
                f"{quantity:,}",
                f"{figures['peaks'].get(resource, {}).get('quantity', 0):,}",
                shown_synor(figures["posted_nano"].get(resource, 0)),
            )
            for resource, quantity in figures["quantities"].items()
        ],
    )
    said("")
    facts(
        [
            # A total that is not whole is the text of a fraction.
            *(
                (name, value if isinstance(value, str) else f"{value:,}")
                for name, value in figures["totals"].items()
            ),
            ("events", f"{figures['events']:,} in {figures['commits']:,} commits"),
            ("balances", figures["balances"]),
            ("bills", figures["bills"]),
            ("audit", figures.get("audit", "")),
            ("state hash", figures.get("state_hash", "")),
            ("ledger", figures["ledger"] or ""),
            ("seconds", str(figures["seconds"])),
        ]
    )


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
