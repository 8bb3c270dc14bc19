"""Every way to tamper with a ledger is found and named: class, topic, height, offset, field.

The forger is as strong as can be: it holds the writers' keys and makes every hash, root and
signature right again. What it cannot do is make wrong events follow from the inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pytest

from adapters.audit import EXIT_CODES, Diverged
from adapters.bootstrap import audit, ledger_audit
from domain.bid import BidPlaced
from domain.checkpoint import CheckpointMade
from domain.commit import (
    BODY_VERSION,
    COMMANDS_TOPIC,
    ENVELOPE_BYTES,
    LEDGER_TOPICS,
    TELEMETRY_TOPIC,
    BulkPart,
    GateCount,
    Ledger,
    RecordedEvent,
    parse,
    part_of,
    unpack_event,
)
from domain.epoch import EpochCut
from domain.ids import Hash32, Wide
from domain.key import CommandAnswered
from domain.lease import UsagePosted
from domain.ledger import LEDGER_ID, ParameterChanged, RulesActivated
from domain.provider import StakeSlashed
from domain.round import RoundCleared
from domain.rules import NEWEST
from domain.telemetry import TelemetryAccepted, UsageStated
from tests.audit.forge import Book, Commit, flipped
from tests.system.reading import Seat
from tests.system.reference import reference, reference_hash
from tests.system.small import KEYS, network

MARKET: Seat = (Ledger.MARKET, 0)
SHARD: Seat = (Ledger.METERING, 1)
SETTLEMENT: Seat = (Ledger.SETTLEMENT, 0)
NOBODY = bytes(32)


@dataclass(frozen=True)
class Found:
    """What the audit must say."""

    name: str
    height: int
    at: str
    offset: int | None = None  # where it is not that of the height


Mutation = Callable[[Book], Found]
MUTATIONS: dict[str, tuple[Seat, Mutation]] = {}


def mutation(seat: Seat) -> Callable[[Mutation], Mutation]:
    """A row of the table: the function changes the book and says what must be found."""

    def add(make: Mutation) -> Mutation:
        MUTATIONS[make.__name__.strip("_").replace("_", " ")] = (seat, make)
        return make

    return add


def body(commit: Commit, **changes: Any) -> Commit:
    """The commit with other fields in its body."""
    return replace(commit, body=replace(commit.body, **changes))


# Bytes of the log


@mutation(MARKET)
def _a_byte_of_a_body(book: Book) -> Found:
    ledger = book.ledger(MARKET)
    ledger[5] = flipped(ledger[5], ENVELOPE_BYTES + 20)
    return Found("corrupt", 5, "body")


@mutation(SHARD)
def _a_byte_of_a_bulk(book: Book) -> Found:
    height, _ = book.find(SHARD, TelemetryAccepted)
    ledger = book.ledger(SHARD)
    ledger[height] = flipped(ledger[height], len(ledger[height]) - 1)
    return Found("corrupt", height, "bulk")


@mutation(MARKET)
def _a_byte_of_an_envelope(book: Book) -> Found:
    ledger = book.ledger(MARKET)
    ledger[5] = flipped(ledger[5], 60)
    return Found("fork", 5, "envelope", offset=6)


@mutation(MARKET)
def _a_byte_of_a_signature(book: Book) -> Found:
    ledger = book.ledger(MARKET)
    ledger[5] = flipped(ledger[5], ENVELOPE_BYTES - 1)
    return Found("fork", 5, "envelope", offset=6)


@mutation(MARKET)
def _a_commit_that_is_missing(book: Book) -> Found:
    del book.ledger(MARKET)[5]
    return Found("fork", 5, "envelope", offset=5)


@mutation(MARKET)
def _two_commits_that_changed_places(book: Book) -> Found:
    ledger = book.ledger(MARKET)
    ledger[5], ledger[6] = ledger[6], ledger[5]
    return Found("fork", 5, "envelope", offset=5)


@mutation(SHARD)
def _a_commit_that_stands_twice_in_what_others_have_read(book: Book) -> Found:
    ledger = book.ledger(MARKET)
    ledger.insert(5, ledger[4])
    topic = LEDGER_TOPICS[Ledger.MARKET]
    for height, commit in enumerate(book.commits(SHARD)):
        for number, run in enumerate(commit.body.runs):
            if run.topic == topic and run.first <= 5 < run.next:
                return Found("run_digest", height, f"runs[{number}].digest")
    raise AssertionError


@mutation(SHARD)
def _a_market_that_ends_before_what_a_shard_has_read(book: Book) -> Found:
    del book.ledger(MARKET)[20:]
    topic = LEDGER_TOPICS[Ledger.MARKET]
    for height, commit in enumerate(book.commits(SHARD)):
        for number, run in enumerate(commit.body.runs):
            if run.topic == topic and run.next > 20:
                return Found("truncated", height, f"runs[{number}].next")
    raise AssertionError


@mutation(MARKET)
def _a_ledger_of_another_genesis(book: Book) -> Found:
    def foreign(commit: Commit) -> Commit:
        return replace(commit, envelope=replace(commit.envelope, genesis=NOBODY))

    book.forge(MARKET, 0, foreign)
    return Found("genesis", -1, "envelope", offset=0)


@mutation(MARKET)
def _a_ledger_without_a_commit(book: Book) -> Found:
    book.ledger(MARKET).clear()
    return Found("not_a_ledger", -1, "log", offset=0)


@mutation(MARKET)
def _a_genesis_that_is_bound_to_fewer_topics(book: Book) -> Found:
    book.forge(
        MARKET,
        0,
        lambda c: book.with_event(c, 0, lambda e: replace(e, topics=e.topics[1:])),
    )
    return Found("genesis", 0, "topics")


@mutation(MARKET)
def _a_genesis_with_another_parameter(book: Book) -> Found:
    book.forge(
        MARKET,
        0,
        lambda c: book.with_event(c, 1, lambda e: replace(e, genesis=replace(e.genesis, nonce=9))),
    )
    return Found("genesis", 0, "genesis")


# What a commit says that it has read


@mutation(MARKET)
def _an_input_that_changed_after_it_was_read(book: Book) -> Found:
    values = book.lists[COMMANDS_TOPIC, 0]
    values[3] = flipped(values[3], 40)
    return _reader_of(book, MARKET, COMMANDS_TOPIC, 0, 3)


@mutation(MARKET)
def _an_input_that_its_signer_signed_again(book: Book) -> Found:
    """The signature holds, the content is another: the run's digest knows."""
    values = book.lists[COMMANDS_TOPIC, 0]
    values[1] = values[2]
    return _reader_of(book, MARKET, COMMANDS_TOPIC, 0, 1)


