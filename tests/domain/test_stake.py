"""Bonding, admission, unbonding and health (R5.1, R6.1–R6.3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from domain.genesis import Role
from domain.ids import NodeId, Wide
from domain.journal import Purse
from domain.key import RegisterKey
from domain.ledger import ChangeParameter
from domain.node import NodeHealthChanged, RegisterNodes, RetireNode
from domain.provider import (
    Admitted,
    Applicant,
    BondStake,
    ProviderAdmitted,
    StakeBonded,
    StakeReleased,
    StakeUnbonding,
    UnbondStake,
)
from domain.sla import WindowAssessed
from tests.support.market import DAY, MINUTE, SYNOR, World, key_of, node_row

R_H100 = 1600 * SYNOR


def bond(nano: int) -> BondStake:
    """Bond so much."""
    return BondStake(amount_nano=Wide(nano))


def unbond(nano: int) -> UnbondStake:
    """Unbond so much."""
    return UnbondStake(amount_nano=Wide(nano))


# Admission


def test_a_provider_is_admitted_by_the_bond_that_reaches_what_its_nodes_require() -> None:
    """R6.1: in the same item; one nano less admits nobody."""
    world = World()
    world.provider("bob", nano=2 * R_H100)
    world.node("bob", "n1")
    world.ok("bob", bond(R_H100 - 1))
    assert not world.market.folds.stake.may_match(world.provider_id("bob"))
    assert isinstance(world.state(world.provider_id("bob")), Applicant)
    bonded, admitted = world.ok("bob", bond(1))
    assert isinstance(bonded, StakeBonded)
    assert bonded.tranche == 1
    assert isinstance(admitted, ProviderAdmitted)
    assert admitted.required_nano == R_H100
    assert world.market.folds.stake.may_match(world.provider_id("bob"))
    facts = world.market.folds.registry.provider(world.provider_id("bob"))
    assert facts is not None
    assert facts.admitted_us == world.now
    world.check_replay()


def test_a_provider_with_stake_is_admitted_by_its_first_node() -> None:
    """R6.1: the item that registers the node admits; without a node nobody is admitted."""
    world = World()
    world.provider("bob", stake_nano=R_H100)
    assert world.events(ProviderAdmitted) == []
    events = world.ok("bob", RegisterNodes(nodes=(node_row("n1"),)))
    assert isinstance(events[-1], ProviderAdmitted)
    assert isinstance(world.state(world.provider_id("bob")), Admitted)


def test_a_provider_is_admitted_by_retiring_what_its_stake_does_not_carry() -> None:
    """R6.1: bonded stake reaches Σ r also when Σ r falls."""
    world = World()
    world.provider("bob", stake_nano=R_H100)
    row = {"gpu.h100": 2000}
    events = world.ok("bob", RegisterNodes(nodes=(node_row("big", row), node_row("n1"))))
    assert world.events(ProviderAdmitted) == []
    world.ok("bob", RetireNode(node=events[0].node))
    assert len(world.events(ProviderAdmitted)) == 1


def test_a_node_more_than_the_stake_carries_stops_matching_until_it_is_bonded() -> None:
    """R6.2: below Σ r offers do not match; admission is not taken back."""
    world = World()
    world.admitted("bob")
    provider = world.provider_id("bob")
    world.node("bob", "n2")
    assert not world.market.folds.stake.may_match(provider)
    world.deposit("bob", R_H100)
    events = world.ok("bob", bond(R_H100))
    assert [type(e) for e in events] == [StakeBonded]
    assert world.market.folds.stake.may_match(provider)


# Unbonding


def test_unbonding_takes_the_newest_tranche_first_and_lasts_thirty_two_days() -> None:
    """R6.3: one event per tranche."""
    world = World()
    world.admitted("bob", nano=100)
    world.ok("bob", bond(40))
    world.ok("bob", bond(60))
    events = world.ok("bob", unbond(70))
    assert [(type(e), e.tranche, e.amount_nano) for e in events] == [
        (StakeUnbonding, 2, 60),
        (StakeUnbonding, 1, 10),
    ]
    assert {e.release_us for e in events} == {world.now + 32 * DAY}
    provider = world.provider_id("bob")
    assert world.balance(Purse.STAKE, provider) == R_H100 + 30
    assert world.balance(Purse.UNBONDING, provider) == 70
    world.check_replay()


def test_what_is_unbonded_is_paid_out_by_the_epoch_after_its_release() -> None:
    """R6.3, R9.1: finished unbonding becomes payable at the next cut, not before."""
    world = World()
    world.admitted("bob", nano=70)
    world.ok("bob", bond(70))
    world.wait(MINUTE)
    world.ok("bob", unbond(70))
    account, provider = world.account("bob"), world.provider_id("bob")
    world.wait(32 * DAY)
    assert world.balance(Purse.PAYABLE, account) == 0
    assert world.balance(Purse.UNBONDING, provider) == 70
    world.wait(DAY)
    assert world.balance(Purse.PAYABLE, account) == 70
    assert world.last(StakeReleased).amount_nano == 70
    assert world.state(provider).stake.total_nano == R_H100
    world.check_replay()


def test_stake_that_begins_to_unbond_keeps_the_time_it_began_with() -> None:
    """R10: things begun keep their values."""
    world = World()
    world.admitted("bob", nano=70)
    world.ok("bob", bond(70))
    (one,) = world.ok("bob", unbond(30))
    world.ok("operator", ChangeParameter(name="unbonding_us", value=40 * DAY))
    (other,) = world.ok("bob", unbond(30))
    assert one.release_us == world.now + 32 * DAY
    assert other.release_us == world.now + 40 * DAY


def test_stake_of_a_retired_node_stays_until_its_window_is_assessed() -> None:
    """R6.3: required are nodes offered, leased, or with an unassessed window."""
    world = World()
    nodes = world.admitted("bob", 2)
    world.wait(DAY)
    world.ok("bob", RetireNode(node=nodes[0]))
    assert world.refused("bob", unbond(R_H100)) == "stake_is_required"
    world.pass_to(world.now + 30 * DAY + world.parameters.grace_us)
    world.ok("bob", unbond(R_H100))
    assert world.refused("bob", unbond(1)) == "stake_is_required"
    world.check_replay()


def test_a_node_retired_at_the_instant_a_window_begins_is_in_no_window() -> None:
    """R5.4: windows are half-open, so nothing is assessed and nothing holds the stake."""
    world = World()
    nodes = world.admitted("bob", 2)
    world.ok("bob", RetireNode(node=nodes[0]))
    world.ok("bob", unbond(R_H100))
    world.ok("bob", RetireNode(node=nodes[1]))
    world.ok("bob", unbond(R_H100))
    assert world.pass_to(world.now + 31 * DAY) != []
    assert world.events(WindowAssessed) == []
    world.node("bob", "again")
    world.pass_to(world.now + 31 * DAY)
    assert len(world.events(WindowAssessed)) == 1
    world.check_replay()


def test_an_applicant_takes_its_stake_back() -> None:
    """R6.3: before admission nothing is required."""
    world = World()
    world.provider("bob", stake_nano=50)
    world.node("bob", "n1")
    world.ok("bob", unbond(50))
    assert world.balance(Purse.UNBONDING, world.provider_id("bob")) == 50


REFUSALS: list[tuple[str, str, Callable[[World], Any]]] = [
    ("gateway", "key_role_not_allowed", lambda w: bond(0)),
    ("alice", "amount_not_positive", lambda w: bond(0)),
    ("alice", "insufficient_free", lambda w: bond(10**15)),
    ("alice", "not_a_provider", lambda w: bond(5)),
    ("gateway", "key_role_not_allowed", lambda w: unbond(0)),
    ("alice", "amount_not_positive", lambda w: unbond(0)),
    ("alice", "not_a_provider", lambda w: unbond(10**15)),
    ("bob", "stake_is_required", lambda w: unbond(1)),
]


@pytest.mark.parametrize(("who", "name", "command"), REFUSALS)
def test_stake_refuses_in_order(who: str, name: str, command: Callable[[World], Any]) -> None:
    """Each command breaks this rule and, where it can, every later one; the first one answers."""
    world = World()
    world.open("alice", 100)
    world.admitted("bob")
    world.ok("bob", RegisterKey(key=key_of("gateway"), role=Role.GATEWAY))
    assert world.refused(who, command(world)) == name


def test_a_provider_has_so_many_parts_of_stake_at_most() -> None:
    """An event that names every tranche keeps within the bound on an event's bytes."""
    world = World()
    world.provider("bob", nano=2000)
    for _ in range(1000):
        world.ok("bob", bond(1))
    assert world.refused("bob", bond(1)) == "too_many_tranches"
    assert len(world.state(world.provider_id("bob")).stake.tranches) == 1000


