"""Clearing: one price, fair margins, whole lots on nodes (R8.1, R8.2)."""

from __future__ import annotations

import time
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.ask_pool import AskPool
from domain.clearing import (
    Crossing,
    OpenAsk,
    RestingAsk,
    RestingBid,
    RoundAsks,
    cross,
    place,
    pro_rata,
)
from domain.ids import NodeId
from tests.domain.books import (
    ask,
    bid,
    demand_at,
    interval_by_every_tick,
    name,
    owners,
    supply_at,
)

HIGHEST = 12
prices = st.integers(min_value=0, max_value=HIGHEST)
references = st.integers(min_value=0, max_value=HIGHEST + 3)


@st.composite
def books(draw: st.DrawFn) -> tuple[list[RestingBid], list[OpenAsk]]:
    """Bids of one-unit lots from several rounds, and asks, all of different owners."""
    bids = draw(st.lists(st.tuples(prices, st.integers(1, 6), st.integers(1, 3)), max_size=9))
    asks = draw(st.lists(st.tuples(prices, st.integers(1, 6)), max_size=9))
    rounds = sorted(came for _, _, came in bids)
    return (
        [
            bid(number, limit, lots, round=came)
            for number, ((limit, lots, _), came) in enumerate(zip(bids, rounds, strict=True))
        ],
        [ask(100 + number, price, free) for number, (price, free) in enumerate(asks)],
    )


def crossed(bids: list[RestingBid], asks: list[OpenAsk], reference: int = 0) -> Crossing | None:
    """Cross orders of different owners."""
    owner_of = owners(bids, asks)
    return cross(bids, AskPool.of(asks, owner_of), owner_of=owner_of, reference_nano=reference)


def lots_of(found: Crossing | None) -> dict[bytes, int]:
    """Filled lots by bid."""
    return {} if found is None else {each.bid: lots for each, lots in found.filled}


def test_a_round_clears_at_one_price_between_the_marginal_bid_and_the_marginal_ask() -> None:
    """Golden book: 4 at 10, 3 at 8, 5 at 5 against 3 at 4, 4 at 7, 5 at 9."""
    bids = [bid(1, 10, 4), bid(2, 8, 3), bid(3, 5, 5)]
    asks = [ask(4, 4, 3), ask(5, 7, 4), ask(6, 9, 5)]
    for reference, price in ((0, 7), (7, 7), (8, 8), (20, 8)):
        found = crossed(bids, asks, reference)
        assert found is not None
        assert (found.low_nano, found.high_nano, found.price_nano) == (7, 8, price)
        assert lots_of(found) == {bids[0].bid: 4, bids[1].bid: 3}
        assert (found.demand_milli, found.supply_milli) == (7, 7)


def test_orders_that_do_not_reach_one_another_do_not_trade() -> None:
    """The best bid is a tick below the best ask."""
    assert crossed([bid(1, 6, 4)], [ask(2, 7, 4)]) is None
    assert crossed([], [ask(2, 7, 4)]) is None
    assert crossed([bid(1, 6, 4)], []) is None


def test_older_rounds_go_first_at_the_margin_and_a_round_shares_pro_rata() -> None:
    """Five devices: two go to the older round, three are shared 4 : 2 : 1."""
    bids = [
        bid(1, 7, 2, round=1),
        bid(2, 7, 4, round=2),
        bid(3, 7, 2, round=2),
        bid(4, 7, 1, round=2),
    ]
    found = crossed(bids, [ask(9, 7, 5)])
    # Exact shares of the three: 12/7, 6/7, 3/7; one whole lot, two by largest remainder.
    assert lots_of(found) == {bids[0].bid: 2, bids[1].bid: 2, bids[2].bid: 1}


def test_equal_remainders_go_to_the_earlier_order() -> None:
    """One lot for two equal bids: the lower order number has it."""
    bids = [bid(2, 7, 1), bid(1, 7, 1)]
    assert lots_of(crossed(bids, [ask(9, 7, 1)])) == {bids[1].bid: 1}


def test_a_lot_too_large_for_the_rest_leaves_it_to_smaller_ones() -> None:
    """Six devices for a lot of eight and lots of two: three small ones are filled."""
    bids = [bid(1, 7, 1, lot=8), bid(2, 7, 4, lot=2)]
    assert lots_of(crossed(bids, [ask(9, 7, 6)])) == {bids[1].bid: 3}