@mutation(SHARD)
def _telemetry_that_changed_after_it_was_read(book: Book) -> Found:
    values = book.lists[TELEMETRY_TOPIC, 1]
    values[9] = flipped(values[9], 60)
    return _reader_of(book, SHARD, TELEMETRY_TOPIC, 1, 9)


def _reader_of(book: Book, seat: Seat, topic: str, partition: int, offset: int) -> Found:
    for height, commit in enumerate(book.commits(seat)):
        for number, run in enumerate(commit.body.runs):
            if (run.topic, run.partition) == (topic, partition) and run.first <= offset < run.next:
                return Found("run_digest", height, f"runs[{number}].digest")
    raise AssertionError


@mutation(MARKET)
def _an_input_range_that_is_hidden(book: Book) -> Found:
    """A commit that leaves out what came first, with an honest digest of the rest."""
    height, _ = book.find(MARKET, BidPlaced)
    run = book.commit(MARKET, height).body.runs[0]
    book.forge(MARKET, height, lambda c: book.with_run(c, 0, run.first + 1, run.next))
    return Found("run_gap", height, "runs[0].first")


@mutation(MARKET)
def _a_run_that_nobody_reads(book: Book) -> Found:
    def elsewhere(commit: Commit) -> Commit:
        runs = (replace(commit.body.runs[0], topic="synor.elsewhere"), *commit.body.runs[1:])
        return body(commit, runs=runs)

    book.forge(MARKET, 4, elsewhere)
    return Found("run_gap", 4, "runs[0].topic")


