"""What a worker tells of its work: figures for the operator, cheap enough for the hot path.

Without anybody to tell nothing is counted. The log's end is asked for once a second, not at every
read.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from domain.figures import Figures
from domain.ports import Fetched, Log
from domain.processor import Source, Unit
from domain.telemetry import TelemetryAccepted

_END_EVERY_S: Final = 1.0
Place = tuple[str, int]


class Told:
    """Tells the figures of one worker; every method does nothing where nobody wants them."""

    def __init__(
        self, figures: Figures | None, log: Log, clock_us: Callable[[], int] | None
    ) -> None:
        """``clock_us`` is given where time is the broker's: only there a record has an age."""
        self._figures = figures
        self._log = log
        self._clock_us = clock_us
        self._behind: dict[Place, int] = {}
        self._asked_s: dict[Place, float] = {}
        self._noise: dict[Place, int] = {}

    def recovered(self, *, commits: int, began_ns: int) -> None:
        """The state was folded anew."""
        if self._figures is not None:
            self._figures.recovered(commits=commits, took_us=_since_us(began_ns))

    def committed(self, unit: Unit, *, size_bytes: int, began_ns: int) -> None:
        """The step counts."""
        if self._figures is not None:
            self._figures.committed(
                events=len(unit.events),
                rows=sum(_rows(each.event) for each in unit.events),
                size_bytes=size_bytes,
                took_us=_since_us(began_ns),
                refused=unit.refused(),
            )

    def read(self, source: Source, fetched: Fetched) -> None:
        """Say how far the log is ahead of what was read of a source."""
        if self._figures is None:
            return
        place = (source.topic, source.partition)
        records = late_us = 0
        if fetched.records:
            now = time.monotonic()
            if now - self._asked_s.get(place, -_END_EVERY_S) < _END_EVERY_S:
                return
            self._asked_s[place] = now
            records = max(0, self._log.end(*place) - fetched.next_offset)
            if self._clock_us is not None and records:
                late_us = max(0, self._clock_us() - fetched.records[-1].time_us)
        elif self._behind.get(place) == 0:
            return
        self._behind[place] = records
        self._figures.behind(*place, records=records, late_us=late_us)

    def noise(self, place: Place, count: int) -> None:
        """Say how much of a ledger's noise is new; a reader that began anew counts from zero."""
        if self._figures is None:
            return
        told = self._noise.get(place, 0)
        self._noise[place] = count
        new = count - told if count >= told else count
        if new:
            self._figures.noise(*place, new)

    def raced(self) -> None:
        """Another's commit counts."""
        if self._figures is not None:
            self._figures.raced()

    def stopped(self, name: str) -> None:
        """The worker stops for a named reason."""
        if self._figures is not None:
            self._figures.stopped(name)


def _since_us(began_ns: int) -> int:
    return (time.perf_counter_ns() - began_ns) // 1000


def _rows(event: Any) -> int:
    """Rows of telemetry that an event accepts."""
    if not isinstance(event, TelemetryAccepted):
        return 0
    return event.rows - sum(byte.bit_count() for byte in event.refused)
