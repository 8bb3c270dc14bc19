"""The agent of a node: what it counts for whom, and what it does not claim to know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from adapters.node_agent import EGRESS, INGRESS, Agent, Lease, Meters, Unreachable
from domain.ids import NodeId
from domain.telemetry import Batch

NODE = NodeId(b"n" * 16)
FIRST, SECOND = b"a" * 16, b"b" * 16
SECOND_US = 1_000_000


class Ledger:
    """A ledger of the test's own making."""

    def __init__(self) -> None:
        self.shown: list[Lease] = []
        self.batches: list[Batch] = []
        self.made_ready: list[bytes] = []
        self.answers = True

    def leases(self) -> Sequence[Lease]:
        if not self.answers:
            raise Unreachable("Nobody answers.")
        return self.shown

    def ready(self, lease: bytes) -> None:
        self.made_ready.append(lease)

    def send(self, batch: Batch) -> None:
        self.batches.append(batch)


class Machine:
    """Counters and a clock that the test moves."""

    def __init__(self) -> None:
        self.counters = {INGRESS: 5_000, EGRESS: 7_000}
        self.now_us = 0

    def passed(self, *, out: int, seconds: int = 1) -> None:
        self.counters[EGRESS] += out
        self.now_us += seconds * SECOND_US


def lease(id: bytes, state: str = "ACTIVE", limits: Mapping[str, int] | None = None) -> Lease:
    """A lease that was ready at the clock's zero."""
    metered = {EGRESS: 1_000} if limits is None else dict(limits)
    return Lease(id=id, state=state, ready_us=0 if state != "OPENED" else None, limits=metered)


@pytest.fixture
def told() -> list[str]:
    """What the agent said."""
    return []


def agent(
    ledger: Ledger, machine: Machine, path: Path, told: list[str], *, auto_ready: bool = False
) -> Agent:
    """An agent of a machine."""
    return Agent(
        node=NODE,
        beat_us=1_000,
        ledger=ledger,
        meters=Meters.load(path),
        numbers={INGRESS: 9, EGRESS: 10},
        measure=lambda: dict(machine.counters),
        auto_ready=auto_ready,
        say=told.append,
        clock_us=lambda: machine.now_us,
    )


def test_a_node_without_leases_sends_beats_alone(tmp_path: Path, told: list[str]) -> None:
    """Each is a sign of life of the one node."""
    ledger, machine = Ledger(), Machine()
    agent(ledger, machine, tmp_path / "meters", told).beat()
    (batch,) = ledger.batches
    assert batch.nodes == (NODE,)
    assert batch.total == ()


def test_the_bytes_of_the_machine_are_those_of_its_only_metered_lease(
    tmp_path: Path, told: list[str]
) -> None:
    """What passed before the agent saw the lease is nobody's."""
    ledger, machine = Ledger(), Machine()
    ledger.shown = [lease(FIRST)]
    running = agent(ledger, machine, tmp_path / "meters", told)
    machine.passed(out=300)
    running.beat()
    machine.passed(out=400)
    running.beat()
    machine.passed(out=50)
    running.beat()
    assert [batch.total for batch in ledger.batches] == [(0,), (400,), (450,)]
    assert ledger.batches[0].resource == (10,)


def test_counters_go_on_after_a_restart(tmp_path: Path, told: list[str]) -> None:
    """A cumulative total never falls, whoever restarts."""
    ledger, machine = Ledger(), Machine()
    ledger.shown = [lease(FIRST)]
    first = agent(ledger, machine, tmp_path / "meters", told)
    first.beat()
    machine.passed(out=100)
    first.beat()
    machine.passed(out=900)
    second = agent(ledger, machine, tmp_path / "meters", told)
    second.beat()
    machine.passed(out=7)
    second.beat()
    assert [batch.total for batch in ledger.batches] == [(0,), (100,), (100,), (107,)]


def test_two_metered_leases_at_once_are_not_told_apart_and_neither_is_charged(
    tmp_path: Path, told: list[str]
) -> None:
    """The agent says so once, and signs nothing that it does not know."""
    ledger, machine = Ledger(), Machine()
    ledger.shown = [lease(FIRST), lease(SECOND, "CLOSING")]
    running = agent(ledger, machine, tmp_path / "meters", told)
    for _ in range(3):
        machine.passed(out=100)
        running.beat()
    assert all(batch.total == () for batch in ledger.batches)
    assert sum("told apart" in text for text in told) == 1


def test_what_it_cannot_measure_it_says(tmp_path: Path, told: list[str]) -> None:
    """Tokens are not bytes."""
    ledger, machine = Ledger(), Machine()
    ledger.shown = [lease(FIRST, limits={"function.invocations": 5})]
    agent(ledger, machine, tmp_path / "meters", told).beat()
    assert ledger.batches[0].total == ()
    assert any("cannot measure function.invocations" in text for text in told)


def test_it_reports_no_more_than_the_lease_allows(tmp_path: Path, told: list[str]) -> None:
    """A row above the limit would be refused, and the bytes are not the lease's to pay."""
    ledger, machine = Ledger(), Machine()
    ledger.shown = [lease(FIRST)]
    running = agent(ledger, machine, tmp_path / "meters", told)
    running.beat()
    machine.passed(out=1_000_000, seconds=2)
    running.beat()
    assert ledger.batches[-1].total == (2_000,)


def test_an_opened_lease_is_made_ready_where_that_is_asked_for(
    tmp_path: Path, told: list[str]
) -> None:
    """And only there."""
    ledger, machine = Ledger(), Machine()
    ledger.shown = [lease(FIRST, "OPENED")]
    agent(ledger, machine, tmp_path / "meters", told).beat()
    assert ledger.made_ready == []
    agent(ledger, machine, tmp_path / "meters", told, auto_ready=True).beat()
    assert ledger.made_ready == [FIRST]


def test_a_ledger_that_does_not_answer_is_told_once_and_tried_again(
    tmp_path: Path, told: list[str]
) -> None:
    """A node outlives a restart of its ledger."""
    import threading

    ledger, machine = Ledger(), Machine()
    running = agent(ledger, machine, tmp_path / "meters", told)
    ledger.answers = False
    stop = threading.Event()
    tries = 0

    def leases() -> Sequence[Lease]:
        nonlocal tries
        tries += 1
        if tries < 4:
            raise Unreachable("Nobody answers.")
        return ()

    ledger.leases = leases  # type: ignore[method-assign]
    running.run(stop, beats=2)
    assert [text for text in told if "Nobody" in text or "again." in text] == [
        "Nobody answers. It is tried again with every beat.",
        "The ledger answers again.",
    ]
    assert len(ledger.batches) == 2