@mutation(MARKET)
def _a_run_that_claims_what_is_not_there_yet(book: Book) -> Found:
    last = len(book.ledger(MARKET)) - 1
    run = book.commit(MARKET, last).body.runs[0]
    book.forge(
        MARKET,
        last,
        lambda c: body(c, runs=(replace(run, next=run.next + 1_000), *c.body.runs[1:])),
    )
    return Found("truncated", last, "runs[0].next")


@mutation(MARKET)
def _a_digest_of_other_inputs(book: Book) -> Found:
    book.forge(
        MARKET,
        4,
        lambda c: body(c, runs=(replace(c.body.runs[0], digest=Hash32(NOBODY)), *c.body.runs[1:])),
    )
    return Found("run_digest", 4, "runs[0].digest")


@mutation(MARKET)
def _a_count_of_other_inputs(book: Book) -> Found:
    def counted(commit: Commit) -> Commit:
        run = commit.body.runs[0]
        return body(commit, runs=(replace(run, count=run.count + 1), *commit.body.runs[1:]))

    book.forge(MARKET, 4, counted)
    return Found("run_digest", 4, "runs[0].count")


@mutation(SETTLEMENT)
def _a_head_that_is_not_the_one_read(book: Book) -> Found:
    book.forge(
        SETTLEMENT,
        1,
        lambda c: body(c, runs=(replace(c.body.runs[0], height=0), *c.body.runs[1:])),
    )
    return Found("run_head", 1, "runs[0].height")


@mutation(MARKET)
def _a_commit_that_claims_to_end_within_a_record(book: Book) -> Found:
    height, _ = book.find(MARKET, RoundCleared)

    def within(commit: Commit) -> Commit:
        runs = (*commit.body.runs[:-1], replace(commit.body.runs[-1], items_done=3))
        return body(commit, runs=runs)

    book.forge(MARKET, height, within)
    last = len(book.commit(MARKET, height).body.runs) - 1
    return Found("run_gap", height, f"runs[{last}].items_done")


@mutation(MARKET)
def _a_time_that_is_a_microsecond_late(book: Book) -> Found:
    book.forge(MARKET, 6, lambda c: body(c, time_us=c.body.time_us + 1))
    return Found("time", 6, "time_us")


@mutation(MARKET)
def _rules_that_are_not_in_force(book: Book) -> Found:
    book.forge(MARKET, 6, lambda c: body(c, rules_version=NEWEST + 1))
    return Found("rules_version", 6, "rules_version")


@mutation(MARKET)
def _garbage_that_is_not_counted(book: Book) -> Found:
    height = next(h for h, c in enumerate(book.commits(MARKET)) if c.body.refused)
    book.forge(MARKET, height, lambda c: body(c, refused=c.body.refused[1:]))
    return Found("gate_count", height, "refused")


@mutation(SHARD)
def _a_gate_count_that_is_one_too_high(book: Book) -> Found:
    shard: Seat = SHARD
    book.forge(shard, 3, lambda c: body(c, refused=(*c.body.refused, _one_more())))
    return Found("gate_count", 3, "refused")


def _one_more() -> GateCount:
    return GateCount(code=110, count=1, digest=Hash32(NOBODY))


# What a commit says that follows


@mutation(MARKET)
def _a_price_that_is_a_tick_too_high(book: Book) -> Found:
    height, index = book.find(MARKET, RoundCleared, lambda e: e.price_nano > 0)
    book.forge(
        MARKET,
        height,
        lambda c: book.with_event(c, index, lambda e: replace(e, price_nano=e.price_nano + 1000)),
    )
    return Found("event_differs", height, f"events[{index}].price_nano")


