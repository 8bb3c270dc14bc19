"""``synor telemetry``: what of the raw telemetry is there, and what of it may go."""

from __future__ import annotations

from typing import Annotated

import typer

from adapters.cli_output import Json, commands, document, said, table
from adapters.cli_roles import HERE, Kafka, Network, deployment_of

app = commands()


@app.command("delete")
def delete(
    network: Network = HERE,
    kafka: Kafka = None,
    older_than: Annotated[
        str,
        typer.Option("--older-than", help="Since its commit, by the ledger's time: 90d, 12h, 0s."),
    ] = "90d",
    yes: Annotated[
        bool, typer.Option("--yes", help="Delete; without it only show what would go.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Delete old telemetry that its shard has committed; without --yes only say what would go.

    What a shard has not committed always stays, and where a ledger has a fault everything does. An
    audit then takes the batches from the shard's ledger. Killed or run twice it does no harm.
    """
    from adapters import roles_telemetry
    from adapters.cli_units import duration

    deployment = deployment_of(network, kafka)
    kept = roles_telemetry.kept_by(deployment, duration(older_than))
    if yes:
        roles_telemetry.delete(deployment, kept)
    if as_json:
        document(
            {
                "deleted": yes,
                "shards": [
                    {
                        "shard": each.shard,
                        "start": each.start,
                        "old": each.old,
                        "before": each.before,
                        "committed": each.committed,
                        "end": each.end,
                    }
                    for each in kept
                ],
            }
        )
        return
    table(
        ("shard", ">first", ">committed before", ">end", ">older"),
        [
            (str(k.shard), f"{k.start:,}", f"{k.committed:,}", f"{k.end:,}", f"{k.old:,}")
            for k in kept
        ],
    )
    total = sum(each.old for each in kept)
    if yes:
        said(f"{total:,} records are deleted.")
    else:
        said(f"{total:,} records may go. Delete them with --yes; nothing brings them back.")
