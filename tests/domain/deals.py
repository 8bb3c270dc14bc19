"""Deals for tests: offers, bids, leases and statements by short names, on a real market."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from domain.bid import BidRow, MeteredLimit, PlaceBids
from domain.catalogue import Catalogue
from domain.ids import LeaseId
from domain.journal import Purse
from domain.lease import LeaseOpened, ReadyLeases
from domain.node import Amount
from domain.offer import OfferRow, PlaceOffers
from domain.telemetry import Quantity, UsageStated
from tests.support.market import H100, HOUR, MINUTE, SYNOR, World

DEVICE = 1000


def amounts(named: Mapping[str, int] | None) -> tuple[Amount, ...]:
    """Allocations by resource."""
    return tuple(Amount(resource=r, amount=a) for r, a in (named or {}).items())


def offer_row(node: bytes, **changes: Any) -> OfferRow:
    """One H100 at three SYNOR an hour."""
    row: dict[str, Any] = {
        "node": node,
        "resource": H100,
        "quantity_milli": DEVICE,
        "ask_nano": 3 * SYNOR,
    }
    return OfferRow(**{**row, **changes})


def bid_row(
    *,
    allocations: Mapping[str, int] | None = None,
    metered: Mapping[str, int] | None = None,
    **changes: Any,
) -> BidRow:
    """One H100 for two hours at five SYNOR an hour at most."""
    row: dict[str, Any] = {
        "resource": H100,
        "region": "eu",
        "quantity_milli": DEVICE,
        "limit_nano": 5 * SYNOR,
        "term_us": 2 * HOUR,
        "allocations": amounts(allocations),
        "metered": tuple(
            MeteredLimit(resource=r, per_second=p) for r, p in (metered or {}).items()
        ),
    }
    return BidRow(**{**row, **changes})


def offer(world: World, who: str, node: bytes, **changes: Any) -> bytes:
    """Place an offer; its id."""
    placed: bytes = world.ok(who, PlaceOffers(offers=(offer_row(node, **changes),)))[-1].offer
    return placed


def bid(world: World, who: str, **changes: Any) -> bytes:
    """Place a bid; its id."""
    placed: bytes = world.ok(who, PlaceBids(bids=(bid_row(**changes),)))[-1].bid
    return placed


def clear(world: World) -> list[Any]:
    """Let a round pass."""
    return world.wait(world.parameters.round_us)


def market_of(
    *, nodes: int = 1, money: int = 1000 * SYNOR, world: World | None = None, **node: Any
) -> tuple[World, list[Any]]:
    """A world with the admitted provider alice, her nodes, and the buyer bob with money."""
    world = World() if world is None else world
    made = world.admitted("alice", nodes, **node)
    world.open("bob", money)
    return world, made


def leased(
    *,
    ready: bool = True,
    capacity: Mapping[str, int] | None = None,
    ask: Mapping[str, Any] | None = None,
    **changes: Any,
) -> tuple[World, LeaseOpened]:
    """A world with one lease of bob on alice's node, at four SYNOR an hour (the list price)."""
    world, (node,) = market_of(capacity=capacity)
    offer(world, "alice", node, **(ask or {}))
    bid(world, "bob", **changes)
    clear(world)
    opened: LeaseOpened = world.last(LeaseOpened)
    assert opened.price_nano == 4 * SYNOR
    if ready:
        world.ok("alice", ReadyLeases(leases=(opened.lease,)))
    return world, opened


def state_usage(
    world: World,
    lease: LeaseId,
    *,
    covered_us: int,
    quantities: Mapping[str, int] | None = None,
    final: bool = False,
    window_end_us: int | None = None,
) -> list[Any]:
    """A statement: allocated quantities from the covered time, metered ones as given."""
    terms = world.state(lease).terms
    stated = {each.resource: each.amount * covered_us // 1000 for each in terms.allocations}
    stated.update(quantities or {})
    catalogue: Catalogue = world.market.folds.registry.catalogue
    return world.metering(
        UsageStated(
            at_us=world.now,
            lease=lease,
            window_end_us=world.now - MINUTE if window_end_us is None else window_end_us,
            covered_us=covered_us,
            quantities=tuple(
                Quantity(resource=r, quantity=q)
                for r, q in sorted(stated.items(), key=lambda kv: catalogue.number[kv[0]])
                if q
            ),
            final=final,
        )
    )


def close_out(world: World, lease: LeaseId, *, covered_us: int, **usage: int) -> list[Any]:
    """Let closing pass and bring the last statement."""
    world.wait(world.parameters.closing_us + 2 * MINUTE)
    named = {r.replace("_", "."): q for r, q in usage.items()}
    return state_usage(world, lease, covered_us=covered_us, quantities=named, final=True)


def escrows(world: World, lease: bytes) -> tuple[int, int]:
    """What stands in a lease's two escrows."""
    return (
        world.balance(Purse.ESCROW_ALLOCATED, lease),
        world.balance(Purse.ESCROW_USAGE, lease),
    )
