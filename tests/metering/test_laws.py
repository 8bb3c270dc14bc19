"""The laws of a shard: no cut, order of arrival, recovery or encoding changes what it says."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from domain.batch_columns import Columns
from domain.genesis import Parameters
from domain.ids import Hash32, LeaseId, NodeId
from domain.ledger import ParameterChanged
from domain.ports import LogRecord
from domain.readings import Judged, Moment, PlainReadings, is_refused
from domain.telemetry import Batch, ContradictionFound, TelemetryAccepted, UsageStated
from tests.support.metering import (
    EGRESS,
    TOKENS,
    Shard,
    as_bytes,
    batch,
    gateway_registered,
    lease_ended,
    lease_of,
    lease_opened,
    lease_ready,
    market,
    node_of,
    node_registered,
    signed,
)

# A world in single microseconds, so that a model may look at each of them.
PARAMETERS = replace(
    Parameters(),
    usage_window_us=10,
    grace_us=3,
    grace_max_us=5,
    closing_us=14,
    late_us=30,
    early_us=4,
    generations_a_day=3,
    session_ahead_us=10**9,
)
NODES = [node_of(number) for number in range(3)]
GRACES = [3, 5, 4]
LEASES = [lease_of(number) for number in range(4)]
HOMES = [0, 0, 1, 2]
BUSY = 10**6  # base units a second are one a microsecond
FAR = 1000
NO_DIGEST = Hash32(bytes(32))


class TwinReadings:
    """The plain twin behind the interface of columns."""

    def __init__(self) -> None:
        self._plain = PlainReadings()
        self.assign, self.activate = self._plain.assign, self._plain.activate
        self.stop, self.forget = self._plain.stop, self._plain.forget
        self.limits_moved = self._plain.limits_moved
        self.changed, self.close = self._plain.changed, self._plain.close

    def judge(self, batch: Columns, nodes: Any, key: int, at: Moment) -> Judged:
        return self._plain.judge(batch.plain(), nodes, key, at)

    def fold(
        self, batch: Columns, refused: bytes, key: int, digest: bytes, now_us: int, window_us: int
    ) -> None:
        self._plain.fold(batch.plain(), refused, key, digest, now_us, window_us)


@dataclass
class Lived:
    """The life of a lease as the market has it."""

    opened_us: int
    ready_us: int | None
    end_us: int | None
    closing_us: int


@dataclass
class Scenario:
    """Inputs in the order in which a shard reads them, and what the market knows."""

    inputs: list[Any]  # ForeignCommit, or (time, signer, payload, number)
    lives: dict[LeaseId, Lived]
    plainly_stated: bool


@st.composite
def scenarios(draw: Any) -> Scenario:
    """A market's commits and a partition's batches, each in its order, read in any turns."""
    lives: dict[LeaseId, Lived] = {}
    instants: list[tuple[int, int, Any]] = []
    for number, lease in enumerate(LEASES):
        node = NODES[HOMES[number]]
        opened = draw(st.integers(1, 30))
        ready = draw(st.one_of(st.none(), st.integers(opened, opened + 15)))
        end = draw(st.one_of(st.none(), st.integers((ready or opened), 75)))
        lives[lease] = Lived(opened, ready, end, (end or 0) + 14)
        limits = draw(
            st.sampled_from(
                [
                    {"inference.tokens": BUSY, "network.egress": 10**12},
                    {"network.egress": 10**12},
                    {},
                ]
            )
        )
        devices = draw(st.sampled_from([0, 1, 700, 10**6]))
        event = lease_opened(lease, node, at_us=opened, limits=limits, devices=devices)
        instants.append((opened, 0, event))
        if ready is not None:
            instants.append((ready, 1, lease_ready(lease, node, ready)))
        if end is not None:
            instants.append((end, 2, lease_ended(lease, node, end, end + 14)))
    change = draw(st.sampled_from([None, None, None, 7, 25]))
    if change is not None:
        at = draw(st.integers(5, 60))
        changed = ParameterChanged(at_us=at, name="usage_window_us", value=change)
        instants.append((at, 3, changed))
    instants.sort(key=lambda each: each[:2])
    first = [gateway_registered(), *map(_registered, range(3))]
    commits = [market(0, *first)]
    at = 0
    while instants:
        count = draw(st.integers(1, len(instants)))
        taken, instants = instants[:count], instants[count:]
        at = max(at, taken[-1][0])
        if instants:
            at = min(at + draw(st.integers(0, 3)), max(instants[0][0], at))
        commits.append(market(at, *(event for *_, event in taken)))
        if draw(st.booleans()):
            at += draw(st.integers(0, 8)) if not instants else 0
            commits.append(market(at))
    commits += [market(FAR), market(2 * FAR)]
    records: list[Any] = []
    now = 1
    for number in range(draw(st.integers(0, 30))):
        now += draw(st.sampled_from([0, 1, 1, 2, 3, 4, 5, 6, 12]))
        records.append(draw(_sent(now, number)))
        if records and draw(st.integers(0, 9)) == 0:
            records.append((now, *draw(st.sampled_from(records))[1:]))
    records += [(FAR + 1, "gateway", batch([NODES[0]]), 10**6)]
    records += [(FAR + 2, "gateway", batch([NODES[0]]), 10**6 + 1)]
    inputs: list[Any] = [commits.pop(0)]
    while commits or records:
        from_market = draw(st.booleans())
        if commits and (from_market or not records):
            inputs.append(commits.pop(0))
        else:
            inputs.append(records.pop(0))
    return Scenario(inputs, lives, change is None)


def _registered(number: int) -> Any:
    return node_registered(NODES[number], grace_us=GRACES[number])


@st.composite
def _sent(draw: Any, now: int, number: int) -> Any:
    """A batch of the gateway or of a node itself, with rows that are mostly right."""
    one = st.tuples(
        st.sampled_from(LEASES),
        st.sampled_from([TOKENS, TOKENS, EGRESS, EGRESS, 0]),
        st.sampled_from([0, 0, 0, 1, 2, 7]),
        st.integers(now - 6, now),
        st.integers(0, 70),
    )
    rows = draw(st.lists(one, max_size=6))
    who = draw(st.sampled_from(["gateway", "gateway", "node"]))
    if who == "node":
        node = draw(st.sampled_from(NODES))
        return now, node.hex(), batch([node], rows), number
    listed = draw(st.lists(st.sampled_from(NODES), min_size=1, max_size=3, unique=True))
    return now, "gateway", batch(listed, rows), number


def play(shard: Shard, inputs: list[Any], encode: Any = lambda plain: plain) -> Shard:
    """Feed inputs; records that stand together are fed together."""
    waiting: list[tuple[int, bytes]] = []
    for each in inputs:
        if isinstance(each, tuple):
            time_us, signer, payload, number = each
            waiting.append((time_us, signed(signer, encode(payload), number)))
            continue
        if waiting:
            shard.take(*waiting)
            waiting = []
        shard.learn(each)
    shard.take(*waiting)
    return shard


def said(shard: Shard) -> Any:
    """All that a shard said, and what it refused to hear."""
    return shard.events, sorted(shard.refused)


@given(scenarios(), st.randoms(use_true_random=False))
def test_no_rule_sees_where_a_step_is_cut(scenario: Scenario, chance: Any) -> None:
    """Design 2: the same inputs cut into commits at random give the same events."""
    whole = play(Shard(PARAMETERS), scenario.inputs)
    cut = play(Shard(PARAMETERS, cut=lambda: chance.random() < 0.4), scenario.inputs)
    assert said(cut) == said(whole)


@given(scenarios(), st.randoms(use_true_random=False))
def test_a_shard_that_is_recovered_goes_on_as_if_nothing_had_been(
    scenario: Scenario, chance: Any
) -> None:
    """State = fold(own ledger): dropped and adopted after any commit, also within a window."""
    live = play(Shard(PARAMETERS), scenario.inputs)
    recovered = play(
        Shard(PARAMETERS, cut=lambda: chance.random() < 0.3, recover_at_cuts=True), scenario.inputs
    )
    assert said(recovered) == said(live)
    assert recovered.states.all.keys() == live.states.all.keys()
    assert all(
        recovered.states.all[id].state == live.states.all[id].state for id in live.states.all
    )


@given(scenarios())
def test_many_records_at_once_are_judged_as_one_by_one(scenario: Scenario) -> None:
    """The fast way in is the gate's way, and columns are the plain twin's."""
    many = play(Shard(PARAMETERS), scenario.inputs)
    one = play(Shard(PARAMETERS, one_by_one=True, readings=TwinReadings), scenario.inputs)
    assert said(one) == said(many)


@given(scenarios())
def test_both_encodings_have_the_same_outcome(scenario: Scenario) -> None:
    """Design 5: the same columns in two encodings; digests alone differ."""

    def bare(event: Any) -> Any:
        if isinstance(event, TelemetryAccepted):
            return replace(event, digest=NO_DIGEST, length=0)
        if isinstance(event, ContradictionFound):
            return replace(event, first=NO_DIGEST, second=NO_DIGEST)
        return event

    longs = play(Shard(PARAMETERS), scenario.inputs)
    little = play(Shard(PARAMETERS), scenario.inputs, as_bytes)
    assert [bare(event) for event in little.events] == [bare(event) for event in longs.events]


# A model that looks at every microsecond


@dataclass
class Heard:
    """What a shard accepted, in order: time, nodes, rows that count."""

    time_us: int
    nodes: tuple[NodeId, ...]
    rows: list[tuple[LeaseId, int, int, int]]


def heard(shard: Shard) -> list[Heard]:
    """The accepted batches of a shard, from its own ledger."""
    found = []
    parts = iter([part for _, bulk in shard.commits for part in bulk])
    for event in shard.events:
        if not isinstance(event, TelemetryAccepted):
            continue
        part = next(parts)
        assert (event.length, event.digest) == (len(part.data), part.digest)
        opened = shard.metering._intake.reopen(part.data)
        payload = opened.plain()
        rows = [
            (
                payload.leases[payload.lease[i]],
                payload.resource[i],
                payload.generation[i],
                payload.total[i],
            )
            for i in range(event.rows)
            if not is_refused(event.refused, i)
        ]
        found.append(Heard(event.at_us, payload.nodes, rows))
    assert next(parts, None) is None
    return found


def model_covered(batches: list[Heard], node: int, life: Lived, before_us: int) -> int:
    """Covered microseconds as of a window's end, one by one (R4.5)."""
    signs = [b.time_us for b in batches if NODES[node] in b.nodes and b.time_us < before_us]
    covered: set[int] = set()
    for first, second in pairwise(signs):
        if second - first <= GRACES[node]:
            covered.update(range(first, second))
    if life.ready_us is None:
        return 0
    end = before_us if life.end_us is None else life.end_us
    ready = life.ready_us
    return sum(ready <= us < end for us in covered)


