"""The reference price against every trade and every value, looked through anew (R8.1)."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from domain.reference import Reference

DAY, TICK, FIFTH = 1000, 10, 200_000
#: What happens: time passes, and a round clears at a price with a volume.
rounds = st.lists(
    st.tuples(st.integers(1, 700), st.integers(1, 300), st.sampled_from([0, 1, 2, 7])),
    max_size=14,
)


def by_hand(
    listed: int, trades: list[tuple[int, int, int]], values: list[tuple[int, int]], now: int
) -> int:
    """R8.1: the list price; once a day exists the median of a day, a fifth from a day before."""
    last = values[-1][1] if values else listed // TICK * TICK
    if not trades or now - trades[0][0] < DAY:
        return last
    units = sorted(p for at, p, volume in trades if now - at <= DAY for _ in range(volume))
    if not units:
        return last
    median = units[(len(units) - 1) // 2]
    before = ([listed] + [value for at, value in values if now - at >= DAY])[-1]
    near = [
        price for price in range(0, 10 * before + TICK, TICK) if 5 * abs(price - before) <= before
    ]
    return min(near, key=lambda price: abs(Fraction(price - median)))


@given(listed=st.integers(500, 15_000), steps=rounds)
def test_the_reference_is_what_looking_through_all_trades_finds(
    listed: int, steps: list[tuple[int, int, int]]
) -> None:
    """R8.1: median, largest move, a day without a trade; to the instant and to the tick."""
    reference = Reference(listed)
    trades: list[tuple[int, int, int]] = []
    values: list[tuple[int, int]] = []
    now = 0
    for wait, price, volume in steps:
        now += wait
        found = reference.at(now, window_us=DAY, move_ppm=FIFTH, tick_nano=TICK)
        assert found == by_hand(listed, trades, values, now)
        reference.cleared(now, found, price * TICK, volume, window_us=DAY)
        values.append((now, found))
        if volume:
            trades.append((now, price * TICK, volume))
