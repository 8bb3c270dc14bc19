"""Whatever anyone writes to an input: no exception, and no event without a good signature."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters.ed25519 import verify
from domain.gate import open_input
from domain.ledger import Tick
from domain.market import HANDLERS
from domain.refusal import WRONG_NETWORK, Refused
from domain.signed import Signed, preimage
from domain.telemetry import Batch, BatchBytes
from tests.gate_codec.gates import (
    ELSEWHERE,
    FOREIGN,
    FRESH,
    HIGHEST,
    HOUR,
    KEYS,
    LATEST,
    LEASE,
    NOBODYS,
    NODE,
    NOW,
    REVOKED,
    SIGNER,
    START,
    STRANGER,
    CommandGate,
    Recipe,
    Taken,
    TelemetryGate,
    codec,
    network,
)
from tests.schemas.strategies import instances
from tests.support.metering import EGRESS, TOKENS, as_bytes, lease_of

LONG = os.environ.get("SYNOR_LONG") == "1"
AnyGate = CommandGate | TelemetryGate
GATES: dict[str, Callable[[], AnyGate]] = {"command": CommandGate, "telemetry": TelemetryGate}
FUZZ = settings(
    max_examples=20_000 if LONG else 400,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
KINDS: list[type[Any]] = [*HANDLERS, Tick, Batch, BatchBytes]
#: One in force, one revoked, one unknown, and each role of the genesis.
SIGNERS = [SIGNER, REVOKED, STRANGER, KEYS.operator, KEYS.watcher, KEYS.attestor, KEYS.clock]
NUMBERS = st.sampled_from([FRESH, FRESH + 1, HIGHEST, 2**63 - 1]) | st.integers(0, 2**63 - 1)
SESSIONS = st.sampled_from([LATEST, NOW, NOW + 1]) | st.integers(0, 2**63 - 1)


@cache
def shared(kind: str) -> AnyGate:
    """For inputs that leave no trace."""
    return GATES[kind]()


def signed_rightly(value: bytes) -> bool:
    """By the library alone, over what the envelope says."""
    signed = codec().open_signed(value)
    if not isinstance(signed, Signed):
        return False
    message = preimage(
        signed.genesis,
        signed.kind,
        signed.key,
        signed.session,
        signed.number,
        signed.schema,
        signed.payload,
    )
    try:
        Ed25519PublicKey.from_public_bytes(signed.key).verify(signed.signature, message)
    except InvalidSignature:
        return False
    return True


def hold(taken: Taken, value: bytes) -> None:
    """What holds of any input: one refusal, one repeat, or events of who signed it."""
    assert sum(taken.counted.values()) <= 1
    # Records that are opened in bulk are refused as one alone is.
    alone = open_input(
        value,
        size_max=network().genesis.parameters.input_bytes,
        codec=codec(),
        verify=verify,
    )
    if isinstance(alone, Refused):
        assert taken.counted == {alone.code.number: 1}
    else:
        assert not any(code < WRONG_NETWORK.number for code in taken.counted)
    if taken.events:
        assert taken.counted == {}
        assert signed_rightly(value)


@pytest.mark.parametrize("kind", list(GATES))
@FUZZ
@given(value=st.binary(max_size=600))
def test_arbitrary_bytes_do_nothing(kind: str, value: bytes) -> None:
    """Nobody signs by chance."""
    taken = shared(kind).take(value)
    assert taken.events == ()
    assert sum(taken.counted.values()) == 1


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """The bytes with up to three stretches replaced by others."""
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(whole)))
        patch = draw(st.binary(max_size=12) | st.sampled_from([b"\xff" * 9, b"\x80\x00", b"\x00"]))
        whole = whole[:at] + patch + whole[at + draw(st.integers(0, 12)) :]
    return whole


@pytest.mark.parametrize("kind", list(GATES))
@FUZZ
@given(data=st.data())
def test_a_damaged_record_never_makes_an_event(kind: str, data: st.DataObject) -> None:
    """A right input with bytes changed, cut out or put in; it may come out whole again."""
    gate = GATES[kind]()
    right = gate.right(number=data.draw(NUMBERS), session=data.draw(SESSIONS)).bytes()
    value = data.draw(damaged(right))
    hold(gate.take(value), value)


@pytest.mark.parametrize("kind", list(GATES))
@FUZZ
@given(data=st.data())
def test_a_rightly_signed_payload_of_anything_is_answered(kind: str, data: st.DataObject) -> None:
    """Any record or damaged record, by a key in force, revoked or unknown: never an exception."""
    gate = GATES[kind]()
    payload = data.draw(st.sampled_from(KINDS).flatmap(instances))
    recipe = Recipe(
        payload=payload,
        number=data.draw(NUMBERS),
        session=data.draw(SESSIONS),
        signer=data.draw(st.sampled_from(SIGNERS)),
    )
    if data.draw(st.booleans()):
        recipe.raw = data.draw(damaged(codec().encode(payload)))
    value = recipe.bytes()
    hold(gate.take(value), value)
    # And the state that it has led to goes on.
    assert gate.take(gate.right(number=FRESH + 9).bytes()).counted in ({}, {209: 1}, {206: 1})


#: Figures at which a row's rules change their minds.
EDGES = [0, 1, -1, 63, 64, 2**62 - 1, 2**62, 2**62 + 1, 2**63 - 1, -(2**63)]
HOURS = [
    NOW + sign * hours * HOUR + by for hours in (0, 1, 24) for sign in (1, -1) for by in (-1, 0, 1)
]


@st.composite
def batches(draw: st.DrawFn) -> Batch | BatchBytes:
    """Readings of a lease that is metered, each figure at a limit, in either encoding."""
    nodes = draw(st.lists(st.sampled_from([NODE, NODE, FOREIGN, NOBODYS, ELSEWHERE]), max_size=3))
    leases = draw(st.lists(st.sampled_from([LEASE, LEASE, lease_of(2)]), max_size=2))
    row = st.tuples(
        st.sampled_from([0, 0, 1, len(leases), -1]),
        st.sampled_from([EGRESS, EGRESS, TOKENS, 0, 31, 32, -1]),
        st.sampled_from([0, 0, 1, 63, 64, -1]),
        st.sampled_from([*HOURS, START, 0, -(2**63), 2**63 - 1]),
        st.sampled_from(EDGES) | st.integers(0, 2**40),
    )
    rows = draw(st.lists(row, max_size=40))
    columns = list(zip(*rows, strict=True)) if rows else [()] * 5
    if draw(st.integers(0, 9)) == 0:
        columns[draw(st.integers(0, 4))] += (0,)
    lease, resource, generation, time_us, total = columns
    made = Batch(
        nodes=tuple([NODE, *nodes] if draw(st.booleans()) else nodes),
        leases=tuple(leases),
        lease=lease,
        resource=resource,
        generation=generation,
        time_us=time_us,
        total=total,
    )
    fits = all(0 <= n < 2**16 for n in (*lease, *resource)) and all(
        0 <= n < 2**8 for n in generation
    )
    return as_bytes(made) if fits and draw(st.booleans()) else made


@settings(FUZZ, max_examples=10_000 if LONG else 100)
@given(made=st.lists(st.tuples(batches(), st.booleans()), min_size=1, max_size=3))
def test_readings_at_every_limit_are_answered_the_same_again(
    made: list[tuple[Batch | BatchBytes, bool]],
) -> None:
    """Rightly signed, under fresh numbers or used ones; who folds the ledger answers alike."""
    gate = TelemetryGate()
    values = [
        gate.right(payload=payload, number=FRESH + (number if fresh else 0)).bytes()
        for number, (payload, fresh) in enumerate(made)
    ]
    for value in values:
        hold(gate.take(value), value)
    heir = TelemetryGate()
    heir.commits = list(gate.commits)
    heir.restart()
    for value in [*values, gate.right(number=FRESH + 9).bytes()]:
        first, second = gate.take(value), heir.take(value)
        assert first == second
        assert first.events == () or value not in values
