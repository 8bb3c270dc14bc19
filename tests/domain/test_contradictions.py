"""Contradictions: evidence opens a pot, more joins, it is divided once (R5.6–R5.9)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain import pot as pot_module
from domain.genesis import Role
from domain.ids import Hash32, LeaseId, NodeId, PotId, PublicKey, Wide
from domain.journal import Purse
from domain.key import RegisterKey
from domain.offer import OfferRow, PlaceOffers
from domain.pot import (
    Accusation,
    Charge,
    EvidenceAccepted,
    Open,
    PotDivided,
    PotOpened,
    PotPartDivided,
    decide_contradiction,
    decide_division,
)
from domain.provider import (
    BondStake,
    Fault,
    StakeFrozen,
    StakeSlashed,
    StakeThawed,
    UnbondStake,
    slash_of,
)
from domain.refusal import Refused
from domain.stake import Stake
from domain.telemetry import ContradictionFound
from tests.support.market import DAY, H100, HOUR, MINUTE, SYNOR, World, key_of, picture

R_H100 = 1600 * SYNOR


def contradiction(
    world: World, node: NodeId, *, by: str, time_us: int | None = None, generation: int = 0
) -> ContradictionFound:
    """Two readings of the same counter and time, met by the shard now."""
    return ContradictionFound(
        at_us=world.now,
        node=node,
        lease=LeaseId(node),
        resource="network.egress",
        generation=generation,
        time_us=world.now if time_us is None else time_us,
        key=key_of(by),
        first_total=5,
        second_total=6,
        first=Hash32(b"1" * 32),
        second=Hash32(b"2" * 32),
    )


def kinds(events: list[Any]) -> list[type[Any]]:
    """The types of events."""
    return [type(event) for event in events]


def test_the_first_evidence_freezes_all_reachable_stake() -> None:
    """R5.8: a pot opens, the stake goes into it, and nothing matches on it."""
    world = World()
    nodes = world.admitted("bob", 4, nano=100)
    events = world.metering(contradiction(world, nodes[0], by="bob-0"))
    assert kinds(events) == [PotOpened, StakeFrozen, EvidenceAccepted]
    opened, _, accepted = events
    assert opened.frozen_nano == 4 * R_H100
    assert opened.joins_until_us == world.now + DAY
    assert opened.divides_us == world.now + 2 * DAY
    assert (accepted.fault, accepted.fault_us) == (Fault.CONTRADICTION, world.now)
    assert (accepted.base_nano, accepted.due_nano) == (4 * R_H100, R_H100)
    assert world.balance(Purse.POT, opened.pot) == 4 * R_H100
    assert not world.market.folds.stake.may_match(world.provider_id("bob"))
    assert world.refused("bob", UnbondStake(amount_nano=Wide(1))) == "stake_is_frozen"
    world.check_replay()


def test_a_node_key_alone_costs_the_node_s_share_and_the_rest_thaws() -> None:
    """R5.6: 100 % of base × r(node) / Σ r, divided when disputes are over."""
    world = World()
    nodes = world.admitted("bob", 4)
    world.metering(contradiction(world, nodes[0], by="bob-0"))
    pot = world.last(PotOpened)
    assert [e for e in world.at(pot.divides_us - 1) if isinstance(e, PotDivided)] == []
    wanted = (PotDivided, StakeSlashed, StakeThawed)
    events: list[Any] = [e for e in world.wait(1) if isinstance(e, wanted)]
    assert kinds(events) == [PotDivided, StakeSlashed, StakeThawed]
    divided, slashed, _ = events
    assert (divided.slashed_nano, divided.thawed_nano) == (R_H100, 3 * R_H100)
    assert (slashed.node, slashed.pot, slashed.taken_nano) == (nodes[0], pot.pot, R_H100)
    assert world.balance(Purse.INSURANCE) == R_H100
    assert world.balance(Purse.STAKE, world.provider_id("bob")) == 3 * R_H100
    assert world.balance(Purse.POT, pot.pot) == 0
    world.check_replay()


def _pot_of_three() -> tuple[World, list[Any]]:
    """Two nodes of ten that each contradict themselves, then the provider itself."""
    world = World()
    nodes = world.admitted("bob", 10)
    for node, by in zip(nodes, ("bob-0", "bob-1", "bob"), strict=False):
        world.metering(contradiction(world, node, by=by))
        world.wait(MINUTE)
    pot = world.last(PotOpened)
    assert len(world.events(EvidenceAccepted)) == 3
    wanted = (PotPartDivided, PotDivided, StakeSlashed, StakeThawed)
    return world, [e for e in world.at(pot.divides_us) if isinstance(e, wanted)]


def test_a_pot_with_very_many_charges_is_divided_in_several_items(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A commit keeps within its bound; what is slashed and what thaws is the same."""
    whole, (divided, *slashes) = _pot_of_three()
    monkeypatch.setattr(pot_module, "CHARGES_PER_ITEM", 1)
    world, told = _pot_of_three()
    parts = [e for e in told if isinstance(e, PotPartDivided)]
    assert kinds(told) == [*(PotPartDivided, StakeSlashed) * 2, PotDivided, *kinds(slashes)[2:]]
    assert [e for e in told if not isinstance(e, (PotPartDivided, PotDivided))] == slashes
    assert [e for e in told if isinstance(e, PotDivided)] == [divided]
    assert [(part.charges, part.slashed_nano) for part in parts] == [
        (1, slash.taken_nano) for slash in slashes[:2]
    ]
    assert len({world.item_of(each) for each in told}) == 3
    assert picture(world.market.folds) == picture(whole.market.folds)
    world.check_replay()