@mutation(MARKET)
def _a_split_that_is_wrong_by_one_nano(book: Book) -> Found:
    height, index = book.find(MARKET, UsagePosted, lambda e: e.provider_nano > 0)

    def split(event: UsagePosted) -> UsagePosted:
        changed = {event.provider_nano: 1, event.protocol_nano: -1}
        return replace(
            event,
            provider_nano=Wide(event.provider_nano + 1),
            protocol_nano=Wide(event.protocol_nano - 1),
            postings=tuple(
                replace(p, amount_nano=Wide(p.amount_nano + changed.get(p.amount_nano, 0)))
                for p in event.postings
            ),
        )

    book.forge(MARKET, height, lambda c: book.with_event(c, index, split))
    return Found("event_differs", height, f"events[{index}].provider_nano")


@mutation(MARKET)
def _a_slash_that_is_wrong_by_one_nano(book: Book) -> Found:
    height, index = book.find(MARKET, StakeSlashed)
    book.forge(
        MARKET,
        height,
        lambda c: book.with_event(
            c, index, lambda e: replace(e, taken_nano=Wide(e.taken_nano + 1))
        ),
    )
    return Found("event_differs", height, f"events[{index}].taken_nano")


@mutation(MARKET)
def _a_payout_that_is_authorised_too_high(book: Book) -> Found:
    height, index = book.find(MARKET, EpochCut, lambda e: e.authorised_nano > 0)
    book.forge(
        MARKET,
        height,
        lambda c: book.with_event(
            c, index, lambda e: replace(e, authorised_nano=Wide(e.authorised_nano + 1))
        ),
    )
    return Found("event_differs", height, f"events[{index}].authorised_nano")


@mutation(MARKET)
def _an_event_that_does_not_follow(book: Book) -> Found:
    height, index = book.find(MARKET, CommandAnswered)
    count = len(book.commit(MARKET, height).body.events)
    book.forge(
        MARKET,
        height,
        lambda c: body(c, events=(*c.body.events, c.body.events[index])),
    )
    return Found("event_surplus", height, f"events[{count}]")


@mutation(MARKET)
def _an_event_that_was_left_out(book: Book) -> Found:
    height, _ = book.find(MARKET, BidPlaced)
    count = len(book.commit(MARKET, height).body.events)
    book.forge(MARKET, height, lambda c: body(c, events=c.body.events[:-1]))
    return Found("event_missing", height, f"events[{count - 1}]")


@mutation(MARKET)
def _two_events_that_changed_places(book: Book) -> Found:
    height, index = book.find(MARKET, BidPlaced)

    def swapped(commit: Commit) -> Commit:
        found = list(commit.body.events)
        found[index], found[index + 1] = found[index + 1], found[index]
        return body(commit, events=tuple(found))

    book.forge(MARKET, height, swapped)
    return Found("event_differs", height, f"events[{index}].schema")


@mutation(SHARD)
def _a_statement_of_one_unit_more(book: Book) -> Found:
    height, index = book.find(SHARD, UsageStated, lambda e: bool(e.quantities))

    def more(event: UsageStated) -> UsageStated:
        first, *rest = event.quantities
        return replace(event, quantities=(replace(first, quantity=first.quantity + 1), *rest))

    book.forge(SHARD, height, lambda c: book.with_event(c, index, more))
    return Found("event_differs", height, f"events[{index}].quantities")


@mutation(SHARD)
def _telemetry_that_was_exchanged_in_the_bulk(book: Book) -> Found:
    """The writer seals other bytes than it was sent; hash and signature hold."""
    height, _ = book.find(SHARD, TelemetryAccepted)

    def other(part: BulkPart) -> BulkPart:
        return part_of(flipped(part.data, 70))

    book.forge(SHARD, height, lambda c: replace(c, bulk=(other(c.bulk[0]), *c.bulk[1:])))
    return Found("bulk_differs", height, "bulk")


@mutation(MARKET)
def _a_root_over_other_events(book: Book) -> Found:
    book.forge(MARKET, 7, lambda c: body(c, tree_root=Hash32(NOBODY)))
    return Found("merkle_root", 7, "tree_root")