def model_metered(batches: list[Heard], lease: LeaseId, before_us: int) -> dict[int, int]:
    """Quantities as of a window's end: the highest total of each generation, summed."""
    best: dict[tuple[int, int], int] = {}
    for heard_ in batches:
        for name, resource, generation, total in heard_.rows:
            if name == lease and heard_.time_us < before_us:
                place = resource, generation
                best[place] = max(best.get(place, 0), total)
    sums: dict[int, int] = {}
    for (resource, _), total in best.items():
        sums[resource] = sums.get(resource, 0) + total
    return {resource: quantity for resource, quantity in sums.items() if quantity}


@given(scenarios())
def test_statements_say_what_a_model_of_every_microsecond_says(scenario: Scenario) -> None:
    """R4.5, R4.6: covered time and quantities as of each window's end, and none left out."""
    shard = play(Shard(PARAMETERS), scenario.inputs)
    batches = heard(shard)
    names = {"inference.tokens": TOKENS, "network.egress": EGRESS}
    for number, lease in enumerate(LEASES):
        life = scenario.lives[lease]
        stated = [e for e in shard.events if isinstance(e, UsageStated) and e.lease == lease]
        last: Any = ()
        for event in stated:
            end = event.window_end_us
            assert event.covered_us == model_covered(batches, HOMES[number], life, end)
            found = {names[q.resource]: q.quantity for q in event.quantities if q.resource in names}
            assert found == model_metered(batches, lease, end)
            assert event.final or event.quantities != last
            last = event.quantities
        assert [e.window_end_us for e in stated] == sorted({e.window_end_us for e in stated})
        assert [e.final for e in stated] == [False] * (len(stated) - 1) + [
            life.end_us is not None
        ] * bool(stated)
        if scenario.plainly_stated:
            _nothing_left_out(stated, batches, lease, number, life)


