"""The whole small system as a process that is killed at a chosen step, as often as it is told.

`python -m tests.support.killed_system PLAN`: PLAN is a pickled ``Plan``. It says `ready`; each line
`STEP NTH` on its input starts the system anew, in a child of its own, which kills itself with
SIGKILL at the NTH time that it comes to STEP, and tells `killed`; without a step it runs to the end
of the inputs, and tells `ended`. The parts are those of production: workers with their indexes and
snapshots in files, the projector with its rows, the sender with its outbox and a real L1. Only the
log, the rows and the provider of the L1 are wrapped, by what counts steps and kills.

One process prepares what is slow to import and forks: a start then takes milliseconds.
"""

from __future__ import annotations

import os
import pickle
import random
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from web3.providers import BaseProvider
from web3.types import RPCEndpoint, RPCResponse

from adapters.bootstrap import Network, snapshots_of, worker
from adapters.ed25519 import sign_input
from adapters.eventsourcing_index import Depth
from adapters.evm_chain import EvmChain
from adapters.evm_keys import dev_key
from adapters.evm_outbox import Outbox
from adapters.evm_rpc import Rpc, http_provider
from adapters.evm_sender import EvmSender, FeePolicy
from adapters.kafka_log import KafkaLog
from adapters.l1_turns import SenderTurn
from adapters.read_model import ReadModel
from adapters.roles_follow import projector_of
from adapters.snapshot_keeper import SnapshotPolicy
from domain.checkpoint import CheckpointMade
from domain.commit import COMMANDS_TOPIC, TELEMETRY_TOPIC, Ledger
from domain.epoch import ObserveCheckpoint
from domain.l1 import L1Config
from domain.ports import Fetched, Log
from projections.following import Position, ProjectedCommit
from tests.system.reading import events
from tests.system.small import KEYS, SEED, network, signer_of

CONSUME: Final = "consume"
DECIDE: Final = "decide"
APPEND: Final = "append"
ACKNOWLEDGE: Final = "acknowledge"
PROJECT: Final = "project"
ANCHOR: Final = "anchor"
STEPS: Final = (CONSUME, DECIDE, APPEND, ACKNOWLEDGE, PROJECT, ANCHOR)

