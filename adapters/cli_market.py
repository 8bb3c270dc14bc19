"""What anyone may look at: the order book, epochs, the history of the ledger."""

from __future__ import annotations

import difflib
from typing import Annotated, Any

import typer

from adapters.cli_client import Api, ApiUrl
from adapters.cli_failures import Asked
from adapters.cli_output import Json, commands, document, facts, positioned, said, table
from adapters.cli_shown import event_line, whole
from adapters.cli_units import shown_synor, shown_thousandths, shown_time

epochs = commands()

Most = Annotated[int, typer.Option("--most", min=1, help="So many at most.")]


def book(
    resource: Annotated[str, typer.Argument(help="Device resource, for example gpu.h100.")],
    region: Annotated[str, typer.Argument(help="Region.")],
    orders: Annotated[
        bool, typer.Option("--orders", help="Order by order (L3), not by price (L2).")
    ] = False,
    api: ApiUrl = None,
    as_json: Json = False,
) -> None:
    """Show what rests in the book of an instrument from closed rounds."""
    found = Api(api).get("/v1/book", resource=resource, region=region, level=3 if orders else 2)
    if as_json:
        document(found)
        return
    instrument = found["instrument"]
    price, reference = instrument["price_nano"], instrument["reference_nano"]
    facts(
        (
            ("instrument", f"{resource} in {region}"),
            ("rounds", f"{instrument['round']}{', one is open' if instrument['open'] else ''}"),
            ("last price", "none yet" if price is None else f"{shown_synor(whole(price))} SYNOR/h"),
            ("reference", "" if reference is None else f"{shown_synor(whole(reference))} SYNOR/h"),
        )
    )
    columns = ("side", ">SYNOR/h", ">devices", "order" if orders else ">orders")
    rows = [*_side("ask", found["asks"][::-1]), *_side("bid", found["bids"])]
    table(columns, rows, none="No order rests in it.")
    said(positioned(found["position"]))


def _side(name: str, rows: list[dict[str, Any]]) -> list[tuple[str, str, str, str]]:
    return [
        (
            name,
            shown_synor(whole(row["price_nano"])),
            shown_thousandths(whole(row["quantity_milli"])),
            str(row["order"] if "order" in row else row["orders"]),
        )
        for row in rows
        if whole(row["quantity_milli"])
    ]


@epochs.command("ls")
def list_epochs(most: Most = 30, api: ApiUrl = None, as_json: Json = False) -> None:
    """List epochs, newest first."""
    rows = list(Api(api).items("/v1/epochs", most))
    if as_json:
        document({"epochs": rows})
        return
    said("Money is in SYNOR.")
    table(
        (">epoch", "cut", ">accounts", ">payable", ">authorised", ">paid", "anchored"),
        (
            (
                str(row["number"]),
                shown_time(whole(row["at_us"])),
                str(row["accounts"]),
                shown_synor(whole(row["added_nano"])),
                shown_synor(whole(row["authorised_nano"])),
                shown_synor(whole(row["paid_nano"])),
                "not yet"
                if row["anchored_us"] is None
                else f"block {row['block']} {shown_time(whole(row['anchored_us']))}",
            )
            for row in rows
        ),
    )


@epochs.command("show")
def show_epoch(
    number: Annotated[str, typer.Argument(help="Number, or latest.")] = "latest",
    api: ApiUrl = None,
    as_json: Json = False,
) -> None:
    """Show an epoch, its checkpoint, and what it made payable."""
    if number != "latest" and not (number.isascii() and number.isdigit()):
        raise Asked(f"{number!r} is not the number of an epoch.", "Write 1, 2, …, or latest.")
    asked = Api(api)
    found = asked.get(f"/v1/epochs/{number}")
    epoch = found["epoch"]
    payables = list(asked.items(f"/v1/epochs/{epoch['number']}/payables", 200))
    if as_json:
        document({**found, "payables": payables})
        return
    checkpoint = epoch["checkpoint"]
    facts(
        (
            ("epoch", str(epoch["number"])),
            ("cut", shown_time(whole(epoch["at_us"]))),
            ("deposited", f"{shown_synor(whole(epoch['deposited_nano']))} SYNOR"),
            ("authorised", f"{shown_synor(whole(epoch['authorised_nano']))} SYNOR"),
            ("paid", f"{shown_synor(whole(epoch['paid_nano']))} SYNOR"),
            ("balances root", epoch["state_root"]),
            ("payout root", "" if checkpoint is None else checkpoint["payout_root"]),
            ("checkpoint", "" if checkpoint is None else checkpoint["checkpoint"]),
            (
                "anchored",
                "not yet"
                if epoch["anchored_us"] is None
                else f"block {epoch['block']}, transaction 0x{epoch['transaction']}",
            ),
        )
    )
    table(
        ("account", ">SYNOR payable now", ">in all", "to"),
        (
            (
                row["account"],
                shown_synor(whole(row["added_nano"])),
                shown_synor(whole(row["cumulative_nano"])),
                f"0x{row['payee']}",
            )
            for row in payables
        ),
        none="It made nothing payable.",
    )
    said(positioned(found["position"]))


def history(
    about: Annotated[
        str | None, typer.Argument(help="Id of an account, lease, node, offer, bid …")
    ] = None,
    kind: Annotated[
        str | None, typer.Option("--type", help="Only events of this name, as LeaseOpened.")
    ] = None,
    ledger: Annotated[str, typer.Option(help="market, metering or settlement.")] = "market",
    shard: Annotated[int, typer.Option(min=0, help="Shard of the metering ledger.")] = 0,
    most: Most = 30,
    api: ApiUrl = None,
    as_json: Json = False,
) -> None:
    """Show events of a ledger, newest first."""
    rows = list(
        Api(api).items(
            "/v1/history",
            most,
            ledger=ledger,
            shard=shard,
            aggregate=about,
            type=None if kind is None else _full_name(kind),
            order="desc",
        )
    )
    if as_json:
        document({"events": rows})
        return
    table(
        (">position", "at", "event", "what"),
        (
            (
                str(row["position"]),
                shown_time(whole(row["at_us"])),
                row["type"].rpartition(".")[2],
                event_line(row),
            )
            for row in rows
        ),
        none="No such event, as far as the ledger is followed.",
    )


def _full_name(kind: str) -> str:
    """The full name of an event that is named by its last part."""
    from adapters.avro_codec import declared

    names = {name.rpartition(".")[2]: name for name in declared()}
    names |= {name: name for name in declared()}
    if kind not in names:
        near = difflib.get_close_matches(kind, names, n=1)
        raise Asked(f"No event is called {kind}.", f"Is {near[0]} meant?" if near else "")
    return names[kind]
