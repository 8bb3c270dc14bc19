"""``synor lease``: leases from match to end, for buyers and for providers."""

from __future__ import annotations

import time
from enum import Enum
from typing import Annotated, Any, Final

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
from adapters.cli_output import Json, commands, document, facts, positioned, said, table
from adapters.cli_shown import whole
from adapters.cli_units import (
    duration,
    hexadecimal,
    shown_amount,
    shown_duration,
    shown_synor,
    shown_thousandths,
    shown_time,
    some_synor,
)
from domain.catalogue import base_unit
from domain.ids import LeaseId, account_of

app = commands()

Which = Annotated[str, typer.Argument(help="Lease.")]
#: What a command may take from here until the ledger decides it.
ON_THE_WAY_US: Final = 10_000_000


class EscrowName(Enum):
    """The two escrows of a lease."""

    ALLOCATED = "allocated"
    USAGE = "usage"


@app.command("ls")
def ls(
    key: SomeKeyFile = None,
    provider: Annotated[
        bool, typer.Option("--provider", help="Those that --key serves, not those it buys.")
    ] = False,
    node: Annotated[str | None, typer.Option(help="Only on this node.")] = None,
    bid: Annotated[str | None, typer.Option(help="Only of this bid.")] = None,
    state: Annotated[str | None, typer.Option(help="opened, active, closing or closed.")] = None,
    most: Annotated[int, typer.Option("--most", min=1, help="So many at most.")] = 50,
    api: ApiUrl = None,
    as_json: Json = False,
) -> None:
    """List leases, newest first; with --key those of its account."""
    account = None if key is None else account_of(public_of(key)).hex()
    side = {"account": account} if provider else {"buyer": account}
    rows = list(Api(api).items("/v1/leases", most, node=node, bid=bid, state=state, **side))
    if as_json:
        document({"leases": rows})
        return
    table(
        ("lease", "resource", ">devices", ">SYNOR/h", "node", "opened", "state"),
        (
            (
                row["lease"],
                row["resource"],
                shown_thousandths(row["device_milli"]),
                shown_synor(whole(row["price_nano"])),
                row["node"],
                shown_time(whole(row["opened_us"])),
                _state(row),
            )
            for row in rows
        ),
        none="No such lease. A bid becomes one when a round has cleared.",
    )


@app.command("show")
def show(lease: Which, api: ApiUrl = None, as_json: Json = False) -> None:
    """Show a lease with its terms, times and line items."""
    which = hexadecimal(lease, 16, "a lease")
    found = Api(api).get(f"/v1/leases/{which.hex()}")
    if as_json:
        document(found)
        return
    row = found["lease"]

    def at(name: str) -> str:
        return "" if row[name] is None else shown_time(whole(row[name]))

    def money(name: str) -> str:
        return f"{shown_synor(whole(row[name]))} SYNOR"

    facts(
        (
            ("lease", row["lease"]),
            ("state", _state(row)),
            ("buyer", row["buyer"]),
            ("provider", row["provider"]),
            ("node", row["node"]),
            ("price", f"{money('price_nano')} per device and hour"),
            ("allocated", ", ".join(_allocations(row))),
            ("metered", ", ".join(_metered(row))),
            ("term", shown_duration(whole(row["term_us"]))),
            ("opened", at("opened_us")),
            ("ready by", at("ready_by_us") if row["ready_us"] is None else ""),
            ("ready", at("ready_us")),
            ("expires", at("expires_us")),
            ("reclaimed at", at("reclaim_us")),
            ("ended", at("ended_us")),
            ("closed", at("closed_us")),
            ("covered time", shown_duration(whole(row["covered_us"]))),
            ("escrow for allocated", f"{money('escrow_allocated_left_nano')} left"),
            ("escrow for usage", f"{money('escrow_usage_left_nano')} left"),
            ("posted to provider", money("provider_nano")),
            ("posted to protocol", money("protocol_nano")),
            ("charged for leaving", money("early_nano") if whole(row["early_nano"]) else ""),
            ("refunded", money("refund_nano")),
            ("reservation broken, binds to", at("broken_until_us")),
            (
                "compensation from stake",
                ""
                if row["broken_until_us"] is None
                else f"{money('broken_taken_nano')} of {money('broken_due_nano')} due",
            ),
        )
    )
    if row["lines"]:
        table(
            ("resource", ">quantity", "of", ">SYNOR charged", ">posted", ">unfunded", "up to"),
            (
                (
                    line["resource"],
                    f"{whole(line['quantity']):,}",
                    base_unit(line["resource"]),
                    shown_synor(whole(line["charged_nano"])),
                    shown_synor(whole(line["posted_nano"])),
                    shown_synor(whole(line["unfunded_nano"])),
                    shown_time(whole(line["window_end_us"])),
                )
                for line in row["lines"]
            ),
        )
    said(positioned(found["position"]))


