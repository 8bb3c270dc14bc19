"""What a metering shard does with heartbeats and readings, rule by rule."""

from dataclasses import replace
from typing import Any

import pytest

from domain.genesis import Parameters
from domain.ids import QUANTITY_MAX, shard_of
from domain.key import KeyRevoked
from domain.ledger import ParameterChanged, PriceRowAdded, RulesActivated, Tick
from domain.node import NodeRetired, RetireNode
from domain.readings import (
    LEASE_INDEX,
    NO_NODE,
    UNEQUAL_COLUMNS,
    UNKNOWN_NODE,
)
from domain.refusal import (
    KEY_ROLE,
    REVOKED_KEY,
    TOO_MANY_ROWS,
    UNKNOWN_KEY,
    WRONG_KIND,
    WRONG_SHARD,
)
from domain.rules import NEWEST
from domain.telemetry import (
    Batch,
    ContradictionFound,
    KeyAssigned,
    LeaseActivated,
    LeaseAssigned,
    LeaseStopped,
    NodeAssigned,
    NodeCameUp,
    NodeWentDown,
    NodeWithdrawn,
    Quantity,
    TelemetryAccepted,
    TelemetryRefused,
    UsageStated,
    UsageWindowClosed,
)
from tests.support.metering import (
    EGRESS,
    TOKENS,
    Row,
    Shard,
    as_bytes,
    batch,
    gateway_registered,
    key_of,
    lease_ended,
    lease_of,
    lease_opened,
    lease_ready,
    market,
    node_of,
    node_registered,
    signed,
)

SECOND = 1_000_000
PARAMETERS = Parameters()
NODE, OTHER, LEASE, SECOND_LEASE = node_of(1), node_of(2), lease_of(1), lease_of(2)
GRACE = 30 * SECOND
BEAT = 10 * SECOND


def shard_with_lease(parameters: Parameters = PARAMETERS, **lease: Any) -> Shard:
    """A node with one lease that is active from second 10 on."""
    shard = Shard(parameters)
    shard.learn(
        market(
            10 * SECOND,
            gateway_registered(),
            node_registered(NODE, grace_us=GRACE),
            lease_opened(LEASE, NODE, **lease),
            lease_ready(LEASE, NODE, 10 * SECOND),
        )
    )
    return shard


def row(total: int, time_us: int, resource: int = TOKENS, generation: int = 0) -> Row:
    """A reading of the lease."""
    return LEASE, resource, generation, time_us, total


def beat(shard: Shard, first: int, last: int, every: int = BEAT) -> None:
    """Beats of the node from one second to another, both included."""
    for time_us in range(first * SECOND, last * SECOND + 1, every):
        shard.send(time_us, batch([NODE]))


def of(kind: type[Any], events: list[Any]) -> list[Any]:
    """The events of one kind."""
    return [event for event in events if isinstance(event, kind)]


