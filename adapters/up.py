"""A whole ledger in one process: the embedded system that runs until it is told to stop.

The main thread is the engine (processors, clock, watcher, sender), beside it are the projector and
the web server; each has its own connection to the log. If one ends by an error the process ends
with it: a ledger that moves while nobody can read it, or the other way round, helps nobody.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import Final

from adapters.avro_codec import AvroCodec
from adapters.bootstrap import Network, create_topics
from adapters.embedded import SystemKeys
from adapters.evm_embedded import EmbeddedChain
from adapters.local_topics import LocalTopics
from adapters.metrics import Metrics
from adapters.read_model import ReadModel
from adapters.roles_clock import now_us
from adapters.roles_follow import Following
from adapters.sqlite_log import SqliteLog
from adapters.up_engine import Engine
from adapters.up_folder import Folder, make_genesis, network_of
from adapters.up_web import Appender, L1Beside, Server, application, pins_of
from domain.genesis import Parameters

HOST: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Up:
    """A system that runs: where it can be reached, and what it is."""

    folder: Folder
    network: Network
    port: int
    created: bool

    @property
    def api(self) -> str:
        """URL of the query API."""
        return f"http://{HOST}:{self.port}"

    @property
    def rpc(self) -> str:
        """URL of the embedded chain's JSON-RPC."""
        return f"{self.api}/l1"


@contextmanager
def stopped_by_signals(stop: threading.Event) -> Iterator[None]:
    """Set ``stop`` on SIGINT and SIGTERM; a second one ends the process at once."""

    def ask(number: int, frame: object) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run(
    folder: Folder,
    *,
    port: int,
    name: str,
    shards: int,
    parameters: Parameters,
    ready: Callable[[Up], None],
    say: Callable[[str], None],
) -> None:
    """Make the network at the first start, run it, return when it was told to stop.

    ``name``, ``shards`` and ``parameters`` count at the first start only.
    """
    stop = threading.Event()
    with ExitStack() as stack:
        stack.enter_context(stopped_by_signals(stop))
        stack.enter_context(folder.held())
        codec = AvroCodec()
        seed = folder.make_seed()
        keys = SystemKeys.derived(seed)
        chain = stack.enter_context(
            closing(EmbeddedChain(folder.chain, seed=seed, clock=lambda: now_us() // 1_000_000))
        )
        created = not folder.exists()
        if created:
            make_genesis(
                folder,
                codec,
                keys=keys,
                chain=chain,
                name=name,
                shards=shards,
                parameters=parameters,
                start_us=now_us(),
            )
        network, settings = network_of(folder, codec)

        def log() -> SqliteLog:
            return stack.enter_context(closing(SqliteLog(folder.log, clock_us=now_us)))

        metrics = Metrics()
        engine_log = log()
        create_topics(network, LocalTopics(engine_log))
        engine = stack.enter_context(
            closing(
                Engine(folder, network, keys, engine_log, chain, metrics, settings.snapshots, say)
            )
        )
        engine.recover()
        read_model = stack.enter_context(closing(ReadModel(settings.read_model)))
        following = Following(network, log(), read_model, now_us, say)
        following.catch_up()
        appender = stack.enter_context(closing(Appender(log())))
        web = Server(
            L1Beside(
                application(network, read_model, appender, following, metrics),
                pins=pins_of(chain.config, "/l1"),
                answer=chain.node.answer,
                fund=chain.fund,
            ),
            HOST,
            port,
        )
        web.start(stop)
        stack.callback(web.stop)
        threads = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="projector"))
        ran = threads.submit(following.run, stop)
        ran.add_done_callback(lambda _: stop.set())
        stack.callback(stop.set)
        up = Up(folder=folder, network=network, port=web.port, created=created)
        _publish(up)
        stack.callback(folder.running.unlink, missing_ok=True)
        ready(up)
        engine.run(stop)
        ran.result()


def _publish(up: Up) -> None:
    """Let commands on this machine find it."""
    draft = up.folder.running.with_suffix(".new")
    draft.write_text(json.dumps({"api": up.api, "rpc": up.rpc, "pid": os.getpid()}))
    draft.replace(up.folder.running)
