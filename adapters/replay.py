"""A replay: foreign data through the same gate and processors as everything else.

A mapping says what rows become; a driver signs it in logical time on a log of choice, in one
process and without an EVM. Every figure of the result is read from the ledger.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Final

from adapters.bootstrap import Network, audit, create_topics
from adapters.embedded import Embedded, SystemKeys, genesis_of
from adapters.kafka_broker import KafkaBroker
from adapters.kafka_log import KafkaLog
from adapters.kafka_topics import KafkaTopics
from adapters.local_topics import LocalTopics
from adapters.memory_log import MemoryLog
from adapters.replay_driver import Driver
from adapters.replay_files import Counts, files_of, price_rows, timed
from adapters.replay_mapping import ReplayMapping, load_mapping
from adapters.replay_values import ReplayRefused
from adapters.sqlite_log import SqliteLog
from domain.catalogue import VERSION_1, PriceRow
from domain.commit import Ledger
from domain.genesis import TimeSource, broken_bounds
from domain.ids import account_of
from domain.market import Market
from domain.ports import Log, TopicAdmin
from domain.refusal import CODES

LOGS: Final = ("sqlite", "kafka", "memory")

Say = Callable[[str], None]
Group = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """What a replay ended with. ``unlike`` names figures that the mapping expected otherwise."""

    figures: dict[str, Any]
    unlike: tuple[str, ...]

    def json(self) -> str:
        """One line."""
        return json.dumps(self.figures)


def run_replay(
    mapping_path: Path,
    data_path: Path,
    *,
    log: str = "sqlite",
    folder: Path | None = None,
    shuffle: int | None = None,
    duplicates: int | None = None,
    audited: bool = False,
    say: Say = lambda text: None,
) -> ReplayResult:
    """Replay data by a mapping. Raises ``ReplayRefused`` for a mapping or row of no use.

    ``folder`` (by default a new temporary one; none for the memory log) keeps the ledger.
    """
    if log not in LOGS:
        raise ReplayRefused(f"{log!r} is none of {LOGS}")
    started = time.monotonic()
    mapping = load_mapping(mapping_path)
    files = files_of(mapping, data_path)
    keys = SystemKeys.derived(hashlib.sha256(b"synor replay" + mapping.name.encode()).digest())
    network = _network(mapping, keys, price_rows(mapping, files))
    place = _place(log, folder)
    with _log(log, place) as (opened, topics, group):
        create_topics(network, topics)
        system = Embedded(network, keys, opened, folder=place, group=group)
        counts = Counts()
        driver = Driver(system, mapping, shuffle=shuffle, duplicates=duplicates)
        try:
            driver.run(timed(mapping, files, counts))
            figures = _figures(mapping, system, driver, counts)
        finally:
            system.close()
        figures["log"] = log
        figures["ledger"] = None if place is None else str(place)
        figures["seconds"] = round(time.monotonic() - started)
        if audited:
            say("Replayed; now everything is decided again and compared.")
            verdict = audit(network, opened)
            figures["audit"] = "ok"
            figures["state_hash"] = verdict.state_hash
            figures["audit_seconds"] = round(time.monotonic() - started) - figures["seconds"]
    return ReplayResult(figures, tuple(_unlike(mapping, figures)))


def _network(mapping: ReplayMapping, keys: SystemKeys, rows: tuple[PriceRow, ...]) -> Network:
    wrong = broken_bounds(mapping.parameters)
    if wrong:
        raise ReplayRefused("genesis: " + "; ".join(wrong))
    named = {row.resource for row in rows}
    listed = tuple(row for row in VERSION_1 if row.resource not in named)
    return Network.first(
        lambda nonce: genesis_of(
            keys,
            name=f"replay {mapping.name}",
            start_us=mapping.origin_us - mapping.lead_us,
            time_source=TimeSource.LOGICAL,
            parameters=mapping.parameters,
            catalogue=(*listed, *rows),
            nonce=nonce,
        ),
        mapping.shards,
    )


def _place(log: str, folder: Path | None) -> Path | None:
    if folder is None:
        return None if log == "memory" else Path(mkdtemp(prefix="synor-replay-"))
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise ReplayRefused(f"{folder} is not empty; a replay begins a ledger of its own")
    return folder


@contextmanager
def _log(kind: str, folder: Path | None) -> Iterator[tuple[Log, TopicAdmin, Group]]:
    if kind == "memory":
        memory = MemoryLog(lambda: 0)
        yield memory, LocalTopics(memory), nullcontext
        return
    assert folder is not None, "a durable log has a folder"
    if kind == "sqlite":
        # Survives this process; a machine that dies takes a replay with it, which is run again.
        sqlite = SqliteLog(folder / "ledger.db", clock_us=lambda: 0, durable=False)
        try:
            yield sqlite, LocalTopics(sqlite), sqlite.group
        finally:
            sqlite.close()
        return
    with KafkaBroker(folder / "kafka") as broker:
        admin = KafkaTopics(broker.bootstrap)
        kafka = KafkaLog(broker.bootstrap, client_id="synor-replay", sole_writer=True)
        try:
            yield kafka, admin, nullcontext
        finally:
            kafka.close()
            admin.close()


def _figures(
    mapping: ReplayMapping, system: Embedded, driver: Driver, counts: Counts
) -> dict[str, Any]:
    """The whole report but for what only an audit tells."""
    market = system.workers[Ledger.MARKET, 0].processor
    assert isinstance(market, Market)
    buyers: dict[bytes, str] = {
        account_of(actor.key): name for name, actor in driver.cast.buyers.items()
    }
    gate: dict[str, int] = {}
    for follower in (driver.market, *driver.meters):
        for code, count in follower.gate.items():
            gate[CODES[code].name] = gate.get(CODES[code].name, 0) + count
    followers = (driver.market, *driver.meters)
    return {
        "mapping": mapping.name,
        "rows": counts.rows,
        "rows_left_out": counts.left_out,
        "became": dict(sorted(counts.became.items())),
        **driver.tally.figures(mapping.totals, buyers),
        "gate_refused": dict(sorted(gate.items())),
        "active_at_end_of_data": driver.active_at_end,
        "late_ready": driver.late_ready,
        "ends_of_no_lease": driver.ends_of_no_lease,
        "records": driver.cast.records,
        "duplicates": driver.cast.duplicates,
        "ticks": system.time.ticks,
        "events": sum(follower.events for follower in followers),
        "commits": sum(follower.height + 1 for follower in followers),
        "balances": market.folds.balances.root().hex(),
    }


def _unlike(mapping: ReplayMapping, figures: dict[str, Any]) -> Iterator[str]:
    for path, wanted in mapping.expect.items():
        found: Any = figures
        for name in path.split("/"):
            found = found.get(name) if isinstance(found, dict) else None
        if found != wanted:
            yield f"{path} is {found}, expected {wanted}"
