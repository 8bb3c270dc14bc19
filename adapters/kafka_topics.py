"""Topics on Kafka: created with the settings that the ledger needs, and checked for weaker ones.

A broker's defaults lose money: a topic that deletes after seven days, takes the producer's word for
the time, elects a leader that lacks records. So every setting that matters is written out when a
topic is created, and looked at again each time a process starts, whoever has changed it since.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import kafka.errors as errors
from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType

from adapters.kafka_tls import failed
from domain.ports import LogError, SettingsRefused

# A record of 8 MiB and what Kafka puts around it.
_MAX_MESSAGE_BYTES: Final = (8 << 20) + (64 << 10)
_RETENTION_MS: Final = 90 * 24 * 3_600_000
_WANTED_REPLICAS: Final = 3
_UNLIMITED: Final = -1
_SETTINGS_WITHIN_S: Final = 5.0

# What a setting must be, word for word.
_EXACT: Final[Mapping[str, str]] = {
    "message.timestamp.type": "LogAppendTime",
    "cleanup.policy": "delete",
    "unclean.leader.election.enable": "false",
    "compression.type": "producer",
}


class KafkaTopics:
    """The ``TopicAdmin`` port on Kafka. It needs the rights Create and DescribeConfigs."""

    def __init__(
        self,
        bootstrap: str,
        *,
        client_id: str = "synor-topics",
        security: Mapping[str, object] | None = None,
        timeout_s: float = 30.0,
    ) -> None:
        """Connect. Raises ``LogError`` if no broker answers within ``timeout_s``."""
        timeout_ms = self._timeout_ms = int(timeout_s * 1000)
        try:
            self._admin = KafkaAdminClient(
                **(security or {}),
                bootstrap_servers=bootstrap,
                client_id=client_id,
                bootstrap_timeout_ms=timeout_ms,
                request_timeout_ms=timeout_ms,
            )
        except errors.KafkaError as error:
            why = failed(error, bootstrap, security or {})
            raise LogError(f"No broker at {bootstrap}: {why}") from error

    def create(self, topic: str, partitions: int, *, keep_forever: bool) -> None:
        """Create the topic if it is absent. Raises ``SettingsRefused`` if it is a weaker one."""
        try:
            if self._described(topic) is None:
                self._create(topic, partitions, keep_forever)
        except errors.KafkaError as error:
            raise LogError(f"Topic {topic}: {type(error).__name__} {error}") from error
        weaker = self.check(topic, partitions, keep_forever=keep_forever)
        if weaker:
            raise SettingsRefused(" ".join(weaker))

    def _create(self, topic: str, partitions: int, keep_forever: bool) -> None:
        replicas = min(_WANTED_REPLICAS, self._brokers())
        configs = {
            **_EXACT,
            "max.message.bytes": str(_MAX_MESSAGE_BYTES),
            "retention.ms": str(_UNLIMITED if keep_forever else _RETENTION_MS),
            "retention.bytes": str(_UNLIMITED),
            "min.insync.replicas": str(_needed_in_sync(replicas)),
        }
        wanted = {
            "num_partitions": partitions,
            "replication_factor": replicas,
            "configs": configs,
        }
        # Another process may be quicker; what it made is checked like any other.
        with contextlib.suppress(errors.TopicAlreadyExistsError):
            self._admin.create_topics({topic: wanted})
        self._admin.wait_for_topics([topic])

    def check(self, topic: str, partitions: int, *, keep_forever: bool = True) -> Sequence[str]:
        """Each weaker setting as a sentence: topic, setting, its value, what it must be."""
        try:
            described = self._described(topic)
            if described is None:
                return [f"Topic {topic} does not exist on the brokers."]
            settings = self._settings(topic)
            brokers = self._brokers()
        except errors.KafkaError as error:
            raise LogError(f"Topic {topic}: {type(error).__name__} {error}") from error
        found = len(described["partitions"])
        replicas = min(len(p["replica_nodes"]) for p in described["partitions"])
        wanted_replicas = min(_WANTED_REPLICAS, brokers)
        retention_ms = _UNLIMITED if keep_forever else _RETENTION_MS
        complaints = [
            _unless(found == partitions, "partitions", found, partitions),
            _unless(
                replicas >= wanted_replicas, "replication", replicas, f"at least {wanted_replicas}"
            ),
            *(
                _unless(settings[name] == value, name, settings[name], value)
                for name, value in _EXACT.items()
            ),
            _at_least(settings, "max.message.bytes", _MAX_MESSAGE_BYTES),
            _kept(settings, "retention.ms", retention_ms),
            _kept(settings, "retention.bytes", _UNLIMITED),
            _at_least(settings, "min.insync.replicas", _needed_in_sync(replicas)),
        ]
        return [f"Topic {topic}: {complaint}." for complaint in complaints if complaint]

    def delete_before(self, topic: str, partition: int, start: int) -> None:
        """Delete the records before an offset, on every replica. It needs the right Delete."""
        place = TopicPartition(topic, partition)
        try:
            self._admin.delete_records({place: start}, timeout_ms=self._timeout_ms)
        except errors.KafkaError as error:
            raise LogError(f"{topic}/{partition} is not shortened: {error}") from error

    def close(self) -> None:
        """Close the connections."""
        self._admin.close()

    def _described(self, topic: str) -> Any:
        (described,) = self._admin.describe_topics([topic])
        error = errors.for_code(described["error_code"])
        if error is errors.UnknownTopicOrPartitionError:
            return None
        if described["error_code"]:
            raise error()
        return described

    def _settings(self, topic: str) -> Mapping[str, str]:
        resource = ConfigResource(ConfigResourceType.TOPIC, topic)
        deadline = time.monotonic() + _SETTINGS_WITHIN_S
        while True:
            described = self._admin.describe_configs([resource], config_filter="all")
            settings = described["topic"][topic]
            if settings:
                return {name: setting["value"] for name, setting in settings.items()}
            # A broker that has just come up, or a topic that was just made: it knows in a moment.
            if time.monotonic() > deadline:
                raise LogError(f"Topic {topic}: the brokers do not tell its settings.")
            time.sleep(0.05)

    def _brokers(self) -> int:
        return len(self._admin.describe_cluster()["brokers"])


def _needed_in_sync(replicas: int) -> int:
    return 2 if replicas >= _WANTED_REPLICAS else 1


def _unless(fine: bool, setting: str, found: object, wanted: object) -> str:
    return "" if fine else f"{setting} is {found}, must be {wanted}"


def _at_least(settings: Mapping[str, str], setting: str, least: int) -> str:
    found = int(settings[setting])
    return _unless(found >= least, setting, found, f"at least {least}")


def _kept(settings: Mapping[str, str], setting: str, wanted: int) -> str:
    found = int(settings[setting])
    if wanted == _UNLIMITED:
        return _unless(found == _UNLIMITED, setting, found, _UNLIMITED)
    return _unless(found == _UNLIMITED or found >= wanted, setting, found, f"at least {wanted}")
