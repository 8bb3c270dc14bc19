"""Offers: a node's device capacity at an ask price; resting asks of a book (R6.2, R6.4, R8)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, Protocol, assert_never

from domain.catalogue import PriceRow
from domain.genesis import Parameters
from domain.ids import QUANTITY_MAX, AccountId, NodeId, OfferId, ProviderId
from domain.invariant import InvariantBroken
from domain.node import NODE_IS_RETIRED, NODE_NOT_YOURS, NODE_UNKNOWN
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


@record("synor.market.v1.OfferPlaced")
class OfferPlaced:
    """An ask in the book of its instrument (resource × region of the node)."""

    at_us: Annotated[int, "effective time, µs UTC"]
    offer: Annotated[OfferId, "the offer; aggregate id"]
    order_no: Annotated[int, "place in the market's order of orders"]
    node: Annotated[NodeId, "node that would serve"]
    provider: Annotated[ProviderId, "its provider"]
    account: Annotated[AccountId, "the provider's account"]
    resource: Annotated[str, "device resource, priced by rounds"]
    region: Annotated[str, "region of the node"]
    quantity_milli: Annotated[int, "milli-devices on offer at once"]
    ask_nano: Annotated[int, "least price in nano per device·hour"]
    interruptible: Annotated[bool, "True: leases on it may be reclaimed with notice (R8.5)"]
    notice_us: Annotated[int, "notice of a reclaim"]


@record("synor.market.v1.OfferWithdrawn")
class OfferWithdrawn:
    """The ask leaves the book; leases on it run on."""

    at_us: Annotated[int, "effective time, µs UTC"]
    offer: Annotated[OfferId, "the offer"]


OfferEvent = OfferPlaced | OfferWithdrawn


# Commands


@record("synor.command.v1.OfferRow")
class OfferRow:
    """One ask."""

    node: Annotated[NodeId, "node that would serve"]
    resource: Annotated[str, "device resource"]
    quantity_milli: Annotated[int, "milli-devices, above zero"]
    ask_nano: Annotated[int, "least price in nano per device·hour, a multiple of the tick"]
    interruptible: Annotated[bool, "whether leases may be reclaimed"] = False
    notice_us: Annotated[int, "notice of a reclaim"] = 0


@record("synor.command.v1.PlaceOffers")
class PlaceOffers:
    """A provider's owner or gateway places asks; ids derive from (key, session, number, row)."""

    offers: Annotated[tuple[OfferRow, ...], "asks"]


@record("synor.command.v1.WithdrawOffer")
class WithdrawOffer:
    """Take an ask out of the book."""

    offer: Annotated[OfferId, "the offer"]


# States


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveOffer:
    """An ask in the book."""

    offer: OfferId
    order_no: int
    node: NodeId
    provider: ProviderId
    account: AccountId
    resource: str
    region: str
    quantity_milli: int
    ask_nano: int
    interruptible: bool
    notice_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WithdrawnOffer:
    """An ask that left the book."""

    offer: OfferId
    account: AccountId


OfferState = LiveOffer | WithdrawnOffer


# Refusals

NOTICE_TOO_SHORT: Final[Code] = code(
    506, "notice_too_short", "Give an interruptible offer at least the shortest notice."
)
QUANTITY_NOT_ATTESTED: Final[Code] = code(
    507, "quantity_not_attested", "Have the node's leaf of this resource attested, then offer it."
)
ALREADY_OFFERED: Final[Code] = code(
    508, "already_offered", "Withdraw the node's live offer of this resource first."
)


# Decide and evolve


class OfferedNode(Protocol):
    """What an offer needs to know of its node."""

    @property
    def provider(self) -> ProviderId:
        """Its provider."""
        ...

    @property
    def account(self) -> AccountId:
        """The provider's account."""
        ...

    @property
    def region(self) -> str:
        """Region of its instruments."""
        ...

    @property
    def retired(self) -> bool:
        """Whether it is gone."""
        ...

    def attested(self, resource: str, now_us: int) -> int:
        """How much of the resource an unexpired attestation vouches for."""
        ...


def decide_place(
    row: OfferRow,
    *,
    offer: OfferId,
    order_no: int,
    at_us: int,
    account: AccountId,
    node: OfferedNode | None,
    price_row: PriceRow | None,
    offered: bool,
    orders: int,
    parameters: Parameters,
) -> OfferPlaced | Refused:
    """One ask. ``offered``: the node has a live offer of it; ``orders``: live ones of the owner."""
    if node is None:
        return Refused(NODE_UNKNOWN, row.node.hex())
    if node.account != account:
        return Refused(NODE_NOT_YOURS, row.node.hex())
    if node.retired:
        return Refused(NODE_IS_RETIRED, row.node.hex())
    if price_row is None or not price_row.market:
        return Refused(NOT_PRICED_BY_ROUNDS, row.resource)
    if not 0 < row.quantity_milli <= QUANTITY_MAX:
        return Refused(QUANTITY_OUT_OF_RANGE, f"{row.quantity_milli} milli")
    if not 0 <= row.ask_nano <= QUANTITY_MAX or row.ask_nano % parameters.price_tick_nano:
        return Refused(PRICE_OFF_TICK, f"{row.ask_nano}, tick {parameters.price_tick_nano}")
    if row.interruptible and row.notice_us < parameters.reclaim_notice_us:
        return Refused(NOTICE_TOO_SHORT, f"{row.notice_us} < {parameters.reclaim_notice_us} µs")
    attested = node.attested(row.resource, at_us)
    if attested < row.quantity_milli:
        return Refused(QUANTITY_NOT_ATTESTED, f"{attested} of {row.quantity_milli} milli")
    if offered:
        return Refused(ALREADY_OFFERED, row.resource)
    if orders >= parameters.live_orders:
        return Refused(TOO_MANY_LIVE_ORDERS, f"{orders} live orders")
    return OfferPlaced(
        at_us=at_us,
        offer=offer,
        order_no=order_no,
        node=row.node,
        provider=node.provider,
        account=account,
        resource=row.resource,
        region=node.region,
        quantity_milli=row.quantity_milli,
        ask_nano=row.ask_nano,
        interruptible=row.interruptible,
        notice_us=row.notice_us if row.interruptible else 0,
    )


def decide_withdraw(
    state: OfferState | None, *, account: AccountId, in_cleared_round: bool, at_us: int
) -> OfferWithdrawn | Refused:
    """Take an ask out of the book (R8.7)."""
    if state is None:
        return Refused(ORDER_UNKNOWN)
    if state.account != account:
        return Refused(ORDER_NOT_YOURS)
    match state:
        case WithdrawnOffer():
            return Refused(ORDER_NOT_LIVE)
        case LiveOffer():
            if not in_cleared_round:
                return Refused(ORDER_NOT_YET_IN_A_ROUND)
            return OfferWithdrawn(at_us=at_us, offer=state.offer)
        case _:
            assert_never(state)


def evolve(state: OfferState | None, event: OfferEvent) -> OfferState:
    """The offer after the event."""
    match event:
        case OfferPlaced():
            return LiveOffer(
                offer=event.offer,
                order_no=event.order_no,
                node=event.node,
                provider=event.provider,
                account=event.account,
                resource=event.resource,
                region=event.region,
                quantity_milli=event.quantity_milli,
                ask_nano=event.ask_nano,
                interruptible=event.interruptible,
                notice_us=event.notice_us,
            )
        case OfferWithdrawn():
            if not isinstance(state, LiveOffer):
                raise InvariantBroken("only a live offer is withdrawn")
            return WithdrawnOffer(offer=state.offer, account=state.account)
        case _:
            assert_never(event)