PROPOSER: Final = dev_key(SEED, "proposer")
Place = tuple[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """The watcher's input about a checkpoint, whose hash this run's ledger has yet to make."""

    observation: ObserveCheckpoint
    session_us: int
    number: int

    def wire(self, made: Sequence[CheckpointMade]) -> bytes:
        """The input, signed, with the checkpoint as it was made here."""
        system = network()
        of_epoch = next(each for each in made if each.epoch == self.observation.epoch)
        payload = replace(self.observation, checkpoint=of_epoch.checkpoint)
        wire, _ = sign_input(
            system.codec, KEYS.watcher, system.hash, payload, self.session_us, self.number
        )
        return wire


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the system runs on; ``instants`` are the inputs of each instant, by partition."""

    bootstrap: str
    folder: Path
    seed: int
    instants: Sequence[Mapping[Place, Sequence[bytes | Observed]]]
    url: str
    config: L1Config


class Death:
    """Kills this process at the nth time that it comes to a step."""

    def __init__(self, step: str, nth: int, chance: random.Random) -> None:
        self.step = step
        self.left = nth
        self.chance = chance

    def due(self, step: str) -> bool:
        """Whether this is the time."""
        if step != self.step:
            return False
        self.left -= 1
        return self.left == 0

    def at(self, step: str) -> None:
        """Come to a step; does not return from the last one."""
        if self.due(step):
            die()


def die() -> None:
    """Nothing is closed, flushed or said."""
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


class DeadlyLog:
    """A worker's log: it may die when it has read inputs, and before, in and after an append."""

    def __init__(self, log: Log, death: Death) -> None:
        self._log = log
        self._death = death

    def read(self, topic: str, partition: int, offset: int, **how: Any) -> Fetched:
        fetched = self._log.read(topic, partition, offset, **how)
        if fetched.records and topic in (COMMANDS_TOPIC, TELEMETRY_TOPIC):
            self._death.at(CONSUME)
        return fetched

    def append(self, topic: str, partition: int, value: bytes) -> int:
        self._death.at(DECIDE)
        if self._death.due(APPEND):
            # While the record is on its way, or the broker has it, or its answer is coming.
            threading.Timer(self._death.chance.uniform(0.0, 0.003), die).start()
            self._log.append(topic, partition, value)
            time.sleep(60)
        offset = self._log.append(topic, partition, value)
        self._death.at(ACKNOWLEDGE)
        return offset

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


class DeadlyRows(ReadModel):
    """A read model that may die before or after the transaction of a batch."""

    death: Death

    def apply(self, before: Position, after: Position, commits: Sequence[ProjectedCommit]) -> None:
        now = self.death.due(PROJECT)
        if now and self.death.chance.random() < 0.5:
            die()
        super().apply(before, after, commits)
        if now:
            die()


class DeadlyProvider(BaseProvider):
    """A provider that may die before or after the node has a transaction."""

    def __init__(self, inner: BaseProvider, death: Death) -> None:
        super().__init__()
        self._inner = inner
        self._death = death

    def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        now = method == "eth_sendRawTransaction" and self._death.due(ANCHOR)
        if now and self._death.chance.random() < 0.5:
            die()
        answer = self._inner.make_request(method, params)
        if now:
            die()
        return answer


def run(plan: Plan, death: Death) -> None:
    """Give the system the inputs that are not on the log yet, an instant at a time."""
    system = network()
    with ExitStack() as stack:
        log = stack.enter_context(closing(KafkaLog(plan.bootstrap, client_id="killed")))
        deadly: Any = DeadlyLog(log, death)
        bound = system.bound_topics(log)
        turns: list[Callable[[], bool]] = []
        for ledger, shard in system.ledgers():
            made = worker(
                system,
                ledger,
                shard,
                log=deadly,
                index=plan.folder / f"{ledger.name}{shard}.db",
                signer=signer_of(ledger),
                topics=bound,
                snapshots=snapshots_of(
                    system,
                    ledger,
                    shard,
                    folder=plan.folder / "snapshots",
                    signer=signer_of(ledger),
                    policy=SnapshotPolicy(events=20, seconds=1, rest=0),
                    say=lambda _: None,
                ),
            )
            stack.callback(made.close)
            turns.append(made.turn)
        rows = stack.enter_context(closing(DeadlyRows(f"sqlite:///{plan.folder / 'rows.db'}")))
        rows.death = death
        rows.prepare(system.hash)
        turns.append(projector_of(system, log, rows).turn)
        turns.append(_sender(plan, system, log, death, stack))
        _live(plan, log, turns)


def _sender(plan: Plan, system: Network, log: Log, death: Death, stack: ExitStack) -> SenderTurn:
    rpc = Rpc(DeadlyProvider(http_provider(plan.url), death))
    outbox = stack.enter_context(closing(Outbox(plan.folder / "outbox.db")))
    settlements = system.partition(
        Ledger.SETTLEMENT, 0, log=log, index=":memory:", depth=Depth.COMMITS
    )
    sender = EvmSender(rpc, EvmChain(rpc, plan.config), PROPOSER, outbox, FeePolicy())
    return SenderTurn(system.hash, system.codec, settlements, sender)


def _live(plan: Plan, log: Log, turns: Sequence[Any]) -> None:
    """As `LogicalTime` does: the next instant comes when a whole round appended nothing."""
    there = {
        (topic, partition): log.end(topic, partition)
        for topic in (COMMANDS_TOPIC, TELEMETRY_TOPIC)
        for partition in range(network().topics()[topic])
    }
    before = dict.fromkeys(there, 0)
    # What was killed in the middle of an instant comes to rest before the next one begins.
    _settle(turns)
    for instant in plan.instants:
        grown = False
        for place, values in instant.items():
            known = min(max(there[place] - before[place], 0), len(values))
            before[place] += len(values)
            if known < len(values):
                log.append_many(*place, [_wire(log, each) for each in values[known:]])
                grown = True
        if grown:
            _settle(turns)


def _wire(log: Log, value: bytes | Observed) -> bytes:
    if isinstance(value, bytes):
        return value
    found = events(network(), log, Ledger.SETTLEMENT)
    return value.wire([event for event in found if isinstance(event, CheckpointMade)])


def _settle(turns: Sequence[Any]) -> None:
    while True:
        # Every turn is taken, also after one that appended.
        moved = [turn() for turn in turns]
        if not any(moved):
            return


def _child(plan: Plan, order: Sequence[str], start: int) -> int:
    """Run in a child; what it ended with."""
    pid = os.fork()
    if pid == 0:
        step, nth = (order[0], int(order[1])) if order else ("", 0)
        code = 1
        try:
            run(plan, Death(step, nth, random.Random(plan.seed * 1_000 + start)))
            code = 0
        finally:
            if code:
                traceback.print_exc()
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def main() -> None:
    """Start children as the lines say."""
    # The test that started this process has written it.
    plan: Plan = pickle.loads(Path(sys.argv[1]).read_bytes())  # noqa: S301
    network()
    print("ready", flush=True)
    said = {-signal.SIGKILL: "killed", 0: "ended"}
    for start, line in enumerate(sys.stdin):
        code = _child(plan, line.split(), start)
        print(said.get(code, f"failed {code}"), flush=True)


if __name__ == "__main__":
    main()
