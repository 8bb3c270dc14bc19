"""Mutations of what commits say that follows from their inputs."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from domain.bid import BidPlaced
from domain.checkpoint import CheckpointMade
from domain.commit import (
    BODY_VERSION,
    ENVELOPE_BYTES,
    BulkPart,
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
from domain.telemetry import TelemetryAccepted, UsageStated
from tests.audit.forge import Book, Commit, flipped
from tests.audit.mutations import MARKET, NOBODY, SETTLEMENT, SHARD, Found, body, gap, mutation
from tests.system.small import KEYS

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
    return gap(commits[height - 1], commits[height + 1], height)


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
    return gap(before, later, height)


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
