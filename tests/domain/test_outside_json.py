"""JSON from outside is read as Python reads it, but never so deep that the process ends."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.outside_json import DEPTH_MAX, parse

documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(st.text(), inside, max_size=4),
    max_leaves=20,
)


@pytest.fixture
def as_with_an_evm() -> Iterator[None]:
    """The limit that a library of the EVM sets when it is imported."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(100_000)
    yield
    sys.setrecursionlimit(before)


@given(document=documents, indent=st.sampled_from((None, 1)), plain=st.booleans())
def test_a_document_is_read_as_python_reads_it(
    document: object, indent: int | None, plain: bool
) -> None:
    """Brackets in strings, escapes and all."""
    text = json.dumps(document, indent=indent, ensure_ascii=plain)
    assert parse(text) == parse(text.encode()) == document


@pytest.mark.usefixtures("as_with_an_evm")
@pytest.mark.parametrize(
    "text",
    [
        "[" * 1_000_000,
        '{"a":' * 500_000,
        '"' + '\\"' * 500_000 + "[" * 100_000,
        '"\\',
        "[" * (DEPTH_MAX + 1) + "]" * (DEPTH_MAX + 1),
        "]" * 1_000_000 + "[" * 1_000_000,
    ],
    ids=["arrays", "objects", "an open string", "an open escape", "one too deep", "closed first"],
)
def test_what_nests_too_deeply_or_is_none_is_refused_and_ends_nothing(text: str) -> None:
    """A `ValueError`, whatever the interpreter's own limit is."""
    with pytest.raises(ValueError, match=r"deeper|Unterminated|Expecting"):
        parse(text)


def test_what_nests_as_deep_as_it_may_is_read() -> None:
    """The bound itself is allowed, and brackets in strings do not count."""
    deep = "[" * DEPTH_MAX + "]" * DEPTH_MAX
    assert parse(deep) == json.loads(deep)
    assert parse(json.dumps("[" * 1_000)) == "[" * 1_000
