"""What anyone may send: a payload, who signs it, and the bytes that are signed."""

from __future__ import annotations

from typing import Annotated, Protocol

from domain.ids import Hash32, PublicKey, length_prefixed
from domain.record import record

PREIMAGE_TAG = b"synor/1"


@record("synor.input.v1.Signed")
class Signed:
    """The envelope of every input. On the wire bare Avro, or behind the Confluent frame of its id.

    The signature covers ``synor/1`` and every earlier field, each behind its length (4 bytes,
    big-endian); numbers as 8 bytes big-endian, text as UTF-8.
    """

    genesis: Annotated[Hash32, "SHA-256 of the genesis document: which network"]
    kind: Annotated[str, "Avro full name of the payload's record"]
    key: Annotated[PublicKey, "Ed25519 public key of the signer"]
    session: Annotated[int, "the signer's start time in µs UTC, higher than its last session's"]
    number: Annotated[int, "sequence number within (key, session), from 0, each used once"]
    schema: Annotated[Hash32, "SHA-256 fingerprint of the payload's schema"]
    payload: Annotated[bytes, "Avro bytes of the payload"]
    signature: Annotated[bytes, "Ed25519 signature, 64 bytes"]


def preimage(
    genesis: bytes, kind: str, key: bytes, session: int, number: int, schema: bytes, payload: bytes
) -> bytes:
    """The bytes that are signed."""
    return length_prefixed(
        PREIMAGE_TAG,
        genesis,
        kind.encode(),
        key,
        session.to_bytes(8, "big", signed=True),
        number.to_bytes(8, "big", signed=True),
        schema,
        payload,
    )


def message_of(signed: Signed) -> bytes:
    """The bytes that the signature of a record is over."""
    return preimage(
        signed.genesis,
        signed.kind,
        signed.key,
        signed.session,
        signed.number,
        signed.schema,
        signed.payload,
    )


class Verifier(Protocol):
    """Checks Ed25519 signatures."""

    def __call__(self, key: bytes, message: bytes, signature: bytes) -> bool:
        """Whether ``signature`` over ``message`` is by ``key``. Never raises for any bytes."""
        ...