def refused_rows(events: list[Any]) -> list[int]:
    """The refused rows of the one accepted batch among the events."""
    (accepted,) = of(TelemetryAccepted, events)
    return [
        i
        for i in range(accepted.rows)
        if accepted.refused and accepted.refused[i // 8] >> i % 8 & 1
    ]


# What is learned from the market


def test_a_shard_learns_nodes_keys_and_leases_of_its_own_only() -> None:
    """Design 2: what another ledger says and this one acts on is an event of its own."""
    mine, other = node_of(1, 0, 4), node_of(1, 1, 4)
    shard = Shard(PARAMETERS, shard=0, shards=4)
    events = shard.learn(
        market(
            5,
            gateway_registered(),
            node_registered(mine),
            node_registered(other),
            lease_opened(LEASE, mine),
            lease_opened(SECOND_LEASE, other),
            lease_ready(LEASE, mine, 4),
            lease_ready(SECOND_LEASE, other, 4),
            lease_ended(LEASE, mine, 5, 600),
            lease_ended(SECOND_LEASE, other, 5, 600),
        )
    )
    assert [type(event) for event in events] == [
        KeyAssigned,
        NodeAssigned,
        KeyAssigned,
        LeaseAssigned,
        LeaseActivated,
        LeaseStopped,
    ]
    assert events[4].ready_us == 4
    assert (events[5].end_us, events[5].closing_us) == (5, 600)


def test_settings_of_the_market_are_taken_over_as_events() -> None:
    """R10: parameters, rules and price rows are in force here once they stand in this ledger."""
    shard = Shard(PARAMETERS)
    added = PriceRowAdded(at_us=1, resource="gpu.new", unit=1, price_nano=1, market=True)
    events = shard.learn(
        market(
            9,
            ParameterChanged(at_us=1, name="late_us", value=7),
            added,
            RulesActivated(at_us=1, version=NEWEST),
        )
    )
    assert [type(event) for event in events] == [ParameterChanged, PriceRowAdded, RulesActivated]
    assert shard.metering.parameters.late_us == 7
    assert shard.metering.rules_version == NEWEST


# Signs of life


def test_a_nodes_first_accepted_batch_brings_it_up() -> None:
    """R5.1: the first sign of life."""
    shard = shard_with_lease()
    events = shard.send(20 * SECOND, batch([NODE]))
    assert [type(event) for event in events] == [NodeCameUp, TelemetryAccepted]
    assert (events[0].at_us, events[0].since_us) == (20 * SECOND, 20 * SECOND)


def test_a_silence_of_exactly_the_grace_is_up() -> None:
    """R1.3, R5.1: intervals are half-open."""
    shard = shard_with_lease()
    shard.send(20 * SECOND, batch([NODE]))
    events = shard.send(20 * SECOND + GRACE, batch([NODE]))
    assert [type(event) for event in events] == [TelemetryAccepted]


def test_a_silence_beyond_the_grace_is_down_from_the_last_sign_until_the_next() -> None:
    """R5.1: the deadline is the last sign and the grace and one microsecond."""
    shard = shard_with_lease()
    shard.send(20 * SECOND, batch([NODE]))
    shard.send(25 * SECOND, batch([NODE]))
    events = shard.send(80 * SECOND, batch([NODE]))
    down, up, _ = events
    assert isinstance(down, NodeWentDown)
    assert isinstance(up, NodeCameUp)
    assert (down.at_us, down.since_us) == (25 * SECOND + GRACE + 1, 25 * SECOND)
    assert (up.at_us, up.since_us) == (80 * SECOND, 25 * SECOND)


def test_a_repeat_is_no_sign_of_life() -> None:
    """R5.1: only accepted new telemetry counts."""
    shard = shard_with_lease()
    first = signed("gateway", batch([NODE]), 1)
    shard.take((20 * SECOND, first))
    events = shard.take((45 * SECOND, first), (51 * SECOND, first))
    assert [type(event) for event in events] == [NodeWentDown]


def test_a_nodes_silence_does_not_depend_on_how_far_the_market_was_read() -> None:
    """Effective time moves by telemetry alone."""
    shard = shard_with_lease()
    shard.send(20 * SECOND, batch([NODE]))
    assert shard.learn(market(900 * SECOND, lease_opened(SECOND_LEASE, NODE))) != []
    assert of(NodeWentDown, shard.send(30 * SECOND, batch([NODE]))) == []


# Whole batches


def unequal() -> Batch:
    """A batch whose last column is short."""
    return replace(batch([NODE], [row(1, 1)]), total=())


def pointing_beyond() -> Batch:
    """A batch whose row names a lease that is not listed."""
    return replace(batch([NODE], [row(1, 1)]), lease=(1,))


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (batch([]), NO_NODE),
        (batch([OTHER]), UNKNOWN_NODE),
        (batch([NODE, OTHER]), UNKNOWN_NODE),
        (batch([NODE], [row(n, n) for n in range(11)]), TOO_MANY_ROWS),
        (unequal(), UNEQUAL_COLUMNS),
        (replace(as_bytes(batch([NODE], [row(1, 1)])), total=bytes(9)), UNEQUAL_COLUMNS),
        (pointing_beyond(), LEASE_INDEX),
        (as_bytes(pointing_beyond()), LEASE_INDEX),
        (replace(batch([NODE], [row(1, 1)]), lease=(-1,)), LEASE_INDEX),
    ],
)
def test_a_batch_is_refused_as_a_whole_once_and_for_ever(payload: Any, code: Any) -> None:
    """Design 3: a refusal is an event, final for its number."""
    shard = shard_with_lease(replace(PARAMETERS, batch_rows=10))
    value = signed("gateway", payload, 1)
    (event,) = shard.take((20 * SECOND, value))
    assert isinstance(event, TelemetryRefused)
    assert event.code == code.number
    assert shard.take((21 * SECOND, value)) == []