def test_the_same_fault_reported_again_is_silence() -> None:
    """R5.7: one fault, one slash, also after the pot is divided."""
    world = World()
    nodes = world.admitted("bob", 4)
    time_us = world.now
    world.metering(contradiction(world, nodes[0], by="bob-0", time_us=time_us))
    assert world.metering(contradiction(world, nodes[0], by="bob-0", time_us=time_us)) == []
    world.wait(3 * DAY)
    assert world.metering(contradiction(world, nodes[0], by="bob-0", time_us=time_us)) == []
    assert len(world.events(StakeSlashed)) == 1


def test_a_fault_later_than_the_evidence_age_is_too_old() -> None:
    """R5.7: thirty days, by the readings' own time."""
    world = World()
    nodes = world.admitted("bob", 4)
    world.wait(31 * DAY)
    old = world.now - 30 * DAY
    early = contradiction(world, nodes[0], by="bob-0", time_us=old - 1)
    world.metering(early)
    assert world.events(EvidenceAccepted) == []
    world.metering(contradiction(world, nodes[0], by="bob-0", time_us=old))
    assert len(world.events(EvidenceAccepted)) == 1


def test_a_reading_dated_ahead_is_no_way_out() -> None:
    """R5.7: the fault's first instant is when the shard met it, which its signer cannot choose."""
    world = World()
    nodes = world.admitted("bob", 4)
    ahead = contradiction(world, nodes[0], by="bob-0", time_us=world.now + 4 * MINUTE)
    world.metering(ahead)
    assert world.last(EvidenceAccepted).fault_us == world.now


def test_more_faults_of_one_node_key_take_its_share_once_in_a_pot() -> None:
    """R5.6: 100 % of the node's share cannot be taken twice."""
    world = World()
    nodes = world.admitted("bob", 4)
    world.metering(contradiction(world, nodes[0], by="bob-0"))
    assert world.metering(contradiction(world, nodes[0], by="bob-0", generation=1)) == []
    world.wait(2 * DAY)
    assert world.balance(Purse.INSURANCE) == R_H100


def test_three_guilty_nodes_of_a_window_cost_all_stake() -> None:
    """R5.6: the third takes 100 % of the provider's stake."""
    world = World()
    nodes = world.admitted("bob", 8)
    for number in (0, 1):
        world.metering(contradiction(world, nodes[number], by=f"bob-{number}"))
        assert world.last(EvidenceAccepted).due_nano == R_H100
    world.metering(contradiction(world, nodes[2], by="bob-2"))
    assert world.last(EvidenceAccepted).due_nano == 8 * R_H100
    world.wait(2 * DAY)
    assert world.balance(Purse.INSURANCE) == 8 * R_H100
    assert world.state(world.provider_id("bob")).stake == Stake(next_number=1)
    world.check_replay()


def test_more_than_half_of_the_nodes_guilty_cost_all_stake() -> None:
    """R5.6: two of three are more than half, one of two is not."""
    world = World()
    nodes = world.admitted("bob", 3)
    world.metering(contradiction(world, nodes[0], by="bob-0"))
    world.metering(contradiction(world, nodes[1], by="bob-1"))
    assert world.last(EvidenceAccepted).due_nano == 3 * R_H100
    pair = world.admitted("eve", 2)
    world.metering(contradiction(world, pair[0], by="eve-0"))
    assert world.last(EvidenceAccepted).due_nano == R_H100


