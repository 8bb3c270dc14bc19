"""SLA windows as the market assesses them (R5.2, R5.4, R5.9)."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.genesis import Parameters
from domain.ids import NodeId, Wide
from domain.journal import Purse
from domain.ledger import ChangeParameter
from domain.node import RetireNode
from domain.offer import OfferRow, PlaceOffers, WithdrawOffer
from domain.provider import BondStake, Fault, StakeSlashed
from domain.sla import WindowAssessed
from tests.support.market import DAY, H100, HOUR, MINUTE, SECOND, SYNOR, World

R_H100 = 1600 * SYNOR
MONTH = 30 * DAY
ALLOWED = 2592 * SECOND  # of 30 days at 99.9 %


def offered(world: World, name: str, *nodes: NodeId) -> list[bytes]:
    """Offers of whole nodes at list price; their ids."""
    rows = tuple(
        OfferRow(node=node, resource=H100, quantity_milli=1000, ask_nano=4 * SYNOR)
        for node in nodes
    )
    events = world.ok(name, PlaceOffers(offers=rows))
    return [e.offer for e in events if hasattr(e, "offer")]


def silent(world: World, node: NodeId, us: int) -> None:
    """From now on the node is silent for so long, then up; its shard notices in time."""
    since = world.now
    world.at(since + world.parameters.grace_us + 1)
    world.node_down(node, since_us=since)
    world.at(since + us)
    world.node_up(node, since_us=since)


def window_ends(world: World, end_us: int) -> list[WindowAssessed]:
    """Let every shard pass an end of window; what is assessed."""
    world.at(max(world.now, end_us + world.parameters.grace_max_us))
    return [e for e in world.shards_pass() if isinstance(e, WindowAssessed)]


def test_a_node_silent_for_an_hour_beyond_its_allowance_loses_one_percent() -> None:
    """R5.4: of its stake, to the insurance, in the step in which every shard has passed."""
    world = World()
    (node,) = world.admitted("bob")
    start = world.now
    offered(world, "bob", node)
    world.wait(DAY)
    silent(world, node, ALLOWED + HOUR)
    world.at(start + MONTH + world.parameters.grace_max_us - 1)
    assert world.shards_pass() == []
    world.wait(1)
    assessed, slashed = world.shards_pass()
    assert isinstance(assessed, WindowAssessed)
    assert (assessed.start_us, assessed.end_us) == (start, start + MONTH)
    assert (assessed.obliged_us, assessed.down_us) == (MONTH, ALLOWED + HOUR)
    assert (assessed.allowance_us, assessed.excess_us) == (ALLOWED, HOUR)
    assert isinstance(slashed, StakeSlashed)
    assert (slashed.fault, slashed.slash) == (Fault.DOWNTIME, assessed.slash)
    assert slashed.taken_nano == assessed.slash_nano == R_H100 // 100
    assert world.balance(Purse.INSURANCE) == R_H100 // 100
    assert not world.market.folds.stake.may_match(world.provider_id("bob"))
    world.check_replay()


def test_a_window_without_excess_is_assessed_as_well() -> None:
    """R5.4: WindowAssessed always; within the allowance nothing is slashed."""
    world = World()
    (node,) = world.admitted("bob")
    start = world.now
    offered(world, "bob", node)
    silent(world, node, ALLOWED)
    (assessed,) = window_ends(world, start + MONTH)
    assert (assessed.excess_us, assessed.slash_nano, assessed.slash) == (0, 0, None)
    assert world.events(StakeSlashed) == []
    (second,) = window_ends(world, start + 2 * MONTH)
    assert (second.start_us, second.obliged_us, second.down_us) == (start + MONTH, MONTH, 0)


def test_all_nodes_down_for_an_hour_cost_one_percent_of_the_stake() -> None:
    """R5.4: a node's share is its part of Σ r."""
    world = World()
    nodes = world.admitted("bob", 4)
    start = world.now
    offered(world, "bob", *nodes)
    since = world.now
    world.wait(world.parameters.grace_us + 1)
    for node in nodes:
        world.node_down(node, since_us=since)
    world.at(since + ALLOWED + HOUR)
    for node in nodes:
        world.node_up(node, since_us=since)
    window_ends(world, start + MONTH)
    slashes = world.events(StakeSlashed)
    assert len(slashes) == 4
    assert sum(s.taken_nano for s in slashes) == 4 * R_H100 // 100


def test_a_window_waits_for_the_slowest_shard() -> None:
    """R5.4: every shard ledger that the market consumed has passed."""
    world = World(shards=2)
    (node,) = world.admitted("bob")
    start = world.now
    offered(world, "bob", node)
    world.at(start + MONTH + world.parameters.grace_max_us)
    assert world.metering(shard=0) == []
    assert [type(e) for e in world.metering(shard=1)] == [WindowAssessed]


