"""``synor network``: describes a network of many processes, makes its keys, changes its rules."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from adapters import cli_genesis, cli_operator, cli_passphrase, settings
from adapters.cli_client import PassphraseFile, identity
from adapters.cli_failures import Asked, Unable
from adapters.cli_key import address_of
from adapters.cli_output import Json, commands, document, facts, said
from adapters.cli_units import evm_address
from domain.ids import Address

if TYPE_CHECKING:
    from adapters.key_files import Shown
    from domain.genesis import Genesis
    from domain.l1 import L1Config

app = commands()
app.command("change")(cli_operator.change_parameter)
app.command("price")(cli_operator.add_price)
app.command("activate-rules")(cli_operator.activate_rules)
app.command("rotate-writer")(cli_operator.rotate_writer)

_SUPPLY_NANO: Final = 10**9 * 10**9
_SENDER: Final = "sender"
_SENDER_COIN_WEI: Final = 10**18
_INCLUDED_WITHIN_S: Final = 120.0
_POLL_S: Final = 0.5


@app.command("new")
def new(
    folder: Annotated[Path, typer.Argument(help="Folder for settings, genesis and keys.")],
    kafka: Annotated[str, typer.Option(help="Brokers, HOST:PORT,….")],
    name: Annotated[str, typer.Option(help="Name for people.")] = "synor",
    shards: Annotated[int, typer.Option(help="Metering shards, for life.")] = cli_genesis.SHARDS,
    genesis: Annotated[
        Path | None, typer.Option(help="TOML file of parameters; default: those of the rules.")
    ] = None,
    fast: Annotated[bool, typer.Option("--fast", help="Short periods, for a try-out.")] = False,
    read_model: Annotated[
        str, typer.Option(help="SQLAlchemy URL of the read models.")
    ] = "sqlite:///read.db",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the API.")] = (
        settings.API_PORT
    ),
    l1_rpc: Annotated[str | None, typer.Option(help="JSON-RPC URL of the L1.")] = None,
    vault: Annotated[str | None, typer.Option(help="Address of the vault on it.")] = None,
    l1_start: Annotated[
        int, typer.Option(min=0, help="A block after the vault's creation, before a deposit.")
    ] = 0,
    confirmations: Annotated[
        int, typer.Option(min=0, help="A block is final with so many on top of it.")
    ] = 12,
    deploy_key: Annotated[
        Path | None,
        typer.Option(help="Create token and vault with this identity: development chains only."),
    ] = None,
    keys_passphrase: Annotated[
        Path | None, typer.Option(help="Encrypt the keys with the first line of this file.")
    ] = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Write network.toml, the genesis and a key for each role; nothing is started.

    Without --l1-rpc the network has no L1: its watcher key signs the deposits.
    """
    from adapters.avro_codec import AvroCodec
    from adapters.bootstrap import Network
    from adapters.roles_genesis import drawn, write

    if (folder / settings.FILE_NAME).exists():
        raise Asked(f"There is a network in {folder} already.", "Take another folder.")
    if (l1_rpc is None) != (vault is None and deploy_key is None):
        raise Asked(
            "--l1-rpc goes with --vault, or with --deploy-key on a development chain.",
            "Give both, or neither for a network without an L1.",
        )
    wanted = cli_genesis.wanted(genesis, fast=fast, name=name, shards=shards)
    passphrase = None if keys_passphrase is None else cli_passphrase.from_file(keys_passphrase)
    (folder / "keys").mkdir(parents=True, exist_ok=True)
    keys = {
        role: _key(folder / "keys" / f"{role}.pem", passphrase, evm=role == _SENDER)
        for role in (*settings.ROLES, _SENDER)
    }
    pins: L1Config | None = None
    if l1_rpc is not None:
        pins = _pins(
            l1_rpc,
            None if vault is None else evm_address(vault),
            l1_start,
            confirmations,
            deploy_key,
            passphrase_file,
            keys[_SENDER].address,
        )
    codec = AvroCodec()
    made = drawn(lambda nonce: _genesis(keys, wanted, pins, nonce), codec)
    network = Network.of(made, wanted.shards, codec)
    write(folder / "genesis.avro", made, codec)
    settings.write(
        folder / settings.FILE_NAME,
        _tables(kafka, wanted.shards, read_model, port, l1_rpc, pins, keys_passphrase),
        f"The network {wanted.name}, genesis {network.hash.hex()}.\n"
        "Every role reads this file; each needs only its own key of keys/.",
    )
    if as_json:
        document(
            {
                "settings": str(folder / settings.FILE_NAME),
                "genesis_hash": network.hash,
                "shards": wanted.shards,
                "sender": keys[_SENDER].address,
            }
        )
        return
    sender = keys[_SENDER].address
    facts(
        (
            ("settings", str(folder / settings.FILE_NAME)),
            ("genesis hash", network.hash.hex()),
            ("metering shards", str(wanted.shards)),
            ("sender's address", "" if sender is None or pins is None else f"0x{sender.hex()}"),
            ("keys", f"{folder / 'keys'}: give each role its own, and keep the others away"),
        )
    )
    said(
        "Next: synor topics create; then synor work, clock, serve" + (", watch, send" * bool(pins))
    )