# Health


def test_the_market_repeats_what_a_shard_says_of_a_node_once() -> None:
    """R5.1: up with its first sign, down from the last one, up with the next; no repeats."""
    world = World()
    world.provider("bob")
    node = world.node("bob", "n1", up=False)
    health = world.market.folds.health
    assert not health.up(node)
    (first,) = world.node_up(node)
    assert isinstance(first, NodeHealthChanged)
    assert (first.up, first.up_us) == (True, world.now)
    assert health.up(node)
    assert world.node_up(node) == []
    world.wait(MINUTE)
    since = world.now - 31_000_000
    (down,) = world.node_down(node, since_us=since)
    assert (down.up, down.down_since_us, down.up_us) == (False, since, 0)
    assert (health.up(node), health.down_since(node)) == (False, since)
    assert world.node_down(node, since_us=since) == []
    (up,) = world.node_up(node, since_us=since)
    assert (up.up, up.down_since_us, up.up_us) == (True, since, world.now)
    world.check_replay()


def test_nothing_is_said_of_a_node_that_nobody_registered_or_that_is_retired() -> None:
    """A shard may lag behind the market."""
    world = World()
    world.provider("bob")
    assert world.node_up(NodeId(b"?" * 16)) == []
    node = world.node("bob", "n1")
    world.ok("bob", RetireNode(node=node))
    assert world.node_down(node) == []
    assert not world.market.folds.health.up(node)