def _nothing_left_out(
    stated: list[UsageStated], batches: list[Heard], lease: LeaseId, number: int, life: Lived
) -> None:
    """Each window in which a quantity changed has its statement, up to the lease's last.

    A shard that has not heard yet of a lease's end takes readings after that; they count nowhere.
    """
    assert life.end_us is None or stated[-1].window_end_us == -(-life.closing_us // 10) * 10
    before = model_metered(batches, lease, 0)
    last = FAR if life.end_us is None else stated[-1].window_end_us + 1
    for end in range(10, last, 10):
        now = model_metered(batches, lease, end)
        if now != before:
            assert any(e.window_end_us == end for e in stated)
        before = now


@given(scenarios(), st.randoms(use_true_random=False))
def test_order_and_repetition_of_readings_change_no_total(scenario: Scenario, chance: Any) -> None:
    """R1.4: batches of one instant in any order, under other numbers again, come to the same."""
    free = replace(PARAMETERS, generations_a_day=64, usage_window_us=FAR * 10)
    leases = {lease: Lived(0, 0, None, 0) for lease in LEASES}
    opened: list[Any] = []
    for number, lease in enumerate(leases):
        node = NODES[HOMES[number]]
        limits = {"inference.tokens": 10**15, "network.egress": 10**15}
        opened.append(lease_opened(lease, node, limits=limits, devices=0))
        opened.append(lease_ready(lease, node, 0))
    start = market(0, gateway_registered(), *map(_registered, range(3)), *opened)
    sent = [each for each in scenario.inputs if isinstance(each, tuple)]
    # One total per counter and time: what contradicts is no reading.
    spread: list[Batch] = [
        replace(payload, time_us=tuple(total - 60 for total in payload.total))
        for _, _, payload, _ in sent
    ]

    def totals(payloads: list[Batch]) -> Any:
        shard = Shard(free)
        shard.learn(start)
        shard.take(*((10, signed("gateway", each, i)) for i, each in enumerate(payloads)))
        return shard.metering.readings.changed(FAR * 10)

    listed = [replace(each, nodes=tuple(NODES)) for each in spread]
    shuffled = listed + [each for each in listed if chance.random() < 0.5]
    chance.shuffle(shuffled)
    assert totals(shuffled[:60] + listed) == totals(listed)


def test_a_record_fed_again_after_a_cut_is_not_opened_again() -> None:
    """What was opened for a stretch is kept, since a step may be cut within it."""
    asked: list[Any] = []

    def noted(key: bytes, message: bytes, signature: bytes) -> bool:
        asked.append(message)
        return True

    shard = Shard(PARAMETERS)
    shard.learn(market(0, gateway_registered(), _registered(0)))
    shard.metering._intake._verify = noted
    source = shard.metering.sources()[1]
    records = [LogRecord(i, i, signed("gateway", batch([NODES[0]]), i)) for i in range(4)]
    for done, _ in shard.metering.external_many(source, records):
        if done == 2:
            break
    for _ in shard.metering.external_many(source, records[2:]):
        pass
    assert len(asked) == 4
