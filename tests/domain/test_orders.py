"""Offers, bids and rounds on a market: right events, refusals in order, silence (R4.2, R8)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from domain import market_orders
from domain.bid import BidCancelled, BidFilled, BidPlaced, CancelBid, CancelledBid, PlaceBids
from domain.commit import EVENT_BYTES_MAX
from domain.genesis import Parameters, Role
from domain.ids import QUANTITY_MAX, BidId, LeaseId, NodeId, OfferId
from domain.journal import Purse
from domain.key import RegisterKey
from domain.lease import CompleteLease, LeaseOpened, ReadyLeases
from domain.market import Market
from domain.market_orders import FILLS_PER_EVENT
from domain.offer import OfferPlaced, OfferWithdrawn, PlaceOffers, WithdrawOffer
from domain.refusal import CODES
from domain.round import Fill, FillsAdded, RoundCleared, RoundOpened, instrument_of
from tests.domain.deals import (
    DEVICE,
    amounts,
    bid,
    bid_row,
    clear,
    market_of,
    offer,
    offer_row,
)
from tests.support.market import (
    DAY,
    H100,
    HOUR,
    MINUTE,
    SECOND,
    SYNOR,
    World,
    codec,
    key_of,
    picture,
)

EU = instrument_of(H100, "eu")


def names(events: list[Any]) -> list[str]:
    """What kinds of event."""
    return [type(event).__name__ for event in events]


# Offers


def test_an_offer_opens_a_round_and_stands_in_the_book_with_the_terms_of_its_node() -> None:
    """The first order opens the round, then is placed."""
    world, (node,) = market_of()
    opened, placed = world.ok("alice", PlaceOffers(offers=(offer_row(node),)))
    assert isinstance(opened, RoundOpened)
    assert (opened.instrument, opened.number) == (EU, 1)
    assert opened.clears_us == world.now + 5 * SECOND
    assert isinstance(placed, OfferPlaced)
    assert (placed.node, placed.account, placed.region) == (node, world.account("alice"), "eu")
    assert placed.order_no == 1
    assert placed.notice_us == 0


def test_a_gateway_may_offer_but_neither_a_node_nor_an_attestor() -> None:
    """The roles that place asks."""
    world, (node,) = market_of()
    command = PlaceOffers(offers=(offer_row(node),))
    assert world.refused("alice-0", command) == "key_role_not_allowed"
    assert world.refused("attestor", command) == "key_role_not_allowed"
    world.ok("alice", RegisterKey(key=key_of("gate"), role=Role.GATEWAY))
    world.ok("gate", command)


REFUSED_OFFERS: list[tuple[str, dict[str, Any]]] = [
    ("node_unknown", {"node": NodeId(bytes(16))}),
    ("not_priced_by_rounds", {"resource": "storage.hot"}),
    ("not_priced_by_rounds", {"resource": "gpu.unheard-of"}),
    ("quantity_out_of_range", {"quantity_milli": 0}),
    ("quantity_out_of_range", {"quantity_milli": -DEVICE}),
    ("price_off_tick", {"ask_nano": 3 * SYNOR + 1}),
    ("price_off_tick", {"ask_nano": -1000}),
    ("notice_too_short", {"interruptible": True, "notice_us": 2 * MINUTE - 1}),
    ("quantity_not_attested", {"quantity_milli": DEVICE + 1}),
]


@pytest.mark.parametrize(("name", "changes"), REFUSED_OFFERS)
def test_a_wrong_offer_is_refused_by_name(name: str, changes: dict[str, Any]) -> None:
    """One fault each; nothing is placed and no round opens."""
    world, (node,) = market_of()
    command = PlaceOffers(offers=(replace(offer_row(node), **changes),))
    assert world.refused_rows("alice", command) == {0: name}
    assert world.events(OfferPlaced, RoundOpened) == []


def test_of_several_faults_of_an_offer_the_first_in_order_answers() -> None:
    """Faults are mended one after the other, from the last to the first of the table."""
    world, (node,) = market_of()
    seen: list[int] = []
    faults: dict[str, Any] = {}
    for name, changes in reversed(REFUSED_OFFERS):
        faults.update(changes)
        command = PlaceOffers(offers=(replace(offer_row(node), **faults),))
        assert world.refused_rows("alice", command) == {0: name}
        seen.append(next(c.number for c in CODES.values() if c.name == name))
    assert seen == sorted(seen, reverse=True)


def test_another_providers_node_and_a_retired_one_cannot_be_offered() -> None:
    """Only what is the signer's own, and still there."""
    world, (node,) = market_of()
    world.admitted("carol")
    command = PlaceOffers(offers=(offer_row(node),))
    assert world.refused_rows("carol", command) == {0: "node_not_yours"}


