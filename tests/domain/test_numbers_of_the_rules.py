"""Every number that the rules name, written down a second time: prices, shares, parameters."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.catalogue import (
    SHARES_1,
    VERSION_1,
    Catalogue,
    PriceRow,
    charge,
    protocol_share,
    worst_case,
)
from domain.genesis import BOUNDS, Parameters

#: R2, row by row as the table has them: price per, SYNOR, class.
TABLE = (
    "allocated gpu.rtx4090 device·hour 0.50 compute",
    "allocated gpu.a100-80gb device·hour 2.00 compute",
    "allocated gpu.h100 device·hour 4.00 compute",
    "allocated gpu.vram GB·hour 0.01 compute",
    "metered inference.tokens 1000000 0.10 compute",
    "allocated container.cpu device·hour 0.02 compute",
    "allocated container.memory GB·hour 0.005 compute",
    "allocated container.ephemeral GB·hour 0.001 storage",
    "allocated storage.hot GB·month 0.10 storage",
    "metered network.ingress 1000000000 0 network",
    "metered network.egress 1000000000 0.05 network",
    "allocated network.load-balancer device·hour 0.01 network",
    "allocated network.static-ip device·month 2.00 network",
    "allocated vm.micro device·month 5 compute",
    "allocated vm.small device·month 15 compute",
    "allocated vm.medium device·month 30 compute",
    "allocated vm.large device·month 80 compute",
    "allocated vm.xlarge device·month 200 compute",
    "allocated vm.gpu-small device·month 400 compute",
    "allocated vm.gpu-medium device·month 750 compute",
    "allocated vm.gpu-large device·month 2500 compute",
    "allocated vm.gpu-xlarge device·month 8000 compute",
    "metered function.invocations 1000000 0.20 compute",
    "metered function.duration GB·second 0.00001 compute",
    "allocated function.provisioned GB·hour 0.01 compute",
    "metered function.http-gateway 1000000 0.10 network",
    "metered function.event-bridge 1000000 0.50 network",
    "metered edge.invocations 1000000 0.50 compute",
    "metered edge.duration GB·second 0.00002 compute",
    "metered edge.bandwidth 1000000000 0.08 network",
    "allocated edge.cache GB·month 0.02 storage",
    "metered edge.transcoding minute 0.02 compute",
)

#: Base units in each (R1.2): thousandths or MB, times milliseconds; 30 days are a month.
PER = {
    "device·hour": 1000 * 3_600_000,
    "GB·hour": 1000 * 3_600_000,
    "device·month": 1000 * 30 * 24 * 3_600_000,
    "GB·month": 1000 * 30 * 24 * 3_600_000,
    "GB·second": 1000 * 1000,
    "minute": 60_000,
}


def test_the_price_list_is_the_table_of_the_rules() -> None:
    """R2: every row, in this order, which is the order in which an escrow fills (R4.5)."""
    rows = [line.split() for line in TABLE]
    assert [row.resource for row in VERSION_1] == [name for _, name, *_ in rows]
    for row, (how, name, per, synor, revenue) in zip(VERSION_1, rows, strict=True):
        assert (row.how.name.lower(), row.revenue.name.lower()) == (how, revenue), name
        assert row.unit == (PER[per] if per in PER else int(per)), name
        assert Fraction(row.price_nano) == Fraction(Decimal(synor)) * 10**9, name
        assert row.market == (name in ("gpu.rtx4090", "gpu.a100-80gb", "gpu.h100")), name


def test_provider_and_protocol_get_what_the_rules_give_them() -> None:
    """R3: of a hundred nano 85, 80 and 75 are the provider's."""
    catalogue = Catalogue(VERSION_1, SHARES_1)
    of = {row.revenue.name: protocol_share(catalogue.share(row), 100) for row in VERSION_1}
    assert of == {"COMPUTE": 15, "STORAGE": 20, "NETWORK": 25}


