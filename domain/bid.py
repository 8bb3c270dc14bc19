"""Bids: what a buyer wants, at most for what, with the worst case reserved (R4.2, R8)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Final, assert_never

from domain.catalogue import Catalogue, How, PriceRow, worst_case
from domain.genesis import Parameters
from domain.ids import QUANTITY_MAX, AccountId, BidId, Hash32
from domain.invariant import InvariantBroken
from domain.journal import Posting, Purse, move
from domain.node import Amount
from domain.record import record
from domain.refusal import Code, Refused, code
from domain.round import (
    NOT_PRICED_BY_ROUNDS,
    ORDER_NOT_LIVE,
    ORDER_NOT_YET_IN_A_ROUND,
    ORDER_NOT_YOURS,
    ORDER_UNKNOWN,
    PRICE_OFF_TICK,
    QUANTITY_OUT_OF_RANGE,
    TOO_MANY_LIVE_ORDERS,
)
from domain.text import is_name


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


# States


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveBid:
    """A bid with lots that are still wanted, and the worst case of each reserved."""

    bid: BidId
    order_no: int
    account: AccountId
    resource: str
    region: str
    lot_milli: int
    limit_nano: int
    term_us: int
    allocations: tuple[Amount, ...]
    metered: tuple[MeteredLimit, ...]
    lot_allocated_nano: int
    lot_usage_nano: int
    reserved: bool
    specification: Hash32
    open_lots: int
    filled_lots: int

    @property
    def reserved_nano(self) -> int:
        """What stands reserved for the open lots."""
        return self.open_lots * (self.lot_allocated_nano + self.lot_usage_nano)


@dataclass(frozen=True, slots=True, kw_only=True)
class FilledBid:
    """All lots became leases."""

    bid: BidId
    account: AccountId
    filled_lots: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelledBid:
    """What was unfilled was taken back."""

    bid: BidId
    account: AccountId
    filled_lots: int


BidState = LiveBid | FilledBid | CancelledBid


# Refusals

ORDER_REGION_INVALID: Final[Code] = code(
    510, "order_region_invalid", "Name a region of a registered node."
)
LOT_DOES_NOT_DIVIDE: Final[Code] = code(
    511, "lot_does_not_divide", "Give a lot above zero that divides the quantity, or none."
)
TERM_OUT_OF_RANGE: Final[Code] = code(
    512, "term_out_of_range", "Give a term above zero and at most the longest term."
)
NOT_ALLOCATED: Final[Code] = code(
    513, "not_an_allocation", "Name each allocated catalogue resource once, with an amount."
)
NOT_METERED: Final[Code] = code(
    514, "not_a_metered_resource", "Name each metered catalogue resource once, with a limit."
)
CHARGED_TWICE: Final[Code] = code(
    515, "charged_twice", "Leave out what device time includes: its VRAM, a VM size, tokens."
)
USAGE_BUDGET_OUT_OF_RANGE: Final[Code] = code(
    516, "usage_budget_out_of_range", "Give a usage budget that is not negative."
)
WORST_CASE_TOO_LARGE: Final[Code] = code(
    517, "worst_case_too_large", "Split the order: its worst case is beyond 2^62."
)
FREE_BALANCE_TOO_SMALL: Final[Code] = code(
    531,
    "free_balance_too_small",
    "Deposit first, or lower quantity, limit, term or budget."
    " The figures are nano SYNOR, 10^9 to one.",
)


# Decide and evolve


def includes(resource: str) -> bool:
    """Whether device time includes the resource, or stands instead of it (R2.2)."""
    return resource in ("gpu.vram", "inference.tokens") or resource.startswith("vm.")


def lot_worst_case(
    catalogue: Catalogue,
    *,
    resource: str,
    lot_milli: int,
    price_nano: int,
    term_us: int,
    allocations: tuple[Amount, ...],
) -> int:
    """The worst case of one lot's allocated resources at a price of its device time (R4.2).

    Rounded up per unit, so that it is the same however many lots are taken together.
    """
    nano = 0
    for named in (Amount(resource=resource, amount=lot_milli), *allocations):
        row = catalogue.row(named.resource)
        if row is None:
            raise InvariantBroken("an order names catalogue rows")
        price = price_nano if named.resource == resource else row.price_nano
        nano += worst_case(row, named.amount, price, term_us)
    return nano


def decide_place(
    row: BidRow,
    *,
    bid: BidId,
    order_no: int,
    at_us: int,
    account: AccountId,
    catalogue: Catalogue,
    orders: int,
    free_nano: int,
    parameters: Parameters,
) -> BidPlaced | Refused:
    """One bid. ``orders``: live ones of the beneficial owner; ``free_nano``: the buyer's."""
    wrong = _wrong_terms(row, catalogue, parameters) or _wrong_materials(
        row, catalogue, parameters.order_rows
    )
    if wrong is not None:
        return wrong
    lot_milli = row.lot_milli or row.quantity_milli
    lots = row.quantity_milli // lot_milli
    allocated = lot_worst_case(
        catalogue,
        resource=row.resource,
        lot_milli=lot_milli,
        price_nano=row.limit_nano,
        term_us=row.term_us,
        allocations=row.allocations,
    )
    worst = lots * (allocated + row.usage_budget_nano)
    largest = max([lot_milli, *(extra.amount for extra in row.allocations)])
    fastest = max([0, *(limit.per_second for limit in row.metered)])
    # The quantities of the largest lease must stay within bounds as well as its money (R1.6).
    quantity = lots * max(largest * -(-row.term_us // 1000), fastest)
    if max(worst, quantity) > QUANTITY_MAX:
        return Refused(WORST_CASE_TOO_LARGE, f"{worst} nano, {quantity} base units")
    if orders >= parameters.live_orders:
        return Refused(TOO_MANY_LIVE_ORDERS, f"{orders} live orders")
    if worst > free_nano:
        return Refused(FREE_BALANCE_TOO_SMALL, f"{worst} nano needed, {free_nano} free")
    return BidPlaced(
        at_us=at_us,
        bid=bid,
        order_no=order_no,
        account=account,
        resource=row.resource,
        region=row.region,
        quantity_milli=row.quantity_milli,
        lot_milli=lot_milli,
        limit_nano=row.limit_nano,
        term_us=row.term_us,
        allocations=row.allocations,
        metered=row.metered,
        lot_allocated_nano=allocated,
        lot_usage_nano=row.usage_budget_nano,
        reserved=row.reserved,
        specification=row.specification,
        postings=move((Purse.FREE, account), (Purse.RESERVED, bid), worst),
    )


def _wrong_terms(row: BidRow, catalogue: Catalogue, parameters: Parameters) -> Refused | None:
    """What is wrong with resource, quantity, price, region, lot or term."""
    device = catalogue.row(row.resource)
    if device is None or not device.market:
        return Refused(NOT_PRICED_BY_ROUNDS, row.resource)
    if not 0 < row.quantity_milli <= QUANTITY_MAX:
        return Refused(QUANTITY_OUT_OF_RANGE, f"{row.quantity_milli} milli")
    if not 0 <= row.limit_nano <= QUANTITY_MAX or row.limit_nano % parameters.price_tick_nano:
        return Refused(PRICE_OFF_TICK, f"{row.limit_nano}, tick {parameters.price_tick_nano}")
    if len(row.region) > parameters.region_length or not is_name(row.region):
        return Refused(ORDER_REGION_INVALID, row.region)
    if row.lot_milli < 0 or row.quantity_milli % (row.lot_milli or row.quantity_milli):
        return Refused(LOT_DOES_NOT_DIVIDE, f"{row.lot_milli} of {row.quantity_milli} milli")
    if not 0 < row.term_us <= parameters.term_max_us:
        return Refused(TERM_OUT_OF_RANGE, f"{row.term_us}, at most {parameters.term_max_us} µs")
    return None


def _wrong_materials(row: BidRow, catalogue: Catalogue, most: int) -> Refused | None:
    """What is wrong with the bill of materials (R2.2) or its budget."""
    allocated = [extra.resource for extra in row.allocations]
    if len(allocated) > most or len({*allocated}) < len(allocated):
        return Refused(NOT_ALLOCATED, f"{len(allocated)} rows")
    for extra in row.allocations:
        known: PriceRow | None = catalogue.row(extra.resource)
        if (
            known is None
            or known.how is not How.ALLOCATED
            or known.market
            or not 0 < extra.amount <= QUANTITY_MAX
        ):
            return Refused(NOT_ALLOCATED, f"{extra.amount} of {extra.resource}")
    metered = [limit.resource for limit in row.metered]
    if len(metered) > most or len({*metered}) < len(metered):
        return Refused(NOT_METERED, f"{len(metered)} rows")
    for limit in row.metered:
        known = catalogue.row(limit.resource)
        if (
            known is None
            or known.how is not How.METERED
            or not 0 < limit.per_second <= QUANTITY_MAX
        ):
            return Refused(NOT_METERED, f"{limit.per_second} a second of {limit.resource}")
    for resource in (*allocated, *metered):
        # With a limit of zero no device time is charged: a place that is billed by its rows.
        if row.limit_nano > 0 and includes(resource):
            return Refused(CHARGED_TWICE, resource)
    if row.usage_budget_nano < 0:
        return Refused(USAGE_BUDGET_OUT_OF_RANGE, f"{row.usage_budget_nano} nano")
    return None


def decide_cancel(
    state: BidState | None, *, account: AccountId, in_cleared_round: bool, at_us: int
) -> BidCancelled | Refused:
    """Take what is unfilled out of the book and release what it reserved (R8.7)."""
    if state is None:
        return Refused(ORDER_UNKNOWN)
    if state.account != account:
        return Refused(ORDER_NOT_YOURS)
    match state:
        case FilledBid() | CancelledBid():
            return Refused(ORDER_NOT_LIVE)
        case LiveBid():
            if not in_cleared_round:
                return Refused(ORDER_NOT_YET_IN_A_ROUND)
            return BidCancelled(
                at_us=at_us,
                bid=state.bid,
                postings=move(
                    (Purse.RESERVED, state.bid), (Purse.FREE, account), state.reserved_nano
                ),
            )
        case _:
            assert_never(state)


def evolve(state: BidState | None, event: BidEvent) -> BidState:
    """The bid after the event."""
    match event:
        case BidPlaced():
            return LiveBid(
                bid=event.bid,
                order_no=event.order_no,
                account=event.account,
                resource=event.resource,
                region=event.region,
                lot_milli=event.lot_milli,
                limit_nano=event.limit_nano,
                term_us=event.term_us,
                allocations=event.allocations,
                metered=event.metered,
                lot_allocated_nano=event.lot_allocated_nano,
                lot_usage_nano=event.lot_usage_nano,
                reserved=event.reserved,
                specification=event.specification,
                open_lots=event.quantity_milli // event.lot_milli,
                filled_lots=0,
            )
        case BidFilled():
            if not isinstance(state, LiveBid):
                raise InvariantBroken("only a live bid is filled")
            filled = state.filled_lots + event.lots
            if event.open_lots:
                return replace(state, open_lots=event.open_lots, filled_lots=filled)
            return FilledBid(bid=state.bid, account=state.account, filled_lots=filled)
        case BidCancelled():
            if not isinstance(state, LiveBid):
                raise InvariantBroken("only a live bid is cancelled")
            return CancelledBid(bid=state.bid, account=state.account, filled_lots=state.filled_lots)
        case _:
            assert_never(event)