@mutation(SETTLEMENT)
def _a_checkpoint_with_another_payout_root(book: Book) -> Found:
    height, index = book.find(SETTLEMENT, CheckpointMade, lambda e: e.payout_count > 0)
    book.forge(
        SETTLEMENT,
        height,
        lambda c: book.with_event(c, index, lambda e: replace(e, payout_root=Hash32(NOBODY))),
    )
    return Found("event_differs", height, f"events[{index}].payout_root")


@mutation(MARKET)
def _a_price_with_all_that_follows_from_it(book: Book) -> Found:
    """Fills and escrows at the new price, and every ledger that has read it signed anew."""
    height, index = book.find(MARKET, RoundCleared, lambda e: e.price_nano > 0)
    price = book.events(book.commit(MARKET, height))[index].price_nano

    def dearer(commit: Commit) -> Commit:
        for number, event in enumerate(book.events(commit)):
            changes = {
                name: price + 1000
                for name in ("price_nano", "unit_nano")
                if getattr(event, name, None) == price
            }
            if changes:
                commit = book.with_event(commit, number, partial(replace, **changes))
        return commit

    book.forge(MARKET, height, dearer)
    book.rechain()
    return Found("event_differs", height, f"events[{index}].price_nano")


@mutation(SETTLEMENT)
def _a_checkpoint_that_is_forged_with_its_whole_tail(book: Book) -> Found:
    """The state root is another one, and all later checkpoints stand on the forged one."""
    height, index = book.find(SETTLEMENT, CheckpointMade)
    book.forge(
        SETTLEMENT,
        height,
        lambda c: book.with_event(c, index, lambda e: replace(e, state_root=Hash32(NOBODY))),
    )
    book.rechain()
    return Found("event_differs", height, f"events[{index}].state_root")


@mutation(MARKET)
def _a_tail_that_its_writer_left_out_and_signed_again(book: Book) -> Found:
    """The commit of a bid is gone; what came after it stands on what came before."""
    height, _ = book.find(MARKET, BidPlaced)
    commits = list(book.commits(MARKET))
    del book.ledger(MARKET)[height]
    for at, commit in enumerate(commits[height + 1 :], height):
        lowered = replace(commit, envelope=replace(commit.envelope, height=at))
        previous = parse(book.ledger(MARKET)[at - 1])
        assert previous is not None
        book.ledger(MARKET)[at], _ = book.sealed(MARKET, lowered, commit.body, previous.hash())
    return _gap(commits[height - 1], commits[height + 1], height)


@mutation(MARKET)
def _a_commit_that_its_writer_signed_twice(book: Book) -> Found:
    """The same events once more at the next height, chained and signed."""
    height, _ = book.find(MARKET, BidPlaced)
    commit = book.commit(MARKET, height)
    previous = parse(book.ledger(MARKET)[height])
    assert previous is not None
    again = replace(commit, envelope=replace(commit.envelope, height=height + 1))
    value, _ = book.sealed(MARKET, again, commit.body, previous.hash())
    book.ledger(MARKET)[height + 1 :] = [value]
    return Found("run_gap", height + 1, "runs[0].first")


@mutation(MARKET)
def _two_commits_that_changed_places_and_were_signed_again(book: Book) -> Found:
    height, _ = book.find(MARKET, BidPlaced)
    before, earlier, later = (book.commit(MARKET, height + i) for i in (-1, 0, 1))
    for at, other in enumerate((later.body, earlier.body), height):
        previous = parse(book.ledger(MARKET)[at - 1])
        assert previous is not None
        value, _ = book.sealed(MARKET, book.commit(MARKET, at), other, previous.hash())
        book.ledger(MARKET)[at] = value
    del book.ledger(MARKET)[height + 2 :]
    return _gap(before, later, height)


def _gap(before: Commit, after: Commit, height: int) -> Found:
    """The first run of a commit that does not go on where the ledger stood."""
    stood = {(run.topic, run.partition): run.next for run in before.body.runs}
    number = next(
        number
        for number, run in enumerate(after.body.runs)
        if run.first > stood.get((run.topic, run.partition), run.first)
    )
    return Found("run_gap", height, f"runs[{number}].first")


