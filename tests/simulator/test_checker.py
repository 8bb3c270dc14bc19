"""The checker finds each thing that can be wrong with a history, and nothing in a right one."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from adapters.simulator_checker import Kind, check, counts
from adapters.simulator_history import (
    Answer,
    Effect,
    History,
    Operation,
    Outcome,
    Poll,
    Send,
    Submit,
    named,
)

PLACE = ("commands", 0)
NUMBER = (b"key", 1, 7)
MADE = bytes(16)


def sent(
    value: str,
    offset: int | None = None,
    *,
    outcome: Outcome = Outcome.OK,
    process: int = 1,
    at: int = 0,
) -> Send:
    """One send; ``at`` is when it began and ended."""
    return Send(
        process=process,
        place=PLACE,
        value=value,
        outcome=outcome,
        offset=offset,
        invoked=at,
        completed=at,
    )


def polled(
    *records: tuple[int, str], process: int = 9, asked: int = 0, sought: bool = False
) -> Poll:
    """One poll."""
    following = records[-1][0] + 1 if records else asked
    return Poll(
        process=process,
        place=PLACE,
        asked=asked,
        records=records,
        following=following,
        sought=sought,
    )


def answered(code: int, process: int = 1, digest: bytes = b"") -> Answer:
    """An answer to the one number of these histories."""
    return Answer(process=process, number=NUMBER, digest=digest, code=code)


GOOD: dict[str, Sequence[Operation]] = {
    "nothing happened": (),
    "two sends, read in two polls": (
        sent("a", 0, at=1),
        sent("b", 1, at=2),
        polled((0, "a")),
        polled((1, "b"), asked=1),
    ),
    "a lost answer whose record is there": (sent("a", outcome=Outcome.INFO), polled((0, "a"))),
    "a lost answer whose record is not there": (
        sent("a", outcome=Outcome.INFO),
        sent("b", 0),
        polled((0, "b")),
    ),
    "a value sent again after a lost answer stands twice": (
        sent("a", outcome=Outcome.INFO),
        sent("a", 1, at=1),
        polled((0, "a"), (1, "a")),
    ),
    "an offset without a record is no skip": (
        sent("a", 0),
        sent("b", 2, at=1),
        polled((0, "a"), (2, "b")),
    ),
    "a reader that seeks may go back": (
        sent("a", 0),
        polled((0, "a")),
        polled((0, "a"), sought=True),
    ),
    "sends under way together may end in any order": (
        sent("b", 1, at=5),
        Send(process=1, place=PLACE, value="a", outcome=Outcome.OK, offset=0, invoked=1),
        polled((0, "a"), (1, "b")),
    ),
    "a failed send that nobody reads": (sent("a", outcome=Outcome.FAIL),),
    "an accepted command and its effect, seen by two readers": (
        Submit(process=1, number=NUMBER, outcome=Outcome.OK, makes=(MADE,)),
        answered(0, process=1),
        answered(0, process=2),
        Effect(process=1, made=MADE),
        Effect(process=2, made=MADE),
    ),
    "a refused command without an effect": (
        Submit(process=1, number=NUMBER, outcome=Outcome.OK, makes=(MADE,)),
        answered(305),
    ),
}
BAD: dict[Kind, Sequence[Operation]] = {
    Kind.LOST_WRITE: (sent("a", 0), sent("b", 1, at=1), polled((1, "b"), sought=True)),
    Kind.UNSEEN: (sent("a", 0), sent("b", 1, at=1), polled((0, "a"))),
    Kind.DUPLICATE: (sent("a", 0), polled((0, "a"), (1, "a"))),
    Kind.ABORTED_READ: (sent("a", outcome=Outcome.FAIL), polled((0, "a"))),
    Kind.PHANTOM: (polled((0, "a")),),
    Kind.INCONSISTENT_OFFSET: (
        sent("a", 0),
        sent("b", outcome=Outcome.INFO),
        polled((0, "a")),
        polled((0, "b"), process=8),
    ),
    Kind.NONMONOTONIC_SEND: (
        sent("a", 1, at=1),
        sent("b", 0, at=2),
        polled((0, "b"), (1, "a")),
    ),
    Kind.NONMONOTONIC_POLL: (sent("a", 0), polled((0, "a")), polled((0, "a"))),
    Kind.INTERNAL_NONMONOTONIC_POLL: (
        sent("a", 0),
        sent("b", 1, at=1),
        polled((1, "b"), (0, "a"), sought=True),
    ),
    Kind.POLL_SKIP: (
        sent("a", 0),
        sent("b", 1, at=1),
        sent("c", 2, at=2),
        polled((0, "a"), (1, "b"), (2, "c"), process=8),
        polled((0, "a")),
        polled((2, "c"), asked=1),
    ),
    Kind.INTERNAL_POLL_SKIP: (
        sent("a", 0),
        sent("b", 1, at=1),
        sent("c", 2, at=2),
        polled((0, "a"), (1, "b"), (2, "c"), process=8),
        polled((0, "a"), (2, "c")),
    ),
    Kind.ANSWERED_TWICE: (answered(0), answered(0)),
    Kind.ANSWERS_DIFFER: (answered(0, process=1), answered(305, process=2)),
    Kind.EXECUTED_TWICE: (Effect(process=1, made=MADE), Effect(process=1, made=MADE)),
    Kind.REFUSED_EXECUTED: (
        Submit(process=1, number=NUMBER, outcome=Outcome.INFO, makes=(MADE,)),
        answered(305),
        Effect(process=1, made=MADE),
    ),
}


@pytest.mark.parametrize("story", GOOD)
def test_a_history_that_may_be_is_left_alone(story: str) -> None:
    """Unknown outcomes, gaps, seeks and repeats are what a correct log may show."""
    assert check(History(list(GOOD[story]))) == []


@pytest.mark.parametrize("kind", list(Kind))
def test_each_thing_that_may_not_be_is_found_and_named(kind: Kind) -> None:
    """One hand-made history for each kind of anomaly, and no other kind is named in it."""
    assert {found.kind for found in check(History(list(BAD[kind])))} == {kind}


def test_anomalies_are_counted_as_lost_doubled_or_forked() -> None:
    """The three columns of the fault matrix, from the checker's own findings."""
    found = [each for kind in BAD for each in check(History(list(BAD[kind])))]
    lost, doubled, forked = counts(found)
    assert (lost, doubled, forked) == (4, 5, 6)


def test_answers_with_other_content_under_one_number_differ() -> None:
    """The same code for other bytes is another answer."""
    story: list[Operation] = [
        answered(0, process=1, digest=b"one"),
        answered(0, process=2, digest=b"two"),
    ]
    assert [found.kind for found in check(History(story))] == [Kind.ANSWERS_DIFFER]


def test_values_are_named_by_their_bytes() -> None:
    """Equal bytes are one value, others are not."""
    assert named(b"a") == named(b"a") != named(b"b")
