"""Who works which shard, decided by a consumer group: for liveness, never for safety.

A member joins the group on the telemetry topic and is told partitions; it fetches nothing through
the consumer (ADR 0006), so every partition that it is given is paused at once. Two members that
believe in the same shard for a while are two writers of one ledger: the first record at a height
counts, the other's is noise. Nobody commits offsets: positions stand in the ledgers.

The assignment is asked for after each poll, on the caller's thread. There is no rebalance listener,
since kafka-python calls one on its IO loop, where all that it may do is set a flag.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

from kafka import KafkaConsumer
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.errors import KafkaError

from adapters.kafka_tls import failed
from domain.ports import LogError

_POLL_MS: Final = 200


class KafkaGroup:
    """One membership. For one thread, which polls it often."""

    def __init__(
        self,
        bootstrap: str,
        group: str,
        topic: str,
        *,
        client_id: str,
        member: str | None = None,
        session_s: float = 10.0,
        security: Mapping[str, Any] | None = None,
    ) -> None:
        """Join ``group``. Raises ``LogError``.

        ``member`` is a name that outlives a restart (static membership): whoever comes back under
        it within ``session_s`` gets its shards again, and nobody else does before. Without it a
        member that leaves hands them on at once, and one that dies after ``session_s``.
        """
        self._topic = topic
        try:
            self._consumer = KafkaConsumer(
                bootstrap_servers=bootstrap,
                client_id=client_id,
                group_id=group,
                group_instance_id=member,
                # Shards that stay where they are go on working while others move.
                partition_assignment_strategy=[CooperativeStickyAssignor],
                enable_auto_commit=False,
                auto_offset_reset="latest",
                session_timeout_ms=int(session_s * 1000),
                heartbeat_interval_ms=int(session_s * 1000 / 4),
                max_partition_fetch_bytes=1024,
                **(security or {}),
            )
            self._consumer.subscribe([topic])
        except KafkaError as error:
            why = failed(error, bootstrap, security or {})
            raise LogError(f"The group {group} cannot be joined: {why}") from error

    def shards(self) -> frozenset[int]:
        """The shards that are this member's now; waits a moment. Raises ``LogError``."""
        try:
            self._consumer.poll(timeout_ms=_POLL_MS)
            mine = self._consumer.assignment()
            if mine:
                self._consumer.pause(*mine)
            else:
                # A poll without a partition does not wait.
                time.sleep(_POLL_MS / 1000)
        except KafkaError as error:
            raise LogError(f"The group cannot be asked: {error}.") from error
        return frozenset(each.partition for each in mine if each.topic == self._topic)

    def close(self) -> None:
        """Leave; the shards go to others at once, unless the membership is static."""
        self._consumer.close(autocommit=False)