def test_a_batch_for_another_shard_is_told_the_right_one() -> None:
    """Design 2: nodes of one shard, else wrong_shard names the right one, if it is ours to say."""
    shard = Shard(PARAMETERS, shard=0, shards=4)
    shard.learn(market(1, gateway_registered(), node_registered(node_of(1, 0, 4))))
    stranger = node_of(1, 3, 4)
    (event,) = shard.send(5, batch([node_of(1, 0, 4), stranger]))
    assert isinstance(event, TelemetryRefused)
    assert event.code == WRONG_SHARD.number
    assert event.detail.endswith("shard 3")
    assert shard_of(stranger, 4) == 3


def test_a_nodes_key_speaks_for_that_node_alone() -> None:
    """R6.7: a node key signs for one node, a gateway for all of its provider's."""
    shard = Shard(PARAMETERS)
    shard.learn(market(1, gateway_registered(), node_registered(NODE), node_registered(OTHER)))
    (event,) = shard.send(5, batch([NODE, OTHER]), signer=NODE.hex())
    assert isinstance(event, TelemetryRefused)
    assert event.code == KEY_ROLE.number
    assert of(TelemetryAccepted, shard.send(6, batch([NODE]), signer=NODE.hex()))
    assert of(TelemetryAccepted, shard.send(7, batch([NODE, OTHER])))


def test_unknown_and_revoked_keys_and_other_kinds_are_counted_and_get_no_event() -> None:
    """Design 3: nobody's number is touched."""
    shard = shard_with_lease()
    assert shard.send(20, batch([NODE]), signer="stranger") == []
    assert shard.send(21, RetireNode(node=NODE)) == []
    shard.learn(market(30, KeyRevoked(at_us=29, key=key_of("gateway"))))
    assert shard.send(31, batch([NODE])) == []
    assert shard.refused == [UNKNOWN_KEY.number, WRONG_KIND.number, REVOKED_KEY.number]


def test_a_tick_that_no_clock_signed_is_counted() -> None:
    """Design 2: ticks are signed by a clock key of the genesis."""
    shard = shard_with_lease()
    assert shard.send(20, Tick(time_us=5)) == []
    assert shard.refused == [KEY_ROLE.number]


def test_a_retired_node_is_heard_until_its_last_lease_has_closed() -> None:
    """A closing lease still takes readings; after it the node is unknown."""
    shard = shard_with_lease(replace(PARAMETERS, closing_us=60 * SECOND))
    (withdrawn,) = shard.learn(market(11 * SECOND, NodeRetired(at_us=11 * SECOND, node=NODE)))
    assert isinstance(withdrawn, NodeWithdrawn)
    assert of(TelemetryAccepted, shard.send(20 * SECOND, batch([NODE])))
    shard.learn(market(30 * SECOND, lease_ended(LEASE, NODE, 30 * SECOND, 90 * SECOND)))
    shard.learn(market(300 * SECOND))
    events = shard.send(300 * SECOND, batch([NODE]))
    assert of(UsageStated, events)[-1].final
    assert isinstance(events[-1], TelemetryRefused)


# Rows


def test_readings_are_cumulative_and_the_highest_counts() -> None:
    """R1.4, R4.7: duplicates, loss and reorder change nothing; generations are summed."""
    shard = shard_with_lease(devices=0)
    at = 20 * SECOND
    shard.send(at, batch([NODE], [row(50, at), row(30, at - 1), row(5, at, generation=1)]))
    shard.send(at + 1, batch([NODE], [row(40, at - 2), row(60, at + 1), row(7, at, EGRESS)]))
    shard.learn(market(100 * SECOND))
    (stated,) = of(UsageStated, shard.send(95 * SECOND, batch([NODE])))
    assert stated.quantities == (
        Quantity(resource="inference.tokens", quantity=65),
        Quantity(resource="network.egress", quantity=7),
    )


