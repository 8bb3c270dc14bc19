"""Epochs: at the deadline money that is due becomes payable, and positions are fixed (R9.1)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Final, assert_never

from domain.account import ALREADY_OBSERVED
from domain.ids import AccountId, Address, AggregateId, Hash32, ProviderId, Wide, derive
from domain.invariant import invariant
from domain.journal import Place, Posting, Purse, move
from domain.record import record
from domain.refusal import Refused, code


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


@record("synor.epoch.v1.PayablesAdded")
class PayablesAdded:
    """Payables of an epoch that do not fit its ``EpochCut``, which follows at the same instant."""

    at_us: Annotated[int, "the deadline, µs UTC"]
    number: Annotated[int, "number of the epoch that is being cut"]
    part: Annotated[int, "number of the part, from 0"]
    payables: Annotated[tuple[Payable, ...], "accounts to which something was added, by id"]
    postings: Annotated[tuple[Posting, ...], "withdrawal, earned, unbonding → payable"]


@record("synor.epoch.v1.EpochAnchored")
class EpochAnchored:
    """The epoch's checkpoint is final on L1."""

    at_us: Annotated[int, "effective time, µs UTC"]
    number: Annotated[int, "number of the epoch"]
    checkpoint: Annotated[Hash32, "hash of the checkpoint that the contract holds"]
    block: Annotated[int, "L1 block number"]
    transaction: Annotated[Hash32, "L1 transaction hash"]


EpochEvent = PayablesAdded | EpochCut | EpochAnchored


# States


@dataclass(frozen=True, slots=True, kw_only=True)
class Cutting:
    """Parts of the payables are written, the cut itself is not."""

    parts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """The epoch is cut; its checkpoint is on its way."""

    authorised_nano: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchored:
    """The checkpoint is final on L1."""

    authorised_nano: int


EpochState = Cutting | Cut | Anchored


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


# Refusals

EPOCH_UNKNOWN: Final = code(316, "epoch_unknown", "Report the checkpoint of an epoch that was cut.")

#: Payables of one event, so that it keeps within its bytes: each has up to four postings.
PAYABLES_MAX: Final = 2000


# Decide


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimant:
    """An account to which an epoch adds something, and where that stands now."""

    account: AccountId
    payee: Address
    authorised_nano: int
    withdrawal_nano: int = 0
    earned_nano: int = 0
    provider: ProviderId | None = None
    released_nano: int = 0

    @property
    def added_nano(self) -> int:
        """What the epoch adds."""
        return self.withdrawal_nano + self.earned_nano + self.released_nano


def decide_payables(
    claimants: Iterable[Claimant],
) -> tuple[tuple[Payable, ...], tuple[Posting, ...]]:
    """Payables and postings of one part of a cut (R9.1), in the order of the claimants."""
    payables: list[Payable] = []
    postings: list[Posting] = []
    for one in claimants:
        payables.append(
            Payable(
                account=one.account,
                payee=one.payee,
                added_nano=Wide(one.added_nano),
                cumulative_nano=Wide(one.authorised_nano + one.added_nano),
            )
        )
        target: Place = (Purse.PAYABLE, one.account)
        for source, amount in (
            ((Purse.WITHDRAWAL, one.account), one.withdrawal_nano),
            ((Purse.EARNED, one.account), one.earned_nano),
            ((Purse.UNBONDING, one.provider or b""), one.released_nano),
        ):
            postings += move(source, target, amount)
    return tuple(payables), merged(postings)


def merged(postings: Sequence[Posting]) -> tuple[Posting, ...]:
    """One posting per account of the ledger, in the order of its first."""
    sums: dict[Place, Posting] = {}
    for posting in postings:
        place = (posting.purse, bytes(posting.owner))
        before = sums.get(place)
        sums[place] = (
            posting
            if before is None
            else replace(posting, amount_nano=Wide(before.amount_nano + posting.amount_nano))
        )
    return tuple(sums.values())


def decide_anchor(
    seen: ObserveCheckpoint, *, cut: int, anchored: int, now_us: int
) -> EpochAnchored | Refused:
    """The checkpoint of an epoch beyond the last anchored one; ``cut`` is the last epoch's."""
    if seen.epoch <= anchored:
        return Refused(ALREADY_OBSERVED, f"epoch {anchored} was anchored")
    if seen.epoch > cut:
        return Refused(EPOCH_UNKNOWN, f"epoch {seen.epoch}, the last cut is {cut}")
    return EpochAnchored(
        at_us=now_us,
        number=seen.epoch,
        checkpoint=seen.checkpoint,
        block=seen.block,
        transaction=seen.transaction,
    )


# Evolve


def evolve(state: EpochState | None, event: EpochEvent) -> EpochState:
    """The epoch after one more event."""
    match event:
        case PayablesAdded():
            invariant(state is None or isinstance(state, Cutting), "parts come before the cut")
            return Cutting(parts=event.part + 1)
        case EpochCut():
            invariant(state is None or isinstance(state, Cutting), "an epoch is cut once")
            return Cut(authorised_nano=event.authorised_nano)
        case EpochAnchored():
            invariant(isinstance(state, Cut), "an epoch that was cut is anchored once")
            assert isinstance(state, Cut)
            return Anchored(authorised_nano=state.authorised_nano)
        case _:
            assert_never(event)
