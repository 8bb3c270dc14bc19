"""``synor export``: a ledger in one file, for an audit that needs no server."""

from __future__ import annotations

import time
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import typer

from adapters.cli_failures import Asked, Unable
from adapters.cli_ledgers import place_of
from adapters.cli_output import Json, document, noted, said

_SHOWN_EVERY_S: Final = 10.0


def export(
    ledger: Annotated[
        list[str],
        typer.Argument(help="As `synor audit` takes it; then the file to write, last."),
    ],
    from_epoch: Annotated[
        int,
        typer.Option("--from", min=1, help="First epoch; goes on where a bundle --to before ends."),
    ] = 1,
    to_epoch: Annotated[
        int, typer.Option("--to", min=0, help="Last epoch; 0 for all that there is.")
    ] = 0,
    l1: Annotated[
        str | None,
        typer.Option("--l1", help="JSON-RPC URL of the L1; what it says is recorded too."),
    ] = None,
    no_l1: Annotated[
        bool, typer.Option("--no-l1", help="Record nothing of the chain in the folder.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write everything an audit reads into one file, streaming, from any log.

    Ledgers and inputs are taken as far as the commits need them, so a ledger that runs can be
    exported. `synor audit FILE` gives the same verdict without a server.
    """
    from adapters import bootstrap
    from adapters.avro_codec import AvroCodec
    from adapters.bundle_l1 import facts_of
    from adapters.bundle_writer import NoSuchEpoch, Range
    from adapters.bundle_writer import export as written
    from adapters.cli_vaults import vault_of

    *named, target = ledger
    if not named:
        raise Asked("Name a ledger and the file to write.", "For example: synor export FOLDER FILE")
    if to_epoch and to_epoch < from_epoch:
        raise Asked(f"Epoch {to_epoch} is before epoch {from_epoch}.")
    out = Path(target)
    if out.exists():
        raise Asked(f"{out} exists already.", "A bundle is never written over: name another file.")
    place = place_of(named)
    codec = AvroCodec()
    began = shown = time.monotonic()

    def progress(records: int, size: int) -> None:
        nonlocal shown
        now = time.monotonic()
        if now - shown >= _SHOWN_EVERY_S:
            shown = now
            noted(f"Exported {records:,} records, {size / 1e6 / (now - began):,.0f} MB/s.")

    with closing(place.open()) as log:
        genesis, shards = bootstrap.first_genesis(log, codec)
        network = bootstrap.Network.of(genesis, shards, codec)
        with vault_of(place, network, l1, no_l1) as chain:
            ask_l1 = (
                None
                if chain is None
                else partial(facts_of, chain, min(chain.totals().last_epoch, to_epoch or 1 << 62))
            )
            try:
                done = written(
                    log,
                    out,
                    codec=codec,
                    genesis=network.hash,
                    topics=network.topics(),
                    shards=shards,
                    epochs=Range(after=from_epoch - 1, to=to_epoch),
                    ask_l1=ask_l1,
                    progress=progress,
                )
            except NoSuchEpoch as missing:
                raise Unable(str(missing), "See them with: synor epoch ls") from missing
    seconds = time.monotonic() - began
    if as_json:
        document(
            {
                "bundle": str(out),
                "genesis_hash": network.hash,
                "records": done.records,
                "parts": done.parts,
                "bytes": done.bytes,
                "file_bytes": out.stat().st_size,
                "seconds": f"{seconds:.3f}",
            }
        )
        return
    said(
        f"{out}: {done.records:,} records, {done.bytes / 1e6:,.1f} MB in "
        f"{out.stat().st_size / 1e6:,.1f} MB, {seconds:.1f} s. Check it with: synor audit {out}"
    )
