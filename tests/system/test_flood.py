"""A sender who fills steps: commits stay small enough to be read, and the market goes on."""

from __future__ import annotations

from typing import Any

from adapters.bootstrap import create_topics, worker
from adapters.local_topics import LocalTopics
from adapters.memory_log import MemoryLog
from domain.account import OpenAccount, SetPayee
from domain.bid import BidRow, PlaceBids
from domain.commit import COMMANDS_TOPIC, COMMIT_BYTES_MAX, LEDGER_TOPICS, Ledger
from domain.ids import Address, Hash32
from domain.processor import EVENT_BYTES_PER_COMMIT
from domain.refusal import DETAIL_CHARACTERS
from tests.gate_codec.gates import KEYS, NOW, START, Recipe, network

ROWS = 1_000
COMMANDS = 24


def _bids(number: int) -> PlaceBids:
    """Bids for what nobody prices: each is refused, and its resource repeated."""
    row = BidRow(
        resource=f"{number:03d}".ljust(DETAIL_CHARACTERS, "x"),
        region="",
        quantity_milli=0,
        limit_nano=0,
        term_us=0,
        lot_milli=0,
        allocations=(),
        metered=(),
        usage_budget_nano=0,
        reserved=False,
        specification=Hash32(bytes(32)),
    )
    return PlaceBids(bids=(row,) * ROWS)


def test_long_answers_do_not_make_a_commit_that_nobody_can_append() -> None:
    """Free of charge: an account, and orders whose answers exceed a commit together."""
    log = MemoryLog(lambda: NOW)
    create_topics(network(), LocalTopics(log))
    commands: list[Any] = [
        OpenAccount(payee=Address(bytes(20))),
        *map(_bids, range(COMMANDS)),
        SetPayee(payee=Address(b"p" * 20)),
    ]
    for number, payload in enumerate(commands):
        log.append(COMMANDS_TOPIC, 0, Recipe(payload=payload, session=START, number=number).bytes())
    market = worker(
        network(),
        Ledger.MARKET,
        0,
        log=log,
        index=":memory:",
        signer=KEYS.market,
        topics=network().bound_topics(log),
    )
    while market.turn():
        pass
    assert market.position(COMMANDS_TOPIC, 0) == len(commands)
    topic = LEDGER_TOPICS[Ledger.MARKET]
    sizes = [len(r.value) for r in log.read(topic, 0, 0, max_bytes=1 << 30).records]
    assert sum(sizes) > COMMIT_BYTES_MAX
    assert max(sizes) < EVENT_BYTES_PER_COMMIT + 256 * 1024
    market.close()
