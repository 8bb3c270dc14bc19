"""Texts of strangers hide nothing, and what a refusal repeats of them is short."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from domain.refusal import DETAIL_CHARACTERS, MALFORMED, Refused
from domain.text import is_name, is_shown_whole, shown


def test_what_moves_turns_or_is_not_seen_is_hidden() -> None:
    """A terminal's escape, a string's end, a turned line, a joint of no width, a tag."""
    for hidden in "\x00\x07\x1b\r\n\x7f\x9b\xad\u200b\u202e\u2028\u2066\ufeff\U000e0041":
        assert not is_shown_whole(f"Os{hidden}lo")
        assert not is_name(f"Os{hidden}lo")
        assert shown(f"Os{hidden}lo", 10) == "Os?lo"


def test_letters_of_any_script_are_shown_as_they_are() -> None:
    """A place may be called what it is called."""
    for text in ("Luleå", "東京", "İzmir", "Москва", "µs – …", ""):
        assert is_shown_whole(text)
        assert shown(text, 10) == text


def test_a_name_is_of_visible_ascii_so_that_no_other_looks_like_it() -> None:
    """Neither a letter of another script, nor a second form of one, nor a space at an end."""
    for name in ("eu", "eu west-1", "a.b_c/d", ""):
        assert is_name(name)
    for other in ("\u0435u", "e\u0301u", "\u00e9u", " eu", "eu ", "eu\u00a0west"):
        assert not is_name(other)


@given(st.text(max_size=600), st.integers(1, 300))
def test_what_is_shown_is_short_and_hides_nothing(text: str, most: int) -> None:
    """Of any text; and what hides nothing and is short enough is shown as it is."""
    said = shown(text, most)
    assert len(said) <= most
    assert is_shown_whole(said)
    assert (said == text) == (is_shown_whole(text) and len(text) <= most)


@given(st.text(max_size=600))
def test_a_detail_is_short_and_hides_nothing(text: str) -> None:
    """Whoever refuses need not think of it."""
    detail = Refused(MALFORMED, text).detail
    assert len(detail) <= DETAIL_CHARACTERS
    assert is_shown_whole(detail)