@pytest.mark.parametrize(
    "wrong",
    [
        (SECOND_LEASE, TOKENS, 0, 0, 1),
        (LEASE, 0, 0, 0, 1),
        (LEASE, TOKENS + 1, 0, 0, 1),
        (LEASE, 60_000, 0, 0, 1),
        (LEASE, TOKENS, 64, 0, 1),
        (LEASE, TOKENS, 0, 5 * 60 * SECOND + 1, 1),
        (LEASE, TOKENS, 0, -24 * 3600 * SECOND - 1, 1),
        (LEASE, TOKENS, 0, 0, -1),
        (LEASE, TOKENS, 0, 0, QUANTITY_MAX + 1),
    ],
)
@pytest.mark.parametrize("encoding", [lambda b: b, as_bytes])
def test_a_wrong_row_is_refused_and_the_others_count(wrong: Any, encoding: Any) -> None:
    """R2, R4.6–R4.8: rows are judged alone; the third number is relative to now here."""
    shard = shard_with_lease(limits={"inference.tokens": 2**61})
    now = 40 * SECOND
    lease, resource, generation, offset, total = wrong
    rows = [row(1, now), (lease, resource, generation, now + offset, total), row(2, now + 1)]
    assert refused_rows(shard.send(now, encoding(batch([NODE], rows)))) == [1]


def test_readings_exactly_at_the_bounds_of_lateness_count() -> None:
    """R4.6: refused over 5 min ahead, over 24 h behind."""
    shard = shard_with_lease()
    now = 20 * SECOND
    late, early = now - 24 * 3600 * SECOND, now + 300 * SECOND
    assert refused_rows(shard.send(now, batch([NODE], [row(1, late), row(2, early)]))) == []


def test_a_row_of_a_lease_on_a_node_that_is_not_listed_is_refused() -> None:
    """A batch speaks for the nodes it lists."""
    shard = shard_with_lease()
    shard.learn(market(11 * SECOND, node_registered(OTHER)))
    assert refused_rows(shard.send(20 * SECOND, batch([OTHER], [row(1, 20 * SECOND)]))) == [0]


def test_readings_count_from_ready_until_the_lease_has_closed() -> None:
    """R4.6: half-open; after its end a lease is closing, then readings are refused."""
    shard = shard_with_lease()
    assert refused_rows(shard.send(10 * SECOND - 1, batch([NODE], [row(1, 1)]))) == [0]
    assert refused_rows(shard.send(10 * SECOND, batch([NODE], [row(2, 2)]))) == []
    shard.learn(market(20 * SECOND, lease_ended(LEASE, NODE, 20 * SECOND, 50 * SECOND)))
    assert refused_rows(shard.send(50 * SECOND - 1, batch([NODE], [row(3, 3)]))) == []
    assert refused_rows(shard.send(50 * SECOND, batch([NODE], [row(4, 4)]))) == [0]


def test_a_row_above_the_limit_is_refused_alone_against_the_state_before() -> None:
    """R4.8: limit × (time since ready + 60 s)."""
    shard = shard_with_lease(limits={"inference.tokens": 100})
    now = 20 * SECOND
    rows = [row(7000, now), row(7001, now), row(7000, now, generation=1)]
    assert refused_rows(shard.send(now, batch([NODE], rows))) == [1]
    # Both generations counted, so that together they are above: the next rise is refused.
    later = [row(7001, now + 1), row(7000, now)]
    assert refused_rows(shard.send(now + 1, batch([NODE], later))) == [0, 1]


def test_at_most_ten_new_generations_in_24_hours() -> None:
    """R4.7: a generation is a restart of the lease's counters; old ones may still be read."""
    shard = shard_with_lease()
    now = 20 * SECOND
    rows = [row(1, now, generation=g) for g in range(12)] + [row(1, now, EGRESS, 3)]
    assert refused_rows(shard.send(now, batch([NODE], rows))) == [10, 11]
    after = now + 24 * 3600 * SECOND
    again = [row(2, after, generation=g) for g in (3, 11)]
    assert refused_rows(shard.send(after - 1, batch([NODE], again))) == [1]
    again = [row(3, after + 1, generation=g) for g in (3, 11)]
    assert refused_rows(shard.send(after, batch([NODE], again))) == []


def test_rows_that_together_pass_the_largest_quantity_are_refused() -> None:
    """R1.6: quantities above 2^62 are refused, also as a sum over generations."""
    shard = shard_with_lease(limits={"inference.tokens": 2**62})
    now = 40 * SECOND
    rows = [row(QUANTITY_MAX, now), row(1, now, generation=1), row(0, now, generation=2)]
    assert refused_rows(shard.send(now, batch([NODE], rows))) == [1]


# Contradictions


