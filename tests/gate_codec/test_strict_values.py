"""Encoding takes exactly the declared types: nothing is rounded, cut or turned into another."""

from typing import Any

import pytest

from adapters.avro_codec import AvroCodec
from domain.codec import CodecError
from domain.commit import Ledger
from domain.ids import NodeId
from tests.schemas.samples import Colour, Part, Whole

CODEC = AvroCodec({"test.v1.Whole": Whole, "test.v1.Part": Part})
PART = Part(node=NodeId(b"n" * 16))

WRONG: list[dict[str, Any]] = [
    {"number": True},
    {"number": 1.0},
    {"number": 1.9},
    {"number": None},
    {"number": "1"},
    {"number": Ledger.MARKET},
    {"number": 2**63},
    {"number": -(2**63) - 1},
    {"number": 10**4000},
    {"flag": 1},
    {"flag": None},
    {"text": b"text"},
    {"text": "\ud800"},
    {"text": None},
    {"data": "data"},
    {"data": bytearray(b"x")},
    {"digest": b"x" * 31},
    {"digest": b"x" * 33},
    {"digest": "x" * 32},
    {"colour": "RED"},
    {"colour": None},
    {"part": None},
    {"part": {"node": b"n" * 16}},
    {"part": Part(node=b"short")},  # type: ignore[arg-type]
    {"part": Part(node=NodeId(b"n" * 16), amount=2**127)},  # type: ignore[arg-type]
    {"part": Part(node=NodeId(b"n" * 16), amount=True)},  # type: ignore[arg-type]
    {"parts": [PART]},
    {"parts": (PART, None)},
    {"colours": (Colour.RED, "RED")},
    {"maybe": False},
    {"maybe": 2**63},
    {"nodes": (b"x",)},
    {"nodes": [None]},
    {"rows": ([1],)},
    {"rows": ((True,),)},
    {"rows": ((1.5,),)},
    {"rows": ((1,) * 50 + (True,),)},
    {"rows": ((1,) * 50 + (2.0,),)},
    {"rows": ((1,) * 50 + (2**63,),)},
]


@pytest.mark.parametrize("fields", WRONG, ids=lambda fields: next(iter(fields)))
def test_a_value_out_of_its_type_is_not_encoded(fields: dict[str, Any]) -> None:
    """A wrong value is a bug of the caller and must not reach the log as another value."""
    with pytest.raises(CodecError):
        CODEC.encode(Whole(**({"nodes": None} | fields)))


def test_the_error_names_the_field() -> None:
    """Whoever wrote the value finds where."""
    with pytest.raises(CodecError, match=r"Part\.node: this bytes of length 5 is out of its type"):
        CODEC.encode(Whole(nodes=None, part=Part(node=NodeId(b"short"))))


def test_a_boolean_is_zero_or_one_and_an_optional_has_two_branches() -> None:
    """Other bytes are no record, though some libraries read them."""
    data = bytearray(CODEC.encode(Whole(nodes=None)))
    assert data[1] == 1
    data[1] = 2
    with pytest.raises(CodecError, match="flag"):
        CODEC.decode(Whole, bytes(data))
    branch = CODEC.encode(Whole(nodes=None, rows=()))
    assert branch.endswith(b"\x00\x00\x00")
    with pytest.raises(CodecError, match="nodes"):
        CODEC.decode(Whole, branch[:-2] + b"\x04\x00")


def test_text_that_is_not_utf8_is_no_record() -> None:
    """A lone continuation byte where the text stands."""
    data = CODEC.encode(Whole(nodes=None))
    with pytest.raises(CodecError, match="UTF-8"):
        CODEC.decode(Whole, data.replace("é".encode(), b"\xa9\xc3"))


def test_something_that_is_no_record_of_the_codec_is_an_error() -> None:
    """Only declared records have bytes."""
    for thing in (object(), 1, {"number": 1}):
        with pytest.raises(CodecError):
            CODEC.encode(thing)
    with pytest.raises(CodecError):
        CODEC.decode(Ledger, b"")