@app.command("show")
def show(
    network: Annotated[
        Path,
        typer.Option("--network", envvar="SYNOR_NETWORK", help="Settings, or their folder."),
    ] = Path(),
    as_json: Json = False,
) -> None:
    """Check the settings of a network and show what they say."""
    from adapters.roles import Deployment

    found = Deployment(settings.load(network))
    chosen = found.settings
    if as_json:
        document(
            {
                "network": found.network.genesis.network,
                "genesis_hash": found.network.hash,
                "shards": chosen.shards,
                "log": chosen.log.kind,
                "read_model": _without_password(chosen.read_model),
                "api": f"http://{chosen.api_host}:{chosen.api_port}",
                "l1": chosen.chain.kind,
            }
        )
        return
    facts(
        (
            ("network", f"{found.network.genesis.network}, {chosen.shards} metering shards"),
            ("genesis hash", found.network.hash.hex()),
            ("log", f"{chosen.log.kind} {chosen.log.bootstrap or chosen.log.file}"),
            ("read models", _without_password(chosen.read_model)),
            ("API", f"http://{chosen.api_host}:{chosen.api_port}"),
            ("L1", f"{chosen.chain.kind} {chosen.chain.url}".strip()),
            ("keys here", ", ".join(r for r, p in chosen.keys.items() if p[0].exists()) or "none"),
        )
    )
    said("The settings are whole.")


def _without_password(url: str) -> str:
    from sqlalchemy import make_url

    return make_url(url).render_as_string(hide_password=True)


def _key(path: Path, passphrase: bytes | None, *, evm: bool) -> Shown:
    from adapters import key_files

    if path.exists():
        return key_files.show(path)
    return key_files.write(path, key_files.Identity.new(evm=evm), passphrase, address_of=address_of)


def _genesis(
    keys: dict[str, Shown], wanted: cli_genesis.Wanted, pins: L1Config | None, nonce: int
) -> Genesis:
    from adapters.embedded import NO_VAULT
    from domain.genesis import Genesis, GenesisKey, Role, TimeSource
    from domain.rules import NEWEST

    return Genesis(
        network=wanted.name,
        nonce=nonce,
        start_us=time.time_ns() // 1000,
        time_source=TimeSource.BROKER,
        rules_version=NEWEST,
        market_writer=keys["market"].public,
        metering_writer=keys["metering"].public,
        settlement_writer=keys["settlement"].public,
        keys=tuple(
            GenesisKey(key=keys[role.value.lower()].public, role=role)
            for role in (Role.CLOCK, Role.WATCHER, Role.OPERATOR, Role.ATTESTOR)
        ),
        chain_id=0 if pins is None else pins.chain_id,
        vault=NO_VAULT if pins is None else pins.vault,
        parameters=wanted.parameters,
    )