def test_guilt_is_counted_within_a_window() -> None:
    """R5.6: the third node of the next window is the first of it."""
    world = World()
    nodes = world.admitted("bob", 8)
    for number in (0, 1):
        world.metering(contradiction(world, nodes[number], by=f"bob-{number}"))
    world.wait(2 * DAY)
    world.pass_to(world.now + 29 * DAY)
    world.metering(contradiction(world, nodes[2], by="bob-2"))
    accepted = world.last(EvidenceAccepted)
    assert accepted.due_nano == accepted.base_nano // 8
    world.check_replay()


def test_the_provider_s_own_key_costs_all_stake() -> None:
    """R5.6: a gateway is a key of the provider's account."""
    world = World()
    nodes = world.admitted("bob", 8)
    world.ok("bob", RegisterKey(key=key_of("gateway"), role=Role.GATEWAY))
    world.metering(contradiction(world, nodes[0], by="gateway"))
    assert world.last(EvidenceAccepted).due_nano == 8 * R_H100


def test_stake_that_unbonds_at_the_fault_is_frozen_and_slashed_too() -> None:
    """R5.9, R6.3: nothing leaves that open evidence names, and it counts in the base."""
    world = World()
    nodes = world.admitted("bob", 2, nano=R_H100)
    world.ok("bob", BondStake(amount_nano=Wide(R_H100)))
    world.ok("bob", UnbondStake(amount_nano=Wide(R_H100)))
    provider = world.provider_id("bob")
    world.wait(32 * DAY - HOUR)
    for number in (0, 1):
        world.metering(contradiction(world, nodes[number], by=f"bob-{number}"))
    assert world.balance(Purse.UNBONDING, provider) == 0
    pot = world.last(PotOpened).pot
    assert world.balance(Purse.POT, pot) == 3 * R_H100
    world.wait(DAY + HOUR)
    assert world.balance(Purse.PAYABLE, world.account("bob")) == 0
    world.wait(DAY)
    assert world.balance(Purse.INSURANCE) == 3 * R_H100
    world.check_replay()


def test_what_thaws_after_its_release_is_paid_out_by_the_next_epoch() -> None:
    """R5.8, R9.1: thawed parts keep the time of their release."""
    world = World()
    nodes = world.admitted("bob", 4, nano=R_H100)
    world.ok("bob", BondStake(amount_nano=Wide(R_H100)))
    world.ok("bob", UnbondStake(amount_nano=Wide(R_H100)))
    world.wait(32 * DAY - HOUR)
    world.metering(contradiction(world, nodes[0], by="bob-0"))
    world.wait(2 * DAY)
    assert world.balance(Purse.UNBONDING, world.provider_id("bob")) == R_H100
    world.wait(HOUR)
    # A quarter of 5 r is the share of one node of four, taken from the oldest tranche.
    assert world.balance(Purse.INSURANCE) == 5 * R_H100 // 4
    assert world.balance(Purse.PAYABLE, world.account("bob")) == R_H100
    world.check_replay()


def test_stake_added_after_the_fault_is_neither_frozen_nor_slashed() -> None:
    """R5.9."""
    world = World()
    (node,) = world.admitted("bob", 1, nano=R_H100)
    world.metering(contradiction(world, node, by="bob-0"))
    world.wait(MINUTE)
    world.ok("bob", BondStake(amount_nano=Wide(R_H100)))
    assert world.market.folds.stake.may_match(world.provider_id("bob"))
    world.wait(2 * DAY)
    assert world.balance(Purse.STAKE, world.provider_id("bob")) == R_H100
    assert world.balance(Purse.INSURANCE) == R_H100


def test_a_second_pot_takes_over_what_the_first_one_thaws() -> None:
    """R5.8: evidence after 24 h opens a pot of its own, which reaches what was frozen then."""
    world = World()
    nodes = world.admitted("bob", 8)
    world.metering(contradiction(world, nodes[0], by="bob-0"))
    world.wait(DAY)
    world.metering(contradiction(world, nodes[1], by="bob-1"))
    first, second = world.events(PotOpened)
    assert (first.frozen_nano, second.frozen_nano) == (8 * R_H100, 0)
    # Its base is all stake at its instant, the frozen part included.
    assert world.last(EvidenceAccepted).due_nano == R_H100
    world.at(first.divides_us)
    assert world.balance(Purse.POT, second.pot) == 7 * R_H100
    world.at(second.divides_us)
    assert world.balance(Purse.INSURANCE) == 2 * R_H100
    assert world.balance(Purse.STAKE, world.provider_id("bob")) == 6 * R_H100
    world.check_replay()


