"""Every declared record survives its encoding, and an independent Avro library agrees."""

import io
from typing import Any

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.avro_codec import WIDTHS, AvroCodec, declared
from schemas.derive import Nested, schema_of
from tests.schemas.strategies import instances, plain

RECORDS = declared()
CODEC = AvroCodec()
#: A hundred records share the examples of the profile.
EACH = max(10, settings().max_examples // 10)
each_record = pytest.mark.parametrize("kind", RECORDS.values(), ids=RECORDS.keys())


@each_record
@settings(max_examples=EACH)
@given(data=st.data())
def test_a_record_comes_back_equal_from_its_bytes(kind: type[Any], data: st.DataObject) -> None:
    """Decoding inverts encoding, and what it makes is as if the constructor had made it."""
    record = data.draw(instances(kind))
    encoded = CODEC.encode(record)
    decoded = CODEC.decode(kind, encoded)
    assert decoded == record
    assert hash(decoded) == hash(record)
    assert repr(decoded) == repr(record)
    assert CODEC.encode(decoded) == encoded


@each_record
@settings(max_examples=EACH)
@given(data=st.data())
def test_fastavro_reads_and_writes_the_same_bytes(kind: type[Any], data: st.DataObject) -> None:
    """A consumer with the committed schema alone reads what we wrote, and writes what we read."""
    record = data.draw(instances(kind))
    schema = fastavro.parse_schema(schema_of(kind, WIDTHS))
    encoded = CODEC.encode(record)
    theirs = plain(Nested(kind), record)
    read = io.BytesIO(encoded)
    assert fastavro.schemaless_reader(read, schema, None) == theirs
    assert read.tell() == len(encoded)
    written = io.BytesIO()
    fastavro.schemaless_writer(written, schema, theirs)
    assert written.getvalue() == encoded
