"""Whatever stands on the wire, the gate's codec answers with a record or a refusal."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from adapters.avro_codec import AvroCodec, declared
from adapters.ed25519 import Signer, sign_input
from domain.codec import CodecError
from domain.commit import CommitBody
from domain.gate import within_range
from domain.ids import Bytes16, Hash32, NodeId, Wide
from domain.journal import Posting, Purse
from domain.ledger import Tick
from domain.refusal import (
    MALFORMED,
    OUT_OF_RANGE,
    TRAILING_BYTES,
    UNKNOWN_ENVELOPE,
    UNKNOWN_SCHEMA,
    Code,
    Refused,
)
from domain.signed import Signed
from domain.telemetry import Batch
from tests.schemas.strategies import instances

CODEC = AvroCodec()
GENESIS = Hash32(b"\x07" * 32)
SIGNER = Signer(b"\x01" * 32)
WIRE, SIGNED = sign_input(CODEC, SIGNER, GENESIS, Tick(time_us=1_760_000_000_000_000), 5, 6)
PROBES: list[type[Any]] = [
    Signed,
    CommitBody,
    Batch,
    *(kind for kind in declared().values() if "Row" in kind.NAME),
]


def refusal(value: bytes) -> Code:
    """The code with which the envelope is refused."""
    answer = CODEC.open_signed(value)
    assert isinstance(answer, Refused)
    return answer.code


def changed(**fields: Any) -> Signed:
    """The signed tick with other fields."""
    whole = {name: getattr(SIGNED, name) for name in Signed.__dataclass_fields__}
    return Signed(**(whole | fields))


@given(st.binary(max_size=400))
@example(b"")
@example(b"\x00")
@example(b"\xff" * 200)
def test_arbitrary_bytes_are_answered_and_never_raise(value: bytes) -> None:
    """The gate reads what anyone wrote; an exception there would stop a ledger."""
    answer = CODEC.open_signed(value)
    assert isinstance(answer, Signed | Refused)
    if isinstance(answer, Signed):
        CODEC.open_payload(answer)


@given(st.data())
def test_a_damaged_record_is_answered_and_never_raises(data: st.DataObject) -> None:
    """Bytes changed, cut out or put in anywhere, in the envelope or in the payload."""
    answer = CODEC.open_signed(damaged(data, WIRE))
    assert isinstance(answer, Signed | Refused)
    kind = data.draw(st.sampled_from(PROBES))
    payload = damaged(data, CODEC.encode(data.draw(instances(kind))))
    signed = changed(kind=kind.NAME, schema=CODEC.fingerprint(kind), payload=payload)
    assert isinstance(CODEC.open_payload(signed), kind | Refused)


def damaged(data: st.DataObject, whole: bytes) -> bytes:
    """The bytes with one stretch replaced by another."""
    at = data.draw(st.integers(0, len(whole)))
    patch = data.draw(st.binary(max_size=12) | st.sampled_from([b"\xff" * 9, b"\x80\x00"]))
    return whole[:at] + patch + whole[at + data.draw(st.integers(0, 12)) :]


@pytest.mark.parametrize("cut", range(1, len(WIRE)))
def test_a_record_cut_anywhere_is_malformed(cut: int) -> None:
    """No prefix of an envelope is an envelope."""
    assert refusal(WIRE[:cut]) is MALFORMED


def test_bytes_after_the_record_are_refused() -> None:
    """Other libraries ignore them; here they would be unsigned content."""
    assert refusal(WIRE + b"\x00") is TRAILING_BYTES
    assert refusal(CODEC.encode_frame(SIGNED, confluent=True) + b"x") is TRAILING_BYTES
    longer = CODEC.open_payload(changed(payload=SIGNED.payload + b"\x00"))
    assert isinstance(longer, Refused)
    assert longer.code is TRAILING_BYTES


def test_the_envelope_is_read_bare_and_in_the_confluent_frame_of_its_number() -> None:
    """Both framings give the same record."""
    framed = CODEC.encode_frame(SIGNED, confluent=True)
    assert framed == b"\x00" + CODEC.number(Signed).to_bytes(4, "big") + WIRE
    assert CODEC.encode_frame(SIGNED, confluent=False) == WIRE
    assert CODEC.open_signed(framed) == SIGNED
    assert CODEC.open_signed(WIRE) == SIGNED
    assert CODEC.open_payload(SIGNED) == Tick(time_us=1_760_000_000_000_000)


def test_a_frame_of_another_number_is_an_unknown_envelope() -> None:
    """Only ``Signed`` stands on the input topics; a frame too short names nothing."""
    other = CODEC.number(Tick).to_bytes(4, "big")
    assert refusal(b"\x00" + other + WIRE) is UNKNOWN_ENVELOPE
    assert refusal(b"\x00\x00") is UNKNOWN_ENVELOPE
    assert refusal(b"") is UNKNOWN_ENVELOPE
    assert refusal(b"\x00" + CODEC.number(Signed).to_bytes(4, "big")) is MALFORMED


@pytest.mark.parametrize(
    "fields",
    [
        {"signature": b"s" * 63},
        {"signature": b"s" * 65},
        {"signature": b""},
        {"session": -1},
        {"number": -1},
    ],
    ids=str,
)
def test_an_envelope_beyond_its_documented_ranges_is_refused(fields: dict[str, Any]) -> None:
    """Well formed, but no signature or number could be so."""
    signed = CODEC.open_signed(CODEC.encode(changed(**fields)))
    assert signed == changed(**fields)
    answer = within_range(signed, CODEC.open_payload(signed))
    assert isinstance(answer, Refused)
    assert answer.code is OUT_OF_RANGE


def test_an_unknown_schema_is_named_before_bytes_after_the_record() -> None:
    """Whoever sends a schema of tomorrow may well send an envelope of tomorrow."""
    unknown = CODEC.encode(changed(schema=Hash32(bytes(32))))
    assert refusal(unknown) is UNKNOWN_SCHEMA
    assert refusal(unknown + b"\x00") is UNKNOWN_SCHEMA


def test_a_payload_of_an_unknown_or_another_schema_is_refused() -> None:
    """The fingerprint decides what the bytes are, and the kind must say the same."""
    unknown = CODEC.open_payload(changed(schema=bytes(32)))
    assert isinstance(unknown, Refused)
    assert unknown.code is UNKNOWN_SCHEMA
    renamed = CODEC.open_payload(changed(kind="synor.command.v1.Withdraw"))
    assert isinstance(renamed, Refused)
    assert renamed.code is MALFORMED


def test_a_symbol_beyond_the_enum_is_no_record() -> None:
    """A newer producer's symbol is refused, not guessed."""
    posting = CODEC.encode(Posting(purse=Purse.FREE, owner=Bytes16(b"o" * 16), amount_nano=Wide(1)))
    for symbol in (b"\x20", b"\x01", b"\xfe\x01"):
        with pytest.raises(CodecError, match="purse"):
            CODEC.decode(Posting, symbol + posting[1:])


