"""Maturity, epoch cuts, claims, anchoring (R4.9, R9.1–R9.3)."""

from __future__ import annotations

from typing import Any

import pytest

from domain.account import ClaimSettled, EarningsMatured, ObserveClaim, OpenAccount, Withdraw
from domain.commit import EVENT_BYTES_MAX
from domain.epoch import (
    PAYABLES_MAX,
    Claimant,
    EpochAnchored,
    EpochCut,
    ObserveCheckpoint,
    PayablesAdded,
    decide_payables,
)
from domain.ids import Hash32, Wide
from domain.journal import Purse
from domain.key import CommandAnswered
from domain.lease import UsagePosted
from domain.ledger import ChangeParameter
from domain.provider import provider_of
from tests.domain.deals import close_out, leased, state_usage
from tests.support.market import DAY, HOUR, MINUTE, SYNOR, World, codec, payee_of

NOWHERE = Hash32(bytes(32))


def claim(name: str, nano: int, cumulative: int) -> ObserveClaim:
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


def checkpoint(epoch: int) -> ObserveCheckpoint:
    """What a watcher says of an anchored checkpoint."""
    return ObserveCheckpoint(
        epoch=epoch,
        checkpoint=Hash32(b"c" * 32),
        block=1,
        block_hash=NOWHERE,
        transaction=NOWHERE,
        log_index=0,
    )


def asked(world: World, name: str, nano: int) -> None:
    """An actor with so much in withdrawal."""
    world.open(name, nano)
    world.ok(name, Withdraw(amount_nano=Wide(nano)))


# Maturity


def test_what_was_posted_a_day_ago_is_earned() -> None:
    """R4.9: pending for 24 h, provider's part and protocol's part, to the microsecond."""
    world, opened = leased()
    world.wait(90 * MINUTE)
    state_usage(world, opened.lease, covered_us=80 * MINUTE)
    posted = world.last(UsagePosted)
    assert posted.protocol_nano > 0
    provider = world.account("alice")
    world.at(posted.at_us + DAY - 1)
    assert world.balance(Purse.PENDING, provider) == posted.provider_nano
    events = world.wait(1)
    (matured,) = [e for e in events if isinstance(e, EarningsMatured)]
    assert (matured.at_us, matured.posted_us) == (posted.at_us + DAY, posted.at_us)
    assert world.balance(Purse.EARNED, provider) == posted.provider_nano
    assert world.balance(Purse.PROTOCOL) == posted.protocol_nano
    assert world.balance(Purse.PENDING, provider) == 0
    world.check_replay()


def test_each_posting_matures_on_its_own_day() -> None:
    """R4.9: one bucket per account and instant of posting."""
    world, opened = leased()
    world.wait(75 * MINUTE)
    state_usage(world, opened.lease, covered_us=70 * MINUTE)
    world.wait(15 * MINUTE)
    state_usage(world, opened.lease, covered_us=85 * MINUTE)
    world.wait(30 * MINUTE)
    close_out(world, opened.lease, covered_us=120 * MINUTE)
    world.wait(2 * DAY)
    matured, posted = world.events(EarningsMatured), world.events(UsagePosted)
    assert [(m.posted_us, m.at_us) for m in matured] == [(p.at_us, p.at_us + DAY) for p in posted]
    assert sum(m.amount_nano for m in matured) == sum(p.provider_nano for p in posted)
    world.check_replay()


def test_another_time_of_maturity_holds_for_what_is_posted_from_then_on() -> None:
    """R10: things begun keep their values."""
    world, opened = leased()
    world.wait(75 * MINUTE)
    state_usage(world, opened.lease, covered_us=70 * MINUTE)
    world.ok("operator", ChangeParameter(name="maturity_us", value=2 * DAY))
    world.wait(15 * MINUTE)
    state_usage(world, opened.lease, covered_us=85 * MINUTE)
    world.wait(3 * DAY)
    assert [m.at_us - m.posted_us for m in world.events(EarningsMatured)] == [DAY, 2 * DAY]


