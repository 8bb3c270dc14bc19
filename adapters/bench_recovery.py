"""``synor bench recovery``: killed at once, how long until a network serves again.

The network is made by the real processors (``bench_leases``) and worked by the real commands, each
a process of its own. All are killed with SIGKILL. Serving is: the market answers a command, every
shard takes a batch, and the query API answers and knows both ledgers to their ends. Once with the
snapshots that the policy has left, once without any; and several times killed at work, with what
was committed since the last snapshot to be folded and what waits in the inputs to be decided.
"""

from __future__ import annotations

import compileall
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil

import adapters
import domain
import projections
import schemas
from adapters import roles_genesis, settings
from adapters.actor import Actor
from adapters.avro_codec import AvroCodec
from adapters.bench_leases import SHARDS, make_network, open_story, person
from adapters.bench_load import Load
from adapters.bootstrap import Network
from adapters.roles_clock import now_us
from adapters.snapshot_keeper import snapshots_in
from adapters.sqlite_log import SqliteLog
from domain.account import OpenAccount
from domain.commit import LEDGER_TOPICS, CommitBody, Ledger, body_of, parse, unpack_event
from domain.ids import Address, NodeId, shard_of
from domain.key import CommandAnswered
from domain.telemetry import Batch, TelemetryAccepted
from projections.following import application_name

_PROGRAM: Final = (
    sys.executable,
    "-c",
    "import sys; sys.argv[0] = 'synor'; from adapters.cli import main; main()",
)
_ROLES: Final = {"market": ("work", "market"), "metering": ("work", "metering"), "api": ("serve",)}
_MADE: Final = "bench.json"
_ROLES_LOG: Final = "roles.log"
_SNAPSHOT_EVENTS: Final = 20_000
_POLL_S: Final = 0.01
_WITHIN_S: Final = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A network that was made for the bench."""

    folder: Path
    leases: int
    readings: int
    nodes: Sequence[NodeId]


def bench_recovery(
    leases: int,
    readings: int,
    folder: Path,
    say: Callable[[str], None],
    *,
    load_s: Sequence[float],
    readings_s: int,
) -> dict[str, Any]:
    """Make the network, or take the one that is in the folder already, and measure.

    ``load_s`` are the seconds of load before each kill at work, ``readings_s`` is how much of it.
    """
    made = _made(folder, leases, readings, say)
    _compile()
    kept = folder / "snapshots.kept"
    figures: dict[str, Any] = {"leases": made.leases, "readings": made.readings}
    with _prober(made) as prober:
        say("Starting once, so that read models, indexes and snapshots are there …")
        figures["first"] = _cycle(made, prober, settle_s=2.0 + leases / 10_000)
        found = snapshots_in(settings.load(folder).snapshots.folder)
        figures["snapshot_mb"] = round(sum(each.bytes for each in found) / 2**20, 1)
        figures["ledger_mb"] = round((folder / "ledger.db").stat().st_size / 2**20, 1)
        say("With snapshots …")
        figures["with"] = _cycle(made, prober)
        say("Without …")
        snapshots = settings.load(folder).snapshots.folder
        if snapshots.exists():
            shutil.move(snapshots, kept)
        figures["without"] = _cycle(made, prober)
        if kept.exists():
            shutil.rmtree(snapshots, ignore_errors=True)
            shutil.move(kept, snapshots)
        if load_s:
            figures["at_work"] = _killed_at_work(made, prober, say, load_s, readings_s)
    return figures


def _compile() -> None:
    """Give the program's modules byte code, as an installation has it."""
    for package in (adapters, domain, projections, schemas):
        compileall.compile_dir(package.__path__[0], maxlevels=0, quiet=2)


def _killed_at_work(
    made: Made,
    prober: _Prober,
    say: Callable[[str], None],
    load_s: Sequence[float],
    readings_s: int,
) -> dict[str, Any]:
    """Kill while load goes on, start again, and so on; the slowest of these starts."""
    say("Folding what was left since the last snapshots …")
    _cycle(made, prober, settle_s=2.0 + made.leases / 10_000)
    found: list[dict[str, Any]] = []
    load = Load(prober.network, prober.log, list(made.nodes))
    for seconds in load_s:
        say(f"Killed after {seconds:g} s of {readings_s} readings a second …")
        with _running(made):
            poured = load.run(seconds, readings_s)
        told = (made.folder / _ROLES_LOG).stat().st_size
        found.append({"poured": poured} | _cycle(made, prober))
        with (made.folder / _ROLES_LOG).open() as file:
            file.seek(told)
            folded = [int(n) for n in re.findall(r" and (\d+) commits in ", file.read())]
        found[-1]["folded"] = sum(folded)
    worst = max(found, key=lambda each: each["serving_s"])
    return {**worst, "all_s": [each["serving_s"] for each in found]}


