"""What a schema says of a record, and which records have none."""

import json
from typing import Any

import fastavro
import pytest

from adapters.avro_codec import WIDTHS, AvroCodec
from domain.codec import CodecError
from domain.ids import NodeId
from schemas.derive import Fixed, Underivable, fingerprint, normalised, schema_of
from tests.schemas.samples import UNDERIVABLE, Colour, Part, Whole


def field_of(schema: Any, name: str) -> Any:
    """The field of a record schema with this name."""
    return next(field for field in schema["fields"] if field["name"] == name)


def test_the_schema_carries_name_docs_and_order() -> None:
    """What another language needs to know stands in the schema, in the order of the bytes."""
    schema = schema_of(Whole, WIDTHS)
    assert (schema["namespace"], schema["name"]) == ("test.v1", "Whole")
    assert schema["doc"] == "A whole of two lines."
    assert [field["name"] for field in schema["fields"]][:3] == ["number", "flag", "text"]
    assert field_of(schema, "number")["doc"] == "a number"


def test_every_type_has_its_place_in_avro() -> None:
    """The table of ``domain.record``, type by type."""
    schema = schema_of(Whole, WIDTHS)
    types = {field["name"]: field["type"] for field in schema["fields"]}
    assert types["number"] == "long"
    assert types["flag"] == "boolean"
    assert types["text"] == "string"
    assert types["data"] == "bytes"
    assert types["digest"]["size"] == 32
    assert types["colour"]["symbols"] == ["RED", "BLUE"]
    assert field_of(types["part"], "amount")["type"]["name"] == "Wide"
    assert types["parts"] == {"type": "array", "items": "test.v1.Part"}
    assert types["colours"]["items"] == "synor.type.Colour"
    assert types["maybe"] == ["null", "long"]
    assert types["nodes"] == ["null", {"type": "array", "items": ["null", "synor.type.Bytes16"]}]


def test_defaults_are_avro_defaults() -> None:
    """A reader with a newer schema fills in what the dataclass would."""
    schema = schema_of(Whole, WIDTHS)
    defaults = {f["name"]: f["default"] for f in schema["fields"] if "default" in f}
    assert defaults["number"] == -3
    assert defaults["data"] == "\x00\xff"
    assert defaults["colour"] == "BLUE"
    assert defaults["part"] == {"node": "n" * 16, "amount": "\xff" * 16}
    assert defaults["colours"] == ["RED"]
    assert defaults["rows"] == [[1], []]
    assert defaults["maybe"] is None
    assert defaults["nodes"] is None
    assert field_of(fastavro.parse_schema(schema), "number")["default"] == -3


@pytest.mark.parametrize(("kind", "why"), UNDERIVABLE.items(), ids=lambda x: getattr(x, "NAME", ""))
def test_a_record_without_a_schema_is_named_with_the_reason(kind: type[Any], why: str) -> None:
    """Nothing is guessed: floats, missing docs, array bombs and the like are errors."""
    with pytest.raises(Underivable, match=why):
        schema_of(kind, WIDTHS)
    with pytest.raises(CodecError, match=why):
        AvroCodec({"x": kind})


def test_an_id_type_of_unknown_width_is_an_error() -> None:
    """A new id type must be entered in the table of widths; it is never plain bytes."""
    with pytest.raises(Underivable, match="no Avro type"):
        schema_of(Part, {})


def test_two_types_of_one_name_are_an_error() -> None:
    """A full name means one definition."""
    clash = {hint: Fixed("Same", shape.size) for hint, shape in WIDTHS.items()}
    with pytest.raises(Underivable, match=r"two types are called synor\.type\.Same"):
        schema_of(Whole, clash)


def test_the_fingerprint_covers_all_but_the_docs() -> None:
    """A better sentence changes nothing; a default, an order or a size does."""
    schema = schema_of(Whole, WIDTHS)
    reworded = json.loads(json.dumps(schema).replace("a number", "any number"))
    assert fingerprint(reworded) == fingerprint(schema)
    assert '"doc"' not in normalised(schema)
    defaulted = json.loads(json.dumps(schema).replace("-3", "-4"))
    assert fingerprint(defaulted) != fingerprint(schema)
    turned = {**schema, "fields": schema["fields"][::-1]}
    assert fingerprint(turned) != fingerprint(schema)


def test_a_whole_with_every_type_round_trips() -> None:
    """Nested arrays, optional arrays of optional items, and symbols within both."""
    codec = AvroCodec({"test.v1.Whole": Whole, "test.v1.Part": Part})
    part = Part(node=NodeId(b"x" * 16))
    record = Whole(
        nodes=(None, NodeId(b"y" * 16)),
        parts=(part, part),
        colours=tuple(Colour),
        rows=((5,) * 40, (1,)),
    )
    assert codec.decode(Whole, codec.encode(record)) == record
