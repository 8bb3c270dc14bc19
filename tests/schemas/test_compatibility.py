"""Which changes of a schema are refused, held against the resolution of two other libraries."""

from __future__ import annotations

import copy
import io
import json
from typing import Any

import fastavro
import pytest
from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType
from avro.schema import parse
from hypothesis import given
from hypothesis import strategies as st

from adapters.avro_codec import WIDTHS, declared
from schemas import write
from schemas.compatibility import TooIntricate, broken, released, reshaped, unreadable

LEASE: dict[str, Any] = {
    "type": "record",
    "name": "LeaseOpened",
    "namespace": "synor.lease.v1",
    "fields": [
        {"name": "id", "type": {"type": "fixed", "name": "Bytes16", "size": 16}},
        {"name": "rate", "type": "long"},
        {"name": "why", "type": {"type": "enum", "name": "Why", "symbols": ["A", "B"]}},
        {"name": "note", "type": ["null", "string"], "default": None},
        {
            "name": "lines",
            "type": {
                "type": "array",
                "items": {
                    "type": "record",
                    "name": "Line",
                    "fields": [{"name": "n", "type": "long"}],
                },
            },
        },
    ],
}


def changed(change: str) -> dict[str, Any]:
    """The record with one change."""
    made: dict[str, Any] = copy.deepcopy(LEASE)
    fields = made["fields"]
    match change:
        case "nothing":
            pass
        case "field with a default":
            fields.append({"name": "more", "type": "long", "default": 0})
        case "field without a default":
            fields.append({"name": "more", "type": "long"})
        case "field gone":
            del fields[1]
        case "field with a default gone":
            del fields[3]
        case "field renamed":
            fields[1]["name"] = "price"
        case "order of fields":
            fields.reverse()
        case "long to int":
            fields[1]["type"] = "int"
        case "long to string":
            fields[1]["type"] = "string"
        case "long to a union with null":
            fields[1]["type"] = ["null", "long"]
        case "size of a fixed":
            fields[0]["type"]["size"] = 20
        case "symbol more":
            fields[2]["type"]["symbols"].append("C")
        case "symbol gone":
            fields[2]["type"]["symbols"].remove("B")
        case "field of a nested record":
            fields[4]["type"]["items"]["fields"].append({"name": "m", "type": "long"})
        case "nested type renamed":
            fields[4]["type"]["items"]["name"] = "Row"
        case _:
            raise AssertionError(change)
    return made


#: change: (the new one reads the old, the old one reads the new)
TABLE = {
    "nothing": (True, True),
    "field with a default": (True, True),
    "field without a default": (False, True),
    "field gone": (True, False),
    "field with a default gone": (True, True),
    "field renamed": (False, False),
    "order of fields": (True, True),
    "long to int": (False, True),
    "long to string": (False, False),
    "long to a union with null": (True, False),
    "size of a fixed": (False, False),
    "symbol more": (True, False),
    "symbol gone": (False, True),
    "field of a nested record": (False, True),
    "nested type renamed": (False, False),
}


@pytest.mark.parametrize("change", TABLE)
def test_each_change_is_compatible_in_the_directions_of_the_table(change: str) -> None:
    """By hand, and as Apache's own checker says."""
    new = changed(change)
    said = not unreadable(reader=new, writer=LEASE), not unreadable(reader=LEASE, writer=new)
    assert said == TABLE[change]
    assert (apache(new, LEASE), apache(LEASE, new)) == said


def apache(reader: Any, writer: Any) -> bool:
    """What the avro library says."""
    checker: Any = ReaderWriterCompatibilityChecker
    found = checker().get_compatibility(parse(json.dumps(reader)), parse(json.dumps(writer)))
    return bool(found.compatibility is SchemaCompatibilityType.compatible)


@given(
    identity=st.binary(min_size=16, max_size=16),
    rate=st.integers(-(2**63), 2**63 - 1),
    note=st.none() | st.text(max_size=5),
    lines=st.lists(st.integers(0, 99), max_size=3),
)
def test_what_is_called_readable_fastavro_reads(
    identity: bytes, rate: int, note: str | None, lines: list[int]
) -> None:
    """Of every change whose new version reads the old."""
    data = {"id": identity, "rate": rate, "why": "A", "note": note}
    rows = [{"n": n} for n in lines]
    for change, (backward, _) in TABLE.items():
        if not backward:
            continue
        out = io.BytesIO()
        old: Any = fastavro.parse_schema(copy.deepcopy(LEASE), _write_hint=False)
        new: Any = fastavro.parse_schema(changed(change), _write_hint=False)
        fastavro.schemaless_writer(out, old, data | {"lines": rows})
        out.seek(0)
        read: Any = fastavro.schemaless_reader(out, old, new)
        assert read["id"] == identity
        assert read["lines"] == rows


