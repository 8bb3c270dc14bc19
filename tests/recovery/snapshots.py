"""Small systems whose workers leave snapshots, and what they can be asked afterwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adapters.audit import hash_of_states
from adapters.bootstrap import audit, verify
from adapters.simulator_parts import TakenAtOnce
from adapters.snapshot_keeper import SnapshotKeeper, SnapshotPolicy
from adapters.worker import Worker
from domain.commit import Ledger, unpack_event
from domain.ids import AggregateId
from domain.market import Market
from domain.metering_states import is_over
from domain.processor import DictStates, Versioned
from tests.system.reading import commits
from tests.system.small import SmallSystem, network, signer_of

#: As often as it can be.
ALWAYS = SnapshotPolicy(events=1, bulk_bytes=1, seconds=0, rest=0)


@dataclass
class Kept:
    """Snapshots of a system's workers in one folder, and what was said of them."""

    folder: Path
    policy: SnapshotPolicy = ALWAYS
    said: list[str] = field(default_factory=list)
    at_once: bool = False

    def of(self, ledger: Ledger, shard: int) -> SnapshotKeeper:
        """The keeper of a worker; ``at_once``: none is missed because one is being written."""
        kind = TakenAtOnce if self.at_once else SnapshotKeeper
        return kind(
            self.folder,
            ledger=ledger,
            shard=shard,
            genesis=network(2).hash,
            signer=signer_of(ledger),
            verify=verify,
            policy=self.policy,
            say=self.said.append,
        )

    def worker(self, system: SmallSystem, ledger: Ledger, shard: int, **more: Any) -> Worker:
        return system.worker(ledger, shard, snapshots=self.of(ledger, shard), **more)

    def files(self) -> list[Path]:
        return sorted(self.folder.glob("*.snapshot"))


def recovered_hash(system: SmallSystem, make: Callable[[Ledger, int], Worker]) -> str:
    """The state hash of what recovered workers hold, and of leases that a shard has forgotten.

    Those have their final statement; what they came to is the auditor's word.
    """
    audited = audit(system.network, system.log).states
    states: dict[tuple[Ledger, int], DictStates] = {}
    market: Market | None = None
    for seat in system.seats:
        worker = make(*seat)
        worker.recover()
        states[seat] = held = DictStates()
        processor = worker.processor
        for aggregate in _aggregates(system, *seat):
            found = processor.unit.state(aggregate)
            if found is None:
                over = audited[seat].all[aggregate]
                assert is_over(over.state)
                held.keep([over])
            else:
                held.keep([Versioned(aggregate, processor.unit.version(aggregate), found)])
        if isinstance(processor, Market):
            market = processor
        worker.close()
    assert market is not None
    return hash_of_states(market, states)


def _aggregates(system: SmallSystem, ledger: Ledger, shard: int) -> dict[AggregateId, None]:
    return dict.fromkeys(
        AggregateId(unpack_event(data).aggregate)
        for body in commits(system.network, system.log, ledger, shard)
        for data in body.events
    )
