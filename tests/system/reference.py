"""The small system's undisturbed run, made once, and what every other run is compared with."""

from __future__ import annotations

from functools import cache
from typing import Final

from adapters.bootstrap import audit
from domain.commit import COMMANDS_TOPIC, TELEMETRY_TOPIC
from domain.key import CommandAnswered
from domain.signed import Signed
from domain.telemetry import TelemetryAccepted, TelemetryRefused
from tests.system.reading import Seat, commits, events, records, story_of
from tests.system.small import SmallSystem, small_on_memory

TICK: Final = "synor.command.v1.Tick"


@cache
def reference(shards: int = 2) -> SmallSystem:
    """The run that nothing disturbs; nobody may append to its log."""
    return small_on_memory(shards=shards).run()


@cache
def reference_hash(shards: int = 2) -> str:
    """Its state."""
    system = reference(shards)
    return audit(system.network, system.log).state_hash


@cache
def reference_story() -> dict[Seat, list[bytes]]:
    """Its events."""
    return story_of(reference().network, reference().log)


def check_same(system: SmallSystem) -> None:
    """The ledgers are right, and say what the undisturbed run's say."""
    verdict = audit(system.network, system.log)
    assert story_of(system.network, system.log) == reference_story()
    assert verdict.state_hash == reference_hash()


def check_same_in_any_order(system: SmallSystem) -> None:
    """As ``check_same``, where the market may have heard one shard before another."""
    verdict = audit(system.network, system.log)
    found, expected = story_of(system.network, system.log), reference_story()
    assert {seat: sorted(events) for seat, events in found.items()} == {
        seat: sorted(events) for seat, events in expected.items()
    }
    assert verdict.state_hash == reference_hash()


def check_heard(system: SmallSystem) -> None:
    """The ledgers are right, and every input was answered or counted as refused, once.

    A market that is late registers a node later, and clears a round before it hears of another: a
    batch may come too early, and what people send depends on what they have seen. So neither
    events nor answers are those of the undisturbed run.
    """
    audit(system.network, system.log)
    answered = [
        (event.key, event.session, event.number)
        for seat in system.seats
        for event in events(system.network, system.log, *seat)
        if isinstance(event, (CommandAnswered, TelemetryAccepted, TelemetryRefused))
    ]
    counted = sum(
        refused.count
        for seat in system.seats
        for body in commits(system.network, system.log, *seat)
        for refused in body.refused
    )
    sent = {
        (topic, partition, record.value)
        for topic, partitions in ((COMMANDS_TOPIC, 1), (TELEMETRY_TOPIC, system.network.shards))
        for partition in range(partitions)
        for record in records(system.log, topic, partition)
    }
    opened = [system.network.codec.open_signed(value) for *_, value in sent]
    ticks = sum(isinstance(each, Signed) and each.kind == TICK for each in opened)
    assert len(answered) == len(set(answered))
    assert len(answered) + counted == len(sent) - ticks
