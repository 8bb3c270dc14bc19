"""``synor bench market``: whether a commit of the market costs more as its ledger grows.

A steady market of one instrument: every second a bid, every round leases, the oldest of which are
closed by their buyers, so that as many live as before; beats, statements and refunds go on all the
time. What differs from the first commits to the last is the length of the history alone.
"""

from __future__ import annotations

import gc
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import psutil

from adapters.bench_leases import (
    BUYERS,
    LEASES_A_NODE,
    NANO,
    QUIET,
    SHARDS,
    Story,
    lease_bid,
    make_network,
    node_batch,
    open_story,
    person,
)
from domain.bid import PlaceBids
from domain.commit import Ledger
from domain.genesis import MINUTE_US, SECOND_US
from domain.ids import AccountId, LeaseId, NodeId, account_of, shard_of
from domain.lease import CloseLease, ReadyLeases

NODES: Final = 8
LIVE: Final = 200
PARTS: Final = 10
BEAT_S: Final = 10
#: Before the first part: the market is full, and leases come and go.
WARM_UP_COMMITS: Final = 1_500

#: Statements every minute, and leases that are over ten minutes after their end.
BUSY: Final = replace(
    QUIET,
    beat_us=BEAT_S * SECOND_US,
    grace_us=MINUTE_US,
    grace_max_us=MINUTE_US,
    usage_window_us=MINUTE_US,
    closing_us=10 * MINUTE_US,
)


class _Trade:
    """Who bids, serves, reports and closes, second after second."""

    def __init__(self, story: Story) -> None:
        self._story = story
        self._seconds = 0
        buyers = [story.actor(person(f"buyer {n}"), story.clock()) for n in range(BUYERS)]
        self._buyers = deque(buyers)
        self._buyer_of = {account_of(each.key): each for each in buyers}
        self._provider = story.actor(person("provider"), story.clock())
        self._nodes = {
            node: story.actor(person(f"node {row}"), story.clock())
            for row, node in enumerate(story.nodes)
        }
        self._leases: dict[NodeId, dict[LeaseId, int]] = {node: {} for node in story.nodes}
        self._live: deque[tuple[LeaseId, NodeId, AccountId]] = deque()
        self.market = story.workers[Ledger.MARKET, 0]
        self.market_cpu_s = 0.0

    def second(self) -> None:
        """A second of the market, until every worker is at rest."""
        story, now_us = self._story, self._story.clock()
        self._seconds += 1
        self._buyers.rotate()
        self._buyers[0].command(PlaceBids(bids=(lease_bid(limit_nano=4 * NANO),)))
        opened = list(story.opened())
        if opened:
            self._provider.command(ReadyLeases(leases=tuple(each.lease for each in opened)))
        for each in opened:
            self._leases[each.node][each.lease] = now_us
            self._live.append((each.lease, each.node, each.buyer))
        while len(self._live) > LIVE:
            lease, node, buyer = self._live.popleft()
            self._buyer_of[buyer].command(CloseLease(lease=lease))
            del self._leases[node][lease]
        if self._seconds % BEAT_S == 0:
            for node, actor in self._nodes.items():
                batch = node_batch(node, list(self._leases[node].items()), now_us)
                actor.telemetry(shard_of(node, SHARDS), batch)
        story.tick(SECOND_US)
        moved = True
        while moved:
            moved = False
            for worker in story.workers.values():
                began = time.process_time()
                moved |= worker.turn()
                if worker is self.market:
                    self.market_cpu_s += time.process_time() - began


def bench_market(commits: int, say: Callable[[str], None]) -> dict[str, Any]:
    """CPU of the market's commits, part by part, and the memory after the first and the last."""
    cpu_ms: list[float] = []
    memory_mb: list[float] = []
    with TemporaryDirectory(prefix="synor-bench-") as name:
        folder = Path(name) / "network"
        make_network(folder, port=1, snapshot_events=0, parameters=BUSY)
        story = open_story(folder, say)
        try:
            story.found(NODES * LEASES_A_NODE)
            trade = _Trade(story)
            market = trade.market
            _until(trade, market.commits + min(WARM_UP_COMMITS, commits))
            for part in range(PARTS):
                before, cpu_s = market.commits, trade.market_cpu_s
                _until(trade, before + commits // PARTS)
                spent_s = trade.market_cpu_s - cpu_s
                cpu_ms.append(round(spent_s / (market.commits - before) * 1000, 3))
                gc.collect()
                memory_mb.append(round(psutil.Process().memory_info().rss / 2**20, 1))
                say(f"{market.commits} commits: {cpu_ms[-1]} ms each in part {part + 1}")
            return {
                "commits": market.commits,
                "cpu_ms_per_commit": cpu_ms,
                "cpu_ratio": round(cpu_ms[-1] / cpu_ms[0], 3),
                "memory_mb": [memory_mb[0], memory_mb[-1]],
                "ledger_mb": round((folder / "ledger.db").stat().st_size / 2**20, 1),
            }
        finally:
            story.close()


def _until(trade: _Trade, commits: int) -> None:
    while trade.market.commits < commits:
        trade.second()
