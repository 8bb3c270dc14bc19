"""Ed25519 signatures with ``cryptography``: of inputs, and of commits."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

from domain.codec import Codec
from domain.ids import Hash32, PublicKey
from domain.signed import Signed, preimage

#: Loaded keys that are kept; a fleet's gateways and writers fit, a flood of keys costs only time.
_KEYS_KEPT: Final = 65_536
_KEY_BYTES: Final = 32


@lru_cache(maxsize=_KEYS_KEPT)
def _loaded(key: bytes) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(key)


def verify(key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether ``signature`` over ``message`` is by ``key``; false for bytes that are no key."""
    if len(key) != _KEY_BYTES:
        return False
    try:
        _loaded(key).verify(signature, message)
    except InvalidSignature:
        return False
    return True


class Signer:
    """Holds a private key of 32 bytes; its ``repr`` does not show it."""

    def __init__(self, private: bytes) -> None:
        """Raises ``ValueError`` unless ``private`` is 32 bytes."""
        self._private = Ed25519PrivateKey.from_private_bytes(private)
        self.public = PublicKey(self._private.public_key().public_bytes_raw())

    def sign(self, message: bytes) -> bytes:
        """The signature, 64 bytes; the same for the same message."""
        return self._private.sign(message)


def sign_input(
    codec: Codec, signer: Signer, genesis: Hash32, payload: Any, session: int, number: int
) -> Signed:
    """The envelope of ``payload``, signed; ``codec`` turns it into the bytes that are sent."""
    kind = type(payload)
    schema = Hash32(codec.fingerprint(kind))
    data = codec.encode(payload)
    message = preimage(genesis, kind.NAME, signer.public, session, number, schema, data)
    return Signed(
        genesis=genesis,
        kind=kind.NAME,
        key=signer.public,
        session=session,
        number=number,
        schema=schema,
        payload=data,
        signature=signer.sign(message),
    )
