"""A whole lease kept by a second set of books, written from the rules alone (R1, R4, R8).

The model knows prices, percentages and times as numbers of its own. It is told what the statements
say, who tops up and who ends the lease when; what it says of every line, of both sides' earnings
and of the refund has to be what the market posts.
"""

from __future__ import annotations

import random
from fractions import Fraction
from math import floor
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from domain.journal import NOBODY, Purse
from domain.lease import (
    CloseLease,
    CompleteLease,
    Escrow,
    FailLease,
    LeaseClosed,
    LeaseEnded,
    LeaseOpened,
    RejectLease,
    TopUpLease,
)
from domain.telemetry import Quantity, UsageStated
from tests.domain.deals import leased
from tests.support.market import H100, HOUR, MINUTE, SECOND, SYNOR, World

#: Row order of R2, whether allocated, nano a base unit, and the protocol's share of it.
BOOK = {
    H100: ("allocated", Fraction(4 * SYNOR, 3_600_000_000), Fraction(15, 100)),
    "container.cpu": ("allocated", Fraction(SYNOR, 50 * 3_600_000_000), Fraction(15, 100)),
    "storage.hot": ("allocated", Fraction(SYNOR, 10 * 2_592_000_000_000), Fraction(20, 100)),
    "network.egress": ("usage", Fraction(SYNOR, 20 * 10**9), Fraction(25, 100)),
    "function.invocations": ("usage", Fraction(SYNOR, 5 * 10**6), Fraction(15, 100)),
    "edge.bandwidth": ("usage", Fraction(8 * SYNOR, 100 * 10**9), Fraction(25, 100)),
}
AMOUNTS = {H100: 750, "container.cpu": 1501, "storage.hot": 777_777}
LIMITS = {"network.egress": 10**9, "function.invocations": 10**6, "edge.bandwidth": 10**9}
FAULTS = {"provider_failed"}