def test_the_finding_names_record_field_and_what_would_do() -> None:
    """Of an event both directions count, of an input only the older reader."""
    event, later = "synor.lease.v1.LeaseOpened", "synor.lease.v2.LeaseOpened"
    (said,) = broken({event: LEASE, later: changed("field without a default")}, {})
    assert said == (
        f"{event} cannot be read as {later}: more: is not in what is read, and has no default; "
        "give it a default."
    )
    command, next_one = "synor.command.v1.Open", "synor.command.v2.Open"
    assert not [*broken({command: LEASE, next_one: changed("field without a default")}, {})]
    (said,) = broken({command: LEASE, next_one: changed("field gone")}, {})
    assert said.startswith(f"{next_one} cannot be read as {command}: rate: ")
    (said,) = broken({event: LEASE, later: changed("field of a nested record")}, {})
    assert "lines[].m: is not in what is read" in said


def test_every_pair_of_versions_counts_and_not_only_the_last_two() -> None:
    """v3 may follow v2 and still not v1."""
    name = "synor.lease.v{}.LeaseOpened".format
    first, second = LEASE, changed("field with a default")
    third = changed("field without a default")
    said = [*broken({name(1): first, name(2): second, name(3): third}, {})]
    assert len(said) == 1
    assert said[0].startswith(f"{name(1)} cannot be read as {name(3)}: more")


def test_a_released_record_is_held_against_what_it_was() -> None:
    """The same full name with another schema, against the release that has the old one."""
    event = "synor.lease.v1.LeaseOpened"
    (said,) = broken({event: changed("long to a union with null")}, {"1": {event: LEASE}})
    assert said.startswith(f"{event} cannot be read as {event} of release 1: rate: ")


def test_a_released_record_keeps_its_shape_to_the_bit() -> None:
    """What Avro would resolve, our codec would read as something else; words may change."""
    event = "synor.lease.v1.LeaseOpened"
    swapped = {**LEASE, "fields": [*reversed(LEASE["fields"])]}
    assert [*broken({event: swapped}, {"1": {event: LEASE}})] == []
    (said,) = reshaped({event: swapped}, {"1": {event: LEASE}})
    assert said == f"{event} is not what it was in release 1; declare a new full name"
    (said,) = reshaped({event: changed("field with a default")}, {"1": {event: LEASE}})
    assert "is not what it was" in said
    (said,) = reshaped({}, {"1": {event: LEASE}})
    assert said.startswith(f"{event} of release 1 is gone")
    reworded = {**LEASE, "doc": "other words"}
    assert [*reshaped({event: reworded, "synor.lease.v2.New": LEASE}, {"1": {event: LEASE}})] == []


def sharing(depth: int) -> Any:
    """A short schema whose records each name the next one twice."""
    schema: Any = "long"
    for level in range(depth):
        name = f"R{level}"
        again = "long" if schema == "long" else f"R{level - 1}"
        fields = [{"name": "a", "type": schema}, {"name": "b", "type": again}]
        schema = {"type": "record", "name": name, "fields": fields}
    return schema


def test_what_is_named_twice_is_compared_once() -> None:
    """Else the work doubles with every level of a schema that a stranger may send."""
    assert unreadable(reader=sharing(60), writer=sharing(60)) == []
    other = json.loads(json.dumps(sharing(60)).replace('"long"', '"string"'))
    said = unreadable(reader=sharing(60), writer=other)
    assert said
    assert len(said) <= 4


def test_a_comparison_that_would_take_for_ever_is_given_up() -> None:
    """A union in a union's branch, and so on, is no schema of people."""
    wide: Any = ["null", *({"type": "array", "items": "long"} for _ in range(200))]
    with pytest.raises(TooIntricate):
        unreadable(reader=wide, writer=[{"type": "array", "items": wide} for _ in range(200)])


def test_the_schemas_of_this_checkout_are_compatible_with_all_before_them() -> None:
    """`scripts/schemas --check` says the same."""
    current = write.derived(declared(), WIDTHS)
    assert [*broken(current, released())] == []
    assert [*reshaped(current, released())] == []
