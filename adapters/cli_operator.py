"""What the operator of a network may ask of its ledger: parameters, prices, versions of the rules.

Commands of ``synor network``, signed with an operator key of the genesis.
"""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from adapters.cli_client import (
    Api,
    ApiUrl,
    NewPassphraseFile,
    PassphraseFile,
    SomeKeyFile,
    Speaker,
    genesis_hash_of,
    identity,
    speaker,
    speaker_of,
    told,
)
from adapters.cli_failures import Asked
from adapters.cli_output import Json
from adapters.cli_units import duration, some_synor

UpFolder = Annotated[
    Path | None, typer.Option(help="Folder of a `synor up`: sign with its operator's key.")
]


class Per(Enum):
    """What a list price is for."""

    HOUR = "hour"
    MONTH = "month"


class Written(Enum):
    """A ledger, by the name of its worker."""

    MARKET = "market"
    METERING = "metering"
    SETTLEMENT = "settlement"


def change_parameter(
    name: Annotated[str, typer.Argument(help="Parameter, as /v1/parameters names it.")],
    value: Annotated[str, typer.Argument(help="A whole number; of a time also 90s, 30m, 12h.")],
    folder: UpFolder = None,
    key: SomeKeyFile = None,
    api: ApiUrl = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Change a parameter of the rules, from the next deadline of its kind on."""
    from domain.genesis import BOUNDS
    from domain.ledger import ChangeParameter

    named = name if name in BOUNDS else f"{name}_us"
    if named not in BOUNDS:
        raise Asked(f"There is no parameter {name!r}.", "/v1/parameters lists them.")
    command = ChangeParameter(name=named, value=_value(named, value))
    told(_operator(folder, key, api, passphrase_file).command(command), as_json)


def add_price(
    resource: Annotated[str, typer.Argument(help="Device, for example gpu.l40s.")],
    price: Annotated[str, typer.Argument(help="SYNOR.")],
    folder: UpFolder = None,
    key: SomeKeyFile = None,
    per: Annotated[Per, typer.Option(help="The price is for one of it for so long.")] = Per.HOUR,
    rounds: Annotated[
        bool, typer.Option(help="Rounds price it; the list price is the first reference.")
    ] = True,
    api: ApiUrl = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Give a device without a list price one, for leases that are opened from now on."""
    from domain.catalogue import HOUR_MS, MONTH_MS
    from domain.ledger import AddPriceRow

    command = AddPriceRow(
        resource=resource,
        unit=1000 * (HOUR_MS if per is Per.HOUR else MONTH_MS),
        price_nano=some_synor(price),
        market=rounds,
    )
    told(_operator(folder, key, api, passphrase_file).command(command), as_json)


def activate_rules(
    version: Annotated[int, typer.Argument(help="The version after the one in force.")],
    folder: UpFolder = None,
    key: SomeKeyFile = None,
    api: ApiUrl = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Put the next version of the rules in force, from the market's next height on.

    Install a release that has it on every worker before: one without it stops.
    """
    from domain.ledger import ActivateRules
    from domain.rules import RULES

    if version not in RULES:
        known = ", ".join(map(str, sorted(RULES)))
        raise Asked(
            f"This program has no version {version} of the rules, only {known}.",
            "Install a release that has it, here and on every worker, and ask again.",
        )
    told(
        _operator(folder, key, api, passphrase_file).command(ActivateRules(version=version)),
        as_json,
        note="Workers without this version stop now and write nothing.",
    )


def rotate_writer(
    ledger: Annotated[Written, typer.Argument(help="Which ledger; metering: all its shards.")],
    new: Annotated[Path, typer.Argument(help="Identity file of the key that is to write it.")],
    key: Annotated[Path, typer.Option(help="Identity file of an operator.")],
    api: ApiUrl = None,
    passphrase_file: PassphraseFile = None,
    new_passphrase_file: NewPassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Give a ledger to another key, for ever; the old one writes until the ledger hears of it.

    Before, name the file of the new key behind the old one in the [keys] of every worker's
    settings, as in metering = ["keys/metering.pem", "keys/metering-2.pem"], and start it again.
    One that has not the new key stops, and writes nothing.
    """
    from adapters.ed25519 import Signer, prove_writer
    from domain.commit import Ledger
    from domain.ledger import RotateWriter

    who = speaker(api, key, passphrase_file)
    signer = Signer(identity(new, new_passphrase_file).ledger)
    number = int(Ledger[ledger.name])
    command = RotateWriter(
        ledger=number,
        writer=signer.public,
        proof=prove_writer(signer, genesis_hash_of(Api(api)), number),
    )
    told(
        who.command(command),
        as_json,
        note="Workers without the new key stop as soon as their ledger has heard of it.",
    )


def _operator(
    folder: Path | None, key: Path | None, api: str | None, passphrase_file: Path | None
) -> Speaker:
    if folder is not None:
        from adapters.embedded import SystemKeys
        from adapters.up_folder import Folder

        return speaker_of(Api(api), SystemKeys.derived(Folder(folder).read_seed()).operator)
    if key is None:
        raise Asked(
            "Who asks?", "Name the operator's identity file with --key, or a --folder of synor up."
        )
    return speaker(api, key, passphrase_file)


def _value(name: str, text: str) -> int:
    try:
        return int(text.replace("_", ""))
    except ValueError:
        if name.endswith("_us"):
            return duration(text)
        raise Asked(f"{text!r} is not a whole number.", "Write it as in 1000.") from None
