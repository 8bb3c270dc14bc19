"""The committed schemas and the lock file are what the records say, and keep what they said."""

import json
from pathlib import Path
from typing import Any

import fastavro
import pytest

from adapters.avro_codec import WIDTHS, AvroCodec, declared
from domain.codec import CodecError
from domain.ids import NodeId
from schemas import write
from schemas.derive import Underivable, fingerprint
from schemas.lock import FOLDER, Entry, Frozen, Lock, committed, parse
from tests.schemas import samples

RECORDS = declared()
A, B, C = (bytes([n]) * 32 for n in range(3))


def test_the_committed_files_are_what_the_records_say() -> None:
    """Every record has its file and its lock entry, and no file is left over."""
    schemas = write.derived(RECORDS, WIDTHS)
    fingerprints = {name: fingerprint(schema) for name, schema in schemas.items()}
    lock = committed().updated(fingerprints)
    assert [p.name for p in write.differences(write.files(schemas, lock))] == []


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.avsc")), ids=lambda path: path.stem)
def test_a_committed_schema_parses_alone_and_documents_every_field(path: Path) -> None:
    """One file is enough for another language, and says what each field means."""
    schema = json.loads(path.read_text())
    parsed: Any = fastavro.parse_schema(schema)
    assert parsed["name"] == path.stem
    for record in records_in(schema):
        assert record["doc"].strip()
        assert all(field["doc"].strip() for field in record["fields"])


def records_in(schema: Any) -> list[Any]:
    """All record schemas written out within a schema."""
    if isinstance(schema, list):
        return [found for branch in schema for found in records_in(branch)]
    if not isinstance(schema, dict):
        return []
    inner = [f["type"] for f in schema.get("fields", ())] + [schema.get("items")]
    own = [schema] if schema["type"] == "record" else []
    return own + [found for part in inner for found in records_in(part)]


def test_number_and_type_name_each_other() -> None:
    """The number that stands in a recorded event finds its type for every record."""
    codec = AvroCodec()
    for kind in RECORDS.values():
        assert codec.kind(codec.number(kind)) is kind
        assert len(codec.fingerprint(kind)) == 32
        assert committed().entries[kind.NAME].fingerprint == codec.fingerprint(kind)
    with pytest.raises(CodecError):
        codec.kind(0)


def test_a_record_that_is_not_locked_has_no_number() -> None:
    """It can be tried out, but nothing can be recorded with it."""
    codec = AvroCodec({"test.v1.Part": samples.Part}, Lock(released=False, entries={}))
    assert codec.encode(samples.Part(node=NodeId(b"n" * 16)))
    with pytest.raises(CodecError, match="scripts/schemas"):
        codec.number(samples.Part)
    with pytest.raises(CodecError):
        codec.number(samples.Whole)
    with pytest.raises(CodecError):
        codec.fingerprint(samples.Whole)
    with pytest.raises(CodecError):
        codec.encode(samples.Whole(nodes=None))


def test_known_names_keep_their_numbers_and_new_ones_follow_in_name_order() -> None:
    """Two people who add records at a time agree on the numbers of all earlier ones."""
    lock = Lock(released=False, entries={"m": Entry(1, A), "z": Entry(7, B)})
    after = lock.updated({"z": C, "y": A, "b": A, "m": A})
    assert {name: entry.number for name, entry in after.entries.items()} == {
        "m": 1,
        "z": 7,
        "b": 8,
        "y": 9,
    }
    assert after.entries["z"].fingerprint == C


def test_a_number_is_not_used_again_after_its_record_went() -> None:
    """The highest number ever given in this file decides the next, even if its record goes now."""
    lock = Lock(released=False, entries={"m": Entry(1, A), "z": Entry(7, B)})
    assert lock.updated({"m": A, "n": A}).entries["n"].number == 8


def test_after_the_release_a_record_neither_changes_nor_goes() -> None:
    """Old ledgers stay readable: a new shape is a new full name."""
    lock = Lock(released=False, entries={}).updated({"a": A, "b": B}, release=True)
    assert lock.released
    assert lock.updated({"a": A, "b": B, "c": C}).entries["c"] == Entry(3, C)
    with pytest.raises(Frozen, match="b is released"):
        lock.updated({"a": A, "b": C})
    with pytest.raises(Frozen, match="a is released"):
        lock.updated({"b": B})


def test_the_lock_file_reads_back_as_written() -> None:
    """The text is a function of the lock, in order of the numbers."""
    lock = Lock(released=True, entries={"b": Entry(1, A), "a": Entry(2, B)})
    assert parse(lock.to_json()) == lock
    assert lock.to_json().index('"b"') < lock.to_json().index('"a"')
    with pytest.raises(ValueError, match="twice"):
        parse(lock.to_json().replace('"number": 2', '"number": 1'))


def test_an_enum_name_means_one_enum_in_all_schemas(monkeypatch: pytest.MonkeyPatch) -> None:
    """Schemas are published side by side, so their shared names must agree."""
    records: dict[str, type[Any]] = {"a": samples.Part, "b": samples.Whole}
    assert set(write.derived(records, WIDTHS)) == {"a", "b"}
    schemas = iter(
        [
            {"type": "enum", "name": "E", "namespace": "n", "symbols": ["A"]},
            {"type": "enum", "name": "E", "namespace": "n", "symbols": ["B"]},
        ]
    )
    monkeypatch.setattr(write, "schema_of", lambda kind, widths: next(schemas))
    with pytest.raises(Underivable, match=r"n\.E means one type"):
        write.derived(records, WIDTHS)


def test_the_command_writes_checks_and_removes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """``--check`` fails before and passes after; a schema of no record is removed."""
    monkeypatch.setattr(write, "FOLDER", tmp_path)
    monkeypatch.setattr(write, "LOCK_FILE", tmp_path / "lock.json")
    monkeypatch.setattr(write, "committed", lambda: Lock(released=False, entries={}))
    monkeypatch.setattr(write, "released", dict)
    records: dict[str, type[Any]] = {"test.v1.Part": samples.Part}
    (tmp_path / "test.v1.Gone.avsc").write_text("{}")
    assert write.main(records, WIDTHS, ["--check"]) == 1
    assert "test.v1.Part.avsc is not what the records say" in capsys.readouterr().err
    assert write.main(records, WIDTHS, []) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["lock.json", "test.v1.Part.avsc"]
    assert write.main(records, WIDTHS, ["--check"]) == 0
    assert write.main({"x": samples.Floating}, WIDTHS, []) == 1
    assert "no Avro type" in capsys.readouterr().err
