"""What a mapping may say about a row, and how exactly figures are read."""

import tomllib
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from adapters.replay_mapping import load_mapping
from adapters.replay_values import (
    Column,
    ReplayRefused,
    Unit,
    duration_us,
    timestamp_us,
)
from tests.replay.scene import MAPPING, MAPPINGS


def _value(unit: str, text: str, origin_us: int = 0) -> int:
    return Column(names=("c",), unit=Unit(name=unit, origin_us=origin_us)).number({"c": text})


@pytest.mark.parametrize(
    ("unit", "text", "expected"),
    [
        ("s", "12902960", 12_902_960_000_000),
        ("s", "0.1234567", 123_456),
        ("ms", "40920000", 40_920_000_000),
        ("us", "1.9", 1),
        ("nano", "0.35", 350_000_000),
        ("nano", "2.939", 2_939_000_000),
        ("milli", "0.5", 500),
        ("", "460", 460),
        ("", "4.0", 4),
    ],
)
def test_a_figure_becomes_whole_base_units(unit: str, text: str, expected: int) -> None:
    """Decimal text is exact: no float stands between the file and the ledger."""
    assert _value(unit, text) == expected


@pytest.mark.parametrize(
    ("unit", "text"),
    [("nano", "0.1234567891"), ("", "4.5"), ("", "1e999999"), ("milli", "NaN"), ("s", "soon")],
)
def test_a_figure_that_is_not_whole_in_its_unit_is_refused(unit: str, text: str) -> None:
    """Only times are cut; a price or an amount is never rounded."""
    with pytest.raises(ReplayRefused):
        _value(unit, text)


def test_a_timestamp_of_seven_digits_is_cut_to_the_microsecond() -> None:
    """100 ns digits are more than the ledger's time holds."""
    assert timestamp_us("2023-11-16 18:15:46.6805900") == 1_700_158_546_680_590
    assert timestamp_us("2023-11-16T18:15:46.6805909Z") == 1_700_158_546_680_590
    assert timestamp_us("2023-11-16T19:15:46.68059+01:00") == 1_700_158_546_680_590


@pytest.mark.parametrize(
    ("unit", "text", "expected"),
    [
        ("unix", "1786446143", 1_786_446_143_000_000),
        ("unix", "1.5", 1_500_000),
        ("unix_ms", "1786446143250", 1_786_446_143_250_000),
        ("timestamp", "1970-01-02", 86_400_000_000),
        ("timestamp", "1970-01-01 00:00:01 UTC", 1_000_000),
        ("timestamp", "1970-01-01T05:30:00+05:30", 0),
        ("timestamp", "1969-12-31T19:00:00.25-05", 250_000),
        ("duration", "PT1H30M", 5_400_000_000),
        ("duration", "P1DT0.0000019S", 86_400_000_001),
        ("duration", "P2W", 14 * 86_400_000_000),
        ("duration", "100:00:01.5", 360_001_500_000),
        ("duration", "90s", 90_000_000),
    ],
)
def test_instants_and_lengths_are_read_as_files_write_them(
    unit: str, text: str, expected: int
) -> None:
    """ISO 8601, seconds since 1970, clocks; with a zone or in UTC."""
    assert _value(unit, text) == expected


@pytest.mark.parametrize(
    ("unit", "text"),
    [
        ("duration", "P1M"),
        ("duration", "P"),
        ("duration", "PT"),
        ("duration", "1:30"),
        ("timestamp", "2025-02-30"),
        ("timestamp", "03/04/2025"),
        ("timestamp", "2025-01-01T00:00:00+99:00"),
        ("unix", "yesterday"),
    ],
)
def test_what_may_mean_two_things_is_refused(unit: str, text: str) -> None:
    """A month has no length, and nobody knows which two numbers 1:30 are."""
    with pytest.raises(ReplayRefused, match=r"column c: "):
        _value(unit, text)


@pytest.mark.parametrize(
    ("factor", "rounding", "text", "expected"),
    [
        ("1048576/1000000", "up", "16384", 17180),  # MiB in MB, rounded up once (R1.2)
        ("1048576/1000000", "down", "16384", 17179),
        ("1048576/1000000", "", "15625", 16384),
        ("0.001", "", "2000", 2),
        ("1000", "", "2.5", 2500),
        ("1/3", "up", "0", 0),
    ],
)
def test_a_factor_converts_what_a_file_counts_in(
    factor: str, rounding: str, text: str, expected: int
) -> None:
    """Exactly; what is not whole then is rounded only where the mapping says so."""
    unit = Unit(name="", factor=Fraction(factor), rounding=rounding)
    assert unit.of(text) == expected
    with pytest.raises(ReplayRefused, match="is not whole; where it may be rounded"):
        Unit(name="", factor=Fraction(1, 7)).of("1")