@app.command("ready")
def ready(
    leases: Annotated[list[str], typer.Argument(help="Leases.")],
    key: KeyFile,
    api: ApiUrl = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Say as their provider or node that leases can be used: their terms run from here."""
    from domain.lease import ReadyLeases

    command = ReadyLeases(leases=tuple(map(_id, leases)))
    told(speaker(api, key, passphrase_file).command(command), as_json)


@app.command("top-up")
def top_up(
    lease: Which,
    amount: Annotated[str, typer.Argument(help="SYNOR.")],
    key: KeyFile,
    escrow: Annotated[
        EscrowName, typer.Option(help="Which escrow: neither pays for the other.")
    ] = EscrowName.ALLOCATED,
    api: ApiUrl = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Add money to one escrow of a lease, as its buyer."""
    from domain.lease import Escrow, TopUpLease

    command = TopUpLease(
        lease=_id(lease), escrow=Escrow[escrow.name], amount_nano=some_synor(amount)
    )
    told(speaker(api, key, passphrase_file).command(command), as_json)


@app.command("close")
def close(
    lease: Which,
    key: KeyFile,
    api: ApiUrl = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """End a lease as its buyer; at least the minimum time is charged."""
    from domain.lease import CloseLease

    command = CloseLease(lease=_id(lease))
    told(
        speaker(api, key, passphrase_file).command(command),
        as_json,
        note="Its final statement and the refund follow when its closing time has passed.",
    )


@app.command("reject")
def reject(
    lease: Which,
    key: KeyFile,
    api: ApiUrl = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Reject a lease as its buyer within its first minutes, at no charge."""
    from domain.lease import RejectLease

    command = RejectLease(lease=_id(lease))
    told(speaker(api, key, passphrase_file).command(command), as_json)


@app.command("reclaim")
def reclaim(
    lease: Which,
    key: KeyFile,
    notice: Annotated[str, typer.Option(help="It ends so long after the ledger has read this.")],
    api: ApiUrl = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Take an interruptible lease back as its provider, with notice."""
    from domain.lease import ReclaimLease

    # The notice counts from when the ledger decides: without time for the way there, asking for
    # just the notice that was agreed would always be refused.
    deadline = time.time_ns() // 1000 + duration(notice) + ON_THE_WAY_US
    command = ReclaimLease(lease=_id(lease), deadline_us=deadline)
    told(speaker(api, key, passphrase_file).command(command), as_json)


@app.command("complete")
def complete(
    lease: Which,
    key: KeyFile,
    api: ApiUrl = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Say as its node that the workload has ended by itself.

    Not in the first hour, and not of a reserved lease: those the provider can only give up.
    """
    from domain.lease import CompleteLease

    command = CompleteLease(lease=_id(lease))
    told(speaker(api, key, passphrase_file).command(command), as_json)


@app.command("fail")
def fail(
    lease: Which,
    key: KeyFile,
    api: ApiUrl = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Give a lease up as its provider."""
    from domain.lease import FailLease

    command = FailLease(lease=_id(lease))
    told(speaker(api, key, passphrase_file).command(command), as_json)


def _id(text: str) -> LeaseId:
    return LeaseId(hexadecimal(text, 16, "a lease"))


def _state(row: dict[str, Any]) -> str:
    state: str = row["state"].lower()
    return f"{state}: {row['reason'].lower().replace('_', ' ')}" if row["reason"] else state


def _allocations(row: dict[str, Any]) -> list[str]:
    return [
        f"{resource} {shown_amount(resource, whole(amount))}"
        for resource, amount in map(_pair, row["allocations"])
    ]


def _metered(row: dict[str, Any]) -> list[str]:
    return [
        f"{resource} up to {whole(per_second):,}/s"
        for resource, per_second in map(_pair, row["metered"])
    ]


def _pair(each: Any) -> tuple[str, Any]:
    """A resource and its number, whichever way the read model keeps the two."""
    resource, number = each.values() if isinstance(each, dict) else each
    return resource, number
