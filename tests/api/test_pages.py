"""Pages: readable with and without data, exact, escaped, and nothing from elsewhere."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
import uvicorn

from adapters.api import create_app
from adapters.api_pages import duration, milli, moment, percent, synor
from adapters.kafka_broker import free_ports
from domain.provider import provider_of
from tests.api.conftest import Scene
from tests.projections.story_cast import PRICE_NANO
from tests.support.chromium import page_source, screenshot

LISTS = ("/", "/book", "/leases", "/providers", "/accounts", "/epochs")


def _pages(scene: Scene) -> list[str]:
    """Every page, with things that there are."""

    def first(path: str, name: str) -> str:
        found: str = scene.client.get(f"/v1/{path}").json()["items"][0][name]
        return found

    return [
        *LISTS,
        f"/book?instrument={first('instruments', 'instrument')}",
        "/leases?state=CLOSED",
        f"/leases/{first('leases?order=asc', 'lease')}",
        f"/providers/{first('providers', 'provider')}",
        f"/accounts/{first('accounts', 'account')}",
        f"/accounts/{'00' * 16}",
        "/epochs/1",
    ]


class _Marks(HTMLParser):
    """Looks for what a page must have and must not."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.foreign: list[str] = []
        self.headings: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.scripts += tag == "script" or any(name.startswith("on") for name in given)
        if "style" in given:
            self.foreign.append("style")
        for name in ("href", "src", "action"):
            if not (given.get(name) or "/").startswith(("/", "#")):
                self.foreign.append(str(given[name]))
        if tag in ("h1", "h2", "h3"):
            self.headings.append(tag)
        if tag not in ("meta", "link", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def _check(text: str) -> None:
    marks = _Marks()
    marks.feed(text)
    assert marks.open == []
    assert marks.foreign == []
    assert marks.scripts == 0
    assert marks.headings.count("h1") == 1


def test_every_page_shows_a_market_in_full_swing(scene: Scene) -> None:
    """Well formed, without scripts, under a policy that would stop them."""
    scene.story.cut()
    scene.follow()
    for path in _pages(scene):
        answer = scene.client.get(path)
        assert answer.status_code == 200, path
        assert "script" not in answer.headers["content-security-policy"]
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        _check(answer.text)
        assert "None" not in answer.text, path


def test_every_page_says_so_where_there_is_nothing(empty: Scene) -> None:
    """An empty table is a sentence."""
    for path in LISTS:
        answer = empty.client.get(path)
        assert answer.status_code == 200
        _check(answer.text)
        assert 'class="nothing"' in answer.text
        assert "<table>" not in answer.text or path == "/"


def test_a_problem_is_a_page_for_people(scene: Scene) -> None:
    """With the number and what to do."""
    for path, status in (("/leases/00", 404), ("/leases/zz", 400), ("/none", 404)):
        answer = scene.client.get(path)
        assert answer.status_code == status
        assert answer.headers["content-type"].startswith("text/html")
        _check(answer.text)


def test_what_people_wrote_is_escaped(scene: Scene) -> None:
    """A provider's location is free text."""
    text = scene.client.get("/providers").text
    assert "Reykjavík &lt;hall 2&gt;" in text
    assert "<hall" not in text


def test_an_id_leads_to_its_page(scene: Scene) -> None:
    """Whatever it names; and what nothing is called is said."""
    account = scene.story.accounts[0]
    for name, page in ((account, "accounts"), (provider_of(account), "providers")):
        answer = scene.client.get(f"/find?id=0x{name.hex()}", follow_redirects=False)
        assert answer.headers["location"] == f"/{page}/{name.hex()}"
    assert scene.client.get("/find?id=abcd").status_code == 404


def test_the_next_page_goes_on_where_this_one_ends(scene: Scene) -> None:
    """With the same filters."""
    seen: list[str] = []
    path = "/leases?limit=3"
    for _ in range(100):
        text = scene.client.get(path).text
        seen += re.findall(r'class="id" href="/leases/([0-9a-f]+)"', text)
        following = re.search(r'class="more" href="([^"]+)"', text)
        if following is None:
            break
        path = following.group(1).replace("&amp;", "&")
    assert len(seen) == len(set(seen))
    everything = scene.client.get("/v1/leases?limit=200").json()["items"]
    assert seen == [each["lease"] for each in everything]


def test_every_list_can_be_paged_to_its_end(scene: Scene) -> None:
    """Also the journal of a lease, and a list with a filter: each link leads to another page."""
    lease = scene.client.get("/v1/leases?order=asc").json()["items"][0]["lease"]
    account = scene.story.accounts[0].hex()
    for path in (
        f"/leases/{lease}?limit=2",
        f"/accounts/{account}?limit=9",
        f"/accounts?limit=1&owner={account}",
        "/providers?limit=1&admitted=true",
        "/epochs?limit=1",
        "/epochs/1?limit=1",
    ):
        pages: list[str] = []
        while True:
            answer = scene.client.get(path)
            assert answer.status_code == 200, (path, answer.text)
            pages.append(answer.text)
            following = re.search(r'class="more" href="([^"]+)"', answer.text)
            if following is None:
                break
            path = following.group(1).replace("&amp;", "&")
        assert len(set(pages)) == len(pages), path
        assert len(pages) > 1 or path.startswith(("/accounts?", "/providers", "/epochs")), path


def test_amounts_and_times_are_exact() -> None:
    """To the last nano and the last microsecond."""
    assert synor(0) == "0.000000000"
    assert synor(1_234_567_000_000_001) == "1,234,567.000000001"
    assert synor(-1) == "−0.000000001"
    assert milli(1500) == "1.5"
    assert milli(8000) == "8"
    assert percent(999_001) == "99.9001 %"
    assert moment(1_700_000_000_000_001) == "2023-11-14 22:13:20.000001"
    assert moment(2**62) == f"{2**62} µs"
    assert duration(0) == "0 s"
    assert duration(90_061_000_000) == "1 d 1 h"
    assert duration(1_500_000) == "1.5 s"


@pytest.fixture
def served(scene: Scene) -> Iterator[str]:
    """The API on a port of loopback."""
    scene.story.cut()
    scene.follow()
    (port,) = free_ports(1)
    config = uvicorn.Config(create_app(scene.service), port=port, log_level="warning")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    deadline = time.monotonic() + 10
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


@pytest.mark.service
@pytest.mark.slow
def test_a_real_browser_shows_each_page(scene: Scene, served: str, tmp_path: Path) -> None:
    """Its text stands in the page as the browser has it, and its style is loaded."""
    for number, path in enumerate(_pages(scene)):
        text = page_source(f"{served}{path}")
        heading = re.search(r"<h1>([^<]+)</h1>", text)
        assert heading is not None, path
        assert "As of market commit" in text
        if number == 0:
            picture = tmp_path / "overview.png"
            screenshot(f"{served}{path}", picture)
            assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_broken_reservation_is_told_on_the_page_of_its_lease(shared: Scene) -> None:
    """How long the node is bound, and what the buyer was due and got; of other leases nothing."""
    leases = shared.client.get("/v1/leases?limit=200").json()["items"]
    told = {
        lease["lease"]: "Broken reservation" in shared.client.get(f"/leases/{lease['lease']}").text
        for lease in leases
    }
    broken = {each["lease"]: each["broken_until_us"] is not None for each in leases}
    assert told == broken
    assert len({*broken.values()}) == 2
    for each in leases:
        due = PRICE_NANO if broken[each["lease"]] else 0
        assert (int(each["broken_due_nano"]), int(each["broken_taken_nano"])) == (due, 0)
