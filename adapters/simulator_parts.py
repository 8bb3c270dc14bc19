"""The actors of a simulation: production's workers, projectors, sender and watcher, as processes.

Each of them may die at any step. What it held in memory is gone then; its index file, its rows and
its outbox are what it finds when it is started again.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Protocol

from sqlalchemy import Connection, Table, event, select

from adapters.avro_codec import AvroCodec
from adapters.bootstrap import Network, verify, worker
from adapters.embedded import SystemKeys, derived_signer, genesis_of
from adapters.eventsourcing_index import Depth
from adapters.evm_outbox import Outbox
from adapters.evm_sender import EvmSender, FeePolicy
from adapters.l1_turns import SenderTurn, WatcherTurn
from adapters.projector import Projector
from adapters.read_model import ReadModel
from adapters.read_model_catalogue import WRITE
from adapters.read_model_generation import Generation
from adapters.simulator_faults import (
    Crash,
    Fault,
    Faults,
    FaultyLog,
    FaultyOutbox,
    PausedRows,
)
from adapters.simulator_l1 import CHAIN_ID, VAULT, SimulatedL1, SimulatedRpc
from adapters.simulator_laws import Laws, Seat
from adapters.snapshot_keeper import SnapshotKeeper, SnapshotPolicy
from adapters.worker import Worker
from domain.commit import Ledger
from domain.genesis import DAY_US, HOUR_US, MINUTE_US, Parameters, TimeSource
from domain.l1_watcher import Watcher
from domain.processor import Asleep, Processor, Unit, Versioned, full
from projections.fold import fold
from projections.fold_rows import Key, Row, Rows, primary
from projections.following import (
    Overtaken,
    Position,
    ProjectedCommit,
    RowStore,
    application_name,
    unfollowed,
)

SEED: Final = b"synor simulator"
KEYS: Final = SystemKeys.derived(SEED)
WRITERS: Final = {
    Ledger.MARKET: KEYS.market,
    Ledger.METERING: KEYS.metering,
    Ledger.SETTLEMENT: KEYS.settlement,
}
#: Who may write a ledger after the key of the genesis, and whoever comes after that.
SUCCESSORS: Final = {
    ledger: tuple(derived_signer(SEED, f"{ledger.name} writer {number}") for number in range(3))
    for ledger in Ledger
}
START_US: Final = 1_767_225_600_000_000
PARAMETERS: Final = Parameters(
    beat_us=30 * MINUTE_US,
    grace_us=30 * MINUTE_US,
    grace_max_us=30 * MINUTE_US,
    usage_window_us=HOUR_US,
    round_us=10 * MINUTE_US,
    ready_within_us=3 * HOUR_US,
    closing_us=HOUR_US,
    node_down_us=2 * HOUR_US,
    idle_us=HOUR_US,
    sla_window_us=4 * HOUR_US,
    epoch_us=3 * HOUR_US,
    maturity_us=2 * HOUR_US,
    pot_us=HOUR_US,
    dispute_us=HOUR_US,
    evidence_age_us=DAY_US,
    unbonding_us=2 * DAY_US,
)


@lru_cache(maxsize=1)
def _codec() -> AvroCodec:
    """One for all networks of a process: deriving the schemas takes a moment."""
    return AvroCodec()


@lru_cache(maxsize=16)
def network_of(shards: int, source: TimeSource, rules_version: int) -> Network:
    """The network of all seeds with P shards, one source of time and one version to begin with."""
    genesis = genesis_of(
        KEYS,
        name=f"simulated-{source.value.lower()}",
        start_us=START_US,
        time_source=source,
        parameters=PARAMETERS,
        chain_id=CHAIN_ID,
        vault=VAULT,
        rules_version=rules_version,
    )
    return Network.of(genesis, shards, _codec())


class Tables(RowStore, Protocol):
    """Where a projector keeps its rows; what a restarted one finds is what was committed."""

    def contents(self, table: Table) -> dict[Key, Row]:
        """Every row of a table."""
        ...

    def close(self) -> None:
        """Let go of it, without losing what was committed."""
        ...


class TablesInMemory:
    """Rows and positions of a run in memory, by compare-and-set, as the SQL ones are."""

    def __init__(self, faults: Faults) -> None:
        """Start with no row."""
        self._faults = faults
        self._rows = Rows()
        self._positions: dict[str, Position] = {}

    def position(self, application: str) -> Position:
        """See ``RowStore``."""
        return self._positions.get(application) or unfollowed(application)

    def apply(self, before: Position, after: Position, commits: Sequence[ProjectedCommit]) -> None:
        """See ``RowStore``."""
        now = self.position(before.application)
        if (now.height, now.hash, now.next_offset) != (
            before.height,
            before.hash,
            before.next_offset,
        ):
            raise Overtaken(f"{before.application} is no longer at height {before.height}")
        if self._faults.strikes(Fault.PROJECTOR_DIES_BEFORE_COMMIT):
            raise Crash
        for each in commits:
            for at, recorded, said in each.events:
                fold(self._rows, at, recorded, said)
        self._positions[before.application] = after

    def contents(self, table: Table) -> dict[Key, Row]:
        """Every row of a table."""
        return self._rows.contents(table)

    def close(self) -> None:
        """Nothing: it is what the disk would hold."""


class TablesInSql:
    """The read model that production has, on SQLite; the connection dies with its process."""

    def __init__(self, model: ReadModel, faults: Faults) -> None:
        """Let the process die where a batch is written and its transaction is not committed."""
        self._model = model
        serving = model.catalogue.serving()
        assert serving is not None, "the read model was prepared"
        engine = model.catalogue.open(serving.number)
        self._generation = Generation(engine)

        @event.listens_for(engine, "commit")
        def _commit(connection: Connection) -> None:
            if connection.get_execution_options().get(WRITE) and faults.strikes(
                Fault.PROJECTOR_DIES_BEFORE_COMMIT
            ):
                raise Crash

    def position(self, application: str) -> Position:
        """See ``RowStore``."""
        return self._generation.position(application)

    def apply(self, before: Position, after: Position, commits: Sequence[ProjectedCommit]) -> None:
        """See ``RowStore``."""
        self._generation.apply(before, after, commits)

    def contents(self, table: Table) -> dict[Key, Row]:
        """Every row of a table."""
        names = primary(table)
        with self._generation.reading() as connection:
            return {
                tuple(row[name] for name in names): dict(row)
                for row in connection.execute(select(table)).mappings()
            }

    def close(self) -> None:
        """Close every connection."""
        self._generation.close()
        self._model.close()


@dataclass(frozen=True, slots=True)
class Parts:
    """What a simulation is put together from; tests plant their bugs here."""

    worker: Callable[..., Worker] = worker
    read_model: Callable[[str], ReadModel] = ReadModel
    tables: Callable[[Faults], Tables] = TablesInMemory
    outbox: Callable[[Faults], Outbox] = FaultyOutbox


class Process(Protocol):
    """Something that takes turns and may die."""

    name: str

    def turn(self) -> bool:
        """One turn; true if it did anything."""
        ...

    def die(self) -> None:
        """Lose what is in memory; the next turn starts anew."""
        ...


@dataclass(slots=True)
class Around:
    """What every process of a run has around it."""

    network: Network
    faults: Faults
    laws: Laws
    parts: Parts
    folder: Path
    now_us: Callable[[], int]
    connect: Callable[[], FaultyLog]
    pause: Callable[[], None]


class TakenAtOnce(SnapshotKeeper):
    """Snapshots that are written before anything else happens: a run must not depend on threads."""

    def take(
        self,
        processor: Processor,
        where: Mapping[str, Any],
        states: Sequence[Versioned],
        asleep: Asleep | None,
    ) -> None:
        """Take it, and wait until it is written."""
        super().take(processor, where, states, asleep)
        self.close()


class WorkerProcess:
    """A worker of one ledger."""

    def __init__(self, around: Around, seat: Seat, number: int, *, on_disk: bool) -> None:
        """``number`` tells it from its rivals; ``on_disk`` keeps its index over its deaths."""
        self.seat = seat
        self.name = f"{seat[0].name.lower()}-{seat[1]}" + (f"-rival{number}" if number else "")
        self._around = around
        self._on_disk = on_disk
        self._worker: Worker | None = None
        self._at: list[int] = []

    @property
    def index(self) -> str:
        """Where its index is."""
        return str(self._around.folder / f"{self.name}.db") if self._on_disk else ":memory:"

    def turn(self) -> bool:
        """The worker's own turn; what it read and did not commit is a move too."""
        worker = self.running()
        moved = worker.turn()
        at = [worker.position(s.topic, s.partition) for s in worker.processor.sources()]
        moved |= at != self._at
        self._at = at
        return moved

    def running(self) -> Worker:
        """The worker, started if it is not running."""
        if self._worker is None:
            around = self._around
            log = around.connect()
            broker = around.network.genesis.time_source is TimeSource.BROKER
            self._worker = around.parts.worker(
                around.network,
                *self.seat,
                log=log,
                index=self.index,
                signer=WRITERS[self.seat[0]],
                successors=SUCCESSORS[self.seat[0]],
                topics=around.network.bound_topics(log),
                clock_us=around.now_us if broker else None,
                cut=self._cut,
                snapshots=self._snapshots() if self._on_disk else None,
            )
        return self._worker

    def _snapshots(self) -> SnapshotKeeper:
        return TakenAtOnce(
            self._around.folder / f"{self.name}.snapshots",
            ledger=self.seat[0],
            shard=self.seat[1],
            genesis=self._around.network.hash,
            signer=WRITERS[self.seat[0]],
            successors=SUCCESSORS[self.seat[0]],
            verify=verify,
            policy=SnapshotPolicy(events=40, seconds=10**9, rest=0),
            say=lambda text: None,
        )

    def _cut(self, unit: Unit) -> bool:
        return full(unit) or (bool(unit.events) and self._around.faults.strikes(Fault.CUT_STEP))

    def die(self) -> None:
        """Lose the worker, and sometimes its index or its snapshots too."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None
        if not self._on_disk:
            return
        faults, folder = self._around.faults, self._around.folder
        if faults.strikes(Fault.INDEX_DROPPED):
            for suffix in ("", "-wal", "-shm"):
                Path(self.index + suffix).unlink(missing_ok=True)
        if faults.strikes(Fault.SNAPSHOTS_DROPPED):
            shutil.rmtree(folder / f"{self.name}.snapshots", ignore_errors=True)


class ProjectorProcess:
    """A projector with tables that others may write too."""

    def __init__(self, around: Around, number: int, tables: Callable[[], Tables]) -> None:
        """``tables`` opens what was committed; all projectors of a run fill the same."""
        self.name = f"projector-{number}"
        self._around = around
        self._open = tables
        self._tables: Tables | None = None
        self._projector: Projector | None = None

    @property
    def tables(self) -> Tables:
        """The tables, opened if they are not."""
        if self._tables is None:
            self._tables = self._open()
        return self._tables

    def turn(self) -> bool:
        """The projector's own turn; then its positions are compared with the ledgers."""
        if self._projector is None:
            around = self._around
            self._projector = Projector(
                log=around.connect(),
                target=PausedRows(self.tables, around.faults, around.pause),
                codec=around.network.codec,
                verify=verify,
                genesis=around.network.genesis,
                genesis_hash=around.network.hash,
                shards=around.network.shards,
                now_s=lambda: around.now_us() / 1_000_000,
            )
        moved = self._projector.turn()
        if moved:
            self.check()
        return moved

    def check(self) -> None:
        """Whether the rows' positions are where the laws allow."""
        self._around.laws.look()
        for seat in self._around.network.ledgers():
            position = self.tables.position(application_name(*seat))
            self._around.laws.check_position(self.name, seat, position)

    def die(self) -> None:
        """Lose the connection."""
        if self._tables is not None:
            self._tables.close()
        self._tables = self._projector = None


