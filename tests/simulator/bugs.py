"""Bugs that the simulator must find: each is one that a careful person could write."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

import adapters.bootstrap
import adapters.simulator
import adapters.worker_reading
import domain.metering
from adapters.ledger_application import LedgerApplication
from adapters.simulator_faults import Crash, Fault, FaultyOutbox
from adapters.simulator_laws_in_force import SIGNS_NOTHING, TAKEN_OVER, VERSION
from adapters.simulator_parts import Parts, SenderProcess, TablesInMemory
from adapters.worker import Worker
from adapters.worker_reading import Reading
from domain.account import DepositCredited
from domain.chain import BODY_CHANGED, ChainReader, Counted, Noise
from domain.commit import CommitHeader, InputRun, body_of, parse
from domain.gate import Sequences
from domain.ids import Wide
from domain.key import KeyRegistered, KeyRevoked
from domain.ledger import ParameterChanged, RulesActivated, WriterAppointed
from domain.market_folds import Holder, Keys
from domain.metering import FOLD
from domain.metering_market import LEARN
from domain.ports import LogRecord
from domain.processor import Emitted, Processor, Versioned
from domain.telemetry import KeyWithdrawn
from projections.fold import fold
from projections.following import Position, ProjectedCommit

Patch = pytest.MonkeyPatch


class Stubborn(Worker):
    """Keeps what it decided when it lost the race for a height, and commits it at the next."""

    def _commit(self) -> None:
        try:
            super()._commit()
        except self._own.lost:
            self._height = self._commits.head().height
            super()._commit()


class RowsFirst(TablesInMemory):
    """Writes the rows in one transaction and the position in another."""

    def apply(self, before: Position, after: Position, commits: Sequence[ProjectedCommit]) -> None:
        for each in commits:
            for at, recorded, said in each.events:
                fold(self._rows, at, recorded, said)
        if self._faults.strikes(Fault.PROJECTOR_DIES_BEFORE_COMMIT):
            raise Crash
        self._positions[before.application] = after


class Amnesiac(SenderProcess):
    """Has its outbox in memory, so that it is gone with the process."""

    def die(self) -> None:
        super().die()
        self.outbox.close()
        self.outbox = FaultyOutbox(self._around.faults)


class Gullible(ChainReader):
    """Takes a second record at a decided height for another commit."""

    def judge(self, record: LogRecord) -> Counted | Noise:
        verdict = super().judge(record)
        envelope = parse(record.value)
        if not isinstance(verdict, Noise) or envelope is None or verdict.why == BODY_CHANGED:
            return verdict
        if envelope.writer != self.writer or verdict.why == "bad signature":
            return verdict
        body = body_of(record.value, envelope)
        return Counted(record.offset, record.time_us, envelope, envelope.hash(), body, record.value)


def _off_by(nano: tuple[int, int]) -> Any:
    """A commit whose deposits are posted with each leg off by so much."""
    right = LedgerApplication.commit

    def commit(
        self: LedgerApplication,
        events: Iterable[Emitted],
        states: Iterable[Versioned],
        header: CommitHeader,
        *,
        height: int | None = None,
    ) -> Any:
        changed = [
            replace(each, event=_changed(each.event, nano), payload=None)
            if isinstance(each.event, DepositCredited)
            else each
            for each in events
        ]
        return right(self, changed, states, header, height=height)

    return commit


def _changed(event: DepositCredited, nano: tuple[int, int]) -> DepositCredited:
    postings = tuple(
        replace(posting, amount_nano=Wide(posting.amount_nano + more))
        for posting, more in zip(event.postings, nano, strict=True)
    )
    return replace(event, postings=postings)


class Nostalgic(Worker):
    """Looks once more at the last input that it has consumed before it goes on."""

    def _stand_after(self, reading: Reading, run: InputRun) -> None:
        super()._stand_after(reading, run)
        if reading.source.ledger is None and run.next:
            self._fetch(reading, run.next - 1)


def _deaf_to(kind: type[Any]) -> tuple[Any, str, Any]:
    """A metering shard that takes no notice of one kind of the market's events."""
    heard = {each: taught for each, taught in LEARN.items() if each is not kind}
    return domain.metering, "LEARN", heard


