"""One small system, lived through on every log, with any P, cut, killed and raced."""

from __future__ import annotations

import random
from contextlib import closing
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from adapters.bootstrap import audit
from adapters.kafka_log import KafkaLog
from adapters.kafka_topics import KafkaTopics
from adapters.local_topics import LocalTopics
from adapters.sqlite_log import SqliteLog
from adapters.worker import Worker
from domain.canonical import EVIDENCE
from domain.commit import Ledger
from domain.journal import Purse
from domain.lease import EndReason
from domain.market import Market
from domain.metering_states import is_over
from domain.provider import StakeSlashed
from tests.support.market import picture
from tests.system.reading import Seat, events
from tests.system.reference import check_same, reference, reference_hash
from tests.system.small import NANO, SmallSystem, memory_log, small_on_memory

MARKET: Seat = (Ledger.MARKET, 0)


def test_the_small_system_lives_through_everything_and_its_audit_is_clean() -> None:
    """Leases end for three reasons, two faults are slashed, three epochs are anchored and paid."""
    system = reference()
    verdict = audit(system.network, system.log)
    seen = system.script.seen
    assert sorted({reason.value for reason in seen.ends()}) == [
        EndReason.BUYER_CLOSED.value,
        EndReason.EXHAUSTED.value,
        EndReason.EXPIRED.value,
    ]
    faults = {
        event.fault.value
        for event in events(system.network, system.log, Ledger.MARKET)
        if isinstance(event, StakeSlashed)
    }
    assert faults == {"DOWNTIME", "CONTRADICTION"}
    assert verdict.totals.anchored == len(seen.checkpoints) == 3
    assert verdict.totals.claimed == sum(seen.claimed.values()) > 5 * NANO
    assert verdict.totals.charged == verdict.totals.provider + verdict.totals.protocol > 0
    refusals = [answer.code for answer in seen.answers if answer.code or answer.rows]
    assert refusals == [305, 305]


def test_what_workers_hold_live_is_what_a_new_worker_folds_from_the_ledger() -> None:
    """Replay equals live: every in-process fold and deadline, the rules and the time."""
    system = small_on_memory().run()
    for (ledger, shard), live in system.seats.items():
        fresh = system.worker(ledger, shard)
        fresh.recover()
        old, new = live.processor, fresh.processor
        if isinstance(old, Market) and isinstance(new, Market):
            assert picture(new.folds) == picture(old.folds)
            assert new.deadlines.next() == old.deadlines.next()
        assert (new.rules_version, new.parameters) == (old.rules_version, old.parameters)
        assert new.time_us == old.committed_us
        fresh.close()
    system.close()


def test_the_state_that_workers_hold_is_the_state_that_the_audit_derives() -> None:
    """Balances of the live market and aggregates of every live store equal the auditor's.

    A shard forgets a lease after its final statement.
    """
    system = small_on_memory().run()
    verdict = audit(system.network, system.log)
    market = system.seats[MARKET].processor
    assert dict(market.folds.balances.all()) == dict(verdict.market.folds.balances.all())
    for seat, live in system.seats.items():
        for aggregate, versioned in verdict.states[seat].all.items():
            held = live.processor.unit.state(aggregate)
            assert held == (None if is_over(versioned.state) else versioned.state)
    system.close()


def test_escrows_of_closed_leases_and_reservations_of_dead_bids_are_zero() -> None:
    """At the end of the story every lease is closed and no bid rests: nothing is held for them."""
    system = reference()
    balances = audit(system.network, system.log).market.folds.balances.all()
    held = {Purse.RESERVED, Purse.ESCROW_ALLOCATED, Purse.ESCROW_USAGE, Purse.POT}
    assert {purse for purse, _ in balances} & held == set()
    assert sum(balances.values()) == 0


# Logs and shards


def test_sqlite_gives_the_same_events_and_state_as_memory(tmp_path: Path) -> None:
    """The log is a port: nothing of it reaches the state."""
    with closing(SqliteLog(tmp_path / "l.db", clock_us=lambda: 0, durable=False)) as log:
        check_same(SmallSystem(log, LocalTopics(log)).run())


@pytest.mark.service
def test_kafka_gives_the_same_events_and_state_as_memory(kafka_broker: str) -> None:
    """The same on a real broker, whose append times and batches are its own.

    Its topics have the names that every network uses, so nobody else of the session may.
    """
    with (
        closing(KafkaTopics(kafka_broker, client_id="small-admin")) as topics,
        closing(KafkaLog(kafka_broker, client_id="small")) as log,
    ):
        system = SmallSystem(log, topics)
        check_same(system.run())
        system.close()


@pytest.mark.parametrize("shards", [1, 2, 3])
def test_the_number_of_shards_does_not_change_the_state(shards: int) -> None:
    """Batches of one node each: P is a matter of scale alone."""
    assert reference_hash(shards) == reference_hash(2)


# Cuts


@pytest.mark.parametrize("seed", range(6))
def test_cutting_commits_at_random_gives_the_same_events_and_state(seed: int) -> None:
    """No rule sees a commit boundary, wherever between two items it lies."""
    chance = random.Random(seed)
    often = chance.choice([0.1, 0.5, 1.0])
    log = memory_log()
    system: SmallSystem | None = None

    def make(ledger: Ledger, shard: int) -> Worker:
        assert system is not None
        return system.worker(
            ledger, shard, cut=lambda unit: bool(unit.events) and chance.random() < often
        )

    system = SmallSystem(log, LocalTopics(log), make_worker=make)
    check_same(system.run())
    system.close()


def test_of_a_state_only_what_depends_on_the_log_stays_out_of_the_hash() -> None:
    """A field that `EVIDENCE` leaves out by its name is a decision, not an accident."""
    verdict = audit(reference().network, reference().log)
    left_out: set[tuple[str, str]] = set()

    def walk(value: Any) -> None:
        if is_dataclass(value):
            for each in fields(value):
                if each.name in EVIDENCE:
                    left_out.add((type(value).__name__, each.name))
                else:
                    walk(getattr(value, each.name))
        elif isinstance(value, tuple):
            for item in value:
                walk(item)

    for states in verdict.states.values():
        for versioned in states.all.values():
            walk(versioned.state)
    assert left_out <= {
        ("Checkpoints", "last"),  # the hash of a checkpoint
        ("LiveBid", "order_no"),  # the place of an order on the log
        ("LiveOffer", "order_no"),
    }
