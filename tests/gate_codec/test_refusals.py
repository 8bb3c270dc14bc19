"""The closed list of refusals: each alone, each before the next, and none at anybody's cost."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from functools import cache
from itertools import combinations
from typing import Any

import pytest

from domain import judging
from domain.account import SetPayee
from domain.ids import Address
from domain.refusal import CODES, SEQUENCE_CONFLICT
from domain.telemetry import TelemetryAccepted
from tests.gate_codec.faults import COMMANDS, TELEMETRY, Row
from tests.gate_codec.gates import (
    HIGHEST,
    HOUR,
    LEASE,
    NODE,
    NOW,
    CommandGate,
    TelemetryGate,
    made,
    network,
)
from tests.support.metering import EGRESS, as_bytes, batch

AnyGate = CommandGate | TelemetryGate
GATES: dict[str, tuple[Callable[[], AnyGate], tuple[Row, ...]]] = {
    "command": (CommandGate, COMMANDS),
    "telemetry": (TelemetryGate, TELEMETRY),
}
ORDERS = {"command": judging.COMMAND, "telemetry": judging.TELEMETRY}
#: The issue's own list, as far as it is of whole records.
ISSUE = (
    "oversize",
    "unknown_schema",
    "trailing_bytes",
    "malformed",  # a float in a long
    "out_of_range",
    "array_too_long",  # a null-array bomb
    "bad_signature",
    "unknown_key",
    "revoked_key",
    "wrong_network",
    "wrong_shard",
    "sequence_conflict",
    "sequence_too_old",
    "session_too_old",
    "session_in_future",
)
ROWS = [(kind, row) for kind, (_, rows) in GATES.items() for row in rows]
#: From here on a refusal is an answer of its own, under the number that was sent.
ANSWERED = {s.name for stages in ORDERS.values() for s in stages if s.answered}
#: The most that a byte of a hostile input may cost: arrays of one item in a block of their own.
BYTES_A_BYTE = 96


@cache
def shared(kind: str) -> AnyGate:
    """One for all tests that leave no trace in it."""
    return GATES[kind][0]()


@pytest.mark.parametrize(("kind", "row"), ROWS, ids=lambda v: v if isinstance(v, str) else v.name)
def test_each_fault_alone_has_its_code(kind: str, row: Row) -> None:
    """Counted without an event up to the number, answered by an event after it."""
    gate = GATES[kind][0]()
    taken = gate.take(made(gate.right(), [row.fault]))
    if row.stage in ANSWERED:
        assert (taken.answers, taken.counted) == ((row.code.number,), {})
        return
    assert (taken.events, taken.counted) == ((), {row.code.number: 1})
    # Nobody's number was touched: the same one does its work for who comes with it first.
    after = gate.take(gate.right().bytes())
    assert after.counted == {}
    assert after.events != ()


@pytest.mark.parametrize("kind", list(GATES))
def test_of_two_faults_the_earlier_one_is_answered(kind: str) -> None:
    """Every pair of faults of different stages, both in one input."""
    gate, rows = GATES[kind][0](), GATES[kind][1]
    wrong = []
    pairs = answered = 0
    for first, second in combinations(rows, 2):
        if first.stage == second.stage:
            continue
        # A command has no columns: what is wrong within a batch needs a batch.
        if first.stage == "kind" and second.stage in ANSWERED:
            continue
        pairs += 1
        # Only an answer uses a number up; the one that is in conflict stays in the window.
        right = gate.right(number=HIGHEST + 1 + answered)
        taken = gate.take(made(right, [first.fault, second.fault]))
        answered += len(taken.answers)
        said = (*taken.answers, *taken.counted)
        if said != (first.code.number,):
            wrong.append((first.name, second.name, [CODES[n].name for n in said]))
    assert wrong == []
    assert pairs > 150


@pytest.mark.parametrize("kind", list(GATES))
def test_the_table_of_judging_is_the_order_that_was_tried(kind: str) -> None:
    """Every stage and every code of the page has its fault here, in the same order."""
    tried: dict[str, dict[int, None]] = {}
    for row in GATES[kind][1]:
        tried.setdefault(row.stage, {})[row.code.number] = None
    assert list(tried) == [stage.name for stage in ORDERS[kind]]
    for stage in ORDERS[kind]:
        assert set(tried[stage.name]) == {code.number for code in stage.codes}, stage.name


@pytest.mark.parametrize("kind", list(GATES))
def test_the_table_of_judging_has_the_order_that_was_asked_for(kind: str) -> None:
    """Each named refusal where it was last judged, in turn; what lies between them is ours."""
    judged = [code.name for stage in ORDERS[kind] for code in stage.codes]
    last = {name: place for place, name in enumerate(judged)}
    asked = [name for name in ISSUE if name in last]
    assert len(ISSUE) - len(asked) == (kind == "command")
    # A record that does not decode at all is malformed; of one that does the payload is judged.
    assert [last[name] for name in asked] == sorted(last[name] for name in asked)


@pytest.mark.parametrize("kind", list(GATES))
def test_garbage_costs_one_line_a_code_and_commit(kind: str) -> None:
    """A thousand records that nobody signed: three lines, no event, no key heard of."""
    gate = shared(kind)
    chosen = [r for r in GATES[kind][1] if r.name in ("bad signature", "unknown schema")]
    garbage = [made(gate.right(), [row.fault]) for row in chosen] * 400 + [b"\x00"] * 200
    taken = gate.take(*garbage)
    assert taken.events == ()
    assert taken.counted == {110: 400, 105: 400, 102: 200}


@pytest.mark.parametrize("kind", list(GATES))
def test_a_number_has_one_answer_also_after_a_restart_and_from_another_worker(kind: str) -> None:
    """A repeat does nothing, other content is a conflict, wherever the ledger is folded."""
    gate = GATES[kind][0]()
    value = gate.right().bytes()
    other = gate.right(
        payload=SetPayee(payee=Address(b"o" * 20)) if kind == "command" else batch([NODE, NODE])
    ).bytes()
    assert gate.take(value).events != ()
    heir = GATES[kind][0]()
    heir.commits = list(gate.commits)
    heir.restart()
    gate.restart()
    for worker in (gate, heir):
        again = worker.take(value)
        assert (again.events, again.counted) == ((), {})
        conflict = worker.take(other)
        assert (conflict.events, conflict.counted) == ((), {SEQUENCE_CONFLICT.number: 1})


@pytest.mark.parametrize("kind", list(GATES))
def test_a_refusal_is_final_for_its_number(kind: str) -> None:
    """The first answer was a refusal; the same bytes again change nothing, in any worker."""
    gate, rows = GATES[kind][0](), GATES[kind][1]
    refused = made(gate.right(), [next(row.fault for row in rows if row.stage in ANSWERED)])
    assert gate.take(refused).answers
    gate.restart()
    again = gate.take(refused)
    assert (again.events, again.counted) == ((), {})


@pytest.mark.parametrize("as_longs", [True, False], ids=["Batch", "BatchBytes"])
@pytest.mark.parametrize(("ahead_us", "fine"), [(-25 * HOUR, False), (0, True), (HOUR, False)])
def test_a_reading_too_far_ahead_or_too_late_is_refused_alone(
    ahead_us: int, fine: bool, as_longs: bool
) -> None:
    """The batch is a sign of life all the same; the row is marked."""
    gate = TelemetryGate()
    now = NOW + 30 * HOUR
    plain = batch([NODE], [(LEASE, EGRESS, 0, now + ahead_us, 1)])
    payload = plain if as_longs else as_bytes(plain)
    taken = gate.take(gate.right(payload=payload).bytes(), time_us=now)
    (accepted,) = [event for event in taken.events if isinstance(event, TelemetryAccepted)]
    assert accepted.refused == (b"" if fine else b"\x01")


def large(kind: str, size: int) -> dict[str, bytes]:
    """The costliest inputs of about ``size`` bytes that are refused without an answer."""
    gate = shared(kind)
    bad: Any = next(row.fault for row in GATES[kind][1] if row.name == "bad signature")
    rows = batch([NODE])
    wide: Any = type(rows)(
        nodes=(NODE,),
        leases=(),
        lease=(0,) * size,
        resource=(),
        generation=(),
        time_us=(),
        total=(),
    )
    zeros = b"\x02" + bytes(16) + b"\x00" + b"\x00" + b"\x80\x80\x80\x80\x20" + bytes(size)
    blocks = b"\x02" + bytes(16) + b"\x00" + b"\x00" + b"\x02\x00" * (size // 2)
    return {
        "unsigned columns": made(gate.right(payload=wide), [bad]),
        "bomb with zeros": gate.right(payload=wide, raw=zeros).bytes(),
        "a block for each item": gate.right(payload=wide, raw=blocks).bytes(),
        "zeros": bytes(size),
        "ones": b"\xff" * size,
    }


@pytest.mark.parametrize("kind", list(GATES))
def test_the_cost_of_a_refused_input_is_bounded_by_its_bytes(kind: str) -> None:
    """Memory within a fixed multiple of the input, time no more than its share of a larger one."""
    gate = shared(kind)
    whole = network().genesis.parameters.input_bytes - 1024

    def seconds(value: bytes) -> float:
        runs = []
        for _ in range(5):
            began = time.process_time()
            taken = gate.take(value)
            runs.append(time.process_time() - began)
            assert taken.events == ()
        return min(runs)

    small, full = large(kind, whole // 8), large(kind, whole)
    for name, value in full.items():
        gate.take(value)
        tracemalloc.start()
        gate.take(value)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < BYTES_A_BYTE * len(value) + (1 << 20), name
        assert seconds(value) < 8 * 4 * seconds(small[name]) + 0.01, name