def test_a_node_has_one_live_offer_of_a_resource() -> None:
    """The second row of a batch sees the first."""
    world, (node,) = market_of()
    command = PlaceOffers(offers=(offer_row(node), offer_row(node, ask_nano=0)))
    assert world.refused_rows("alice", command) == {1: "already_offered"}
    assert len(world.events(OfferPlaced)) == 1


def test_an_expired_attestation_carries_no_offer() -> None:
    """R6.4: what is offered is attested at that moment, to the microsecond before expiry."""
    world, (node,) = market_of()
    world.at(world.now + world.parameters.attestation_us)
    command = PlaceOffers(offers=(offer_row(node),))
    assert world.refused_rows("alice", command) == {0: "quantity_not_attested"}


def test_an_offer_is_withdrawn_after_a_cleared_round_and_only_by_its_owner() -> None:
    """R8.7, and silence on a repeat."""
    world, (node,) = market_of()
    world.open("carol")
    placed = OfferId(offer(world, "alice", node))
    assert world.refused("alice", WithdrawOffer(offer=OfferId(bytes(16)))) == "order_unknown"
    assert world.refused("carol", WithdrawOffer(offer=placed)) == "order_not_yours"
    assert world.refused("alice", WithdrawOffer(offer=placed)) == "order_not_yet_in_a_round"
    clear(world)
    assert names(world.ok("alice", WithdrawOffer(offer=placed))) == ["OfferWithdrawn"]
    assert world.refused("alice", WithdrawOffer(offer=placed)) == "order_not_live"
    offer(world, "alice", node)
    world.check_replay()


# Bids


