"""The reference price of an instrument (R8.1): a fold over its cleared rounds, in whole ticks.

List price first. Once a day has passed since the first trade: the volume-weighted median of the
clearing prices of the last 24 h, at most 20 % from the reference's own value 24 h before. A day
without a trade changes nothing. Netting has kept an owner's own orders apart before the price is
made, so every trade is between different beneficial owners.
"""

from __future__ import annotations

from collections import deque


class Reference:
    """Trades of the last window and the reference's steps in it."""

    def __init__(self, list_nano: int) -> None:
        """Start at the catalogue's price."""
        self._list = list_nano
        self._first_us: int | None = None
        self._trades: deque[tuple[int, int, int]] = deque()  # (at, price, volume)
        self._volumes: dict[int, int] = {}  # of _trades, by price
        self._steps: deque[tuple[int, int]] = deque([(0, list_nano)])  # (since, value)

    def at(self, now_us: int, *, window_us: int, move_ppm: int, tick_nano: int) -> int:
        """The reference for a round that clears now; ``now_us`` never falls."""
        last = self._steps[-1][1] // tick_nano * tick_nano
        if self._first_us is None or now_us < self._first_us + window_us:
            return last
        volumes = dict(self._volumes)
        for at_us, price, volume in self._trades:
            if at_us >= now_us - window_us:
                break
            volumes[price] -= volume
        median = _median(volumes)
        if median is None:
            return last
        before = self._list
        for since_us, value in self._steps:
            if since_us > now_us - window_us:
                break
            before = value
        most = before * move_ppm // 1_000_000
        low = -(-(before - most) // tick_nano)
        high = (before + most) // tick_nano
        return min(max(median // tick_nano, low), high) * tick_nano

    def cleared(
        self, at_us: int, reference_nano: int, price_nano: int, volume: int, *, window_us: int
    ) -> None:
        """Fold a cleared round; one without volume is no trade."""
        if reference_nano != self._steps[-1][1]:
            self._steps.append((at_us, reference_nano))
        while len(self._steps) > 1 and self._steps[1][0] <= at_us - window_us:
            self._steps.popleft()
        if volume:
            if self._first_us is None:
                self._first_us = at_us
            self._trades.append((at_us, price_nano, volume))
            self._volumes[price_nano] = self._volumes.get(price_nano, 0) + volume
        while self._trades and self._trades[0][0] < at_us - window_us:
            _, price, gone = self._trades.popleft()
            self._volumes[price] -= gone
            if not self._volumes[price]:
                del self._volumes[price]


def _median(volumes: dict[int, int]) -> int | None:
    """The lowest price at which half of the volume is reached."""
    total = sum(volumes.values())
    if not total:
        return None
    reached = 0
    for price in sorted(volumes):
        reached += volumes[price]
        if 2 * reached >= total:
            return price
    return None
