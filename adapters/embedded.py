"""The embedded system: every processor, the L1 and its watcher and sender in one process.

The same processors as the distributed workers, on any log; here they take turns.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from adapters.actor import Actor, Gathered, Inputs
from adapters.bootstrap import Network, worker
from adapters.ed25519 import Signer
from adapters.eventsourcing_index import Depth
from adapters.evm_chain import EvmChain
from adapters.evm_embedded import EmbeddedChain
from adapters.evm_outbox import Outbox
from adapters.evm_sender import EvmSender, FeePolicy
from adapters.l1_turns import SenderTurn, WatcherTurn
from adapters.logical_time import LogicalTime, Turn
from adapters.worker import Worker
from domain.catalogue import VERSION_1, PriceRow
from domain.commit import LEDGER_TOPICS, Ledger
from domain.genesis import Genesis, GenesisKey, Parameters, Role, TimeSource
from domain.ids import Address
from domain.l1_watcher import Watcher
from domain.ports import Log
from domain.rules import NEWEST

NO_VAULT = Address(bytes(20))


@dataclass(frozen=True, slots=True)
class SystemKeys:
    """The keys that the operator of a system holds."""

    market: Signer
    metering: Signer
    settlement: Signer
    clock: Signer
    watcher: Signer
    operator: Signer
    attestor: Signer

    @classmethod
    def derived(cls, seed: bytes) -> SystemKeys:
        """Keys from one seed, for demos, replays and tests; a seed is as secret as its keys."""
        return cls(*(derived_signer(seed, name) for name in cls.__slots__))


def derived_signer(seed: bytes, name: str) -> Signer:
    """A key by name from a seed."""
    return Signer(hashlib.sha256(b"synor-dev-key" + seed + name.encode()).digest())


def genesis_of(
    keys: SystemKeys,
    *,
    name: str,
    start_us: int,
    time_source: TimeSource,
    parameters: Parameters,
    chain_id: int = 0,
    vault: Address = NO_VAULT,
    catalogue: tuple[PriceRow, ...] = VERSION_1,
    nonce: int = 0,
    rules_version: int = NEWEST,
) -> Genesis:
    """The genesis of a system with these keys."""
    return Genesis(
        network=name,
        nonce=nonce,
        start_us=start_us,
        time_source=time_source,
        rules_version=rules_version,
        market_writer=keys.market.public,
        metering_writer=keys.metering.public,
        settlement_writer=keys.settlement.public,
        keys=(
            GenesisKey(key=keys.clock.public, role=Role.CLOCK),
            GenesisKey(key=keys.watcher.public, role=Role.WATCHER),
            GenesisKey(key=keys.operator.public, role=Role.OPERATOR),
            GenesisKey(key=keys.attestor.public, role=Role.ATTESTOR),
        ),
        chain_id=chain_id,
        vault=vault,
        parameters=parameters,
        catalogue=catalogue,
    )


class Embedded:
    """A system in one process on one log."""

    def __init__(
        self,
        network: Network,
        keys: SystemKeys,
        log: Log,
        *,
        folder: Path | None,
        chain: EmbeddedChain | None = None,
        extra_turns: Sequence[Turn] = (),
        clock_us: Callable[[], int] | None = None,
        group: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """Put the system together; ``folder`` None keeps its indexes in memory.

        ``clock_us`` is given where time is the broker's. ``extra_turns`` (read models) come last.
        """
        self.network = network
        self.keys = keys
        self.log = log
        self.inputs = Gathered(log)
        topics = network.bound_topics(log)
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
                index=_index(folder, ledger, shard),
                signer=signers[ledger],
                topics=topics,
                clock_us=clock_us,
            )
            for ledger, shard in network.ledgers()
        }
        self.turns: list[Turn] = [w.turn for w in self.workers.values()]
        self.chain = chain
        self._outbox: Outbox | None = None
        if chain is not None:
            self._outbox = Outbox(None if folder is None else folder / "outbox.db")
            reader = EvmChain(chain.rpc, chain.config)
            sender = EvmSender(chain.rpc, reader, chain.proposer, self._outbox, FeePolicy())
            settlements = network.partition(
                Ledger.SETTLEMENT, 0, log=log, index=":memory:", depth=Depth.COMMITS
            )
            self.turns.append(SenderTurn(network.hash, network.codec, settlements, sender))
            self.turns.append(
                WatcherTurn(
                    Watcher(chain=reader),
                    self.actor(keys.watcher, network.genesis.start_us, log),
                    head=lambda: chain.node.head().block_number,
                )
            )
        self.turns.extend(extra_turns)
        self.time = LogicalTime(
            inputs=self.inputs,
            shards=network.shards,
            clock=self.actor(keys.clock, network.genesis.start_us),
            workers=list(self.workers.values()),
            turns=self.turns,
            start_us=network.genesis.start_us,
            idle_us=network.genesis.parameters.idle_us,
            group=group,
        )

    def actor(self, signer: Signer, session_us: int, inputs: Inputs | None = None) -> Actor:
        """A signer of this network whose inputs go out with the instant's, or straight to a log."""
        return Actor(
            log=inputs or self.inputs,
            codec=self.network.codec,
            genesis_hash=self.network.hash,
            signer=signer,
            session_us=session_us,
        )

    def close(self) -> None:
        """Release what was opened here; the log and the chain belong to the caller."""
        for each in self.workers.values():
            each.close()
        if self._outbox is not None:
            self._outbox.close()


def _index(folder: Path | None, ledger: Ledger, shard: int) -> str | Path:
    if folder is None:
        return ":memory:"
    (folder / "index").mkdir(exist_ok=True)
    return folder / "index" / f"{LEDGER_TOPICS[ledger]}.{shard}.db"
