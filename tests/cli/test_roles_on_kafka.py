"""The same processors as processes of their own on a real broker: a lease from offer to refund."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters import settings
from tests.cli.commands import stopped_at_the_end, synor, until
from tests.cli.deployment import ROLES, TINY, Deployment
from tests.support.kafka_broker import started_broker

pytestmark = [pytest.mark.service, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    """A network with its topics on a broker of its own; topics have the names of production."""
    broker = started_broker(tmp_path / "kafka")
    made = Deployment(tmp_path, broker.bootstrap)
    try:
        where = ("--kafka", broker.bootstrap, "--genesis", TINY, "--port", "0")
        assert synor("network", "new", made.network, *where).code == 0
        yield made
    finally:
        with stopped_at_the_end(list(made.running.values())):
            pass
        broker.stop()


def test_a_lease_lives_on_processors_that_are_processes_of_their_own(
    deployment: Deployment,
) -> None:
    """Market, metering, settlement, clock and API apart; the market is killed on the way."""
    town = deployment
    missing = town.ask("topics", "check")
    assert (missing.code, "does not exist" in missing.err) == (3, True)
    town.ok("topics", "create", "--kafka", town.brokers)
    assert town.ok("topics", "check")["complaints"] == []
    assert town.ok("network", "show")["shards"] == 2

    town.start_roles()
    until(lambda: "synor_ticks_total 0.0" not in town.figures("clock"))
    for name, *_ in ROLES:
        assert "synor_failed_turns" in town.figures(name)
    lease = town.lease("--meter", "network.egress=10MB/s")

    town.running["market"].kill()
    town.start("market", "work", "market").wait("market 0 works")

    found = town.closed(lease)
    charged = sum(int(line["posted_nano"]) for line in found["lines"])
    assert charged == int(found["provider_nano"]) + int(found["protocol_nano"]) > 0
    assert int(found["refund_nano"]) == (
        found["escrow_allocated_nano"] + found["escrow_usage_nano"] - charged
    )
    until(lambda: town.ok("epoch", "ls")["epochs"][0]["number"] >= 1)
    until(lambda: town.ok("epoch", "show", "1")["epoch"]["checkpoint"])

    town.stop_roles()
    verdict = town.ok("audit", f"kafka:{town.brokers}")
    assert verdict["charged_nano"] == charged
    assert verdict["leases"] == 1
    assert verdict["state_hash"] == town.ok("audit", town.network)["state_hash"]


def test_a_role_with_the_key_of_another_or_without_brokers_says_so(tmp_path: Path) -> None:
    """Exit 2 for the wrong key, exit 3 where no broker answers."""
    folder = tmp_path / "network"
    where = ("--kafka", "127.0.0.1:1", "--genesis", TINY)
    assert synor("network", "new", folder, *where).code == 0
    again = synor("network", "new", folder, *where)
    assert (again.code, "already" in again.err) == (2, True)
    path = folder / settings.FILE_NAME
    path.write_text(path.read_text().replace("keys/market.pem", "keys/clock.pem"))
    swapped = synor("work", "market", "--network", folder)
    assert (swapped.code, "act as market" in swapped.err) == (2, True)
    unreachable = synor("topics", "check", "--network", folder)
    assert (unreachable.code, "127.0.0.1:1" in unreachable.err) == (3, True)
