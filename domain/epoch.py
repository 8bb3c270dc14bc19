"""Epochs: at the deadline money that is due becomes payable, and positions are fixed (R9.1)."""

from __future__ import annotations

from typing import Annotated

from domain.ids import AccountId, Address, AggregateId, Hash32, Wide, derive
from domain.journal import Posting
from domain.record import record


def epoch_aggregate(number: int) -> AggregateId:
    """The aggregate of one epoch."""
    return AggregateId(derive("epoch", number))


@record("synor.epoch.v1.Payable")
class Payable:
    """What an account may claim on L1 in all, from this epoch on."""

    account: Annotated[AccountId, "the account"]
    payee: Annotated[Address, "EVM address that it is paid to"]
    added_nano: Annotated[Wide, "added by this epoch"]
    cumulative_nano: Annotated[Wide, "authorised in all since the genesis; never falls"]


@record("synor.epoch.v1.ShardPosition")
class ShardPosition:
    """The last commit of a metering shard that the market had consumed."""

    shard: Annotated[int, "metering shard"]
    height: Annotated[int, "height of that commit; -1 for none"]
    hash: Annotated[Hash32, "its hash"]
    root: Annotated[Hash32, "RFC 6962 root over the shard's events at that commit"]
    size: Annotated[int, "number of those events"]


@record("synor.epoch.v1.EpochCut")
class EpochCut:
    """Withdrawals asked for, matured earnings and finished unbonding move to payable."""

    at_us: Annotated[int, "the deadline, µs UTC"]
    number: Annotated[int, "number of the epoch, from 1"]
    payables: Annotated[tuple[Payable, ...], "accounts to which something was added, by id"]
    positions: Annotated[tuple[ShardPosition, ...], "metering shards, by number"]
    deposited_nano: Annotated[Wide, "all deposits so far"]
    authorised_nano: Annotated[Wide, "all payables so far"]
    paid_nano: Annotated[Wide, "all claims so far"]
    state_root: Annotated[Hash32, "RFC 6962 root over all balances after the cut (journal)"]
    postings: Annotated[tuple[Posting, ...], "withdrawal, earned, unbonding → payable"]


@record("synor.epoch.v1.EpochAnchored")
class EpochAnchored:
    """The epoch's checkpoint is final on L1."""

    at_us: Annotated[int, "effective time, µs UTC"]
    number: Annotated[int, "number of the epoch"]
    checkpoint: Annotated[Hash32, "hash of the checkpoint that the contract holds"]
    block: Annotated[int, "L1 block number"]
    transaction: Annotated[Hash32, "L1 transaction hash"]


EpochEvent = EpochCut | EpochAnchored


# Commands


@record("synor.command.v1.ObserveCheckpoint")
class ObserveCheckpoint:
    """The watcher saw a checkpoint that is final on L1."""

    epoch: Annotated[int, "number of the epoch"]
    checkpoint: Annotated[Hash32, "hash of the checkpoint that the contract holds"]
    block: Annotated[int, "L1 block number"]
    block_hash: Annotated[Hash32, "L1 block hash"]
    transaction: Annotated[Hash32, "L1 transaction hash"]
    log_index: Annotated[int, "index of the log in its block"]