def _forgetful_of(kind: type[Any]) -> tuple[Any, str, Any]:
    """A metering shard whose folds do not follow one kind of its own events."""
    kept = {each: fold for each, fold in FOLD.items() if each is not kind}
    return domain.metering, "FOLD", kept


def _only_registrations(self: Keys, event: Any) -> None:
    """Keys come into force, and none goes out."""
    if isinstance(event, KeyRegistered):
        self._holders[event.key] = Holder(event.key, event.role, event.account, event.node)


def _every_number_is_new(self: Sequences, *given: Any) -> None:
    """Whatever was answered is decided again."""


@dataclass(frozen=True, slots=True)
class Bug:
    """A bug, how it is planted, the laws of which one must catch it, and in how many seeds."""

    name: str
    laws: frozenset[str]
    seeds: int
    patches: Sequence[tuple[Any, str, Any]] = ()
    parts: Parts = field(default_factory=Parts)

    def plant(self, patch: Patch) -> Parts:
        """Put it in place for a test."""
        for target, name, value in self.patches:
            patch.setattr(target, name, value)
        return self.parts


ONCE = "each input is consumed once"
BUGS = (
    Bug(
        "a worker that keeps its decisions when it loses a race",
        frozenset({ONCE, "nothing else stops a process", "a ledger's time never falls"}),
        40,
        [(adapters.bootstrap, "Worker", Stubborn)],
    ),
    Bug(
        "a projector whose position is not in the rows' transaction",
        frozenset({"a projection is the fold of its ledger", "rows can take every event"}),
        40,
        parts=Parts(tables=RowsFirst),
    ),
    Bug(
        "a sender without an outbox",
        frozenset({"what is broadcast was written down before", "a checkpoint is anchored once"}),
        80,
        [(adapters.simulator, "SenderProcess", Amnesiac)],
    ),
    Bug(
        "a reader that takes noise for commits",
        frozenset(
            {
                "a run over a ledger names its last counting commit",
                "nothing else stops a process",
                "the audit is clean",
            }
        ),
        60,
        [(adapters.worker_reading, "ChainReader", Gullible)],
    ),
    Bug(
        "a posting off by a nano",
        frozenset({"postings sum to zero"}),
        3,
        [(LedgerApplication, "commit", _off_by((0, 1)))],
    ),
    Bug(
        "a deposit credited by a nano too much, in both legs",
        frozenset({"everything deposited is somewhere"}),
        3,
        [(LedgerApplication, "commit", _off_by((-1, 1)))],
    ),
    Bug(
        "a market that answers a repeated number again",
        frozenset({"what clients were told is so", "nothing else stops a process"}),
        40,
        [(Sequences, "judge", _every_number_is_new)],
    ),
    Bug(
        "a market that obeys a key that it has revoked",
        frozenset({SIGNS_NOTHING}),
        40,
        [(Keys, "apply", _only_registrations)],
    ),
    Bug(
        "a shard that does not learn of a revoked key",
        frozenset({TAKEN_OVER}),
        40,
        [_deaf_to(KeyRevoked)],
    ),
    Bug(
        "a shard that hears a key that it knows to be revoked",
        frozenset({SIGNS_NOTHING}),
        40,
        [_forgetful_of(KeyWithdrawn)],
    ),
    Bug(
        "a shard that does not take over a parameter",
        frozenset({TAKEN_OVER}),
        40,
        [_deaf_to(ParameterChanged)],
    ),
    Bug(
        "a shard that goes on by the old rules",
        frozenset({TAKEN_OVER}),
        40,
        [_deaf_to(RulesActivated)],
    ),
    Bug(
        "a shard that does not hear who is to write it",
        frozenset({TAKEN_OVER}),
        40,
        [_deaf_to(WriterAppointed)],
    ),
    Bug(
        "a step that goes on after it has activated rules",
        frozenset({VERSION}),
        80,
        [(Processor, "step_ends", property(lambda self: False))],
    ),
    Bug(
        "a worker that starts from an input that is consumed",
        frozenset({"the system comes to rest"}),
        40,
        [(adapters.bootstrap, "Worker", Nostalgic)],
    ),
)
