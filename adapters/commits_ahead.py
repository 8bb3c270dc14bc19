"""A commit is appended while the next step is decided.

What a durable append waits for (the broker, its disk) is most of a step's time and none of its
work. So it is done in a thread: one commit at a time, in order, each begun only when the one before
is on the log. What was decided meanwhile stands on a commit that is not certain yet, and that is
safe: it reaches nobody before that commit does, and if it does not, everything in memory is dropped
and recovered as after any other failure.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from domain.commit import CommitHeader
from domain.processor import Emitted, Versioned
from domain.recording import Recording


class CommitsAhead:
    """Records through another, in a thread. Its log must be one that any thread may use."""

    def __init__(self, own: Recording) -> None:
        """The thread starts with the first commit and ends with the process or ``close``."""
        self._own = own
        self._thread = ThreadPoolExecutor(1, "commit")
        self._last: Future[Any] | None = None
        self.lost: tuple[type[Exception], ...] = own.lost

    def commit(
        self,
        events: Sequence[Emitted],
        states: Sequence[Versioned],
        header: CommitHeader,
        *,
        height: int,
    ) -> None:
        """Begin to record a step, once the one before is recorded; raises what became of that."""
        self.settle(wait=True)
        self._last = self._thread.submit(self._own.commit, events, states, header, height=height)

    def settle(self, *, wait: bool) -> bool:
        """Whether the last commit is recorded; raises once what it raised."""
        last = self._last
        if last is None:
            return True
        if not wait and not last.done():
            return False
        self._last = None
        last.result()
        return True

    def forget(self) -> None:
        """Let the last commit come to its end, whatever that is, and drop cached states."""
        last, self._last = self._last, None
        if last is not None:
            last.exception()
        self._own.forget()
