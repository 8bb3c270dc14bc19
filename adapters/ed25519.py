"""Ed25519 signatures with ``cryptography``: of inputs, and of commits."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

from domain.codec import Codec
from domain.genesis import Role
from domain.ids import Hash32, PublicKey
from domain.key import possession
from domain.ledger import appointment
from domain.signed import Signed, Verifier, preimage

_KEY_BYTES: Final = 32
#: Fewer signatures than this are not worth waking a thread.
_SHARE_MIN: Final = 8
#: Loaded keys that are kept: loading costs a few µs, verifying about ninety.
_KEYS_KEPT: Final = 16_384
_FIELD: Final = 2**255 - 19
_ORDER_8: Final = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
#: The y coordinates of the points of order 1, 2, 4 and 8, and their encodings beyond the field.
#: Under such a key anyone can sign, and implementations differ on it, so no signature by it holds.
_WEAK: Final = frozenset(
    {
        0,
        1,
        _ORDER_8,
        _FIELD - _ORDER_8,
        _FIELD - 1,
        _FIELD,
        _FIELD + 1,
    }
)


def is_weak(key: bytes) -> bool:
    """Whether 32 bytes encode a point of small order, whatever their sign bit."""
    return int.from_bytes(key, "little") & (2**255 - 1) in _WEAK


@lru_cache(maxsize=_KEYS_KEPT)
def _loaded(key: bytes) -> Ed25519PublicKey | None:
    return None if is_weak(key) else Ed25519PublicKey.from_public_bytes(key)


def verify(key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether ``signature`` over ``message`` is by ``key``; false for bytes that are no key."""
    if len(key) != _KEY_BYTES:
        return False
    loaded = _loaded(key)
    if loaded is None:
        return False
    try:
        loaded.verify(signature, message)
    except InvalidSignature:
        return False
    return True


class VerifyPool:
    """Verifies many signatures on several cores: the library lets go of Python while it does.

    The calling thread takes a share too, so ``threads`` of 2 keep two cores busy.
    """

    def __init__(self, one: Verifier = verify, threads: int = 2) -> None:
        """``one`` judges a signature, as ``verify`` does. Threads start when first needed."""
        self._one = one
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads - 1, "verify") if threads > 1 else None

    def __call__(self, asked: Sequence[tuple[bytes, bytes, bytes]]) -> list[bool]:
        """For each (key, message, signature), in order, whether it holds."""
        share = -(-len(asked) // self._threads)
        if self._pool is None or share < _SHARE_MIN:
            return self._each(asked)
        others = [
            self._pool.submit(self._each, asked[start : start + share])
            for start in range(share, len(asked), share)
        ]
        answers = self._each(asked[:share])
        for other in others:
            answers += other.result()
        return answers

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown()

    def _each(self, asked: Sequence[tuple[bytes, bytes, bytes]]) -> list[bool]:
        return [self._one(key, message, signature) for key, message, signature in asked]


class Signer:
    """Holds a private key of 32 bytes; its ``repr`` does not show it."""

    def __init__(self, private: bytes) -> None:
        """Raises ``ValueError`` unless ``private`` is 32 bytes."""
        self._private = Ed25519PrivateKey.from_private_bytes(private)
        self.public = PublicKey(self._private.public_key().public_bytes_raw())

    def sign(self, message: bytes) -> bytes:
        """The signature, 64 bytes; the same for the same message."""
        return self._private.sign(message)


def prove(signer: Signer, genesis: bytes, account: bytes, role: Role) -> bytes:
    """A new key's own signature that it is to be of this account, in this role."""
    return signer.sign(possession(genesis, account, signer.public, role))


def prove_writer(signer: Signer, genesis: bytes, ledger: int) -> bytes:
    """A new writer's own signature that it is to write this ledger."""
    return signer.sign(appointment(genesis, ledger, signer.public))


def sign_input(
    codec: Codec, signer: Signer, genesis: Hash32, payload: Any, session: int, number: int
) -> tuple[bytes, Signed]:
    """``payload`` in its signed envelope: the bytes to send (bare Avro), and the envelope."""
    kind = type(payload)
    schema = Hash32(codec.fingerprint(kind))
    data = codec.encode(payload)
    message = preimage(genesis, kind.NAME, signer.public, session, number, schema, data)
    signed = Signed(
        genesis=genesis,
        kind=kind.NAME,
        key=signer.public,
        session=session,
        number=number,
        schema=schema,
        payload=data,
        signature=signer.sign(message),
    )
    return codec.encode(signed), signed