def test_two_totals_of_one_key_for_one_counter_and_time_are_a_contradiction() -> None:
    """R5.6: raised against the highest accepted total; the row is refused."""
    shard = shard_with_lease()
    (_, first) = shard.send(20 * SECOND, batch([NODE], [row(10, 15 * SECOND)]))
    events = shard.send(21 * SECOND, batch([NODE], [row(9, 14 * SECOND), row(11, 15 * SECOND)]))
    accepted, found = events
    assert refused_rows([accepted]) == [1]
    assert found == ContradictionFound(
        at_us=21 * SECOND,
        node=NODE,
        lease=LEASE,
        resource="inference.tokens",
        generation=0,
        time_us=15 * SECOND,
        key=key_of("gateway"),
        first_total=10,
        second_total=11,
        first=first.digest,
        second=accepted.digest,
    )


def test_of_equal_totals_in_a_batch_the_first_is_the_accepted_one() -> None:
    """R5.6: the highest accepted total keeps its own time, whatever equals it later."""
    shard = shard_with_lease()
    now = 20 * SECOND
    rows = [row(7, now - 1), row(10, now - 2), row(10, now - 3), row(9, now - 4)]
    shard.send(now, batch([NODE], [row(1, now - 9)]))
    shard.send(now, batch([NODE], rows))
    assert refused_rows(shard.send(now + 1, batch([NODE], [row(11, now - 3)]))) == []
    shard.send(now + 2, batch([NODE], [row(20, now - 5), row(20, now - 6)]))
    (_, found) = shard.send(now + 3, batch([NODE], [row(21, now - 5)]))
    assert isinstance(found, ContradictionFound)


def test_a_repeat_of_a_reading_contradicts_nothing() -> None:
    """R1.4: a duplicate is a duplicate."""
    shard = shard_with_lease()
    shard.send(20 * SECOND, batch([NODE], [row(10, 15 * SECOND)]))
    events = shard.send(21 * SECOND, batch([NODE], [row(10, 15 * SECOND)]))
    assert [type(event) for event in events] == [TelemetryAccepted]
    assert refused_rows(events) == []


def test_another_key_may_say_otherwise_without_contradiction() -> None:
    """R5.6: two readings of one key."""
    shard = shard_with_lease()
    shard.send(20 * SECOND, batch([NODE], [row(10, 15 * SECOND)]))
    events = shard.send(21 * SECOND, batch([NODE], [row(11, 15 * SECOND)]), signer=NODE.hex())
    assert refused_rows(events) == []


# Coverage and statements


def test_covered_time_is_between_signs_no_further_apart_than_the_grace() -> None:
    """R4.5: clipped to the lease; device time is derived from it."""
    shard = shard_with_lease(devices=2000)
    beat(shard, 5, 55)
    shard.learn(market(90 * SECOND))
    (stated,) = of(UsageStated, shard.send(90 * SECOND, batch([NODE])))
    assert stated.window_end_us == 60 * SECOND
    assert stated.covered_us == 45 * SECOND  # from ready at 10 s to the last sign before 60 s
    assert stated.quantities == (Quantity(resource="gpu.h100", quantity=2000 * 45_000),)
    assert not stated.final


