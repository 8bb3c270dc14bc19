"""Keys: who may sign what, and what each signed command was answered (R6.7, design 3)."""

from __future__ import annotations

from typing import Annotated

from domain.genesis import Role
from domain.ids import AccountId, AggregateId, Hash32, NodeId, PublicKey, derive
from domain.record import record


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


KeyEvent = KeyRegistered | KeyRevoked | CommandAnswered


# Commands


@record("synor.command.v1.RegisterKey")
class RegisterKey:
    """An owner adds a key to the account: another owner key, or a gateway for its nodes."""

    key: Annotated[PublicKey, "Ed25519 public key"]
    role: Annotated[Role, "OWNER or GATEWAY"]


@record("synor.command.v1.RevokeKey")
class RevokeKey:
    """An owner takes a key of the account out of force; not the last owner key."""

    key: Annotated[PublicKey, "Ed25519 public key"]