@given(books(), references)
def test_the_price_is_that_of_trying_every_tick(
    book: tuple[list[RestingBid], list[OpenAsk]], reference: int
) -> None:
    """The interval on distinct prices is the one by definition, and it maximises volume."""
    bids, asks = book
    found = crossed(bids, asks, reference)
    expected = interval_by_every_tick(bids, asks, HIGHEST)
    if found is None:
        assert expected is None
        return
    assert (found.low_nano, found.high_nano) == expected
    assert found.price_nano == min(max(reference, found.low_nano), found.high_nano)
    volume = sum(lots for _, lots in found.filled)
    assert volume == max(min(demand_at(bids, t), supply_at(asks, t)) for t in range(HIGHEST + 2))
    assert found.demand_milli == demand_at(bids, found.price_nano)
    assert found.supply_milli == supply_at(asks, found.price_nano)


@given(books(), references)
def test_nobody_pays_above_its_limit_or_sells_below_its_ask_and_better_bids_are_full(
    book: tuple[list[RestingBid], list[OpenAsk]], reference: int
) -> None:
    """Individual rationality; and no bid at the price has a lot while a better one lacks one."""
    bids, asks = book
    found = crossed(bids, asks, reference)
    if found is None:
        return
    filled = lots_of(found)
    for each in bids:
        if each.limit_nano < found.price_nano:
            assert each.bid not in filled
        if each.limit_nano > found.price_nano:
            assert filled[each.bid] == each.open_lots
    assert all(each.ask_nano <= found.price_nano for each, _ in found.asks)


@given(books(), references)
def test_at_the_margin_older_rounds_are_full_before_younger_ones_and_shares_are_exact(
    book: tuple[list[RestingBid], list[OpenAsk]], reference: int
) -> None:
    """Within a round each bid differs from its exact share by less than a lot."""
    bids, asks = book
    found = crossed(bids, asks, reference)
    if found is None:
        return
    filled = lots_of(found)
    margin = [each for each in bids if each.limit_nano == found.price_nano]
    left = found.supply_milli - demand_at(bids, found.price_nano + 1)
    for came in sorted({each.round for each in margin}):
        group = [each for each in margin if each.round == came]
        wanted = sum(each.open_lots for each in group)
        given_out = sum(filled.get(each.bid, 0) for each in group)
        assert given_out == min(wanted, left)
        for each in group:
            share = Fraction(min(wanted, left) * each.open_lots, wanted)
            assert abs(filled.get(each.bid, 0) - share) < 1
        left -= given_out


@given(books(), references, st.randoms(use_true_random=False))
def test_the_order_in_which_orders_are_listed_changes_nothing(
    book: tuple[list[RestingBid], list[OpenAsk]], reference: int, chance: object
) -> None:
    """A round is a function of a set of orders: crossing and placement alike."""
    bids, asks = book
    shuffled_bids, shuffled_asks = list(bids), list(asks)
    chance.shuffle(shuffled_bids)  # type: ignore[attr-defined]
    chance.shuffle(shuffled_asks)  # type: ignore[attr-defined]
    one, two = crossed(bids, asks, reference), crossed(shuffled_bids, shuffled_asks, reference)
    if one is None or two is None:
        assert one == two
        return
    assert one.filled == two.filled
    assert replace(one, asks=two.asks) == two
    assert place(one.filled, one.asks, no_room) == place(two.filled, two.asks, no_room)


@given(books(), references, prices, st.integers(1, 6))
def test_an_added_ask_never_raises_the_price_and_an_added_bid_never_lowers_it(
    book: tuple[list[RestingBid], list[OpenAsk]], reference: int, price: int, quantity: int
) -> None:
    """Monotone, where the usual tie-breaks are not."""
    bids, asks = book
    before = crossed(bids, asks, reference)
    if before is None:
        return
    more_asks = crossed(bids, [*asks, ask(999, price, quantity)], reference)
    more_bids = crossed([*bids, bid(999, price, quantity, round=9)], asks, reference)
    assert more_asks is not None
    assert more_bids is not None
    assert more_asks.price_nano <= before.price_nano <= more_bids.price_nano


@given(books(), references, st.data())
def test_a_higher_limit_never_loses_quantity(
    book: tuple[list[RestingBid], list[OpenAsk]], reference: int, data: st.DataObject
) -> None:
    """Raising one's own bid gets at least what it had."""
    bids, asks = book
    if not bids:
        return
    raised = data.draw(st.sampled_from(bids))
    limit = data.draw(st.integers(raised.limit_nano, HIGHEST))
    others = [each for each in bids if each is not raised]
    before = lots_of(crossed(bids, asks, reference)).get(raised.bid, 0)
    after = lots_of(crossed([*others, replace(raised, limit_nano=limit)], asks, reference))
    assert after.get(raised.bid, 0) >= before


