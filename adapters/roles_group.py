"""Metering shards that move between workers: a consumer group says who works which.

A worker that is given a shard recovers it (from a snapshot on this machine, else from its ledger)
and goes on; one that loses it ends its turn and lets go. Both may believe that they have it for a
while: then they are two writers, and one of two commits at a height is noise.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from adapters.eventsourcing_index import MEMORY
from adapters.roles import Deployment, Say, processor, take_turns
from adapters.settings import LogKind, SettingsInvalid
from domain.commit import TELEMETRY_TOPIC, Ledger

if TYPE_CHECKING:
    from adapters.metrics import Metrics

_ROLE = "metering"


@dataclass(frozen=True, slots=True)
class _Held:
    """A shard that a thread works, until ``let_go`` is set."""

    let_go: threading.Event
    working: Future[None]


class Shards:
    """The shards that this process works, brought in line with what it is given."""

    def __init__(
        self,
        body: Callable[[int], Callable[[threading.Event], None]],
        most: int,
        say: Say,
        told: Callable[[int, bool], None],
    ) -> None:
        """``body`` makes what works a shard; ``told`` hears of each shard gained and lost."""
        self._body = body
        self._say = say
        self._told = told
        self._pool = ThreadPoolExecutor(most, thread_name_prefix="shard")
        self._held: dict[int, _Held] = {}

    def follow(self, given: frozenset[int]) -> None:
        """Work what is given, let go of the rest. Raises what the work on a shard raised."""
        for shard, held in list(self._held.items()):
            if shard not in given and not held.let_go.is_set():
                held.let_go.set()
                self._say(f"metering {shard} is another worker's now.")
            if held.working.done():
                # One that is given back while it ends begins anew here.
                del self._held[shard]
                self._told(shard, False)
                held.working.result()
        for shard in sorted(given - self._held.keys()):
            let_go = threading.Event()
            working = self._pool.submit(self._body(shard), let_go)
            self._held[shard] = _Held(let_go, working)
            self._told(shard, True)

    def close(self) -> None:
        """Let go of all shards, and raise what the work on one raised."""
        for held in self._held.values():
            held.let_go.set()
        self._pool.shutdown()
        for shard, held in self._held.items():
            self._told(shard, False)
            held.working.result()


def work_in_group(
    deployment: Deployment,
    group: str,
    member: str | None,
    stop: threading.Event,
    say: Say,
    metrics: Metrics | None = None,
) -> None:
    """Run the metering shards that a consumer group gives to this process."""
    from adapters.kafka_group import KafkaGroup

    log = deployment.settings.log
    if log.kind is not LogKind.KAFKA:
        raise SettingsInvalid(
            f"{deployment.settings.path}: --group needs a log on Kafka; name --shards instead."
        )
    place = processor(deployment, Ledger.METERING, say, metrics)

    def told(shard: int, gained: bool) -> None:
        if metrics is not None:
            metrics.owned.labels(_ROLE, str(shard)).set(int(gained))

    # The index of a shard that comes and goes is made from its snapshot, in memory: a file would
    # be another process' at times.
    shards = Shards(lambda shard: place(shard, MEMORY), deployment.network.shards, say, told)
    with closing(
        KafkaGroup(
            log.bootstrap,
            group,
            TELEMETRY_TOPIC,
            client_id=f"synor-{_ROLE}",
            member=member,
            security=log.security.options(_ROLE),
        )
    ) as joined:
        try:
            say(f"Joined the group {group}.")
            take_turns(lambda: shards.follow(joined.shards()), stop, say)
        finally:
            # Before the group is left: whoever is given a shard then finds it free.
            shards.close()
