"""What a worker needs of its own ledger: a store of states, the commits, and snapshots of both."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from domain.chain import Counted
from domain.commit import CommitHeader
from domain.ids import AggregateId
from domain.processor import Asleep, DictStates, Emitted, Processor, States, Versioned
from domain.recording import Settling


class OwnLedger(States, Settling, Protocol):
    """The store of a processor's own ledger; ``LedgerApplication`` is the one."""

    def held(self) -> Sequence[Versioned]:
        """The states in memory, for a snapshot: of committed steps, by their versions."""
        ...

    @property
    def asleep(self) -> Asleep | None:
        """States of the snapshot that it was seeded with, as far as no one has asked for them."""
        ...

    def seed(self, asleep: Asleep) -> None:
        """Take the states of a snapshot of this ledger; each is had when it is asked for."""
        ...


class HeldStates(DictStates):
    """An own ledger whose few, hot aggregates are all held in memory: a metering shard's.

    Folding an aggregate's events on first touch would read every accepted batch there ever was.
    What is over is forgotten, so that memory and snapshots follow what lives, not all that did.
    """

    def __init__(self, own: Settling, over: Callable[[Any], bool]) -> None:
        """Hold the states of ``own``, which records; no event follows a state that is ``over``."""
        super().__init__()
        self._own = own
        self._over = over
        self.asleep: Asleep | None = None
        self.lost: tuple[type[Exception], ...] = own.lost

    def commit(
        self,
        events: Sequence[Emitted],
        states: Sequence[Versioned],
        header: CommitHeader,
        *,
        height: int,
    ) -> Any:
        """Record, then hold the states."""
        said = self._own.commit(events, (), header, height=height)
        self.keep(states)
        return said

    def load(self, aggregate: AggregateId) -> Versioned | None:
        """See ``States``."""
        found = self.all.get(aggregate)
        if found is None and self.asleep is not None:
            found = self.asleep.wake(aggregate)
            if found is not None:
                self.all[aggregate] = found
        return found

    def keep(self, states: Sequence[Versioned]) -> None:
        """Hold the states of a committed step, and forget those that are over."""
        for each in states:
            if self._over(each.state):
                self.all.pop(each.id, None)
            else:
                self.all[each.id] = each

    def settle(self, *, wait: bool) -> bool:
        """See ``Settling``."""
        return self._own.settle(wait=wait)

    def forget(self) -> None:
        """Drop all states; recovery brings them back."""
        self.all.clear()
        self.asleep = None
        self._own.forget()

    def held(self) -> Sequence[Versioned]:
        """All states but those that are asleep."""
        return list(self.all.values())

    def seed(self, asleep: Asleep) -> None:
        """Hold the states of a snapshot; the fold of what came after it goes on from them."""
        self.asleep = asleep


class Closing(Protocol):
    """Something to be closed."""

    def close(self) -> None:
        """Release it."""
        ...


class OwnCommits(Protocol):
    """The commits of the own ledger, by the reader rule; ``LedgerPartition`` is the one."""

    @property
    def index(self) -> Closing:
        """The droppable index."""
        ...

    @property
    def noise_count(self) -> int:
        """Records that did not count, as far as this reader has read."""
        ...

    def may_write(self) -> None:
        """Raises where this worker has no key that writes the next height."""
        ...

    @property
    def written_bytes(self) -> int:
        """Length of all commits that this writer has appended."""
        ...

    def catch_up(self) -> Any:
        """Read what the log has and is not known yet."""
        ...

    def head(self) -> Any:
        """Where the ledger stands: has ``height``."""
        ...

    def commits(self, from_height: int = 0) -> Iterator[Counted]:
        """Counting records in order."""
        ...

    def standing(self) -> Mapping[str, Any]:
        """Where the ledger stands, noise included, as plain values."""
        ...

    def stand(self, at: Mapping[str, Any]) -> bool:
        """Whether the ledger has the commit at which somebody stood; catches up."""
        ...

    def whole(self) -> None:
        """Let the index begin at the first commit, and catch up."""
        ...


class Recalled(Protocol):
    """What a snapshot holds beside the processor's memory."""

    @property
    def where(self) -> Mapping[str, Any]:
        """Where the ledger stood, and how far each source was read."""
        ...

    @property
    def asleep(self) -> Asleep:
        """States of aggregates."""
        ...


class Snapshots(Protocol):
    """A worker's snapshots: disposable, and never needed. ``SnapshotKeeper`` is the one."""

    def recall(
        self, make: Callable[[], Processor], stands: Callable[[Mapping[str, Any]], bool]
    ) -> tuple[Processor, Recalled] | None:
        """A processor that remembers the newest snapshot that fits, or None."""
        ...

    def committed(self, events: int, bulk_bytes: int) -> None:
        """A commit was made, or folded at recovery."""
        ...

    def due(self) -> bool:
        """Whether it is time for another one."""
        ...

    def worthwhile(self) -> bool:
        """Whether a worker that stops should leave one."""
        ...

    def take(
        self,
        processor: Processor,
        where: Mapping[str, Any],
        states: Sequence[Versioned],
        asleep: Asleep | None,
    ) -> None:
        """Remember a processor as of its last commit; what is slow happens in the background."""
        ...

    def close(self) -> None:
        """Wait until what was taken is written."""
        ...
