"""`synor bench` measures what it says: all readings accepted, peers with the same totals."""

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from adapters.cli_bench import app


def figures(*arguments: str) -> dict[str, Any]:
    """The one line of JSON of a bench."""
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    (line,) = result.stdout.splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


@pytest.mark.parametrize("columns", ["long", "bytes"])
def test_the_metering_bench_beside_a_peer_counts_every_reading_once(columns: str) -> None:
    """The peer's fold of the same records, by other code, must come to the same totals."""
    found = figures(
        *("metering", "--log", "memory", "--batch", "10", "--readings", "2000"),
        *("--columns", columns, "--peer", "eventsourcing"),
    )
    assert found["readings"] == 2000
    assert found["peer"] == "eventsourcing"
    assert found["times_peer"] > 0
    assert found["cpu_us_per_reading"] > 0
    assert found["peak_mb"] > 0


def test_a_peer_that_needs_kafka_says_so() -> None:
    """Not a stack of errors."""
    result = CliRunner().invoke(
        app, ["metering", "--log", "memory", "--readings", "100", "--peer", "bytewax"]
    )
    assert result.exit_code == 2
    assert "--log kafka" in result.output


def test_the_growth_bench_compares_a_part_with_the_whole() -> None:
    """Figures of one worker at two ages."""
    found = figures("growth", "--log", "memory", "--readings", "20000", "--times", "3")
    assert found["readings"] == [20_000, 60_000]
    assert found["cpu_ratio"] > 0
    assert min(found["memory_mb"]) > 0


def test_the_hashing_bench_stands_beside_the_bare_libraries() -> None:
    """Nobody hashes or verifies faster than the library below it."""
    found = figures("hashing", "--records", "128")
    assert 0 < found["sha256_of_limit"] <= 2
    assert 0 < found["restart_of_limit"] <= 2
    assert 0 < found["signatures_of_limit"] <= 2