@pytest.mark.parametrize(
    "count",
    [b"\x80\x80\x80\x80\x20", b"\xfe" + b"\xff" * 8 + b"\x01", b"\xff" * 9 + b"\x01\x00"],
    ids=["2^33 items", "2^63 - 1 items", "a block of -2^63 items"],
)
def test_an_array_of_more_items_than_bytes_is_refused_before_it_is_read(count: bytes) -> None:
    """Ten bytes may not ask for gigabytes."""
    with pytest.raises(CodecError, match="more items"):
        CODEC.decode(Batch, count + bytes(40))


def test_arrays_in_blocks_as_other_producers_write_them_are_read() -> None:
    """Split and sized blocks are Avro; the signature covers the bytes, so nothing is ambiguous."""
    batch = Batch(
        nodes=(NodeId(b"a" * 16), NodeId(b"b" * 16)),
        leases=(),
        lease=(),
        resource=(),
        generation=(),
        time_us=tuple(range(40)),
        total=(),
    )
    plain = CODEC.encode(batch)
    times = bytes(2 * n for n in range(40))
    rest = b"\x00" * 4
    assert plain == b"\x04" + b"a" * 16 + b"b" * 16 + b"\x00" + rest + b"\x50" + times + b"\x00\x00"
    split = b"\x02" + b"a" * 16 + b"\x02" + b"b" * 16 + b"\x00" + rest
    sized = b"\x4f\x50" + times + b"\x00\x00"
    assert CODEC.decode(Batch, split + sized) == batch
    with pytest.raises(CodecError):
        CODEC.decode(Batch, split + b"\x4f\x52" + times + b"\x00\x00")
    with pytest.raises(CodecError, match="longer than the record"):
        CODEC.decode(Batch, split + b"\x4f\xfe\x01" + times + b"\x00\x00")


@pytest.mark.parametrize("data", [bytearray(WIRE), memoryview(WIRE), WIRE.hex(), None])
def test_only_bytes_are_decoded(data: Any) -> None:
    """A view into a buffer that changes later is no record."""
    with pytest.raises(CodecError):
        CODEC.decode(Signed, data)