# One owner on both sides


def test_an_owners_bid_and_ask_are_set_against_one_another_first() -> None:
    """Eight devices of the owner less its own two leave six; its own bid gets none of them."""
    bids = [bid(1, 10, 2, owner="both"), bid(2, 9, 8)]
    asks = [ask(3, 5, 8, owner="both")]
    found = crossed(bids, asks, 9)
    assert lots_of(found) == {bids[1].bid: 6}
    assert found is not None
    assert found.supply_milli == 6


def test_a_lot_that_is_netted_in_part_stays_out_of_the_round() -> None:
    """A lot of three against an own ask of two: both stay out, the other ask trades."""
    bids = [bid(1, 10, 1, lot=3, owner="both"), bid(2, 9, 1)]
    asks = [ask(3, 5, 2, owner="both"), ask(4, 6, 3)]
    assert lots_of(crossed(bids, asks, 9)) == {bids[1].bid: 1}


@given(
    st.lists(st.tuples(prices, st.integers(1, 4), st.integers(1, 3)), max_size=8),
    st.lists(st.tuples(prices, st.integers(1, 8), st.integers(1, 3)), max_size=8),
    references,
)
def test_no_owner_ever_trades_with_itself(
    wanted: list[tuple[int, int, int]], offered: list[tuple[int, int, int]], reference: int
) -> None:
    """Three owners with orders on both sides: no fill has one of them twice."""
    bids = [
        bid(number, limit, lots, lot=2, owner=f"owner {who}")
        for number, (limit, lots, who) in enumerate(wanted)
    ]
    asks = [
        ask(100 + number, price, free, owner=f"owner {who}")
        for number, (price, free, who) in enumerate(offered)
    ]
    found = crossed(bids, asks, reference)
    if found is None:
        return
    placed = place(found.filled, found.asks, no_room)
    assert all(each.bid.account != each.ask.account for each in placed)
    buyers = {each.account for each, _ in found.filled}
    assert not buyers & {each.account for each, _ in found.asks}


# Placement


def asked(asks: list[OpenAsk]) -> RoundAsks:
    """Asks of different owners, all of them within the price."""
    return RoundAsks(AskPool.of(asks, owners([], asks)), 10**18, {})


def no_room(node: bytes, resource: str) -> int | None:
    """Nodes that have devices and nothing else."""
    return 0


def plain_place(
    filled: list[tuple[RestingBid, int]],
    asks: list[OpenAsk],
    has: dict[tuple[bytes, str], int],
) -> dict[tuple[bytes, bytes], int]:
    """R8.2 to the letter: one lot at a time, the tightest node that has room, ties by id."""
    device = {each.offer: free for each, free in asks}
    has = dict(has)
    placed: dict[tuple[bytes, bytes], int] = {}
    for each, lots in filled:
        for _ in range(lots):
            fitting: list[tuple[int, bytes, RestingAsk]] = [
                (device[a.offer], a.node, a)
                for a, _ in asks
                if device[a.offer] >= each.lot_milli
                and not (each.reserved and a.interruptible)
                and all(has.get((a.node, e.resource), 0) >= e.amount for e in each.allocations)
            ]
            if not fitting:
                break
            _, node, chosen = min(fitting, key=lambda fit: fit[:2])
            device[chosen.offer] -= each.lot_milli
            for extra in each.allocations:
                has[node, extra.resource] -= extra.amount
            placed[each.bid, node] = placed.get((each.bid, node), 0) + 1
    return placed


@given(
    st.lists(
        st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(0, 3), st.booleans()),
        max_size=8,
    ),
    st.lists(st.tuples(st.integers(1, 9), st.integers(0, 6), st.booleans()), max_size=8),
)
def test_placement_is_that_of_one_lot_at_a_time(
    wanted: list[tuple[int, int, int, bool]], nodes: list[tuple[int, int, bool]]
) -> None:
    """The fast placement equals the rule to the letter, and oversells nothing."""
    filled = [
        (
            bid(
                number,
                9,
                lots,
                lot=lot,
                reserved=reserved,
                allocations={"storage.hot": extra} if extra else None,
            ),
            lots,
        )
        for number, (lot, lots, extra, reserved) in enumerate(wanted)
    ]
    asks = [
        ask(number, 5, free, interruptible=interruptible)
        for number, (free, _, interruptible) in enumerate(nodes)
    ]
    has = {
        (name("node", number), "storage.hot"): storage
        for number, (_, storage, _) in enumerate(nodes)
    }

    def room(node: bytes, resource: str) -> int | None:
        return has.get((node, resource), 0)

    fast = place(filled, asked(asks), room)
    assert {(p.bid.bid, p.ask.node): p.lots for p in fast} == plain_place(filled, asks, has)
    for looks in (0, 1, 3):
        assert place(filled, asked(asks), room, looks=looks) == fast, "as columns, from any bid on"
    assert len({(p.bid.bid, p.ask.node) for p in fast}) == len(fast)
    for each, free in asks:
        assert sum(p.lots * p.bid.lot_milli for p in fast if p.ask is each) <= free


