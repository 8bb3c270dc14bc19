"""The small system's undisturbed run, made once, and what every other run is compared with."""

from __future__ import annotations

from functools import cache

from adapters.bootstrap import audit
from tests.system.reading import Seat, story_of
from tests.system.small import SmallSystem, small_on_memory


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
