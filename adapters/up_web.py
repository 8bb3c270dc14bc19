"""The web server of a ledger: its query API, and beside it the L1 that belongs to it.

``/l1`` is JSON-RPC of the embedded chain (or says where the L1 is); ``/l1/pins`` tells a wallet
which vault and token to use; ``/l1/faucet`` gives tokens of an embedded development chain.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any, Final

import uvicorn
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from adapters import bootstrap
from adapters.api import HEADERS, Service, create_app
from adapters.api_submit import BODY_S
from adapters.metrics import Metrics
from adapters.read_model import ReadModel
from adapters.roles_follow import Following
from domain import outside_json
from domain.commit import COMMANDS_TOPIC, TELEMETRY_TOPIC
from domain.ids import Address
from domain.l1 import L1Config, L1Error
from domain.ports import Log, LogError

_BODY_MAX: Final = 1 << 20
_HOSTS: Final = ("127.0.0.1", "localhost")
_START_S: Final = 20.0
_STOP_S: Final = 20.0
_LOOK_S: Final = 0.01
#: Appends in the making or waiting; a thread of the server each, of its forty.
_APPENDS_MAX: Final = 16
_APPEND_WAIT_S: Final = 5.0
#: Requests at once; more are answered 503 by the server itself.
_REQUESTS_MAX: Final = 512

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Appender:
    """A log for the threads of a web server: one append at a time, and few that wait.

    Brokers that refuse writes make an append as long as its timeout. Whoever comes when enough
    wait is sent away at once, so that the threads stay free for reads and nothing piles up.
    """

    def __init__(self, log: Log) -> None:
        """Append to ``log``, which belongs to this object."""
        self._log = log
        self._lock = threading.Lock()
        self._places = threading.BoundedSemaphore(_APPENDS_MAX)

    def command(self, value: bytes) -> int:
        """Append the bytes of a command."""
        return self._append(COMMANDS_TOPIC, 0, value)

    def telemetry(self, shard: int, value: bytes) -> int:
        """Append the bytes of a batch."""
        return self._append(TELEMETRY_TOPIC, shard, value)

    def _append(self, topic: str, partition: int, value: bytes) -> int:
        if not self._places.acquire(blocking=False):
            raise LogError(f"{_APPENDS_MAX} appends wait for the log already.")
        try:
            if not self._lock.acquire(timeout=_APPEND_WAIT_S):
                raise LogError(f"The log took no append within {_APPEND_WAIT_S:g} s.")
            try:
                return self._log.append(topic, partition, value)
            finally:
                self._lock.release()
        finally:
            self._places.release()

    def close(self) -> None:
        """Close the log."""
        with self._lock:
            self._log.close()


def pins_of(config: L1Config, rpc: str) -> dict[str, object]:
    """What a wallet needs to know of the L1; ``rpc`` is a URL, or a path of this server."""
    return {
        "chain_id": config.chain_id,
        "vault": f"0x{config.vault.hex()}",
        "token": f"0x{config.token.hex()}",
        "code_hash": f"0x{config.code_hash.hex()}",
        "start_number": config.start.number,
        "start_hash": f"0x{config.start.hash.hex()}",
        "rpc": rpc,
    }


class L1Beside:
    """An ASGI application that answers below ``/l1`` and passes everything else on."""

    def __init__(
        self,
        app: App,
        *,
        pins: dict[str, object] | None,
        answer: Callable[[bytes], bytes] | None = None,
        fund: Callable[[Address, int], None] | None = None,
        hosts: tuple[str, ...] = _HOSTS,
    ) -> None:
        """``pins`` None where there is no L1; ``answer`` and ``fund`` of an embedded one."""
        self._app = app
        self._pins = pins
        self._answer = answer
        self._fund = fund
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        path = scope.get("path", "")
        if scope["type"] != "http" or not (path == "/l1" or path.startswith("/l1/")):
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        response = await self._respond(request, path)
        response.headers.update(HEADERS)
        await response(scope, receive, send)

    async def _respond(self, request: Request, path: str) -> Response:
        if request.url.hostname not in self._hosts:
            return _wrong(400, "Ask for 127.0.0.1 or localhost.")
        if path == "/l1/pins" and request.method == "GET":
            return JSONResponse({"l1": self._pins})
        if request.method != "POST" or path not in ("/l1", "/l1/faucet"):
            return _wrong(404, "There are POST /l1, POST /l1/faucet and GET /l1/pins.")
        # A page of another site cannot send this type without asking first.
        if not request.headers.get("content-type", "").startswith("application/json"):
            return _wrong(415, "Send application/json.")
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_S):
                async for part in request.stream():
                    body += part
                    if len(body) > _BODY_MAX:
                        return _wrong(413, "The request is too large.")
        except TimeoutError:
            return _wrong(408, "The request came too slowly; send it at once.")
        if path == "/l1/faucet":
            return await run_in_threadpool(self._funded, bytes(body))
        if self._answer is None:
            return _wrong(404, "The L1 is not embedded here: GET /l1/pins tells where it is.")
        answer = await run_in_threadpool(self._answer, bytes(body))
        return Response(answer, media_type="application/json")

    def _funded(self, body: bytes) -> Response:
        if self._fund is None:
            return _wrong(404, "There is no faucet: this L1 is not an embedded development chain.")
        try:
            asked = outside_json.parse(body)
            address = Address(bytes.fromhex(str(asked["address"]).removeprefix("0x")))
            amount = int(asked["amount_nano"])
            if len(address) != 20 or amount < 0:
                raise ValueError
        except (ValueError, KeyError, TypeError):
            return _wrong(400, "Give an address of 20 bytes and amount_nano, not below zero.")
        try:
            self._fund(address, amount)
        except L1Error as error:
            return _wrong(409, str(error))
        return JSONResponse({"address": f"0x{address.hex()}", "amount_nano": str(amount)})


def _wrong(status: int, detail: str) -> Response:
    return JSONResponse({"detail": detail, "status": status}, status_code=status)


def application(
    network: bootstrap.Network,
    read_model: ReadModel,
    appender: Appender,
    following: Following,
    metrics: Metrics,
) -> Any:
    """The query API of a network, and the figures of its process."""
    metrics.follow(following.status, following.views)
    return create_app(
        Service(
            read_model=read_model,
            genesis=network.genesis,
            genesis_hash=network.hash,
            shards=network.shards,
            codec=network.codec,
            verify=bootstrap.verify,
            submit=appender.command,
            submit_telemetry=appender.telemetry,
            status=following.status,
            metrics=metrics.text,
        )
    )


class Server:
    """uvicorn in a thread of its own, bound to one address."""

    def __init__(self, app: App, host: str, port: int) -> None:
        """Nothing is bound before ``start``."""
        config = uvicorn.Config(
            app,
            host=host,
            port=port,
            log_level="warning",
            access_log=False,
            lifespan="off",
            limit_concurrency=_REQUESTS_MAX,
            timeout_graceful_shutdown=3,
        )
        self._server = uvicorn.Server(config)
        self._config = config
        self._thread = threading.Thread(target=self._run, name="web", daemon=True)
        self._bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._stopped = threading.Event()
        self.port = port

    def start(self, stop: threading.Event) -> None:
        """Bind and serve, and return when it answers; ``stop`` is set when it ends.

        Raises ``LogError`` if it cannot.
        """
        self._stopped = stop
        self._bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._bound.bind((self._config.host, self.port))
        except OSError as error:
            self._bound.close()
            raise LogError(
                f"Port {self.port} of {self._config.host} cannot be used ({error.strerror}); "
                "take another with --port, or 0 for any free one."
            ) from error
        self.port = self._bound.getsockname()[1]
        self._thread.start()
        deadline = time.monotonic() + _START_S
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() >= deadline:
                raise LogError("The web server did not come up.")
            time.sleep(_LOOK_S)

    def _run(self) -> None:
        try:
            self._server.run(sockets=[self._bound])
        finally:
            self._stopped.set()

    def stop(self) -> None:
        """Answer what was asked and stop."""
        self._server.should_exit = True
        self._thread.join(timeout=_STOP_S)
        self._bound.close()


def sqlite_url(path: Path) -> str:
    """The URL of a file for SQLAlchemy."""
    return f"sqlite:///{path.resolve()}"
