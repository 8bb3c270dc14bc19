"""``synor provider``: registration, stake, and the scorecard."""

from __future__ import annotations

from typing import Annotated

import typer

from adapters.cli_client import (
    Api,
    ApiUrl,
    KeyFile,
    PassphraseFile,
    SomeKeyFile,
    public_of,
    speaker,
    told,
)
from adapters.cli_failures import Asked
from adapters.cli_output import Json, commands, document, facts, positioned, said, table
from adapters.cli_shown import percent, whole
from adapters.cli_units import (
    hexadecimal,
    share,
    shown_duration,
    shown_synor,
    shown_time,
    some_synor,
)
from domain.ids import Hash32, Wide, account_of

app = commands()

Amount = Annotated[str, typer.Argument(help="SYNOR, for example 16000.")]


@app.command("register")
def register(
    key: KeyFile,
    location: Annotated[str, typer.Option(help="Where it is, in words.")] = "",
    uptime: Annotated[str, typer.Option(help="Committed uptime in %, 90 to 99.9999.")] = "99",
    response_time_ms: Annotated[int, typer.Option(min=0, help="Committed response time.")] = 1000,
    durability_pp12: Annotated[
        int, typer.Option(min=0, help="Committed durability in parts per 10^12.")
    ] = 0,
    penalty: Annotated[
        str, typer.Option(help="Credit to a lease that was down beyond the SLA, in % of charges.")
    ] = "10",
    network: Annotated[
        str, typer.Option(help="SHA-256 of the network manifest, in hexadecimal.")
    ] = "00" * 32,
    api: ApiUrl = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Make the identity's account a provider, with what it commits itself to."""
    from domain.provider import RegisterProvider, provider_of

    command = RegisterProvider(
        location=location,
        network=Hash32(hexadecimal(network, 32, "a network manifest")),
        uptime_ppm=share(uptime),
        response_time_ms=response_time_ms,
        durability_pp12=durability_pp12,
        penalty_ppm=share(penalty),
    )
    who = speaker(api, key, passphrase_file)
    told(
        who.command(command),
        as_json,
        note="Register nodes and stake what they require: synor node register, provider stake",
        provider=provider_of(who.account),
    )


@app.command("stake")
def stake(
    amount: Amount,
    key: KeyFile,
    api: ApiUrl = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Bond free money. The provider is admitted when it covers what its nodes require."""
    from domain.provider import BondStake

    nano = Wide(some_synor(amount))
    told(speaker(api, key, passphrase_file).command(BondStake(amount_nano=nano)), as_json)


@app.command("unbond")
def unbond(
    amount: Amount,
    key: KeyFile,
    api: ApiUrl = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Start to unbond what exceeds the required stake; it is free when the time has passed."""
    from domain.provider import UnbondStake

    nano = Wide(some_synor(amount))
    told(speaker(api, key, passphrase_file).command(UnbondStake(amount_nano=nano)), as_json)


@app.command("show")
def show(
    provider: Annotated[
        str | None, typer.Argument(help="Provider; default: the one of --key.")
    ] = None,
    key: SomeKeyFile = None,
    api: ApiUrl = None,
    as_json: Json = False,
) -> None:
    """Show a provider's scorecard: commitment, stake, nodes, uptime, slashes, earnings."""
    from domain.provider import provider_of

    if provider is not None:
        wanted = hexadecimal(provider, 16, "a provider")
    elif key is not None:
        wanted = provider_of(account_of(public_of(key)))
    else:
        raise Asked("Which provider?", "Name one, or an identity file with --key.")
    found = Api(api).get(f"/v1/providers/{wanted.hex()}")
    if as_json:
        document(found)
        return
    card = found["provider"]

    def money(name: str) -> str:
        return f"{shown_synor(whole(card[name]))} SYNOR"

    admitted = card["admitted_us"]
    facts(
        (
            ("provider", card["provider"]),
            ("account", card["account"]),
            ("location", card["location"]),
            ("admitted", "not yet" if admitted is None else shown_time(whole(admitted))),
            ("commits to", f"{percent(card['uptime_ppm'])} % uptime"),
            ("stake bonded", money("bonded_nano")),
            ("  required", money("required_nano")),
            ("  unbonding", money("unbonding_nano")),
            ("  frozen", money("frozen_nano")),
            ("nodes", f"{card['nodes']}  {_health(card['health'])}"),
            ("leases", str(card["leases"])),
            ("was up", "" if card["up_ppm"] is None else f"{percent(card['up_ppm'])} %"),
            ("down beyond SLA", shown_duration(whole(card["excess_us"]))),
            ("slashed", f"{money('slashed_nano')} in {card['slashes']}"),
            ("pending", money("pending_nano")),
            ("earned", money("earned_nano")),
        )
    )
    if card["latest_slashes"]:
        table(
            ("slashed at", "fault", ">SYNOR"),
            (
                (shown_time(whole(s["at_us"])), s["fault"], shown_synor(whole(s["taken_nano"])))
                for s in card["latest_slashes"]
            ),
        )
    said(positioned(found["position"]))


def _health(health: dict[str, int]) -> str:
    return ", ".join(f"{count} {name.lower()}" for name, count in sorted(health.items()))
