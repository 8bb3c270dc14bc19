"""Judges a history of client operations, after Jepsen's checker of Kafka.

It knows nothing of how the system works, only what its clients were told: so it finds what the
system's own accounts cannot show. Judged are sends and polls of every partition, and the promises
of the ledger about numbers: one first answer each, and no effect of what was refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise

from adapters.simulator_history import (
    Answer,
    Effect,
    History,
    Outcome,
    Place,
    Poll,
    Send,
    Submit,
)


class Kind(StrEnum):
    """What can be wrong with a history."""

    LOST_WRITE = "lost write"  # acknowledged, below what was read, and never read
    UNSEEN = "unseen write"  # acknowledged, above all that was read
    DUPLICATE = "duplicate"  # at more offsets than it was sent
    ABORTED_READ = "aborted read"  # read, though every send of it failed
    PHANTOM = "phantom"  # read, and nobody sent it
    INCONSISTENT_OFFSET = "inconsistent offset"  # two values at one offset
    NONMONOTONIC_SEND = "nonmonotonic send"  # a client's later send at an earlier offset
    NONMONOTONIC_POLL = "nonmonotonic poll"  # a reader went back
    INTERNAL_NONMONOTONIC_POLL = "internal nonmonotonic poll"  # within one poll
    POLL_SKIP = "poll skip"  # a reader passed over a record between two polls
    INTERNAL_POLL_SKIP = "internal poll skip"  # within one poll
    ANSWERED_TWICE = "answered twice"  # one number, two first answers on one ledger
    ANSWERS_DIFFER = "answers differ"  # two readers have different first answers
    EXECUTED_TWICE = "executed twice"  # one id made by two events
    REFUSED_EXECUTED = "refused and executed"  # a refused number had an effect


#: The columns of the fault matrix.
LOST = frozenset({Kind.LOST_WRITE, Kind.UNSEEN, Kind.POLL_SKIP, Kind.INTERNAL_POLL_SKIP})
DOUBLED = frozenset(
    {
        Kind.DUPLICATE,
        Kind.ANSWERED_TWICE,
        Kind.EXECUTED_TWICE,
        Kind.NONMONOTONIC_POLL,
        Kind.INTERNAL_NONMONOTONIC_POLL,
    }
)


@dataclass(frozen=True, slots=True)
class Anomaly:
    """One thing that must not be, with the figures that show it."""

    kind: Kind
    why: str

    def __str__(self) -> str:
        """A line for people."""
        return f"{self.kind}: {self.why}"


@dataclass(slots=True)
class _Partition:
    """All that is known of one partition."""

    at: dict[int, set[str]] = field(default_factory=dict)  # by offset, from answers and polls
    read: dict[str, set[int]] = field(default_factory=dict)  # by value, from polls alone
    effective: Counter[str] = field(default_factory=Counter)  # sends that did not fail
    failed: set[str] = field(default_factory=set)
    acknowledged: list[Send] = field(default_factory=list)

    def highest_read(self) -> int:
        return max((offset for found in self.read.values() for offset in found), default=-1)


def check(history: History) -> list[Anomaly]:
    """Everything that is wrong with a history; empty when nothing is.

    Every client of the judged partitions must have written down what it sent, and at the end a
    reader must have read each partition to its end: else writes count as phantom or unseen.
    """
    partitions = _gather(history)
    found: list[Anomaly] = []
    for place, partition in partitions.items():
        found += _writes(place, partition)
    found += _sends(history)
    found += _polls(history, partitions)
    found += _answers(history)
    return found


def counts(anomalies: list[Anomaly]) -> tuple[int, int, int]:
    """How many anomalies are of something lost, doubled and (all others) forked."""
    lost = sum(each.kind in LOST for each in anomalies)
    doubled = sum(each.kind in DOUBLED for each in anomalies)
    return lost, doubled, len(anomalies) - lost - doubled


def _gather(history: History) -> dict[Place, _Partition]:
    found: dict[Place, _Partition] = {}
    for each in history.operations:
        if isinstance(each, Send):
            partition = found.setdefault(each.place, _Partition())
            if each.outcome is Outcome.FAIL:
                partition.failed.add(each.value)
                continue
            partition.effective[each.value] += 1
            if each.offset is not None:
                partition.acknowledged.append(each)
                partition.at.setdefault(each.offset, set()).add(each.value)
        elif isinstance(each, Poll):
            partition = found.setdefault(each.place, _Partition())
            for offset, value in each.records:
                partition.at.setdefault(offset, set()).add(value)
                partition.read.setdefault(value, set()).add(offset)
    return found


def _writes(place: Place, partition: _Partition) -> Iterator[Anomaly]:
    for offset, values in sorted(partition.at.items()):
        if len(values) > 1:
            why = f"{_shown(place)} offset {offset} holds {', '.join(sorted(values))}"
            yield Anomaly(Kind.INCONSISTENT_OFFSET, why)
    for value, offsets in partition.read.items():
        where = f"{value} at {_shown(place)} offsets {sorted(offsets)}"
        sent = partition.effective[value]
        if sent == 0:
            kind = Kind.ABORTED_READ if value in partition.failed else Kind.PHANTOM
            yield Anomaly(kind, where)
        elif len(offsets) > sent:
            yield Anomaly(Kind.DUPLICATE, f"{where}, sent {sent} times")
    highest = partition.highest_read()
    for send in partition.acknowledged:
        assert send.offset is not None
        if send.offset not in partition.read.get(send.value, ()):
            kind = Kind.LOST_WRITE if send.offset <= highest else Kind.UNSEEN
            why = (
                f"{send.value} was acknowledged at {_shown(place)} offset {send.offset}; "
                f"the highest offset read is {highest}"
            )
            yield Anomaly(kind, why)


def _sends(history: History) -> Iterator[Anomaly]:
    """A client that waits for each answer finds its records in the order of its sends."""
    last: dict[tuple[int, Place], Send] = {}
    for each in history.of(Send):
        if each.offset is None:
            continue
        before = last.get((each.process, each.place))
        if (
            before is not None
            and before.offset is not None
            and before.completed <= each.invoked
            and before.offset >= each.offset
        ):
            why = (
                f"process {each.process} on {_shown(each.place)}: offset {before.offset}, then "
                f"{each.offset}"
            )
            yield Anomaly(Kind.NONMONOTONIC_SEND, why)
        last[each.process, each.place] = each


def _polls(history: History, partitions: dict[Place, _Partition]) -> Iterator[Anomaly]:
    last: dict[tuple[int, Place], int] = {}
    for each in history.of(Poll):
        known = partitions[each.place].at
        reader = f"process {each.process} on {_shown(each.place)}"
        before = last.get((each.process, each.place))
        offsets = [offset for offset, _ in each.records]
        if before is not None and not each.sought and offsets:
            if offsets[0] <= before:
                why = f"{reader} stood after {before} and got {offsets[0]}"
                yield Anomaly(Kind.NONMONOTONIC_POLL, why)
            skipped = [at for at in range(before + 1, offsets[0]) if at in known]
            if skipped:
                why = f"{reader} went from {before} to {offsets[0]} past {skipped}"
                yield Anomaly(Kind.POLL_SKIP, why)
        for one, next_ in pairwise(offsets):
            if next_ <= one:
                why = f"{reader} got {one}, then {next_}"
                yield Anomaly(Kind.INTERNAL_NONMONOTONIC_POLL, why)
            skipped = [at for at in range(one + 1, next_) if at in known]
            if skipped:
                why = f"{reader} got {one}, then {next_}, past {skipped}"
                yield Anomaly(Kind.INTERNAL_POLL_SKIP, why)
        if offsets:
            last[each.process, each.place] = offsets[-1]
        elif each.sought:
            last.pop((each.process, each.place), None)


def _answers(history: History) -> Iterator[Anomaly]:
    seen: Counter[tuple[int, tuple[bytes, int, int]]] = Counter()
    first: dict[tuple[bytes, int, int], Answer] = {}
    for each in history.of(Answer):
        seen[each.process, each.number] += 1
        if seen[each.process, each.number] == 2:
            why = f"reader {each.process} has two answers to {_number(each.number)}"
            yield Anomaly(Kind.ANSWERED_TWICE, why)
        known = first.setdefault(each.number, each)
        if (known.digest, known.code) != (each.digest, each.code):
            why = (
                f"{_number(each.number)} was answered {known.code} to reader {known.process} and "
                f"{each.code} to reader {each.process}"
            )
            yield Anomaly(Kind.ANSWERS_DIFFER, why)
    made: Counter[tuple[int, bytes]] = Counter()
    effects: set[bytes] = set()
    for effect in history.of(Effect):
        made[effect.process, effect.made] += 1
        effects.add(effect.made)
        if made[effect.process, effect.made] == 2:
            why = f"reader {effect.process} has two events that make {effect.made.hex()}"
            yield Anomaly(Kind.EXECUTED_TWICE, why)
    told: set[bytes] = set()
    for submit in history.of(Submit):
        answer = first.get(submit.number)
        for id in submit.makes:
            if answer is not None and answer.code and id in effects and id not in told:
                told.add(id)
                why = f"{_number(submit.number)} was refused ({answer.code}) and made {id.hex()}"
                yield Anomaly(Kind.REFUSED_EXECUTED, why)


def _shown(place: Place) -> str:
    return f"{place[0]}[{place[1]}]"


def _number(number: tuple[bytes, int, int]) -> str:
    key, session, count = number
    return f"number {count} of session {session} of key {key.hex()[:12]}"
