"""``synor offer`` and ``synor bid``: orders of the spot market."""

from __future__ import annotations

from typing import Annotated, Any

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
from adapters.cli_output import Json, commands, document, said, table
from adapters.cli_shown import whole
from adapters.cli_units import (
    allocation,
    duration,
    hexadecimal,
    shown_synor,
    shown_thousandths,
    shown_time,
    synor,
    thousandths,
)
from adapters.cli_units import (
    limit as metered_limit,
)
from adapters.cli_units import (
    region as region_named,
)
from domain.ids import BidId, NodeId, OfferId, account_of

offers = commands()
bids = commands()

Resource = Annotated[str, typer.Option(help="Device resource, for example gpu.h100.")]
Most = Annotated[int, typer.Option("--most", min=1, help="So many at most.")]


@offers.command("place")
def place_offer(
    node: Annotated[str, typer.Argument(help="Node that would serve.")],
    key: KeyFile,
    resource: Resource,
    ask: Annotated[str, typer.Option(help="Least price in SYNOR per device and hour.")],
    quantity: Annotated[str, typer.Option(help="Devices on offer at once.")] = "1",
    interruptible: Annotated[
        bool, typer.Option("--interruptible", help="Leases on it may be reclaimed with notice.")
    ] = False,
    notice: Annotated[
        str, typer.Option(help="Notice of a reclaim, as 10m; only with --interruptible.")
    ] = "0s",
    api: ApiUrl = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Offer devices of an attested node at an ask price."""
    from domain.offer import OfferRow, PlaceOffers

    row = OfferRow(
        node=NodeId(hexadecimal(node, 16, "a node")),
        resource=resource,
        quantity_milli=thousandths(quantity),
        ask_nano=synor(ask),
        interruptible=interruptible,
        notice_us=duration(notice),
    )
    who = speaker(api, key, passphrase_file)
    sent = who.command(PlaceOffers(offers=(row,)))
    told(sent, as_json, offer=who.id_of("offer", sent.number))


@offers.command("withdraw")
def withdraw_offer(
    offer: Annotated[str, typer.Argument(help="Offer.")],
    key: KeyFile,
    api: ApiUrl = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Take an offer out of the book; leases on it run on."""
    from domain.offer import WithdrawOffer

    which = OfferId(hexadecimal(offer, 16, "an offer"))
    told(speaker(api, key, passphrase_file).command(WithdrawOffer(offer=which)), as_json)


@offers.command("ls")
def list_offers(
    key: SomeKeyFile = None,
    node: Annotated[str | None, typer.Option(help="Only of this node.")] = None,
    state: Annotated[str | None, typer.Option(help="resting or withdrawn.")] = None,
    most: Most = 50,
    api: ApiUrl = None,
    as_json: Json = False,
) -> None:
    """List offers, newest first; with --key those of its account."""
    rows = list(Api(api).items("/v1/offers", most, account=_account(key), node=node, state=state))
    if as_json:
        document({"offers": rows})
        return
    table(
        ("offer", "node", "resource", "region", ">devices", ">leased", ">ask SYNOR/h", "state"),
        (
            (
                row["offer"],
                row["node"],
                row["resource"],
                row["region"],
                shown_thousandths(row["quantity_milli"]),
                shown_thousandths(row["leased_milli"]),
                shown_synor(whole(row["ask_nano"])),
                row["state"].lower(),
            )
            for row in rows
        ),
        none="No such offer.",
    )
    said("Offers of an open round are hidden until it has cleared.")


@bids.command("place")
def place_bid(
    key: KeyFile,
    resource: Resource,
    region: Annotated[str, typer.Option(help="Region, as `synor node ls` shows it.")],
    limit: Annotated[str, typer.Option(help="Highest price in SYNOR per device and hour.")],
    term: Annotated[str, typer.Option(help="How long, from ready on: 90m, 12h, 30d.")],
    quantity: Annotated[str, typer.Option(help="Devices wanted.")] = "1",
    lot: Annotated[
        str, typer.Option(help="Devices that must be on one node; 0: all of them.")
    ] = "0",
    more: Annotated[
        list[str] | None,
        typer.Option("--with", help="Further resources of each lot, as container.memory=16GB."),
    ] = None,
    metered: Annotated[
        list[str] | None,
        typer.Option("--meter", help="Metered resource with its limit, network.egress=10MB/s."),
    ] = None,
    usage_budget: Annotated[
        str, typer.Option(help="SYNOR for metered resources, of each lot.")
    ] = "0",
    reserved: Annotated[
        bool, typer.Option("--reserved", help="Never on offers that may be reclaimed.")
    ] = False,
    api: ApiUrl = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Bid for devices; the worst case is reserved until it is filled or cancelled."""
    from domain.bid import BidRow, MeteredLimit, PlaceBids
    from domain.node import Amount

    row = BidRow(
        resource=resource,
        region=region_named(region),
        quantity_milli=thousandths(quantity),
        limit_nano=synor(limit),
        term_us=duration(term),
        lot_milli=thousandths(lot),
        allocations=tuple(
            Amount(resource=name, amount=amount) for name, amount in map(allocation, more or ())
        ),
        metered=tuple(
            MeteredLimit(resource=name, per_second=most)
            for name, most in map(metered_limit, metered or ())
        ),
        usage_budget_nano=synor(usage_budget),
        reserved=reserved,
    )
    who = speaker(api, key, passphrase_file)
    sent = who.command(PlaceBids(bids=(row,)))
    told(
        sent,
        as_json,
        note="When its round has cleared: synor lease ls --key FILE",
        bid=who.id_of("bid", sent.number),
    )


@bids.command("cancel")
def cancel_bid(
    bid: Annotated[str, typer.Argument(help="Bid.")],
    key: KeyFile,
    api: ApiUrl = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Take what is unfilled out of the book, and its reservation back."""
    from domain.bid import CancelBid

    which = BidId(hexadecimal(bid, 16, "a bid"))
    told(speaker(api, key, passphrase_file).command(CancelBid(bid=which)), as_json)


@bids.command("ls")
def list_bids(
    key: SomeKeyFile = None,
    state: Annotated[str | None, typer.Option(help="resting, filled or cancelled.")] = None,
    most: Most = 50,
    api: ApiUrl = None,
    as_json: Json = False,
) -> None:
    """List bids, newest first; with --key those of its account."""
    rows = list(Api(api).items("/v1/bids", most, account=_account(key), state=state))
    if as_json:
        document({"bids": rows})
        return
    table(
        ("bid", "resource", "region", ">devices", ">open", ">limit SYNOR/h", "placed", "state"),
        (
            (
                row["bid"],
                row["resource"],
                row["region"],
                shown_thousandths(row["quantity_milli"]),
                _open(row),
                shown_synor(whole(row["limit_nano"])),
                shown_time(whole(row["placed_us"])),
                row["state"].lower(),
            )
            for row in rows
        ),
        none="No such bid.",
    )
    said("Bids of an open round are hidden until it has cleared.")


def _account(key: Any) -> str | None:
    return None if key is None else account_of(public_of(key)).hex()


def _open(row: dict[str, Any]) -> str:
    return shown_thousandths(row["open_lots"] * row["lot_milli"])
