"""The simulator: a whole market in one process, in virtual time, with everything going wrong.

A seed draws a scenario and a schedule: who lives there, which process takes the next turn, which of
its calls fails and how. Nothing else decides anything, so a seed is a run, and a run that fails is
repeated by its seed. The processes are production's own; the log is the one in memory, the L1 one
of plain values.
"""

from __future__ import annotations

import hashlib
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from adapters.actor import Actor, Inputs
from adapters.bootstrap import create_topics
from adapters.ed25519 import Signer
from adapters.local_topics import LocalTopics
from adapters.memory_log import MemoryLog
from adapters.simulator_cast import Cast
from adapters.simulator_checker import Anomaly, check, counts
from adapters.simulator_end import audited, check_rows, check_same_state, folded
from adapters.simulator_faults import Crash, Fault, Faults, FaultyLog
from adapters.simulator_history import History
from adapters.simulator_l1 import SimulatedL1
from adapters.simulator_laws import Laws, Violation
from adapters.simulator_mail import Mail, Reader
from adapters.simulator_parts import (
    KEYS,
    SEED,
    START_US,
    SUCCESSORS,
    Around,
    Parts,
    Process,
    ProjectorProcess,
    SenderProcess,
    Tables,
    TablesInSql,
    WatcherProcess,
    WorkerProcess,
    network_of,
)
from domain.commit import COMMANDS_TOPIC, LEDGER_TOPICS, TELEMETRY_TOPIC, Ledger
from domain.genesis import MINUTE_US, TimeSource
from domain.l1 import L1Error
from domain.ledger import Tick
from domain.ports import LogError
from domain.rules import RULES

#: Turns of a run with faults; the end without faults comes on top.
STEPS: Final = (100, 360)
_ROUNDS_MAX: Final = 500
_MUTED_AFTER: Final = 30
_LAST_TICKS: Final = 12
#: A checkpoint is sent when the one before is final: so many blocks, with room.
_TICKS_TO_ANCHOR: Final = 6
_REPEATED_ONE_IN: Final = 3
_WHOLE: Final = 1 << 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What came of one seed."""

    seed: int
    steps: int
    ticks: int
    shards: int
    time_source: str
    commits: int
    events: int
    noise: int
    operations: int
    faults: Mapping[Fault, int]
    #: How often each kind of event was recorded.
    kinds: Mapping[str, int]
    #: SHA-256 over everything that happened, in order.
    trace: str
    state_hash: str = ""
    law: str | None = None
    why: str | None = None
    anomalies: tuple[Anomaly, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether a law did not hold."""
        return self.law is not None

    def damage(self) -> tuple[int, int, int]:
        """Events lost and doubled, heights forked, as the checker counted them."""
        return counts(list(self.anomalies))


def simulate(
    seed: int,
    *,
    steps: int | None = None,
    parts: Parts | None = None,
    only: list[Fault] | None = None,
    say: Callable[[str], None] | None = None,
) -> Run:
    """One run. ``say`` is told every step; ``parts`` is where tests plant their bugs."""
    with tempfile.TemporaryDirectory(prefix="synor-simulate-") as folder:
        run = Simulation(
            seed, Path(folder), steps=steps, parts=parts or Parts(), only=only, say=say
        )
        try:
            return run.run()
        finally:
            run.close()


@dataclass(slots=True)
class _Trace:
    """Everything that happened, as a digest and, when asked for, as lines."""

    say: Callable[[str], None] | None
    digest: Any = field(default_factory=hashlib.sha256)

    def add(self, line: str) -> None:
        self.digest.update(line.encode() + b"\n")
        if self.say is not None:
            self.say(line)