# The cut


def test_an_epoch_is_cut_every_day_also_when_nothing_is_due() -> None:
    """R9.1: at start + n × epoch, each event carrying its deadline."""
    world = World(shards=2)
    world.metering(shard=1)
    start = world.genesis.start_us
    world.at(start + 3 * DAY)
    cuts = world.events(EpochCut)
    assert [(c.number, c.at_us) for c in cuts] == [(n, start + n * DAY) for n in (1, 2, 3)]
    assert [(p.shard, p.height) for p in cuts[0].positions] == [(0, -1), (1, 0)]
    assert cuts[0].payables == cuts[0].postings == ()
    world.check_replay()


def test_a_withdrawal_becomes_payable_and_payouts_are_cumulative() -> None:
    """R9.1, R9.2: what is authorised never falls."""
    world = World()
    world.open("alice", 10)
    world.ok("alice", Withdraw(amount_nano=Wide(4)))
    world.wait(DAY)
    (first,) = world.last(EpochCut).payables
    assert (first.added_nano, first.cumulative_nano, first.payee) == (4, 4, payee_of("alice"))
    world.ok("alice", Withdraw(amount_nano=Wide(3)))
    world.wait(DAY)
    (second,) = world.last(EpochCut).payables
    assert (second.added_nano, second.cumulative_nano) == (3, 7)
    world.wait(DAY)
    cut = world.last(EpochCut)
    assert cut.payables == ()
    assert (cut.deposited_nano, cut.authorised_nano, cut.paid_nano) == (10, 7, 0)
    assert world.balance(Purse.PAYABLE, world.account("alice")) == 7
    world.check_replay()


def test_matured_earnings_are_paid_without_being_asked_for() -> None:
    """R9.1: automatic for providers."""
    world, opened = leased()
    world.wait(90 * MINUTE)
    state_usage(world, opened.lease, covered_us=80 * MINUTE)
    world.wait(2 * DAY)
    assert world.balance(Purse.EARNED, world.account("alice")) == 0
    paid = world.balance(Purse.PAYABLE, world.account("alice"))
    assert paid == world.last(UsagePosted).provider_nano


def test_the_state_root_of_a_cut_is_the_root_over_the_balances_after_it() -> None:
    """R9.1: anyone who folds the postings up to the cut finds it."""
    world = World()
    asked(world, "alice", 5)
    world.wait(DAY)
    assert world.last(EpochCut).state_root == world.market.folds.balances.root()


def test_a_cut_with_more_payables_than_an_event_holds_is_written_in_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each event keeps within its bytes; the cut is the last, and everybody is in exactly one."""
    monkeypatch.setattr("domain.market_epochs.PAYABLES_MAX", 3)
    world = World()
    names = [f"a{n}" for n in range(7)]
    for name in names:
        asked(world, name, 5)
    events = world.wait(DAY)
    assert [type(e) for e in events] == [PayablesAdded, PayablesAdded, EpochCut]
    assert [e.part for e in events[:2]] == [0, 1]
    accounts = [p.account for e in events for p in e.payables]
    assert accounts == sorted(world.account(name) for name in names)
    assert events[-1].authorised_nano == 35
    assert events[-1].state_root == world.market.folds.balances.root()
    world.wait(DAY)
    assert world.last(EpochCut).number == 2
    world.check_replay()


def test_two_thousand_payables_of_three_sources_fit_an_event() -> None:
    """A part is as large as an event's bytes allow, and no larger."""
    payables, postings = decide_payables(
        Claimant(
            account=account,
            payee=payee_of("x"),
            authorised_nano=10**20,
            withdrawal_nano=10**15,
            earned_nano=10**15,
            provider=provider_of(account),
            released_nano=10**15,
        )
        for account in (World.account(f"a{n}") for n in range(PAYABLES_MAX))
    )
    assert sum(p.amount_nano for p in postings) == 0
    part = PayablesAdded(at_us=2**50, number=1, part=0, payables=payables, postings=postings)
    assert EVENT_BYTES_MAX * 3 // 4 < len(codec().encode(part)) < EVENT_BYTES_MAX * 7 // 8


