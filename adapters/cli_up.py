"""``synor up``: a whole ledger in one process, with nothing to install."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adapters import cli_genesis
from adapters.cli_output import Json, document, facts, noted, said
from adapters.settings import API_PORT

if TYPE_CHECKING:
    from adapters.up import Up

FOLDER = Path("var/up")


def up(
    folder: Annotated[Path, typer.Option(help="Where everything is kept.")] = FOLDER,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on loopback; 0: any.")] = (
        API_PORT
    ),
    fast: Annotated[
        bool, typer.Option("--fast", help="At the first start: short periods, for a try-out.")
    ] = False,
    genesis: Annotated[
        Path | None, typer.Option(help="At the first start: a TOML file of parameters.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run a ledger in one process: log, processors, L1, read models and API.

    The first start makes the network in the folder; every later one goes on where the last one
    stopped, however it stopped. Ctrl-C stops it.
    """
    if (fast or genesis is not None) and (folder / "genesis.avro").exists():
        noted(
            f"There is a network in {folder}: its genesis stays, --fast and --genesis do nothing."
        )
        fast, genesis = False, None
    wanted = cli_genesis.wanted(
        genesis,
        fast=fast,
        name="synor-fast" if fast else "synor",
        shards=cli_genesis.SHARDS_IN_ONE_PROCESS,
    )
    from adapters import up as running
    from adapters.up_folder import Folder

    if not as_json:
        said(f"Starting on {folder} …")
    running.run(
        Folder(folder),
        port=port,
        name=wanted.name,
        shards=wanted.shards,
        parameters=wanted.parameters,
        ready=lambda made: _ready(made, as_json),
        say=noted,
    )
    if not as_json:
        said("Stopped. Start it again with the same command.")


def _ready(up: Up, as_json: bool) -> None:
    network = up.network
    if as_json:
        document(
            {
                "api": up.api,
                "rpc": up.rpc,
                "folder": str(up.folder.path),
                "network": network.genesis.network,
                "genesis_hash": network.hash,
                "shards": network.shards,
                "created": up.created,
            }
        )
        return
    facts(
        (
            ("network", f"{network.genesis.network}, {network.shards} metering shards"),
            ("genesis hash", network.hash.hex()),
            ("API and pages", up.api),
            ("L1 (embedded)", f"{up.rpc}  chain id {network.genesis.chain_id}"),
            ("vault", f"0x{network.genesis.vault.hex()}"),
            ("everything is in", str(up.folder.path)),
        )
    )
    said("It runs. Ctrl-C stops it; `synor audit` on the folder checks it at any time.")
