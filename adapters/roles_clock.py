"""The clock of broker time: the same signed tick to every input partition, once a second.

Any number of clocks may run; the processors take the ticks of all.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from adapters.actor import Actor
from domain.commit import COMMANDS_TOPIC, TELEMETRY_TOPIC
from domain.ledger import Tick
from domain.ports import Log

TICK_US: Final = 1_000_000


def now_us() -> int:
    """The machine's clock, in µs UTC."""
    return time.time_ns() // 1000


class Clock:
    """Appends the ticks of one signer."""

    def __init__(self, log: Log, shards: int, actor: Actor, clock_us: Callable[[], int]) -> None:
        """``actor`` signs with a clock key."""
        self._log = log
        self._shards = shards
        self._actor = actor
        self._clock_us = clock_us
        self._last = -1

    def due(self) -> bool:
        """Whether a second has begun that has no tick."""
        return self._clock_us() // TICK_US != self._last

    def tick(self) -> None:
        """Append a tick; a second that was slept through gets none."""
        at = self._clock_us()
        self._last = at // TICK_US
        record = self._actor.sign(Tick(time_us=at))
        self._log.append(COMMANDS_TOPIC, 0, record)
        for shard in range(self._shards):
            self._log.append(TELEMETRY_TOPIC, shard, record)
