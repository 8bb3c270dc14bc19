"""Whatever is asked of the API is answered: by a problem with a number, never a broken server."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
from starlette.requests import Request
from starlette.testclient import TestClient

from adapters import api_submit
from adapters.api import create_app
from adapters.api_problems import BODY_TOO_LARGE, BODY_TOO_SLOW, Problem
from adapters.up_web import L1Beside
from tests.api.conftest import BASE, Scene

LONG = os.environ.get("SYNOR_LONG") == "1"
ASKED = 20_000 if LONG else 250
PIECES = (
    *("status", "book", "leases", "trades", "bids", "offers", "accounts", "providers", "nodes"),
    *("epochs", "latest", "proof", "journal", "balances", "payables", "history", "answers"),
    *("instruments", "rounds", "slashes", "find", "registry", "subjects", "schemas", "ids"),
    *("versions", "compatibility", "metrics", "style.css", "openapi.json", "genesis", "shares"),
)
NAMES = (
    *("limit", "order", "cursor", "wait", "wait_s", "ledger", "shard", "type", "level", "id"),
    *("instrument", "resource", "region", "state", "account", "provider", "node", "lease", "bid"),
    *("offer", "owner", "purse", "number", "epoch", "aggregate", "position", "cleared", "key"),
    *("after", "before", "min", "max", "at_us", "reason", "kind", "name", "role", "round"),
)
VALUES = (
    *("", "0", "-1", "1", "9223372036854775807", "9223372036854775808", "9" * 400, "1e9", "nan"),
    *("%00", "a%00b", "%FF%FE", "%ED%A0%80", "%D9%A3", "%E2%80%AE", "'", "%22%3E%3Cscript%3E"),
    *("true", "TRUE", "null", "zz", "00", "00" * 16, "ff" * 32, "0x" + "00" * 16, "00" * 2000),
    *("..", "%2e%2e", "%2F", "market:0", "market:-1", "market:99999999999999999999", "market:1,"),
    *("metering.9:1", "metering.0:0," * 300 + "market:0", "inf", ".", "asc", "eu", "gpu.h100"),
    *("a" * 101, "synor.lease.v1.LeaseClosed", "{", "=", "+", "%"),
)


def requests(seed: int, count: int) -> Iterator[str]:
    """Paths and queries out of the pieces that the API itself is made of, and of nasty ones."""
    draw = random.Random(seed)
    for _ in range(count):
        start = draw.choice(("/v1/", "/v1/", "/", "/registry/"))
        parts = [draw.choice((*PIECES, *VALUES)) for _ in range(draw.choice((0, 0, 1, 2, 3)))]
        query = [
            f"{draw.choice(NAMES)}={draw.choice(VALUES)}" for _ in range(draw.choice((0, 1, 1, 2)))
        ]
        path = start + "/".join([draw.choice(PIECES), *parts])
        yield "?".join([path, "&".join([*query, "wait_s=0"])])


def test_no_request_breaks_the_server(shared: Scene) -> None:
    """On each database: a status below 500, or one of our own with its number."""
    wrong = []
    seen: dict[int, int] = {}
    with TestClient(create_app(shared.service), BASE, raise_server_exceptions=False) as client:
        for asked in requests(1, ASKED):
            answer = client.get(asked, follow_redirects=False)
            seen[answer.status_code] = seen.get(answer.status_code, 0) + 1
            if answer.status_code >= 500 and '"code"' not in answer.text:
                wrong.append((asked[:200], answer.text[:200]))
            # JSON may repeat it: its type is said, and browsers are told not to guess another one.
            is_page = answer.headers.get("content-type", "").startswith("text/html")
            if is_page and b"<script" in answer.content.lower():
                wrong.append((asked[:200], "a script"))
    assert wrong == []
    assert seen.keys() >= {200, 400, 404}, seen


def _post(*headers: tuple[bytes, bytes]) -> Request:
    """A request whose body begins and then does not go on."""
    sent = False

    async def receive() -> MutableMapping[str, Any]:
        nonlocal sent
        if sent:
            await asyncio.sleep(60)
        sent = True
        return {"type": "http.request", "body": b"x", "more_body": True}

    kind = (b"content-type", b"application/octet-stream")
    scope = {"type": "http", "method": "POST", "path": "/", "headers": [kind, *headers]}
    return Request(scope, receive)


def test_a_body_that_does_not_go_on_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a few hundred of them take every place of the server."""
    monkeypatch.setattr(api_submit, "BODY_S", 0.05)
    with pytest.raises(Problem) as found:
        asyncio.run(asyncio.wait_for(api_submit.body_of(_post(), 100), 5))
    assert found.value.code is BODY_TOO_SLOW
    assert found.value.status == 408


def test_a_length_of_any_number_of_digits_is_too_large() -> None:
    """Before anything is read."""
    with pytest.raises(Problem) as found:
        asyncio.run(api_submit.body_of(_post((b"content-length", b"9" * 9_000)), 100))
    assert found.value.code is BODY_TOO_LARGE


def test_the_l1_beside_the_api_is_as_closed_as_the_api() -> None:
    """Another site's name, another type and another method are refused; nothing is guessed."""

    async def nothing(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("what is below /l1 is answered there")

    beside: Any = L1Beside(nothing, pins=None, answer=lambda body: b"{}")
    kind = {"content-type": "application/json"}
    client = TestClient(beside, BASE)
    assert client.post("/l1", content=b"{}", headers=kind).json() == {}
    said = [
        client.post("/l1", content=b"{}", headers={**kind, "host": "rebound.example"}),
        client.post("/l1", content=b"{}", headers={"content-type": "text/plain"}),
        client.get("/l1"),
        client.post("/l1/faucet", content=b"[" * 100_000, headers=kind),
        client.post("/l1", content=b"x" * (1 << 20) + b"x", headers=kind),
    ]
    assert [answer.status_code for answer in said] == [400, 415, 404, 404, 413]
    for answer in said:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in answer.headers
