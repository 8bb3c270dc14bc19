"""Who works which shard, decided by a consumer group: for liveness, never for safety.

A member joins the group on the telemetry topic and is told partitions; it fetches nothing through
the consumer (ADR 0006), so every partition that it is given is paused at once. Two members that
believe in the same shard for a while are two writers of one ledger: the first record at a height
counts, the other's is noise. Nobody commits offsets: positions stand in the ledgers.

The assignment is asked for after each poll, on the caller's thread. There is no rebalance listener,
since kafka-python calls one on its IO loop, where all that it may do is set a flag.

kafka-python (3.0) forgets a join that ends between two polls, if it was begun because the topic's
partitions had become known or had changed: such a member sends no more heartbeats, the brokers put
it out, and it never asks again. So a join is waited for in long polls, and a member that is not
settled for as long as the brokers keep a silent one leaves and joins anew.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

from kafka import KafkaConsumer
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.base import MemberState
from kafka.errors import KafkaError

from adapters.kafka_tls import failed
from domain.ports import LogError

_POLL_MS: Final = 200
_JOINING_MS: Final = 1_000


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
        self._session_s = session_s
        self._settled_at = time.monotonic()
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
            self._consumer.poll(timeout_ms=_POLL_MS if self._settled() else _JOINING_MS)
            if self._settled():
                self._settled_at = time.monotonic()
            elif time.monotonic() - self._settled_at > self._session_s:
                self._consumer.unsubscribe()
                self._consumer.subscribe([self._topic])
                self._settled_at = time.monotonic()
            mine = self._consumer.assignment()
            if mine:
                self._consumer.pause(*mine)
        except KafkaError as error:
            raise LogError(f"The group cannot be asked: {error}.") from error
        return frozenset(each.partition for each in mine if each.topic == self._topic)

    def _settled(self) -> bool:
        """Whether the brokers and this member agree on its shards."""
        return self._consumer.group_metadata().state is MemberState.STABLE

    def close(self) -> None:
        """Leave; the shards go to others at once, unless the membership is static."""
        self._consumer.close(autocommit=False)
