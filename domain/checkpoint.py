"""Checkpoints: what settlement anchors of an epoch (R9, design 7)."""

from __future__ import annotations

from typing import Annotated

from domain.ids import AccountId, Address, AggregateId, Hash32, Wide, derive
from domain.record import record

CHECKPOINTS = AggregateId(derive("checkpoints"))


@record("synor.settlement.v1.ShardRoot")
class ShardRoot:
    """Root and size of one ledger at its position in the epoch."""

    ledger: Annotated[int, "1 market, 2 metering, 3 settlement"]
    shard: Annotated[int, "shard"]
    height: Annotated[int, "height of the commit; -1 for none yet"]
    hash: Annotated[Hash32, "hash of the commit"]
    root: Annotated[Hash32, "RFC 6962 root over its events"]
    size: Annotated[int, "number of events"]


@record("synor.settlement.v1.PayoutLeaf")
class PayoutLeaf:
    """One leaf of the payout tree: everything an account may claim, in all."""

    account: Annotated[AccountId, "the account"]
    payee: Annotated[Address, "EVM address"]
    cumulative_nano: Annotated[Wide, "cumulative, never falls"]


@record("synor.settlement.v1.PayoutsAdded")
class PayoutsAdded:
    """A full part of an epoch's changed leaves, before its checkpoint: an event is bounded."""

    at_us: Annotated[int, "time of the epoch's cut, µs UTC"]
    epoch: Annotated[int, "number of the epoch"]
    part: Annotated[int, "number of the part, from 0"]
    payouts: Annotated[tuple[PayoutLeaf, ...], "leaves that changed"]


@record("synor.settlement.v1.CheckpointMade")
class CheckpointMade:
    """The checkpoint of an epoch; the sender takes it to the L1."""

    at_us: Annotated[int, "time of the epoch's cut, µs UTC"]
    epoch: Annotated[int, "number of the epoch, from 1"]
    roots: Annotated[tuple[ShardRoot, ...], "market, metering shards, settlement's previous"]
    ledgers_root: Annotated[Hash32, "RFC 6962 root over the encoded roots"]
    state_root: Annotated[Hash32, "RFC 6962 root over all balances at the cut, by account"]
    payouts: Annotated[
        tuple[PayoutLeaf, ...], "leaves that changed in this epoch, beyond its full parts"
    ]
    payout_root: Annotated[Hash32, "OpenZeppelin standard tree over all leaves"]
    payout_count: Annotated[int, "number of leaves"]
    deposited_nano: Annotated[Wide, "all deposits so far"]
    authorised_nano: Annotated[Wide, "all payables so far"]
    paid_nano: Annotated[Wide, "all claims so far"]
    previous: Annotated[Hash32, "hash of the previous checkpoint; zero for the first"]
    checkpoint: Annotated[Hash32, "hash of this checkpoint as the contract computes it"]


@record("synor.settlement.v1.CheckpointAnchored")
class CheckpointAnchored:
    """The market reported the checkpoint as final on L1."""

    at_us: Annotated[int, "effective time, µs UTC"]
    epoch: Annotated[int, "number of the epoch"]
    checkpoint: Annotated[Hash32, "its hash"]


CheckpointEvent = PayoutsAdded | CheckpointMade | CheckpointAnchored