class SenderProcess:
    """The sender of checkpoints; its outbox outlives it."""

    name = "sender"

    def __init__(self, around: Around, chain: SimulatedL1) -> None:
        """One sender for the proposer's key."""
        self._around = around
        self._chain = chain
        self._turn: SenderTurn | None = None
        self.outbox = around.parts.outbox(around.faults)

    def turn(self) -> bool:
        """The sender's own turn."""
        if self._turn is None:
            network, chain = self._around.network, self._chain
            rpc = SimulatedRpc(chain, self._around.faults)
            sender = EvmSender(rpc, chain, chain.signer, self.outbox, FeePolicy())
            settlements = network.partition(
                Ledger.SETTLEMENT,
                0,
                log=self._around.connect(),
                index=":memory:",
                depth=Depth.COMMITS,
            )
            self._turn = SenderTurn(network.hash, network.codec, settlements, sender)
        return self._turn()

    def signed(self) -> set[bytes]:
        """Every byte string that the outbox knows to be signed."""
        found: set[bytes] = set()
        for epoch, nonces in self._chain.nonces.items():
            checkpoint = self._around.laws.checkpoints.get(epoch)
            for nonce in nonces:
                if checkpoint is not None:
                    kept = self.outbox.attempts(checkpoint, nonce)  # type: ignore[arg-type]
                    found.update(attempt.raw for attempt in kept)
        return found

    def die(self) -> None:
        """Lose all but the outbox."""
        self._turn = None


class WatcherProcess:
    """The watcher of the vault; each start is a new session of its key."""

    name = "watcher"

    def __init__(self, around: Around, chain: SimulatedL1, actor: Callable[[int], Any]) -> None:
        """``actor`` makes its signer for a session."""
        self._around = around
        self._chain = chain
        self._actor = actor
        self._session_us = START_US - 1
        self._turn: WatcherTurn | None = None

    def turn(self) -> bool:
        """The watcher's own turn."""
        if self._turn is None:
            self._session_us = max(self._session_us + 1, self._around.now_us())
            self._turn = WatcherTurn(
                Watcher(chain=self._chain, blocks_per_step=4),
                self._actor(self._session_us),
                head=lambda: self._chain.head().number,
            )
        return self._turn()

    def die(self) -> None:
        """Lose the position: everything is observed again."""
        self._turn = None