class Simulation:
    """One seed's run."""

    def __init__(
        self,
        seed: int,
        folder: Path,
        *,
        steps: int | None,
        parts: Parts,
        only: list[Fault] | None,
        say: Callable[[str], None] | None,
    ) -> None:
        """Draw the scenario; nothing runs yet."""
        self.seed = seed
        self._rng = rng = random.Random(seed)
        self.shards = rng.randrange(1, 4)
        self.source = rng.choice((TimeSource.LOGICAL, TimeSource.BROKER))
        #: Whether the end is compared with workers that nothing disturbs.
        self._repeated = self.source is TimeSource.LOGICAL and not seed % _REPEATED_ONE_IN
        self._steps = rng.randrange(*STEPS) if steps is None else steps
        self._trace = _Trace(say)
        self.now_us = START_US
        self.ticks = 0
        self.step = 0
        self._activity = 0
        self._busy: list[str] = []
        self._idle: dict[str, tuple[int, bytes]] = {}
        self._later: list[tuple[int, str, int, bytes]] = []
        self._instants: list[bytes] = []
        #: What was deleted of telemetry, for the run that nothing disturbs.
        self._deleted: dict[tuple[str, int], list[bytes]] = {}
        self._next_act_us = START_US
        rules_version = rng.choice(sorted(RULES))
        self.network = network = network_of(self.shards, self.source, rules_version)
        self.log = MemoryLog(lambda: self.now_us)
        create_topics(network, LocalTopics(self.log))
        self.faults = Faults(rng, only)
        self.faults.told = lambda fault: self._trace.add(f"  fault: {fault}")
        self.history = History()
        self.places = [
            (COMMANDS_TOPIC, 0),
            *((TELEMETRY_TOPIC, shard) for shard in range(self.shards)),
        ]
        self._partitions = [
            (topic, partition)
            for topic, partitions in network.topics().items()
            for partition in range(partitions)
        ]
        self.mail = Mail(rng, self.log, self.faults, self.history)
        self._cast: Cast | None = None
        self.laws = Laws(network, self.log, [self._seen])
        self.chain = SimulatedL1(rng, lambda epoch: self.laws.payouts.get(epoch, {}))
        self.cast = self._cast = Cast(
            rng,
            seed=SEED,
            keys=KEYS,
            writers=SUCCESSORS,
            shards=self.shards,
            actor=self._actor,
            mail=self.mail,
            chain=self.chain,
            history=self.history,
            now_us=lambda: self.now_us,
            apart=self._repeated,
        )
        self._clock = self._actor(KEYS.clock)
        around = Around(
            network=network,
            faults=self.faults,
            laws=self.laws,
            parts=parts,
            folder=folder,
            now_us=lambda: self.now_us,
            connect=self._connect,
            pause=self._pause,
        )
        self.workers = [
            WorkerProcess(around, seat, 0, on_disk=not rng.randrange(5))
            for seat in network.ledgers()
        ]
        if not rng.randrange(3):
            seat = rng.choice(network.ledgers())
            self.workers.append(WorkerProcess(around, seat, 1, on_disk=not rng.randrange(2)))
        tables = self._tables(around, in_sql=not rng.randrange(8))
        self.projectors = [
            ProjectorProcess(around, n, tables) for n in range(rng.choice((1, 1, 2)))
        ]
        self.sender = SenderProcess(around, self.chain)
        way = self.mail.direct(self._arrives_later)
        self.watcher = WatcherProcess(
            around, self.chain, lambda session: self._actor(KEYS.watcher, session, way)
        )
        self.processes: list[Process] = [
            *self.workers,
            *self.projectors,
            self.sender,
            self.watcher,
        ]
        #: How much oftener one process comes to its turn than another.
        self._weights = [rng.choice((1, 4, 12)) for _ in self.processes]
        self._readers = [
            Reader(100 + n, rng, self.log, self.history, self.places) for n in range(2)
        ]

    def close(self) -> None:
        """Let every process go."""
        self.faults.muted = True
        for process in self.processes:
            process.die()
        self.sender.outbox.close()

    @staticmethod
    def _tables(around: Around, *, in_sql: bool) -> Callable[[], Tables]:
        """What opens the run's tables; most runs keep them in memory, which is faster."""
        faults, parts = around.faults, around.parts
        if not in_sql:
            held = parts.tables(faults)
            return lambda: held
        url = f"sqlite:///{around.folder / 'rows.db'}"
        first = parts.read_model(url)
        first.prepare(around.network.hash)
        first.close()
        return lambda: TablesInSql(parts.read_model(url), faults)

    # What the processes are given

    def _seen(self, ledger: Ledger, shard: int, event: Any) -> None:
        if self._cast is not None:
            self._cast.see(ledger, shard, event)

    def _actor(
        self, signer: Signer, session_us: int = START_US, way: Inputs | None = None
    ) -> Actor:
        return Actor(
            log=way or self.mail.box(),
            codec=self.network.codec,
            genesis_hash=self.network.hash,
            signer=signer,
            session_us=session_us,
        )

    def _connect(self) -> FaultyLog:
        return FaultyLog(self.log, self.faults, pause=self._pause, later=self._arrives_later)

    def _arrives_later(self, topic: str, partition: int, value: bytes) -> None:
        self._later.append((self.step + self._rng.randrange(1, 30), topic, partition, value))

    def _pause(self) -> None:
        """Whoever called this does not get an answer before others have had their turns."""
        for _ in range(self._rng.randrange(1, 8)):
            idle = [p for p in self.processes if p.name not in self._busy]
            if not idle or len(self._busy) > 3:
                return
            # Rivals for what the paused one holds are the ones to fear.
            held = self._busy[-1].split("-rival")[0]
            rivals = [p for p in idle if p.name.split("-rival")[0] == held]
            process = rivals[0] if rivals and self._rng.randrange(2) else self._rng.choice(idle)
            self._turn(process)

    # The run

    def run(self) -> Run:
        """Live through the seed, then let everything finish and compare."""
        anomalies: list[Anomaly] = []
        state_hash = ""
        law: str | None = None
        why: str | None = None
        try:
            self._live()
            state_hash = self._finish()
            anomalies = check(self.history)
            if anomalies:
                raise Violation("what clients were told is so", str(anomalies[0]))
        except Violation as violation:
            law, why = violation.law, violation.why
            self._trace.add(f"violated: {violation}")
        return Run(
            seed=self.seed,
            steps=self.step,
            ticks=self.ticks,
            shards=self.shards,
            time_source=self.source.value,
            commits=self.laws.commits,
            events=self.laws.events,
            noise=self.laws.noise,
            operations=len(self.history.operations),
            faults=Counter(self.faults.seen),
            kinds=Counter(self.laws.kinds),
            trace=self._trace.digest.hexdigest(),
            state_hash=state_hash,
            law=law,
            why=why,
            anomalies=tuple(anomalies),
        )

    def _live(self) -> None:
        while self.step < self._steps:
            if self.source is TimeSource.LOGICAL:
                self._rest()
                self._tick_when_due()
            elif self._rng.randrange(9) == 0:
                self._tick_now()
            else:
                self._turn(self._rng.choices(self.processes, self._weights)[0])
            if self._rng.randrange(4) == 0:
                self._rng.choice(self._readers).poll()

    def _turn(self, process: Process) -> None:
        """One step: a process takes a turn, or dies in it; then every law is looked at."""
        self.step += 1
        self._arrive()
        self._trace.add(f"{self.step} {process.name}")
        before = self._size()
        self._busy.append(process.name)
        try:
            moved = process.turn()
        except Crash:
            moved = True
            self._trace.add(f"  {process.name} dies")
            process.die()
        except (LogError, L1Error) as error:
            # An operating error: the same process tries again, or another in its place.
            moved = True
            self._trace.add(f"  {process.name}: {type(error).__name__}")
            if self._rng.randrange(2):
                process.die()
        except Violation:
            raise
        except Exception as error:
            raise Violation("nothing else stops a process", f"{process.name}: {error!r}") from error
        finally:
            self._busy.pop()
        written = self._size() - before
        if written:
            self._trace.add(f"  {written} records")
        self._activity += written + moved
        if moved:
            self._idle.pop(process.name, None)
        else:
            self._idle[process.name] = self._standing()
        self._look()

    def _look(self) -> None:
        self.laws.look()
        self.laws.check_l1(self.chain, self.sender.signed)

    def _size(self) -> int:
        return sum([self.log.end(topic, partition) for topic, partition in self._partitions])

    def _standing(self) -> tuple[int, bytes]:
        """Who had nothing to do has nothing to do as long as this is the same."""
        return self._size(), self.chain.head().hash

    def _arrive(self) -> None:
        """Records whose answers were lost long ago are written now."""
        waiting, self._later = self._later, []
        for due, topic, partition, value in waiting:
            if due <= self.step or self.faults.muted:
                self._trace.add(f"  late record on {topic}[{partition}]")
                self.log.append(topic, partition, value)
                self._activity += 1
            else:
                self._later.append((due, topic, partition, value))

    def _rest(self) -> None:
        """Turns until a whole round of them did nothing."""
        muted = self.faults.muted
        for rounds in range(_ROUNDS_MAX):
            self.faults.muted = muted or rounds >= _MUTED_AFTER
            before = self._activity
            order = list(self.processes)
            self._rng.shuffle(order)
            for process in order:
                if self._idle.get(process.name) != self._standing():
                    self._turn(process)
            if self._activity == before:
                if not self._later:
                    self.faults.muted = muted
                    return
                self._later = [(0, *late[1:]) for late in self._later]
                self._arrive()
        raise Violation("the system comes to rest", f"not within {_ROUNDS_MAX} rounds")

    # Time

    def _instant(self) -> None:
        """What happens outside at one instant: blocks, people, things that lie on ledgers."""
        if self.faults.strikes(Fault.L1_REORGANISED):
            self.chain.reorganise()
        for _ in range(self._rng.randrange(1, 4)):
            self.chain.mine()
        if self.faults.strikes(Fault.WATCHER_DIES):
            self.watcher.die()
        if self.faults.strikes(Fault.FOREIGN_RECORD):
            self._soil()
        self._forget()
        self.cast.act()

    def _soil(self) -> None:
        """What anyone who may write there could put on a ledger's partition."""
        ledger, shard = self._rng.choice(self.network.ledgers())
        topic = LEDGER_TOPICS[ledger]
        value = b"SYNORL2\x01 but not a commit"
        if self.log.end(topic, shard):
            at = self._rng.randrange(self.log.end(topic, shard))
            copied = self.log.read(topic, shard, at, max_bytes=1).records[0].value
            where = self._rng.randrange(len(copied))
            flipped = bytes([copied[where] ^ 1 << self._rng.randrange(8)])
            value = self._rng.choice(
                (value, copied, copied[:where] + flipped + copied[where + 1 :], copied[:where])
            )
        self.log.append(topic, shard, value)

    def _forget(self) -> None:
        """Delete a beginning of a shard's telemetry: no more than commits have consumed."""
        shard = self._rng.randrange(self.shards)
        place = (TELEMETRY_TOPIC, shard)
        first = self.log.start(*place)
        consumed = self.laws.consumed((Ledger.METERING, shard), *place)
        if consumed <= first or not self.faults.strikes(Fault.TELEMETRY_DELETED):
            return
        for reader in self._readers:
            # Clients that read everything from its beginning are not wronged here.
            reader.catch_up(place)
        start = self._rng.choice((consumed, self._rng.randrange(first, consumed) + 1))
        records = self.log.read(*place, first, max_bytes=_WHOLE).records
        kept = self._deleted.setdefault(place, [])
        kept += [record.value for record in records if record.offset < start]
        self.log.delete_before(*place, start=start)
        self._trace.add(f"  {TELEMETRY_TOPIC}[{shard}] begins at {start}")

    def _tick_now(self) -> None:
        """The broker's time: it passes, whoever is where."""
        self.step += 1
        self.now_us += self._rng.choice((1, 5, 10, 20, 30, 30, 60)) * MINUTE_US
        self.ticks += 1
        self._trace.add(f"{self.step} time {self.now_us}")
        self._instant()
        record = self._clock.sign(Tick(time_us=self.now_us))
        for topic, partition in self.places:
            self.mail.append(topic, partition, record)
        self.mail.deliver()
        self._look()

    def _tick_when_due(self) -> None:
        """Logical time: everything is at rest, so the next deadline or instant may come."""
        self.step += 1
        due = self._next_due()
        acts = due >= self._next_act_us
        self.now_us = self._next_act_us if acts else due
        self.ticks += 1
        self._trace.add(f"{self.step} time {self.now_us}")
        if acts:
            minutes = self._rng.choice((5, 10, 20, 30, 30, 60))
            self._next_act_us = self.now_us + minutes * MINUTE_US
            self._instant()
        record = self._clock.sign(Tick(time_us=self.now_us))
        self._instants.append(record)
        self.mail.tick(self.places, record)
        self.mail.deliver()
        self._look()

    def _next_due(self) -> int:
        idle_us = self.network.genesis.parameters.idle_us
        due = START_US + ((self.now_us - START_US) // idle_us + 1) * idle_us
        for process in self.workers:
            first = process.running().processor.next_due_us()
            if first is not None and self.now_us < first < due:
                due = first
        return due

    # The end

    def _finish(self) -> str:
        """No more faults: everything comes to its end, then everything is compared."""
        self.faults.muted = True
        self._trace.add("the end: no more faults")
        ticks = 0
        while True:
            self._rest()
            if not self.mail.waiting and self._anchored():
                break
            ticks += 1
            if ticks > _LAST_TICKS + _TICKS_TO_ANCHOR * len(self.laws.checkpoints):
                why = f"made {len(self.laws.checkpoints)}, seen {len(self.laws.totals.seen)}"
                raise Violation("every checkpoint is anchored in the end", why)
            self.chain.mine(all_of_it=True)
            self.now_us += 5 * MINUTE_US
            record = self._clock.sign(Tick(time_us=self.now_us))
            self._instants.append(record)
            self.mail.tick(self.places, record)
            self.mail.deliver()
        for reader in self._readers:
            reader.finish()
        state_hash, rows = folded(self.network, self.log, self.laws)
        check_same_state("audit", audited(self.network, self.log), state_hash)
        for projector in self.projectors:
            projector.check()
        check_rows(self.projectors[0].tables, rows, self.laws, self.history)
        if self._repeated:
            check_same_state("undisturbed", self._undisturbed(), state_hash)
        return state_hash

    def _anchored(self) -> bool:
        return len(self.laws.totals.seen) == len(self.laws.checkpoints)

    def _whole(self, place: tuple[str, int]) -> list[bytes]:
        """All that ever was in an input partition."""
        records = self.log.read(*place, self.log.start(*place), max_bytes=_WHOLE).records
        return [*self._deleted.get(place, ()), *(record.value for record in records)]

    def _undisturbed(self) -> str:
        """The state that the same inputs come to when nothing goes wrong."""
        log = MemoryLog(lambda: 0)
        create_topics(self.network, LocalTopics(log))
        inputs = {place: self._whole(place) for place in self.places}
        at = dict.fromkeys(self.places, 0)
        quiet = Faults(random.Random(0), [])
        laws = Laws(self.network, log, [])
        around = Around(
            network=self.network,
            faults=quiet,
            laws=laws,
            parts=Parts(),
            folder=Path(),
            now_us=lambda: 0,
            connect=lambda: FaultyLog(
                log, quiet, pause=lambda: None, later=lambda topic, partition, value: None
            ),
            pause=lambda: None,
        )
        workers = [WorkerProcess(around, seat, 0, on_disk=False) for seat in self.network.ledgers()]
        _rest_of(workers)
        for tick in [*self._instants[1:], None]:
            for place, records in inputs.items():
                while at[place] < len(records):
                    log.append(*place, records[at[place]])
                    at[place] += 1
                    if at[place] < len(records) and records[at[place]] == tick:
                        break
            _rest_of(workers)
        for worker in workers:
            worker.die()
        return folded(self.network, log, laws)[0]


def _rest_of(workers: Sequence[WorkerProcess]) -> None:
    """Turns in their fixed order until a whole round appended nothing."""
    while True:
        # Every turn is taken, also after one that appended.
        appended = [worker.turn() for worker in workers]
        if not any(appended):
            return
