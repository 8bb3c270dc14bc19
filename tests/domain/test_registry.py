"""Accounts, keys, L1 observations, parameters, providers and nodes: events, refusals, silence."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from domain.account import (
    AccountOpened,
    DepositCredited,
    Deposits,
    ObserveClaim,
    ObserveDeposit,
    OpenAccount,
    Opened,
    PayeeSet,
    SetPayee,
    Withdraw,
    WithdrawalRequested,
    deposits_aggregate,
)
from domain.genesis import Parameters, Role
from domain.ids import AccountId, Address, Hash32, NodeId, Wide, account_of
from domain.journal import Purse
from domain.key import KeyRegistered, KeyRevoked, RegisterKey, RevokeKey
from domain.ledger import ChangeParameter, ParameterChanged
from domain.node import (
    Amount,
    AttestationRow,
    AttestNodes,
    NodeAttested,
    NodeRegistered,
    NodeRetired,
    NodeRow,
    RegisterNodes,
    RetireNode,
    leaf,
    required_nano,
)
from domain.offer import OfferRow, PlaceOffers
from domain.provider import ProviderRegistered
from tests.support.market import (
    DAY,
    H100,
    SYNOR,
    World,
    key_of,
    node_row,
    payee_of,
    provider_command,
)

NOWHERE = Hash32(bytes(32))


def seen_deposit(name: str, nano: int, block: int, log_index: int = 0) -> ObserveDeposit:
    """What a watcher says of a deposit."""
    return ObserveDeposit(
        account=World.account(name),
        amount_nano=Wide(nano),
        block=block,
        block_hash=NOWHERE,
        transaction=NOWHERE,
        log_index=log_index,
    )


def seen_claim(name: str, nano: int, cumulative: int) -> ObserveClaim:
    """What a watcher says of a claim."""
    return ObserveClaim(
        account=World.account(name),
        amount_nano=Wide(nano),
        cumulative_nano=Wide(cumulative),
        block=1,
        block_hash=NOWHERE,
        transaction=NOWHERE,
        log_index=0,
    )


def kinds(events: list[Any]) -> list[type[Any]]:
    """The types of events."""
    return [type(event) for event in events]


# Accounts


def test_the_first_command_of_a_key_opens_the_account_that_derives_from_it() -> None:
    """R6.7: OpenAccount is the only command of an unknown key, and registers it as owner."""
    world = World()
    opened, registered = world.ok("alice", OpenAccount(payee=payee_of("alice")))
    assert isinstance(opened, AccountOpened)
    assert opened.account == account_of(key_of("alice")) == opened.owner
    assert isinstance(registered, KeyRegistered)
    assert (registered.role, registered.account) == (Role.OWNER, opened.account)
    world.check_replay()


def test_an_unknown_key_is_heard_for_nothing_else() -> None:
    """Design 3: counted at the gate; no event, no number used."""
    world = World()
    assert world.send("stranger", Withdraw(amount_nano=Wide(1))) == []


def test_a_repeated_number_is_silent_and_keeps_its_first_answer() -> None:
    """Design 3: each number once; the repeat has no event."""
    world = World()
    world.open("alice", 5)
    command = Withdraw(amount_nano=Wide(3))
    assert kinds(world.send("alice", command, number=7))[:1] == [WithdrawalRequested]
    assert world.send("alice", command, number=7) == []
    assert world.balance(Purse.WITHDRAWAL, world.account("alice")) == 3


def test_money_that_comes_before_its_owner_waits_on_the_account() -> None:
    """R6.1: the account id derives from a key, so a deposit may be final before OpenAccount."""
    world = World()
    world.deposit("alice", 9)
    world.deposit("alice", 2)
    assert world.state(world.account("alice")) is None
    world.open("alice")
    assert isinstance(world.state(world.account("alice")), Opened)
    assert world.state(deposits_aggregate(world.account("alice"))) == Deposits(deposited_nano=11)
    assert world.free("alice") == 11


def test_a_payee_is_redirected() -> None:
    """R9.1: payouts go to the address that stands at the cut."""
    world = World()
    world.open("alice")
    assert kinds(world.ok("alice", SetPayee(payee=payee_of("vault")))) == [PayeeSet]
    assert world.state(world.account("alice")).payee == payee_of("vault")


def test_a_withdrawal_takes_free_money_out_of_reach_at_once() -> None:
    """R9.1, and behaviour 1: two withdrawals at one instant, the second finds what is left."""
    world = World()
    world.open("alice", 10)
    (asked,) = world.ok("alice", Withdraw(amount_nano=Wide(6)))
    assert isinstance(asked, WithdrawalRequested)
    assert world.free("alice") == 4
    assert world.refused("alice", Withdraw(amount_nano=Wide(5))) == "insufficient_free"
    world.ok("alice", Withdraw(amount_nano=Wide(4)))
    assert world.balance(Purse.WITHDRAWAL, world.account("alice")) == 10
    world.check_replay()


# L1 observations


def test_a_deposit_is_credited_once_however_often_it_is_seen() -> None:
    """R1.1: a position of the chain that is not beyond the last one was taken in."""
    world = World()
    world.open("alice")
    (credited,) = world.ok("watcher", seen_deposit("alice", 5, 10, 3))
    assert isinstance(credited, DepositCredited)
    assert world.refused("watcher", seen_deposit("alice", 5, 10, 3)) == "already_observed"
    assert world.refused("watcher", seen_deposit("alice", 5, 10, 2)) == "already_observed"
    assert world.refused("watcher", seen_deposit("alice", 5, 9, 9)) == "already_observed"
    world.ok("watcher", seen_deposit("alice", 5, 10, 4))
    assert world.free("alice") == 10
    world.check_replay()


def test_a_claim_that_nobody_authorised_stops_at_the_ledger() -> None:
    """R9.3: paid ≤ authorised; the ledger never goes below zero for what the chain says."""
    world = World()
    world.open("alice", 10)
    assert world.refused("watcher", seen_claim("alice", 4, 4)) == "claim_beyond_payable"


# Keys


def test_an_owner_adds_a_key_and_takes_it_out_of_force_for_ever() -> None:
    """R6.7: registered, revoked; a revoked key is heard no more and never comes back."""
    world = World()
    world.open("alice")
    added = RegisterKey(key=key_of("second"), role=Role.OWNER)
    assert kinds(world.ok("alice", added)) == [KeyRegistered]
    world.ok("second", SetPayee(payee=payee_of("second")))
    assert kinds(world.ok("alice", RevokeKey(key=key_of("second")))) == [KeyRevoked]
    assert world.send("second", SetPayee(payee=payee_of("alice"))) == []
    assert world.refused("alice", added) == "key_exists"
    assert world.refused("alice", RevokeKey(key=key_of("second"))) == "key_already_revoked"
    world.check_replay()


def test_a_rotated_account_keeps_its_id() -> None:
    """R6.7: the first key may go once another owner key is in force."""
    world = World()
    world.open("alice", 3)
    world.ok("alice", RegisterKey(key=key_of("next"), role=Role.OWNER))
    world.ok("next", RevokeKey(key=key_of("alice")))
    world.ok("next", Withdraw(amount_nano=Wide(3)))
    assert world.balance(Purse.WITHDRAWAL, world.account("alice")) == 3


# Parameters


def test_a_parameter_changes_within_its_bounds_and_at_once() -> None:
    """R10: a signed event, never a constant."""
    world = World()
    (changed,) = world.ok("operator", ChangeParameter(name="bonus_bps", value=7))
    assert isinstance(changed, ParameterChanged)
    assert world.parameters.bonus_bps == 7
    world.check_replay()


def test_unbonding_may_not_become_shorter_than_what_it_must_cover() -> None:
    """R10: unbonding ≥ max(evidence age, SLA window) + dispute + epoch."""
    world = World()
    exact = 32 * DAY
    world.ok("operator", ChangeParameter(name="unbonding_us", value=exact))
    short = ChangeParameter(name="unbonding_us", value=exact - 1)
    assert world.refused("operator", short) == "parameter_out_of_bounds"


# Providers and nodes


def test_a_provider_is_registered_with_its_commitment() -> None:
    """R5, R6.1."""
    world = World()
    world.open("bob")
    (registered,) = world.ok("bob", provider_command(uptime_ppm=900_000))
    assert isinstance(registered, ProviderRegistered)
    facts = world.market.folds.registry.provider(registered.provider)
    assert facts is not None
    assert (facts.account, facts.admitted_us) == (world.account("bob"), None)
    assert world.market.folds.registry.provider_of_account(facts.account) == facts.provider


@pytest.mark.parametrize(
    ("capacity", "synor"),
    [
        ({H100: 1000}, 4 * 400),
        ({"gpu.rtx4090": 8000}, 8 * 200),
        ({H100: 1000, "container.cpu": 16_000, "container.memory": 64_000}, 1600 + 128 + 128),
        ({H100: 500}, 800),
        ({"container.cpu": 1000}, 8),
        ({"storage.hot": 1_000_000}, 0),
    ],
)
def test_required_stake_is_four_hundred_hours_of_list_price(
    capacity: dict[str, int], synor: int
) -> None:
    """R6.2: devices, cores and memory; storage and network require none."""
    catalogue = World().market.folds.registry.catalogue
    assert required_nano(capacity, catalogue, 400) == synor * SYNOR


def test_nodes_are_registered_row_by_row_each_with_its_own_key() -> None:
    """R6.2, R6.7: one refused row keeps no other from service."""
    world = World()
    world.provider("bob")
    rows = (node_row("n1"), node_row("n1", region="us"), node_row("n2"))
    events = world.send("bob", RegisterNodes(nodes=rows))
    assert kinds(events[:-1]) == [NodeRegistered, KeyRegistered] * 2
    assert [(r.row, r.code) for r in events[-1].rows] == [(1, 306)]
    registered, key = events[0], events[1]
    assert (key.role, key.node, key.account) == (Role.NODE, registered.node, world.account("bob"))
    assert (registered.beat_us, registered.grace_us) == (10_000_000, 30_000_000)
    assert registered.required_nano == 1600 * SYNOR
    assert world.market.folds.stake.required_nano(world.provider_id("bob")) == 3200 * SYNOR
    world.check_replay()


def test_a_device_belongs_to_one_unretired_node() -> None:
    """R6.4: registered anew only once the node that held it is retired."""
    world = World()
    world.provider("bob")
    node = world.node("bob", "n1")
    again = replace(node_row("n2"), identities=node_row("n1").identities)
    assert world.refused_rows("bob", RegisterNodes(nodes=(again,))) == {0: "device_in_use"}
    (retired,) = world.ok("bob", RetireNode(node=node))
    assert isinstance(retired, NodeRetired)
    world.ok("bob", RegisterNodes(nodes=(again,)))
    world.check_replay()


def test_an_attested_field_counts_until_it_expires() -> None:
    """R6.4: half-open; the later of two attestations of a leaf holds."""
    world = World()
    world.provider("bob")
    node = world.node("bob", "n1", capacity={H100: 2000, "container.cpu": 500}, attested=False)
    expires = world.now + 5 * DAY
    one = leaf(node, H100, 2000, 1)
    row = AttestationRow(node=node, leaves=(one,), expires_us=expires)
    (attested,) = world.ok("attestor", AttestNodes(attestations=(row,)))
    assert isinstance(attested, NodeAttested)
    shorter = replace(row, expires_us=expires - DAY)
    world.ok("attestor-2", AttestNodes(attestations=(shorter,)))
    facts = world.market.folds.registry.node(node)
    assert facts is not None
    assert facts.attested(H100, expires - 1) == 2000
    assert facts.attested(H100, expires) == 0
    assert facts.attested("container.cpu", world.now) == 0
    world.check_replay()


# Refusals, in precedence order


def offered_node(world: World) -> NodeId:
    """A node of bob with an offer."""
    (node,) = world.admitted("bob")
    row = OfferRow(node=node, resource=H100, quantity_milli=1000, ask_nano=4 * SYNOR)
    world.ok("bob", PlaceOffers(offers=(row,)))
    return node


ACCOUNT_REFUSALS: list[tuple[str, str, Callable[[World], Any]]] = [
    ("clock", "key_role_not_allowed", lambda w: OpenAccount(payee=payee_of("clock"))),
    (
        "alice",
        "account_exists",
        lambda w: OpenAccount(payee=payee_of("x"), owner=AccountId(b"?" * 16)),
    ),
    (
        "new",
        "owner_unknown",
        lambda w: OpenAccount(payee=payee_of("n"), owner=AccountId(b"?" * 16)),
    ),
    ("gateway", "key_role_not_allowed", lambda w: SetPayee(payee=payee_of("g"))),
    ("gateway", "key_role_not_allowed", lambda w: Withdraw(amount_nano=Wide(0))),
    ("alice", "amount_not_positive", lambda w: Withdraw(amount_nano=Wide(-1))),
    ("alice", "insufficient_free", lambda w: Withdraw(amount_nano=Wide(101))),
    ("alice", "key_role_not_allowed", lambda w: seen_deposit("alice", 0, 0)),
    ("watcher", "amount_not_positive", lambda w: seen_deposit("alice", 0, 0)),
    ("watcher", "already_observed", lambda w: seen_deposit("alice", 2**127 - 1, 0)),
    ("watcher", "deposit_too_large", lambda w: seen_deposit("alice", 2**127 - 1, 10**6)),
    ("alice", "key_role_not_allowed", lambda w: seen_claim("alice", 0, 0)),
    ("watcher", "amount_not_positive", lambda w: seen_claim("alice", 0, 0)),
    ("watcher", "already_observed", lambda w: seen_claim("alice", 7, 0)),
    ("watcher", "claim_does_not_follow", lambda w: seen_claim("alice", 7, 8)),
    ("watcher", "claim_beyond_payable", lambda w: seen_claim("alice", 8, 8)),
    ("gateway", "key_role_not_allowed", lambda w: RegisterKey(key=key_of("g2"), role=Role.OWNER)),
    ("alice", "key_role_not_allowed", lambda w: RegisterKey(key=key_of("alice"), role=Role.CLOCK)),
    ("alice", "key_exists", lambda w: RegisterKey(key=key_of("clock"), role=Role.OWNER)),
    ("gateway", "key_role_not_allowed", lambda w: RevokeKey(key=key_of("clock"))),
    ("alice", "key_not_of_account", lambda w: RevokeKey(key=key_of("clock"))),
    ("alice", "key_not_of_account", lambda w: RevokeKey(key=key_of("eve"))),
    ("alice", "last_owner_key", lambda w: RevokeKey(key=key_of("alice"))),
    ("alice", "key_role_not_allowed", lambda w: ChangeParameter(name="?", value=-1)),
    ("operator", "unknown_parameter", lambda w: ChangeParameter(name="?", value=-1)),
    ("operator", "parameter_out_of_bounds", lambda w: ChangeParameter(name="epoch_us", value=0)),
]


@pytest.mark.parametrize(("who", "name", "command"), ACCOUNT_REFUSALS)
def test_accounts_keys_and_the_chain_refuse_in_order(
    who: str, name: str, command: Callable[[World], Any]
) -> None:
    """Each command breaks this rule and, where it can, every later one; the first one answers."""
    world = World()
    world.open("alice", 100)
    world.open("eve")
    world.ok("alice", RegisterKey(key=key_of("gateway"), role=Role.GATEWAY))
    assert world.refused(who, command(world)) == name


NODE_REFUSALS: list[tuple[str, str, Callable[[World, NodeId], Any]]] = [
    ("gateway", "key_role_not_allowed", lambda w, n: provider_command(uptime_ppm=0)),
    ("bob", "provider_exists", lambda w, n: provider_command(uptime_ppm=0)),
    (
        "alice",
        "commitment_out_of_bounds",
        lambda w, n: provider_command(uptime_ppm=1_000_000, location="x" * 101),
    ),
    ("alice", "commitment_out_of_bounds", lambda w, n: provider_command(uptime_ppm=899_999)),
    ("alice", "commitment_out_of_bounds", lambda w, n: provider_command(response_time_ms=-1)),
    (
        "alice",
        "commitment_out_of_bounds",
        lambda w, n: provider_command(durability_pp12=10**12 + 1),
    ),
    ("alice", "commitment_out_of_bounds", lambda w, n: provider_command(penalty_ppm=1_000_001)),
    ("alice", "location_too_long", lambda w, n: provider_command(location="x" * 101)),
    ("alice", "location_hides_characters", lambda w, n: provider_command(location="Oslo\x1b[2J")),
    ("alice", "location_hides_characters", lambda w, n: provider_command(location="\u202eolsO")),
    ("gateway", "too_many_rows", lambda w, n: RegisterNodes(nodes=(node_row("n2"),) * 6)),
    ("gateway", "key_role_not_allowed", lambda w, n: RegisterNodes(nodes=())),
    ("alice", "not_a_provider", lambda w, n: RegisterNodes(nodes=())),
    (
        "bob",
        "too_many_rows",
        lambda w, n: AttestNodes(
            attestations=(AttestationRow(node=n, leaves=(), expires_us=0),) * 6
        ),
    ),
    ("bob", "key_role_not_allowed", lambda w, n: AttestNodes(attestations=())),
    ("gateway", "key_role_not_allowed", lambda w, n: RetireNode(node=n)),
    ("alice", "node_unknown", lambda w, n: RetireNode(node=NodeId(bytes(16)))),
    ("alice", "node_not_yours", lambda w, n: RetireNode(node=n)),
    ("bob", "node_has_offers", lambda w, n: RetireNode(node=n)),
]


@pytest.mark.parametrize(("who", "name", "command"), NODE_REFUSALS)
def test_providers_and_nodes_refuse_in_order(
    who: str, name: str, command: Callable[[World, NodeId], Any]
) -> None:
    """Each command breaks this rule and, where it can, every later one; the first one answers."""
    world = World(Parameters(command_rows=5))
    world.open("alice")
    node = offered_node(world)
    world.ok("bob", RegisterKey(key=key_of("gateway"), role=Role.GATEWAY))
    assert world.refused(who, command(world, node)) == name


def test_a_retired_node_is_retired_once() -> None:
    """R6.4: the second time there is nothing to retire, and nothing to attest."""
    world = World()
    world.provider("bob")
    node = world.node("bob", "n1")
    world.ok("bob", RetireNode(node=node))
    assert world.refused("bob", RetireNode(node=node)) == "node_is_retired"
    row = AttestationRow(node=node, leaves=(), expires_us=0)
    assert world.refused_rows("attestor", AttestNodes(attestations=(row,))) == {
        0: "node_is_retired"
    }


def rows_of(row: NodeRow) -> dict[str, NodeRow]:
    """Rows that break one rule each, and every later one where that can be."""
    nobody: tuple[Hash32, ...] = ()
    bad = replace(row, region="", capacity=(), beat_us=-1, identities=nobody)
    twice = (Amount(resource=H100, amount=1), Amount(resource=H100, amount=1))
    grace = Parameters().grace_max_us
    device = Hash32(hashlib.sha256(b"n1/0").digest())
    return {
        "key_exists": replace(bad, key=key_of("n1")),
        "region_invalid": bad,
        "region_invalid ": replace(bad, region=" eu"),
        "region_invalid  ": replace(bad, region="x" * 65),
        "capacity_invalid": replace(bad, region="eu"),
        "capacity_invalid ": replace(bad, region="eu", capacity=twice),
        "capacity_invalid  ": replace(
            bad, region="eu", capacity=(Amount(resource="gpu.unknown", amount=1),)
        ),
        "capacity_invalid   ": replace(
            bad, region="eu", capacity=(Amount(resource="inference.tokens", amount=1),)
        ),
        "capacity_invalid    ": replace(
            bad, region="eu", capacity=(Amount(resource=H100, amount=0),)
        ),
        "beat_out_of_bounds": replace(row, beat_us=-1, identities=nobody),
        "beat_out_of_bounds ": replace(row, grace_us=grace + 1, identities=nobody),
        "beat_out_of_bounds  ": replace(row, beat_us=grace, grace_us=grace - 1),
        "identities_invalid": replace(row, identities=nobody),
        "identities_invalid ": replace(row, identities=(device, device)),
        "identities_invalid  ": replace(
            row, capacity=(Amount(resource=H100, amount=1001),), identities=(device,)
        ),
        "device_in_use": replace(row, identities=(device,)),
    }


@pytest.mark.parametrize("case", rows_of(node_row("n2")))
def test_rows_of_nodes_refuse_in_order(case: str) -> None:
    """Each row breaks this rule and, where it can, every later one; the first one answers."""
    world = World()
    world.provider("bob")
    world.node("bob", "n1")
    row = rows_of(node_row("n2"))[case]
    assert world.refused_rows("bob", RegisterNodes(nodes=(row,))) == {0: case.strip()}


@pytest.mark.parametrize("case", range(5))
def test_rows_of_attestations_refuse_in_order(case: int) -> None:
    """R6.4: unknown node, foreign leaf, a leaf twice, no leaf, then the expiry."""
    world = World()
    world.provider("bob")
    node = world.node("bob", "n1", attested=False)
    good = AttestationRow(
        node=node,
        leaves=(leaf(node, H100, 1000, 1),),
        expires_us=world.now + world.parameters.attestation_us + 1,
    )
    row, name = [
        (replace(good, node=NodeId(bytes(16)), leaves=()), "node_unknown"),
        (replace(good, leaves=(leaf(node, H100, 2000, 1),)), "leaf_not_of_manifest"),
        (replace(good, leaves=good.leaves * 2), "leaf_not_of_manifest"),
        (good, "expiry_out_of_bounds"),
        (replace(good, expires_us=world.now), "expiry_out_of_bounds"),
    ][case]
    assert world.refused_rows("attestor", AttestNodes(attestations=(row,))) == {0: name}


def test_nobody_is_paid_to_the_address_of_nobody() -> None:
    """R9.1: an account may be opened without a payee; its money waits until it has one."""
    world = World()
    world.ok("alice", OpenAccount(payee=Address(bytes(20))))
    world.deposit("alice", 5)
    world.ok("alice", Withdraw(amount_nano=Wide(5)))
    world.wait(DAY)
    assert world.balance(Purse.WITHDRAWAL, world.account("alice")) == 5
    world.ok("alice", SetPayee(payee=payee_of("alice")))
    world.wait(DAY)
    assert world.balance(Purse.PAYABLE, world.account("alice")) == 5
