"""The query API: the read models, and signed inputs, over HTTP. ``create_app`` is all of it.

The caller binds it to loopback. Every answer names the position of each ledger that it reflects,
and is read from one state. Nothing here decides anything: inputs are judged by the gate's code and
then by the processors, and what is shown is what the read models hold.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fastapi import FastAPI, Request
from sqlalchemy import Connection
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import Response

from adapters import api_reads
from adapters.api_json import dumped
from adapters.api_listings import (
    EVENTS,
    LISTINGS,
    Listing,
    integer,
    octets,
    page,
    words,
)
from adapters.api_pages import Pages
from adapters.api_problems import (
    BAD_PARAMETER,
    NOT_ALLOWED,
    NOT_FOUND,
    NOT_WRITABLE,
    POSITION_NOT_REACHED,
    REBUILDING,
    ROWS_UNAVAILABLE,
    Problem,
)
from adapters.api_proofs import Proofs
from adapters.api_submit import (
    Answers,
    Bucket,
    Gate,
    Submit,
    SubmitTelemetry,
    append,
    body_of,
    refused,
)
from adapters.api_troubles import rebuild_of, troubles
from adapters.metrics import MEDIA_TYPE
from adapters.projector import LedgerStatus
from adapters.read_model import BeingRebuilt, ReadModel
from adapters.read_model_catalogue import RowsUnavailable
from adapters.registry import registry
from domain.codec import Codec
from domain.commit import Ledger
from domain.genesis import Genesis
from domain.record import RECORDS
from domain.signed import Verifier
from projections.tables import BALANCE, HISTORY, PAYABLE, POSTING

WAIT_S: Final = 5.0
WAIT_MAX_S: Final = 10.0
_POLL_S: Final = 0.02
_LOOPBACK: Final = ("127.0.0.1", "localhost", "[::1]")
HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'self'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

Read = Callable[[Connection], dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What the composition root gives the API.

    ``submit`` and ``submit_telemetry`` append to the log from any thread; without them the API is
    read-only. ``status`` says how far the projector is behind the log, where this process knows;
    ``metrics`` gives the figures of the process in the format of Prometheus.
    ``hosts`` are the names by which the API may be asked for: others are another site's tricks.
    """

    read_model: ReadModel
    genesis: Genesis
    genesis_hash: bytes
    shards: int
    codec: Codec
    verify: Verifier
    submit: Submit | None = None
    submit_telemetry: SubmitTelemetry | None = None
    status: Callable[[], Sequence[LedgerStatus]] | None = None
    metrics: Callable[[], bytes] | None = None
    hosts: Sequence[str] = _LOOPBACK
    inputs_per_s: float = 500.0
    clock_s: Callable[[], float] = time.monotonic


