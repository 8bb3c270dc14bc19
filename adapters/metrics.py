"""The figures of a process, for Prometheus and whatever reads its format.

The newcomer's index is the head of ``Metrics``; ``docs/operations.md`` says what each is for. Names
end in their unit, and labels are few: a ledger and a shard, a topic and a partition, a code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from threading import Thread
from typing import Final, Protocol
from wsgiref.simple_server import WSGIServer

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    start_http_server,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from domain.commit import GateCount, Ledger
from domain.ports import LogError
from domain.refusal import CODES

MEDIA_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
LOOPBACK: Final = "127.0.0.1"
_SECOND_US: Final = 1_000_000
_COMMIT_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_COMMIT_BYTES: Final = tuple(1 << power for power in range(10, 23, 2))
_RECOVERY_S: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_PLACE: Final = ("ledger", "shard")
_SOURCE: Final = (*_PLACE, "topic", "partition")


class FollowedLedger(Protocol):
    """How far one ledger is followed into the read models; ``LedgerStatus`` is the one."""

    @property
    def ledger(self) -> Ledger:
        """Which ledger."""
        ...

    @property
    def shard(self) -> int:
        """Which shard of it."""
        ...

    @property
    def lag(self) -> int | None:
        """Records behind the log."""
        ...

    @property
    def lag_events(self) -> int | None:
        """Events behind the log's last commit."""
        ...

    @property
    def lag_us(self) -> int | None:
        """µs of the ledger's own time behind it."""
        ...

    @property
    def stopped(self) -> str | None:
        """Why no reader may go on."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Views:
    """What the read models could not take, and how far new ones are filled."""

    held_keys: int = 0
    held_events: int = 0
    money_stopped: int = 0
    filled_records: int = 0
    total_records: int = 0


class Metrics:
    """Every figure of one process."""

    def __init__(self) -> None:
        """Nothing is counted yet, and nothing is listened on."""
        self.registry = CollectorRegistry()
        to = self.registry
        self.commits = Counter("synor_commits", "Commits written.", _PLACE, registry=to)
        self.events = Counter("synor_events", "Events written.", _PLACE, registry=to)
        self.rows = Counter(
            "synor_rows", "Rows of telemetry accepted; its rate is rows a second.", _PLACE,
            registry=to,
        )  # fmt: skip
        self.commit_s = Histogram(
            "synor_commit_seconds",
            "From the decision of a commit to its acknowledgement by the log.",
            _PLACE,
            buckets=_COMMIT_S,
            registry=to,
        )
        self.commit_bytes = Histogram(
            "synor_commit_bytes",
            "Length of commits as written.",
            _PLACE,
            buckets=_COMMIT_BYTES,
            registry=to,
        )
        self.refusals = Counter(
            "synor_gate_refusals",
            "Records that the gate counted and refused without an event.",
            (*_PLACE, "code", "name"),
            registry=to,
        )
        self.raced = Counter(
            "synor_lost_races", "Commits decided again, since another's counts.", _PLACE,
            registry=to,
        )  # fmt: skip
        self.recoveries = Histogram(
            "synor_recovery_seconds",
            "Time to fold a processor's state anew.",
            _PLACE,
            buckets=_RECOVERY_S,
            registry=to,
        )
        self.recovered = Gauge(
            "synor_recovered_commits", "Commits folded by the last recovery.", _PLACE, registry=to
        )
        self.owned = Gauge(
            "synor_shard_owned",
            "1 while a group gives the shard to this process.",
            _PLACE,
            registry=to,
        )
        self.lag = Gauge(
            "synor_source_lag_records", "Records of a source not read yet.", _SOURCE, registry=to
        )
        self.late = Gauge(
            "synor_source_lag_seconds",
            "Age of the last record read of a source; 0 where all are read.",
            _SOURCE,
            registry=to,
        )
        self.noise = Counter(
            "synor_noise_records", "Records of a ledger that do not count.", _SOURCE, registry=to
        )
        self.stops = Counter(
            "synor_stops",
            "Times that a processor stopped for a named reason (fork, truncated, corrupt …).",
            (*_PLACE, "name"),
            registry=to,
        )
        self.outbox = Gauge(
            "synor_l1_outbox_checkpoints", "Checkpoints on their way to the L1.", registry=to
        )
        self.anchored = Gauge(
            "synor_l1_anchored_epoch", "Last epoch whose checkpoint is final on the L1.",
            registry=to,
        )  # fmt: skip
        self.observed = Gauge(
            "synor_l1_observed_block", "Last block whose events are on the log.", registry=to
        )
        self.unobserved = Gauge(
            "synor_l1_unobserved_blocks",
            "Blocks above it: not final yet, or not read yet.",
            registry=to,
        )
        self.facts = Counter(
            "synor_l1_events",
            "Events of the vault signed into the commands (deposit, checkpoint, claim).",
            ("kind",),
            registry=to,
        )
        self.ticks = Counter(
            "synor_ticks", "Seconds for which every partition has this clock's tick.", registry=to
        )
        self.published = Counter(
            "synor_published_events", "Events of the ledgers sent to their topic.", registry=to
        )
        self.failed_turns = Counter(
            "synor_failed_turns",
            "Turns that brokers or the L1 failed, each tried again.",
            ("error",),
            registry=to,
        )

    def of(self, ledger: Ledger, shard: int) -> WorkerFigures:
        """What takes the figures of one processor."""
        return WorkerFigures(self, ledger, shard)

    def text(self) -> bytes:
        """All figures in the format of Prometheus."""
        return generate_latest(self.registry)

    def serve(self, port: int) -> Served:
        """Answer on a port of loopback from a thread; 0 takes any free one.

        Raises ``LogError`` where the port cannot be had.
        """
        try:
            server, thread = start_http_server(port, addr=LOOPBACK, registry=self.registry)
        except OSError as error:
            raise LogError(
                f"Port {port} of {LOOPBACK} cannot be used ({error.strerror}); take another with "
                "--metrics-port."
            ) from error
        return Served(server, thread)

    def follow(
        self, status: Callable[[], Sequence[FollowedLedger]], views: Callable[[], Views]
    ) -> None:
        """Add how far the read models follow, asked anew at every look."""
        self.registry.register(_Following(status, views))


class Served:
    """Figures that are answered on a port."""

    def __init__(self, server: WSGIServer, thread: Thread) -> None:
        """What the library started."""
        self._server = server
        self._thread = thread
        self.port: int = server.server_port

    def stop(self) -> None:
        """Release the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class WorkerFigures:
    """The figures of one processor, under its labels (``domain.figures``)."""

    def __init__(self, metrics: Metrics, ledger: Ledger, shard: int) -> None:
        """Every counter stands at zero from the start, so that its rate is known."""
        self._metrics = metrics
        self._place = (ledger.name.lower(), str(shard))
        for each in (metrics.commits, metrics.events, metrics.rows, metrics.raced):
            each.labels(*self._place)
        for histogram in (metrics.commit_s, metrics.commit_bytes, metrics.recoveries):
            histogram.labels(*self._place)

    def recovered(self, *, commits: int, took_us: int) -> None:
        self._metrics.recoveries.labels(*self._place).observe(took_us / _SECOND_US)
        self._metrics.recovered.labels(*self._place).set(commits)

    def committed(
        self, *, events: int, rows: int, size_bytes: int, took_us: int, refused: Sequence[GateCount]
    ) -> None:
        metrics, place = self._metrics, self._place
        metrics.commits.labels(*place).inc()
        metrics.events.labels(*place).inc(events)
        metrics.rows.labels(*place).inc(rows)
        metrics.commit_s.labels(*place).observe(took_us / _SECOND_US)
        metrics.commit_bytes.labels(*place).observe(size_bytes)
        for each in refused:
            code = CODES.get(each.code)
            name = "" if code is None else code.name
            metrics.refusals.labels(*place, str(each.code), name).inc(each.count)

    def behind(self, topic: str, partition: int, *, records: int, late_us: int) -> None:
        where = (*self._place, topic, str(partition))
        self._metrics.lag.labels(*where).set(records)
        self._metrics.late.labels(*where).set(late_us / _SECOND_US)

    def noise(self, topic: str, partition: int, count: int) -> None:
        self._metrics.noise.labels(*self._place, topic, str(partition)).inc(count)

    def raced(self) -> None:
        self._metrics.raced.labels(*self._place).inc()

    def stopped(self, name: str) -> None:
        self._metrics.stops.labels(*self._place, name).inc()