@given(
    row=st.sampled_from(VERSION_1),
    quantity=st.integers(0, 2**62),
    price=st.integers(0, 2**62),
)
def test_a_charge_and_its_split_are_rounded_down_once(
    row: PriceRow, quantity: int, price: int
) -> None:
    """R1.4, R1.5: floor(q × price / unit), floor(c × num / den), and the provider has the rest."""
    nano = charge(row, quantity, price)
    assert 0 <= Fraction(quantity * price, row.unit) - nano < 1
    assert charge(row, quantity) == charge(row, quantity, row.price_nano)
    for share, percent in zip(SHARES_1, (15, 20, 25), strict=True):
        assert 0 <= Fraction(nano * percent, 100) - protocol_share(share, nano) < 1


@given(
    row=st.sampled_from(VERSION_1),
    amount=st.integers(0, 10**9),
    price=st.integers(0, 10**13),
    term_us=st.integers(1, 90 * 24 * 3_600_000_000),
    lots=st.integers(1, 9),
)
def test_a_worst_case_covers_any_time_and_is_rounded_per_unit(
    row: PriceRow, amount: int, price: int, term_us: int, lots: int
) -> None:
    """R4.2: quantity × ceil(price cap × term_ms / unit), so lots add up without remainder."""
    term_ms = (term_us + 999) // 1000
    each = worst_case(row, 1, price, term_us)
    assert 0 <= each - Fraction(price * term_ms, row.unit) < 1
    assert worst_case(row, amount, price, term_us) == amount * each
    assert worst_case(row, lots * amount, price, term_us) == lots * amount * each
    assert worst_case(row, amount, price, term_us) >= charge(row, amount * term_us // 1000, price)


_S, _M, _H, _D = (n * 1_000_000 for n in (1, 60, 3600, 86_400))
#: R10's table and the numbers of R4 to R8 that stand in the text.
DEFAULTS = {
    "usage_window_us": 60 * _S,
    "round_us": 5 * _S,
    "closing_us": 10 * _M,
    "epoch_us": 24 * _H,
    "late_us": 24 * _H,
    "early_us": 5 * _M,
    "maturity_us": 24 * _H,
    "beat_us": 10 * _S,
    "grace_us": 30 * _S,
    "evidence_age_us": 30 * _D,
    "sla_window_us": 30 * _D,
    "dispute_us": 24 * _H,
    "verdict_us": 72 * _H,
    "unbonding_us": 32 * _D,
    "challenge_us": 1 * _H,
    "maintenance_notice_us": 24 * _H,
    "maintenance_cap_us": 8 * _H,
    "node_down_us": 15 * _M,
    "reclaim_notice_us": 2 * _M,
    "ready_within_us": 10 * _M,
    "minimum_charge_us": 10 * _M,
    "stake_hours": 400,
    "bonus_bps": 100,
    "staking_reward_ppb": 0,
    "attestation_us": 30 * _D,
    "price_tick_nano": 1000,
    "input_bytes": 448 * 1024,
    "batch_rows": 10_000,
    "idle_us": 60 * _S,
    "term_max_us": 90 * _D,
    "reject_within_us": 10 * _M,  # R4.4
    "rejections": 3,
    "rejections_within_us": 24 * _H,
    "generations": 64,  # R4.7
    "generations_a_day": 10,
    "generations_within_us": 24 * _H,
    "limit_slack_us": 60 * _S,  # R4.8
    "uptime_min_ppm": 900_000,  # R5
    "uptime_max_ppm": 999_999,
    "slash_hour_ppm": 10_000,  # R5.4: 1 % an hour
    "guilty_nodes": 3,  # R5.6
    "guilty_ppm": 500_000,
    "pot_us": 24 * _H,  # R5.8
    "reference_window_us": 24 * _H,  # R8.1
    "reference_move_ppm": 200_000,
    "first_hour_us": 1 * _H,  # R8.3
    "early_ppm": 100_000,  # R8.4
    "early_within_us": 240 * _H,
    "broken_within_us": 24 * _H,  # R8.5
    "live_orders": 1000,  # R8.7
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_a_parameter_begins_as_the_rules_say(name: str) -> None:
    """R10: the default of every number that the rules name."""
    assert getattr(Parameters(), name) == DEFAULTS[name]


def test_a_bonus_is_at_most_five_percent() -> None:
    """R3.3: the one bound that the text names with its number, beside the uptime's."""
    assert BOUNDS["bonus_bps"] == (0, 500)
