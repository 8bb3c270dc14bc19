"""The port through which a processor's steps become commits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from domain.commit import CommitHeader
from domain.processor import Emitted, Versioned


class Recording(Protocol):
    """What records the commits of a processor's own ledger; ``LedgerApplication`` is the one.

    *Durable*: when ``commit`` returns, or when ``settle`` says so. *Ordered*: by height, one at a
    time. *Concurrent*: one thread per object.
    """

    @property
    def lost(self) -> tuple[type[Exception], ...]:
        """What ``commit`` raises when another commit counts at the height."""
        ...

    def commit(
        self,
        events: Sequence[Emitted],
        states: Sequence[Versioned],
        header: CommitHeader,
        *,
        height: int,
    ) -> Any:
        """Record one step as the commit of ``height``; raises one of ``lost`` or a log error."""
        ...

    def forget(self) -> None:
        """Drop cached states."""
        ...


class Settling(Recording, Protocol):
    """The same for whom a commit may still be on its way when ``commit`` returns."""

    def settle(self, *, wait: bool) -> bool:
        """Whether the last commit is recorded. Raises what ``commit`` did not yet know."""
        ...
