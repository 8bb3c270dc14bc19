"""libsodium only says sooner what OpenSSL says: one verdict, whatever the bytes."""

import hashlib
from itertools import product

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from adapters import ed25519, sodium_ed25519
from adapters.bootstrap import verify_sooner
from adapters.ed25519 import Signer
from tests.gate_codec.test_ed25519 import ORDER, SMALL_ORDER

Point = tuple[int, int]

FIELD = 2**255 - 19
D = -121665 * pow(121666, -1, FIELD) % FIELD
SIGNER = Signer(b"\x01" * 32)


def add(p: Point, q: Point) -> Point:
    """The sum of two points of the curve."""
    (x1, y1), (x2, y2) = p, q
    t = D * x1 * x2 * y1 * y2 % FIELD
    x = (x1 * y2 + x2 * y1) * pow(1 + t, -1, FIELD) % FIELD
    return x, (y1 * y2 + x1 * x2) * pow(1 - t, -1, FIELD) % FIELD


def times(n: int, p: Point) -> Point:
    """A multiple of a point."""
    total = (0, 1)
    for bit in bin(n)[2:]:
        total = add(total, total)
        if bit == "1":
            total = add(total, p)
    return total


def decoded(data: bytes) -> Point:
    """The point of 32 bytes that are one."""
    number = int.from_bytes(data, "little")
    y = number & 2**255 - 1
    square = (y * y - 1) * pow(D * y * y + 1, -1, FIELD) % FIELD
    x = pow(square, (FIELD + 3) // 8, FIELD)
    if x * x % FIELD != square:
        x = x * pow(2, (FIELD - 1) // 4, FIELD) % FIELD
    assert x * x % FIELD == square
    return (FIELD - x if x & 1 != number >> 255 else x), y


def encoded(p: Point) -> bytes:
    """Its encoding."""
    return (p[1] | (p[0] & 1) << 255).to_bytes(32, "little")


BASE = decoded((4 * pow(5, -1, FIELD) % FIELD).to_bytes(32, "little"))
ORDER_8 = decoded(bytes.fromhex(SMALL_ORDER[2]))
TORSION = [times(n, ORDER_8) for n in range(8)]
SECRET, NONCE = 1234567, 7654321


def forged(key: bytes, r: bytes, message: bytes, above: int = 0) -> bytes:
    """What the owner of SECRET can sign with any R; ``above`` adds the order to s."""
    h = int.from_bytes(hashlib.sha512(r + key + message).digest(), "little")
    return r + ((NONCE + h * SECRET) % ORDER + above * ORDER).to_bytes(32, "little")


def openssl_accepts(key: bytes, message: bytes, signature: bytes) -> bool:
    """What ``cryptography`` alone says."""
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def one_verdict(key: bytes, message: bytes, signature: bytes) -> bool:
    """The verdict of both ways, which is one; libsodium alone never accepts more."""
    verdict = ed25519.verify(key, message, signature)
    assert verify_sooner(key, message, signature) is verdict
    if sodium_ed25519.accepts(key, message, signature):
        assert verdict
        assert openssl_accepts(key, message, signature)
    return verdict


def test_the_installed_libsodium_is_used() -> None:
    """It passes the probe; were it laxer, verifying would be slower and no different."""
    assert sodium_ed25519.is_as_strict()


def test_a_laxer_libsodium_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules with the cofactor accept what OpenSSL does not, and the probe sees it."""
    monkeypatch.setattr(sodium_ed25519, "accepts", lambda key, message, signature: True)
    assert not sodium_ed25519.is_as_strict.__wrapped__()


def test_keys_and_rs_with_parts_of_small_order_get_one_verdict() -> None:
    """Where implementations of Ed25519 differ from one another, ours do not."""
    verdicts = []
    public, random = times(SECRET, BASE), times(NONCE, BASE)
    for part, other, above in product(TORSION, TORSION, (0, 1)):
        key, r = encoded(add(public, part)), encoded(add(random, other))
        verdicts += [
            one_verdict(key, message, forged(key, r, message, above))
            for message in (b"", b"message", b"another")
        ]
    assert any(verdicts)
    assert not all(verdicts)


def test_second_encodings_and_points_of_small_order_get_one_verdict() -> None:
    """As key and as R: beyond the field, with either sign."""
    key = encoded(times(SECRET, BASE))
    odd = [bytes.fromhex(point) for point in SMALL_ORDER]
    odd += [(FIELD + y).to_bytes(32, "little") for y in range(19)]
    odd += [each[:31] + bytes([each[31] | 0x80]) for each in odd]
    for each in odd:
        for message in (b"", b"message", b"another"):
            one_verdict(key, message, forged(key, each, message))
            one_verdict(each, message, forged(each, each, message))
            for s in (bytes(32), (1).to_bytes(32, "little"), ORDER.to_bytes(32, "little")):
                one_verdict(each, message, each + s)
                one_verdict(key, message, each + s)


@given(st.binary(max_size=80), st.lists(st.tuples(st.integers(0, 95), st.integers(1, 255))))
def test_mutated_signatures_and_keys_get_one_verdict(
    message: bytes, flips: list[tuple[int, int]]
) -> None:
    """The honest one holds; with any bits turned both ways agree."""
    both = bytearray(SIGNER.public + SIGNER.sign(message))
    for at, bits in flips:
        both[at] ^= bits
    holds = one_verdict(bytes(both[:32]), message, bytes(both[32:]))
    assert holds is (both == SIGNER.public + SIGNER.sign(message))


@given(st.binary(max_size=40), st.binary(max_size=40), st.binary(max_size=70))
def test_bytes_of_any_length_get_one_verdict(key: bytes, message: bytes, signature: bytes) -> None:
    """Part of a message never passes for part of a signature."""
    assert not one_verdict(key, message, signature)
    signed = SIGNER.sign(message)
    for cut in (0, 1, 63):
        assert not one_verdict(SIGNER.public, signed[cut:] + message, signed[:cut])