def _pins(
    url: str,
    vault: Address | None,
    start: int,
    confirmations: int,
    deploy_key: Path | None,
    passphrase_file: Path | None,
    sender: Address | None,
) -> L1Config:
    """The facts of an existing vault, or of one that is created now."""
    from adapters.evm_chain import EvmChain, read_config
    from adapters.evm_rpc import Rpc, http_provider
    from domain.l1 import Depth

    rpc = Rpc(http_provider(url))
    finality = Depth(confirmations=confirmations)
    if deploy_key is None:
        assert vault is not None
        pinned = read_config(rpc, vault, start, finality)
        EvmChain(rpc, pinned)
        return pinned
    from adapters.evm_deploy import Roles, deploy
    from adapters.evm_keys import LocalSigner

    secret = identity(deploy_key, passphrase_file).evm
    if secret is None or sender is None:
        raise Asked(f"{deploy_key} holds no EVM key.", "Name an identity with one.")
    creator = LocalSigner(secret)
    roles = Roles(admin=creator.address, proposer=sender, guardian=creator.address)
    pinned = deploy(rpc, creator, roles, _SUPPLY_NANO, finality, lambda sent: _included(rpc, sent))
    _give_coin(rpc, creator, sender, pinned.chain_id)
    return pinned


def _give_coin(rpc: Any, creator: Any, to: Address, chain_id: int) -> None:
    """Coin for the sender's fees."""
    from adapters.evm_keys import Unsigned

    signed = creator.sign_transaction(
        Unsigned(
            chain_id=chain_id,
            nonce=rpc.nonce(creator.address),
            to=to,
            data=b"",
            gas=21_000,
            max_fee_wei=10**9 + 2 * rpc.base_fee(),
            tip_wei=10**9,
            value_wei=_SENDER_COIN_WEI,
        )
    )
    rpc.send(signed.raw)
    _included(rpc, signed.hash)


def _included(rpc: Any, transaction: Any) -> None:
    deadline = time.monotonic() + _INCLUDED_WITHIN_S
    while rpc.receipt(transaction) is None:
        if time.monotonic() >= deadline:
            raise Unable(f"No block has taken 0x{transaction.hex()}.", "Look at the L1's node.")
        time.sleep(_POLL_S)


def _tables(
    kafka: str,
    shards: int,
    read_model: str,
    port: int,
    l1_rpc: str | None,
    pins: L1Config | None,
    keys_passphrase: Path | None,
) -> dict[str, dict[str, object]]:
    from domain.l1 import Depth

    l1: dict[str, object] = {"kind": settings.ChainKind.NONE}
    if pins is not None and isinstance(pins.finality, Depth):
        l1 = {
            "kind": settings.ChainKind.RPC,
            "rpc": l1_rpc or "",
            "chain_id": pins.chain_id,
            "vault": f"0x{pins.vault.hex()}",
            "token": f"0x{pins.token.hex()}",
            "code_hash": f"0x{pins.code_hash.hex()}",
            "start_number": pins.start.number,
            "start_hash": f"0x{pins.start.hash.hex()}",
            "confirmations": pins.finality.confirmations,
        }
    keys: dict[str, object] = {role: f"keys/{role}.pem" for role in settings.ROLES}
    if pins is not None:
        keys["evm"] = f"keys/{_SENDER}.pem"
    if keys_passphrase is not None:
        keys["passphrase_file"] = str(keys_passphrase.resolve())
    return {
        "": {"format": settings.FORMAT, "genesis": "genesis.avro", "shards": shards},
        "log": {"kind": settings.LogKind.KAFKA, "bootstrap": kafka},
        "read_model": {"url": read_model},
        "api": {"host": "127.0.0.1", "port": port},
        "l1": l1,
        "keys": keys,
    }