def create_app(service: Service) -> FastAPI:
    """The application of ASGI: /v1 for programs, the rest for people."""
    app = FastAPI(
        title="Synor Ledger",
        version="1",
        description="Read models of the ledger, and signed inputs to it.",
        openapi_url="/v1/openapi.json",
        # Their pages load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
    )
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(service.hosts))
    pages = Pages(service.read_model, service.genesis, service.shards, service.status)

    @app.middleware("http")
    async def _headers(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        response = await call_next(request)
        response.headers.update(HEADERS)
        return response

    @app.exception_handler(Problem)
    async def _problem(request: Request, problem: Problem) -> Response:
        if request.url.path.startswith("/v1/"):
            return problem.response()
        return await run_in_threadpool(pages.problem, problem)

    @app.exception_handler(BeingRebuilt)
    async def _rebuilding(request: Request, rebuilt: BeingRebuilt) -> Response:
        more = {} if rebuilt.entry is None else {"rebuild": rebuild_of(rebuilt.entry)}
        return await _problem(request, Problem(REBUILDING, str(rebuilt), retry_after_s=5, **more))

    @app.exception_handler(RowsUnavailable)
    async def _unavailable(request: Request, error: RowsUnavailable) -> Response:
        return await _problem(request, Problem(ROWS_UNAVAILABLE, str(error), retry_after_s=5))

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        code = NOT_ALLOWED if error.status_code == 405 else NOT_FOUND
        return await _problem(request, Problem(code, f"{request.method} {request.url.path[:200]}"))

    _Routes(app, service).add()
    if service.metrics is not None:
        app.add_api_route("/metrics", _figures(service.metrics), summary="Figures for Prometheus.")
    app.mount("/registry", registry())
    pages.add(app)
    return app


def _figures(text: Callable[[], bytes]) -> Callable[[], Response]:
    """A plain function, so that the framework runs it in a thread: it reads the database."""

    def figures() -> Response:
        return Response(text(), media_type=MEDIA_TYPE)

    return figures


class _Routes:
    """The routes below /v1."""

    def __init__(self, app: FastAPI, service: Service) -> None:
        self._app = app
        self._service = service
        self._proofs = Proofs(service.genesis)
        self._answers = Answers(service.read_model, service.codec, service.shards)
        self._bucket = Bucket(
            service.inputs_per_s, max(1, int(service.inputs_per_s)), service.clock_s
        )
        self._gate = Gate(
            genesis=service.genesis,
            genesis_hash=service.genesis_hash,
            shards=service.shards,
            codec=service.codec,
            verify=service.verify,
            read_model=service.read_model,
        )

    def add(self) -> None:
        """Every route, in the order in which the document of the API shows them."""
        self._get(
            "/v1/status",
            "How far each ledger is followed, and what could not be taken.",
            self.status,
        )
        for name, listing in LISTINGS.items():
            self._list(f"/v1/{name}", listing)
        self._get("/v1/book", "The order book of an instrument, L2 or L3.", self.book)
        self._get("/v1/leases/{lease}", "A lease with its line items.", self.lease)
        self._get("/v1/accounts/{account}", "An account and its money.", self.account)
        self._get("/v1/accounts/{account}/journal", "Its postings.", self.journal)
        self._get("/v1/accounts/{account}/balances", "Its purses.", self.balances)
        self._get("/v1/providers/{provider}", "A provider's scorecard.", self.provider)
        self._get("/v1/nodes/{node}", "A node.", self.node)
        self._get("/v1/epochs/{number}", "An epoch and its checkpoint.", self.epoch)
        self._get("/v1/epochs/{number}/payables", "What it made payable.", self.payables)
        self._get(
            "/v1/epochs/{number}/proof/{account}",
            "The claim proof of an account; `latest` is the last anchored epoch.",
            self.proof,
        )
        self._get("/v1/history", EVENTS.doc, self.history)
        self._get("/v1/answers/{key}/{session}/{number}", "The answer to a number.", self.answer)
        self._get("/v1/shares", "The protocol's share of each class of revenue.", self.shares)
        self._get("/v1/genesis", "The genesis document.", self.genesis)
        self._post("/v1/commands", "Append a signed command.", self.command)
        self._post("/v1/telemetry", "Append a signed batch of telemetry.", self.telemetry)

    # What is read

    def status(self, request: Request) -> Read:
        """Positions, lag where this process can see the log, what is held, what is rebuilt."""
        known = self._service.status
        _only(request)

        def read(connection: Connection) -> dict[str, Any]:
            found, filling = troubles(connection), self._service.read_model.filling()
            return {
                "ledgers": api_reads.followed(connection),
                "log": None if known is None else known(),
                "money_stopped": found.money,
                "held": found.held,
                "held_keys": found.held_keys,
                "held_events": found.held_events,
                "rebuild": None if filling is None else rebuild_of(filling),
            }

        return read

    def book(self, request: Request) -> Read:
        """By instrument, or by resource and region."""
        given = _only(request, "instrument", "resource", "region", "level")
        level = integer("level", given.get("level", "2"))
        if level not in (2, 3):
            raise Problem(BAD_PARAMETER, "level is 2 or 3")
        if "instrument" not in given and not {"resource", "region"} <= given.keys():
            raise Problem(BAD_PARAMETER, "name the instrument, or resource and region")

        def read(connection: Connection) -> dict[str, Any]:
            instrument = (
                octets("instrument", given["instrument"])
                if "instrument" in given
                else api_reads.instrument_at(
                    connection,
                    words("resource", given["resource"]),
                    words("region", given["region"]),
                )
            )
            return api_reads.book(connection, instrument, level)

        return read

    def lease(self, request: Request) -> Read:
        """By id."""
        _only(request)
        lease = _id(request, "lease")
        return lambda connection: {"lease": api_reads.lease(connection, lease)}

    def account(self, request: Request) -> Read:
        """By id; zeros for what belongs to nobody: the protocol, insurance, the L1."""
        _only(request)
        account = _id(request, "account")
        return lambda connection: {"account": api_reads.account(connection, account)}

    def journal(self, request: Request) -> Read:
        """Of every purse that holds the account's money."""
        account = _id(request, "account")
        return self._page(request, LISTINGS["journal"], POSTING.c.account == account)

    def balances(self, request: Request) -> Read:
        """One row per purse and owner."""
        account = _id(request, "account")
        return self._page(request, LISTINGS["balances"], BALANCE.c.account == account)

    def provider(self, request: Request) -> Read:
        """By id."""
        _only(request)
        provider = _id(request, "provider")
        return lambda connection: {"provider": api_reads.provider(connection, provider)}

    def node(self, request: Request) -> Read:
        """By id."""
        _only(request)
        node = _id(request, "node")
        return lambda connection: {"node": api_reads.node(connection, node)}

    def epoch(self, request: Request) -> Read:
        """By number, or the latest anchored one."""
        _only(request)
        return lambda connection: {
            "epoch": api_reads.epoch(connection, _epoch(request, connection))
        }

    def payables(self, request: Request) -> Read:
        """Of one epoch."""
        number = integer("number", request.path_params["number"])
        return self._page(request, LISTINGS["payables"], PAYABLE.c.epoch == number)

    def proof(self, request: Request) -> Read:
        """What the vault's claim takes."""
        _only(request)
        account = _id(request, "account")

        def read(connection: Connection) -> dict[str, Any]:
            number = _epoch(request, connection)
            return {"proof": self._proofs.proof(connection, number, account)}

        return read

    def history(self, request: Request) -> Read:
        """Of one ledger and shard; narrowed by aggregate, type, position or time."""
        given = _parameters(request)
        ledger = _ledger(given.pop("ledger", "market"))
        shard = integer("shard", given.pop("shard", "0"))
        shards = self._service.shards if ledger is Ledger.METERING else 1
        if not 0 <= shard < shards:
            raise Problem(BAD_PARAMETER, f"the {ledger.name.lower()} ledger has {shards} shards")
        conditions = [HISTORY.c.ledger == int(ledger), HISTORY.c.shard == shard]
        if "type" in given:
            kind = RECORDS.get(words("type", given.pop("type")))
            if kind is None:
                raise Problem(BAD_PARAMETER, "type is the full name of no record")
            conditions.append(HISTORY.c.schema == self._service.codec.number(kind))

        def read(connection: Connection) -> dict[str, Any]:
            found = page(connection, EVENTS, given, conditions)
            items = [api_reads.event(row, self._service.codec) for row in found.rows]
            return {"items": items, "next": found.next}

        return read

    def answer(self, request: Request) -> Read:
        """Of the market, or with ``ledger=metering`` of a shard that refused a batch."""
        given = _only(request, "ledger")
        ledger = _ledger(given.get("ledger", "market"))
        key = octets("key", request.path_params["key"])
        session = integer("session", request.path_params["session"])
        number = integer("number", request.path_params["number"])

        def read(connection: Connection) -> dict[str, Any]:
            found = api_reads.answer(connection, ledger, key, session, number)
            if found is None:
                raise Problem(NOT_FOUND, "there is no answer to that number yet")
            return {"answer": api_reads.told(connection, self._service.codec, found)}

        return read

    def shares(self, request: Request) -> Read:
        """R3."""
        _only(request)
        return lambda connection: {"items": api_reads.shares(connection)}

    def genesis(self, request: Request) -> Read:
        """The document, its hash and the number of metering shards."""
        _only(request)
        service = self._service
        return lambda _: {
            "hash": service.genesis_hash,
            "shards": service.shards,
            "genesis": service.genesis,
        }

    # What is sent

    async def command(self, request: Request) -> Response:
        """Judge, append, and with ``wait_s`` answer."""
        service = self._service
        if service.submit is None:
            raise Problem(NOT_WRITABLE, "this API appends nothing")
        submit = service.submit
        _only(request)
        wait_s = _seconds(request.query_params.get("wait_s", "0"))
        self._bucket.take()
        size_max = await run_in_threadpool(self._gate.size_max)
        value = await body_of(request, size_max)
        opened = await run_in_threadpool(self._gate.command, value, size_max)
        found = await run_in_threadpool(self._answers.final, opened)
        if found is None:
            offset = await run_in_threadpool(append, lambda: submit(value))
            found = await self._answers.awaited(opened, offset, wait_s)
        problem = refused(found)
        if problem is not None:
            raise problem
        return _json(found, 202 if found["answer"] is None else 200)

    async def telemetry(self, request: Request) -> Response:
        """Judge and append to the partition of the batch's shard."""
        service = self._service
        if service.submit_telemetry is None:
            raise Problem(NOT_WRITABLE, "this API appends nothing")
        submit = service.submit_telemetry
        _only(request)
        self._bucket.take()
        size_max = await run_in_threadpool(self._gate.size_max)
        value = await body_of(request, size_max)
        opened, shard = await run_in_threadpool(self._gate.telemetry, value, size_max)
        offset = await run_in_threadpool(append, lambda: submit(shard, value))
        signed = opened.signed
        where = f"/v1/answers/{signed.key.hex()}/{signed.session}/{signed.number}?ledger=metering"
        return _json({"shard": shard, "offset": offset, "refusal": where}, 202)

    # How

    def _list(self, path: str, listing: Listing) -> None:
        parameters = [
            _parameter("limit", "1 to 200", "integer"),
            _parameter("order", "asc or desc"),
            _parameter("cursor", "`next` of the page before"),
            *(_parameter(name, "only rows with this value") for name in listing.filters),
        ]

        def read(request: Request) -> Read:
            return self._page(request, listing)

        self._get(path, listing.doc, read, parameters)

    def _page(self, request: Request, listing: Listing, *fixed: Any) -> Read:
        given = _parameters(request)

        def read(connection: Connection) -> dict[str, Any]:
            found = page(connection, listing, given, fixed)
            return {"items": found.rows, "next": found.next}

        return read

    def _get(
        self,
        path: str,
        doc: str,
        prepare: Callable[[Request], Read],
        parameters: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        shown = [
            *parameters,
            _parameter("wait", "answer once this is reached, for example market:123"),
            _parameter("wait_s", f"for at most so long, {WAIT_S:g} s if not given"),
        ]

        async def endpoint(request: Request) -> Response:
            read = prepare(request)
            await self._wait(request)

            def answer() -> bytes:
                with self._service.read_model.reading() as connection:
                    position = api_reads.heights(connection, self._service.shards)
                    return dumped({"position": position, **read(connection)})

            return Response(await run_in_threadpool(answer), media_type="application/json")

        self._app.add_api_route(
            path,
            endpoint,
            methods=["GET"],
            summary=doc,
            name=path,
            openapi_extra={"parameters": shown},
        )

    def _post(
        self, path: str, doc: str, endpoint: Callable[[Request], Awaitable[Response]]
    ) -> None:
        body = {"content": {"application/octet-stream": {"schema": {"type": "string"}}}}
        self._app.add_api_route(
            path,
            endpoint,
            methods=["POST"],
            summary=doc,
            name=path,
            openapi_extra={"requestBody": {**body, "required": True}},
        )

    async def _wait(self, request: Request) -> None:
        """Wait until the read models have reached the positions that the request names."""
        text = request.query_params.get("wait")
        if text is None:
            return
        wanted = [_place(each, self._service.shards) for each in text.split(",")]
        deadline = time.monotonic() + _seconds(request.query_params.get("wait_s", str(WAIT_S)))
        while True:
            now = await run_in_threadpool(self._heights)
            if all(_height(now, ledger, shard) >= height for ledger, shard, height in wanted):
                return
            if time.monotonic() >= deadline:
                raise Problem(POSITION_NOT_REACHED, text[:200], position=now)
            await asyncio.sleep(_POLL_S)

    def _heights(self) -> dict[str, Any]:
        with self._service.read_model.reading() as connection:
            return api_reads.heights(connection, self._service.shards)


def _json(value: Any, status: int) -> Response:
    return Response(dumped(value), status_code=status, media_type="application/json")


def _parameter(name: str, doc: str, kind: str = "string") -> dict[str, Any]:
    return {"name": name, "in": "query", "description": doc, "schema": {"type": kind}}


def _parameters(request: Request) -> dict[str, str]:
    """The query's parameters without those of waiting; each once."""
    found: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name in found:
            raise Problem(BAD_PARAMETER, f"{name[:40]} is given twice")
        found[name] = value
    found.pop("wait", None)
    found.pop("wait_s", None)
    return found


def _only(request: Request, *known: str) -> dict[str, str]:
    """The query's parameters, none but these."""
    found = _parameters(request)
    for name in found:
        if name not in known:
            raise Problem(BAD_PARAMETER, f"{name[:40]!r} is no parameter here")
    return found


def _id(request: Request, name: str) -> bytes:
    return octets(name, request.path_params[name])


def _epoch(request: Request, connection: Connection) -> int:
    text = request.path_params["number"]
    return api_reads.latest_anchored(connection) if text == "latest" else integer("number", text)


def _ledger(text: str) -> Ledger:
    for ledger in Ledger:
        if ledger.name.lower() == text:
            return ledger
    raise Problem(BAD_PARAMETER, "ledger is market, metering or settlement")


def _seconds(text: str) -> float:
    whole, _, fraction = text.partition(".")
    if not (whole + fraction).isascii() or not (whole + fraction).isdigit() or len(text) > 10:
        raise Problem(BAD_PARAMETER, "wait_s is a number of seconds")
    return min(float(text), WAIT_MAX_S)


def _place(text: str, shards: int) -> tuple[Ledger, int, int]:
    """``market:123`` or ``metering.3:45``."""
    name, _, height = text.partition(":")
    kind, _, shard = name.partition(".")
    ledger = _ledger(kind)
    number = integer("wait", shard or "0")
    if not 0 <= number < (shards if ledger is Ledger.METERING else 1):
        raise Problem(BAD_PARAMETER, f"{kind} has no shard {number}")
    return ledger, number, integer("wait", height)


def _height(position: Mapping[str, Any], ledger: Ledger, shard: int) -> int:
    found = position[ledger.name.lower()]
    height: int = found[shard] if isinstance(found, list) else found
    return height
