"""The number windows: each number answered once, memory bounded, nothing run twice."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from domain.gate import Answer, Repeat, Sequences
from domain.refusal import (
    SEQUENCE_CONFLICT,
    SEQUENCE_TOO_OLD,
    SESSION_IN_FUTURE,
    SESSION_TOO_OLD,
    Refused,
)

KEY = b"k" * 32
LATEST = 10_000


def digest(content: int) -> bytes:
    """What is sent, as a digest."""
    return content.to_bytes(32, "big")


def answered(sequences: Sequences, session: int, number: int, content: int, code: int = 0) -> None:
    """Let a number have its first answer."""
    sequences.answered(KEY, session, number, Answer(digest(content), code, ""))


def judged(sequences: Sequences, session: int, number: int, content: int) -> object:
    """What the windows say of a record."""
    return sequences.judge(KEY, session, number, digest(content), LATEST)


def test_a_new_number_is_new() -> None:
    """Nothing was heard of the key: any number in any session that has begun will do."""
    assert judged(Sequences(64), 5, 1_000_000, 1) is None


def test_a_repeat_gets_its_first_answer_also_when_that_was_a_refusal() -> None:
    """Refusals are final: funds that arrive later change nothing for that number."""
    sequences = Sequences(64)
    answered(sequences, 5, 3, 1, code=501)
    assert judged(sequences, 5, 3, 1) == Repeat(Answer(digest(1), 501, ""))


def test_the_same_number_with_other_content_is_a_conflict() -> None:
    """And the first answer stands."""
    sequences = Sequences(64)
    answered(sequences, 5, 3, 1)
    said = judged(sequences, 5, 3, 2)
    assert isinstance(said, Refused)
    assert said.code is SEQUENCE_CONFLICT
    assert isinstance(judged(sequences, 5, 3, 1), Repeat)


def test_a_number_below_the_window_is_never_executed() -> None:
    """Even if it was never seen: it might have been, before the window moved."""
    sequences = Sequences(64)
    answered(sequences, 5, 100, 1)
    said = judged(sequences, 5, 36, 2)
    assert isinstance(said, Refused)
    assert said.code is SEQUENCE_TOO_OLD
    assert judged(sequences, 5, 37, 2) is None


def test_the_two_latest_sessions_are_kept_and_an_older_one_is_refused() -> None:
    """A signer that restarts may have records of its last session still under way."""
    sequences = Sequences(64)
    for session in (5, 7, 9):
        answered(sequences, session, 0, session)
    said = judged(sequences, 5, 1, 1)
    assert isinstance(said, Refused)
    assert said.code is SESSION_TOO_OLD
    assert judged(sequences, 7, 1, 1) is None
    assert isinstance(judged(sequences, 8, 0, 1), Refused)


def test_a_session_cannot_begin_in_the_future() -> None:
    """Else a signer could lock itself out for ever by a wrong clock."""
    said = judged(Sequences(64), LATEST + 1, 0, 1)
    assert isinstance(said, Refused)
    assert said.code is SESSION_IN_FUTURE


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 300), st.integers(0, 2)), max_size=200))
def test_no_number_is_executed_twice_in_any_history(records: list[tuple[int, int, int]]) -> None:
    """Whatever comes in whatever order, (session, number) runs at most once; memory is bounded."""
    sequences = Sequences(64)
    executed: set[tuple[int, int]] = set()
    for session, number, content in records:
        if judged(sequences, session, number, content) is None:
            assert (session, number) not in executed
            executed.add((session, number))
            answered(sequences, session, number, content)
    kept = sequences._keys.get(KEY, [])
    assert len(kept) <= 2
    assert all(len(session.answers) <= 64 for session in kept)


def test_the_highest_number_there_is_does_no_harm() -> None:
    """A number is 63 bits of the signer's choice; what falls out of the window may be all."""
    sequences = Sequences(64)
    for number in (3, 2**63 - 1, 2**63 - 2):
        answered(sequences, 5, number, number)
    assert isinstance(judged(sequences, 5, 2**63 - 2, 2**63 - 2), Repeat)
    said = judged(sequences, 5, 3, 3)
    assert isinstance(said, Refused)
    assert said.code is SEQUENCE_TOO_OLD
