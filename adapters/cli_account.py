"""``synor account``: an account, its keys and its money."""

from __future__ import annotations

from typing import Annotated

import typer

from adapters.cli_client import (
    Api,
    ApiUrl,
    KeyFile,
    PassphraseFile,
    SomeKeyFile,
    address_in,
    public_of,
    speaker,
    told,
)
from adapters.cli_failures import Asked
from adapters.cli_output import Json, commands, document, facts, positioned, said, table
from adapters.cli_shown import field_name, whole
from adapters.cli_units import evm_address, hexadecimal, shown_synor, shown_time
from domain.ids import AccountId, account_of

app = commands()

Payee = Annotated[
    str | None,
    typer.Option(help="EVM address that payouts go to; default: the one of the identity."),
]


@app.command("open")
def open_account(
    key: KeyFile,
    payee: Payee = None,
    owner: Annotated[
        str | None,
        typer.Option(help="Account of the beneficial owner, if it is another; it has to admit."),
    ] = None,
    api: ApiUrl = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Open the account that derives from the identity."""
    from domain.account import OpenAccount

    to = address_in(key) if payee is None else evm_address(payee)
    of = None if owner is None else AccountId(hexadecimal(owner, 16, "an account"))
    who = speaker(api, key, passphrase_file)
    sent = who.command(OpenAccount(payee=to, owner=of))
    told(sent, as_json, account=who.account)


@app.command("admit")
def admit(
    account: Annotated[str, typer.Argument(help="Account that named this one as its owner.")],
    key: KeyFile,
    api: ApiUrl = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Be the beneficial owner of an account that wished for it."""
    from domain.account import AdmitAccount

    admitted = AccountId(hexadecimal(account, 16, "an account"))
    told(speaker(api, key, passphrase_file).command(AdmitAccount(account=admitted)), as_json)


@app.command("payee")
def set_payee(
    address: Annotated[str, typer.Argument(help="EVM address.")],
    key: KeyFile,
    api: ApiUrl = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Send payouts to another EVM address, from the next epoch on."""
    from domain.account import SetPayee

    to = evm_address(address)
    told(speaker(api, key, passphrase_file).command(SetPayee(payee=to)), as_json)


@app.command("show")
def show(
    account: Annotated[
        str | None, typer.Argument(help="Account; default: the one of --key.")
    ] = None,
    key: SomeKeyFile = None,
    journal: Annotated[int, typer.Option(help="So many of its last postings too.")] = 0,
    api: ApiUrl = None,
    as_json: Json = False,
) -> None:
    """Show an account: its keys, its money by purse, its provider."""
    if account is not None:
        wanted = hexadecimal(account, 16, "an account")
    elif key is not None:
        wanted = account_of(public_of(key))
    else:
        raise Asked("Whose account?", "Name an account, or an identity file with --key.")
    asked = Api(api)
    found = asked.get(f"/v1/accounts/{wanted.hex()}")
    postings = list(asked.items(f"/v1/accounts/{wanted.hex()}/journal", journal, order="desc"))
    if as_json:
        document({**found, "journal": postings})
        return
    money = found["account"]
    opened = money["opened"]
    facts(
        (
            ("account", money["account"]),
            ("opened", "" if opened is None else shown_time(whole(opened["opened_us"]))),
            ("payouts go to", "" if opened is None else f"0x{opened['payee']}"),
            ("provider", money["provider"] or ""),
            *(("key", f"{each['key']} {each['role'].lower()}") for each in money["keys"]),
        )
    )
    table(
        ("money", ">SYNOR"),
        (
            (field_name(each["purse"].lower()), shown_synor(whole(each["amount_nano"])))
            for each in money["purses"]
        ),
        none="It has no money.",
    )
    if postings:
        table(
            ("at", "event", "purse", ">SYNOR", ">balance"),
            (
                (
                    shown_time(whole(each["at_us"])),
                    each["event"].rpartition(".")[2],
                    field_name(each["purse"].lower()),
                    shown_synor(whole(each["amount_nano"])),
                    shown_synor(whole(each["balance_nano"])),
                )
                for each in postings
            ),
        )
    said(positioned(found["position"]))
