"""Amounts, durations and ids as people write them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters import cli_units
from adapters.cli_failures import Asked
from adapters.cli_output import table


@pytest.mark.parametrize(
    ("text", "nano"),
    [
        ("0", 0),
        ("1", 10**9),
        ("12.5", 12_500_000_000),
        ("0.000000001", 1),
        ("1.500000000000", 1_500_000_000),
        ("123456789012345678901.000000001", 123456789012345678901 * 10**9 + 1),
        ("1_000", 1000 * 10**9),
    ],
)
def test_an_amount_is_exact_to_nine_places(text: str, nano: int) -> None:
    """No float is on the way."""
    assert cli_units.synor(text) == nano


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (cli_units.synor, ""),
        (cli_units.synor, "-1"),
        (cli_units.synor, "1e9"),
        (cli_units.synor, "1,5"),
        (cli_units.synor, "0.0000000001"),
        (cli_units.synor, "nan"),
        (cli_units.synor, "٣"),
        (cli_units.synor, "9" * 40),
        (cli_units.some_synor, "0"),
        (cli_units.thousandths, "0.0005"),
        (cli_units.duration, "10"),
        (cli_units.duration, "10 minutes"),
        (cli_units.duration, "m10"),
        (cli_units.duration, ""),
        (cli_units.duration, "1h30"),
        (cli_units.share, "101"),
        (cli_units.allocation, "gpu.h100"),
        (cli_units.allocation, "container.memory=16"),
        (cli_units.limit, "network.egress=fast"),
    ],
)
def test_what_cannot_be_read_is_refused_with_an_example(
    parse: Callable[[str], object], text: str
) -> None:
    """A person sees what was wrong and how to write it."""
    with pytest.raises(Asked) as refused:
        parse(text)
    assert refused.value.remedy


@pytest.mark.parametrize(
    ("text", "us"),
    [
        ("90s", 90_000_000),
        ("10m", 600_000_000),
        ("1h30m", 5_400_000_000),
        ("30d", 2_592_000_000_000),
        ("250ms", 250_000),
        ("1h 30m", 5_400_000_000),
    ],
)
def test_a_duration_is_read_in_its_units(text: str, us: int) -> None:
    """Several units may stand together."""
    assert cli_units.duration(text) == us


def test_an_allocation_is_read_in_the_units_of_its_resource() -> None:
    """Memory comes in sizes, everything else in pieces."""
    assert cli_units.allocation("container.memory=16GB") == ("container.memory", 16_000)
    assert cli_units.allocation("gpu.h100=0.5") == ("gpu.h100", 500)
    assert cli_units.limit("network.egress=10MB/s") == ("network.egress", 10_000_000)


def test_an_id_of_another_length_is_refused() -> None:
    """A node's id is not taken for a key."""
    with pytest.raises(Asked, match="a lease"):
        cli_units.hexadecimal("ab" * 15, 16, "a lease")
    assert cli_units.hexadecimal("0x" + "ab" * 16, 16, "a lease") == b"\xab" * 16


@given(st.integers(0, 2**127 - 1))
def test_what_is_shown_reads_back_as_the_same_amount(nano: int) -> None:
    """Nothing is lost on a terminal."""
    assert cli_units.synor(cli_units.shown_synor(nano).replace(",", "")) == nano


@pytest.mark.parametrize(
    "text",
    [
        "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
        "5aaeb6053f3e94c9b9a09f33669435e7ef1beaed",
        "0x5AAEB6053F3E94C9B9A09F33669435E7EF1BEAED",
    ],
)
def test_an_evm_address_is_read_with_its_checksum_or_without(text: str) -> None:
    """EIP-55's own example, and the same digits in one case."""
    assert cli_units.evm_address(text).hex() == "5aaeb6053f3e94c9b9a09f33669435e7ef1beaed"


@pytest.mark.parametrize(
    "text", ["0x5aAeb6053F3E94C9b9A09f33669435E7Ef1Beaed", "0x" + "00" * 20, "0x12", "eu"]
)
def test_an_address_that_nobody_can_mean_is_refused(text: str) -> None:
    """Money that is sent to a mistyped address is gone."""
    with pytest.raises(Asked):
        cli_units.evm_address(text)


def test_figures_of_a_column_stand_point_under_point(capsys: pytest.CaptureFixture[str]) -> None:
    """So that amounts can be compared by eye; what is no figure is only ranged right."""
    table((">SYNOR", ">block"), [("94.92", "7"), ("1,004.08", "not yet"), ("1", "12")])
    assert capsys.readouterr().out.splitlines() == [
        "   SYNOR    block",
        "   94.92        7",
        "1,004.08  not yet",
        "    1          12",
    ]
