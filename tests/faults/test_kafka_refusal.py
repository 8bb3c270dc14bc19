"""A broker that takes no writes for a while: everybody waits, nothing grows, nothing is lost.

The roles are processes of their own behind the proxy, which first answers every Produce as a broker
does that has lost its replicas, and then takes every connection and answers nothing at all. What
the API shows goes on. kafka-python's own queue has no bound, so ours must have.
"""

from __future__ import annotations

import multiprocessing
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psutil
import pytest

from adapters import key_files, settings
from adapters.avro_codec import AvroCodec
from adapters.cli_client import Api, speaker_of
from adapters.ed25519 import Signer
from adapters.kafka_log import KafkaLog
from adapters.roles_genesis import network_of
from domain.account import AccountOpened, OpenAccount
from domain.commit import TELEMETRY_TOPIC, Ledger
from domain.ids import Address
from domain.ports import LogError
from tests.cli.commands import Said, stopped_at_the_end, synor, until
from tests.cli.deployment import TINY, Deployment
from tests.faults.scene import LONG
from tests.support.fault_matrix import FaultMatrix, Seen
from tests.support.kafka_broker import started_broker
from tests.support.kafka_proxy import (
    NOT_ENOUGH_REPLICAS,
    Do,
    Fault,
    KafkaProxy,
    Plan,
    every_produce,
    proxied,
    undisturbed,
)
from tests.system.reading import events

HELD_S = 60.0 if LONG else 12.0
CLIENTS = 48
GROWTH_MAX = 96 << 20
CHUNK = [bytes(64 << 10)] * 256

pytestmark = [pytest.mark.service, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Deployment, KafkaProxy]]:
    """A network whose every role speaks to its broker through the proxy."""
    folder = tmp_path_factory.mktemp("refusal")
    broker = started_broker(folder / "kafka")
    with proxied(broker.bootstrap) as proxy:
        place = Deployment(folder, proxy.bootstrap)
        try:
            where = ("--kafka", proxy.bootstrap, "--genesis", TINY, "--port", "0")
            assert synor("network", "new", place.network, *where).code == 0
            place.ok("topics", "create")
            place.start("market", "work", "market")
            place.start("clock", "clock")
            place.start("serve", "serve").wait("API and pages at ")
            place.running["market"].wait("market 0 works")
            place.running["clock"].wait("The clock ticks")
            said = place.running["serve"].text()
            place.env["SYNOR_API"] = said.partition("API and pages at ")[2].split()[0]
            place.ok("account", "open", "--key", place.key("before"))
            yield place, proxy
            for name in ("clock", "market", "serve"):
                assert place.running[name].stop() == 0, place.running[name].text()
            assert place.ask("topics", "check").code == 0
        finally:
            with stopped_at_the_end(list(place.running.values())):
                pass
            broker.stop()


class Crowd:
    """Clients that all post the same signed command again and again, and what they are told."""

    def __init__(self, url: str, wire: bytes) -> None:
        self.told: Counter[str] = Counter()
        self._url = url
        self._wire = wire
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._post, daemon=True) for _ in range(CLIENTS)]
        for each in self._threads:
            each.start()

    def _post(self) -> None:
        headers = {"content-type": "application/octet-stream"}
        while not self._stop.is_set():
            request = urllib.request.Request(
                f"{self._url}/v1/commands?wait_s=0", self._wire, headers, method="POST"
            )
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    self.told[str(answer.status)] += 1
            except urllib.error.HTTPError as refused:
                body = refused.read()
                name = next((n for n in _NAMES if n.encode() in body), body[:60].decode())
                self.told[name] += 1
            self._stop.wait(0.05)

    def leave(self) -> None:
        """End, once each has its last answer."""
        self._stop.set()
        for each in self._threads:
            each.join(90)


_NAMES = ("log_unavailable", "append_unknown")


def pour(bootstrap: str, ready: Any, go: Any, stop: Any, offered: Any, failed: Any) -> None:
    """Append telemetry without end; in a process of its own, whose memory is then its own too."""
    with closing(KafkaLog(bootstrap, client_id="firehose", append_timeout_s=2.0)) as log:
        log.partitions(TELEMETRY_TOPIC)
        ready.set()
        go.wait()
        while not stop.is_set():
            offered.value += sum(map(len, CHUNK))
            try:
                log.append_many(TELEMETRY_TOPIC, 0, CHUNK)
            except LogError:
                failed.value += 1


class Firehose:
    """A producer of telemetry that always has more: how much the log took off its hands."""

    def __init__(self, bootstrap: str) -> None:
        spawn = multiprocessing.get_context("spawn")
        ready, self._go, self._stop = spawn.Event(), spawn.Event(), spawn.Event()
        self._offered, self._failed = spawn.Value("q", 0), spawn.Value("q", 0)
        counts = (self._offered, self._failed)
        self._process = spawn.Process(
            target=pour, args=(bootstrap, ready, self._go, self._stop, *counts)
        )
        self._process.start()
        assert ready.wait(60)
        self.size = psutil.Process(self._process.pid).memory_info().rss

    def go(self) -> None:
        """Begin; it knows its brokers."""
        self._go.set()

    def grown(self) -> int:
        """Bytes of memory more than at its start."""
        return psutil.Process(self._process.pid).memory_info().rss - self.size

    @property
    def offered(self) -> int:
        """Bytes that it has given to the log."""
        return int(self._offered.value)

    @property
    def failed(self) -> int:
        """Appends that were not taken, or of which it does not know what became."""
        return int(self._failed.value)

    def leave(self) -> None:
        """End after the append that is on its way."""
        self._stop.set()
        self._process.join(60)
        assert self._process.exitcode == 0


