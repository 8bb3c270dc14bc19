"""Money in and out: deposits on the L1, withdrawals on the ledger, claims on the L1 again."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from adapters.cli_client import (
    Api,
    ApiUrl,
    KeyFile,
    NotFound,
    PassphraseFile,
    SomeKeyFile,
    address_in,
    genesis_hash_of,
    identity,
    public_of,
    speaker,
    told,
    until,
)
from adapters.cli_failures import Asked, Denied, Unable
from adapters.cli_output import Json, document, facts, noted, positioned, said
from adapters.cli_shown import event_lines, whole
from adapters.cli_units import evm_address, hexadecimal, shown_synor, some_synor
from domain.ids import AccountId, Address, Hash32, Wide, account_of

if TYPE_CHECKING:
    from adapters.evm_wallet import Wallet

_SEEN_WITHIN_S: Final = 60.0
#: Events of a kind that are looked through, and by how much clocks may differ.
_LOOKED_AT: Final = 2_000
_CLOCKS_APART_US: Final = 600_000_000

Amount = Annotated[str, typer.Argument(help="SYNOR, for example 12.5.")]
NoWait = Annotated[
    bool, typer.Option("--no-wait", help="Do not wait until the ledger has seen it.")
]


def deposit(
    amount: Amount,
    key: KeyFile,
    account: Annotated[
        str | None, typer.Option(help="Account to fund; default: the identity's own.")
    ] = None,
    no_wait: NoWait = False,
    api: ApiUrl = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Put tokens of the identity's EVM address into the vault, for an account of the ledger."""
    nano = some_synor(amount)
    to = (
        account_of(public_of(key))
        if account is None
        else AccountId(hexadecimal(account, 16, "an account"))
    )
    asked = Api(api)
    wallet = _wallet(asked, key, passphrase_file)
    _has(wallet, nano)
    from domain.l1 import account_word

    transaction = _on_chain(lambda: wallet.deposit(account_word(to), nano))
    _seen(asked, "synor.account.v1.DepositCredited", transaction, no_wait, as_json)


