"""Rounds: frequent uniform-price auctions, one stream per instrument (R8.1, R8.2)."""

from __future__ import annotations

from typing import Annotated

from domain.ids import BidId, LeaseId, NodeId, OfferId, RoundId, derive
from domain.record import record


def instrument_of(resource: str, region: str) -> RoundId:
    """The aggregate of an instrument's rounds."""
    return RoundId(derive("round", resource, region))


@record("synor.market.v1.RoundOpened")
class RoundOpened:
    """The first order, cancel or freed capacity after the last round opened another."""

    at_us: Annotated[int, "effective time, µs UTC"]
    instrument: Annotated[RoundId, "the instrument; aggregate id"]
    resource: Annotated[str, "device resource"]
    region: Annotated[str, "region"]
    number: Annotated[int, "number of the round, from 1"]
    clears_us: Annotated[int, "when it clears"]


@record("synor.market.v1.Fill")
class Fill:
    """Lots of one bid that go to one node: they become one lease."""

    bid: Annotated[BidId, "the bid"]
    offer: Annotated[OfferId, "the ask"]
    node: Annotated[NodeId, "the node"]
    lots: Annotated[int, "number of lots"]
    lease: Annotated[LeaseId, "the lease to be opened"]


@record("synor.market.v1.RoundCleared")
class RoundCleared:
    """One price for every fill; the inputs that anyone needs to clear it again."""

    at_us: Annotated[int, "the deadline, µs UTC"]
    instrument: Annotated[RoundId, "the instrument"]
    number: Annotated[int, "number of the round"]
    reference_nano: Annotated[int, "reference price (R8.1)"]
    low_nano: Annotated[int, "lowest price that maximises volume; 0 where nothing crosses"]
    high_nano: Annotated[int, "highest such price; 0 where nothing crosses"]
    price_nano: Annotated[int, "clamp(reference, low, high); 0 where nothing crosses"]
    demand_milli: Annotated[int, "eligible bids"]
    supply_milli: Annotated[int, "eligible asks' free quantity"]
    volume_milli: Annotated[int, "filled"]
    fills: Annotated[tuple[Fill, ...], "in the order in which they are placed"]


RoundEvent = RoundOpened | RoundCleared
