"""Bids: what a buyer wants, at most for what, with the worst case reserved (R4.2, R8)."""

from __future__ import annotations

from typing import Annotated

from domain.ids import AccountId, BidId, Hash32
from domain.journal import Posting
from domain.node import Amount
from domain.record import record


@record("synor.market.v1.MeteredLimit")
class MeteredLimit:
    """A metered resource that a lease may be charged for, with its limit (R4.8)."""

    resource: Annotated[str, "metered catalogue resource"]
    per_second: Annotated[int, "most base units per second; rows beyond it are refused"]


@record("synor.market.v1.BidPlaced")
class BidPlaced:
    """A bid in the book, its worst case reserved: free → reserved."""

    at_us: Annotated[int, "effective time, µs UTC"]
    bid: Annotated[BidId, "the bid; aggregate id"]
    order_no: Annotated[int, "place in the market's order of orders"]
    account: Annotated[AccountId, "buyer"]
    resource: Annotated[str, "device resource"]
    region: Annotated[str, "region"]
    quantity_milli: Annotated[int, "milli-devices wanted"]
    lot_milli: Annotated[int, "milli-devices of a lot; each lot is whole on one node (R8.2)"]
    limit_nano: Annotated[int, "price cap in nano per device·hour"]
    term_us: Annotated[int, "term from ready on"]
    allocations: Annotated[tuple[Amount, ...], "further allocated resources of each lot"]
    metered: Annotated[tuple[MeteredLimit, ...], "metered resources of each lot"]
    lot_allocated_nano: Annotated[int, "worst case of allocated resources of a lot"]
    lot_usage_nano: Annotated[int, "usage budget of a lot"]
    reserved: Annotated[bool, "True: reserved lease; False: interruptible offers will do"]
    specification: Annotated[Hash32, "SHA-256 of the full specification"]
    postings: Annotated[tuple[Posting, ...], "free → reserved"]


@record("synor.market.v1.BidCancelled")
class BidCancelled:
    """What is unfilled leaves the book: reserved → free."""

    at_us: Annotated[int, "effective time, µs UTC"]
    bid: Annotated[BidId, "the bid"]
    postings: Annotated[tuple[Posting, ...], "reserved → free"]


@record("synor.market.v1.BidFilled")
class BidFilled:
    """Lots of a bid were filled in a round; with the last one the bid is done."""

    at_us: Annotated[int, "effective time, µs UTC"]
    bid: Annotated[BidId, "the bid"]
    lots: Annotated[int, "lots filled now"]
    open_lots: Annotated[int, "lots still wanted"]


BidEvent = BidPlaced | BidCancelled | BidFilled


# Commands


@record("synor.command.v1.BidRow")
class BidRow:
    """One bid."""

    resource: Annotated[str, "device resource"]
    region: Annotated[str, "region"]
    quantity_milli: Annotated[int, "milli-devices, above zero"]
    limit_nano: Annotated[int, "price cap in nano per device·hour, a multiple of the tick"]
    term_us: Annotated[int, "term, above zero"]
    lot_milli: Annotated[int, "lot; 0 for the whole quantity; divides the quantity"] = 0
    allocations: Annotated[tuple[Amount, ...], "further allocated resources of each lot"] = ()
    metered: Annotated[tuple[MeteredLimit, ...], "metered resources of each lot"] = ()
    usage_budget_nano: Annotated[int, "for metered resources, per lot"] = 0
    reserved: Annotated[bool, "reserved lease"] = False
    specification: Annotated[Hash32, "SHA-256 of the full specification"] = Hash32(bytes(32))


@record("synor.command.v1.PlaceBids")
class PlaceBids:
    """A buyer places bids; ids derive from (key, session, number, row)."""

    bids: Annotated[tuple[BidRow, ...], "bids"]


@record("synor.command.v1.CancelBid")
class CancelBid:
    """Take what is unfilled out of the book; the bid has been in a cleared round (R8.7)."""

    bid: Annotated[BidId, "the bid"]