def withdraw(
    amount: Amount,
    key: KeyFile,
    api: ApiUrl = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Ask for free money: it can be claimed on the L1 once the next epoch is anchored."""
    from domain.account import Withdraw

    nano = Wide(some_synor(amount))
    sent = speaker(api, key, passphrase_file).command(Withdraw(amount_nano=nano))
    told(sent, as_json, note="Claim it when the next epoch is anchored: synor claim")


def claim(
    key: KeyFile,
    account: Annotated[
        str | None, typer.Option(help="Account to be paid; default: the identity's own.")
    ] = None,
    no_wait: NoWait = False,
    api: ApiUrl = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Have the vault pay what is due to an account; the identity's EVM address pays the fee."""
    of = (
        account_of(public_of(key))
        if account is None
        else AccountId(hexadecimal(account, 16, "an account"))
    )
    asked = Api(api)
    try:
        found = asked.get(f"/v1/epochs/latest/proof/{of.hex()}")
    except NotFound as none:
        raise Denied(
            f"Nothing is due ({none.what}).",
            "Money that was asked for or earned becomes due with the next epoch.",
            none.position,
        ) from none
    proof = found["proof"]
    if whole(proof["claimable_nano"]) == 0:
        raise Denied(
            f"Nothing is due: {shown_synor(whole(proof['cumulative_nano']))} SYNOR were authorised "
            f"up to epoch {proof['epoch']}, and all of it was claimed.",
            "Money that was asked for or earned becomes due with the next epoch.",
            found["position"],
        )
    from domain.l1 import account_word
    from domain.payout_tree import Payout

    wallet = _wallet(asked, key, passphrase_file)
    payout = Payout(
        account=account_word(of),
        payee=Address(bytes.fromhex(proof["payee"].removeprefix("0x"))),
        cumulative_nano=whole(proof["cumulative_nano"]),
    )
    path = [Hash32(bytes.fromhex(each.removeprefix("0x"))) for each in proof["proof"]]
    transaction = _on_chain(lambda: wallet.claim(payout, path))
    _seen(asked, "synor.account.v1.ClaimSettled", transaction, no_wait, as_json)


def faucet(
    amount: Annotated[str, typer.Argument(help="SYNOR, for example 1000.")] = "1000",
    key: SomeKeyFile = None,
    address: Annotated[str | None, typer.Option(help="EVM address instead.")] = None,
    api: ApiUrl = None,
    as_json: Json = False,
) -> None:
    """Get tokens of an embedded development chain: play money, worth nothing elsewhere."""
    if address is not None:
        to = evm_address(address)
    elif key is not None:
        to = address_in(key)
    else:
        raise Asked("For whom?", "Name an identity file with --key, or an --address.")
    body = json.dumps({"address": f"0x{to.hex()}", "amount_nano": some_synor(amount)}).encode()
    found = Api(api).post("/l1/faucet", body, "application/json")
    if as_json:
        document({"development_chain": True, **found})
        return
    said(f"0x{to.hex()} got {amount} SYNOR and coin for fees.")
    said("This is a development chain: its tokens are worth nothing.")


# The L1


def _wallet(asked: Api, key: Path, passphrase_file: Path | None) -> Wallet:
    """The identity at the vault of this ledger, pins checked."""
    pins = asked.get("/l1/pins")["l1"]
    genesis = asked.get("/v1/genesis")["genesis"]
    genesis_hash_of(asked)
    if pins is None:
        raise Asked(
            "This ledger has no L1.", "Its operator signs deposits; there is nothing to claim."
        )
    if pins["vault"] != f"0x{genesis['vault']}" or pins["chain_id"] != genesis["chain_id"]:
        raise Unable(
            f"The API names vault {pins['vault']} of chain {pins['chain_id']}; the genesis has "
            f"0x{genesis['vault']} of chain {genesis['chain_id']}.",
            "Do not send money there; ask the operator.",
        )
    secret = identity(key, passphrase_file).evm
    if secret is None:
        raise Asked(f"{key} holds no EVM key.", "Make an identity with one: synor key new FILE")
    from adapters.evm_chain import EvmChain
    from adapters.evm_keys import LocalSigner
    from adapters.evm_rpc import Rpc, http_provider
    from adapters.evm_wallet import Wallet
    from domain.l1 import BlockHash, Depth, L1Config, L1Position

    def octets(name: str) -> bytes:
        return bytes.fromhex(pins[name].removeprefix("0x"))

    config = L1Config(
        chain_id=pins["chain_id"],
        vault=Address(octets("vault")),
        token=Address(octets("token")),
        code_hash=Hash32(octets("code_hash")),
        start=L1Position(number=pins["start_number"], hash=BlockHash(octets("start_hash"))),
        finality=Depth(confirmations=0),
    )
    url = f"{asked.url}{pins['rpc']}" if pins["rpc"].startswith("/") else pins["rpc"]
    rpc = Rpc(http_provider(url))
    # Compares the chain with the pins: tokens go to this vault or nowhere.
    EvmChain(rpc, config)
    return Wallet(rpc=rpc, config=config, signer=LocalSigner(secret))


def _has(wallet: Wallet, nano: int) -> None:
    balance = wallet.balance_nano()
    if balance < nano:
        raise Denied(
            f"0x{wallet.signer.address.hex()} has {shown_synor(balance)} SYNOR on the L1, "
            f"fewer than {shown_synor(nano)}.",
            "Send tokens there first; on an embedded development chain: synor faucet",
        )


def _on_chain(send: Any) -> bytes:
    from adapters.evm_wallet import CallRefused

    try:
        made: bytes = send()
    except CallRefused as refused:
        raise Denied(str(refused), "Nothing was sent.") from refused
    return made


def _seen(asked: Api, kind: str, transaction: bytes, no_wait: bool, as_json: bool) -> None:
    """Wait until the ledger has the event of a transaction, and print it."""
    if not as_json:
        facts((("L1 transaction", f"0x{transaction.hex()}"),))
    if no_wait:
        if as_json:
            document({"transaction": f"0x{transaction.hex()}"})
        return
    if not as_json:
        noted("Waiting until it is final and the ledger has seen it …")

    since_us = time.time_ns() // 1000 - _CLOCKS_APART_US

    def look() -> dict[str, Any] | None:
        events = asked.items("/v1/history", _LOOKED_AT, type=kind, order="desc", since_us=since_us)
        return next((e for e in events if e["data"]["transaction"] == transaction.hex()), None)

    event = until(look, f"The ledger's event of 0x{transaction.hex()}", _SEEN_WITHIN_S)
    position = asked.get("/v1/status")["position"]
    if as_json:
        document({"transaction": f"0x{transaction.hex()}", "events": [event], "position": position})
        return
    for line in event_lines(event):
        said(line)
    said(positioned(position))
