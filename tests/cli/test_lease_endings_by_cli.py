"""Every way in which people end a lease or take an order back, by command line alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from domain.rules import NEWEST
from tests.cli.commands import Running, until
from tests.cli.town import Town

SYNOR = 1_000_000_000
H100 = ("--resource", "gpu.h100")
NOTICE = "120s"


class Street:
    """A town with a funded buyer and an admitted provider."""

    def __init__(self, folder: Path) -> None:
        self.town = Town(folder)
        self.buyer, self.provider = self.town.key("buyer"), self.town.key("provider")
        self.agents: list[Running] = []
        for who in (self.buyer, self.provider):
            self.town.ok("account", "open", "--key", who)
            self.town.ok("faucet", "1000", "--key", who)
            self.town.ok("deposit", "500", "--key", who)
        self.town.ok("provider", "register", "--key", self.provider, "--uptime", "90")
        self.town.ok("provider", "stake", "40", "--key", self.provider)

    def node(self, name: str, region: str, *, lives: bool = True) -> str:
        """Register a node with one device in a region of its own; one that lives beats on."""
        key = self.town.key(name)
        has = ("--region", region, "--has", "gpu.h100=1")
        said = self.town.ok("node", "register", "--key", self.provider, "--node-key", key, *has)
        self.town.ok("node", "attest", said["node"], "--folder", self.town.ledger)
        if lives:
            agent = Running(
                *("node", "run", "--key", key, "--auto-ready", "--lease-metrics", "none"),
                env=self.town.env,
                log=self.town.folder / f"{name}.txt",
            )
            self.agents.append(agent.wait("beat 1"))
        return str(said["node"])

    def offer(self, node: str, *more: str) -> str:
        """Offer the node's device at the list price."""
        ask = ("--ask", "4", *more)
        said = self.town.ok("offer", "place", node, "--key", self.provider, *H100, *ask)
        return str(said["offer"])

    def bid(self, region: str, limit: str = "4") -> str:
        """Bid for the device of a region."""
        wants = ("--region", region, "--limit", limit, "--term", "1h")
        return str(self.town.ok("bid", "place", "--key", self.buyer, *H100, *wants)["bid"])

    def active(self, region: str) -> str:
        """Bid, and wait until the node has said that the lease is ready."""
        which = self.bid(region)
        ask = ("lease", "ls", "--key", self.buyer, "--bid", which, "--state", "active")
        return str(until(lambda: self.town.ok(*ask)["leases"])[0]["lease"])

    def does(self, *arguments: str | Path) -> dict[str, Any]:
        """The one event of a command that is to succeed: its short type and data."""
        said = self.town.ok(*arguments)
        (event, *_) = said.get("answer", said)["events"]
        return {"type": event["type"].rpartition(".")[2], **event["data"]}

    def refused(self, why: str, *arguments: str | Path) -> None:
        """The command is refused by this name, in one message."""
        said = self.town.ask(*arguments)
        assert said.code == 1, (arguments, said)
        assert why in said.err, (arguments, said.err)

    def closed(self, lease: str) -> dict[str, Any]:
        """The lease when its final statement is posted."""
        found: dict[str, Any] = until(
            lambda: (
                (row := self.town.ok("lease", "show", lease)["lease"])["state"] == "CLOSED" and row
            ),
            within_s=60,
        )
        return found


