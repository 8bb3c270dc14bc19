"""The same processors as processes of their own on a real broker: a lease from offer to refund."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters import key_files, settings
from adapters.cli_client import Api, speaker_of
from adapters.ed25519 import Signer
from domain.account import ObserveDeposit
from domain.ids import AccountId, Hash32, Wide, account_of
from tests.cli.commands import Running, Said, stopped_at_the_end, synor, until
from tests.support.kafka_broker import started_broker

TINY = Path(__file__).with_name("tiny.toml")
SYNOR = 1_000_000_000

pytestmark = [pytest.mark.service, pytest.mark.slow, pytest.mark.timeout(300)]


class Deployment:
    """A network on a broker, its roles, and people who speak to it."""

    def __init__(self, folder: Path, brokers: str) -> None:
        self.folder = folder
        self.brokers = brokers
        self.network = folder / "network"
        self.env = {"SYNOR_NETWORK": str(self.network)}
        self.running: dict[str, Running] = {}
        self.started = 0

    def ask(self, *arguments: str | Path) -> Said:
        """Run a command."""
        return synor(*arguments, env=self.env)

    def ok(self, *arguments: str | Path) -> Any:
        """Run a command that is to succeed; its JSON."""
        said = self.ask(*arguments, "--json")
        assert said.code == 0, (arguments, said.out, said.err)
        return said.json

    def start(self, name: str, *arguments: str | Path) -> Running:
        """Start a role as a process."""
        self.started += 1
        log = self.folder / f"{name}-{self.started}.txt"
        self.running[name] = Running(*arguments, env=self.env, log=log)
        return self.running[name]

    def key(self, name: str) -> Path:
        """A person's identity file."""
        path = self.folder / f"{name}.pem"
        if not path.exists():
            assert self.ask("key", "new", path, "--no-passphrase").code == 0
        return path

    def deposit(self, name: str, nano: int, block: int) -> None:
        """A deposit as the watcher of a network without an L1 signs it."""
        identity, _ = key_files.read(self.network / "keys" / "watcher.pem", lambda: None)
        account = AccountId(account_of(key_files.show(self.key(name)).public))
        speaker_of(Api(self.env["SYNOR_API"]), Signer(identity.ledger)).command(
            ObserveDeposit(
                account=account,
                amount_nano=Wide(nano),
                block=block,
                block_hash=Hash32(bytes(32)),
                transaction=Hash32(block.to_bytes(32, "big")),
                log_index=0,
            )
        )


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

    roles = {
        town.start("market", "work", "market"): "market 0 works",
        town.start("metering", "work", "metering", "--shards", "0,1"): "metering 1 works",
        town.start("settlement", "work", "settlement"): "settlement 0 works",
        town.start("clock", "clock"): "The clock ticks",
        town.start("serve", "serve"): "API and pages at ",
    }
    for role, ready in roles.items():
        role.wait(ready)
    url = town.running["serve"].text().partition("API and pages at ")[2].split()[0]
    town.env["SYNOR_API"] = url

    buyer, provider, node_key = town.key("buyer"), town.key("provider"), town.key("node")
    for number, who in enumerate(("buyer", "provider"), 1):
        town.ok("account", "open", "--key", town.key(who))
        town.deposit(who, 50 * SYNOR, number)
    town.ok("provider", "register", "--key", provider, "--uptime", "90")
    town.ok("provider", "stake", "10", "--key", provider)
    place = ("--region", "eu", "--has", "gpu.h100=1")
    node = town.ok(*("node", "register", "--key", provider, "--node-key", node_key, *place))["node"]
    town.ok("node", "attest", node, "--key", town.network / "keys" / "attestor.pem")
    town.start(
        *("agent", "node", "run", "--key", node_key, "--interface", "lo", "--auto-ready"),
        *("--kafka", town.brokers),
    ).wait("beat 1")
    resource = ("--resource", "gpu.h100")
    town.ok("offer", "place", node, "--key", provider, *resource, "--ask", "3.5")
    wants = ("--region", "eu", "--limit", "4", "--term", "1h", "--usage-budget", "1")
    town.ok(
        *("bid", "place", "--key", buyer, *resource, *wants),
        *("--meter", "network.egress=10MB/s"),
    )
    lease = until(lambda: town.ok("lease", "ls", "--key", buyer, "--state", "active")["leases"])[0][
        "lease"
    ]
    until(lambda: town.ok("lease", "show", lease)["lease"]["lines"])

    town.running["market"].kill()
    town.start("market", "work", "market").wait("market 0 works")

    town.ok("lease", "close", lease, "--key", buyer)

    def closed() -> Any:
        found = town.ok("lease", "show", lease)["lease"]
        return found if found["state"] == "CLOSED" else None

    found = until(closed, within_s=60)
    charged = sum(int(line["posted_nano"]) for line in found["lines"])
    assert charged == int(found["provider_nano"]) + int(found["protocol_nano"]) > 0
    assert int(found["refund_nano"]) == (
        found["escrow_allocated_nano"] + found["escrow_usage_nano"] - charged
    )
    until(lambda: town.ok("epoch", "ls")["epochs"][0]["number"] >= 1)
    until(lambda: town.ok("epoch", "show", "1")["epoch"]["checkpoint"])

    for name in ("agent", "clock", "market", "metering", "settlement", "serve"):
        assert town.running[name].stop() == 0, town.running[name].text()
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
