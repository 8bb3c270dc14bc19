"""Random lives of providers: what the stake rules promise holds whatever happens (R5, R6, R9)."""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.genesis import Parameters
from domain.ids import Hash32, LeaseId, NodeId, OfferId, Wide
from domain.journal import Purse
from domain.node import RetireNode
from domain.offer import OfferRow, PlaceOffers, WithdrawOffer
from domain.pot import EvidenceAccepted, PotDivided, PotOpened
from domain.provider import BondStake, StakeSlashed, UnbondStake
from domain.sla import WindowAssessed
from domain.telemetry import ContradictionFound
from tests.domain.plain_asks import check_pools
from tests.support.market import H100, SECOND, SYNOR, World, key_of

R_H100 = 1600 * SYNOR
NAMES = ("bob", "eve")

#: A month in minutes: windows, pots, epochs and unbonding all end many times in one life.
HASTY = replace(
    Parameters(),
    sla_window_us=300 * SECOND,
    evidence_age_us=200 * SECOND,
    pot_us=40 * SECOND,
    dispute_us=50 * SECOND,
    epoch_us=60 * SECOND,
    unbonding_us=410 * SECOND,
    grace_us=5 * SECOND,
    grace_max_us=5 * SECOND,
    beat_us=SECOND,
    round_us=SECOND,
    slash_hour_ppm=1_000_000,
)


class _Life:
    """Two providers to whom anything may happen."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.world = World(HASTY)
        self.nodes: dict[NodeId, str] = {}
        self.silent: dict[NodeId, int] = {}
        self.offers: dict[NodeId, OfferId] = {}
        self.made = 0
        for name in NAMES:
            fleet = self.world.admitted(name, self.draw.choice([1, 2, 4]), nano=5 * R_H100)
            self.nodes.update(dict.fromkeys(fleet, name))

    def step(self) -> None:
        """A little time passes and one thing is tried."""
        self.world.wait(self.draw.choice([1, 2, 7, 30]) * SECOND)
        name = self.draw.choice(NAMES)
        node = self.draw.choice(sorted(n for n, owner in self.nodes.items() if owner == name))
        nano = Wide(self.draw.choice([1, R_H100 // 3, R_H100]))
        match self.draw.randrange(9):
            case 0:
                self.world.send(name, BondStake(amount_nano=nano))
            case 1 | 2:
                self.world.send(name, UnbondStake(amount_nano=nano))
            case 3:
                self._offer(name, node)
            case 4 | 5:
                self._health(node)
            case 6:
                self._contradict(name, node)
            case 7:
                self.world.send(name, RetireNode(node=node))
            case _:
                self.made += 1
                added = self.world.node(name, f"{name}+{self.made}")
                self.nodes[added] = name
        self.world.shards_pass()

    def _offer(self, name: str, node: NodeId) -> None:
        offer = self.offers.pop(node, None)
        if offer is not None:
            self.world.send(name, WithdrawOffer(offer=offer))
            return
        row = OfferRow(node=node, resource=H100, quantity_milli=1000, ask_nano=4 * SYNOR)
        for event in self.world.send(name, PlaceOffers(offers=(row,))):
            if hasattr(event, "offer"):
                self.offers[node] = event.offer

    def _health(self, node: NodeId) -> None:
        since = self.silent.pop(node, None)
        if since is not None:
            self.world.node_up(node, since_us=since)
            return
        self.silent[node] = since = self.world.now
        self.world.wait(HASTY.grace_us + 1)
        self.world.node_down(node, since_us=since)

    def _contradict(self, name: str, node: NodeId) -> None:
        facts = self.world.market.folds.registry.node(node)
        assert facts is not None
        signer = self.draw.choice([facts.key, facts.key, facts.key, key_of(name)])
        self.world.metering(
            ContradictionFound(
                at_us=self.world.now,
                node=node,
                lease=LeaseId(node),
                resource="network.egress",
                generation=0,
                time_us=self.world.now - self.draw.choice([0, 0, 100, 300]) * SECOND,
                key=signer,
                first_total=1,
                second_total=2,
                first=Hash32(b"1" * 32),
                second=Hash32(b"2" * 32),
            )
        )

    def check(self) -> None:
        """What always holds."""
        check_pools(self.world)
        world = self.world
        fold = world.market.folds.stake
        for name in NAMES:
            provider = world.provider_id(name)
            stake = fold.stake(provider)
            assert stake == world.state(provider).stake
            unfrozen = [t for t in stake.tranches if t.pot is None]
            assert world.balance(Purse.STAKE, provider) == sum(t.bonded_nano for t in unfrozen)
            assert world.balance(Purse.UNBONDING, provider) == sum(
                t.unbonding_nano for t in unfrozen
            )
            for pot in fold.pots(provider):
                assert world.balance(Purse.POT, pot.pot) == sum(
                    t.total_nano for t in stake.tranches if t.pot == pot.pot
                )
            assert {t.pot for t in stake.tranches if t.pot} <= {p.pot for p in fold.pots(provider)}
            assert fold.required_nano(provider) == R_H100 * fold.unretired(provider)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32))
def test_whatever_happens_stake_is_where_its_events_say_and_no_fault_pays_twice(seed: int) -> None:
    """R5.7–R5.9, R6.3: purses match tranches, each fault is slashed once, replay equals live."""
    life = _Life(seed)
    for _ in range(120):
        life.step()
        life.check()
    world = life.world
    slashes = [s.slash for s in world.events(StakeSlashed)]
    assert len(slashes) == len(set(slashes))
    taken = sum(s.taken_nano for s in world.events(StakeSlashed))
    assert taken == world.balance(Purse.INSURANCE)
    assert all(s.taken_nano <= s.due_nano <= s.base_nano for s in world.events(StakeSlashed))
    windows = [(a.node, a.start_us) for a in world.events(WindowAssessed)]
    assert len(windows) == len(set(windows))
    divided = {d.pot for d in world.events(PotDivided)}
    for opened in world.events(PotOpened):
        assert (opened.pot in divided) == (opened.divides_us <= world.now)
    for accepted in world.events(EvidenceAccepted):
        assert (accepted.slash in slashes) == (accepted.pot in divided)
    world.check_replay()
