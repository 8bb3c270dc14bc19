"""What a refused command leaves in the ledger is short, however long the texts that it names."""

from __future__ import annotations

from typing import Any

import pytest

from domain.bid import BidRow, MeteredLimit, PlaceBids
from domain.ids import Hash32
from domain.node import Amount
from domain.refusal import CODES
from tests.gate_codec.gates import CommandGate, codec, network

LONG = "x" * 300_000


def _bid(**fields: Any) -> PlaceBids:
    right: dict[str, Any] = {
        "resource": "gpu.h100",
        "region": "eu",
        "quantity_milli": 1000,
        "limit_nano": 1000,
        "term_us": 60_000_000,
        "lot_milli": 0,
        "allocations": (),
        "metered": (),
        "usage_budget_nano": 0,
        "reserved": False,
        "specification": Hash32(bytes(32)),
    }
    return PlaceBids(bids=(BidRow(**right | fields),))


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (_bid(resource=LONG), "not_priced_by_rounds"),
        (_bid(region=LONG), "order_region_invalid"),
        (_bid(allocations=(Amount(resource=LONG, amount=1),)), "not_an_allocation"),
        (_bid(metered=(MeteredLimit(resource=LONG, per_second=1),)), "not_a_metered_resource"),
    ],
    ids=["resource", "region", "allocation", "metered"],
)
def test_a_refusal_repeats_little_of_what_it_refuses(command: PlaceBids, name: str) -> None:
    """An answer as long as the input would fill commits, windows of numbers and pages."""
    gate = CommandGate()
    value = gate.right(payload=command).bytes()
    assert len(value) > len(LONG)
    assert len(value) < network().genesis.parameters.input_bytes
    (answered,) = gate.take(value).events
    assert [CODES[row.code].name for row in answered.rows] == [name]
    assert len(codec().encode(answered)) < 1024
