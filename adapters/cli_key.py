"""``synor key``: identity files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adapters import cli_passphrase
from adapters.cli_output import Json, commands, document, facts, said
from domain.ids import Address, account_of

app = commands()

PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file", help="A file with the passphrase in its first line; - is stdin."
    ),
]


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


def _print(
    file: Path, public: bytes, address: bytes | None, encrypted: bool, as_json: bool
) -> None:
    from domain.ids import PublicKey

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
