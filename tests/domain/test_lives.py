"""Laws over random lives of orders and leases: money, escrow, capacity, replay, cuts (R1.7, R8.6).

``World`` checks after every item that money sums to zero, that no account is below zero and that
every event has its bytes; here a made-up history drives it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from domain.bid import BidPlaced, CancelBid, LiveBid, PlaceBids
from domain.catalogue import charge
from domain.ids import BidId, LeaseId, NodeId, OfferId
from domain.journal import Purse
from domain.lease import (
    ActiveLease,
    ClosedLease,
    CloseLease,
    ClosingLease,
    CompleteLease,
    Escrow,
    FailLease,
    LeaseOpened,
    OpenedLease,
    ReadyLeases,
    ReclaimLease,
    RejectLease,
    TopUpLease,
)
from domain.offer import OfferPlaced, PlaceOffers, WithdrawOffer
from domain.round import RoundCleared
from tests.domain.deals import bid_row, offer_row, state_usage
from tests.domain.plain_asks import check_pools
from tests.support.market import H100, HOUR, MINUTE, SECOND, SYNOR, World

BUYERS = ("bob", "carol", "alice")
CAPACITY = {H100: 4000, "storage.hot": 900}

#: An operation and two numbers that choose among what there is.
Step = tuple[str, int, int]
steps = st.lists(
    st.tuples(
        st.sampled_from(
            [
                *("offer", "bid", "bid", "ready", "ready", "ready", "state", "state", "state"),
                *(
                    "wait",
                    "wait",
                    "wait",
                    "wait-long",
                    "withdraw",
                    "cancel",
                    "close",
                    "reject",
                    "complete",
                ),
                *("fail", "reclaim", "top-up", "silent", "up"),
            ]
        ),
        st.integers(0, 10**6),
        st.integers(0, 10**6),
    ),
    min_size=15,
    max_size=60,
)


class History:
    """A market of two providers and three buyers, and what a list of steps makes of it."""

    def __init__(self, world: World | None = None) -> None:
        self.world = world or World()
        self.nodes = {
            who: self.world.admitted(who, 2, capacity=CAPACITY) for who in ("alice", "dora")
        }
        for who in ("bob", "carol"):
            self.world.open(who, 300 * SYNOR)
        self.world.deposit("alice", 50 * SYNOR)
        for first in range(4):
            self.offer(first + 4 * (first % 3 == 0), 3 * first)
        self.covered: dict[bytes, int] = {}
        self.silences: dict[bytes, int] = {}

    def run(self, steps: Sequence[Step]) -> None:
        """Take every step; commands may be refused."""
        for what, first, second in steps:
            getattr(self, what.replace("-", "_"))(first, second)
            self.check_capacity()
            check_pools(self.world)

    def wait(self, first: int, second: int) -> None:
        self.world.wait(first % 180 * SECOND + second % SECOND)

    def wait_long(self, first: int, second: int) -> None:
        self.world.wait(first % 40 * MINUTE)

    def _node(self, first: int) -> tuple[str, NodeId]:
        who = ("alice", "dora")[first % 2]
        return who, self.nodes[who][first // 2 % 2]

    def offer(self, first: int, second: int) -> None:
        who, node = self._node(first)
        row = offer_row(
            node,
            quantity_milli=1000 * (1 + second % 4),
            ask_nano=second % 7 * SYNOR,
            interruptible=bool(first // 4 % 2),
            notice_us=2 * MINUTE,
        )
        self.world.send(who, PlaceOffers(offers=(row,)))

    def bid(self, first: int, second: int) -> None:
        lots = 1 + first % 4
        row = bid_row(
            quantity_milli=lots * 500,
            lot_milli=500,
            limit_nano=(first // 4 % 9) * SYNOR // 2,
            term_us=(1 + second % 150) * MINUTE + second % 1000,
            reserved=bool(second % 3 == 0),
            allocations={"storage.hot": 100} if second % 2 else None,
            metered={"network.egress": 10**8},
            usage_budget_nano=second % 5 * SYNOR // 10,
        )
        self.world.send(BUYERS[second % 3], PlaceBids(bids=(row,)))

    def withdraw(self, first: int, second: int) -> None:
        placed = self.world.events(OfferPlaced)
        if placed:
            one = placed[first % len(placed)]
            who = next(w for w in self.nodes if self.world.account(w) == one.account)
            self.world.send(who, WithdrawOffer(offer=OfferId(one.offer)))

    def cancel(self, first: int, second: int) -> None:
        placed = self.world.events(BidPlaced)
        if placed:
            one = placed[first % len(placed)]
            who = next(w for w in BUYERS if self.world.account(w) == one.account)
            self.world.send(who, CancelBid(bid=BidId(one.bid)))

    def _lease(self, first: int, kind: type[Any]) -> LeaseId | None:
        named = [opened.lease for opened in self.world.events(LeaseOpened)]
        found = [lease for lease in named if isinstance(self.world.state(lease), kind)]
        return found[first % len(found)] if found else None

    def _sides(self, lease: LeaseId) -> tuple[str, str]:
        terms = self.world.state(lease).terms
        buyer = next(w for w in BUYERS if self.world.account(w) == terms.buyer)
        return buyer, next(w for w in self.nodes if self.world.account(w) == terms.account)

    def ready(self, first: int, second: int) -> None:
        """Most leases that wait for it."""
        for opened in self.world.events(LeaseOpened):
            lease = opened.lease
            if isinstance(self.world.state(lease), OpenedLease) and lease[0] % 8 != first % 8:
                self.world.send(self._sides(lease)[1], ReadyLeases(leases=(lease,)))

    def _active(self, first: int, side: int, command: type[Any]) -> None:
        lease = self._lease(first, ActiveLease)
        if lease is not None:
            self.world.send(self._sides(lease)[side], command(lease=lease))

    def close(self, first: int, second: int) -> None:
        self._active(first, 0, CloseLease)

    def reject(self, first: int, second: int) -> None:
        self._active(first, 0, RejectLease)

    def fail(self, first: int, second: int) -> None:
        self._active(first, 1, FailLease)

    def complete(self, first: int, second: int) -> None:
        lease = self._lease(first, ActiveLease)
        if lease is not None:
            node = self.world.state(lease).terms.node
            signer = next(
                f"{who}-{number}"
                for who, nodes in self.nodes.items()
                for number, each in enumerate(nodes)
                if each == node
            )
            self.world.send(signer, CompleteLease(lease=lease))

    def reclaim(self, first: int, second: int) -> None:
        lease = self._lease(first, ActiveLease)
        if lease is not None:
            deadline = self.world.now + second % 10 * MINUTE
            command = ReclaimLease(lease=lease, deadline_us=deadline)
            self.world.send(self._sides(lease)[1], command)

    def top_up(self, first: int, second: int) -> None:
        lease = self._lease(first, ActiveLease)
        if lease is not None:
            escrow = Escrow.USAGE if second % 2 else Escrow.ALLOCATED
            command = TopUpLease(lease=lease, escrow=escrow, amount_nano=second)
            self.world.send(self._sides(lease)[0], command)

    def state(self, first: int, second: int) -> None:
        lease = self._lease(first, (ActiveLease, ClosingLease))  # type: ignore[arg-type]
        if lease is not None:
            self._state(lease, second, final=False)

    def _state(self, lease: LeaseId, second: int, *, final: bool) -> None:
        now = self.world.state(lease)
        end = now.ended_us if isinstance(now, ClosingLease) else self.world.now
        most = 0 if now.ready_us is None else end - now.ready_us
        covered = max(self.covered.get(lease, 0), most - second % SECOND if most > SECOND else 0)
        self.covered[lease] = covered
        egress = {"network.egress": second * 997}
        state_usage(self.world, lease, covered_us=covered, quantities=egress, final=final)

    def silent(self, first: int, second: int) -> None:
        _, node = self._node(first)
        if node not in self.silences:
            self.silences[node] = self.world.now - 31 * SECOND
            self.world.node_down(node, since_us=self.silences[node])

    def up(self, first: int, second: int) -> None:
        _, node = self._node(first)
        if node in self.silences:
            self.world.node_up(node, since_us=self.silences.pop(node))

    def check_capacity(self) -> None:
        """No node gives more than it has, and what is taken is what live leases hold."""
        taken: dict[tuple[bytes, str], int] = {}
        for opened in self.world.events(LeaseOpened):
            if isinstance(self.world.state(opened.lease), (OpenedLease, ActiveLease)):
                for each in opened.allocations:
                    key = (opened.node, each.resource)
                    taken[key] = taken.get(key, 0) + each.amount
        capacity: Any = self.world.market.folds.capacity
        for nodes in self.nodes.values():
            for node in nodes:
                for each in capacity.of(node):
                    assert 0 <= each.free == each.amount - taken.get((node, each.resource), 0)

    def finish(self) -> None:
        """Let everything end, bring every last statement, cancel every bid."""
        for node in list(self.silences):
            self.world.node_up(node, since_us=self.silences.pop(node))
        self.world.wait(4 * HOUR)
        for opened in self.world.events(LeaseOpened):
            if isinstance(self.world.state(opened.lease), ClosingLease):
                self._state(opened.lease, 1, final=True)
            assert isinstance(self.world.state(opened.lease), ClosedLease)
        for placed in self.world.events(BidPlaced):
            if isinstance(self.world.state(placed.bid), LiveBid):
                who = next(w for w in BUYERS if self.world.account(w) == placed.account)
                self.world.ok(who, CancelBid(bid=BidId(placed.bid)))


@settings(max_examples=60)
@given(steps)
def test_whatever_happens_every_escrow_and_reservation_ends_at_zero(steps: list[Step]) -> None:
    """And every line item adds up: charged = posted + unfunded + what returned to the buyer."""
    history = History()
    history.run(steps)
    history.finish()
    balances = history.world.market.folds.balances.all()
    left = [
        (purse, nano)
        for (purse, _), nano in balances.items()
        if purse in (Purse.RESERVED, Purse.ESCROW_ALLOCATED, Purse.ESCROW_USAGE)
    ]
    assert left == []
    catalogue = history.world.market.folds.registry.catalogue
    for opened in history.world.events(LeaseOpened):
        for line in history.world.state(opened.lease).lines:
            row = catalogue.row(line.resource)
            assert row is not None
            price = opened.price_nano if line.resource == opened.resource else None
            assert line.charged_nano >= charge(row, line.quantity, price)
            assert line.posted_nano + line.unfunded_nano <= line.charged_nano
            share = catalogue.share(row)
            assert line.protocol_nano == line.posted_nano * share.protocol_num // share.protocol_den


@settings(max_examples=30)
@given(steps)
def test_a_market_that_folds_the_events_is_the_market_that_lived_them(steps: list[Step]) -> None:
    """Replay equals live, in every aggregate, fold and deadline."""
    history = History()
    history.run(steps)
    history.world.check_replay()


@settings(max_examples=30)
@given(steps)
def test_every_round_keeps_limits_and_clears_again_to_the_same(steps: list[Step]) -> None:
    """No fill beyond a limit or below an ask; volume is the fills'; one owner is on one side."""
    history = History()
    history.run(steps)
    events = history.world.events
    bids = {placed.bid: placed for placed in events(BidPlaced)}
    offers = {placed.offer: placed for placed in events(OfferPlaced)}
    for cleared in events(RoundCleared):
        volume = 0
        for fill in cleared.fills:
            bid, offer = bids[fill.bid], offers[fill.offer]
            assert offer.ask_nano <= cleared.price_nano <= bid.limit_nano
            assert offer.node == fill.node
            assert offer.account != bid.account
            assert not (bid.reserved and offer.interruptible)
            volume += fill.lots * bid.lot_milli
        assert volume == cleared.volume_milli
        if cleared.price_nano:
            assert cleared.low_nano <= cleared.price_nano <= cleared.high_nano
