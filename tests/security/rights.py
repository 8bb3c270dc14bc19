"""What each role may do on the brokers, and how a test finds out what it can."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial

from adapters.kafka_log import KafkaLog
from adapters.settings_security import Security
from domain.commit import COMMANDS_TOPIC, EVENTS_TOPIC, LEDGER_TOPICS, TELEMETRY_TOPIC, Ledger
from domain.ports import LogError

MARKET, METERING, SETTLEMENT = (LEDGER_TOPICS[ledger] for ledger in Ledger)
TOPICS = (COMMANDS_TOPIC, TELEMETRY_TOPIC, MARKET, METERING, SETTLEMENT, EVENTS_TOPIC)

#: Role, the topics that it reads, those that it appends to.
RIGHTS: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("fleet", (), (COMMANDS_TOPIC, TELEMETRY_TOPIC)),
    ("clock", (), (COMMANDS_TOPIC, TELEMETRY_TOPIC)),
    ("watcher", (), (COMMANDS_TOPIC,)),
    ("market", (COMMANDS_TOPIC, MARKET, METERING, SETTLEMENT), (MARKET,)),
    ("metering", (TELEMETRY_TOPIC, MARKET, METERING), (METERING,)),
    ("settlement", (MARKET, METERING, SETTLEMENT), (SETTLEMENT,)),
    ("api", (MARKET, METERING, SETTLEMENT), (COMMANDS_TOPIC, TELEMETRY_TOPIC)),
    ("sender", (SETTLEMENT,), ()),
    ("events", (MARKET, METERING, SETTLEMENT, EVENTS_TOPIC), (EVENTS_TOPIC,)),
    ("reader", TOPICS, ()),
    ("operator", (), ()),
)


def may(
    bootstrap: str, security: Security, role: str, topics: Sequence[str] = TOPICS
) -> tuple[set[str], set[str]]:
    """The topics that a role can read, and those that it can append to."""
    log = KafkaLog(
        bootstrap,
        client_id=f"test-{role}",
        security=security.options(role),
        append_timeout_s=5.0,
        read_timeout_s=5.0,
    )
    with closing(log):
        reads = {t for t in topics if _allowed(partial(log.read, t, 0, 0, max_bytes=1024))}
        writes = {t for t in topics if _allowed(partial(log.append, t, 0, b"noise"))}
    return reads, writes


def _allowed(what: Callable[[], object]) -> bool:
    """Whether the broker lets it happen; any other failure is one of the test."""
    try:
        what()
    except LogError as error:
        if "AuthorizationFailed" not in str(error):
            raise
        return False
    return True