@pytest.fixture
def street(tmp_path: Path) -> Iterator[Street]:
    """A town of which the test need not tell how it was founded."""
    made = Street(tmp_path)
    try:
        yield made
    finally:
        for agent in made.agents:
            agent.kill()
        made.town.up.kill()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_end_of_a_lease_that_somebody_asks_for_is_reached_by_cli(street: Street) -> None:
    """Rejected, completed, given up, reclaimed: each ends as it says, once, paid as ruled."""
    town, buyer, provider = street.town, street.buyer, street.provider
    for region, more in (
        ("north", ()),
        ("south", ()),
        ("east", ()),
        ("west", ("--interruptible", "--notice", NOTICE)),
    ):
        street.offer(street.node(f"node-{region}", region), *more)

    rejected = street.active("north")
    street.refused("602 lease_not_yours", "lease", "reject", rejected, "--key", provider)
    ended = street.does("lease", "reject", rejected, "--key", buyer)
    assert (ended["type"], ended["reason"]) == ("LeaseEnded", "BUYER_REJECTED")
    street.refused("603 lease_over", "lease", "reject", rejected, "--key", buyer)

    completed = street.active("south")
    node_key = town.key("node-south")
    street.refused("210 key_role_not_allowed", "lease", "complete", completed, "--key", buyer)
    # The network's first hour is some seconds; within it the node's word is refused.
    done = ("lease", "complete", completed, "--key", node_key)
    until(lambda: town.ask(*done).code == 0)
    street.refused("603 lease_over", *done)

    given_up = street.active("east")
    street.refused(
        "608 not_interruptible",
        *("lease", "reclaim", given_up, "--key", provider, "--notice", NOTICE),
    )
    ended = street.does("lease", "fail", given_up, "--key", provider)
    assert (ended["type"], ended["reason"]) == ("LeaseEnded", "PROVIDER_FAILED")

    taken_back = street.active("west")
    reclaim = ("lease", "reclaim", taken_back, "--key", provider, "--notice")
    street.refused("610 reclaim_too_soon", *reclaim, "5s")
    assert street.does(*reclaim, NOTICE)["type"] == "ReclaimAnnounced"
    street.refused("609 already_reclaimed", *reclaim, NOTICE)
    # A minute of waiting for the deadline shows nothing that the domain's tests do not: the buyer
    # leaves before it.
    ended = street.does("lease", "close", taken_back, "--key", buyer)
    assert (ended["type"], ended["reason"]) == ("LeaseEnded", "BUYER_CLOSED")

    for lease, charged in ((rejected, False), (given_up, False), (taken_back, True)):
        row = street.closed(lease)
        posted = sum(int(line["posted_nano"]) for line in row["lines"])
        assert (posted > 0) == charged, row
    assert street.closed(completed)["reason"] == "COMPLETED"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_orders_stake_nodes_and_payees_are_taken_back_by_cli(street: Street) -> None:
    """An offer withdrawn, a bid cancelled with its reservation, stake unbonded, a node retired."""
    town, buyer, provider = street.town, street.buyer, street.provider
    node = street.node("node-quiet", "quiet", lives=False)
    offer = street.offer(node)
    withdraw = ("offer", "withdraw", offer, "--key", provider)
    street.refused("543 order_not_yet_in_a_round", *withdraw)
    until(lambda: town.ask(*withdraw).code == 0)
    street.refused("542 order_not_live", *withdraw)

    free = town.purse("buyer", "FREE")
    bid = street.bid("quiet")
    assert free - town.purse("buyer", "FREE") == 4 * SYNOR
    cancel = ("bid", "cancel", bid, "--key")
    street.refused("541 order_not_yours", *cancel, provider)
    until(lambda: town.ask(*cancel, buyer).code == 0)
    assert town.purse("buyer", "FREE") == free
    street.refused("542 order_not_live", *cancel, buyer)

    street.refused("stake_is_required", "provider", "unbond", "1000", "--key", provider)
    unbonding = street.does("provider", "unbond", "5", "--key", provider)
    assert unbonding["type"] == "StakeUnbonding"
    shown = town.ok("provider", "show", "--key", provider)["provider"]
    assert int(shown["unbonding_nano"]) == 5 * SYNOR, shown

    assert street.does("node", "retire", node, "--key", provider)["type"] == "NodeRetired"
    street.refused("retired", "node", "retire", node, "--key", provider)

    payee = "0x" + "5b" * 20
    assert street.does("account", "payee", payee, "--key", provider)["type"] == "PayeeSet"
    account = town.ok("account", "show", "--key", provider)["account"]
    assert f"0x{account['opened']['payee']}" == payee
    short = town.ask("account", "payee", "0x12", "--key", provider)
    assert (short.code, "address" in short.err) == (2, True)


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_the_operator_changes_parameters_prices_and_rules_by_cli(tmp_path: Path) -> None:
    """Each by the operator's key alone; what the ledger or this program cannot do is said."""
    town = Town(tmp_path)
    try:
        operator = ("--folder", town.ledger)
        anybody = town.key("anybody")
        town.ok("account", "open", "--key", anybody)

        changed = town.ok("network", "change", "ready_within", "10m", *operator)["answer"]
        assert changed["events"][0]["data"] == {
            "at_us": changed["at_us"],
            "name": "ready_within_us",
            "value": 600_000_000,
        }
        refused = town.ask("network", "change", "epoch_us", "0", *operator)
        assert (refused.code, "315 parameter_out_of_bounds" in refused.err) == (1, True)
        assert town.ask("network", "change", "nothing", "1", *operator).code == 2

        price = ("network", "price", "gpu.l40s", "1.25")
        refused = town.ask(*price, "--key", anybody)
        assert (refused.code, "210 key_role_not_allowed" in refused.err) == (1, True)
        (added,) = town.ok(*price, *operator)["answer"]["events"]
        assert added["data"]["price_nano"] == 1_250_000_000
        assert "324 priced_already" in town.ask(*price, *operator).err

        known = town.ask("network", "activate-rules", str(NEWEST), *operator)
        assert (known.code, "317 rules_not_next" in known.err) == (1, True)
        ahead = town.ask("network", "activate-rules", str(NEWEST + 1), *operator)
        assert (ahead.code, "Install a release that has it" in ahead.err) == (2, True)
    finally:
        town.up.kill()
