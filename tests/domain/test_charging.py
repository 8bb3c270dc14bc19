"""Charges: a function of the cumulative quantity, split by class, within escrow (R1, R4.5, R8)."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from domain.ids import LeaseId
from domain.journal import NOBODY, Purse
from domain.lease import (
    CloseLease,
    CompleteLease,
    EndReason,
    Escrow,
    FailLease,
    LeaseClosed,
    LeaseEnded,
    LeaseOpened,
    LeaseReady,
    ReadyLeases,
    ReclaimLease,
    TopUpLease,
    UsageLine,
    UsagePosted,
)
from domain.ledger import ChangeParameter
from tests.domain.deals import (
    bid,
    clear,
    close_out,
    escrows,
    leased,
    market_of,
    offer,
    state_usage,
)
from tests.support.market import DAY, H100, HOUR, MINUTE, SECOND, SYNOR, World

STORAGE = {H100: 1000, "storage.hot": 10**6}
RECLAIMABLE = {"interruptible": True, "notice_us": 2 * MINUTE}


def lines_of(world: World, lease: LeaseId) -> dict[str, UsageLine]:
    """The line items of a lease by resource."""
    return {line.resource: line for line in world.state(lease).lines}


def earned(world: World) -> tuple[int, int]:
    """What is pending for the provider and for the protocol."""
    return (
        world.balance(Purse.PENDING, world.account("alice")),
        world.balance(Purse.PROTOCOL_PENDING, NOBODY),
    )


def test_a_statement_posts_the_difference_split_by_the_class_of_revenue() -> None:
    """Device 85/15, storage 80/20, network 75/25; each by its cumulative charge."""
    world, opened = leased(
        capacity=STORAGE,
        allocations={"storage.hot": 10**6},
        metered={"network.egress": 10**9},
        usage_budget_nano=10 * SYNOR,
    )
    world.wait(HOUR + 2 * MINUTE)
    (posted,) = state_usage(
        world,
        opened.lease,
        covered_us=30 * MINUTE,
        quantities={"network.egress": 3 * 10**9 + 1},
        window_end_us=world.now - MINUTE,
    )
    assert isinstance(posted, UsagePosted)
    device, storage, network = posted.lines
    assert device.charged_nano == device.posted_nano == 2 * SYNOR
    assert storage.charged_nano == 10**6 * 1_800_000 * (SYNOR // 10) // (1000 * 2_592_000_000)
    assert network.charged_nano == (3 * 10**9 + 1) * (SYNOR // 20) // 10**9
    assert device.protocol_nano == device.charged_nano * 15 // 100
    assert storage.protocol_nano == storage.charged_nano * 20 // 100
    assert network.protocol_nano == network.charged_nano * 25 // 100
    protocol = device.protocol_nano + storage.protocol_nano + network.protocol_nano
    total = device.charged_nano + storage.charged_nano + network.charged_nano
    assert earned(world) == (total - protocol, protocol)
    assert (posted.provider_nano, posted.protocol_nano) == earned(world)
    assert escrows(world, opened.lease) == (
        opened.escrow_allocated_nano - device.charged_nano - storage.charged_nano,
        10 * SYNOR - network.charged_nano,
    )


def test_lines_that_did_not_change_are_not_repeated() -> None:
    """A second, equal statement posts nothing."""
    world, opened = leased()
    world.wait(2 * HOUR - SECOND)
    state_usage(world, opened.lease, covered_us=HOUR)
    (again,) = state_usage(world, opened.lease, covered_us=HOUR)
    assert again.lines == again.postings == ()
    (lower,) = state_usage(world, opened.lease, covered_us=MINUTE)
    assert lower.lines == lower.postings == ()
    assert lower.covered_us == HOUR


@given(
    st.lists(
        st.tuples(st.integers(0, 3000), st.integers(0, 5 * 10**9)), min_size=1, max_size=6
    ).map(lambda steps: sorted(steps)),
    st.randoms(use_true_random=False),
)
def test_a_bill_is_a_function_of_the_quantity_alone(
    steps: list[tuple[int, int]], chance: Any
) -> None:
    """Any statements in any order, repeated, come to the bill of the largest ones at once."""
    bills = []
    covered, egress = max(s for s, _ in steps), max(q for _, q in steps)
    for statements in ([(covered, egress)], chance.sample(steps * 2, 2 * len(steps))):
        world, opened = leased(metered={"network.egress": 10**9}, usage_budget_nano=SYNOR)
        world.wait(90 * MINUTE)
        for covered_s, sent in statements:
            state_usage(
                world,
                opened.lease,
                covered_us=covered_s * SECOND,
                quantities={"network.egress": sent},
            )
        world.ok("alice-0", CompleteLease(lease=opened.lease))
        close_out(world, opened.lease, covered_us=covered * SECOND, network_egress=egress)
        bills.append((lines_of(world, opened.lease), earned(world), world.free("bob")))
    assert bills[0] == bills[1]


# The first hour


def test_device_time_of_the_first_hour_waits_in_escrow_and_then_is_posted() -> None:
    """Until the statement of a window that ends an hour after ready; storage waits ten minutes."""
    world, opened = leased(capacity=STORAGE, allocations={"storage.hot": 10**6})
    ready = world.last(LeaseReady).at_us
    world.wait(HOUR)
    for window, posts in (
        (10 * MINUTE - 1, ()),
        (10 * MINUTE, ("storage.hot",)),
        (HOUR - 1, ("storage.hot",)),
        (HOUR, (H100, "storage.hot")),
    ):
        state_usage(world, opened.lease, covered_us=window // 2, window_end_us=ready + window)
        lines = lines_of(world, opened.lease)
        assert lines[H100].charged_nano > 0
        assert {r for r, line in lines.items() if line.posted_nano} == set(posts)
        assert all(
            line.posted_nano in (0, line.charged_nano) and line.unfunded_nano == 0
            for line in lines.values()
        )
    world.check_replay()


def test_a_provider_that_ends_a_lease_in_its_first_hour_earns_no_device_time() -> None:
    """The accrual returns; storage is paid all the same. At exactly an hour it is earned."""
    for late_us, earns in ((-1, False), (0, True)):
        world, opened = leased(
            capacity=STORAGE, allocations={"storage.hot": 10**6}, ask=RECLAIMABLE
        )
        ready = world.last(LeaseReady).at_us
        world.ok("alice", ReclaimLease(lease=opened.lease, deadline_us=ready + HOUR + late_us))
        world.at(ready + HOUR)
        assert world.last(LeaseEnded).reason is EndReason.PROVIDER_RECLAIMED
        close_out(world, opened.lease, covered_us=50 * MINUTE)
        lines = lines_of(world, opened.lease)
        assert lines["storage.hot"].posted_nano == lines["storage.hot"].charged_nano > 0
        assert lines[H100].posted_nano == (lines[H100].charged_nano if earns else 0)
        paid = sum(line.posted_nano for line in lines.values())
        assert world.free("bob") == 1000 * SYNOR - paid
        world.check_replay()


def test_another_end_within_the_first_hour_posts_its_device_time() -> None:
    """The buyer was done after twenty minutes."""
    world, opened = leased()
    world.wait(20 * MINUTE)
    world.ok("bob", CloseLease(lease=opened.lease))
    close_out(world, opened.lease, covered_us=19 * MINUTE)
    line = lines_of(world, opened.lease)[H100]
    assert line.posted_nano == line.charged_nano == 19 * 4 * SYNOR // 60


# Leaving early


def test_a_buyer_who_closes_pays_at_least_ten_minutes() -> None:
    """Covered for three; the line keeps the true quantity."""
    world, opened = leased()
    world.wait(3 * MINUTE)
    world.ok("bob", CloseLease(lease=opened.lease))
    close_out(world, opened.lease, covered_us=3 * MINUTE)
    line = lines_of(world, opened.lease)[H100]
    assert line.quantity == 1000 * 180_000
    assert line.charged_nano == line.posted_nano == 4 * SYNOR // 6
    assert world.free("bob") == 1000 * SYNOR - line.posted_nano


def test_the_minimum_is_the_term_where_that_is_shorter() -> None:
    """A term of four minutes."""
    world, opened = leased(term_us=4 * MINUTE)
    world.wait(MINUTE)
    world.ok("bob", CloseLease(lease=opened.lease))
    close_out(world, opened.lease, covered_us=MINUTE)
    assert lines_of(world, opened.lease)[H100].posted_nano == 4 * SYNOR // 15
    assert isinstance(world.last(LeaseClosed), LeaseClosed)


def test_no_heartbeat_no_minimum() -> None:
    """A node that never gave covered time is owed nothing (R4.5)."""
    world, opened = leased()
    world.wait(11 * MINUTE)
    world.ok("bob", CloseLease(lease=opened.lease))
    close_out(world, opened.lease, covered_us=0)
    assert world.free("bob") == 1000 * SYNOR


def test_a_buyer_who_stays_longer_pays_to_the_millisecond() -> None:
    """Beyond ten minutes the minimum is of no interest."""
    world, opened = leased()
    world.wait(61 * MINUTE)
    world.ok("bob", CloseLease(lease=opened.lease))
    close_out(world, opened.lease, covered_us=61 * MINUTE - 1)
    line = lines_of(world, opened.lease)[H100]
    assert line.quantity == 1000 * (61 * MINUTE - 1) // 1000
    assert line.posted_nano == line.quantity * 4 * SYNOR // 3_600_000_000


def test_leaving_a_reserved_lease_costs_a_tenth_of_the_device_time_left() -> None:
    """After half an hour of ten: a tenth of nine and a half; split as compute."""
    world, opened = leased(reserved=True, term_us=10 * HOUR)
    world.wait(30 * MINUTE)
    (end,) = world.ok("bob", CloseLease(lease=opened.lease))
    assert end.early_nano == 38 * SYNOR // 10
    close_out(world, opened.lease, covered_us=30 * MINUTE)
    paid = 2 * SYNOR + 38 * SYNOR // 10
    assert earned(world) == (paid - 2 * SYNOR * 15 // 100 - 57 * SYNOR // 100, 87 * SYNOR // 100)
    assert world.free("bob") == 1000 * SYNOR - paid
    world.check_replay()


def test_at_most_ten_days_of_what_is_left_count() -> None:
    """A term of forty days, left after a minute: a tenth of ten days."""
    world, (node,) = market_of(money=5000 * SYNOR)
    offer(world, "alice", node)
    bid(world, "bob", reserved=True, term_us=40 * DAY)
    clear(world)
    lease = world.last(LeaseOpened).lease
    world.ok("alice", ReadyLeases(leases=(lease,)))
    world.wait(MINUTE)
    (end,) = world.ok("bob", CloseLease(lease=lease))
    assert end.early_nano == 24 * 4 * SYNOR


def test_a_lease_keeps_the_price_of_leaving_that_it_began_with() -> None:
    """R10: a tenth of ten days became half of an hour for later leases only."""
    world, opened = leased(reserved=True, term_us=10 * HOUR)
    for name, value in (("early_ppm", 500_000), ("early_within_us", HOUR)):
        world.ok("operator", ChangeParameter(name=name, value=value))
    (end,) = world.ok("bob", CloseLease(lease=opened.lease))
    assert end.early_nano == 4 * SYNOR
    bid(world, "bob", reserved=True, term_us=10 * HOUR)
    clear(world)
    later = world.last(LeaseOpened).lease
    world.ok("alice", ReadyLeases(leases=(later,)))
    (end,) = world.ok("bob", CloseLease(lease=later))
    assert end.early_nano == 2 * SYNOR
    world.check_replay()


# Exhaustion


def test_an_escrow_that_does_not_cover_a_statement_fills_in_row_order_and_ends_the_lease() -> None:
    """Egress stands before edge bandwidth; what is uncovered is recorded, and no debt."""
    world, opened = leased(
        metered={"edge.bandwidth": 10**9, "network.egress": 10**9}, usage_budget_nano=SYNOR // 10
    )
    world.wait(HOUR + 2 * MINUTE)
    posted, end = state_usage(
        world,
        opened.lease,
        covered_us=30 * MINUTE,
        quantities={"network.egress": 10**9, "edge.bandwidth": 10**9},
    )
    assert [line.resource for line in posted.lines] == [H100, "network.egress", "edge.bandwidth"]
    _, egress, bandwidth = posted.lines
    assert (egress.posted_nano, egress.unfunded_nano) == (SYNOR // 20, 0)
    assert (bandwidth.posted_nano, bandwidth.unfunded_nano) == (SYNOR // 20, 3 * SYNOR // 100)
    assert (end.reason, end.at_us) == (EndReason.EXHAUSTED, posted.at_us)
    assert escrows(world, opened.lease)[1] == 0
    close_out(
        world,
        opened.lease,
        covered_us=31 * MINUTE,
        network_egress=2 * 10**9,
        edge_bandwidth=10**9,
    )
    lines = lines_of(world, opened.lease)
    assert lines["network.egress"].unfunded_nano == SYNOR // 20
    assert lines["edge.bandwidth"].unfunded_nano == 3 * SYNOR // 100
    assert lines[H100].unfunded_nano == 0
    world.check_replay()


def test_a_charge_beyond_all_money_stays_within_its_field() -> None:
    """As many requests as fit a quantity, at 200 nano each: unfunded, and no bug."""
    world, opened = leased(metered={"function.invocations": 2**62}, usage_budget_nano=SYNOR)
    world.wait(HOUR)
    posted, end = state_usage(
        world, opened.lease, covered_us=0, quantities={"function.invocations": 2**62}
    )
    (line,) = posted.lines
    assert (line.charged_nano, line.unfunded_nano) == (2**62, 2**62 - SYNOR)
    assert end.reason is EndReason.EXHAUSTED


def test_a_top_up_before_the_statement_counts() -> None:
    """An earlier market position; the allocated escrow would not have helped."""
    world, opened = leased(metered={"network.egress": 10**9}, usage_budget_nano=0)
    world.ok("bob", TopUpLease(lease=opened.lease, escrow=Escrow.USAGE, amount_nano=SYNOR // 20))
    world.wait(HOUR)
    events = state_usage(
        world, opened.lease, covered_us=MINUTE, quantities={"network.egress": 10**9}
    )
    assert [type(event) for event in events] == [UsagePosted]


def test_what_is_held_is_not_spent_twice() -> None:
    """Device time of the first hour keeps its part of the escrow; the rest of it is storage's."""
    world, opened = leased(capacity=STORAGE, allocations={"storage.hot": 10**6}, term_us=HOUR)
    world.wait(HOUR)
    close_out(world, opened.lease, covered_us=HOUR)
    lines = lines_of(world, opened.lease)
    assert lines[H100].posted_nano == 4 * SYNOR
    assert all(line.unfunded_nano == 0 for line in lines.values())


def test_a_provider_that_fails_after_the_first_hour_keeps_what_it_earned() -> None:
    """And is paid to the last covered second."""
    world, opened = leased()
    world.wait(90 * MINUTE)
    state_usage(world, opened.lease, covered_us=80 * MINUTE)
    world.ok("alice", FailLease(lease=opened.lease))
    close_out(world, opened.lease, covered_us=90 * MINUTE)
    assert lines_of(world, opened.lease)[H100].posted_nano == 6 * SYNOR