def test_another_length_of_epochs_holds_from_the_next_cut_on() -> None:
    """R10: effective from the next deadline of its kind."""
    world = World()
    start = world.now
    world.ok("operator", ChangeParameter(name="epoch_us", value=HOUR))
    world.wait(DAY + 2 * HOUR)
    assert [c.at_us - start for c in world.events(EpochCut)] == [DAY, DAY + HOUR, DAY + 2 * HOUR]


# Claims and anchors


def test_a_claim_takes_what_was_authorised_once() -> None:
    """R9.2, R9.3: payable → external; the same claim seen again moves nothing."""
    world = World()
    asked(world, "alice", 7)
    world.wait(DAY)
    (settled,) = world.ok("watcher", claim("alice", 7, 7))
    assert isinstance(settled, ClaimSettled)
    assert world.refused("watcher", claim("alice", 7, 7)) == "already_observed"
    assert world.balance(Purse.PAYABLE, world.account("alice")) == 0
    world.deposit("alice", 5)
    world.ok("alice", Withdraw(amount_nano=Wide(5)))
    world.wait(DAY)
    assert world.refused("watcher", claim("alice", 4, 12)) == "claim_does_not_follow"
    assert world.refused("watcher", claim("alice", 6, 13)) == "claim_beyond_payable"
    world.ok("watcher", claim("alice", 5, 12))
    world.wait(DAY)
    cut = world.last(EpochCut)
    assert (cut.deposited_nano, cut.authorised_nano, cut.paid_nano) == (12, 12, 12)
    world.check_replay()


def test_a_missed_epoch_costs_a_claimant_nothing() -> None:
    """R9.2: one claim pays everything up to its cumulative amount."""
    world = World()
    world.open("alice", 9)
    for _ in range(3):
        world.ok("alice", Withdraw(amount_nano=Wide(3)))
        world.wait(DAY)
    world.ok("watcher", claim("alice", 9, 9))
    assert world.balance(Purse.EXTERNAL) == 0


def test_an_anchored_checkpoint_is_known_once_and_only_of_an_epoch_that_was_cut() -> None:
    """R9.1: reported by the watcher."""
    world = World()
    world.wait(2 * DAY)
    assert world.refused("alice_", OpenAccount(payee=payee_of("a"), owner=world.account("x"))) == (
        "owner_unknown"
    )
    assert world.refused("watcher", checkpoint(3)) == "epoch_unknown"
    (anchored,) = world.ok("watcher", checkpoint(2))
    assert isinstance(anchored, EpochAnchored)
    for seen in (2, 1):
        assert world.refused("watcher", checkpoint(seen)) == "already_observed"
    world.open("alice")
    assert world.refused("alice", checkpoint(3)) == "key_role_not_allowed"
    world.check_replay()


def test_everything_that_was_deposited_is_somewhere_at_every_cut() -> None:
    """R9.3: paid ≤ authorised ≤ deposited, and the rest is in escrow, stake, pending or free."""
    world, opened = leased()
    world.wait(90 * MINUTE)
    state_usage(world, opened.lease, covered_us=80 * MINUTE)
    world.ok("bob", Withdraw(amount_nano=Wide(SYNOR)))
    world.wait(3 * DAY)
    for cut in world.events(EpochCut):
        assert cut.paid_nano <= cut.authorised_nano <= cut.deposited_nano
    deposited = world.last(EpochCut).deposited_nano
    balances: Any = world.market.folds.balances.all()
    assert sum(n for (purse, _), n in balances.items() if purse is not Purse.EXTERNAL) == deposited
    assert all(a.code == 0 for a in world.events(CommandAnswered))
