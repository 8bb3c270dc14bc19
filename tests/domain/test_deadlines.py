"""The queue of deadlines: in order, each once, and no larger than what waits."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from domain.processor import Deadlines


@given(
    st.lists(
        st.tuples(st.sampled_from(["set", "clear", "pop"]), st.integers(0, 30), st.integers(0, 9)),
        max_size=400,
    )
)
def test_deadlines_come_in_the_order_of_their_time_kind_and_id(
    does: list[tuple[str, int, int]],
) -> None:
    """Set again, cleared, taken, in any order: the next is the least of those that wait."""
    queue = Deadlines()
    waits: dict[tuple[int, bytes], int] = {}
    for what, name, due_us in does:
        kind, id = name % 3, bytes((name,))
        if what == "set":
            queue.set(kind, id, due_us)
            waits[kind, id] = due_us
        elif what == "clear":
            queue.clear(kind, id)
            waits.pop((kind, id), None)
        elif waits:
            due, kind, id = min((due, *key) for key, due in waits.items())
            assert queue.next() == (due, kind, id)
            queue.pop()
            del waits[kind, id]
        least = min(((due, *key) for key, due in waits.items()), default=None)
        assert queue.next() == least
        assert len(queue) == len(waits)


def test_deadlines_that_were_cleared_early_leave_no_trace() -> None:
    """Terms of months that end within minutes: the queue is as large as what waits."""
    queue = Deadlines()
    for number in range(10_000):
        queue.set(1, number.to_bytes(4, "big"), 10**9 + number)
        if number >= 50:
            queue.clear(1, (number - 50).to_bytes(4, "big"))
    assert len(queue) == 50
    assert len(vars(queue)["_heap"]) < 250
    assert queue.next() == (10**9 + 9950, 1, (9950).to_bytes(4, "big"))