def test_the_pair_over_a_windows_end_belongs_to_the_window_of_its_second_sign() -> None:
    """R4.6: pairs whose second is before the window's end, so covered time never falls."""
    shard = shard_with_lease()
    beat(shard, 15, 155)
    shard.learn(market(500 * SECOND))
    assert [
        (e.window_end_us // SECOND, e.covered_us // SECOND) for e in of(UsageStated, shard.events)
    ] == [
        (60, 40),
        (120, 100),
    ]


def test_ready_and_end_are_no_signs_of_life() -> None:
    """R4.5: only telemetry is; no heartbeat, no pay."""
    shard = shard_with_lease()
    shard.learn(market(40 * SECOND, lease_ended(LEASE, NODE, 40 * SECOND, 100 * SECOND)))
    shard.learn(market(1000 * SECOND))
    shard.send(30 * SECOND, batch([NODE]))
    (final,) = of(UsageStated, shard.send(300 * SECOND, batch([NODE])))
    assert final.final
    assert (final.covered_us, final.quantities) == (0, ())


def test_a_statement_waits_until_market_and_telemetry_have_passed() -> None:
    """R4.6: both, by the window's end and the largest grace; whoever comes last triggers it."""
    shard = shard_with_lease()
    beat(shard, 20, 50)
    assert of(UsageStated, shard.learn(market(90 * SECOND))) == []
    assert of(UsageStated, shard.send(90 * SECOND - 1, batch([NODE]))) == []
    assert len(of(UsageStated, shard.send(90 * SECOND, batch([NODE])))) == 1
    beat(shard, 90, 150)
    assert of(UsageStated, shard.learn(market(150 * SECOND - 1))) == []
    (stated,) = of(UsageStated, shard.learn(market(150 * SECOND)))
    assert stated.window_end_us == 120 * SECOND


def test_a_reading_belongs_to_the_window_in_which_it_arrives() -> None:
    """R4.6: later readings that are there already do not enter an earlier statement."""
    shard = shard_with_lease(devices=0)
    shard.send(59 * SECOND, batch([NODE], [row(5, 1)]))
    shard.send(60 * SECOND, batch([NODE], [row(9, 2)]))
    shard.send(85 * SECOND, batch([NODE], [row(12, 3)]))
    shard.learn(market(1000 * SECOND))
    for at in (110, 130, 150):
        shard.send(at * SECOND, batch([NODE]))
    stated = of(UsageStated, shard.events)
    assert [(s.window_end_us // SECOND, s.quantities[0].quantity) for s in stated] == [
        (60, 5),
        (120, 12),
    ]


def test_a_lease_whose_quantities_did_not_change_gets_no_statement() -> None:
    """R4.6: only the last one is always written."""
    shard = shard_with_lease(devices=0)
    beat(shard, 20, 200)
    shard.learn(market(1000 * SECOND))
    assert of(UsageStated, shard.send(210 * SECOND, batch([NODE]))) == []
    assert of(UsageWindowClosed, shard.events)


def test_the_final_statement_is_that_of_the_window_that_holds_the_closing() -> None:
    """R4.6: lease end and closing, rounded up to a window's end; then nothing is kept."""
    shard = shard_with_lease()
    beat(shard, 20, 40)
    shard.learn(market(50 * SECOND, lease_ended(LEASE, NODE, 35 * SECOND, 130 * SECOND)))
    shard.learn(market(500 * SECOND))
    shard.send(125 * SECOND, batch([NODE], [row(3, 1)]))
    shard.send(209 * SECOND, batch([NODE]))
    assert not any(event.final for event in of(UsageStated, shard.events))
    events = shard.send(210 * SECOND, batch([NODE]))
    (final,) = of(UsageStated, events)
    assert final.final
    assert (final.window_end_us, final.covered_us) == (180 * SECOND, 15 * SECOND)
    assert Quantity(resource="inference.tokens", quantity=3) in final.quantities
    assert refused_rows(shard.send(211 * SECOND, batch([NODE], [row(4, 1)]))) == [0]


def test_statements_of_a_window_come_in_the_order_of_leases() -> None:
    """Design 2: deadlines of one instant are ordered by id."""
    shard = shard_with_lease()
    shard.learn(
        market(
            11 * SECOND,
            lease_opened(SECOND_LEASE, NODE),
            lease_ready(SECOND_LEASE, NODE, 11 * SECOND),
        )
    )
    beat(shard, 20, 50)
    shard.learn(market(90 * SECOND))
    stated = of(UsageStated, shard.send(90 * SECOND, batch([NODE])))
    assert [event.lease for event in stated] == sorted([LEASE, SECOND_LEASE])


def test_a_new_window_length_begins_where_a_window_ends() -> None:
    """R10: windows keep what they began with; the final statement moves with the alignment."""
    shard = shard_with_lease()
    shard.send(20 * SECOND, batch([NODE], [row(1, 1)]))
    shard.learn(market(25 * SECOND, lease_ended(LEASE, NODE, 25 * SECOND, 100 * SECOND)))
    change = ParameterChanged(at_us=26 * SECOND, name="usage_window_us", value=45 * SECOND)
    shard.learn(market(26 * SECOND, change))
    shard.send(50 * SECOND, batch([NODE], [row(2, 2)]))
    shard.send(70 * SECOND, batch([NODE], [row(3, 3)]))
    shard.learn(market(1000 * SECOND))
    shard.send(200 * SECOND, batch([NODE]))
    stated = of(UsageStated, shard.events)
    assert [(s.window_end_us // SECOND, s.quantities[-1].quantity, s.final) for s in stated] == [
        (60, 2, False),
        (90, 3, False),
        (135, 3, True),
    ]
