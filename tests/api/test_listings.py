"""Lists: filters are an AND, pages neither skip nor repeat, and what is asked wrongly is named."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest

from adapters.api_listings import LISTINGS
from tests.api.conftest import Scene

#: Filters by whether a column holds something.
PRESENT = {
    "cleared": "cleared_us",
    "admitted": "admitted_us",
    "retired": "retired_us",
    "divided": "divided_us",
    "anchored": "anchored_us",
}


def _all(scene: Scene, path: str, **parameters: str) -> list[dict[str, Any]]:
    """Every item of a list, page by page."""
    items: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        answer = scene.client.get(f"/v1/{path}", params={"limit": "200", **parameters, **cursor})
        assert answer.status_code == 200, answer.text
        items += answer.json()["items"]
        if answer.json()["next"] is None:
            return items
        cursor = {"cursor": answer.json()["next"]}


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _matches(item: dict[str, Any], name: str, text: str) -> bool:
    if name in PRESENT:
        return (item[PRESENT[name]] is not None) == (text == "true")
    return item[name] is not None and _text(item[name]) == text


@pytest.mark.parametrize("name", sorted(LISTINGS))
def test_filters_combined_give_what_looking_at_every_row_gives(shared: Scene, name: str) -> None:
    """Any filters together, with values that occur and a value that another row has."""
    items = _all(shared, name)
    dice = random.Random(name)
    filters = sorted(LISTINGS[name].filters)
    for count in (1, 2, 3):
        for chosen in itertools.islice(itertools.combinations(filters, count), 12):
            if not items:
                continue
            given = {}
            for each in chosen:
                row = dice.choice(items)
                value = row[PRESENT.get(each, each)]
                given[each] = _text(value is not None) if each in PRESENT else _text(value)
            if "None" in given.values():
                continue
            expected = [
                item for item in items if all(_matches(item, *pair) for pair in given.items())
            ]
            assert _all(shared, name, **given) == expected, given


@pytest.mark.parametrize("name", sorted(LISTINGS))
def test_small_pages_join_to_the_whole_in_either_order(shared: Scene, name: str) -> None:
    """No item twice, none left out, and one order is the other backwards."""
    whole = _all(shared, name, order="asc")
    assert _all(shared, name, order="asc", limit="7") == whole
    assert _all(shared, name, order="desc", limit="200") == whole[::-1]


def test_the_story_fills_every_list(shared: Scene) -> None:
    """Else the two tests above would say nothing of some."""
    empty = {name for name in LISTINGS if not _all(shared, name)}
    assert empty <= {"contradictions"}


def test_pages_neither_skip_nor_repeat_while_rows_are_added(scene: Scene) -> None:
    """What was there when the first page was read comes exactly once."""
    before = [item["lease"] for item in _all(scene, "leases")]
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        answer = scene.client.get("/v1/leases", params={"limit": "3", **cursor}).json()
        seen += [item["lease"] for item in answer["items"]]
        if answer["next"] is None:
            break
        cursor = {"cursor": answer["next"]}
        for _ in range(2):
            scene.story.offer()
            scene.story.bid()
            scene.story.clear()
            scene.story.end()
        scene.follow()
    assert len(seen) == len(set(seen))
    assert seen == before


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("leases?limit=0", 902),
        ("leases?limit=201", 902),
        ("leases?limit=1e3", 902),
        ("leases?order=up", 902),
        ("leases?state=OPEN", 902),
        ("offers?state=FILLED", 902),
        ("slashes?fault=rain", 902),
        ("history?shard=1", 902),
        ("history?ledger=metering&shard=9999", 902),
        ("leases?colour=red", 902),
        ("leases?node=xyz", 902),
        ("leases?state=ACTIVE&state=CLOSED", 902),
        ("rounds?number=99999999999999999999", 902),
        ("instruments?open=yes", 902),
        ("history?ledger=moon", 902),
        ("history?type=os.system", 902),
        ("leases?cursor=AAAA", 903),
        ("leases?cursor=%00", 903),
        ("leases?cursor=W10", 903),
        ("book", 902),
        ("book?instrument=00&level=4", 902),
        ("book?instrument=00", 901),
        ("leases/00", 901),
        ("leases/zz", 902),
        ("status?x=1", 902),
        ("status?wait=moon:1", 902),
        ("status?wait=metering.9:1", 902),
        ("status?wait=market:1&wait_s=-1", 902),
        ("nothing", 901),
    ],
)
def test_what_is_asked_wrongly_is_a_numbered_problem(shared: Scene, query: str, code: int) -> None:
    """With what is wrong and what to do."""
    answer = shared.client.get(f"/v1/{query}")
    assert answer.status_code in (400, 404)
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["code"] == code
    assert problem["name"]
    assert problem["remedy"]


def test_a_cursor_serves_only_the_list_and_filters_that_it_came_from(shared: Scene) -> None:
    """Else a page would begin in the middle of nowhere."""
    cursor = shared.client.get("/v1/leases?limit=1").json()["next"]
    for query in ("leases?state=CLOSED", "leases?order=asc", "nodes?"):
        answer = shared.client.get(f"/v1/{query}&cursor={cursor}")
        assert answer.json()["code"] == 903


def test_every_list_names_its_parameters_in_the_api_document(shared: Scene) -> None:
    """Programs can be written from the document."""
    paths = shared.client.get("/v1/openapi.json").json()["paths"]
    for name, listing in LISTINGS.items():
        shown = {each["name"] for each in paths[f"/v1/{name}"]["get"]["parameters"]}
        assert shown >= {"limit", "order", "cursor", "wait", *listing.filters}