def test_downtime_counts_only_while_the_node_is_obliged() -> None:
    """R5.2: neither before the offer nor after a withdrawal in good health."""
    world = World()
    (node,) = world.admitted("bob")
    start = world.now
    silent(world, node, DAY)
    (offer,) = offered(world, "bob", node)
    world.wait(10 * DAY)
    world.ok("bob", WithdrawOffer(offer=offer))  # type: ignore[arg-type]
    world.wait(MINUTE)
    silent(world, node, DAY)
    (assessed,) = window_ends(world, start + MONTH)
    assert (assessed.obliged_us, assessed.down_us) == (10 * DAY, 0)


def test_withdrawing_while_silent_is_no_way_out() -> None:
    """R5.2: it counts from the node's next sign of life, here two windows later."""
    world = World()
    (node,) = world.admitted("bob")
    start = world.now
    (offer,) = offered(world, "bob", node)
    world.wait(DAY)
    since = world.now
    world.wait(10 * SECOND)
    # Silent for ten seconds: nobody knows yet.
    world.ok("bob", WithdrawOffer(offer=offer))  # type: ignore[arg-type]
    world.at(since + world.parameters.grace_us + 1)
    world.node_down(node, since_us=since)
    (first,) = window_ends(world, start + MONTH)
    assert (first.obliged_us, first.down_us) == (MONTH, MONTH - DAY)
    assert first.slash_nano == R_H100
    (second,) = window_ends(world, start + 2 * MONTH)
    assert (second.obliged_us, second.down_us) == (MONTH, MONTH)
    world.at(start + 2 * MONTH + DAY)
    world.node_up(node, since_us=since)
    (third,) = window_ends(world, start + 3 * MONTH)
    assert (third.obliged_us, third.down_us) == (DAY, DAY)
    (fourth,) = window_ends(world, start + 4 * MONTH)
    assert (fourth.obliged_us, fourth.down_us) == (0, 0)
    world.check_replay()


def test_a_node_down_for_a_whole_window_is_assessed_and_loses_its_share() -> None:
    """R5.2, R5.9: 1 %/h for a month is all of it, and never more."""
    world = World()
    nodes = world.admitted("bob", 2)
    start = world.now
    offered(world, "bob", *nodes)
    since = world.now
    world.wait(MINUTE)
    world.node_down(nodes[0], since_us=since)
    window_ends(world, start + MONTH)
    assert world.balance(Purse.INSURANCE) == R_H100
    assert world.last(StakeSlashed).shortfall_nano == 0
    # The first slash fell after the second window's start, whose base is therefore the same.
    window_ends(world, start + 2 * MONTH)
    assert world.balance(Purse.INSURANCE) == 2 * R_H100
    window_ends(world, start + 3 * MONTH)
    assert world.last(StakeSlashed).taken_nano == 0
    assert world.last(StakeSlashed).shortfall_nano == world.last(StakeSlashed).due_nano
    world.check_replay()


def test_a_node_that_was_never_up_owes_nothing() -> None:
    """R5.1: down is from a last sign of life; re-entry and absence make no phantom downtime."""
    world = World()
    world.provider("bob", stake_nano=R_H100)
    node = world.node("bob", "n1", up=False)
    start = world.now
    offered(world, "bob", node)
    (assessed,) = window_ends(world, start + MONTH)
    assert (assessed.obliged_us, assessed.down_us) == (0, 0)


def test_a_retired_node_is_assessed_for_the_time_until_then() -> None:
    """R5.2, R6.3: the window it retired in is its last; the provider's next needs a node."""
    world = World()
    (node,) = world.admitted("bob")
    start = world.now
    (offer,) = offered(world, "bob", node)
    world.wait(DAY)
    silent(world, node, 2 * HOUR)
    world.ok("bob", WithdrawOffer(offer=offer))  # type: ignore[arg-type]
    world.ok("bob", RetireNode(node=node))
    (assessed,) = window_ends(world, start + MONTH)
    assert (assessed.obliged_us, assessed.down_us) == (DAY + 2 * HOUR, 2 * HOUR)
    assert assessed.slash_nano > 0
    assert window_ends(world, start + 3 * MONTH) == []
    world.node("bob", "n2")
    (later,) = window_ends(world, start + 4 * MONTH)
    assert (later.start_us, later.end_us) == (start + 3 * MONTH, start + 4 * MONTH)
    world.check_replay()


@pytest.mark.parametrize("days", [10, 20])
def test_another_length_of_windows_holds_from_the_next_one_on(days: int) -> None:
    """R10: a window keeps the length it began with, and a shorter one has no phantom downtime."""
    world = World()
    (node,) = world.admitted("bob")
    start = world.now
    offered(world, "bob", node)
    silent(world, node, ALLOWED)
    world.ok("operator", ChangeParameter(name="sla_window_us", value=days * DAY))
    (first,) = window_ends(world, start + MONTH)
    assert first.excess_us == 0
    (second,) = window_ends(world, start + MONTH + days * DAY)
    assert (second.start_us, second.obliged_us, second.down_us) == (start + MONTH, days * DAY, 0)