def wire_of(town: Deployment, name: str) -> tuple[bytes, Any]:
    """A signed command that opens an account, as bytes that may be sent again."""
    identity, _ = key_files.read(town.key(name), lambda: None)
    speaker = speaker_of(Api(town.env["SYNOR_API"]), Signer(identity.ledger))
    _, wire = speaker.sign(OpenAccount(payee=Address(bytes(20))))
    return wire, speaker.key


def held_back(place: Deployment, proxy: KafkaProxy, plan: Plan, name: str) -> int:
    """Commands and telemetry while nothing is taken, and after it; how many requests were met."""
    url = place.env["SYNOR_API"]
    late, cli = f"late-{name}", f"cli-{name}"
    wire, key = wire_of(place, late)
    place.key(cli)
    before = {name: psutil.Process(role.pid) for name, role in place.running.items()}
    sizes = {name: each.memory_info().rss for name, each in before.items()}
    hose = Firehose(proxy.bootstrap)

    met = sum(proxy.injected.values())
    proxy.plan = plan
    began = time.monotonic()
    hose.go()
    crowd = Crowd(url, wire)
    told: list[Said] = [place.ask("account", "open", "--key", place.key(cli))]
    slowest = 0.0
    while time.monotonic() - began < HELD_S:
        asked = time.monotonic()
        assert place.ask("account", "show", "--key", place.key("before")).code == 0, "reads go on"
        slowest = max(slowest, time.monotonic() - asked)
        time.sleep(0.5)
    growth = {name: each.memory_info().rss - sizes[name] for name, each in before.items()}
    growth["telemetry producer"] = hose.grown()
    print(name, {name: f"{grown / 2**20:.1f} MiB" for name, grown in growth.items()}, slowest)
    crowd.leave()
    hose.leave()
    met = sum(proxy.injected.values()) - met
    proxy.plan = undisturbed

    # Named and helpful: what happened, and that the same bytes may be sent again.
    assert {said.code for said in told} == {3}
    for said in told:
        assert "log_unavailable" in said.err or "append_unknown" in said.err
        assert "send the same bytes again" in said.err
    assert set(crowd.told) <= set(_NAMES), crowd.told
    assert crowd.told["log_unavailable"] > CLIENTS, (
        "who comes when enough wait is sent away at once"
    )
    assert hose.failed >= 2
    assert hose.offered <= (hose.failed + 1) * sum(map(len, CHUNK)), "an append holds its caller"
    assert {name: grown for name, grown in growth.items() if grown > GROWTH_MAX} == {}, growth
    assert slowest < 10.0

    # Clean catch-up: the same bytes run once, and nobody had to be started again.
    assert until(lambda: place.ask("account", "open", "--key", place.key(cli)).code == 0, 90)
    with closing(KafkaLog(proxy.bootstrap, client_id="reader")) as log:
        network = network_of(settings.load(place.network), AvroCodec())

        def opened() -> list[Any]:
            found = events(network, log, Ledger.MARKET)
            return [e.key for e in found if isinstance(e, AccountOpened)]

        assert Api(url).post("/v1/commands?wait_s=0", wire)
        until(lambda: key in opened(), within_s=60)
        keys = opened()
        assert keys.count(key) == 1
        assert len(keys) == len(set(keys))
    for name, role in place.running.items():
        assert before[name].is_running(), role.text()
    return met


def test_while_a_broker_refuses_writes_memory_is_bounded_and_everyone_is_told(
    town: tuple[Deployment, KafkaProxy], fault_matrix: FaultMatrix
) -> None:
    """Commands and telemetry are held back; the API says why and reads on; then all catches up."""
    plan = every_produce(Fault(do=Do.REFUSE, code=NOT_ENOUGH_REPLICAS))
    refused = held_back(*town, plan, "refused")
    fault_matrix.record(
        Seen(
            fault=f"a broker refuses every write for {HELD_S:.0f} s",
            where="kafka broker",
            runs=refused,
            test="tests/faults/test_kafka_refusal.py",
        )
    )


def test_while_a_broker_answers_nothing_memory_is_bounded_and_everyone_is_told(
    town: tuple[Deployment, KafkaProxy], fault_matrix: FaultMatrix
) -> None:
    """Every connection is taken, old and new, and no request of any kind has an answer."""
    swallowed = held_back(*town, lambda _: Fault(do=Do.SWALLOW), "swallowed")
    for name in ("market", "clock"):
        assert "Trying again in" in town[0].running[name].text()
    fault_matrix.record(
        Seen(
            fault=f"a broker takes connections and answers nothing for {HELD_S:.0f} s",
            where="kafka broker",
            runs=swallowed,
            test="tests/faults/test_kafka_refusal.py",
        )
    )
