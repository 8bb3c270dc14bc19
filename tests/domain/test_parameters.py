"""R10: no number of the rules is a constant in code; each changes by the operator's command."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest

from domain.bid import PlaceBids
from domain.genesis import BOUNDS, Parameters, broken_bounds
from domain.ids import Wide
from domain.ledger import ChangeParameter, changed
from domain.node import RegisterNodes
from domain.provider import BondStake
from domain.readings import Moment, limit_of
from tests.domain.deals import bid_row, market_of
from tests.support.market import H100, SECOND, World, node_row, provider_command

_ROWS = {"container.cpu": 1, "container.memory": 1, "storage.hot": 1}


def _bid(world: World, **changes: Any) -> str:
    refused = world.refused_rows("bob", PlaceBids(bids=(bid_row(**changes),)))
    return refused.get(0, "accepted")


def _node(world: World, name: str, **changes: Any) -> str:
    refused = world.refused_rows("alice", RegisterNodes(nodes=(node_row(name, **changes),)))
    return refused.get(0, "accepted")


def _bond(world: World) -> str:
    world.deposit("alice", 1)
    answer = world.send("alice", BondStake(amount_nano=Wide(1)))[-1]
    return "accepted" if answer.code == 0 else "too_many_tranches"


#: The value at which what is asked is refused, by which name, and how it is asked.
LIMITS: dict[str, tuple[int, str, Callable[[World, str], str]]] = {
    "order_rows": (2, "not_an_allocation", lambda w, n: _bid(w, allocations=_ROWS)),
    "node_rows": (3, "capacity_invalid", lambda w, n: _node(w, n, capacity={H100: 1000, **_ROWS})),
    "node_devices": (1, "identities_invalid", lambda w, n: _node(w, n, capacity={H100: 2000})),
    "region_length": (1, "region_invalid", lambda w, n: _node(w, n, region="eu")),
    "stake_parts": (2, "too_many_tranches", lambda w, n: _bond(w)),
}


@pytest.mark.parametrize("name", LIMITS)
def test_a_limit_counts_from_the_moment_at_which_it_is_changed(name: str) -> None:
    """The same is accepted before and refused after."""
    value, refusal, ask = LIMITS[name]
    world, _ = market_of()
    assert ask(world, "one") == "accepted"
    world.ok("operator", ChangeParameter(name=name, value=value))
    assert ask(world, "two") == refusal
    world.check_replay()


def test_a_location_has_the_length_that_the_parameter_says() -> None:
    """At it and beyond it."""
    world = World()
    world.ok("operator", ChangeParameter(name="location_length", value=4))
    for name in ("alice", "bob"):
        world.open(name)
    world.ok("alice", provider_command(location="Oulu"))
    assert world.refused("bob", provider_command(location="Luleå")) == "location_too_long"


def test_a_limit_of_a_lease_allows_for_the_slack_that_the_parameter_says() -> None:
    """R4.8: limit × (time since ready + 60 s), whatever the usage window is."""
    for slack in (60 * SECOND, 0):
        parameters = Parameters(limit_slack_us=slack, usage_window_us=7 * SECOND)
        at = Moment.of(10 * SECOND, parameters)
        assert limit_of(5, 0, at) == 5 * (10 + slack // SECOND)


def test_a_period_that_begins_anew_has_a_shortest_length() -> None:
    """Or time would not get past it: the least that is accepted, and one less."""
    for name in ("usage_window_us", "idle_us", "epoch_us", "round_us", "grace_us", "sla_window_us"):
        least = BOUNDS[name][0]
        assert least >= SECOND // 100
        assert broken_bounds(changed(Parameters(), name, least)) == ()
        assert len(broken_bounds(changed(Parameters(), name, least - 1))) == 1


def test_every_parameter_has_bounds_and_its_default_is_within_them() -> None:
    """Name, unit, default, bounds."""
    assert {field.name for field in fields(Parameters)} == set(BOUNDS)
    assert broken_bounds(Parameters()) == ()