def test_nodes_that_have_run_out_of_something_cost_no_look_for_each_bid(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The tight half of 600 nodes has no storage: 600 bids that need some do not look there."""
    taken = []
    take = AskPool.take

    def counted(pool: AskPool, least: int, *, firm: bool) -> tuple[int, NodeId] | None:
        taken.append(least)
        return take(pool, least, firm=firm)

    monkeypatch.setattr(AskPool, "take", counted)
    asks = [ask(number, 5, 4 + number % 2) for number in range(600)]
    full = {each.node for each, free in asks if free == 4}
    wanted = [(bid(n, 9, 1, allocations={"storage.hot": 1 + n % 7}), 1) for n in range(600)]
    placed = place(wanted, asked(asks), lambda node, resource: 0 if node in full else 70)
    assert len(placed) == 600
    assert len(taken) < 1000


def test_a_lot_goes_to_the_tightest_node_and_lots_on_one_node_are_joined() -> None:
    """Lots of two: the node with three, then the node with four twice."""
    wanted = bid(1, 9, 3, lot=2)
    asks = [ask(2, 5, 4), ask(3, 6, 3)]
    placed = place([(wanted, 3)], asked(asks), no_room)
    assert [(each.ask.order_no, each.lots) for each in placed] == [(3, 1), (2, 2)]


def test_a_lot_that_fits_nowhere_stays_unfilled() -> None:
    """A lot of eight does not go on two nodes of four, though together they would do."""
    assert place([(bid(1, 9, 1, lot=8), 1)], asked([ask(2, 5, 4), ask(3, 5, 4)]), no_room) == []


def test_a_reserved_lot_never_lands_on_capacity_that_can_be_reclaimed() -> None:
    """The interruptible node is tighter, but only the firm one will do."""
    asks = [ask(2, 5, 1, interruptible=True), ask(3, 5, 4)]
    (placed,) = place([(bid(1, 9, 1, reserved=True), 1)], asked(asks), no_room)
    assert placed.ask.order_no == 3
    (placed,) = place([(bid(1, 9, 1), 1)], asked(asks), no_room)
    assert placed.ask.order_no == 2


def test_what_has_no_end_on_a_node_needs_no_room_there() -> None:
    """An address is the network's: a node that does not list it can still serve it."""
    wanted = bid(1, 9, 1, allocations={"network.static-ip": 1000})
    assert place([(wanted, 1)], asked([ask(2, 5, 1)]), lambda node, resource: None)
    assert not place([(wanted, 1)], asked([ask(2, 5, 1)]), no_room)


def test_a_hundred_thousand_orders_clear_in_well_under_a_second() -> None:
    """Half of them bids, half of them asks on nodes of their own, most of which trade."""
    bids = [bid(n, 1000 + n % 997, 1 + n % 3, lot=1000, round=1 + n // 9000) for n in range(50_000)]
    asks = [ask(n, 900 + n % 701, 1000 * (1 + n % 8)) for n in range(50_000)]
    owner_of = owners(bids, asks)
    began = time.process_time()
    pool = AskPool.of(asks, owner_of)
    found = cross(bids, pool, owner_of=owner_of, reference_nano=1200)
    assert found is not None
    placed = place(found.filled, found.asks, no_room)
    took = time.process_time() - began
    assert len(placed) > 40_000
    assert took < 3, f"{took:.2f} s, on cores that others use as well"


def test_a_margin_gives_out_all_that_whole_lots_can_use() -> None:
    """Lots of different sizes: what is left is too little for any lot that still waits."""
    wanted = [(bid(1, 7, 2, lot=5), 2), (bid(2, 7, 3, lot=3), 3), (bid(3, 7, 9, lot=1), 9)]
    for available in range(29):
        given_out = {each.bid: lots for each, lots in pro_rata(wanted, available)}
        left = available - sum(given_out.get(each.bid, 0) * each.lot_milli for each, _ in wanted)
        assert left >= 0
        for each, lots in wanted:
            assert given_out.get(each.bid, 0) == lots or each.lot_milli > left
