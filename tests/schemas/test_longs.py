"""Longs one at a time and longs as a column are the same encoding, refusals included."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.longs import (
    COLUMN_FROM,
    INT64_MAX,
    INT64_MIN,
    Malformed,
    read_column,
    read_long,
    varint,
    write_column,
)
from tests.schemas.strategies import LONGS

COLUMNS = st.lists(LONGS, min_size=COLUMN_FROM, max_size=3 * COLUMN_FROM)


def one_by_one(data: bytes, count: int) -> tuple[list[int], int] | None:
    """What the plain reader makes of the bytes; None where it refuses."""
    numbers, at = [], 0
    try:
        for _ in range(count):
            number, at = read_long(data, at)
            numbers.append(number)
    except (Malformed, IndexError):
        return None
    return numbers, at


def as_column(data: bytes, count: int) -> tuple[list[int], int] | None:
    """What the vectorised reader makes of them; None where it refuses."""
    try:
        return read_column(data, 0, len(data), count)
    except Malformed:
        return None


@given(COLUMNS)
@example([INT64_MIN] * COLUMN_FROM)
@example([INT64_MAX, INT64_MIN, 0, -1] * COLUMN_FROM)
@example([0] * COLUMN_FROM)
def test_a_column_has_the_bytes_of_its_numbers_one_after_the_other(numbers: list[int]) -> None:
    """The vectorised writer is the plain writer, faster."""
    data = write_column(numbers)
    assert data == b"".join(map(varint, numbers))
    assert as_column(data + b"rest", len(numbers)) == (numbers, len(data))


@given(COLUMNS, st.data())
def test_both_readers_refuse_the_same_damaged_bytes(
    numbers: list[int], data: st.DataObject
) -> None:
    """Whatever is changed, cut or put in, the two readers agree on the outcome."""
    whole = bytearray(write_column(numbers))
    at = data.draw(st.integers(0, len(whole) - 1))
    patch = data.draw(st.binary(max_size=12) | st.just(b"\xff" * 9) | st.just(b"\x80\x00"))
    damaged = bytes(whole[:at] + patch + whole[at + data.draw(st.integers(0, 12)) :])
    if len(damaged) >= len(numbers):
        assert as_column(damaged, len(numbers)) == one_by_one(damaged, len(numbers))


@pytest.mark.parametrize(
    "encoded",
    [b"\x80\x00", b"\xff" * 9 + b"\x02", b"\xff" * 10 + b"\x01", b"\x80" * 9 + b"\x00"],
    ids=["padded", "65 bits", "eleven bytes", "padded to ten"],
)
@pytest.mark.parametrize("count", [1, COLUMN_FROM])
def test_a_number_has_one_encoding_within_64_bits(encoded: bytes, count: int) -> None:
    """Padding and a 65th bit are refused wherever the number stands."""
    data = encoded + b"\x00" * count
    assert one_by_one(data, count) is None
    assert as_column(data, count) is None


@pytest.mark.parametrize("number", [INT64_MIN - 1, INT64_MAX + 1, 10**4000])
def test_a_number_beyond_64_bits_is_not_written(number: int) -> None:
    """Nothing is cut to fit."""
    with pytest.raises(Malformed):
        varint(number)
    with pytest.raises(Malformed):
        write_column([number] * COLUMN_FROM)
