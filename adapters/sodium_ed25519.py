"""Ed25519 with libsodium, which finds that a signature holds in half the time of OpenSSL.

What holds is defined by ``adapters.ed25519`` (OpenSSL); this may only agree sooner. Both accept
where R, byte for byte, is the encoding of s·B − h·A with s below the group order; libsodium beyond
that refuses keys and R of small order and keys in a second encoding. So what it accepts OpenSSL
accepts, and what it does not accept is no answer at all: OpenSSL is asked.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from nacl.bindings import crypto_sign_open
from nacl.exceptions import CryptoError

_KEY_BYTES: Final = 32
_SIGNATURE_BYTES: Final = 64
_MESSAGE: Final = b"synor probe"
_PROBE_KEY: Final = bytes.fromhex(
    "3a0ac1bdde69883e828639736a3005e4e06f167275fdf7a85fca348da09fb672"
)
_HOLDS: Final = bytes.fromhex(
    "a8c3b7305c0113b1b42660230312780dff7405d00dafb6e42b6e05476078b0c4"
    "5686b15381759e79a2b260828f4bd8205e91ac38044d96906c858226d183110f"
)
#: Signatures by that key's owner that OpenSSL refuses and laxer rules accept: R with a part of
#: small order (rules with the cofactor), s above the order, and R in a second encoding.
_NEVER_HOLD: Final = tuple(
    bytes.fromhex(signature)
    for signature in (
        (
            "cfd01a5414a3680b25fbec16573afd27e25d6e8ea3a28a8a4fc8490966d9557d"
            "6939a400ce59697a20d6a222111cc0524cdba6c4505f46c083ee1d339e57710d"
        ),
        (
            "a8c3b7305c0113b1b42660230312780dff7405d00dafb6e42b6e05476078b0c4"
            "435aa7b09bd8b0d1784f58256e45b7355e91ac38044d96906c858226d183111f"
        ),
        (
            "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"
            "f2bcef31582e00b0af877583b56aa90c10d4cdf6b62151557e724d459d43fc04"
        ),
    )
)


def accepts(key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether libsodium accepts; false says nothing. Never raises for any bytes."""
    if len(key) != _KEY_BYTES or len(signature) != _SIGNATURE_BYTES:
        return False
    try:
        crypto_sign_open(signature + message, key)
    except CryptoError:
        return False
    return True


@lru_cache(maxsize=1)
def is_as_strict() -> bool:
    """Whether the installed libsodium refuses what OpenSSL does; a laxer one is not to be used."""
    return accepts(_PROBE_KEY, _MESSAGE, _HOLDS) and not any(
        accepts(_PROBE_KEY, _MESSAGE, signature) for signature in _NEVER_HOLD
    )
