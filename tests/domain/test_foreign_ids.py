"""Ids that name something else: whoever sends one is refused, and the market goes on.

Aggregates of all kinds share one space of ids, all of them public, so a command may name a bid
where a lease belongs, and a deposit on L1 may name anything.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from domain.account import AdmitAccount, ObserveDeposit
from domain.bid import BidState, CancelBid
from domain.epoch import EpochCut, epoch_aggregate
from domain.ids import AccountId, Bytes16, Hash32, Wide
from domain.journal import Purse
from domain.lease import (
    CloseLease,
    CompleteLease,
    Escrow,
    FailLease,
    LeaseState,
    ReadyLeases,
    ReclaimLease,
    RejectLease,
    TopUpLease,
)
from domain.ledger import LEDGER_ID
from domain.node import AttestationRow, AttestNodes, NodeState, RetireNode
from domain.offer import OfferState, WithdrawOffer
from domain.round import instrument_of
from tests.domain.deals import bid, clear, leased
from tests.support.market import DAY, H100

NOWHERE = Hash32(bytes(32))
#: Who sends it, what answers, the command for an id.
BY_ID: list[tuple[str, str, Callable[[Any], Any]]] = [
    ("bob", "lease_unknown", lambda i: CloseLease(lease=i)),
    ("bob", "lease_unknown", lambda i: RejectLease(lease=i)),
    ("bob", "lease_unknown", lambda i: TopUpLease(lease=i, escrow=Escrow.USAGE, amount_nano=1)),
    ("alice", "lease_unknown", lambda i: FailLease(lease=i)),
    ("alice", "lease_unknown", lambda i: ReclaimLease(lease=i, deadline_us=0)),
    ("alice-0", "lease_unknown", lambda i: CompleteLease(lease=i)),
    ("bob", "order_unknown", lambda i: CancelBid(bid=i)),
    ("alice", "order_unknown", lambda i: WithdrawOffer(offer=i)),
    ("alice", "node_unknown", lambda i: RetireNode(node=i)),
    ("alice", "admission_not_wished", lambda i: AdmitAccount(account=i)),
]

#: What the refused command is about.
SUBJECT: dict[str, Any] = {
    "lease_unknown": LeaseState,
    "order_unknown": BidState | OfferState,
    "node_unknown": NodeState,
    "admission_not_wished": (),
}


@pytest.mark.parametrize(("who", "name", "command"), BY_ID)
def test_a_command_that_names_something_else_is_refused(
    who: str, name: str, command: Callable[[Any], Any]
) -> None:
    """Whatever its kind; only what the command is about is taken."""
    world, _ = leased()
    for aggregate in list(world.states.all):
        if not isinstance(world.state(aggregate), SUBJECT[name]):
            assert world.refused(who, command(aggregate)) == name
    world.check_replay()


def test_rows_that_name_something_else_are_refused() -> None:
    """Ready and attestations, row by row; a bid is no offer."""
    world, opened = leased()
    assert world.refused("bob", WithdrawOffer(offer=opened.bid)) == "order_unknown"  # type: ignore[arg-type]
    assert world.refused("alice", CancelBid(bid=opened.offer)) == "order_unknown"  # type: ignore[arg-type]
    for named in (opened.bid, opened.provider, LEDGER_ID):
        ready = ReadyLeases(leases=(named,))  # type: ignore[arg-type]
        assert world.refused_rows("alice", ready) == {0: "lease_unknown"}
        row = AttestationRow(node=named, leaves=(), expires_us=0)  # type: ignore[arg-type]
        command = AttestNodes(attestations=(row,))
        assert world.refused_rows("attestor", command) == {0: "node_unknown"}


def test_a_deposit_for_any_id_is_credited_and_stops_nothing() -> None:
    """One nano for the next epoch, the ledger, an instrument, a bid: the money is nobody's."""
    world, _ = leased()
    unborn = (instrument_of(H100, "us"), epoch_aggregate(1))
    for number, named in enumerate((*unborn, *list(world.states.all)), 1):
        seen = ObserveDeposit(
            account=AccountId(named),
            amount_nano=Wide(number),
            block=2**40 + number,
            block_hash=NOWHERE,
            transaction=NOWHERE,
            log_index=0,
        )
        world.ok("watcher", seen)
        assert world.balance(Purse.FREE, Bytes16(named)) >= number
    world.node("alice", "alice-1", region="us")
    bid(world, "bob", region="us")
    clear(world)
    world.wait(2 * DAY)
    assert len(world.events(EpochCut)) == 2
    world.check_replay()
