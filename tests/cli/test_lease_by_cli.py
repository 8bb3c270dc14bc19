"""A buyer and a provider do a whole lease by CLI, against a real `synor up` killed midway."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.commands import Running, synor, until
from tests.cli.town import TINY, Town

SYNOR = 1_000_000_000


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    """A fresh ledger with nobody on it."""
    made = Town(tmp_path)
    try:
        yield made
    finally:
        made.up.kill()


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_whole_lease_by_cli_outlives_a_kill_and_passes_the_audit(town: Town) -> None:
    """Account, deposit, stake, node, offer, bid, ready, usage, close, refund, claim, audit."""
    buyer, provider, node_key = town.key("buyer"), town.key("provider"), town.key("node")
    for who in (buyer, provider):
        town.ok("account", "open", "--key", who)
        town.ok("faucet", "1000", "--key", who)
    credited = town.ok("deposit", "100", "--key", buyer)["events"][0]["data"]
    assert credited["amount_nano"] == 100 * SYNOR
    town.ok("deposit", "20.5", "--key", provider)
    _refusals(town, buyer)
    _keys_and_owners(town, buyer, provider)

    town.ok("provider", "register", "--key", provider, "--uptime", "90")
    town.ok("provider", "stake", "10", "--key", provider)
    place = ("--region", "eu", "--has", "gpu.h100=1", "--has", "container.memory=64GB")
    registered = town.ok("node", "register", "--key", provider, "--node-key", node_key, *place)
    node = registered["node"]
    kinds = [event["type"].rpartition(".")[2] for event in registered["answer"]["events"]]
    assert kinds == ["NodeRegistered", "KeyRegistered", "ProviderAdmitted"]
    town.ok("node", "attest", node, "--folder", town.ledger)

    # The node lives on through everything below.
    agent = Running(
        *("node", "run", "--key", node_key, "--interface", "lo", "--auto-ready"),
        env=town.env,
        log=town.folder / "agent.txt",
    ).wait("beat 1")
    try:
        resource = ("--resource", "gpu.h100")
        town.ok("offer", "place", node, "--key", provider, *resource, "--ask", "3.5")
        wants = ("--region", "eu", "--limit", "4", "--term", "1h")
        more = ("--with", "container.memory=16GB", "--meter", "network.egress=10MB/s")
        town.ok(*("bid", "place", "--key", buyer, *resource, *wants, *more, "--usage-budget", "1"))
        lease = until(
            lambda: town.ok("lease", "ls", "--key", buyer, "--state", "active")["leases"]
        )[0]["lease"]
        until(lambda: _line(town, lease, "network.egress"))

        # Killed with no chance to clean up: the next start goes on where the ledger stands, and
        # the node's agent, which found nobody for a while, goes on too.
        town.up.kill()
        assert town.ask("lease", "show", lease).code == 3
        town.up = town.start()
        until(lambda: "The ledger answers again." in agent.text())
        before = _line(town, lease, "network.egress")
        until(lambda: _line(town, lease, "network.egress") > before)

        town.ok("lease", "top-up", lease, "0.5", "--escrow", "usage", "--key", buyer)
        ended = town.ok("lease", "close", lease, "--key", buyer)["answer"]["events"]
        assert ended[0]["data"]["reason"] == "BUYER_CLOSED"
        closed = until(
            lambda: (found := _lease(town, lease))["state"] == "CLOSED" and found, within_s=60
        )
    finally:
        assert agent.stop() == 0

    charged = sum(int(line["posted_nano"]) for line in closed["lines"])
    shares = int(closed["provider_nano"]) + int(closed["protocol_nano"])
    assert charged == shares > 0
    escrowed = closed["escrow_allocated_nano"] + closed["escrow_usage_nano"] + SYNOR // 2
    assert int(closed["refund_nano"]) == escrowed - charged
    assert town.purse("buyer", "FREE") == 100 * SYNOR - charged

    earned = int(closed["provider_nano"])
    town.ok("withdraw", "5.25", "--key", buyer)
    until(lambda: town.purse("buyer", "PAYABLE") and town.purse("provider", "PAYABLE"))
    until(lambda: town.ask("claim", "--key", provider, "--json").code == 0)
    until(lambda: town.ask("claim", "--key", buyer, "--json").code == 0)
    assert town.ask("claim", "--key", buyer).code == 1
    assert "ClaimSettled" in town.ask("history", "--type", "ClaimSettled").out

    running = town.ok("audit", town.ledger)
    assert running["l1"]["checkpoints"] >= 1
    assert town.up.stop() == 0
    verdict = town.ok("audit", town.ledger)
    assert verdict["audit"] == "ok"
    assert verdict["charged_nano"] == charged
    assert verdict["claimed_nano"] == earned + 5_250_000_000
    assert verdict["l1"]["paid_nano"] == verdict["claimed_nano"]
    assert verdict["l1"]["deposited_nano"] == 120_500_000_000
    _audited_from_a_file(town, verdict)
    _forged(town)


def _lease(town: Town, lease: str) -> Any:
    return town.ok("lease", "show", lease)["lease"]


def _line(town: Town, lease: str, resource: str) -> int:
    lines = _lease(town, lease)["lines"]
    return sum(int(line["quantity"]) for line in lines if line["resource"] == resource)


def _refusals(town: Town, buyer: Path) -> None:
    """What the ledger refuses has its number, its name, what to do, and a position."""
    stranger = town.key("stranger")
    place = ("--resource", "gpu.h100", "--region", "eu", "--limit", "4")
    bid = ("bid", "place", "--key", buyer, *place)
    for arguments, code, says in (
        (("account", "open", "--key", buyer), 1, "account"),
        (("faucet", "9" * 20, "--key", buyer), 3, "409"),
        ((*bid, "--term", "1h", "--quantity", "9" * 20), 2, "beyond 64 bits"),
        ((*bid, "--term", "9" * 20 + "d"), 2, "beyond 64 bits"),
        ((*bid, "--term", "1h", "--meter", f"network.egress={'9' * 20}"), 2, "beyond 64 bits"),
        (("lease", "ls", "--state", "open"), 2, "OPENED, ACTIVE, CLOSING, CLOSED"),
        (("history", "--ledger", "metering", "--shard", "99"), 2, "shards"),
        (("withdraw", "1000000", "--key", buyer), 1, "free"),
        (("withdraw", "1", "--key", stranger), 1, "202 unknown_key"),
        (("deposit", "100000", "--key", buyer), 1, "fewer than"),
        (("claim", "--key", buyer), 1, "Nothing is due"),
        (("provider", "stake", "1", "--key", buyer), 1, "not_a_provider"),
        ((*bid, "--term", "365d"), 1, "512 term_out_of_range"),
        ((*bid, "--term", "30d"), 1, "531 free_balance"),
        (("lease", "close", "ab" * 16, "--key", buyer), 1, "lease"),
        (("lease", "show", "ab" * 16), 2, f"901 not_found: there is no lease {'ab' * 16}\n"),
        (("node", "run", "--key", stranger), 2, "node register"),
        (("offer", "withdraw", "ab" * 16, "--key", buyer), 1, "540 order_unknown"),
        (("withdraw", "1", "--key", buyer, "--passphrase-file", TINY), 3, "does not open"),
    ):
        said = town.ask(*arguments)
        assert said.code == code, (arguments, said)
        assert says in said.err, (arguments, said.err)
        assert "Traceback" not in said.err
    assert "at market " in town.ask("withdraw", "1000000", "--key", buyer).err


def _keys_and_owners(town: Town, buyer: Path, provider: Path) -> None:
    """A second key is added and revoked; a subsidiary belongs to another once both sides say so."""
    gateway = town.key("gateway")
    as_gateway = ("--role", "gateway")
    for command, event in (
        (("register", gateway, *as_gateway), "KeyRegistered"),
        (("revoke", gateway), "KeyRevoked"),
    ):
        said = town.ok("key", *command, "--key", provider)["answer"]
        assert [each["type"].rpartition(".")[2] for each in said["events"]] == [event]
    account = town.ok("key", "show", provider)["account"]
    far = town.key("far")
    proven = town.ok("key", "prove", far, "--account", account, *as_gateway)
    public, proof = proven["public_key"], proven["proof"]
    elsewhere = ("key", "register", public, "--key", provider, "--proof", proof)
    assert "330 key_not_proven" in town.ask(*elsewhere).err
    town.ok(*elsewhere, *as_gateway)
    parent = town.ok("account", "show", "--key", buyer)
    subsidiary = town.key("subsidiary")
    opened = town.ok(
        "account", "open", "--key", subsidiary, "--owner", parent["account"]["account"]
    )
    child = opened["account"]
    assert town.ask("account", "admit", child, "--key", provider).code == 1
    admitted = town.ok("account", "admit", child, "--key", buyer)["answer"]
    assert admitted["events"][0]["type"].rpartition(".")[2] == "AccountAdmitted"
    heir = town.key("heir")
    rotation = ("key", "rotate", heir, "--key", subsidiary)
    assert town.ok(*rotation)["key"] == town.ok("key", "show", heir)["public_key"]
    assert "309 key_already_revoked" in town.ask(*rotation).err
    town.ok("account", "payee", "0x" + "77" * 20, "--key", heir)


def _audited_from_a_file(town: Town, verdict: dict[str, Any]) -> None:
    """The bundle has what the L1 said, so that it is compared without it."""
    bundle = town.folder / "town.bundle"
    town.ok("export", town.ledger, bundle)
    of_file = town.ok("audit", bundle)
    assert of_file["state_hash"] == verdict["state_hash"]
    assert of_file["l1"] == verdict["l1"]


def _forged(town: Town) -> None:
    """One byte of one commit changed: the audit says so with its own exit code."""
    with sqlite3.connect(town.ledger / "ledger.db") as log:
        ((number,),) = log.execute(
            "SELECT number FROM topic WHERE name = 'synor.ledger.market.v1'"
        ).fetchall()
        key = ((number << 12) << 40) + 5
        ((value,),) = log.execute("SELECT value FROM record WHERE key = ?", (key,)).fetchall()
        changed = value[:-1] + bytes([value[-1] ^ 1])
        log.execute("UPDATE record SET value = ? WHERE key = ?", (changed, key))
    said = town.ask("audit", town.ledger, "--json")
    assert said.code >= 10, said
    assert said.json["audit"] == "diverged"
    assert said.json["ledger"] == "market"


@pytest.mark.slow
def test_a_second_process_on_a_folder_is_refused_and_a_stopped_one_leaves_no_trace(
    town: Town,
) -> None:
    """One folder, one process; a clean stop takes away the note where it could be reached."""
    second = synor("up", "--folder", town.ledger, "--port", "0")
    assert second.code == 3
    assert "Another `synor up`" in second.err
    port = town.env["SYNOR_API"].rpartition(":")[2]
    other = synor("up", "--folder", town.folder / "other", "--port", port)
    assert (other.code, f"Port {port}" in other.err) == (3, True)
    assert (town.ledger / "up.json").exists()
    assert town.up.stop() == 0
    assert not (town.ledger / "up.json").exists()
    again = synor("audit", town.ledger, "--genesis-hash", "ab" * 32)
    assert (again.code, "another ledger" in again.err) == (2, True)