@mutation(MARKET)
def _an_event_of_another_schema(book: Book) -> Found:
    """The bytes are the same, the number names another record."""
    height, index = book.find(MARKET, RoundCleared)
    other = book.codec.number(BidPlaced)
    book.forge(MARKET, height, lambda c: _repacked(c, index, schema=other))
    return Found("event_differs", height, f"events[{index}].schema")


@mutation(MARKET)
def _an_event_of_a_schema_that_there_is_not(book: Book) -> Found:
    height, index = book.find(MARKET, RoundCleared)
    book.forge(MARKET, height, lambda c: _repacked(c, index, schema=65_000))
    return Found("event_differs", height, f"events[{index}].schema")


@mutation(MARKET)
def _an_event_of_another_aggregate(book: Book) -> Found:
    height, index = book.find(MARKET, RoundCleared)
    book.forge(MARKET, height, lambda c: _repacked(c, index, aggregate=bytes(16)))
    return Found("event_differs", height, f"events[{index}].aggregate")


@mutation(MARKET)
def _an_event_that_is_cut_off(book: Book) -> Found:
    height, index = book.find(MARKET, RoundCleared)

    def short(commit: Commit) -> Commit:
        events = list(commit.body.events)
        events[index] = events[index][:-1]
        return body(commit, events=tuple(events))

    book.forge(MARKET, height, short)
    return Found("event_differs", height, f"events[{index}].payload")


def _repacked(commit: Commit, index: int, **changes: Any) -> Commit:
    events = list(commit.body.events)
    events[index] = replace(unpack_event(events[index]), **changes).pack()
    return body(commit, events=tuple(events))


@mutation(MARKET)
def _a_body_of_a_format_that_nobody_knows(book: Book) -> Found:
    commit = book.commit(MARKET, 5)
    changed = replace(commit.envelope, version=BODY_VERSION + 1)
    rest = book.ledger(MARKET)[5][ENVELOPE_BYTES:]
    book.ledger(MARKET)[5] = changed.unsigned() + KEYS.market.sign(changed.unsigned()) + rest
    return Found("unknown_version", 5, "envelope", offset=5)


@mutation(MARKET)
def _rules_that_nobody_activated(book: Book) -> Found:
    """A rule is changed by an event that no command asked for."""
    height, _ = book.find(MARKET, BidPlaced)
    commit = book.commit(MARKET, height)
    event = RulesActivated(at_us=commit.body.time_us, version=2)
    packed = RecordedEvent(
        LEDGER_ID, 3, book.codec.number(RulesActivated), book.codec.encode(event)
    )
    count = len(commit.body.events)
    book.forge(MARKET, height, lambda c: body(c, events=(*c.body.events, packed.pack())))
    return Found("event_surplus", height, f"events[{count}]")


@mutation(MARKET)
def _a_parameter_that_nobody_changed(book: Book) -> Found:
    """In place of an event that follows."""
    height, index = book.find(MARKET, BidPlaced)
    commit = book.commit(MARKET, height)
    event = ParameterChanged(at_us=commit.body.time_us, name="grace_us", value=1)
    packed = RecordedEvent(
        LEDGER_ID, 3, book.codec.number(ParameterChanged), book.codec.encode(event)
    )

    def changed(commit: Commit) -> Commit:
        events = list(commit.body.events)
        events[index] = packed.pack()
        return body(commit, events=tuple(events))

    book.forge(MARKET, height, changed)
    return Found("event_differs", height, f"events[{index}].schema")


@mutation(SHARD)
def _bulks_of_two_commits_that_changed_places(book: Book) -> Found:
    found = [h for h, c in enumerate(book.commits(SHARD)) if c.bulk]
    one, two = (book.commit(SHARD, height).bulk for height in found[:2])
    book.forge(SHARD, found[0], lambda c: replace(c, bulk=two))
    book.forge(SHARD, found[1], lambda c: replace(c, bulk=one))
    return Found("bulk_differs", found[0], "bulk")


@mutation(SHARD)
def _telemetry_that_its_commit_keeps_to_itself(book: Book) -> Found:
    """The bulk is empty; whoever audits without the topic would miss the evidence."""
    height, _ = book.find(SHARD, TelemetryAccepted)
    book.forge(SHARD, height, lambda c: replace(c, bulk=()))
    return Found("bulk_differs", height, "bulk")


