"""The same processors as processes of their own on a real broker: a lease from offer to refund."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapters import roles, roles_genesis, settings
from adapters.avro_codec import AvroCodec
from tests.cli.commands import synor, until
from tests.cli.deployment import ROLES, TINY, Deployment, deployed

pytestmark = [pytest.mark.service, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    """A network with its topics on a broker of its own; topics have the names of production."""
    with deployed(tmp_path) as made:
        yield made


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
    _made_anew_from_the_brokers(town, lease, found)


def _made_anew_from_the_brokers(town: Deployment, lease: str, before: Any) -> None:
    """``projections rebuild`` while the API serves: every row is as the live projector left it."""
    said = town.start("serve", "serve").wait("API and pages at ").text()
    town.env["SYNOR_API"] = said.partition("API and pages at ")[2].split()[0]

    def caught_up(generation: int) -> bool:
        status = town.ok("projections", "status")
        behind = [each["lag"] for each in status["ledgers"]]
        return bool(status["generation"] == generation and behind == [0] * len(behind))

    until(lambda: caught_up(1))
    rebuilt = town.ok("projections", "rebuild")
    assert (rebuilt["generation"], rebuilt["records"] > 10) == (2, True)
    assert caught_up(2)
    assert _rows(town.network / "read.g2.db") == _rows(town.network / "read.g1.db")
    assert town.ok("lease", "show", lease)["lease"] == before
    assert town.running["serve"].stop() == 0, town.running["serve"].text()


def _rows(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Every table of a generation."""
    with closing(sqlite3.connect(path)) as database:
        names = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        found = {
            name: sorted(database.execute(f"SELECT * FROM {name}").fetchall(), key=repr)
            for (name,) in names
        }
    assert len(found) > 10
    return found


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
    assert (swapped.code, "act as clock, not as market" in swapped.err) == (2, True)
    unreachable = synor("topics", "check", "--network", folder)
    assert (unreachable.code, "127.0.0.1:1" in unreachable.err) == (3, True)


def test_one_key_may_write_several_ledgers_if_the_genesis_says_so(tmp_path: Path) -> None:
    """It is then of each of these roles, and of no other."""
    folder = tmp_path / "network"
    assert synor("network", "new", folder, "--kafka", "127.0.0.1:1", "--genesis", TINY).code == 0
    at, codec = folder / "genesis.avro", AvroCodec()
    genesis = roles_genesis.read(at, codec)
    same = roles_genesis.drawn(
        lambda nonce: replace(genesis, nonce=nonce, market_writer=genesis.metering_writer), codec
    )
    roles_genesis.write(at, same, codec)
    path = folder / settings.FILE_NAME
    path.write_text(path.read_text().replace("keys/market.pem", "keys/metering.pem"))
    found = roles.Deployment(settings.load(folder))
    for role in ("market", "metering"):
        assert [each.public for each in found.signers(role)] == [genesis.metering_writer]
    path.write_text(path.read_text().replace("keys/clock.pem", "keys/metering.pem"))
    with pytest.raises(settings.SettingsInvalid, match="as market and metering, not as clock"):
        roles.Deployment(settings.load(folder)).signer("clock")
