"""Accounts: opened by a key, funded by deposits final on L1, paid out through epochs (R1, R9)."""

from __future__ import annotations

from typing import Annotated

from domain.ids import AccountId, Address, Hash32, PublicKey, Wide
from domain.journal import Posting
from domain.record import record


@record("synor.account.v1.AccountOpened")
class AccountOpened:
    """An account exists; its id derives from its first owner key."""

    at_us: Annotated[int, "effective time, µs UTC"]
    account: Annotated[AccountId, "the account; aggregate id"]
    key: Annotated[PublicKey, "first owner key"]
    owner: Annotated[AccountId, "beneficial owner: itself, or the account that it belongs to"]
    payee: Annotated[Address, "EVM address that payouts go to"]


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
    | PayeeSet
    | DepositCredited
    | WithdrawalRequested
    | EarningsMatured
    | ClaimSettled
)


# Commands


@record("synor.command.v1.OpenAccount")
class OpenAccount:
    """Any key may open the account that derives from it."""

    payee: Annotated[Address, "EVM address that payouts go to"]
    owner: Annotated[AccountId | None, "beneficial owner if it is another account"] = None


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
