"""How far an audit is: a row for each ledger on a terminal, else a line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from adapters.cli_output import noted

if TYPE_CHECKING:
    from adapters.audit import LedgerReport
    from domain.commit import Ledger

#: Redrawn so often on a terminal; a line so often elsewhere.
_DRAWN_EVERY_S: Final = 0.25
LINE_EVERY_S: Final = 10.0


class AuditProgress:
    """Hears of each ledger how far it is read, and shows it on standard error."""

    def __init__(
        self,
        seats: Sequence[tuple[Ledger, int]],
        *,
        clock: Callable[[], float] = time.monotonic,
        line_every_s: float = LINE_EVERY_S,
    ) -> None:
        """Begin to count the time."""
        self._clock = clock
        self._began = self._shown = clock()
        self._ended: float | None = None
        self._reports: dict[tuple[Ledger, int], tuple[int, int, int, int]] = {}
        self._rows: dict[tuple[Ledger, int], Any] = {}
        self._live: Any = None
        self._every_s = line_every_s
        self._seats = seats
        self._draw()

    def _draw(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        if not console.is_terminal:
            return
        self._every_s = _DRAWN_EVERY_S
        self._live = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %  {task.fields[rates]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._rows = {
            (ledger, shard): self._live.add_task(
                f"{ledger.name.lower()} {shard}", total=None, rates=""
            )
            for ledger, shard in self._seats
        }
        self._live.start()

    def __call__(self, report: LedgerReport) -> None:
        """One ledger is so far."""
        seat = report.ledger, report.shard
        end = max(report.end_offset, report.offset)
        self._reports[seat] = report.offset, end, report.inputs, report.readings
        now = self._clock()
        if now - self._shown < self._every_s:
            return
        self._shown = now
        if self._live is None:
            noted(self.line())
            return
        for each, (offset, end, inputs, readings) in self._reports.items():
            self._live.update(
                self._rows[each], completed=offset, total=end, rates=self._rates(inputs, readings)
            )

    def line(self) -> str:
        """How far, how fast, how long still: of all ledgers together, and the one that is last."""
        known = self._reports
        if not known:
            return "The audit has begun."
        done = sum(offset for offset, _, _, _ in known.values())
        end = sum(end for _, end, _, _ in known.values()) or 1
        inputs = sum(inputs for _, _, inputs, _ in known.values())
        readings = sum(readings for _, _, _, readings in known.values())
        last = min(known, key=lambda seat: known[seat][0] / max(known[seat][1], 1))
        share = known[last][0] / max(known[last][1], 1)
        left_s = self.seconds() * (1 - share) / share if share else 0.0
        return (
            f"Audited {done:,} of {end:,} commits, {self._rates(inputs, readings)}; "
            f"{last[0].name.lower()} {last[1]} is at {share:.0%}, about {left_s:,.0f} s to go."
        )

    def _rates(self, inputs: int, readings: int) -> str:
        seconds = max(self.seconds(), 0.001)
        return f"{inputs / seconds:,.0f} records/s, {readings / seconds:,.0f} readings/s"

    def done(self) -> None:
        """Take the rows away."""
        if self._ended is None:
            self._ended = self._clock()
        if self._live is not None:
            self._live.stop()

    def seconds(self) -> float:
        """How long the re-deriving has taken."""
        return (self._clock() if self._ended is None else self._ended) - self._began