def test_a_timestamp_counts_from_the_origin_and_may_stand_in_two_columns() -> None:
    """So that times of files of every kind are one kind of figure."""
    unit = Unit(name="timestamp", origin_us=timestamp_us("2021-12-11T11:11:00Z"))
    column = Column(names=("date", "time"), unit=unit)
    assert column.number({"date": "2021-12-11", "time": "11:11:30"}) == 30_000_000


def test_a_table_replaces_what_stands_in_a_column() -> None:
    """And what it does not know is refused, unless the mapping says what stands otherwise."""
    row = {"spec": "V100M16|V100M32"}
    assert Column(names=("spec",), table={"V100M16|V100M32": "gpu.v100"}).text(row) == "gpu.v100"
    with pytest.raises(ReplayRefused, match="not in the map of column spec"):
        Column(names=("spec",), table={"T4": "gpu.t4"}).text(row)
    assert Column(names=("spec",), table={}, otherwise="gpu.any").text(row) == "gpu.any"


def test_a_duration_has_a_unit() -> None:
    """A bare number would be taken for seconds by one reader and for µs by the next."""
    assert duration_us("1.5h") == 5_400_000_000
    with pytest.raises(ReplayRefused):
        duration_us("90")


@pytest.mark.parametrize("path", sorted(MAPPINGS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_mapping_that_comes_with_the_program_is_read(path: Path) -> None:
    """A mapping names files of its own and steps of known kinds only."""
    assert load_mapping(path).name == path.stem


@pytest.mark.parametrize(
    ("place", "value", "expected"),
    [
        (("genesis", "beats"), "1s", "genesis.beats: is no parameter"),
        (("genesis", "beat"), "soon", "genesis.beat: 'soon' is no duration"),
        (("files", 0, "form"), "csv", r"files\[0\].form: is not known"),
        (("rows", 0, "becomes"), "thing", r"rows\[0\].becomes: 'thing' is none of"),
        (("rows", 0, "keys"), "id", r"rows\[0\].keys: is not known here; 'key' is meant\?"),
        (("files", 0, "separator"), "::", r"files\[0\].separator: '::' is not one character"),
        (("files", 0, "sort"), True, r"files\[0\].sort: sorts by the order, which is needed"),
        (("files", 1, "skip"), 1, r"files\[1\].format: columns and skip are of CSV files"),
        (("files", 0, "each"), "x", r"files\[0\].each: is of jsonl files"),
        (("files", 0, "missing"), [0], r"files\[0\].missing: \[0\] is no list of texts"),
        (
            ("rows", 0, "key"),
            {"column": "id", "factor": "half"},
            r"rows\[0\].key.factor: 'half' is no number or fraction",
        ),
        (
            ("rows", 0, "key"),
            {"column": "id", "factor": "0"},
            r"rows\[0\].key.factor: '0' is not above zero",
        ),
        (
            ("rows", 0, "key"),
            {"column": "id", "round": "nearest"},
            r"rows\[0\].key.round: 'nearest' is none of",
        ),
        (
            ("rows", 0, "key"),
            {"column": "id", "unit": "unix", "factor": 2},
            r"rows\[0\].key.unit: unix says its own size",
        ),
        (
            ("rows", 0, "key"),
            {"value": "soon", "unit": "h"},
            r"rows\[0\].key.value: 'soon' is no number",
        ),
        (("rows", 0, "file"), "other", r"rows\[0\].file: 'other' is not in"),
        (("rows", 0, "key"), {"column": "id", "unit": "kg"}, r"rows\[0\].key.unit: 'kg'"),
        (("catalogue", 0, "price"), "cheap", r"catalogue\[0\].price: 'cheap' is no number"),
    ],
)
def test_a_mapping_is_read_strictly(
    tmp_path: Path, place: tuple[Any, ...], value: Any, expected: str
) -> None:
    """A misspelt word is named by its place; ignored it would change every total."""
    made = tomllib.loads(MAPPING)
    at = made
    for step in place[:-1]:
        at = at[step]
    at[place[-1]] = value
    path = tmp_path / "mapping.toml"
    path.write_text(_toml(made))
    with pytest.raises(ReplayRefused, match=expected):
        load_mapping(path)


def _toml(made: dict[str, Any]) -> str:
    """TOML in inline form, which is enough to write a changed mapping back."""
    return "".join(f"{name} = {_inline(value)}\n" for name, value in made.items())


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f'"{n}" = {_inline(v)}' for n, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_inline(each) for each in value) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)