def test_downtime_joins_an_open_pot_and_pays_after_worse_faults() -> None:
    """R5.4, R5.8: it opens none; in a pot it ranks last."""
    world = World()
    nodes = world.admitted("bob", 4)
    start = world.now
    rows = tuple(
        OfferRow(node=n, resource=H100, quantity_milli=1000, ask_nano=4 * SYNOR) for n in nodes
    )
    world.ok("bob", PlaceOffers(offers=rows))
    world.wait(MINUTE)
    world.node_down(nodes[3], since_us=start)
    world.at(start + 30 * DAY - HOUR)
    world.metering(contradiction(world, nodes[0], by="bob-0"))
    world.pass_to(start + 30 * DAY + MINUTE)
    joined = world.last(EvidenceAccepted)
    assert (joined.fault, joined.node, joined.due_nano) == (Fault.DOWNTIME, nodes[3], R_H100)
    assert (joined.lease, joined.key) == (None, PublicKey(bytes(32)))
    assert world.events(StakeSlashed) == []
    world.at(world.last(PotOpened).divides_us)
    slashes = world.events(StakeSlashed)
    assert [s.fault for s in slashes] == [Fault.CONTRADICTION, Fault.DOWNTIME]
    assert world.balance(Purse.INSURANCE) == 2 * R_H100
    world.check_replay()


# Decisions alone

accusation_numbers = st.integers(0, 10**12)


@given(
    base=accusation_numbers,
    share=st.integers(0, 100),
    guilty=st.integers(1, 5),
    nodes=st.integers(1, 9),
)
def test_a_charge_is_the_share_or_all_of_the_base(
    base: int, share: int, guilty: int, nodes: int
) -> None:
    """R5.6: all from the third guilty node or more than half, else the share."""
    accused = Accusation(
        slash=slash_of(Fault.CONTRADICTION, b"x"),
        node=NodeId(bytes(16)),
        fault_us=5,
        claimed_us=5,
        base_nano=base,
        share_nano=min(share, base),
        by_provider=False,
        guilty_nodes=guilty,
        nodes=nodes,
    )
    said = decide_contradiction(
        accused, None, judged=False, evidence_age_us=10, guilty_most=3, guilty_ppm=500_000, now_us=6
    )
    due = base if guilty >= 3 or 2 * guilty > nodes else min(share, base)
    if due:
        assert isinstance(said, Charge)
        assert said.due_nano == due
    else:
        assert isinstance(said, Refused)


POT = PotId(b"p" * 16)
charges = st.builds(
    lambda fault, us, due, n: Charge(
        slash=slash_of(fault, n),
        node=NodeId(bytes(16)),
        fault=fault,
        fault_us=us,
        base_nano=due,
        due_nano=due,
    ),
    st.sampled_from(Fault),
    st.integers(0, 40),
    st.integers(0, 1000),
    st.integers(0, 10**6),
)


@settings(max_examples=200)
@given(
    found=st.lists(charges, max_size=6, unique_by=lambda c: c.slash),
    bonds=st.lists(st.integers(1, 900), min_size=1, max_size=4),
    shuffled=st.randoms(),
)
def test_a_pot_is_divided_by_rank_whatever_the_order_of_its_evidence(
    found: list[Charge], bonds: list[int], shuffled: Any
) -> None:
    """R5.8: slashes together never exceed the pot; nobody's order of reporting moves money."""
    stake = Stake()
    for number, nano in enumerate(bonds):
        stake = stake.bonded(number, number * 10, nano)
    stake = stake.frozen(range(len(bonds)), POT)
    provider = World.provider_id("bob")

    def divided(order: list[Charge]) -> Any:
        state = Open(provider=provider, joins_until_us=1, divides_us=2, charges=tuple(order))
        return decide_division(POT, state, stake, now_us=2)

    result = divided(found)
    other = list(found)
    shuffled.shuffle(other)
    assert divided(other) == result
    pot, slashes, thawed = result
    assert pot.slashed_nano == sum(s.taken_nano for s in slashes)
    assert pot.slashed_nano + pot.thawed_nano == sum(bonds)
    ranks = [list(Fault).index(s.fault) for s in slashes]
    assert ranks == sorted(ranks)
    moved = [p for e in (*slashes, *([thawed] if thawed else [])) for p in e.postings]
    assert sum(p.amount_nano for p in moved if p.purse is Purse.POT) == -sum(bonds)
    assert sum(p.amount_nano for p in moved) == 0
