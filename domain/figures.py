"""What the operator of a processor is told while it works.

Figures go out and never come back in, so no rule can see them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from domain.commit import GateCount


class Figures(Protocol):
    """Takes what one processor knows of its own work.

    *Trusted*: nothing depends on it. *Concurrent*: told by the processor's thread alone. It never
    raises, and returns at once.
    """

    def recovered(self, *, commits: int, took_us: int) -> None:
        """The state was folded anew from so many commits."""
        ...

    def committed(
        self, *, events: int, rows: int, size_bytes: int, took_us: int, refused: Sequence[GateCount]
    ) -> None:
        """A commit counts: its events, the rows of telemetry that it accepts, what the gate left
        out of it, its length, and how long it took from the decision to the acknowledgement."""
        ...

    def behind(self, topic: str, partition: int, *, records: int, late_us: int) -> None:
        """How many records of a source are not read yet, and how old the last one read was."""
        ...

    def noise(self, topic: str, partition: int, count: int) -> None:
        """So many records of a ledger did not count."""
        ...

    def raced(self) -> None:
        """Another writer's commit counts at the height that this one had decided."""
        ...

    def stopped(self, name: str) -> None:
        """The processor stops for a named reason."""
        ...