def test_a_bid_reserves_its_worst_case_rounded_up_per_unit() -> None:
    """R4.2: amounts × ceil(price × term / unit), and the usage budget, for every lot."""
    world, _ = market_of()
    row = bid_row(
        quantity_milli=3 * DEVICE,
        lot_milli=DEVICE,
        term_us=HOUR + 1,
        allocations={"storage.hot": 7},
        metered={"network.egress": 1000},
        usage_budget_nano=11,
    )
    (_, placed) = world.ok("bob", PlaceBids(bids=(row,)))
    term_ms = 3_600_001
    device = DEVICE * -(-5 * SYNOR * term_ms // 3_600_000_000)
    storage = 7 * -(-(SYNOR // 10) * term_ms // (1000 * 30 * 24 * 3_600_000))
    assert isinstance(placed, BidPlaced)
    assert (placed.lot_allocated_nano, placed.lot_usage_nano) == (device + storage, 11)
    assert world.balance(Purse.RESERVED, placed.bid) == 3 * (device + storage + 11)


REFUSED_BIDS: list[tuple[str, dict[str, Any]]] = [
    ("not_priced_by_rounds", {"resource": "vm.small"}),
    ("not_priced_by_rounds", {"resource": "gpu.unheard-of"}),
    ("quantity_out_of_range", {"quantity_milli": 0}),
    ("price_off_tick", {"limit_nano": 5 * SYNOR + 1}),
    ("price_off_tick", {"limit_nano": -1000}),
    ("order_region_invalid", {"region": "e" * 65}),
    ("order_region_invalid", {"region": "eu\0"}),
    ("order_region_invalid", {"region": "\u0435u"}),  # a Cyrillic letter that looks the same
    ("lot_does_not_divide", {"lot_milli": 300}),
    ("lot_does_not_divide", {"lot_milli": -DEVICE}),
    ("term_out_of_range", {"term_us": 0}),
    ("term_out_of_range", {"term_us": 90 * DAY + 1}),
    ("not_an_allocation", {"allocations": amounts({"network.egress": 1})}),
    ("not_an_allocation", {"allocations": amounts({"gpu.a100-80gb": 1000})}),
    ("not_an_allocation", {"allocations": amounts({"storage.hot": 0})}),
    ("not_an_allocation", {"allocations": amounts({"storage.hot": 1}) * 2}),
    ("not_a_metered_resource", {"metered": bid_row(metered={"storage.hot": 1}).metered}),
    ("not_a_metered_resource", {"metered": bid_row(metered={"network.egress": 0}).metered}),
    ("charged_twice", {"metered": bid_row(metered={"inference.tokens": 1}).metered}),
    ("charged_twice", {"allocations": amounts({"gpu.vram": 1})}),
    ("charged_twice", {"allocations": amounts({"vm.gpu-small": 1000})}),
    ("usage_budget_out_of_range", {"usage_budget_nano": -1}),
    ("worst_case_too_large", {"usage_budget_nano": QUANTITY_MAX}),
    ("worst_case_too_large", {"quantity_milli": 2**60}),
    ("free_balance_too_small", {"usage_budget_nano": 991 * SYNOR}),
]


@pytest.mark.parametrize(("name", "changes"), REFUSED_BIDS)
def test_a_wrong_bid_is_refused_by_name(name: str, changes: dict[str, Any]) -> None:
    """One fault each; nothing is reserved."""
    world, _ = market_of()
    command = PlaceBids(bids=(replace(bid_row(), **changes),))
    assert world.refused_rows("bob", command) == {0: name}
    assert world.free("bob") == 1000 * SYNOR


def test_of_several_faults_of_a_bid_the_first_in_order_answers() -> None:
    """From the last of the table to the first, each fault hides all that come after it."""
    world, _ = market_of()
    faults: dict[str, Any] = {}
    numbers = []
    for name, changes in reversed(REFUSED_BIDS):
        faults.update(changes)
        command = PlaceBids(bids=(replace(bid_row(), **faults),))
        assert world.refused_rows("bob", command) == {0: name}
        numbers.append(next(c.number for c in CODES.values() if c.name == name))
    assert numbers == sorted(numbers, reverse=True)


def test_rows_are_judged_one_after_the_other_on_what_is_left() -> None:
    """Money for one bid only: the second is refused, the third, smaller one, is not."""
    world, _ = market_of(money=15 * SYNOR)
    rows = (bid_row(), bid_row(), bid_row(term_us=HOUR))
    assert world.refused_rows("bob", PlaceBids(bids=rows)) == {1: "free_balance_too_small"}
    assert world.free("bob") == 0
    assert [placed.order_no for placed in world.events(BidPlaced)] == [1, 2]


def test_a_cancelled_bid_returns_what_it_reserved() -> None:
    """After one cleared round, once, to the nano."""
    world, _ = market_of()
    world.open("carol")
    placed = BidId(bid(world, "bob"))
    assert world.refused("carol", CancelBid(bid=placed)) == "order_not_yours"
    assert world.refused("bob", CancelBid(bid=placed)) == "order_not_yet_in_a_round"
    clear(world)
    assert world.refused("bob", CancelBid(bid=BidId(bytes(16)))) == "order_unknown"
    (cancelled,) = world.ok("bob", CancelBid(bid=placed))
    assert isinstance(cancelled, BidCancelled)
    assert world.free("bob") == 1000 * SYNOR
    assert isinstance(world.state(placed), CancelledBid)
    assert world.refused("bob", CancelBid(bid=placed)) == "order_not_live"


def test_an_owner_has_exactly_as_many_live_orders_as_allowed() -> None:
    """The cap counts accounts of one beneficial owner together; a cancelled order frees a place."""
    world = World(Parameters(live_orders=3))
    world.open("bob", 100 * SYNOR)
    world.open("bobs-other", 100 * SYNOR, owner="bob")
    first = BidId(bid(world, "bob"))
    bid(world, "bobs-other")
    bid(world, "bob")
    for who in ("bob", "bobs-other"):
        refused = world.refused_rows(who, PlaceBids(bids=(bid_row(),)))
        assert refused == {0: "too_many_live_orders"}
    clear(world)
    world.ok("bob", CancelBid(bid=first))
    bid(world, "bobs-other")


# Rounds


def test_resting_orders_alone_open_no_round() -> None:
    """One round for the first orders, then nothing while nothing changes."""
    world, (node,) = market_of()
    offer(world, "alice", node, ask_nano=9 * SYNOR)
    bid(world, "bob")
    clear(world)
    assert world.wait(HOUR) == []
    assert [e.number for e in world.events(RoundCleared)] == [1]
    bid(world, "bob")
    assert [e.number for e in world.events(RoundOpened)] == [1, 2]


def test_a_cancel_opens_a_round_only_where_something_could_trade() -> None:
    """With nothing on the other side nothing can change."""
    world, (node,) = market_of()
    placed = [BidId(bid(world, "bob")) for _ in range(3)]
    clear(world)
    world.ok("bob", CancelBid(bid=placed[0]))
    assert len(world.events(RoundOpened)) == 1
    offer(world, "alice", node, ask_nano=9 * SYNOR)
    clear(world)
    assert names(world.ok("bob", CancelBid(bid=placed[1]))) == ["BidCancelled", "RoundOpened"]


def test_a_match_takes_the_round_price_and_releases_the_rest_of_the_reservation() -> None:
    """A bid at five clears at the list price of four: what it reserved above returns."""
    world, (node,) = market_of()
    offer(world, "alice", node)
    placed = bid(world, "bob")
    events = clear(world)
    assert names(events) == ["RoundCleared", "LeaseOpened", "BidFilled"]
    cleared, opened, filled = events
    assert (cleared.low_nano, cleared.high_nano) == (3 * SYNOR, 5 * SYNOR)
    assert cleared.price_nano == cleared.reference_nano == 4 * SYNOR
    assert (cleared.demand_milli, cleared.supply_milli, cleared.volume_milli) == (1000,) * 3
    assert opened.escrow_allocated_nano == 8 * SYNOR
    assert world.free("bob") == 992 * SYNOR
    assert world.balance(Purse.RESERVED, placed) == 0
    assert (filled.lots, filled.open_lots) == (1, 0)
    world.check_replay()


def test_a_bid_filled_on_several_nodes_becomes_a_gang_and_releases_without_remainder() -> None:
    """Three lots on three nodes in two rounds; odd prices leave not a nano behind."""
    world, nodes = market_of(nodes=3)
    for node in nodes[:2]:
        offer(world, "alice", node)
    row = {"quantity_milli": 3 * DEVICE, "lot_milli": DEVICE, "term_us": HOUR + 7}
    placed = bid(world, "bob", limit_nano=5 * SYNOR - 1000, **row)
    clear(world)
    assert world.state(placed).open_lots == 1
    assert world.balance(Purse.RESERVED, placed) == world.state(placed).reserved_nano
    offer(world, "alice", nodes[2])
    clear(world)
    leases = world.events(LeaseOpened)
    assert {opened.node for opened in leases} == set(nodes)
    assert len({opened.lease for opened in leases}) == 3
    assert [filled.open_lots for filled in world.events(BidFilled)] == [2, 1, 0]
    assert world.balance(Purse.RESERVED, placed) == 0
    held = sum(opened.escrow_allocated_nano for opened in leases)
    assert world.free("bob") + held == 1000 * SYNOR
    world.check_replay()


def test_lots_of_a_bid_on_one_node_are_one_lease() -> None:
    """Allocations and limits are those of both lots together."""
    world, (node,) = market_of(capacity={H100: 4000, "storage.hot": 500})
    offer(world, "alice", node, quantity_milli=4000)
    bid(
        world,
        "bob",
        quantity_milli=2 * DEVICE,
        lot_milli=DEVICE,
        allocations={"storage.hot": 200},
        metered={"network.egress": 50},
    )
    clear(world)
    (opened,) = world.events(LeaseOpened)
    assert opened.allocations == amounts({H100: 2000, "storage.hot": 400})
    assert opened.metered[0].per_second == 100
    assert world.market.folds.capacity.free(node, H100) == 2000
    assert world.market.folds.capacity.free(node, "storage.hot") == 100


def test_a_further_allocation_needs_room_on_the_node() -> None:
    """Storage that the node has not leaves the lot unfilled; a static address never runs out."""
    world, (node,) = market_of(capacity={H100: 4000, "storage.hot": 500})
    offer(world, "alice", node, quantity_milli=4000)
    too_much = bid(world, "bob", allocations={"storage.hot": 501})
    unlisted = bid(world, "bob", allocations={"container.cpu": 1})
    fits = bid(world, "bob", allocations={"network.static-ip": 1000})
    clear(world)
    assert [opened.bid for opened in world.events(LeaseOpened)] == [fits]
    assert world.state(too_much).open_lots == world.state(unlisted).open_lots == 1


def _filled() -> World:
    """Five nodes, seven devices wanted, two of them at a price that is too low."""
    world, nodes = market_of(nodes=5)
    for number, node in enumerate(nodes):
        offer(world, "alice", node, ask_nano=(3 + number % 2) * SYNOR)
    bid(world, "bob", quantity_milli=5 * DEVICE, lot_milli=DEVICE)
    bid(world, "bob", quantity_milli=2 * DEVICE, lot_milli=DEVICE, limit_nano=SYNOR)
    clear(world)
    return world


@pytest.mark.parametrize("kept", [True, False])
def test_a_round_with_very_many_fills_clears_in_several_items(
    kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events and commits keep within their bounds; what comes of it is what one event says.

    Also where a market that starts anew between two parts computes the round again.
    """
    whole = _filled()
    monkeypatch.setattr(market_orders, "FILLS_PER_EVENT", 2)
    if not kept:
        forgets = property(lambda market: None, lambda market, found: None)
        monkeypatch.setattr(Market, "clearing", forgets, raising=False)
    world = _filled()
    parts, (last,) = world.events(FillsAdded), world.events(RoundCleared)
    assert [(each.part, len(each.fills), each.volume_milli) for each in parts] == [
        (0, 2, 2000),
        (1, 2, 2000),
    ]
    (said,) = whole.events(RoundCleared)
    assert (
        replace(
            last,
            fills=(*parts[0].fills, *parts[1].fills, *last.fills),
            volume_milli=5000,
        )
        == said
    )
    assert {each.price_nano for each in parts} == {said.price_nano}
    assert len({world.item_of(each) for each in (*parts, last)}) == 3
    assert world.events(LeaseOpened) == whole.events(LeaseOpened)
    assert picture(world.market.folds) == picture(whole.market.folds)
    world.check_replay()


def test_four_thousand_fills_fit_an_event() -> None:
    """A part is as large as half of an event's bytes allow, whatever the figures in it."""
    fill = Fill(
        bid=BidId(bytes(16)),
        offer=OfferId(bytes(16)),
        node=NodeId(bytes(16)),
        lots=QUANTITY_MAX,
        lease=LeaseId(bytes(16)),
    )
    part = FillsAdded(
        at_us=2**50,
        instrument=EU,
        number=2**31,
        part=2**31,
        price_nano=2**62,
        volume_milli=QUANTITY_MAX,
        fills=(fill,) * FILLS_PER_EVENT,
    )
    assert EVENT_BYTES_MAX // 2 < len(codec().encode(part)) < EVENT_BYTES_MAX * 3 // 4


def test_capacity_is_never_sold_twice() -> None:
    """Two orders match in one round, the third waits; a later round sees what is taken."""
    world, (node,) = market_of(capacity={H100: 2000})
    offer(world, "alice", node, quantity_milli=2000)
    for _ in range(3):
        bid(world, "bob", term_us=HOUR)
    clear(world)
    bid(world, "bob", term_us=HOUR)
    clear(world)
    assert len(world.events(LeaseOpened)) == 2
    assert world.market.folds.capacity.free(node, H100) == 0


def test_an_offer_gives_at_most_its_quantity_at_once() -> None:
    """The node has four devices, the offer is of one."""
    world, (node,) = market_of(capacity={H100: 4000})
    offer(world, "alice", node, quantity_milli=1000)
    for _ in range(2):
        bid(world, "bob")
    clear(world)
    assert len(world.events(LeaseOpened)) == 1


def test_freed_capacity_opens_a_round_for_those_who_wait() -> None:
    """The second bid gets the device when the first lease is completed."""
    world, (node,) = market_of()
    offer(world, "alice", node)
    bid(world, "bob")
    waits = bid(world, "bob")
    clear(world)
    first = world.last(LeaseOpened).lease
    world.ok("alice-0", ReadyLeases(leases=(first,)))
    world.wait(HOUR)
    events = world.ok("alice-0", CompleteLease(lease=first))
    assert names(events) == ["LeaseEnded", "RoundOpened"]
    clear(world)
    assert world.last(LeaseOpened).bid == waits


@pytest.mark.parametrize("missing", ["up", "stake", "attestation"])
def test_an_offer_that_is_not_eligible_rests_and_does_not_match(missing: str) -> None:
    """R5.2, R6.2, R6.4: down, below the required stake, or attestation run out."""
    world = World()
    node = world.admitted("alice", up=missing != "up")[0]
    world.open("bob", 1000 * SYNOR)
    placed = offer(world, "alice", node)
    clear(world)
    if missing == "stake":
        world.node("alice", "alice-more")
    if missing == "attestation":
        world.pass_to(world.now + world.parameters.attestation_us)
    bid(world, "bob")
    clear(world)
    assert world.events(LeaseOpened) == []
    assert world.last(RoundCleared).price_nano == 0
    assert world.market.folds.book.ask(placed) is not None


def test_a_node_that_comes_back_opens_a_round_for_those_who_wait() -> None:
    """Its free capacity counts again from its sign of life."""
    world, (node,) = market_of()
    world.wait(MINUTE)
    world.node_down(node)
    offer(world, "alice", node)
    bid(world, "bob")
    clear(world)
    assert names(world.node_up(node, since_us=world.now - MINUTE)) == [
        "NodeHealthChanged",
        "RoundOpened",
    ]
    clear(world)
    assert len(world.events(LeaseOpened)) == 1


def test_stake_that_reaches_what_is_required_opens_a_round() -> None:
    """R6.2: below it offers rest, from there on they match."""
    world = World()
    world.provider("alice")
    node = world.node("alice", "alice-0")
    world.open("bob", 1000 * SYNOR)
    offer(world, "alice", node)
    bid(world, "bob")
    clear(world)
    required = world.market.folds.stake.required_nano(world.provider_id("alice"))
    world.deposit("alice", required)
    world.bond("alice", required - 1)
    assert len(world.events(RoundOpened)) == 1
    world.bond("alice", 1)
    clear(world)
    assert len(world.events(LeaseOpened)) == 1


def test_an_owner_does_not_buy_from_itself() -> None:
    """A second account of the provider's owner bids highest and gets nothing."""
    world, (node,) = market_of()
    world.open("alices-other", 1000 * SYNOR, owner="alice")
    offer(world, "alice", node)
    bid(world, "alices-other", limit_nano=9 * SYNOR)
    bid(world, "bob")
    clear(world)
    assert world.events(LeaseOpened) == []


def test_orders_of_one_number_and_session_make_the_same_ids_on_every_log() -> None:
    """Ids derive from (key, session, number, row) alone."""
    one, two = World(), World()
    for world in (one, two):
        world.open("bob", 1000 * SYNOR)
        world.wait(0 if world is one else HOUR)
        bid(world, "bob")
    assert one.last(BidPlaced).bid == two.last(BidPlaced).bid


# What the public sees


def test_orders_of_an_open_round_are_seen_by_nobody() -> None:
    """L2 and L3 show what has been in a cleared round."""
    world, (node,) = market_of()
    book: Any = world.market.folds.book
    offer(world, "alice", node, ask_nano=9 * SYNOR)
    bid(world, "bob", quantity_milli=3000, lot_milli=1000, term_us=HOUR)
    assert book.levels(EU) == ((), ())
    clear(world)
    bid(world, "bob", limit_nano=6 * SYNOR)
    bids, asks = book.levels(EU)
    assert [(level.price_nano, level.quantity_milli, level.orders) for level in bids] == [
        (5 * SYNOR, 3000, 1)
    ]
    assert [(level.price_nano, level.quantity_milli) for level in asks] == [(9 * SYNOR, 1000)]
    clear(world)
    assert [each.limit_nano for each in book.orders(EU)[0]] == [6 * SYNOR, 5 * SYNOR]


def test_a_withdrawn_offer_leaves_the_book_while_its_lease_runs_on() -> None:
    """The lease's end finds no ask any more, and the capacity is free again."""
    world, (node,) = market_of()
    placed = OfferId(offer(world, "alice", node))
    bid(world, "bob")
    clear(world)
    lease = world.last(LeaseOpened).lease
    world.ok("alice", ReadyLeases(leases=(lease,)))
    assert isinstance(world.ok("alice", WithdrawOffer(offer=placed))[0], OfferWithdrawn)
    assert world.market.folds.capacity.free(node, H100) == 0
    world.wait(2 * HOUR)
    assert world.market.folds.capacity.free(node, H100) == 1000
    world.check_replay()


def test_bids_that_reserve_nothing_cannot_add_up_beyond_a_field() -> None:
    """R1.6: at a price of zero a bid of 2^62 is free; demand is told as 2^62 for more."""
    world, (node,) = market_of()
    offer(world, "alice", node, ask_nano=0)
    for _ in range(2):
        bid(world, "bob", quantity_milli=QUANTITY_MAX, lot_milli=1, limit_nano=0, term_us=1)
    clear(world)
    cleared = world.last(RoundCleared)
    assert (cleared.demand_milli, cleared.volume_milli) == (QUANTITY_MAX, 1000)
