"""``synor key``: identity files, and the keys of an account on the ledger."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from adapters import cli_passphrase
from adapters.cli_client import (
    Api,
    ApiUrl,
    KeyFile,
    NewPassphraseFile,
    PassphraseFile,
    Sent,
    Speaker,
    genesis_hash_of,
    identity,
    public_of,
    speaker,
    told,
)
from adapters.cli_failures import Asked
from adapters.cli_output import Json, commands, document, facts, said
from adapters.cli_units import hexadecimal
from domain.ids import Address, PublicKey, account_of

app = commands()


class AccountRole(Enum):
    """What an account may register a key for, and a node for its own."""

    OWNER = "owner"
    GATEWAY = "gateway"
    NODE = "node"


def address_of(secret: bytes) -> Address:
    """The EVM address of a secret: the last 20 bytes of Keccak-256 of the public key."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
    from eth_utils.crypto import keccak

    key = ec.derive_private_key(int.from_bytes(secret, "big"), ec.SECP256K1()).public_key()
    point = key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return Address(bytes(keccak(point[1:]))[-20:])


@app.command("new")
def new(
    file: Annotated[Path, typer.Argument(help="File to make; it must not exist.")],
    evm: Annotated[
        bool, typer.Option("--evm/--no-evm", help="Whether it also holds tokens on the L1.")
    ] = True,
    plain: Annotated[
        bool,
        typer.Option(
            "--no-passphrase", help="Not encrypted: for the key of a machine that starts alone."
        ),
    ] = False,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Make an identity: a key that signs for the ledger, and one for deposits on the L1."""
    from adapters.key_files import Identity, write

    passphrase = None if plain else cli_passphrase.chosen(passphrase_file, str(file))
    shown = write(file, Identity.new(evm=evm), passphrase, address_of=address_of)
    _print(file, shown.public, shown.address, shown.encrypted, as_json)


@app.command("show")
def show(
    file: Annotated[Path, typer.Argument(help="Identity file.")],
    check: Annotated[
        bool, typer.Option("--check", help="Open it too: is the passphrase the right one?")
    ] = False,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Show the public side of an identity: key, account, EVM address."""
    from adapters import key_files

    shown = key_files.show(file)
    if check:
        key_files.read(file, lambda: cli_passphrase.known(passphrase_file, str(file)))
    _print(file, shown.public, shown.address, shown.encrypted, as_json)
    if check and not as_json:
        said("The passphrase opens it, and it holds the keys that it shows.")


@app.command("prove")
def prove(
    file: Annotated[Path, typer.Argument(help="Identity file of the new key.")],
    account: Annotated[str, typer.Option(help="Account that is to register it.")],
    role: Annotated[AccountRole, typer.Option(help="In which role.")],
    api: ApiUrl = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Sign with a new key that it is to be of an account, for who registers it elsewhere."""
    to = hexadecimal(account, 16, "an account")
    public, proof = _proof(file, passphrase_file, genesis_hash_of(Api(api)), to, role)
    if as_json:
        document({"public_key": public, "proof": proof})
        return
    facts((("public key", public.hex()), ("proof", proof.hex())))


@app.command("register")
def register(
    new: Annotated[str, typer.Argument(help="Identity file of the new key, or its public key.")],
    key: KeyFile,
    role: Annotated[
        AccountRole, typer.Option(help="owner: signs all; gateway: telemetry and offers.")
    ] = AccountRole.OWNER,
    proof: Annotated[
        str | None, typer.Option(help="What `synor key prove` printed, if the file is elsewhere.")
    ] = None,
    api: ApiUrl = None,
    passphrase_file: PassphraseFile = None,
    new_passphrase_file: NewPassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Register another key of the account; the new key signs too, that it is to be of it."""
    who = speaker(api, key, passphrase_file)
    told(_register(who, new, role, proof, new_passphrase_file), as_json)


@app.command("revoke")
def revoke(
    old: Annotated[str, typer.Argument(help="Identity file or public key that is to go.")],
    key: KeyFile,
    api: ApiUrl = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Take a key of the account out of force, for ever; not the last owner key."""
    from domain.key import RevokeKey

    who = speaker(api, key, passphrase_file)
    told(who.command(RevokeKey(key=_public(old))), as_json)


@app.command("rotate")
def rotate(
    new: Annotated[Path, typer.Argument(help="Identity file of the key that takes over.")],
    key: KeyFile,
    api: ApiUrl = None,
    passphrase_file: PassphraseFile = None,
    new_passphrase_file: NewPassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Register a new owner key and revoke, signed by the new one, the one of --key.

    Begun again after a break it goes on: a key that is registered already is left as it is.
    """
    from domain.key import RevokeKey

    asked = Api(api)
    heir = speaker(api, new, new_passphrase_file or passphrase_file)
    if not list(asked.items("/v1/keys", 1, key=heir.key.hex())):
        old = speaker(api, key, passphrase_file)
        _register(old, str(new), AccountRole.OWNER, None, new_passphrase_file or passphrase_file)
    told(heir.command(RevokeKey(key=public_of(key))), as_json, key=heir.key)


def _register(
    who: Speaker, new: str, role: AccountRole, proof: str | None, passphrase_file: Path | None
) -> Sent:
    from domain.genesis import Role
    from domain.key import RegisterKey

    if role is AccountRole.NODE:
        raise Asked("A node's key is registered with its node.", "Use: synor node register")
    if proof is None:
        file = Path(new)
        if not file.exists():
            raise Asked(
                f"There is no file {new}.",
                "Name the new key's identity file; or its public key with --proof.",
            )
        public, signed = _proof(file, passphrase_file, who.genesis_hash, who.holder(), role)
    else:
        public, signed = _public(new), hexadecimal(proof, 64, "a proof")
    return who.command(RegisterKey(key=public, role=Role[role.name], proof=signed))


def _proof(
    file: Path, passphrase_file: Path | None, genesis_hash: bytes, account: bytes, role: AccountRole
) -> tuple[PublicKey, bytes]:
    from adapters.ed25519 import Signer
    from adapters.ed25519 import prove as proven
    from domain.genesis import Role

    signer = Signer(identity(file, passphrase_file).ledger)
    return signer.public, proven(signer, genesis_hash, account, Role[role.name])


def _public(named: str) -> PublicKey:
    if Path(named).exists():
        return public_of(Path(named))
    return PublicKey(hexadecimal(named, 32, "a public key"))


def _print(
    file: Path, public: bytes, address: bytes | None, encrypted: bool, as_json: bool
) -> None:
    account = account_of(PublicKey(public))
    if as_json:
        document(
            {
                "file": str(file),
                "public_key": public,
                "account": account,
                "evm_address": None if address is None else f"0x{address.hex()}",
                "encrypted": encrypted,
            }
        )
        return
    facts(
        (
            ("file", str(file)),
            ("public key", public.hex()),
            ("account", account.hex()),
            ("EVM address", "" if address is None else f"0x{address.hex()}"),
            ("encrypted", "yes" if encrypted else "no: only the file's mode protects it"),
        )
    )
