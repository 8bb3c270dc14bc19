"""``synor snapshots``: what processors left for their next start; all of it may go at any time."""

from __future__ import annotations

from typing import Annotated

import typer

from adapters.cli_output import Json, commands, document, said, table
from adapters.cli_roles import HERE, Network

app = commands()


@app.command("ls")
def ls(network: Network = HERE, as_json: Json = False) -> None:
    """List the snapshots of a network or of the folder of `synor up`, and which cannot be used."""
    from adapters import settings
    from adapters.snapshot_keeper import snapshots_in

    folder = settings.load(network).snapshots.folder
    found = snapshots_in(folder)
    if as_json:
        document(
            {
                "folder": str(folder),
                "snapshots": [
                    {
                        "file": each.path.name,
                        "ledger": each.ledger,
                        "shard": each.shard,
                        "height": each.height,
                        "commit": each.hash,
                        "bytes": each.bytes,
                        "unfit": each.unfit,
                    }
                    for each in found
                ],
            }
        )
        return
    if not found:
        said(f"There is no snapshot in {folder}.")
        return
    table(
        ("file", "height", "commit", "bytes", ""),
        [
            (
                each.path.name,
                str(each.height),
                each.hash[:16],
                str(each.bytes),
                "" if each.unfit is None else f"not used: {each.unfit}",
            )
            for each in found
        ],
    )


@app.command("drop")
def drop(
    network: Network = HERE,
    unfit: Annotated[
        bool, typer.Option("--unfit", help="Only those that cannot be used any more.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Delete snapshots; the next start folds the ledgers instead and ends in the same state."""
    from adapters import settings
    from adapters.snapshot_keeper import snapshots_in

    found = [
        each
        for each in snapshots_in(settings.load(network).snapshots.folder)
        if each.unfit is not None or not unfit
    ]
    for each in found:
        each.path.unlink(missing_ok=True)
    if as_json:
        document({"dropped": [each.path.name for each in found]})
        return
    said(f"{len(found)} dropped.")
