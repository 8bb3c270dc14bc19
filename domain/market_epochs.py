"""Epochs: pending shares mature, what is due becomes payable, anchored epochs are known (R4.9, R9).

Contests of pending shares are not in this version of the rules: silence is acceptance.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, get_args

from domain import epoch
from domain.account import ClaimSettled, EarningsMatured, WithdrawalRequested
from domain.due import MarketDue
from domain.epoch import (
    PAYABLES_MAX,
    Claimant,
    EpochAnchored,
    EpochCut,
    ObserveCheckpoint,
    Payable,
    PayablesAdded,
    ShardPosition,
    epoch_aggregate,
)
from domain.genesis import Genesis, Role
from domain.ids import AccountId, Address, AggregateId, Bytes16, Hash32, LeaseId, ProviderId, Wide
from domain.invariant import invariant
from domain.journal import NOBODY, Balances, Posting, Purse, move
from domain.key import RowRefused
from domain.lease import LeaseClosed, LeaseEnded, LeaseOpened, UsagePosted
from domain.ledger import ParameterChanged
from domain.market_registry import role_refused
from domain.provider import ProviderRegistered, StakeReleased, StakeUnbonding
from domain.refusal import Refused

if TYPE_CHECKING:
    from domain.market import Market, Request

_NO_PAYEE: Final = bytes(20)
_CLOCK: Final = bytes(16)

#: Of one account: when it was posted, when it matures, the provider's part, the protocol's part.
Bucket = tuple[int, int, int, int]


class EpochsFold:
    """What waits to mature, accounts to which something is due, and totals."""

    def __init__(self, genesis: Genesis) -> None:
        """Before the first epoch."""
        self._start_us = genesis.start_us
        self._market: Market | None = None
        self._maturity_us = genesis.parameters.maturity_us
        self._epoch_us = genesis.parameters.epoch_us
        self._earners: dict[LeaseId, AccountId] = {}
        self._buckets: dict[AccountId, deque[Bucket]] = {}
        self._waiting: dict[AccountId, None] = {}
        self._accounts: dict[ProviderId, AccountId] = {}
        self._leaving: dict[AccountId, ProviderId] = {}
        self._authorised: dict[AccountId, int] = {}
        self.cursor = AccountId(b"")
        self.parts = 0
        self.number = 0
        self.anchored = 0
        self.authorised_nano = 0
        self.paid_nano = 0

    def bind(self, market: Market) -> None:
        """Take the market whose deadlines this sets; the first epoch counts from the start."""
        self._market = market
        market.deadlines.set(MarketDue.EPOCH, _CLOCK, self._start_us + self._epoch_us)

    def bucket(self, account: AccountId) -> Bucket:
        """What of an account matures next."""
        return self._buckets[account][0]

    def candidates(self) -> Iterator[tuple[AccountId, ProviderId | None]]:
        """Accounts to which this epoch may add something, by id, after those it has added to."""
        for account in sorted({*self._waiting, *self._leaving}):
            if account > self.cursor:
                yield account, self._leaving.get(account)

    def authorised(self, account: AccountId) -> int:
        """All that an account was ever authorised to claim."""
        return self._authorised.get(account, 0)

    def apply(self, event: Any) -> None:
        """Take in one event; events of no interest are ignored."""
        follow = _FOLLOW.get(type(event))
        if follow is not None:
            follow(self, event)

    def _lease_opened(self, event: LeaseOpened) -> None:
        self._earners[event.lease] = event.account

    def _lease_closed(self, event: LeaseClosed) -> None:
        self._earners.pop(event.lease, None)

    def _posted(self, event: UsagePosted | LeaseEnded) -> None:
        earned = _received(event.postings, Purse.PENDING)
        protocol = _received(event.postings, Purse.PROTOCOL_PENDING)
        if not earned and not protocol:
            return
        account = event.account if isinstance(event, UsagePosted) else self._earners[event.lease]
        line = self._buckets.setdefault(account, deque())
        # What was posted first matures first, also where a shorter time came into force between.
        matures = event.at_us + self._maturity_us
        if line:
            matures = max(matures, line[-1][1])
        if line and line[-1][0] == event.at_us:
            _, matures, one, other = line.pop()
            earned, protocol = earned + one, protocol + other
        line.append((event.at_us, matures, earned, protocol))
        self._set_maturity(account)

    def _set_maturity(self, account: AccountId) -> None:
        line = self._buckets[account]
        if not line:
            del self._buckets[account]
        if self._market is None:
            return
        if line:
            self._market.deadlines.set(MarketDue.MATURITY, account, line[0][1])
        else:
            self._market.deadlines.clear(MarketDue.MATURITY, account)

    def _earnings_matured(self, event: EarningsMatured) -> None:
        self._buckets[event.account].popleft()
        self._set_maturity(event.account)
        if event.amount_nano:
            self._waiting[event.account] = None

    def _withdrawal_requested(self, event: WithdrawalRequested) -> None:
        self._waiting[event.account] = None

    def _provider_registered(self, event: ProviderRegistered) -> None:
        self._accounts[event.provider] = event.account

    def _stake_unbonding(self, event: StakeUnbonding) -> None:
        self._leaving[self._accounts[event.provider]] = event.provider

    def _claim_settled(self, event: ClaimSettled) -> None:
        self.paid_nano += event.amount_nano

    def _parameter_changed(self, event: ParameterChanged) -> None:
        if event.name == "maturity_us":
            self._maturity_us = event.value
        elif event.name == "epoch_us":
            self._epoch_us = event.value

    def _paid(self, payables: Sequence[Payable]) -> None:
        for payable in payables:
            self._waiting.pop(payable.account, None)
            self._authorised[payable.account] = payable.cumulative_nano
            self.authorised_nano += payable.added_nano

    def _payables_added(self, event: PayablesAdded) -> None:
        self._paid(event.payables)
        self.cursor = event.payables[-1].account
        self.parts = event.part + 1
        if self._market is not None:
            self._market.deadlines.set(MarketDue.EPOCH, _CLOCK, event.at_us)

    def _epoch_cut(self, event: EpochCut) -> None:
        self._paid(event.payables)
        self.cursor = AccountId(b"")
        self.parts = 0
        self.number = event.number
        if self._market is not None:
            self._market.deadlines.set(MarketDue.EPOCH, _CLOCK, event.at_us + self._epoch_us)

    def _epoch_anchored(self, event: EpochAnchored) -> None:
        self.anchored = event.number


_FOLLOW: Final[Mapping[type[Any], Callable[[EpochsFold, Any], None]]] = {
    LeaseOpened: EpochsFold._lease_opened,
    LeaseClosed: EpochsFold._lease_closed,
    UsagePosted: EpochsFold._posted,
    LeaseEnded: EpochsFold._posted,
    EarningsMatured: EpochsFold._earnings_matured,
    WithdrawalRequested: EpochsFold._withdrawal_requested,
    ProviderRegistered: EpochsFold._provider_registered,
    StakeUnbonding: EpochsFold._stake_unbonding,
    ClaimSettled: EpochsFold._claim_settled,
    ParameterChanged: EpochsFold._parameter_changed,
    PayablesAdded: EpochsFold._payables_added,
    EpochCut: EpochsFold._epoch_cut,
    EpochAnchored: EpochsFold._epoch_anchored,
}


def _received(postings: Sequence[Posting], purse: Purse) -> int:
    return sum(p.amount_nano for p in postings if p.purse is purse)


# Rules


def _mature(market: Market, due_us: int, id: bytes) -> None:
    """What was pending for the time of maturity is earned (R4.9)."""
    account = AccountId(id)
    posted_us, _, earned, protocol = market.folds.epochs.bucket(account)
    market.emit(
        AggregateId(account),
        EarningsMatured(
            at_us=due_us,
            account=account,
            posted_us=posted_us,
            amount_nano=Wide(earned),
            protocol_nano=Wide(protocol),
            postings=(
                *move((Purse.PENDING, account), (Purse.EARNED, account), earned),
                *move((Purse.PROTOCOL_PENDING, NOBODY), (Purse.PROTOCOL, NOBODY), protocol),
            ),
        ),
    )


def _claimants(market: Market, due_us: int) -> Iterator[Claimant]:
    folds = market.folds
    for account, provider in folds.epochs.candidates():
        payee = folds.registry.payee(account)
        if payee is None or payee == _NO_PAYEE:
            continue
        released = 0 if provider is None else folds.stake.stake(provider).released_nano(due_us)
        claimant = Claimant(
            account=account,
            payee=Address(payee),
            authorised_nano=folds.epochs.authorised(account),
            withdrawal_nano=folds.balances.of(Purse.WITHDRAWAL, account),
            earned_nano=folds.balances.of(Purse.EARNED, account),
            provider=provider,
            released_nano=released,
        )
        if claimant.added_nano:
            yield claimant


def _cut(market: Market, due_us: int, id: bytes) -> None:
    """Cut the epoch (R9.1), or write a full part of its payables and go on at the same instant."""
    fold = market.folds.epochs
    found = list(islice(_claimants(market, due_us), PAYABLES_MAX + 1))
    part = found[:PAYABLES_MAX]
    payables, postings = epoch.decide_payables(part)
    number = fold.number + 1
    if len(found) > PAYABLES_MAX:
        market.emit(
            epoch_aggregate(number),
            PayablesAdded(
                at_us=due_us,
                number=number,
                part=fold.parts,
                payables=payables,
                postings=postings,
            ),
        )
    else:
        authorised = fold.authorised_nano + sum(p.added_nano for p in payables)
        deposited = market.folds.registry.deposited_nano
        invariant(fold.paid_nano <= authorised <= deposited, "paid ≤ authorised ≤ deposited (R9.3)")
        market.emit(
            epoch_aggregate(number),
            EpochCut(
                at_us=due_us,
                number=number,
                payables=payables,
                positions=_positions(market),
                deposited_nano=Wide(deposited),
                authorised_nano=Wide(authorised),
                paid_nano=Wide(fold.paid_nano),
                state_root=_root_after(market.folds.balances, postings),
                postings=postings,
            ),
        )
    for one in part:
        if one.provider is not None and one.released_nano:
            market.emit(
                AggregateId(one.provider),
                StakeReleased(
                    at_us=due_us, provider=one.provider, amount_nano=Wide(one.released_nano)
                ),
            )


def _positions(market: Market) -> tuple[ShardPosition, ...]:
    shards = market.folds.shards
    return tuple(
        ShardPosition(
            shard=shard,
            height=shards.height[shard],
            hash=Hash32(shards.hash[shard]),
            root=Hash32(shards.root[shard]),
            size=shards.size[shard],
        )
        for shard in range(market.shards)
    )


def _root_after(balances: Balances, postings: Sequence[Posting]) -> Hash32:
    """The root over the balances that the postings of the cut lead to."""
    after = Balances()
    now = (
        Posting(purse=purse, owner=Bytes16(owner), amount_nano=Wide(nano))
        for (purse, owner), nano in balances.all().items()
    )
    after.post((*now, *postings))
    return Hash32(after.root())


def _observe_checkpoint(market: Market, request: Request) -> Refused | Sequence[RowRefused]:
    refused = role_refused(request, Role.WATCHER)
    if refused is not None:
        return refused
    seen: ObserveCheckpoint = request.command
    fold = market.folds.epochs
    said = epoch.decide_anchor(seen, cut=fold.number, anchored=fold.anchored, now_us=market.time_us)
    if isinstance(said, Refused):
        return said
    market.emit(epoch_aggregate(seen.epoch), said)
    return ()


HANDLERS: Final = {ObserveCheckpoint: _observe_checkpoint}
FIRE: Final[Mapping[int, Callable[[Market, int, bytes], None]]] = {
    MarketDue.MATURITY: _mature,
    MarketDue.EPOCH: _cut,
}
LEARN: Final[Mapping[type[Any], Callable[[Market, Any, Any], None]]] = {}
EVOLVE: Final[Mapping[type[Any], Callable[[Any, Any], Any]]] = dict.fromkeys(
    get_args(epoch.EpochEvent), epoch.evolve
)
