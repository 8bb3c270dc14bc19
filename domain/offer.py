"""Offers: a node's device capacity at an ask price; resting asks of a book (R6.2, R6.4, R8)."""

from __future__ import annotations

from typing import Annotated

from domain.ids import AccountId, NodeId, OfferId, ProviderId
from domain.record import record


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
