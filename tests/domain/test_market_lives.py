"""Random lives of a whole market: whatever anybody sends, it goes on and no money is lost.

Commands of many actors, valid or not, name anything that has an id; metering reports what it likes;
time passes in steps of all lengths; parameters change. ``World`` checks money and bytes after every
item; an exception anywhere fails the test.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.account import AdmitAccount, ObserveClaim, ObserveDeposit, OpenAccount, Withdraw
from domain.bid import CancelBid, LiveBid, PlaceBids
from domain.epoch import EpochCut, ObserveCheckpoint
from domain.genesis import BOUNDS, Parameters, Role
from domain.ids import QUANTITY_MAX, AccountId, Bytes16, Hash32, Wide
from domain.journal import Purse
from domain.key import RegisterKey, RevokeKey
from domain.lease import (
    ActiveLease,
    CloseLease,
    ClosingLease,
    CompleteLease,
    Escrow,
    FailLease,
    LeaseOpened,
    LeaseState,
    OpenedLease,
    ReadyLeases,
    ReclaimLease,
    RejectLease,
    ReservationBroken,
    TopUpLease,
)
from domain.ledger import ChangeParameter
from domain.node import RegisterNodes, RetireNode
from domain.offer import OfferPlaced, PlaceOffers, WithdrawOffer
from domain.provider import BondStake, StakeForfeited, StakeSlashed, UnbondStake, provider_of
from domain.telemetry import ContradictionFound, Quantity, UsageStated
from tests.domain.deals import bid_row, offer_row
from tests.domain.plain_asks import check_pools
from tests.support.market import H100, SECOND, SYNOR, World, key_of, node_row, payee_of

PROVIDERS = ("alice", "dora")
BUYERS = ("bob", "carol")
STRANGERS = ("front", "gate", "nobody")
R_H100 = 1600 * SYNOR

#: A month in minutes: windows, pots, epochs, maturity and unbonding end many times in one life.
HASTY = replace(
    Parameters(),
    sla_window_us=300 * SECOND,
    evidence_age_us=200 * SECOND,
    pot_us=40 * SECOND,
    dispute_us=50 * SECOND,
    epoch_us=60 * SECOND,
    maturity_us=45 * SECOND,
    unbonding_us=410 * SECOND,
    grace_us=5 * SECOND,
    grace_max_us=5 * SECOND,
    beat_us=SECOND,
    round_us=SECOND,
    closing_us=20 * SECOND,
    node_down_us=15 * SECOND,
    ready_within_us=20 * SECOND,
    reject_within_us=10 * SECOND,
    first_hour_us=60 * SECOND,
    minimum_charge_us=10 * SECOND,
    reclaim_notice_us=5 * SECOND,
    broken_within_us=100 * SECOND,
    reference_window_us=100 * SECOND,
    slash_hour_ppm=200_000,
)
#: Parameters whose change makes no life too long to live.
CHANGED = tuple(
    name
    for name in BOUNDS
    if name not in ("epoch_us", "round_us", "sla_window_us", "attestation_us", "command_rows")
)


class Life:
    """A market to which anything may happen."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.world = World(HASTY)
        self.nodes = {
            node: (name, f"{name}-{number}")
            for name in PROVIDERS
            for number, node in enumerate(self.world.admitted(name, 2, nano=3 * R_H100))
        }
        for name in BUYERS:
            self.world.open(name, 300 * SYNOR)
        self.silent: dict[bytes, int] = {}
        self.made = 0
        self.block = 10**6
        self.changed = ["live_orders"]
        for _ in range(6):
            self.offer()

    # Draws

    def one(self, *choices: Any) -> Any:
        """Any of these."""
        return self.draw.choice(choices)

    def rarely(self, usual: Any, *others: Any) -> Any:
        """The usual; one time in six one of the others."""
        return usual if self.draw.randrange(6) else self.draw.choice(others)

    def who(self) -> str:
        """Mostly somebody who is known."""
        return str(self.one(*PROVIDERS, *BUYERS, *PROVIDERS, *BUYERS, *STRANGERS, "operator"))

    def nano(self) -> int:
        """An amount, sensible or not."""
        return int(self.one(-1, 0, 1, 7, SYNOR, R_H100 // 3, R_H100, QUANTITY_MAX))

    def anything(self) -> Any:
        """The id of something, of whatever kind."""
        return self.draw.choice(list(self.world.states.all))

    def some(self, kind: Any) -> Any:
        """The id of something of a kind; now and then of anything."""
        found = [i for i, held in self.world.states.all.items() if isinstance(held.state, kind)]
        return self.draw.choice(found) if found and self.draw.random() < 0.9 else self.anything()

    def side(self, lease: Any, side: str) -> str:
        """Who may act for a side of a lease, where it is one; now and then anybody."""
        state = self.world.state(lease)
        if not isinstance(state, LeaseState) or self.draw.random() < 0.1:
            return self.who()
        names = PROVIDERS if side == "account" else BUYERS
        wanted = getattr(state.terms, side)
        return next((n for n in names if self.world.account(n) == wanted), self.who())

    # Steps

    def step(self) -> None:
        """A little time passes, and one thing is tried."""
        self.world.wait(self.one(0, 0, 1, 2, 2, 5, 9, 31) * SECOND)
        tried: Callable[[], Any] = self.draw.choice(STEPS).__get__(self)
        tried()
        if self.draw.random() < 0.4:
            self.ready()
        if self.draw.random() < 0.5:
            self.world.shards_pass()

    def offer(self) -> None:
        node, (name, _) = self.draw.choice(list(self.nodes.items()))
        row = offer_row(
            node,
            quantity_milli=self.rarely(1000, 500, 0, QUANTITY_MAX),
            ask_nano=self.rarely(3 * SYNOR, 0, 1, SYNOR, 5 * SYNOR),
            interruptible=self.one(True, False, False),
            notice_us=self.rarely(5 * SECOND, 30 * SECOND, 2**63 - 1),
            resource=self.rarely(H100, "gpu.vram", "x"),
        )
        self.world.send(name, PlaceOffers(offers=(row,)))

    def bid(self) -> None:
        lots = self.one(1, 1, 2, 3)
        row = bid_row(
            quantity_milli=lots * self.rarely(500, 1000, QUANTITY_MAX // 4),
            lot_milli=self.rarely(500, 0, 1000, -1),
            limit_nano=self.rarely(self.one(3, 4, 6) * SYNOR, 0, SYNOR, QUANTITY_MAX),
            term_us=self.rarely(self.one(30, 100, 300, 3600) * SECOND, 1),
            metered={"network.egress": self.one(1, 10**9)},
            usage_budget_nano=self.one(0, 1, SYNOR),
            reserved=self.one(True, False),
        )
        self.world.send(self.one(*BUYERS, *BUYERS, *PROVIDERS, "front"), PlaceBids(bids=(row,)))

    def leave_the_book(self) -> None:
        if self.draw.random() < 0.5:
            self.world.send(self.one(*BUYERS), CancelBid(bid=self.some(LiveBid)))
            return
        placed = [event.offer for event in self.world.events(OfferPlaced)]
        offer = self.draw.choice(placed) if placed else self.anything()
        self.world.send(self.one(*PROVIDERS), WithdrawOffer(offer=offer))

    def ready(self) -> None:
        waiting = [i for i, h in self.world.states.all.items() if isinstance(h.state, OpenedLease)]
        for named in waiting or [self.anything()] * self.draw.randrange(2):
            lease: Any = named
            self.world.send(self.side(lease, "account"), ReadyLeases(leases=(lease,)))

    def end(self) -> None:
        lease = self.some((ActiveLease, OpenedLease))
        kind = self.one(CloseLease, RejectLease, FailLease, CompleteLease)
        who = self.side(lease, "buyer" if kind in (CloseLease, RejectLease) else "account")
        state = self.world.state(lease)
        if kind is CompleteLease and isinstance(state, LeaseState):
            who = self.nodes.get(state.terms.node, (who, who))[1]
        self.world.send(who, kind(lease=lease))

    def reclaim(self) -> None:
        lease = self.some(ActiveLease)
        at = self.one(self.world.now + 31 * SECOND, self.world.now, 0, 2**63 - 1)
        self.world.send(self.side(lease, "account"), ReclaimLease(lease=lease, deadline_us=at))

    def top_up(self) -> None:
        lease = self.some((ActiveLease, OpenedLease))
        command = TopUpLease(lease=lease, escrow=self.one(*Escrow), amount_nano=self.nano())
        self.world.send(self.side(lease, "buyer"), command)

    def usage(self) -> None:
        """A statement: honest time and bytes, or as many as a field holds; of a lease or not."""
        lease = self.some((ActiveLease, ClosingLease))
        state = self.world.state(lease)
        ready = getattr(state, "ready_us", None) or self.world.now
        covered = self.one(0, self.world.now - ready, self.world.now - ready, QUANTITY_MAX)
        device = self.one(1000 * (covered // 1000), covered, QUANTITY_MAX if covered else 0)
        self.world.metering(
            UsageStated(
                at_us=self.world.now,
                lease=lease,
                window_end_us=self.one(0, self.world.now, self.world.now, 2**62),
                covered_us=covered,
                quantities=(
                    Quantity(resource=H100, quantity=min(device, QUANTITY_MAX)),
                    Quantity(
                        resource="network.egress", quantity=self.one(0, 10**6, 10**9, QUANTITY_MAX)
                    ),
                    Quantity(resource="inference.tokens", quantity=1),
                ),
                final=self.draw.random() < 0.3,
            )
        )

    def health(self) -> None:
        node = self.draw.choice(list(self.nodes))
        since = self.silent.pop(node, None)
        if self.draw.random() < 0.1:
            since, node = self.one(0, self.world.now), self.anything()
        if since is not None:
            self.world.node_up(node, since_us=since)
            return
        self.silent[node] = since = self.world.now
        self.world.wait(6 * SECOND)
        self.world.node_down(node, since_us=since)

    def contradict(self) -> None:
        node, (name, key) = self.draw.choice(list(self.nodes.items()))
        named: Any = node if self.draw.random() < 0.9 else self.anything()
        age = self.one(0, 0, 50, 300) * SECOND
        self.world.metering(
            ContradictionFound(
                at_us=self.world.now,
                node=named,
                lease=self.anything(),
                resource="network.egress",
                generation=self.one(0, 1),
                time_us=self.one(self.world.now - age, self.world.now - age, 0, 2**62),
                key=key_of(self.one(key, key, key, key, name)),
                first_total=1,
                second_total=2,
                first=Hash32(b"1" * 32),
                second=Hash32(b"2" * 32),
            )
        )

    def stake(self) -> None:
        name = self.rarely(self.one(*PROVIDERS), "bob")
        if self.draw.random() < 0.3:
            self.block += 1
            self._deposit(self.world.account(name), 2 * R_H100)
        kind = self.one(BondStake, UnbondStake)
        nano = self.one(SYNOR, R_H100 // 3, 2 * R_H100, self.nano())
        self.world.send(name, kind(amount_nano=Wide(nano)))

    def fleet(self) -> None:
        if self.draw.random() < 0.5:
            node = self.draw.choice([*self.nodes, self.anything()])
            self.world.send(self.one(*PROVIDERS), RetireNode(node=node))
            return
        self.made += 1
        name = self.one(*PROVIDERS)
        actor = f"{name}+{self.made}"
        for event in self.world.send(name, RegisterNodes(nodes=(node_row(actor),))):
            if hasattr(event, "manifest_version"):
                self.nodes[event.node] = (name, actor)
                self.world.attest(event.node)
                self.world.node_up(event.node)

    def deposit(self) -> None:
        self.block += self.one(0, 1, 1)
        named: Any = self.one(self.world.account(self.who()), self.anything())
        self._deposit(named, self.nano() % QUANTITY_MAX)

    def _deposit(self, account: AccountId, nano: int) -> None:
        self.world.send(
            "watcher",
            ObserveDeposit(
                account=account,
                amount_nano=Wide(nano),
                block=self.block,
                block_hash=Hash32(bytes(32)),
                transaction=Hash32(bytes(32)),
                log_index=self.one(0, 1),
            ),
        )

    def claim(self) -> None:
        name = self.who()
        account = self.world.account(name)
        payable = self.world.balance(Purse.PAYABLE, account)
        claimed = getattr(self.world.state(account), "claimed_nano", 0)
        amount = self.one(payable, payable // 2, payable + 1)
        self.world.send(
            "watcher",
            ObserveClaim(
                account=account,
                amount_nano=Wide(amount),
                cumulative_nano=Wide(claimed + amount),
                block=1,
                block_hash=Hash32(bytes(32)),
                transaction=Hash32(bytes(32)),
                log_index=0,
            ),
        )

    def withdraw(self) -> None:
        name = self.who()
        amount = self.one(self.nano(), self.world.free(name) // 2)
        self.world.send(name, Withdraw(amount_nano=Wide(amount)))

    def anchor(self) -> None:
        self.world.send(
            "watcher",
            ObserveCheckpoint(
                epoch=self.draw.randrange(-1, 2 + len(self.world.events(EpochCut))),
                checkpoint=Hash32(bytes(32)),
                block=1,
                block_hash=Hash32(bytes(32)),
                transaction=Hash32(bytes(32)),
                log_index=0,
            ),
        )

    def accounts(self) -> None:
        """A stranger wishes to belong to somebody; somebody admits; keys come and go."""
        if self.draw.random() < 0.5:
            wish = OpenAccount(payee=payee_of("?"), owner=self.world.account(self.one(*PROVIDERS)))
            name = self.one(*STRANGERS)
            self.world.send(name, wish)
            self.world.send(self.one(*PROVIDERS), AdmitAccount(account=self.world.account(name)))
            return
        name = self.who()
        account: Any = self.one(self.world.account(self.who()), self.anything())
        role = self.one(Role.OWNER, Role.GATEWAY, Role.NODE, Role.CLOCK)
        self.world.send(
            name,
            self.one(
                OpenAccount(payee=payee_of(name), owner=self.one(None, account)),
                AdmitAccount(account=account),
                RegisterKey(key=key_of("gate"), role=role),
                RevokeKey(key=key_of(self.who())),
            ),
        )

    def change(self) -> None:
        name = self.draw.choice(CHANGED)
        low, high = BOUNDS[name]
        now: int = getattr(self.world.parameters, name)
        value = self.one(low, high, now // 2, now * 2)
        if self.draw.random() < 0.7:
            name = self.changed[-1]
            value = getattr(HASTY, name)
        self.changed.append(name)
        self.world.send("operator", ChangeParameter(name=name, value=value))

    # Laws

    def check(self) -> None:
        """What always holds of stake, escrow, reservations and live orders."""
        check_pools(self.world)
        world, fold = self.world, self.world.market.folds.stake
        balances: dict[Any, int] = dict(world.market.folds.balances.all())
        for name in PROVIDERS:
            provider = world.provider_id(name)
            stake = fold.stake(provider)
            assert stake == world.state(provider).stake
            free = [t for t in stake.tranches if t.pot is None]
            assert world.balance(Purse.STAKE, provider) == sum(t.bonded_nano for t in free)
            assert world.balance(Purse.UNBONDING, provider) == sum(t.unbonding_nano for t in free)
            for pot in fold.pots(provider):
                held = sum(t.total_nano for t in stake.tranches if t.pot == pot.pot)
                assert world.balance(Purse.POT, pot.pot) == held
        for aggregate, kept in world.states.all.items():
            owner = Bytes16(aggregate)
            escrows = (
                balances.pop((Purse.ESCROW_ALLOCATED, owner), 0),
                balances.pop((Purse.ESCROW_USAGE, owner), 0),
            )
            reserved = balances.pop((Purse.RESERVED, owner), 0)
            if isinstance(kept.state, (OpenedLease, ActiveLease, ClosingLease)):
                lease = kept.state
                assert escrows == (lease.escrow_allocated_nano, lease.escrow_usage_nano)
            else:
                assert escrows == (0, 0)
            waits = kept.state.reserved_nano if isinstance(kept.state, LiveBid) else 0
            assert reserved == waits
        kinds = (Purse.ESCROW_ALLOCATED, Purse.ESCROW_USAGE, Purse.RESERVED)
        assert not [purse for purse, _ in balances if purse in kinds]


#: What may be tried; what makes a market stands here more than once.
STEPS = (
    *(Life.offer, Life.offer, Life.health, Life.end, Life.reclaim, Life.top_up) * 2,
    *(Life.bid, Life.bid, Life.ready, Life.usage, Life.usage) * 4,
    *(Life.stake, Life.stake, Life.stake, Life.stake, Life.fleet, Life.deposit, Life.claim),
    *(Life.contradict, Life.withdraw, Life.anchor, Life.accounts, Life.change, Life.leave_the_book),
)


def live(seed: int, steps: int) -> Life:
    """A life of so many steps, its laws checked now and then and at its end."""
    life = Life(seed)
    for number in range(steps):
        life.step()
        if number % 10 == 0:
            life.check()
    life.check()
    world = life.world
    slashes = [s.slash for s in world.events(StakeSlashed)]
    assert len(slashes) == len(set(slashes))
    taken = sum(s.taken_nano for s in world.events(StakeSlashed))
    assert taken == world.balance(Purse.INSURANCE)
    for said in world.events(ReservationBroken):
        opened = next(o for o in world.events(LeaseOpened) if o.lease == said.lease)
        assert opened.reserved
        assert provider_of(opened.account) == said.provider
        assert said.due_nano == said.taken_nano + said.shortfall_nano
    broken = [s.lease for s in world.events(ReservationBroken) if s.taken_nano]
    assert broken == [s.lease for s in world.events(StakeForfeited)]
    for cut in world.events(EpochCut):
        assert cut.paid_nano <= cut.authorised_nano <= cut.deposited_nano
    world.check_replay()
    return life


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32))
def test_whatever_anybody_sends_the_market_goes_on_and_no_money_is_lost(seed: int) -> None:
    """R1.7, R5.7, R8.5, R9.3: no exception, every purse is its aggregate's, replay equals live."""
    live(seed, 200)
