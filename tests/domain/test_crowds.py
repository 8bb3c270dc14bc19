"""Very many in one instant: no commit is too large to append, however many come (design 2)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from domain.bid import PlaceBids
from domain.commit import COMMIT_BYTES_MAX
from domain.lease import EndReason, LeaseEnded, LeaseOpened, ReadyLeases
from domain.processor import RECORDED_BYTES, full
from domain.round import FillsAdded, RoundCleared
from tests.domain.deals import bid_row, clear, market_of, offer
from tests.support.market import H100, MINUTE, SYNOR, World

LONG = os.environ.get("SYNOR_LONG") == "1"
#: Buyers with as many orders as one owner may have, each for a thousandth of a device.
BUYERS = 60 if LONG else 20
ORDERS = 1_000
LEASES = BUYERS * ORDERS
#: Half of what can be appended, so that no kind of event is near.
ENOUGH = COMMIT_BYTES_MAX // 2


class Crowded(World):
    """A world whose steps are committed as a worker does it: when they are full."""

    def __init__(self) -> None:
        self.largest = 0
        super().__init__()

    def _items(self, items: Iterator[Any]) -> list[Any]:
        made: list[Any] = []
        for _ in items:
            if full(self.market.unit):
                made += self._commit()
        return made + self._commit()

    def _commit(self) -> list[Any]:
        unit = self.market.unit
        self.largest = max(self.largest, unit.event_bytes + RECORDED_BYTES * len(unit.events))
        return super()._commit()

    def check_money(self) -> None:
        """At the end alone: there are as many purses as leases."""


@pytest.mark.slow
@pytest.mark.timeout(1800 if LONG else 240)
def test_a_node_that_very_many_share_falls_silent_and_the_market_goes_on() -> None:
    """Cheap to bring about: a node cut in thousandths is filled by one round, then dies."""
    world = Crowded()
    _, (node,) = market_of(world=world, capacity={H100: LEASES})
    offer(world, "alice", node, quantity_milli=LEASES)
    for number in range(BUYERS):
        world.open(f"buyer {number}", 100 * SYNOR)
        world.ok(f"buyer {number}", PlaceBids(bids=(bid_row(quantity_milli=1),) * ORDERS))
    clear(world)
    cleared = world.events(FillsAdded, RoundCleared)
    assert sum(len(each.fills) for each in cleared) == LEASES
    leases = [opened.lease for opened in world.events(LeaseOpened)]
    for first in range(0, LEASES, ORDERS):
        world.ok("alice", ReadyLeases(leases=tuple(leases[first : first + ORDERS])))
    world.node_down(node)
    world.wait(20 * MINUTE)
    ends = world.events(LeaseEnded)
    assert [end.lease for end in ends] == sorted(leases)
    assert {end.reason for end in ends} == {EndReason.NODE_DOWN_TOO_LONG}
    assert world.largest < ENOUGH
    World.check_money(world)
