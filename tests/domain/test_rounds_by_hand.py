"""Rounds unit by unit, from the words of R8.1 and R8.2: netting, price, margin."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from domain.ask_pool import AskPool
from domain.clearing import OpenAsk, RestingAsk, RestingBid, cross, net_own
from tests.domain.books import ask, bid, interval_by_every_tick

HIGHEST = 9
prices = st.integers(0, HIGHEST)
whos = st.integers(1, 3)


def _owner_of(bids: list[RestingBid], asks: list[OpenAsk]) -> dict[bytes, bytes]:
    return {a: a for a in [b.account for b in bids] + [a.account for a, _ in asks]}


def netted(
    bids: list[RestingBid], asks: list[OpenAsk]
) -> tuple[dict[bytes, int], dict[bytes, int]]:
    """R8.1: an owner's best bid against its cheapest ask, one unit after the other."""
    wants: dict[bytes, int] = {b.bid: b.open_lots * b.lot_milli for b in bids}
    gives: dict[bytes, int] = {a.offer: free for a, free in asks}
    while True:
        pairs: list[tuple[tuple[int, int], RestingBid, RestingAsk]] = [
            ((-b.limit_nano, b.order_no), b, a)
            for b in bids
            for a, _ in asks
            if b.account == a.account and wants[b.bid] and gives[a.offer]
        ]
        best: dict[bytes, tuple[RestingBid, RestingAsk]] = {}
        for _, b, a in sorted(pairs, key=lambda p: (p[0], p[2].ask_nano, p[2].order_no)):
            best.setdefault(b.account, (b, a))
        crossing = [(b, a) for b, a in best.values() if a.ask_nano <= b.limit_nano]
        if not crossing:
            return {b.bid: wants[b.bid] // b.lot_milli for b in bids}, gives
        for b, a in crossing:
            wants[b.bid] -= 1
            gives[a.offer] -= 1


@given(
    st.lists(st.tuples(prices, st.integers(1, 3), st.integers(1, 3), whos), max_size=6),
    st.lists(st.tuples(prices, st.integers(1, 7), whos), max_size=6),
)
def test_netting_is_that_of_one_unit_at_a_time(
    wanted: list[tuple[int, int, int, int]], offered: list[tuple[int, int, int]]
) -> None:
    """R8.1: what takes part of every bid, in whole lots, and of every ask, in units."""
    bids = [
        bid(number, limit, lots, lot=lot, owner=f"owner {who}")
        for number, (limit, lots, lot, who) in enumerate(wanted)
    ]
    asks = [
        ask(100 + number, price, free, owner=f"owner {who}")
        for number, (price, free, who) in enumerate(offered)
    ]
    lots, left = net_own(bids, AskPool.of(asks, owner_of := _owner_of(bids, asks)), owner_of)
    expected_lots, expected_left = netted(bids, asks)
    assert {b.bid: number for b, number in lots} == expected_lots
    assert {a.offer: left.get(a.offer, free) for a, free in asks} == expected_left


def by_largest_remainder(group: list[tuple[RestingBid, int]], seats: int) -> dict[bytes, int]:
    """R8.2: pro rata, largest remainder, last tie by the order's log position."""
    total = sum(lots for _, lots in group)
    if total <= seats:
        return {b.bid: lots for b, lots in group}
    exact: dict[bytes, Fraction] = {b.bid: Fraction(seats * lots, total) for b, lots in group}
    got = {one: int(share) for one, share in exact.items()}
    first = sorted(group, key=lambda each: (-(exact[each[0].bid] % 1), each[0].order_no))
    for b, _ in first[: seats - sum(got.values())]:
        got[b.bid] += 1
    return got


@given(
    st.lists(st.tuples(prices, st.integers(1, 5), whos, st.integers(1, 3)), max_size=7),
    st.lists(st.tuples(prices, st.integers(1, 5), whos), max_size=6),
    st.integers(0, HIGHEST + 2),
)
def test_a_round_fills_whom_the_rules_name_to_the_lot(
    wanted: list[tuple[int, int, int, int]],
    offered: list[tuple[int, int, int]],
    reference: int,
) -> None:
    """R8.1, R8.2: with lots of two on both sides, every owner perhaps on both."""
    came = sorted(each[3] for each in wanted)
    bids = [
        bid(number, limit, lots, lot=2, owner=f"owner {who}", round=came[number])
        for number, (limit, lots, who, _) in enumerate(wanted)
    ]
    asks = [
        ask(100 + number, price, 2 * lots, owner=f"owner {who}")
        for number, (price, lots, who) in enumerate(offered)
    ]
    owner_of = _owner_of(bids, asks)
    found = cross(bids, AskPool.of(asks, owner_of), owner_of=owner_of, reference_nano=reference)
    lots, left = netted(bids, asks)
    there = [(b, lots[b.bid]) for b in bids if lots[b.bid]]
    interval = interval_by_every_tick(
        [bid(b.order_no, b.limit_nano, n, lot=2) for b, n in there],
        [ask(a.order_no, a.ask_nano, left[a.offer]) for a, _ in asks],
        HIGHEST,
    )
    if interval is None:
        assert found is None
        return
    assert found is not None
    price = min(max(reference, interval[0]), interval[1])
    assert found.price_nano == price
    seats = sum(left[a.offer] for a, _ in asks if a.ask_nano <= price) // 2
    expected: dict[bytes, int] = {b.bid: n for b, n in there if b.limit_nano > price}
    seats -= sum(expected.values())
    for number in sorted({b.round for b, _ in there}):
        group = [(b, n) for b, n in there if b.limit_nano == price and b.round == number]
        shares = by_largest_remainder(group, seats)
        seats -= sum(shares.values())
        expected |= {one: n for one, n in shares.items() if n}
    assert {b.bid: n for b, n in found.filled} == expected
