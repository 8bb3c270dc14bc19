"""Keys come, change and go by events; who may sign is judged at the market height consumed."""

from __future__ import annotations

from typing import Any

import pytest

from adapters.ed25519 import Signer, prove
from domain.account import OpenAccount, SetPayee
from domain.genesis import Role
from domain.ids import AccountId, Address, account_of
from domain.key import KeyRegistered, KeyRevoked, RegisterKey, RevokeKey
from domain.refusal import REVOKED_KEY, UNKNOWN_KEY
from domain.telemetry import TelemetryAccepted
from tests.gate_codec.gates import (
    FRESH,
    NOW,
    REVOKED,
    SIGNER,
    STRANGER,
    CommandGate,
    Recipe,
    Taken,
    TelemetryGate,
    network,
)

ACCOUNT = account_of(SIGNER.public)
NEW = STRANGER


def gateway(key: Signer, account: AccountId = ACCOUNT) -> KeyRegistered:
    """The market's event."""
    return KeyRegistered(at_us=NOW, key=key.public, role=Role.GATEWAY, account=account)


def accepted(taken: Taken) -> bool:
    """Whether the batch was."""
    return any(isinstance(event, TelemetryAccepted) for event in taken.events)


def test_telemetry_of_a_new_key_counts_from_the_height_that_registers_it() -> None:
    """Before: unknown, and its number is untouched. From the consumed height on: accepted."""
    gate = TelemetryGate()
    value = gate.right(signer=NEW, number=0).bytes()
    assert gate.take(value).counted == {UNKNOWN_KEY.number: 1}
    gate.learn(NOW)  # A height without the registration changes nothing.
    assert gate.take(value).counted == {UNKNOWN_KEY.number: 1}
    gate.learn(NOW, gateway(NEW))
    assert accepted(gate.take(value))


def test_telemetry_of_a_revoked_key_ends_with_the_height_that_revokes_it() -> None:
    """When it was signed or appended does not matter, only what the shard has consumed."""
    gate = TelemetryGate()
    batches = [gate.right(number=FRESH + n).bytes() for n in range(3)]
    assert accepted(gate.take(batches[0]))
    gate.learn(NOW, KeyRevoked(at_us=NOW - 1, key=SIGNER.public))
    assert gate.take(batches[1]).counted == {REVOKED_KEY.number: 1}
    assert gate.take(batches[0]).counted == {REVOKED_KEY.number: 1}
    gate.restart()
    assert gate.take(batches[2]).counted == {REVOKED_KEY.number: 1}


def test_rotation_is_one_height_before_which_the_old_key_signs_and_after_which_the_new() -> None:
    """Both events in one commit of the market: there is no instant with both or with neither."""
    gate = TelemetryGate()

    def both(number: int) -> tuple[Any, Any]:
        old = gate.take(gate.right(number=FRESH + number).bytes())
        new = gate.take(gate.right(signer=NEW, number=number).bytes())
        return old, new

    old, new = both(0)
    assert (accepted(old), new.counted) == (True, {UNKNOWN_KEY.number: 1})
    gate.learn(NOW, gateway(NEW), KeyRevoked(at_us=NOW, key=SIGNER.public))
    old, new = both(1)
    assert (old.counted, accepted(new)) == ({REVOKED_KEY.number: 1}, True)
    gate.restart()
    old, new = both(2)
    assert (old.counted, accepted(new)) == ({REVOKED_KEY.number: 1}, True)


def test_a_command_is_judged_by_the_keys_of_the_markets_own_order() -> None:
    """Registered, used, revoked and refused within one step, in the order of the log."""
    gate = CommandGate()
    pay = SetPayee(payee=Address(b"n" * 20))
    steps = [
        Recipe(payload=pay, signer=NEW, number=0),
        Recipe(payload=_register(NEW), number=FRESH),
        Recipe(payload=pay, signer=NEW, number=1),
        Recipe(payload=RevokeKey(key=NEW.public), number=FRESH + 1),
        Recipe(payload=pay, signer=NEW, number=2),
    ]
    taken = gate.take(*(step.bytes() for step in steps))
    assert taken.counted == {UNKNOWN_KEY.number: 1, REVOKED_KEY.number: 1}
    assert taken.answers == (0, 0, 0)
    assert [type(event) for event in taken.events if isinstance(event, KeyRegistered)]


def _register(
    new: Signer,
    *,
    genesis: bytes | None = None,
    account: AccountId = ACCOUNT,
    role: Role = Role.OWNER,
) -> RegisterKey:
    """With a proof over what is given, right or wrong."""
    proof = prove(new, network().hash if genesis is None else genesis, account, role)
    return RegisterKey(key=new.public, role=Role.OWNER, proof=proof)


@pytest.mark.parametrize(
    "command",
    [
        RegisterKey(key=NEW.public, role=Role.OWNER),
        RegisterKey(key=NEW.public, role=Role.OWNER, proof=bytes(64)),
        RegisterKey(
            key=NEW.public,
            role=Role.OWNER,
            proof=prove(SIGNER, network().hash, ACCOUNT, Role.OWNER),
        ),
        _register(NEW, genesis=bytes(32)),
        _register(NEW, account=account_of(REVOKED.public)),
        _register(NEW, role=Role.GATEWAY),
    ],
    ids=["none", "zeros", "by another", "other network", "other account", "other role"],
)
def test_a_key_is_registered_only_with_its_own_word(command: RegisterKey) -> None:
    """Nobody takes a key that is another's, so that its holder could not open an account."""
    gate = CommandGate()
    assert gate.take(Recipe(payload=command).bytes()).answers == (330,)
    opened = Recipe(payload=OpenAccount(payee=Address(bytes(20))), signer=NEW, number=0)
    assert gate.take(opened.bytes()).answers == (0,)
