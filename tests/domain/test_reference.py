"""The reference price: list price, then a slow median of trades (R8.1)."""

from __future__ import annotations

from domain.reference import Reference

TICK = 10
DAY = 1000
PPM = 200_000


def at(reference: Reference, now_us: int) -> int:
    """The reference now, by a window of ``DAY`` and a fifth at most."""
    return reference.at(now_us, window_us=DAY, move_ppm=PPM, tick_nano=TICK)


def trade(reference: Reference, now_us: int, price: int, volume: int = 1) -> None:
    """A cleared round at the reference of its moment."""
    reference.cleared(now_us, at(reference, now_us), price, volume, window_us=DAY)


def test_the_list_price_holds_until_a_day_of_trades_exists() -> None:
    """In whole ticks, and to the microsecond."""
    reference = Reference(1009)
    trade(reference, 50, 900)
    assert at(reference, 49 + DAY) == 1000
    assert at(reference, 50 + DAY) == 900


def test_the_median_is_weighted_by_volume() -> None:
    """Of volumes 1, 5 and 4 the half is reached at the second price."""
    reference = Reference(1000)
    trade(reference, 1, 880, 1)
    trade(reference, 2, 950, 5)
    trade(reference, 3, 1100, 4)
    assert at(reference, 1 + DAY) == 950


def test_the_reference_moves_by_at_most_a_fifth_of_its_value_a_day_before() -> None:
    """Trades at half of it take it down step by step."""
    reference = Reference(1000)
    steps = []
    for now_us in range(0, 5 * DAY, DAY // 4):
        steps.append(at(reference, now_us))
        trade(reference, now_us, 500)
    # A fifth below 640 is 512, of which the next tick above is 520; then 500 is within reach.
    assert steps == [1000] * 4 + [800] * 4 + [640] * 4 + [520] * 4 + [500] * 4
    dear = Reference(1000)
    trade(dear, 0, 5000)
    assert at(dear, DAY) == 1200


def test_a_day_without_a_trade_changes_nothing() -> None:
    """Rounds without volume are no trades."""
    reference = Reference(1000)
    trade(reference, 0, 900)
    trade(reference, DAY, 900)
    assert at(reference, 2 * DAY) == 900
    trade(reference, 2 * DAY + 1, 0, 0)
    assert at(reference, 5 * DAY) == 900


def test_only_trades_of_the_last_day_count() -> None:
    """A trade exactly a day old still counts, a microsecond later it does not."""
    reference = Reference(1000)
    trade(reference, 0, 900, 9)
    trade(reference, 100, 1000, 1)
    assert at(reference, DAY) == 900
    assert at(reference, DAY + 1) == 1000
