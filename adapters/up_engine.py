"""What moves a ledger that runs in one process: the clock's ticks, and every processor's turns.

One thread does it all, so that the log's file has one busy writer and the embedded chain one
owner. Nothing in here is kept: killed at any instant, the next start folds the ledgers again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Final

from adapters.actor import Actor
from adapters.bootstrap import Network, snapshots_by, worker
from adapters.ed25519 import Signer
from adapters.embedded import SystemKeys
from adapters.eventsourcing_index import Depth
from adapters.evm_chain import EvmChain
from adapters.evm_embedded import EmbeddedChain
from adapters.evm_outbox import Outbox
from adapters.evm_sender import EvmSender, FeePolicy
from adapters.l1_position import WatchedTo
from adapters.l1_turns import SenderTurn, WatcherTurn
from adapters.metrics import Metrics
from adapters.roles_clock import Clock, now_us
from adapters.roles_memory import recovering
from adapters.settings import SnapshotSettings
from adapters.sqlite_log import SqliteLog
from adapters.up_folder import Folder
from adapters.worker import Worker
from domain.commit import LEDGER_TOPICS, Ledger
from domain.l1_watcher import Watcher

Turn = Callable[[], bool]

#: How long a round of turns waits for a command: telemetry and the L1 are looked at this often.
_WAIT_S: Final = 0.1


class Engine:
    """Every processor of a network, its clock, watcher and sender, on one log file."""

    def __init__(
        self,
        folder: Folder,
        network: Network,
        keys: SystemKeys,
        log: SqliteLog,
        chain: EmbeddedChain,
        metrics: Metrics,
        snapshots: SnapshotSettings,
        say: Callable[[str], None],
    ) -> None:
        """Put it together; ``log`` is used by the thread of ``run`` alone."""
        self._log = log
        topics = network.bound_topics(log)
        index = folder.path / "index"
        index.mkdir(exist_ok=True)
        signers = {
            Ledger.MARKET: keys.market,
            Ledger.METERING: keys.metering,
            Ledger.SETTLEMENT: keys.settlement,
        }
        self.workers: dict[tuple[Ledger, int], Worker] = {
            (ledger, shard): worker(
                network,
                ledger,
                shard,
                log=log,
                index=index / f"{LEDGER_TOPICS[ledger]}.{shard}.db",
                signer=signers[ledger],
                topics=topics,
                clock_us=now_us,
                figures=metrics.of(ledger, shard),
                snapshots=snapshots_by(
                    snapshots, network, ledger, shard, signer=signers[ledger], say=say
                ),
            )
            for ledger, shard in network.ledgers()
        }

        def actor(signer: Signer) -> Actor:
            return Actor(
                log=log,
                codec=network.codec,
                genesis_hash=network.hash,
                signer=signer,
                session_us=now_us(),
            )

        self._clock = Clock(log, network.shards, actor(keys.clock), now_us)
        self._outbox = Outbox(folder.outbox)
        reader = EvmChain(chain.rpc, chain.config)
        settlements = network.partition(
            Ledger.SETTLEMENT, 0, log=log, index=":memory:", depth=Depth.COMMITS
        )
        sender = EvmSender(chain.rpc, reader, chain.proposer, self._outbox, FeePolicy())

        def told() -> None:
            metrics.outbox.set(self._outbox.waiting())

        market = self.workers[Ledger.MARKET, 0]
        self._turns: Sequence[Turn] = (
            lambda: market.turn(wait_s=_WAIT_S),
            *(each.turn for each in self.workers.values() if each is not market),
            SenderTurn(network.hash, network.codec, settlements, sender, told),
            WatcherTurn(
                Watcher(chain=reader),
                actor(keys.watcher),
                head=lambda: chain.node.head().block_number,
                kept=WatchedTo(folder.path / "watcher.json", log, network.hash, chain.config),
            ),
        )

    def recover(self) -> None:
        """Fold every ledger, before anyone is told that the system is up."""
        with recovering():
            for each in self.workers.values():
                each.recover()

    def run(self, stop: threading.Event) -> None:
        """Take turns until ``stop`` is set; what a turn raises ends it."""
        while not stop.is_set():
            if self._clock.due():
                with self._log.group():
                    self._clock.tick()
            for turn in self._turns:
                turn()
        for each in self.workers.values():
            each.rest()

    def close(self) -> None:
        """Release what was opened here."""
        for each in self.workers.values():
            each.close()
        self._outbox.close()
