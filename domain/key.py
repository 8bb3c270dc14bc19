"""Keys: who may sign what, and what each signed command was answered (R6.7, design 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, assert_never

from domain.genesis import Role
from domain.ids import (
    AccountId,
    AggregateId,
    Hash32,
    NodeId,
    PublicKey,
    derive,
    length_prefixed,
)
from domain.invariant import invariant
from domain.record import record
from domain.refusal import KEY_ROLE, Refused, code

_POSSESSION_TAG: Final = b"synor-key/1"


def possession(genesis: bytes, account: bytes, key: bytes, role: Role) -> bytes:
    """What a new key signs itself, so that nobody registers a key that is another's.

    ``synor-key/1``, genesis hash, account, key, name of the role, each behind its length.
    """
    return length_prefixed(_POSSESSION_TAG, genesis, account, key, role.value.encode())


def key_aggregate(key: bytes) -> AggregateId:
    """The aggregate of a key."""
    return AggregateId(derive("key", key))


@record("synor.key.v1.KeyRegistered")
class KeyRegistered:
    """A key is in force, with a role, for an account (and for one node where it is a node's)."""

    at_us: Annotated[int, "effective time, µs UTC"]
    key: Annotated[PublicKey, "Ed25519 public key"]
    role: Annotated[Role, "what it may do"]
    account: Annotated[AccountId, "account for which it acts; zero for operators of the market"]
    node: Annotated[NodeId | None, "the one node for which a node key signs"] = None


@record("synor.key.v1.KeyRevoked")
class KeyRevoked:
    """A key is out of force, for ever."""

    at_us: Annotated[int, "effective time, µs UTC"]
    key: Annotated[PublicKey, "Ed25519 public key"]


@record("synor.key.v1.RowRefused")
class RowRefused:
    """One row of a batch that was refused while others were not."""

    row: Annotated[int, "row number from 0"]
    code: Annotated[int, "number of the refusal"]
    detail: Annotated[str, "the figures that explain it"]


@record("synor.key.v1.CommandAnswered")
class CommandAnswered:
    """The first and only answer to a (key, session, number). It follows the command's events."""

    at_us: Annotated[int, "effective time, µs UTC"]
    key: Annotated[PublicKey, "signer"]
    session: Annotated[int, "signer's session"]
    number: Annotated[int, "number within the session"]
    digest: Annotated[Hash32, "SHA-256 of the signed preimage"]
    kind: Annotated[str, "Avro full name of the command"]
    code: Annotated[int, "0 for accepted, else the number of the refusal"]
    detail: Annotated[str, "the figures that explain a refusal"]
    rows: Annotated[tuple[RowRefused, ...], "refused rows of an accepted batch"]
    events: Annotated[int, "the command's events: so many right before this one"]


KeyEvent = KeyRegistered | KeyRevoked | CommandAnswered


# States


@dataclass(frozen=True, slots=True, kw_only=True)
class Unregistered:
    """Only ever answered: a key of the genesis, or a newcomer whose account was refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InForce:
    """May sign what its role allows."""

    role: Role
    account: AccountId
    node: NodeId | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutOfForce:
    """Revoked, for ever."""

    role: Role
    account: AccountId
    node: NodeId | None


KeyState = Unregistered | InForce | OutOfForce


# Commands


@record("synor.command.v1.RegisterKey")
class RegisterKey:
    """An owner adds a key to the account: another owner key, or a gateway for its nodes."""

    key: Annotated[PublicKey, "Ed25519 public key"]
    role: Annotated[Role, "OWNER or GATEWAY"]
    proof: Annotated[bytes, "the new key's Ed25519 signature that it is to be of this account"] = (
        b""
    )


@record("synor.command.v1.RevokeKey")
class RevokeKey:
    """An owner takes a key of the account out of force; not the last owner key."""

    key: Annotated[PublicKey, "Ed25519 public key"]


# Refusals

KEY_EXISTS: Final = code(306, "key_exists", "A key is registered once, for ever; take another.")
KEY_NOT_OF_ACCOUNT: Final = code(
    308, "key_not_of_account", "An owner revokes keys of its own account; no key of the genesis."
)
KEY_NOT_PROVEN: Final = code(
    330,
    "key_not_proven",
    "Let the new key sign genesis, account, itself and role: synor key prove.",
)
KEY_ALREADY_REVOKED: Final = code(309, "key_already_revoked", "Nothing is left to do.")
LAST_OWNER_KEY: Final = code(
    310, "last_owner_key", "Register another owner key first: an account keeps one in force."
)


# Decide


def decide_register(
    command: RegisterKey, *, account: AccountId, known: bool, proven: bool, now_us: int
) -> KeyRegistered | Refused:
    """Another owner key, or a gateway; node keys come with their nodes."""
    if command.role not in (Role.OWNER, Role.GATEWAY):
        return Refused(KEY_ROLE, f"an account has no key with the role {command.role.value}")
    if known:
        return Refused(KEY_EXISTS, command.key.hex())
    if not proven:
        return Refused(KEY_NOT_PROVEN, command.key.hex())
    return KeyRegistered(at_us=now_us, key=command.key, role=command.role, account=account)


def decide_revoke(
    command: RevokeKey, state: KeyState | None, *, account: AccountId, owners: int, now_us: int
) -> KeyRevoked | Refused:
    """A key of the account goes out of force; ``owners`` owner keys of it are in force."""
    if not isinstance(state, InForce | OutOfForce) or state.account != account:
        return Refused(KEY_NOT_OF_ACCOUNT, command.key.hex())
    if isinstance(state, OutOfForce):
        return Refused(KEY_ALREADY_REVOKED, command.key.hex())
    if state.role is Role.OWNER and owners == 1:
        return Refused(LAST_OWNER_KEY, command.key.hex())
    return KeyRevoked(at_us=now_us, key=command.key)


# Evolve


def evolve(state: KeyState | None, event: KeyEvent) -> KeyState:
    """The key after one more event; answers leave no trace beside the number windows."""
    match event:
        case KeyRegistered():
            return InForce(role=event.role, account=event.account, node=event.node)
        case KeyRevoked():
            invariant(isinstance(state, InForce), "a key in force is revoked")
            assert isinstance(state, InForce)
            return OutOfForce(role=state.role, account=state.account, node=state.node)
        case CommandAnswered():
            return state if state is not None else Unregistered()
        case _:
            assert_never(event)