@mutation(SHARD)
def _a_run_that_ends_at_another_event(book: Book) -> Found:
    height, _ = book.find(SHARD, TelemetryAccepted)
    last = len(book.commit(SHARD, height).body.runs) - 1

    def later(commit: Commit) -> Commit:
        run = commit.body.runs[-1]
        return body(commit, runs=(*commit.body.runs[:-1], replace(run, events=run.events + 1)))

    book.forge(SHARD, height, later)
    return Found("run_events", height, f"runs[{last}].events")


@mutation(MARKET)
def _a_run_that_ends_a_microsecond_late(book: Book) -> Found:
    def later(commit: Commit) -> Commit:
        run = commit.body.runs[0]
        return body(commit, runs=(replace(run, time_us=run.time_us + 1), *commit.body.runs[1:]))

    book.forge(MARKET, 6, later)
    return Found("time", 6, "runs[0].time_us")


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutation_is_named_by_class_topic_height_offset_and_field(name: str) -> None:
    """The ledger that was tampered with is audited by itself; then the audit of all stops too."""
    seat, mutate = MUTATIONS[name]
    system = reference()
    book = Book(system.network, system.log)
    expected = mutate(book)
    log = book.log()
    with pytest.raises(Diverged) as found:
        list(ledger_audit(system.network, log, *seat).run())
    diverged = found.value
    offset = expected.height if expected.offset is None else expected.offset
    assert (diverged.name, diverged.height, diverged.at, diverged.offset) == (
        expected.name,
        expected.height,
        expected.at,
        offset,
    )
    assert (diverged.ledger, diverged.shard) == seat
    assert diverged.exit_code == EXIT_CODES[expected.name]
    assert f"{LEDGER_TOPICS[seat[0]]}[{seat[1]}]" in str(diverged)
    with pytest.raises(Diverged):
        audit(system.network, log)


def test_the_book_of_an_unchanged_ledger_is_clean() -> None:
    """The forger's tools change nothing by themselves: a re-chained ledger is the same bytes."""
    system = reference()
    book = Book(system.network, system.log)
    for seat in system.network.ledgers():
        before = list(book.ledger(seat))
        book.forge(seat, 1, lambda commit: commit)
        assert book.ledger(seat) == before
    assert audit(system.network, book.log()).state_hash == reference_hash()


def test_a_copy_of_a_commit_at_the_end_is_noise_and_no_fault() -> None:
    """Anyone with the right to write may repeat what was written; it counts once."""
    system = reference()
    book = Book(system.network, system.log)
    book.ledger(MARKET).append(book.ledger(MARKET)[5])
    verdict = audit(system.network, book.log())
    assert verdict.reports[0].noise == 1
    assert verdict.state_hash == reference_hash()


def test_every_class_of_divergence_has_an_exit_code_of_its_own() -> None:
    """Scripts tell faults apart by the code alone; 0 to 9 are left to the shell and the CLI."""
    assert len(set(EXIT_CODES.values())) == len(EXIT_CODES)
    assert all(10 <= code < 126 for code in EXIT_CODES.values())


def test_every_class_that_a_forger_can_cause_is_caused_here() -> None:
    """The table covers all classes but those that need a broken program, L1 or retention."""
    system = reference()
    caused = set()
    for seat, mutate in MUTATIONS.values():
        del seat
        caused.add(mutate(Book(system.network, system.log)).name)
    elsewhere = {
        "damaged",
        "unknown_rules",
        "inputs_deleted",
        "decoded_differs",
        "law_broken",
        "totals",
        "anchor",
    }
    assert caused | elsewhere == set(EXIT_CODES)


def test_the_network_of_the_reference_is_the_one_that_is_forged() -> None:
    """Topic ids are the incarnation's: a copied book is bound to the same ones."""
    system = reference()
    copied = Book(system.network, system.log).log()
    assert network(2).bound_topics(copied) == network(2).bound_topics(system.log)
