"""The price list grows by commands of the operator, and what it says never changes (R2.3)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from domain.lease import LeaseOpened, ReadyLeases
from domain.ledger import AddPriceRow, ChangeParameter
from tests.domain.deals import bid, clear, close_out, leased, offer
from tests.support.market import HOUR, SYNOR, World

L40S = AddPriceRow(
    resource="gpu.l40s", unit=1000 * 3_600_000, price_nano=5 * SYNOR // 4, market=True
)


def test_a_device_without_a_price_gets_one_and_is_traded_by_it() -> None:
    """R2.3: stake, offers, rounds and bills follow the new row as any other."""
    world = World()
    world.ok("operator", L40S)
    (node,) = world.admitted("alice", capacity={"gpu.l40s": 1000})
    assert world.state(world.provider_id("alice")).stake.total_nano == 400 * 5 * SYNOR // 4
    world.open("bob", 10 * SYNOR)
    offer(world, "alice", node, resource="gpu.l40s", ask_nano=SYNOR)
    bid(world, "bob", resource="gpu.l40s")
    clear(world)
    opened = world.last(LeaseOpened)
    assert opened.price_nano == 5 * SYNOR // 4
    world.ok("alice", ReadyLeases(leases=(opened.lease,)))
    world.wait(2 * HOUR)
    close_out(world, opened.lease, covered_us=2 * HOUR)
    (line,) = world.state(opened.lease).lines
    assert line.posted_nano == 5 * SYNOR // 2
    world.check_replay()


def test_a_lease_keeps_the_price_list_that_it_was_opened_under() -> None:
    """R2.3: rows are added at the end, and none of those before it changes."""
    world, opened = leased(capacity={"gpu.h100": 1000, "storage.hot": 10**6})
    before = world.market.folds.registry.catalogue
    world.ok("operator", L40S)
    after = world.market.folds.registry.catalogue
    assert after.rows[:-1] == before.rows
    world.wait(2 * HOUR)
    close_out(world, opened.lease, covered_us=2 * HOUR)
    assert world.state(opened.lease).lines[0].posted_nano == 8 * SYNOR
    assert world.refused("operator", replace(L40S, resource="gpu.h100")) == "priced_already"


@pytest.mark.parametrize(
    ("why", "change"),
    [
        ("not_a_resource", {"resource": ""}),
        ("not_a_resource", {"resource": "g" * 65}),
        ("not_a_resource", {"resource": "9gpu"}),
        ("not_a_resource", {"resource": "gpu l40s"}),
        ("not_a_resource", {"resource": "gpu.l40ß"}),
        ("priced_already", {"resource": "storage.hot", "unit": 0}),
        ("price_row_out_of_range", {"unit": 0}),
        ("price_row_out_of_range", {"unit": 2**62 + 1}),
        ("price_row_out_of_range", {"price_nano": 0}),
        ("price_row_out_of_range", {"price_nano": 2**62 + 1, "market": False}),
        ("price_row_off_tick", {"price_nano": SYNOR + 1}),
    ],
)
def test_a_price_row_that_cannot_be_is_refused(why: str, change: dict[str, Any]) -> None:
    """In the order of the codes."""
    assert World().refused("operator", replace(L40S, **change)) == why


def test_the_price_list_has_an_end() -> None:
    """A bound that can be raised keeps it from growing by accident."""
    world = World()
    rows = len(world.market.folds.registry.catalogue.rows)
    world.ok("operator", ChangeParameter(name="price_rows", value=rows + 1))
    world.ok("operator", L40S)
    assert world.refused("operator", replace(L40S, resource="gpu.l4")) == "price_list_full"
    world.open("alice")
    assert world.refused("alice", L40S) == "key_role_not_allowed"
