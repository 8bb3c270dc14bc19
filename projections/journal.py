"""The journal: every purse by owner, every posting with its balance, and claims.

A posting stands on a purse of an account, a bid, a lease, a provider or a pot. Each row names the
account behind that owner too, so that one look-up shows all the money of an account wherever it
stands. The rows of bids, leases, providers and pots are written by their own projections before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import Table

from domain.account import ClaimSettled
from domain.commit import Ledger
from domain.journal import Purse
from projections.fold_rows import At, Projection, Row, Rows, copied
from projections.tables import BALANCE, BID, CLAIM, LEASE, POSTING, POT, PROVIDER

#: Whose money a purse is, where its owner is not an account: the owner's table and column.
BEHIND: Final[Mapping[Purse, tuple[Table, str]]] = {
    Purse.RESERVED: (BID, "account"),
    Purse.ESCROW_ALLOCATED: (LEASE, "buyer"),
    Purse.ESCROW_USAGE: (LEASE, "buyer"),
    Purse.STAKE: (PROVIDER, "account"),
    Purse.UNBONDING: (PROVIDER, "account"),
    Purse.POT: (POT, "account"),
}


def _claimed(rows: Rows, at: At, event: ClaimSettled) -> None:
    rows.add(CLAIM, copied(event, CLAIM, position=at.position))


def post(rows: Rows, at: At, event: Any) -> None:
    """The money of one event of any type: journal rows and the balances after them."""
    for number, posting in enumerate(event.postings):
        purse, owner, amount = posting.purse, posting.owner, posting.amount_nano
        held = rows.get(BALANCE, purse.value, owner)
        account = _behind(rows, purse, owner) if held is None else held["account"]
        balance = amount if held is None else held["amount_nano"] + amount
        row: Row = {
            "purse": purse.value,
            "owner": owner,
            "account": account,
            "amount_nano": balance,
        }
        if balance == 0:
            rows.delete(BALANCE, purse.value, owner)
        else:
            rows.put(BALANCE, row)
        rows.add(
            POSTING,
            {
                **row,
                "position": at.position,
                "row": number,
                "at_us": event.at_us,
                "event": at.name,
                "amount_nano": amount,
                "balance_nano": balance,
            },
        )


def _behind(rows: Rows, purse: Purse, owner: bytes) -> bytes:
    if purse not in BEHIND:
        return owner
    table, column = BEHIND[purse]
    account: bytes = rows.known(table, owner)[column]
    return account


JOURNAL: Final = Projection(
    name="journal",
    ledger=Ledger.MARKET,
    tables=(BALANCE, POSTING, CLAIM),
    handlers={ClaimSettled: _claimed},
    money=True,
)
