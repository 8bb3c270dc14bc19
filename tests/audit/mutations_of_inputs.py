"""Mutations of the log's bytes, and of what commits say that they have read."""

from __future__ import annotations

from dataclasses import replace

from domain.bid import BidPlaced
from domain.commit import (
    COMMANDS_TOPIC,
    ENVELOPE_BYTES,
    LEDGER_TOPICS,
    TELEMETRY_TOPIC,
    GateCount,
    Ledger,
)
from domain.ids import Hash32
from domain.round import RoundCleared
from domain.rules import NEWEST
from domain.telemetry import TelemetryAccepted
from tests.audit.forge import Book, Commit, flipped
from tests.audit.mutations import MARKET, NOBODY, SETTLEMENT, SHARD, Found, body, mutation
from tests.system.reading import Seat

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
