"""Accounts: opened by a key, funded by deposits final on L1, paid out through epochs (R1, R9)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Final, assert_never

from domain.ids import (
    WIDE_MAX,
    AccountId,
    Address,
    AggregateId,
    Hash32,
    PublicKey,
    Wide,
    derive,
)
from domain.invariant import invariant
from domain.journal import NOBODY, Posting, Purse, move
from domain.record import record
from domain.refusal import Refused, code
from domain.round import TOO_MANY_LIVE_ORDERS


def deposits_aggregate(account: bytes) -> AggregateId:
    """The aggregate of an account's deposits.

    Not the account's own: a deposit names any 16 bytes, also the id of something else.
    """
    return AggregateId(derive("deposits", account))


@record("synor.account.v1.AccountOpened")
class AccountOpened:
    """An account exists; its id derives from its first owner key."""

    at_us: Annotated[int, "effective time, µs UTC"]
    account: Annotated[AccountId, "the account; aggregate id"]
    key: Annotated[PublicKey, "first owner key"]
    owner: Annotated[AccountId, "beneficial owner: itself, until another account admits it"]
    payee: Annotated[Address, "EVM address that payouts go to"]
    wishes: Annotated[AccountId | None, "account that may admit it as one of its own"] = None


@record("synor.account.v1.AccountAdmitted")
class AccountAdmitted:
    """Both sides agreed: from here on the account belongs to another."""

    at_us: Annotated[int, "effective time, µs UTC"]
    account: Annotated[AccountId, "the account that wished it; aggregate id"]
    owner: Annotated[AccountId, "its beneficial owner"]


@record("synor.account.v1.PayeeSet")
class PayeeSet:
    """Payouts go to another EVM address from the next epoch on."""

    at_us: Annotated[int, "effective time, µs UTC"]
    account: Annotated[AccountId, "the account"]
    payee: Annotated[Address, "EVM address"]


@record("synor.account.v1.DepositCredited")
class DepositCredited:
    """A deposit final on L1 is spendable: external → free."""

    at_us: Annotated[int, "effective time, µs UTC"]
    account: Annotated[AccountId, "the account"]
    amount_nano: Annotated[Wide, "nano SYNOR"]
    block: Annotated[int, "L1 block number"]
    transaction: Annotated[Hash32, "L1 transaction hash"]
    log_index: Annotated[int, "index of the log in its block"]
    postings: Annotated[tuple[Posting, ...], "external → free"]


@record("synor.account.v1.WithdrawalRequested")
class WithdrawalRequested:
    """Free money asked for; it becomes payable at the next epoch cut."""

    at_us: Annotated[int, "effective time, µs UTC"]
    account: Annotated[AccountId, "the account"]
    amount_nano: Annotated[Wide, "nano SYNOR"]
    postings: Annotated[tuple[Posting, ...], "free → withdrawal"]


@record("synor.account.v1.EarningsMatured")
class EarningsMatured:
    """Pending shares whose time has passed (R4.9): pending → earned, and the protocol's part."""

    at_us: Annotated[int, "the deadline, µs UTC"]
    account: Annotated[AccountId, "the provider's account"]
    posted_us: Annotated[int, "when they were posted"]
    amount_nano: Annotated[Wide, "provider's part"]
    protocol_nano: Annotated[Wide, "protocol's part"]
    postings: Annotated[tuple[Posting, ...], "pending → earned, protocol pending → protocol"]


@record("synor.account.v1.ClaimSettled")
class ClaimSettled:
    """A claim final on L1: payable → external (R9.2)."""

    at_us: Annotated[int, "effective time, µs UTC"]
    account: Annotated[AccountId, "the account"]
    amount_nano: Annotated[Wide, "nano SYNOR"]
    cumulative_nano: Annotated[Wide, "all that this account ever claimed"]
    transaction: Annotated[Hash32, "L1 transaction hash"]
    postings: Annotated[tuple[Posting, ...], "payable → external"]


AccountEvent = (
    AccountOpened
    | AccountAdmitted
    | PayeeSet
    | DepositCredited
    | WithdrawalRequested
    | EarningsMatured
    | ClaimSettled
)


# States


@dataclass(frozen=True, slots=True, kw_only=True)
class Deposits:
    """All that was ever deposited for an account, which may be opened later or never."""

    deposited_nano: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """An account with an owner. Balances are the journal's; here stands what only grows."""

    owner: AccountId
    wishes: AccountId | None
    payee: Address
    matured_nano: int = 0
    claimed_nano: int = 0


AccountState = Deposits | Opened


# Commands


@record("synor.command.v1.OpenAccount")
class OpenAccount:
    """Any key may open the account that derives from it."""

    payee: Annotated[Address, "EVM address that payouts go to"]
    owner: Annotated[AccountId | None, "beneficial owner, if it is another that admits it"] = None