def test_stake_bonded_in_the_window_counts_but_is_reached_only_if_it_was_there() -> None:
    """R5.4, R5.9: base at the first downtime; a later tranche pays nothing."""
    world = World()
    (node,) = world.admitted("bob", nano=10 * R_H100)
    start = world.now
    offered(world, "bob", node)
    world.wait(DAY)
    world.ok("bob", BondStake(amount_nano=Wide(R_H100)))
    world.wait(DAY)
    silent(world, node, ALLOWED + 200 * HOUR)
    world.ok("bob", BondStake(amount_nano=Wide(5 * R_H100)))
    (assessed,) = window_ends(world, start + MONTH)
    assert assessed.base_nano == 2 * R_H100
    slashed = world.last(StakeSlashed)
    assert (slashed.due_nano, slashed.taken_nano, slashed.shortfall_nano) == (
        2 * R_H100,
        2 * R_H100,
        0,
    )
    assert world.state(world.provider_id("bob")).stake.total_nano == 5 * R_H100
    world.check_replay()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32))
def test_any_course_of_events_is_assessed_as_a_second_by_second_model_says(seed: int) -> None:
    """R5.2, R5.4: offers, withdrawals, silences and retirements at any second of three windows.

    The model keeps one truth value per node and second; the market knows of a silence only when the
    grace has passed, so what it learns late has to change what it counted before.
    """
    draw = random.Random(seed)
    window, seconds = 200, 600
    parameters = replace(
        Parameters(),
        sla_window_us=window * SECOND,
        beat_us=SECOND,
        grace_us=5 * SECOND,
        grace_max_us=5 * SECOND,
        round_us=SECOND,
    )
    world = World(parameters)
    nodes = world.admitted("bob", 2, uptime_ppm=900_000)
    start = world.now
    truth = {node: _Model() for node in nodes}
    for second in range(seconds):
        world.at(start + second * SECOND)
        for node, model in truth.items():
            model.step(world, draw, node, second)
        world.shards_pass()
    for second in range(seconds, seconds + 10):
        world.at(start + second * SECOND)
        for node, model in truth.items():
            model.notice(world, node, second)
        world.shards_pass()
    assessed = world.events(WindowAssessed)
    for number in range(seconds // window):
        for node, model in truth.items():
            at = start + number * window * SECOND
            found = [a for a in assessed if a.node == node and a.start_us == at]
            if model.retired is not None and model.retired <= number * window:
                assert found == []
                continue
            (one,) = found
            obliged = [s for s in range(number * window, (number + 1) * window) if model.obliged(s)]
            missed = [s for s in obliged if not model.up[s]]
            assert one.obliged_us == len(obliged) * SECOND
            assert one.down_us == len(missed) * SECOND
    world.check_replay()


class _Model:
    """One node, second by second."""

    def __init__(self) -> None:
        self.up: list[bool] = []
        self.offered: list[bool] = []
        self.withdrawn: list[int] = []
        self.retired: int | None = None
        self.offer: bytes | None = None
        self.placed = 0
        self.silent_since: int | None = None
        self.noticed = False

    def step(self, world: World, draw: random.Random, node: NodeId, second: int) -> None:
        """Something may happen at this second."""
        if self.retired is None:
            if self.silent_since is None and draw.random() < 0.02:
                self.silent_since, self.noticed = second, False
                self.until = second + draw.choice([7, 20, 60, 250])
            elif self.silent_since is not None and second == self.until:
                world.node_up(node, since_us=world.now - (second - self.silent_since) * SECOND)
                self.silent_since = None
            self.notice(world, node, second)
            self._trade(world, draw, node, second)
        self.up.append(self.silent_since is None)
        self.offered.append(self.offer is not None)

    def notice(self, world: World, node: NodeId, second: int) -> None:
        """The shard notices a silence once the grace has passed."""
        since = self.silent_since
        if since is not None and not self.noticed and second - since > 5 and self.retired is None:
            world.node_down(node, since_us=world.now - (second - since) * SECOND)
            self.noticed = True

    def _trade(self, world: World, draw: random.Random, node: NodeId, second: int) -> None:
        if self.offer is None and draw.random() < 0.05:
            (self.offer,) = offered(world, "bob", node)
            self.placed = second
        elif self.offer is not None and second > self.placed + 2 and draw.random() < 0.03:
            world.ok("bob", WithdrawOffer(offer=self.offer))  # type: ignore[arg-type]
            self.offer = None
            self.withdrawn.append(second)
        elif self.offer is None and self.silent_since is None and draw.random() < 0.002:
            world.ok("bob", RetireNode(node=node))
            self.retired = second

    def obliged(self, second: int) -> bool:
        """R5.2: offered, or withdrawn in the silence that still lasts; until it is retired."""
        if self.retired is not None and second >= self.retired:
            return False
        if self.offered[second]:
            return True
        return any(at <= second and not any(self.up[at : second + 1]) for at in self.withdrawn)
