"""Rounds: frequent uniform-price auctions, one stream per instrument (R8.1, R8.2)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Final, assert_never

from domain.ids import BidId, LeaseId, NodeId, OfferId, RoundId, derive
from domain.invariant import InvariantBroken
from domain.record import record
from domain.refusal import Code, code


@lru_cache(maxsize=1024)
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


@record("synor.market.v1.FillsAdded")
class FillsAdded:
    """A full part of the fills of a round that has very many; `RoundCleared` has the last of them.

    They count from that event on: until then the book stands as it was when the round cleared.
    """

    at_us: Annotated[int, "the deadline, µs UTC"]
    instrument: Annotated[RoundId, "the instrument"]
    number: Annotated[int, "number of the round"]
    part: Annotated[int, "number of the part, from 0"]
    price_nano: Annotated[int, "the round's price"]
    volume_milli: Annotated[int, "filled by these fills"]
    fills: Annotated[tuple[Fill, ...], "in the order in which they are placed"]


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


RoundEvent = RoundOpened | FillsAdded | RoundCleared


# States


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRound:
    """A round that takes orders until it clears; nobody sees them but their owners."""

    instrument: RoundId
    resource: str
    region: str
    number: int
    clears_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClearedRound:
    """The last round of the instrument is cleared and nothing has opened another."""

    instrument: RoundId
    resource: str
    region: str
    number: int


RoundState = OpenRound | ClearedRound


# Refusals that offers and bids share, in the order in which they are judged

NOT_PRICED_BY_ROUNDS: Final[Code] = code(
    503, "not_priced_by_rounds", "Name device time: a catalogue resource that rounds price."
)
QUANTITY_OUT_OF_RANGE: Final[Code] = code(
    504, "quantity_out_of_range", "Give a quantity above zero, in thousandths of a device."
)
PRICE_OFF_TICK: Final[Code] = code(
    505,
    "price_off_tick",
    "Give a price that is a multiple of the tick and not negative."
    " The figures are nano SYNOR, 10^9 to one.",
)
TOO_MANY_LIVE_ORDERS: Final[Code] = code(
    530, "too_many_live_orders", "Cancel or withdraw an order of the same beneficial owner first."
)
ORDER_UNKNOWN: Final[Code] = code(540, "order_unknown", "Name an offer or bid that was placed.")
ORDER_NOT_YOURS: Final[Code] = code(
    541, "order_not_yours", "Sign with a key of the account that placed the order."
)
ORDER_NOT_LIVE: Final[Code] = code(
    542, "order_not_live", "Nothing to do: the order is filled, cancelled or withdrawn."
)
ORDER_NOT_YET_IN_A_ROUND: Final[Code] = code(
    543, "order_not_yet_in_a_round", "Wait until the order has been in a cleared round."
)


# Decide and evolve


def decide_open(
    state: RoundState | None, *, resource: str, region: str, at_us: int, round_us: int
) -> RoundOpened | None:
    """The next round of an instrument, unless one is open."""
    if isinstance(state, OpenRound):
        return None
    return RoundOpened(
        at_us=at_us,
        instrument=instrument_of(resource, region),
        resource=resource,
        region=region,
        number=1 if state is None else state.number + 1,
        clears_us=at_us + round_us,
    )


def evolve(state: RoundState | None, event: RoundEvent) -> RoundState:
    """The instrument after the event."""
    match event:
        case RoundOpened():
            return OpenRound(
                instrument=event.instrument,
                resource=event.resource,
                region=event.region,
                number=event.number,
                clears_us=event.clears_us,
            )
        case FillsAdded():
            if not isinstance(state, OpenRound):
                raise InvariantBroken("a round is open until all its fills are told")
            return state
        case RoundCleared():
            if state is None:
                raise InvariantBroken("a round opens before it clears")
            return ClearedRound(
                instrument=state.instrument,
                resource=state.resource,
                region=state.region,
                number=event.number,
            )
        case _:
            assert_never(event)