class Books:
    """R1.4, R1.5, R4.4, R4.5, R8.3 and R8.4 in words of arithmetic."""

    def __init__(self, allocated: int, usage: int, ready_us: int, term_us: int) -> None:
        self.money = {"allocated": allocated, "usage": usage}
        self.ready_us, self.term_us = ready_us, term_us
        self.quantity = dict.fromkeys(BOOK, 0)
        self.charged = dict.fromkeys(BOOK, 0)
        self.posted = dict.fromkeys(BOOK, 0)
        self.unfunded = dict.fromkeys(BOOK, 0)
        self.covered_us = 0
        self.early = 0

    def waits(self, resource: str, end_us: int, ended: tuple[str, int] | None) -> bool:
        """Whether what a statement finds stays in escrow."""
        if ended is None:
            hour = HOUR if resource == H100 else 10 * MINUTE
            return end_us - self.ready_us < hour
        reason, at_us = ended
        if reason == "buyer_rejected":
            return True
        return resource == H100 and reason in FAULTS and at_us - self.ready_us < HOUR

    def statement(
        self,
        end_us: int,
        covered_us: int,
        used: dict[str, int],
        ended: tuple[str, int] | None,
        final: bool,
    ) -> bool:
        """Take one in; whether an escrow did not cover it."""
        self.covered_us = max(self.covered_us, covered_us)
        least = 0
        if final and ended is not None and ended[0] == "buyer_closed" and self.covered_us:
            least = min(10 * MINUTE, self.term_us)
        left = dict(self.money)
        short = False
        for resource, (kind, price, _) in BOOK.items():
            if kind == "allocated":
                derived = AMOUNTS[resource] * self.covered_us // 1000
                self.quantity[resource] = max(self.quantity[resource], derived)
                charged_for = max(self.quantity[resource], AMOUNTS[resource] * least // 1000)
            else:
                said = used.get(resource, 0)
                charged_for = self.quantity[resource] = max(self.quantity[resource], said)
            self.charged[resource] = max(self.charged[resource], floor(charged_for * price))
            open_nano = self.charged[resource] - self.posted[resource] - self.unfunded[resource]
            there = min(open_nano, left[kind])
            left[kind] -= there
            self.unfunded[resource] += open_nano - there
            short = short or there < open_nano
            if not self.waits(resource, end_us, ended):
                self.posted[resource] += there
                self.money[kind] -= there
        return short

    def leave(self, reserved: bool, at_us: int) -> None:
        """R8.4: a buyer who leaves a reserved lease pays a tenth of the rest, of 240 h at most."""
        if reserved:
            rest_us = min(self.ready_us + self.term_us - at_us, 240 * HOUR)
            _, price, _ = BOOK[H100]
            whole = floor((AMOUNTS[H100] * rest_us // 1000) * price)
            self.early = whole // 10

    def close(self) -> tuple[int, int, int]:
        """What provider and protocol have in all, and what returns to the buyer."""
        # Of a term of minutes the least charge may leave less than it; nothing becomes a debt.
        early = min(self.early, self.money["allocated"])
        self.money["allocated"] -= early
        protocol = sum(floor(self.posted[r] * share) for r, (_, _, share) in BOOK.items())
        protocol += floor(early * BOOK[H100][2])
        all_of_it = sum(self.posted.values()) + early
        return all_of_it - protocol, protocol, sum(self.money.values())


def earned(world: World) -> tuple[int, int]:
    """Whatever the provider and the protocol were posted, matured or not."""
    alice = world.account("alice")
    return (
        sum(world.balance(p, alice) for p in (Purse.PENDING, Purse.EARNED, Purse.PAYABLE)),
        world.balance(Purse.PROTOCOL_PENDING, NOBODY) + world.balance(Purse.PROTOCOL, NOBODY),
    )


def compare(world: World, opened: LeaseOpened, books: Books) -> None:
    """Every line of the lease against the second set of books."""
    lines = {line.resource: line for line in world.state(opened.lease).lines}
    for resource in BOOK:
        line = lines.get(resource)
        found = (
            (line.quantity, line.charged_nano, line.posted_nano, line.unfunded_nano)
            if line is not None
            else (0, 0, 0, 0)
        )
        assert found == (
            books.quantity[resource],
            books.charged[resource],
            books.posted[resource],
            books.unfunded[resource],
        ), resource
        if line is not None:
            assert line.protocol_nano == floor(line.posted_nano * BOOK[resource][2])


def say(
    world: World,
    opened: LeaseOpened,
    end_us: int,
    covered_us: int,
    used: dict[str, int],
    *,
    final: bool,
) -> list[Any]:
    """A shard's statement, allocated quantities derived from covered time (R2)."""
    quantities = {r: a * covered_us // 1000 for r, a in AMOUNTS.items()} | used
    return world.metering(
        UsageStated(
            at_us=world.now,
            lease=opened.lease,
            window_end_us=end_us,
            covered_us=covered_us,
            quantities=tuple(
                Quantity(resource=r, quantity=quantities[r]) for r in BOOK if quantities.get(r)
            ),
            final=final,
        )
    )


ENDS: dict[str, tuple[str, type[Any]]] = {
    "buyer_closed": ("bob", CloseLease),
    "buyer_rejected": ("bob", RejectLease),
    "provider_failed": ("alice", FailLease),
    "completed": ("alice-0", CompleteLease),
}


@pytest.mark.timeout(1200)
@given(seed=st.integers(0, 2**40))
@example(seed=10_000_000_000)
def test_a_lease_costs_to_the_nano_what_a_second_set_of_books_says(seed: int) -> None:
    """R1.4, R1.5, R4.5, R8.3, R8.4: any statements, top-ups and end; reserved or not."""
    draw = random.Random(seed)
    reserved = draw.random() < 0.4
    term_us = draw.choice([7 * MINUTE + 1, 45 * MINUTE, 2 * HOUR + 1, 3 * HOUR, 150 * HOUR])
    budget = draw.choice([0, 1, 50_000_000, 200_000_003, 10 * SYNOR])
    world, opened = leased(
        capacity={H100: 1000, "container.cpu": 10**6, "storage.hot": 10**9},
        quantity_milli=AMOUNTS[H100],
        ask={"quantity_milli": AMOUNTS[H100]},
        allocations={r: a for r, a in AMOUNTS.items() if r != H100},
        metered=LIMITS,
        usage_budget_nano=budget,
        term_us=term_us,
        reserved=reserved,
    )
    ready_us = world.now
    books = Books(opened.escrow_allocated_nano, budget, ready_us, term_us)
    free = world.free("bob")
    used = dict.fromkeys(LIMITS, 0)
    covered_us = 0
    ended: tuple[str, int] | None = None
    for _ in range(draw.randint(0, 6)):
        world.wait(draw.choice([SECOND, 7 * SECOND + 123, MINUTE, 10 * MINUTE, HOUR, 100 * HOUR]))
        if world.events(LeaseEnded):
            break
        if draw.random() < 0.2:
            nano = draw.choice([1, 30_000_000, SYNOR])
            kind = draw.choice(["allocated", "usage"])
            world.ok(
                "bob",
                TopUpLease(lease=opened.lease, escrow=Escrow[kind.upper()], amount_nano=nano),
            )
            books.money[kind] += nano
            free -= nano
        covered_us = min(covered_us + draw.randint(0, world.now - ready_us - covered_us), term_us)
        for resource in used:
            used[resource] += draw.choice([0, 0, 1, 999_999, 10**9 + 7])
        end_us = ready_us + draw.choice([world.now - ready_us, 10 * MINUTE, HOUR - 1, HOUR])
        end_us = min(end_us, world.now)
        say(world, opened, end_us, covered_us, used, final=False)
        if books.statement(end_us, covered_us, used, None, final=False):
            (gone,) = world.events(LeaseEnded)
            assert (gone.reason.name, gone.at_us) == ("EXHAUSTED", world.now)
            ended = ("exhausted", world.now)
        compare(world, opened, books)
        if ended is not None:
            break
    if ended is None and not world.events(LeaseEnded):
        ended = _end(world, opened, draw, books, reserved)
    if ended is None:
        (gone,) = world.events(LeaseEnded)
        ended = (gone.reason.name.lower(), gone.at_us)
        assert ended == ("expired", ready_us + term_us)
    world.wait(12 * MINUTE)
    covered_us = max(covered_us, min(ended[1] - ready_us, covered_us + draw.randint(0, MINUTE)))
    say(world, opened, world.now - MINUTE, covered_us, used, final=True)
    books.statement(world.now - MINUTE, covered_us, used, ended, final=True)
    compare(world, opened, books)
    provider, protocol, refund = books.close()
    closed = world.last(LeaseClosed)
    assert closed.refund_nano == refund >= 0
    assert world.free("bob") == free + refund
    assert earned(world) == (provider, protocol)


def _end(
    world: World, opened: LeaseOpened, draw: random.Random, books: Books, reserved: bool
) -> tuple[str, int] | None:
    """Somebody who may end the lease does so; None where only its term is left to end it."""
    able = ["buyer_closed"]
    if world.now - books.ready_us < 10 * MINUTE:
        able.append("buyer_rejected")
    if not reserved:
        able.append("provider_failed")
        if world.now - books.ready_us >= HOUR:
            able.append("completed")
    reason = draw.choice([*able, "expired"])
    if reason == "expired":
        world.at(books.ready_us + books.term_us)
        return None
    who, kind = ENDS[reason]
    world.ok(who, kind(lease=opened.lease))
    if reason == "buyer_closed":
        books.leave(reserved, world.now)
    return reason, world.now


@pytest.mark.parametrize(("minutes", "earns"), [(59, False), (60, True)])
def test_a_provider_that_fails_earns_device_time_from_the_full_hour_on(
    minutes: int, earns: bool
) -> None:
    """R8.3: half-open, as every interval is (R1.3)."""
    world, opened = leased()
    world.wait(minutes * MINUTE)
    world.ok("alice", FailLease(lease=opened.lease))
    world.wait(12 * MINUTE)
    covered = minutes * MINUTE
    quantity = 1000 * covered // 1000
    world.metering(
        UsageStated(
            at_us=world.now,
            lease=opened.lease,
            window_end_us=world.now - MINUTE,
            covered_us=covered,
            quantities=(Quantity(resource=H100, quantity=quantity),),
            final=True,
        )
    )
    assert sum(earned(world)) == (4 * SYNOR if earns else 0)
