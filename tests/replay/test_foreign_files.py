"""What files of strangers look like: packed, unsorted, with gaps, nested; and what is said then."""

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapters.replay import run_replay
from adapters.replay_files import rows_of
from adapters.replay_mapping import File
from adapters.replay_values import Column, ReplayRefused
from tests.replay.scene import write_farm


def _file(path: Path, **changes: Any) -> File:
    shape: dict[str, Any] = {
        "id": "it",
        "path": path.name,
        "format": "csv",
        "columns": (),
        "separator": ",",
        "order": None,
        "disorder_us": 0,
        "levels": None,
        "first": 0,
        "sort": False,
        "skip": 0,
        "missing": (),
        "each": None,
    }
    return File(**{**shape, **changes})


def _rows(path: Path, text: str | bytes, **changes: Any) -> list[dict[str, str]]:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return [dict(row) for _, _, row in rows_of(_file(path, **changes), path)]


@pytest.mark.parametrize(
    ("ending", "pack"), [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)]
)
def test_a_packed_file_is_read_by_its_name(
    tmp_path: Path, ending: str, pack: Callable[[bytes], bytes]
) -> None:
    """The ending of its name says how it was packed."""
    found = _rows(tmp_path / f"d.csv.{ending}", pack(b"a,b\n1,2\n"))
    assert found == [{"a": "1", "b": "2"}]


def test_words_that_mean_nothing_are_empty(tmp_path: Path) -> None:
    """NULL is no value; a column may say what stands where nothing does."""
    rows = _rows(tmp_path / "d.csv", "a,b\nNULL,7\n3,\n", missing=("NULL",))
    assert rows == [{"a": "", "b": "7"}, {"a": "3", "b": ""}]
    assert [Column(names=("a",), default="1").number(row) for row in rows] == [1, 3]
    with pytest.raises(ReplayRefused, match="column b is empty; give it a default"):
        Column(names=("b",)).number(rows[1])
    assert Column(names=("gone",), default="5").number({"b": "7"}) == 5


def test_lines_above_the_header_are_skipped_and_lines_are_counted_with_them(
    tmp_path: Path,
) -> None:
    """What a message calls line 4 is line 4 of the file."""
    path = tmp_path / "d.csv"
    text = "# made by a tool\n#\na,b\n1,2\n"
    assert _rows(path, text, skip=2) == [{"a": "1", "b": "2"}]
    assert [line for _, line, _ in rows_of(_file(path, skip=2), path)] == [4]
    with pytest.raises(ReplayRefused, match=r"d.csv line 5 has 3 cells, not 2; is it the sep"):
        _rows(path, text + "1,2,3\n", skip=2)


def test_each_entry_of_a_nested_object_or_list_is_a_row(tmp_path: Path) -> None:
    """A snapshot of many sellers becomes a row for each; what stands around it is repeated."""
    text = (
        '{"at": "x", "by": {"q": {"acme": {"min": 1.5}, "zeta": {"min": 2}}}}\n'
        '{"at": "y", "by": {}}\n{"at": "z", "by": {"q": [7, {"min": null}]}}\n'
    )
    assert _rows(tmp_path / "d.jsonl", text, format="jsonl", each="by.q") == [
        {"at": "x", "by.q.key": "acme", "by.q.min": "1.5"},
        {"at": "x", "by.q.key": "zeta", "by.q.min": "2"},
        {"at": "z", "by.q.key": "0", "by.q.value": "7"},
        {"at": "z", "by.q.key": "1", "by.q.min": ""},
    ]


@pytest.mark.parametrize(
    ("name", "text", "changes", "said"),
    [
        ("d.csv", b"a\n\xff\n", {}, "d.csv is not UTF-8"),
        ("d.csv", "a,b,a\n1,2,3\n", {}, r"d.csv has columns of one name: \['a'\]"),
        ("d.csv.gz", b"a,b\n", {}, "d.csv.gz cannot be unpacked"),
        ("d.jsonl", '{"a": 1}\n[1]\n', {"format": "jsonl"}, "d.jsonl line 2 is no JSON object"),
        ("d.jsonl", "{\n", {"format": "jsonl"}, "d.jsonl line 1 is no JSON"),
        ("d.csv", "n\nmany\n", {"levels": "n"}, "d.csv line 2: n is no whole number"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_its_line(
    tmp_path: Path, name: str, text: str | bytes, changes: dict[str, Any], said: str
) -> None:
    """And says what to do, where that is not plain."""
    with pytest.raises(ReplayRefused, match=said):
        _rows(tmp_path / name, text, **changes)


def test_a_file_in_any_order_is_sorted_where_the_mapping_says_so(tmp_path: Path) -> None:
    """Meters written backwards are billed as those in order."""
    mapping, data = write_farm(tmp_path)
    plain = run_replay(mapping, data, log="memory").figures
    header, *rows = (data / "meters.csv").read_text().splitlines()
    (data / "meters.csv").write_text("\n".join([header, *reversed(rows)]) + "\n")
    mapping.write_text(mapping.read_text().replace('disorder = "10min"', "sort = true"))
    turned = run_replay(mapping, data, log="memory").figures
    assert turned["bills"] == plain["bills"]
    assert turned["readings"] == plain["readings"]


def test_an_outage_without_an_end_lasts_until_the_nodes_next_beat(tmp_path: Path) -> None:
    """A log of changes names the beginning and the end on rows of their own."""
    mapping, data = write_farm(tmp_path)
    plain = run_replay(mapping, data, log="memory").figures
    assert plain["outages"] == {"ended": 1, "us": 600_000_000, "open": 0}
    (data / "log.csv").write_text(
        "when,what,of\n2025-03-01 08:40:00,power,a\n2025-03-01 08:50:00,back,a\n"
        "2025-03-01 09:30:00,stop,j2\n"
    )
    text = mapping.read_text().replace('until = { column = "until", unit = "timestamp" }\n', "")
    mapping.write_text(
        text + '\n[[rows]]\nfile = "log"\nbecomes = "beat"\n'
        'where = [{ column = "what", is = "back" }]\nnode = "of"\n'
    )
    changes = run_replay(mapping, data, log="memory").figures
    assert changes["outages"] == plain["outages"]
    assert changes["bills"] == plain["bills"]


def test_of_rows_that_repeat_a_name_the_first_becomes_the_node(tmp_path: Path) -> None:
    """Where no file lists what there is, the rows in which it appears do."""
    mapping, data = write_farm(tmp_path)
    plain = run_replay(mapping, data, log="memory").figures
    with (data / "machines.csv").open("a") as file:
        file.write("a;oslo;2;1.25\n")
    with pytest.raises(ReplayRefused, match="two rows become the node 'a'"):
        run_replay(mapping, data, log="memory")
    text = mapping.read_text()
    for kind in ("node", "offer"):
        text = text.replace(f'becomes = "{kind}"', f'becomes = "{kind}"\nonce = "host"')
    mapping.write_text(text)
    once = run_replay(mapping, data, log="memory").figures
    assert (once["bills"], once["nodes"]) == (plain["bills"], plain["nodes"])
    assert once["rows_left_out"]["machines"] == 1


def test_a_node_that_the_ledger_does_not_take_is_named_with_what_to_do(tmp_path: Path) -> None:
    """Not by the fault of the next row that needs it."""
    mapping, data = write_farm(tmp_path)
    (data / "machines.csv").write_text("host;site;cards;ask\na;oslo;200;1.25\n")
    with pytest.raises(ReplayRefused, match=r"no node 'a'\. identities_invalid: [A-Z]"):
        run_replay(mapping, data, log="memory")
