"""What the API and its pages say when an event cannot be taken, or tables are made anew."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.read_model import ReadModel
from adapters.read_model_retry import Retry
from tests.api.conftest import Scene, scene_of
from tests.projections.ledgers import HandNetwork, codec
from tests.projections.poison import endless_volume, orphan_statement, stranger_falls
from tests.projections.story import tell_story

#: Everything below /v1 that shows a sum of money, with what stands for an id.
MONEY = (
    "leases",
    "leases/{lease}",
    "accounts/{account}",
    "accounts/{account}/journal",
    "accounts/{account}/balances",
    "balances",
    "journal",
    "claims",
    "providers",
    "providers/{provider}",
    "windows",
    "slashes",
    "pots",
    "evidence",
    "epochs",
    "epochs/1",
    "epochs/latest",
    "epochs/1/payables",
    "payables",
    "epochs/latest/proof/{account}",
)
OTHERS = (
    "status",
    "instruments",
    "orders",
    "offers",
    "bids",
    "rounds",
    "trades",
    "accounts",
    "keys",
    "nodes",
    "parameters",
    "catalogue",
    "history",
    "genesis",
    "shares",
    "contradictions",
)


@pytest.fixture
def market(tmp_path: Path) -> Iterator[Scene]:
    """A market of its own that poison may be told to."""
    read_model = ReadModel(f"sqlite:///{tmp_path / 'read_model.db'}")
    network = HandNetwork()
    yield scene_of(network, tell_story(network, 61, 250), read_model)
    read_model.close()


def test_sums_are_not_shown_while_they_stand_still_and_everything_else_is(market: Scene) -> None:
    """A problem says from which event on, why, and what to do; the rest goes on."""
    client = market.client
    lease = client.get("/v1/leases?limit=1").json()["items"][0]
    ids = {name: lease[name] for name in ("lease", "account", "provider")}
    paths = [path.format(**ids) for path in MONEY]
    assert all(client.get(f"/v1/{path}").status_code == 200 for path in paths[:-1])
    orphan = orphan_statement(market.story)
    market.follow()
    position = market.network.market.tree.size
    for path in paths:
        answer = client.get(f"/v1/{path}")
        assert answer.status_code == 503, path
        problem = answer.json()
        assert (problem["code"], problem["name"]) == (915, "money_stopped")
        assert problem["stopped"]["position"] == position
        assert problem["stopped"]["aggregate"] == orphan.hex()
        assert problem["stopped"]["why"] == f"there is no lease {orphan.hex()}"
        assert "synor projections" in problem["remedy"]
    for path in OTHERS:
        assert client.get(f"/v1/{path}").status_code == 200, path
    status = client.get("/v1/status").json()
    assert [each["reason"] for each in status["money_stopped"]] == ["missing_row"]
    for page in ("/leases", "/providers", "/epochs", f"/accounts/{ids['account']}"):
        shown = client.get(page)
        assert shown.status_code == 503
        assert "915 money stopped" in shown.text
    overview = client.get("/")
    assert overview.status_code == 200
    assert "Views of money stand still" in overview.text
    assert "Latest leases" not in overview.text


def test_what_is_held_is_listed_with_its_reason_and_hides_nothing_else(market: Scene) -> None:
    """By id, with the first event, how many wait, and why."""
    stranger = stranger_falls(market.story)
    stranger_falls(market.story, stranger)
    instrument = endless_volume(market.story)
    market.follow()
    status = market.client.get("/v1/status").json()
    assert (status["held_keys"], status["held_events"]) == (2, 3)
    assert {(each["aggregate"], each["reason"], each["events"]) for each in status["held"]} == {
        (stranger.hex(), "missing_row", 2),
        (instrument.hex(), "out_of_range", 1),
    }
    assert status["money_stopped"] == []
    for path in (*OTHERS, "leases", "epochs", "balances"):
        assert market.client.get(f"/v1/{path}").status_code == 200
    shown = market.client.get("/").text
    assert "Held events" in shown
    assert "2 ids. Everything else goes on." in " ".join(shown.split())
    assert Retry(market.read_model, codec()).run().released_events == 0


def test_tables_in_the_making_answer_with_progress_and_time_left(
    market: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of another program's tables nothing can be read; of a rebuild beside them everything."""
    entry, filled = market.read_model.begin(market.network.hash, 1_000)
    market.read_model.tell(entry, done=30, total=120, now_us=11_000)
    rebuild = market.client.get("/v1/status").json()["rebuild"]
    assert (rebuild["done_records"], rebuild["total_records"]) == (30, 120)
    assert rebuild["eta_us"] == 30_000
    assert "30 of 120 records" in " ".join(market.client.get("/").text.split())
    assert market.client.get("/v1/leases").status_code == 200
    monkeypatch.setattr(market.read_model, "_tables", "of another program")
    for path in ("leases", "status", "nodes"):
        answer = market.client.get(f"/v1/{path}")
        assert (answer.status_code, answer.json()["code"]) == (503, 916)
        assert answer.json()["rebuild"]["eta_us"] == 30_000
        assert answer.headers["Retry-After"] == "5"
    page = market.client.get("/leases")
    assert page.status_code == 503
    assert "30 of 120 records" in page.text
    filled.close()
