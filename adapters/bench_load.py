"""Load for a network that ``bench_leases`` made: beats of its nodes, orders of its buyers.

What nodes report goes on from what they reported when the network was made, so that the load is
accepted and not refused; which leases there are is read from the market's ledger.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from typing import Final

from adapters.actor import Actor, Gathered
from adapters.bench_leases import BUYERS, NANO, SHARDS, lease_bid, node_batch, person
from adapters.bootstrap import Network
from adapters.roles_clock import now_us
from adapters.sqlite_log import SqliteLog
from domain.bid import PlaceBids
from domain.commit import LEDGER_TOPICS, Ledger, unpack_event
from domain.commit_bodies import commit_bodies
from domain.ids import LeaseId, NodeId, shard_of
from domain.lease import LeaseReady

_EVERY_S: Final = 0.2
#: One order for so many readings.
READINGS_AN_ORDER: Final = 100


class Load:
    """Who pours in beats and orders, each round of it in one append a partition."""

    def __init__(self, network: Network, log: SqliteLog, nodes: list[NodeId]) -> None:
        """Read who has which lease."""
        self._log = log
        self._inputs = Gathered(log)
        session_us = now_us()
        made = {
            name: Actor(
                log=self._inputs,
                codec=network.codec,
                genesis_hash=network.hash,
                signer=person(name),
                session_us=session_us,
            )
            for name in (
                *(f"node {row}" for row in range(len(nodes))),
                *(f"buyer {n}" for n in range(BUYERS)),
            )
        }
        self._leases: dict[NodeId, list[tuple[LeaseId, int]]] = {node: [] for node in nodes}
        for ready in _ready(network, log):
            self._leases[ready.node].append((ready.lease, ready.at_us))
        self._nodes = deque((node, made[f"node {row}"]) for row, node in enumerate(nodes))
        self._buyers = deque(made[f"buyer {n}"] for n in range(BUYERS))

    def run(self, seconds: float, readings_s: int) -> int:
        """Pour for so long at so many readings a second, orders with them; how many readings."""
        began = time.monotonic()
        poured = 0
        while (since := time.monotonic() - began) < seconds:
            owed = int((since + _EVERY_S) * readings_s) - poured
            orders = owed // READINGS_AN_ORDER
            while owed > 0:
                rows = self._beat()
                poured += rows
                owed -= rows
            if orders:
                self._buyers.rotate()
                # Below what anyone asks: the book grows, and no round is wanted.
                bid = lease_bid(limit_nano=2 * NANO)
                self._buyers[0].command(PlaceBids(bids=(bid,) * orders))
            with self._log.group():
                self._inputs.flush()
            time.sleep(max(0.0, began + since + _EVERY_S - time.monotonic()))
        return poured

    def _beat(self) -> int:
        self._nodes.rotate()
        node, actor = self._nodes[0]
        leases = self._leases[node]
        actor.telemetry(shard_of(node, SHARDS), node_batch(node, leases, now_us()))
        return max(len(leases), 1)


def _ready(network: Network, log: SqliteLog) -> Iterator[LeaseReady]:
    codec = network.codec
    number = codec.number(LeaseReady)
    for _, body in commit_bodies(log, codec, LEDGER_TOPICS[Ledger.MARKET], 0, 0):
        for event in map(unpack_event, body.events):
            if event.schema == number:
                yield codec.decode(LeaseReady, event.payload)