@record("synor.command.v1.AdmitAccount")
class AdmitAccount:
    """A beneficial owner takes an account that wished for it: one cap on orders, one owner."""

    account: Annotated[AccountId, "the account"]


@record("synor.command.v1.SetPayee")
class SetPayee:
    """An owner redirects payouts."""

    payee: Annotated[Address, "EVM address"]


@record("synor.command.v1.Withdraw")
class Withdraw:
    """An owner asks for free money; it is claimable on L1 after the next epoch."""

    amount_nano: Annotated[Wide, "nano SYNOR, above zero"]


@record("synor.command.v1.ObserveDeposit")
class ObserveDeposit:
    """The watcher saw a deposit that is final on L1."""

    account: Annotated[AccountId, "the account named by the deposit"]
    amount_nano: Annotated[Wide, "nano SYNOR"]
    block: Annotated[int, "L1 block number"]
    block_hash: Annotated[Hash32, "L1 block hash"]
    transaction: Annotated[Hash32, "L1 transaction hash"]
    log_index: Annotated[int, "index of the log in its block"]


@record("synor.command.v1.ObserveClaim")
class ObserveClaim:
    """The watcher saw a claim that is final on L1."""

    account: Annotated[AccountId, "the account"]
    amount_nano: Annotated[Wide, "nano SYNOR paid by this claim"]
    cumulative_nano: Annotated[Wide, "paid in all"]
    block: Annotated[int, "L1 block number"]
    block_hash: Annotated[Hash32, "L1 block hash"]
    transaction: Annotated[Hash32, "L1 transaction hash"]
    log_index: Annotated[int, "index of the log in its block"]


# Refusals

ACCOUNT_EXISTS: Final = code(301, "account_exists", "A key opens one account; use it.")
OWNER_UNKNOWN: Final = code(
    303, "owner_unknown", "Name an opened account as beneficial owner, or none."
)
ADMISSION_NOT_WISHED: Final = code(
    320, "admission_not_wished", "Let the account name yours as its owner when it is opened."
)
ALREADY_ADMITTED: Final = code(321, "already_admitted", "Nothing to do: it is yours.")
OWNED_BY_ANOTHER: Final = code(
    322, "owned_by_another", "Admit it from the account that yours belongs to, if it wishes that."
)
OWNS_OTHERS: Final = code(
    323, "owns_others", "An account that has admitted others stays its own beneficial owner."
)
AMOUNT_NOT_POSITIVE: Final = code(304, "amount_not_positive", "Name an amount above zero.")
INSUFFICIENT_FREE: Final = code(
    305,
    "insufficient_free",
    "Deposit more, or free what is reserved, and send it again."
    " The figures are nano SYNOR, 10^9 to one.",
)
ALREADY_OBSERVED: Final = code(
    311, "already_observed", "Nothing is left to do: this position of the chain was taken in."
)
CLAIM_DOES_NOT_FOLLOW: Final = code(
    312, "claim_does_not_follow", "Send the claims of an account in the order of the chain."
)
CLAIM_BEYOND_PAYABLE: Final = code(
    313, "claim_beyond_payable", "The chain paid what was not authorised: stop, a person looks."
)
DEPOSIT_TOO_LARGE: Final = code(
    318, "deposit_too_large", "All deposits together stay within 128 bits."
)


# Decide


def decide_open(
    command: OpenAccount,
    state: AccountState | None,
    *,
    account: AccountId,
    key: PublicKey,
    owner_opened: bool,
    now_us: int,
) -> AccountOpened | Refused:
    """The first thing that a key does; ``owner_opened``: the owner that it names has an account.

    The account is its own beneficial owner until that one admits it, so nobody is named against
    its will.
    """
    if isinstance(state, Opened):
        return Refused(ACCOUNT_EXISTS, account.hex())
    if command.owner is not None and not owner_opened:
        return Refused(OWNER_UNKNOWN, command.owner.hex())
    return AccountOpened(
        at_us=now_us,
        account=account,
        key=key,
        owner=account,
        payee=command.payee,
        wishes=command.owner,
    )


def decide_admit(
    state: AccountState | None,
    *,
    account: AccountId,
    by: AccountId,
    by_owner: AccountId,
    owns_others: bool,
    orders: int,
    live_orders: int,
    now_us: int,
) -> AccountAdmitted | Refused:
    """The other side of a wish (R8.1, R8.7). Owners own no owners, so there is no chain to follow.

    ``by_owner``: the beneficial owner of the account that admits; ``orders``: live ones of both,
    of which one owner may have ``live_orders``.
    """
    if not isinstance(state, Opened) or state.wishes != by:
        return Refused(ADMISSION_NOT_WISHED, account.hex())
    if state.owner != account:
        return Refused(ALREADY_ADMITTED, account.hex())
    if by_owner != by:
        return Refused(OWNED_BY_ANOTHER, by_owner.hex())
    if owns_others:
        return Refused(OWNS_OTHERS, account.hex())
    if orders > live_orders:
        return Refused(TOO_MANY_LIVE_ORDERS, f"{orders} together, at most {live_orders}")
    return AccountAdmitted(at_us=now_us, account=account, owner=by)


