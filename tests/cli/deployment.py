"""A network of many processes on a broker, and the people who speak to it."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from adapters import key_files
from adapters.cli_client import Api, speaker_of
from adapters.ed25519 import Signer
from domain.account import ObserveDeposit
from domain.ids import AccountId, Hash32, Wide, account_of
from tests.cli.commands import Asker, Running, stopped_at_the_end, synor, until
from tests.support.kafka_broker import started_broker

TINY = Path(__file__).with_name("tiny.toml")
SYNOR = 1_000_000_000
#: What a network of many processes runs, and what each says when it is ready.
ROLES = (
    ("market", ("work", "market"), "market 0 works"),
    ("metering", ("work", "metering", "--shards", "0,1"), "metering 1 works"),
    ("settlement", ("work", "settlement"), "settlement 0 works"),
    ("clock", ("clock",), "The clock ticks"),
    ("serve", ("serve",), "API and pages at "),
)


class Deployment(Asker):
    """A network on a broker, its roles, and people who speak to it."""

    def __init__(self, folder: Path, brokers: str) -> None:
        self.folder = folder
        self.brokers = brokers
        self.network = folder / "network"
        self.env = {"SYNOR_NETWORK": str(self.network)}
        self.running: dict[str, Running] = {}
        self.started = 0

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

    def start_roles(self, *more: tuple[str, tuple[str, ...], str]) -> None:
        """Start every role with its figures, and commands then go to the API among them."""
        ready = {
            self.start(name, *command, "--metrics-port", "0"): says
            for name, command, says in (*ROLES, *more)
        }
        for role, says in ready.items():
            role.wait(says)
        said = self.running["serve"].text()
        self.env["SYNOR_API"] = said.partition("API and pages at ")[2].split()[0]

    def figures(self, name: str) -> str:
        """What a role answers a monitor."""
        url = self.running[name].text().partition("Figures for Prometheus at ")[2].split()[0]
        with urllib.request.urlopen(url) as answer:
            found: str = answer.read().decode()
        return found

    def lease(self, *wants: str) -> str:
        """An active lease of a node whose agent reports to the brokers; it has been charged."""
        buyer, provider, node_key = self.key("buyer"), self.key("provider"), self.key("node")
        for number, who in enumerate(("buyer", "provider"), 1):
            self.ok("account", "open", "--key", self.key(who))
            self.deposit(who, 50 * SYNOR, number)
        self.ok("provider", "register", "--key", provider, "--uptime", "90")
        self.ok("provider", "stake", "10", "--key", provider)
        place = ("--region", "eu", "--has", "gpu.h100=1")
        node = self.ok(*("node", "register", "--key", provider, "--node-key", node_key, *place))[
            "node"
        ]
        self.ok("node", "attest", node, "--key", self.network / "keys" / "attestor.pem")
        self.start(
            *("agent", "node", "run", "--key", node_key, "--interface", "lo", "--auto-ready"),
            *("--kafka", self.brokers),
        ).wait("beat 1")
        resource = ("--resource", "gpu.h100")
        self.ok("offer", "place", node, "--key", provider, *resource, "--ask", "3.5")
        terms = ("--region", "eu", "--limit", "4", "--term", "1h", "--usage-budget", "1")
        self.ok("bid", "place", "--key", buyer, *resource, *terms, *wants)
        active = ("lease", "ls", "--key", buyer, "--state", "active")
        lease: str = until(lambda: self.ok(*active)["leases"])[0]["lease"]
        until(lambda: self.ok("lease", "show", lease)["lease"]["lines"])
        return lease

    def closed(self, lease: str) -> Any:
        """The lease as it stands when its buyer has ended it and all is paid."""
        self.ok("lease", "close", lease, "--key", self.key("buyer"))

        def found() -> Any:
            shown = self.ok("lease", "show", lease)["lease"]
            return shown if shown["state"] == "CLOSED" else None

        return until(found, within_s=60)

    def stop_roles(self, *more: str) -> None:
        """Stop agent and roles in order, each with exit 0."""
        for name in ("agent", *(name for name, _, _ in ROLES if name != "serve"), "serve", *more):
            assert self.running[name].stop() == 0, self.running[name].text()


@contextmanager
def deployed(folder: Path) -> Iterator[Deployment]:
    """A network on a broker of its own, with the names of production and no topics yet."""
    broker = started_broker(folder / "kafka")
    made = Deployment(folder, broker.bootstrap)
    try:
        where = ("--kafka", broker.bootstrap, "--genesis", TINY, "--port", "0")
        assert synor("network", "new", made.network, *where).code == 0
        yield made
    finally:
        with stopped_at_the_end(list(made.running.values())):
            pass
        broker.stop()
