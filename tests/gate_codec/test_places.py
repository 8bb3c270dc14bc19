"""For another network, for another shard: judged after the key and before the number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest

from domain.genesis import TimeSource
from domain.ledger import Tick
from domain.refusal import BAD_SIGNATURE, KEY_ROLE, UNKNOWN_KEY, WRONG_NETWORK, WRONG_SHARD, Code
from domain.telemetry import TelemetryAccepted, TelemetryRefused
from tests.gate_codec.gates import (
    ELSEWHERE,
    FORGOTTEN,
    FRESH,
    HIGHEST,
    HOUR,
    KEYS,
    NOBODYS,
    NODE,
    NOW,
    SIGNER,
    STRANGER,
    CommandGate,
    Recipe,
    TelemetryGate,
)
from tests.support.metering import batch

FOREIGN_NETWORK = b"\x09" * 32
GATES: dict[str, Callable[[], CommandGate | TelemetryGate]] = {
    "command": CommandGate,
    "telemetry": TelemetryGate,
}


@pytest.mark.parametrize("kind", list(GATES))
def test_what_is_signed_for_another_network_touches_nobodys_number(kind: str) -> None:
    """The same key may be in use in two networks: a record of the one is nothing in the other."""
    gate = GATES[kind]()
    foreign = gate.right(genesis=FOREIGN_NETWORK).bytes()
    taken = gate.take(foreign)
    assert (taken.events, taken.counted) == ((), {WRONG_NETWORK.number: 1})
    assert gate.take(gate.right().bytes()).counted == {}
    assert gate.take(foreign).counted == {WRONG_NETWORK.number: 1}
    stranger = gate.right(genesis=FOREIGN_NETWORK, signer=STRANGER).bytes()
    assert gate.take(stranger).counted == {UNKNOWN_KEY.number: 1}


@pytest.mark.parametrize("kind", list(GATES))
def test_a_tick_of_another_network_moves_no_time(kind: str) -> None:
    """One clock key may serve two networks; only ticks that are signed for this one are its."""
    gate = GATES[kind]()
    gate.processor.time_source = TimeSource.LOGICAL
    later = gate.processor.time_us + HOUR
    tick = Recipe(payload=Tick(time_us=later), signer=KEYS.clock, session=0, number=0)
    foreign = replace(tick, genesis=FOREIGN_NETWORK)
    before = gate.processor.time_us
    assert gate.take(foreign.bytes()).counted == {WRONG_NETWORK.number: 1}
    assert gate.processor.time_us == before
    assert gate.take(tick.bytes()).counted == {}
    assert gate.processor.time_us == later


@pytest.mark.parametrize("kind", list(GATES))
def test_of_two_faults_of_a_tick_the_earlier_one_is_answered(kind: str) -> None:
    """Signature, then clock, then network; no other key moves time, whatever else it may do."""
    gate = GATES[kind]()
    gate.processor.time_source = TimeSource.LOGICAL
    faults: tuple[tuple[Code, dict[str, Any]], ...] = (
        (BAD_SIGNATURE, {"signature": lambda s: bytes([s[0] ^ 1]) + s[1:]}),
        (KEY_ROLE, {"signer": SIGNER}),
        (WRONG_NETWORK, {"genesis": FOREIGN_NETWORK}),
    )
    before = gate.processor.time_us
    tick = Recipe(payload=Tick(time_us=before + HOUR), signer=KEYS.clock)
    for (code, first), (_, second) in combinations(faults, 2):
        for fields in (first, first | second):
            assert gate.take(replace(tick, **fields).bytes()).counted == {code.number: 1}
    assert gate.processor.time_us == before


def test_a_batch_for_another_shard_is_answered_once_and_its_repeat_is_silent() -> None:
    """An event under a new number; the same bytes again are a repeat, here and after a restart."""
    gate = TelemetryGate()
    value = gate.right(payload=batch([NODE, ELSEWHERE])).bytes()
    (refused,) = gate.take(value).events
    assert isinstance(refused, TelemetryRefused)
    assert (refused.code, refused.number) == (WRONG_SHARD.number, FRESH)
    for _ in range(2):
        taken = gate.take(value)
        assert (taken.events, taken.counted) == ((), {})
        gate.restart()


@pytest.mark.parametrize(
    "place",
    [
        {"number": HIGHEST},
        {"number": 7},
        {"session": FORGOTTEN},
        {"session": NOW + 10**12},
    ],
    ids=["other content", "below the window", "session too old", "session ahead"],
)
def test_a_batch_for_another_shard_under_a_refused_number_is_counted(place: dict[str, int]) -> None:
    """It is of another shard, whatever its number is worth; without an event nothing grows."""
    gate = TelemetryGate()
    taken = gate.take(gate.right(payload=batch([ELSEWHERE]), **place).bytes())
    assert (taken.events, taken.counted) == ((), {WRONG_SHARD.number: 1})


def test_a_number_that_was_refused_for_its_shard_is_used_up() -> None:
    """Other content under it, for the right shard, is in conflict; the next number goes."""
    gate = TelemetryGate()
    assert gate.take(gate.right(payload=batch([NODE, ELSEWHERE])).bytes()).answers
    assert gate.take(gate.right().bytes()).counted == {208: 1}
    (accepted,) = (
        event
        for event in gate.take(gate.right(number=FRESH + 1).bytes()).events
        if isinstance(event, TelemetryAccepted)
    )
    assert accepted.number == FRESH + 1


@pytest.mark.parametrize("session", [NOW, NOW + 1], ids=["the session", "a later session"])
def test_a_copy_of_a_batch_for_another_shard_takes_no_number_here(session: int) -> None:
    """Whoever copies what a gateway signed for elsewhere, far ahead or in other sessions, is noise.

    Before and after a restart the signer's own next batch is accepted as if there were no copies.
    """
    gate = TelemetryGate()
    for restart in (False, True):
        if restart:
            gate.restart()
        for ahead in (0, 1, 63, 64, 1000):
            copied = gate.right(
                payload=batch([ELSEWHERE, ELSEWHERE]), number=FRESH + ahead, session=session
            )
            taken = gate.take(copied.bytes())
            assert (taken.events, taken.counted) == ((), {WRONG_SHARD.number: 1})
    own = gate.take(gate.right().bytes())
    assert [type(event) for event in own.events if hasattr(event, "rows")] == [TelemetryAccepted]
    assert own.counted == {}


def test_a_node_of_nobody_does_not_hide_one_of_another_shard() -> None:
    """Every listed node is looked at, not only the first that is not known."""
    gate = TelemetryGate()
    taken = gate.take(gate.right(payload=batch([NOBODYS, NODE, ELSEWHERE])).bytes())
    assert taken.answers == (WRONG_SHARD.number,)