def decide_withdraw(
    amount_nano: int, *, account: AccountId, free_nano: int, now_us: int
) -> WithdrawalRequested | Refused:
    """Free money waits for the epoch (R9.1)."""
    refused = unaffordable(amount_nano, free_nano)
    if refused is not None:
        return refused
    return WithdrawalRequested(
        at_us=now_us,
        account=account,
        amount_nano=Wide(amount_nano),
        postings=move((Purse.FREE, account), (Purse.WITHDRAWAL, account), amount_nano),
    )


def unaffordable(amount_nano: int, free_nano: int) -> Refused | None:
    """Why an amount cannot be taken from the free balance, or None where it can."""
    if amount_nano <= 0:
        return Refused(AMOUNT_NOT_POSITIVE, f"{amount_nano}")
    if amount_nano > free_nano:
        return Refused(INSUFFICIENT_FREE, f"asked {amount_nano}, free {free_nano}")
    return None


def decide_deposit(
    seen: ObserveDeposit, *, last: tuple[int, int], deposited_nano: int, now_us: int
) -> DepositCredited | Refused:
    """A deposit beyond the last one; ``last`` is the (block, log index) of that one."""
    if seen.amount_nano <= 0:
        return Refused(AMOUNT_NOT_POSITIVE, f"{seen.amount_nano}")
    if (seen.block, seen.log_index) <= last:
        return Refused(ALREADY_OBSERVED, f"the last deposit stood at {last}")
    if deposited_nano + seen.amount_nano > WIDE_MAX:
        return Refused(DEPOSIT_TOO_LARGE, f"{seen.amount_nano}")
    return DepositCredited(
        at_us=now_us,
        account=seen.account,
        amount_nano=seen.amount_nano,
        block=seen.block,
        transaction=seen.transaction,
        log_index=seen.log_index,
        postings=move((Purse.EXTERNAL, NOBODY), (Purse.FREE, seen.account), seen.amount_nano),
    )


def decide_claim(
    seen: ObserveClaim, state: AccountState | None, *, payable_nano: int, now_us: int
) -> ClaimSettled | Refused:
    """A claim pays cumulative − paid (R9.2), so what was paid says where it stands in order."""
    claimed = state.claimed_nano if isinstance(state, Opened) else 0
    if seen.amount_nano <= 0:
        return Refused(AMOUNT_NOT_POSITIVE, f"{seen.amount_nano}")
    if seen.cumulative_nano <= claimed:
        return Refused(ALREADY_OBSERVED, f"{claimed} was claimed")
    if seen.cumulative_nano - seen.amount_nano != claimed:
        return Refused(CLAIM_DOES_NOT_FOLLOW, f"{claimed} was claimed")
    if seen.amount_nano > payable_nano:
        return Refused(CLAIM_BEYOND_PAYABLE, f"claimed {seen.amount_nano} of {payable_nano}")
    return ClaimSettled(
        at_us=now_us,
        account=seen.account,
        amount_nano=seen.amount_nano,
        cumulative_nano=seen.cumulative_nano,
        transaction=seen.transaction,
        postings=move((Purse.PAYABLE, seen.account), (Purse.EXTERNAL, NOBODY), seen.amount_nano),
    )


# Evolve


def evolve(state: AccountState | None, event: AccountEvent) -> AccountState:
    """The account after one more event."""
    match event:
        case AccountOpened():
            invariant(state is None, "an account is opened once")
            return Opened(
                owner=event.owner,
                wishes=event.wishes,
                payee=event.payee,
            )
        case AccountAdmitted():
            return replace(_opened(state), owner=event.owner)
        case DepositCredited():
            invariant(state is None or isinstance(state, Deposits), "deposits stand alone")
            before = state.deposited_nano if isinstance(state, Deposits) else 0
            return Deposits(deposited_nano=before + event.amount_nano)
        case PayeeSet():
            return replace(_opened(state), payee=event.payee)
        case WithdrawalRequested():
            return _opened(state)
        case EarningsMatured():
            earner = _opened(state)
            return replace(earner, matured_nano=earner.matured_nano + event.amount_nano)
        case ClaimSettled():
            return replace(_opened(state), claimed_nano=event.cumulative_nano)
        case _:
            assert_never(event)


def _opened(state: AccountState | None) -> Opened:
    invariant(isinstance(state, Opened), "the account is open")
    assert isinstance(state, Opened)
    return state
