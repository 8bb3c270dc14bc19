"""``synor serve`` on PostgreSQL by command line, and ``synor projections`` beside it."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from tests.api.test_metrics import of, read
from tests.cli.commands import Asker, Running, stopped_at_the_end, synor, until
from tests.cli.test_roles_on_l1 import settings_on_one_file

TINY = Path(__file__).with_name("tiny.toml")

pytestmark = [pytest.mark.service, pytest.mark.slow, pytest.mark.timeout(240)]


class Town(Asker):
    """A network whose roles are processes on one log file, with rows in PostgreSQL."""

    def __init__(self, folder: Path, rows: str) -> None:
        self.folder = folder
        self.network = folder / "network"
        self.env = {"SYNOR_NETWORK": str(self.network)}
        self.running: dict[str, Running] = {}
        where = ("--kafka", "127.0.0.1:1", "--genesis", TINY, "--port", "0", "--read-model", rows)
        assert synor("network", "new", self.network, *where).code == 0
        settings_on_one_file(self.network)
        self.ok("topics", "create")

    def start(self, name: str, *arguments: str | Path, ready: str) -> Running:
        """Start a role as a process, and wait until it says that it works."""
        log = self.folder / f"{name}-{len(self.running)}.txt"
        self.running[name] = Running(*arguments, env=self.env, log=log)
        return self.running[name].wait(ready)

    def serve(self) -> str:
        """Serve; the API's URL."""
        text = self.start("serve", "serve", ready="API and pages at ").text()
        self.env["SYNOR_API"] = text.partition("API and pages at ")[2].split()[0]
        return self.env["SYNOR_API"]

    def status(self) -> Any:
        """What the API says of itself."""
        with urllib.request.urlopen(f"{self.env['SYNOR_API']}/v1/status") as answer:
            return json.loads(answer.read())


@pytest.fixture
def rows(postgres_url: str) -> str:
    """An empty database, as the settings name it."""
    return postgres_url.replace("postgresql://", "postgresql+psycopg://", 1)


@pytest.fixture
def town(tmp_path: Path, rows: str) -> Iterator[Town]:
    """A network with nothing running yet."""
    made = Town(tmp_path, rows)
    try:
        yield made
    finally:
        with stopped_at_the_end(list(made.running.values())):
            pass


def test_serve_follows_into_postgresql_and_is_rebuilt_and_mended_while_it_serves(
    town: Town, rows: str
) -> None:
    """Rows in a schema of their own; figures on both ports; a rebuild under the running API."""
    metrics = ("--metrics-port", "0")
    market = town.start("market", "work", "market", *metrics, ready="market 0 works")
    town.start("clock", "clock", ready="The clock ticks")
    api = town.serve()
    key = town.folder / "alice.pem"
    assert town.ask("key", "new", key, "--no-passphrase").code == 0
    town.ok("account", "open", "--key", key)

    status = town.ok("projections", "status")
    assert status["generation"] == 1
    assert status["held_events"] == 0
    assert {each["ledger"] for each in status["ledgers"]} == {"market", "metering", "settlement"}
    assert all(each["lag_events"] is not None for each in status["ledgers"])
    with urllib.request.urlopen(f"{api}/metrics") as answer:
        served = read(answer.read())
    place = {"ledger": "market", "shard": "0"}
    assert of(served, "synor_projection_lag_records", **place) >= 0
    assert of(served, "synor_projection_held_events") == 0
    port = market.text().partition("http://127.0.0.1:")[2].partition("/")[0]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        worked = read(answer.read())
    assert of(worked, "synor_commits_total", **place) > 1
    assert of(worked, "synor_recovery_seconds_count", **place) >= 1

    rebuilt = town.ok("projections", "rebuild")
    assert rebuilt["generation"] == 2
    assert rebuilt["records"] > 1
    before = town.status()["position"]["market"]
    bob = town.folder / "bob.pem"
    assert town.ask("key", "new", bob, "--no-passphrase").code == 0
    town.ok("account", "open", "--key", bob)
    until(lambda: town.status()["position"]["market"] > before)
    engine = create_engine(rows)
    with engine.connect() as connection:
        found = connection.execute(text("SELECT count(*) FROM synor_g2.account")).scalar_one()
        states = connection.execute(text("SELECT state FROM generation ORDER BY number"))
        assert [row.state for row in states] == ["leaving", "serving"]
    assert found == 2

    # As an older program would have left it: the next start makes it anew and says so.
    assert town.running["serve"].stop() == 0, town.running["serve"].text()
    with engine.begin() as connection:
        connection.execute(text("UPDATE generation SET version = 0 WHERE number = 2"))
    engine.dispose()
    town.serve()
    town.running["serve"].wait("The read models are rebuilt and serve.")
    assert town.ok("projections", "status")["generation"] == 3
    assert len(town.ok("account", "show", "--key", bob)["account"]["keys"]) == 1
    retried = town.ok("projections", "retry")
    assert (retried["released_events"], retried["money_stopped"]) == (0, [])

    assert town.ask("projections", "drop").code == 2
    for name in ("serve", "clock", "market"):
        assert town.running[name].stop() == 0, town.running[name].text()
    town.ok("projections", "drop", "--yes")
    gone = town.ask("projections", "status")
    assert (gone.code, "no read models" in gone.err) == (3, True)
