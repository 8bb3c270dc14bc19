"""Rules versions: a change of an outcome, activated at a height (design 2, R4.4, R8.3, R8.5)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from domain.invariant import InvariantBroken
from domain.journal import Purse
from domain.lease import (
    CompleteLease,
    EndReason,
    FailLease,
    LeaseEnded,
    LeaseOpened,
    ReadyLeases,
    ReservationBroken,
)
from domain.ledger import LEDGER_ID, ActivateRules, RulesActivated
from domain.processor import DictStates
from domain.rules import NEWEST, RULES, RulesUnknown
from tests.domain.deals import bid, clear, close_out, market_of, offer
from tests.support.market import (
    HOUR,
    MINUTE,
    SYNOR,
    World,
    genesis_for_tests,
    new_market,
)


def earned(world: World) -> int:
    """What stands to the provider from leases."""
    return world.balance(Purse.PENDING, world.account("alice"))


def ruled(version: int, *, reserved: bool = False) -> tuple[World, LeaseOpened]:
    """A lease of a day that is ready, in a network that began with a version."""
    world, (node,) = market_of(world=World(genesis=genesis_for_tests(rules_version=version)))
    offer(world, "alice", node)
    bid(world, "bob", reserved=reserved, term_us=24 * HOUR)
    clear(world)
    opened: LeaseOpened = world.last(LeaseOpened)
    world.ok("alice-0", ReadyLeases(leases=(opened.lease,)))
    return world, opened


def test_by_version_1_a_node_ends_a_lease_early_and_its_provider_keeps_the_money() -> None:
    """What version 2 is for: R8.3 takes the accrual from those who end it, and `completed` not."""
    world, opened = ruled(1)
    world.wait(20 * MINUTE)
    world.ok("alice-0", CompleteLease(lease=opened.lease))
    close_out(world, opened.lease, covered_us=20 * MINUTE)
    assert world.last(LeaseEnded).reason is EndReason.COMPLETED
    assert earned(world) > 0


def test_by_version_2_the_only_early_end_of_a_provider_is_to_give_it_up_for_nothing() -> None:
    """R8.3: the word of the node is refused in the first hour; a failure returns the accrual."""
    world, opened = ruled(2)
    world.wait(20 * MINUTE)
    assert world.refused("alice-0", CompleteLease(lease=opened.lease)) == "completed_too_early"
    world.ok("alice", FailLease(lease=opened.lease))
    close_out(world, opened.lease, covered_us=20 * MINUTE)
    assert earned(world) == 0
    world.check_replay()


@pytest.mark.parametrize(("us", "accepted"), [(HOUR - 1, False), (HOUR, True)])
def test_by_version_2_a_workload_may_end_from_the_first_hour_on(us: int, accepted: bool) -> None:
    """R1.3: the instant at which the hour has passed is no part of it."""
    world, opened = ruled(2)
    world.wait(us)
    answer = world.send("alice-0", CompleteLease(lease=opened.lease))[-1]
    assert (answer.code == 0) is accepted


@pytest.mark.parametrize("version", [1, 2])
def test_a_reservation_is_not_escaped_by_the_word_of_a_node_from_version_2_on(version: int) -> None:
    """R8.5: by version 1 it ends unbroken; by version 2 only giving it up ends and breaks it."""
    world, opened = ruled(version, reserved=True)
    world.wait(2 * HOUR)
    command = CompleteLease(lease=opened.lease)
    if version == 1:
        world.ok("alice-0", command)
        assert world.events(ReservationBroken) == []
        return
    assert world.refused("alice-0", command) == "reserved_until_its_end"
    world.ok("alice", FailLease(lease=opened.lease))
    assert world.last(ReservationBroken).until_us == world.now + 22 * HOUR


def test_an_activation_counts_from_the_next_height_on() -> None:
    """The same command is accepted before it and refused after it."""
    world, (one, two) = market_of(nodes=2, world=World(genesis=genesis_for_tests(rules_version=1)))
    for node in (one, two):
        offer(world, "alice", node)
        bid(world, "bob", term_us=24 * HOUR)
    clear(world)
    leases = [each.lease for each in world.events(LeaseOpened)]
    world.ok("alice", ReadyLeases(leases=tuple(leases)))
    signers = {each.lease: f"alice-{each.node == two:d}" for each in world.events(LeaseOpened)}
    world.ok(signers[leases[0]], CompleteLease(lease=leases[0]))
    (activated,) = world.ok("operator", ActivateRules(version=2))
    assert activated == RulesActivated(at_us=world.now, version=2)
    assert world.market.rules_version == world.state(LEDGER_ID).rules_version == 2
    said = world.refused(signers[leases[1]], CompleteLease(lease=leases[1]))
    assert said == "completed_too_early"
    world.check_replay()


@pytest.mark.parametrize("version", [-1, 0, 1, 3, 2**62])
def test_versions_are_activated_in_their_order(version: int) -> None:
    """Neither the one in force, nor an older one, nor one that leaves another out."""
    world = World(genesis=genesis_for_tests(rules_version=1))
    assert world.refused("operator", ActivateRules(version=version)) == "rules_not_next"


def test_only_the_operator_activates_rules() -> None:
    """And nobody is told which is next before that."""
    world = World(genesis=genesis_for_tests(rules_version=1))
    world.open("alice", SYNOR)
    assert world.refused("alice", ActivateRules(version=2)) == "key_role_not_allowed"
    assert world.refused("watcher", ActivateRules(version=9)) == "key_role_not_allowed"


def test_a_market_without_the_version_stops_where_it_comes_into_force(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The step that activates it is still decided by the old one; the next is not begun."""
    world = World()
    with pytest.raises(RulesUnknown, match=f"version {NEWEST + 1} .* has 1, 2; install"):
        world.send("operator", ActivateRules(version=NEWEST + 1))
    assert isinstance(world.events()[-2], RulesActivated)
    with pytest.raises(RulesUnknown):
        assert world.market.rules.version
    monkeypatch.setitem(RULES, NEWEST + 1, replace(RULES[NEWEST], version=NEWEST + 1))
    assert world.market.rules.version == NEWEST + 1


def test_nothing_is_decided_any_more_in_a_step_that_activates_rules() -> None:
    """Its commit names one version, by which all of it was decided."""
    market = new_market(genesis_for_tests(rules_version=1), 1, DictStates())
    assert not market.step_ends
    market.emit(LEDGER_ID, RulesActivated(at_us=market.time_us, version=2))
    assert (market.step_ends, market.rules_version) == (True, 1)
    with pytest.raises(InvariantBroken, match="a step ends where rules are activated"):
        list(market.advance(market.time_us))
    market.begin()
    assert (market.step_ends, market.rules_version) == (False, 2)