def _made(folder: Path, leases: int, readings: int, say: Callable[[str], None]) -> Made:
    marker = folder / _MADE
    if not marker.exists():
        if folder.exists() and any(folder.iterdir()):
            raise FileExistsError(f"{folder} holds something else; take an empty folder.")
        make_network(
            folder,
            port=_free_port(),
            # A small network leaves snapshots too.
            snapshot_events=min(_SNAPSHOT_EVENTS, max(leases // 4, 1)),
        )
        story = open_story(folder, say)
        story.found(leases)
        story.let(leases)
        story.report(readings)
        story.close()
        marker.write_text(
            json.dumps(
                {
                    "leases": leases,
                    "readings": readings,
                    "nodes": [node.hex() for node in story.nodes],
                }
            )
        )
    found = json.loads(marker.read_text())
    return Made(
        folder=folder,
        leases=found["leases"],
        readings=found["readings"],
        nodes=[NodeId(bytes.fromhex(node)) for node in found["nodes"]],
    )


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class _Prober:
    """Asks the network for something new, and sees when it is there."""

    def __init__(self, made: Made, network: Network, log: SqliteLog, url: str) -> None:
        self._made = made
        self.network = network
        self.log = log
        self._url = url
        self._asked: dict[str, tuple[str, int, int, type[Any], bytes]] = {}

    def ask(self) -> None:
        """Append a command, and a batch for every shard that has a node."""
        signer = person(f"prober {now_us()}")
        self._wait_for("market", Ledger.MARKET, 0, CommandAnswered, signer.public)
        payee = Address(bytes(19) + b"\1")
        self._actor(signer).command(OpenAccount(payee=payee))
        shards: dict[int, tuple[int, NodeId]] = {}
        for row, node in enumerate(self._made.nodes):
            shards.setdefault(shard_of(node, SHARDS), (row, node))
        for shard, (row, node) in sorted(shards.items()):
            signer = person(f"node {row}")
            self._wait_for(
                f"metering {shard}", Ledger.METERING, shard, TelemetryAccepted, signer.public
            )
            empty = Batch(
                nodes=(node,), leases=(), lease=(), resource=(), generation=(), time_us=(), total=()
            )
            self._actor(signer).telemetry(shard, empty)

    def _actor(self, signer: Any) -> Actor:
        return Actor(
            log=self.log,
            codec=self.network.codec,
            genesis_hash=self.network.hash,
            signer=signer,
            session_us=now_us(),
        )

    def _wait_for(self, name: str, ledger: Ledger, shard: int, kind: type[Any], key: bytes) -> None:
        topic = LEDGER_TOPICS[ledger]
        self._asked[name] = topic, shard, self.log.end(topic, shard), kind, key

    def serving(self, began: float) -> dict[str, float]:
        """Seconds from ``began`` until each was there."""
        seen: dict[str, float] = {}
        deadline = time.monotonic() + _WITHIN_S
        while len(seen) <= len(self._asked):
            for name, wanted in self._asked.items():
                if name not in seen and self._is_there(*wanted):
                    seen[name] = round(time.monotonic() - began, 2)
            if len(seen) == len(self._asked) and self._api_knows():
                seen["api"] = round(time.monotonic() - began, 2)
            if time.monotonic() > deadline:
                raise TimeoutError(f"after {_WITHIN_S:.0f} s only {sorted(seen)} served")
            time.sleep(_POLL_S)
        return seen

    def _is_there(self, topic: str, shard: int, first: int, kind: type[Any], key: bytes) -> bool:
        codec = self.network.codec
        number = codec.number(kind)
        for record in self.log.read(topic, shard, first, max_bytes=1 << 24).records:
            envelope = parse(record.value)
            if envelope is None:
                continue
            for event in map(
                unpack_event, codec.decode(CommitBody, body_of(record.value, envelope)).events
            ):
                if event.schema == number and codec.decode(kind, event.payload).key == key:
                    return True
        return False

    def _api_knows(self) -> bool:
        """Whether the API answers and has read every ledger to its end."""
        try:
            with urllib.request.urlopen(f"{self._url}/v1/status", timeout=2) as answer:
                ledgers = json.load(answer)["ledgers"]
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False
        at = {each["application"]: each["next_offset"] for each in ledgers}
        return all(
            at.get(application_name(ledger, shard), 0) >= self.log.end(LEDGER_TOPICS[ledger], shard)
            for ledger, shard in self.network.ledgers()
            if ledger is not Ledger.SETTLEMENT
        )


@contextmanager
def _prober(made: Made) -> Iterator[_Prober]:
    found = settings.load(made.folder)
    network = roles_genesis.network_of(found, AvroCodec())
    assert found.log.file is not None
    with closing(SqliteLog(found.log.file, clock_us=now_us)) as log:
        yield _Prober(made, network, log, f"http://127.0.0.1:{found.api_port}")


@contextmanager
def _running(made: Made) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Every role, each a process; all are killed at the end."""
    with (made.folder / _ROLES_LOG).open("ab") as out:
        running = {
            name: subprocess.Popen(
                [*_PROGRAM, *command, "--network", str(made.folder)],
                stdout=out,
                stderr=out,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "SYNOR_NETWORK": str(made.folder)},
            )
            for name, command in _ROLES.items()
        }
    try:
        yield running
    finally:
        for each in running.values():
            each.send_signal(signal.SIGKILL)
        for each in running.values():
            each.wait()


def _cycle(made: Made, prober: _Prober, settle_s: float = 0.0) -> dict[str, Any]:
    """Start every role, see when each serves, kill them all."""
    prober.ask()
    began = time.monotonic()
    with _running(made) as running:
        seen = prober.serving(began)
        memory = {
            f"{name}_mb": round(psutil.Process(each.pid).memory_info().rss / 2**20)
            for name, each in running.items()
        } | {
            # On a busy machine the figure to compare.
            f"{name}_cpu_s": round(sum(psutil.Process(each.pid).cpu_times()[:2]), 2)
            for name, each in running.items()
        }
        time.sleep(settle_s)
    metering = [seconds for name, seconds in seen.items() if name.startswith("metering")]
    return {
        "market_s": seen["market"],
        "metering_s": max(metering),
        "api_s": seen["api"],
        "serving_s": max(seen.values()),
        **memory,
    }
