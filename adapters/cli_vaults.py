"""The vault that a ledger is anchored in: at a URL, in its folder, or as a bundle recorded it."""

from __future__ import annotations

import json
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.cli_failures import Asked
from adapters.cli_ledgers import Place, bundle
from adapters.cli_output import noted

if TYPE_CHECKING:
    from adapters.bootstrap import Network
    from domain.l1 import L1Chain, L1Config


@contextmanager
def vault_of(
    place: Place, network: Network, url: str | None, left_out: bool
) -> Iterator[L1Chain | None]:
    """The vault of a ledger, its pins compared with the genesis; None where there is none."""
    from adapters.evm_rpc import Rpc, http_provider

    if left_out or network.genesis.chain_id == 0:
        if url is not None:
            raise Asked("There is nothing to compare with the L1: this ledger has none.")
        yield None
    elif url is not None:
        yield _of_endpoint(network, Rpc(http_provider(url)))
    elif place.folder is not None and (place.folder / "l1.db").exists():
        with embedded_rpc(place.folder) as rpc:
            yield _of_endpoint(network, rpc)
    elif place.bundles and (recorded := _recorded(network, place)) is not None:
        yield recorded
    else:
        noted("The checkpoints are not compared with the L1: name it with --l1 URL.")
        yield None


def _recorded(network: Network, place: Place) -> L1Chain | None:
    from adapters.bundle_l1 import RecordedChain

    with closing(bundle(*place.bundles)) as log:
        facts = log.l1_facts()
    if facts is None:
        return None
    chain = RecordedChain(facts)
    _compare_pins(network, chain.config)
    head = chain.head()
    noted(
        f"The L1 is taken as the bundle recorded it at block {head.number}, 0x{head.hash.hex()}: "
        "compare that hash with the L1, or name it with --l1 URL."
    )
    return chain


@contextmanager
def embedded_rpc(folder: Path) -> Iterator[Any]:
    """The embedded chain of a folder: of the process that runs it, else executed again."""
    from adapters.evm_embedded import EmbeddedChain
    from adapters.evm_rpc import Rpc, http_provider

    with tempfile.TemporaryDirectory(prefix="synor-audit-") as scratch:
        # On a copy: a file that is looked at must not change, and its process may start meanwhile.
        copy = Path(scratch) / "l1.db"
        source = sqlite3.connect(f"file:{folder / 'l1.db'}?mode=ro", uri=True, timeout=0)
        try:
            with closing(source), closing(sqlite3.connect(copy)) as target:
                # Raises where a process has the file; the backup by itself would wait for ever.
                ((begins_s,),) = source.execute("SELECT time_s FROM blocks WHERE number = 0")
                source.backup(target)
        except sqlite3.OperationalError as locked:
            running = folder / "up.json"
            if not running.exists():
                raise Asked(f"{folder / 'l1.db'} cannot be read: {locked}.") from locked
            yield Rpc(http_provider(json.loads(running.read_text())["rpc"]))
            return
        seeded = folder / "system.seed"
        if seeded.exists():
            seed = seeded.read_bytes()
        else:
            from adapters.demo import SEED

            seed = SEED
        with closing(
            EmbeddedChain(copy, seed=seed, clock=lambda: begins_s, genesis_s=begins_s)
        ) as chain:
            yield chain.rpc


def _of_endpoint(network: Network, rpc: Any) -> L1Chain:
    from adapters.evm_chain import EvmChain, read_config
    from domain.l1 import Depth

    config = read_config(rpc, network.genesis.vault, 0, Depth(confirmations=0))
    _compare_pins(network, config)
    return EvmChain(rpc, config)


def _compare_pins(network: Network, config: L1Config) -> None:
    """The vault that the genesis names, with the code that this release has for it."""
    from adapters.evm_vault import vault_code_hash
    from domain.l1 import PinMismatch

    for pin, expected, found in (
        ("chain id", network.genesis.chain_id, config.chain_id),
        ("address of the vault", network.genesis.vault.hex(), config.vault.hex()),
        ("hash of the vault's code", vault_code_hash(config.token).hex(), config.code_hash.hex()),
    ):
        if expected != found:
            raise PinMismatch(pin, expected, found)
