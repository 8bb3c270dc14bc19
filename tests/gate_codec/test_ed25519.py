"""Signatures: what holds, and what never holds."""

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from adapters.avro_codec import AvroCodec
from adapters.ed25519 import Signer, is_weak, sign_input, verify
from domain.ids import Hash32
from domain.ledger import Tick
from domain.signed import preimage

ORDER = 2**252 + 27742317777372353535851937790883648493
SMALL_ORDER = (
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
)


def test_the_first_vector_of_rfc_8032_holds() -> None:
    """Key, empty message and signature of section 7.1."""
    signer = Signer(
        bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    )
    assert signer.public.hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    signature = bytes.fromhex(
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
        "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
    )
    assert signer.sign(b"") == signature
    assert verify(signer.public, b"", signature)


@given(st.binary(max_size=40), st.binary(max_size=40), st.binary(max_size=70))
def test_verifying_never_raises(key: bytes, message: bytes, signature: bytes) -> None:
    """Keys and signatures of any length are judged, not believed."""
    assert verify(key, message, signature) is False
    assert verify(key.ljust(32, b"\x00")[:32], message, signature.ljust(64)[:64]) is False


def test_a_signature_holds_for_its_key_and_message_alone() -> None:
    """Any other key, message or signature fails."""
    signer, other = Signer(b"\x01" * 32), Signer(b"\x02" * 32)
    signature = signer.sign(b"message")
    assert verify(signer.public, b"message", signature)
    assert not verify(other.public, b"message", signature)
    assert not verify(signer.public, b"message2", signature)
    assert not verify(signer.public, b"message", signature[:-1] + b"\x00")


def test_a_signature_has_one_form() -> None:
    """Adding the group order to its second half gives no second signature."""
    signer = Signer(b"\x01" * 32)
    signature = signer.sign(b"message")
    scalar = int.from_bytes(signature[32:], "little") + ORDER
    assert not verify(signer.public, b"message", signature[:32] + scalar.to_bytes(32, "little"))


@pytest.mark.parametrize("sign", [0, 0x80])
@pytest.mark.parametrize("key", SMALL_ORDER)
def test_under_a_key_of_small_order_no_signature_holds(key: str, sign: int) -> None:
    """The library accepts a signature that nobody made under such a key; the ledger does not."""
    weak = bytearray.fromhex(key)
    weak[31] |= sign
    forged = (1).to_bytes(32, "little") + bytes(32)
    accepted = [message for message in map(str.encode, map(str, range(64)))
                if library_accepts(bytes(weak), message, forged)]  # fmt: skip
    assert accepted
    assert not verify(bytes(weak), accepted[0], forged)
    assert is_weak(bytes(weak))
    assert not is_weak(Signer(b"\x01" * 32).public)


def library_accepts(key: bytes, message: bytes, signature: bytes) -> bool:
    """What ``cryptography`` alone says."""
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except InvalidSignature:
        return False
    return True


def test_a_signer_needs_32_bytes_and_does_not_show_them() -> None:
    """A private key never reaches a log by way of a ``repr``."""
    with pytest.raises(ValueError, match="32 bytes"):
        Signer(b"short")
    assert "0101" not in repr(Signer(b"\x01" * 32))


def test_a_signed_input_opens_again_and_its_signature_covers_every_field() -> None:
    """The helper of producers and the gate agree on the preimage."""
    codec, signer = AvroCodec(), Signer(b"\x01" * 32)
    wire, signed = sign_input(codec, signer, Hash32(b"\x07" * 32), Tick(time_us=5), 6, 7)
    assert codec.open_signed(wire) == signed
    assert codec.open_payload(signed) == Tick(time_us=5)
    fields = (
        signed.genesis,
        signed.kind,
        signed.key,
        signed.session,
        signed.number,
        signed.schema,
        signed.payload,
    )
    assert verify(signer.public, preimage(*fields), signed.signature)