class _Following(Collector):
    """How far each ledger is followed, read when somebody looks."""

    def __init__(
        self, status: Callable[[], Sequence[FollowedLedger]], views: Callable[[], Views]
    ) -> None:
        self._status = status
        self._views = views

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Nothing in advance: the read model may not be there yet."""
        return ()

    def collect(self) -> Iterable[GaugeMetricFamily]:
        def of_ledgers(name: str, text: str, *labels: str) -> GaugeMetricFamily:
            return GaugeMetricFamily(f"synor_projection_{name}", text, labels=(*_PLACE, *labels))

        lag = of_ledgers("lag_records", "Records of a ledger not projected yet.")
        events = of_ledgers("lag_events", "Events of a ledger not projected yet.")
        seconds = of_ledgers("lag_seconds", "Time of a ledger not projected yet.")
        stopped = of_ledgers("stopped", "1 for a ledger that is not followed further.", "name")
        for each in self._status():
            place = (each.ledger.name.lower(), str(each.shard))
            if each.lag is not None:
                lag.add_metric(place, each.lag)
            if each.lag_events is not None and each.lag_us is not None:
                events.add_metric(place, each.lag_events)
                seconds.add_metric(place, each.lag_us / _SECOND_US)
            if each.stopped is not None:
                stopped.add_metric((*place, each.stopped.partition(":")[0]), 1)
        yield from (lag, events, seconds, stopped)
        views = self._views()
        for name, text, value in (
            ("held_keys", "Aggregates with an event that is held.", views.held_keys),
            ("held_events", "Events that are held.", views.held_events),
            ("money_stopped", "Ledgers whose views of money stand still.", views.money_stopped),
            ("filled_records", "Records in read models in the making.", views.filled_records),
            ("filling_records", "Records that these will have.", views.total_records),
        ):
            yield GaugeMetricFamily(f"synor_projection_{name}", text, value=value)
