"""Accounts and keys: who may do what. Their money is in ``journal``."""

from __future__ import annotations

from typing import Final

from domain.account import AccountAdmitted, AccountOpened, PayeeSet
from domain.commit import Ledger
from domain.key import KeyRegistered, KeyRevoked
from projections.fold_rows import At, Projection, Rows, copied
from projections.tables import ACCOUNT, KEY


def _opened(rows: Rows, at: At, event: AccountOpened) -> None:
    rows.put(ACCOUNT, copied(event, ACCOUNT, opened_us=event.at_us, position=at.position))


def _admitted(rows: Rows, at: At, event: AccountAdmitted) -> None:
    rows.change(ACCOUNT, event.account, owner=event.owner)


def _payee(rows: Rows, at: At, event: PayeeSet) -> None:
    rows.change(ACCOUNT, event.account, payee=event.payee)


def _registered(rows: Rows, at: At, event: KeyRegistered) -> None:
    rows.put(KEY, copied(event, KEY, registered_us=event.at_us, position=at.position))


def _revoked(rows: Rows, at: At, event: KeyRevoked) -> None:
    rows.change(KEY, event.key, revoked_us=event.at_us)


ACCOUNTS: Final = Projection(
    name="accounts",
    ledger=Ledger.MARKET,
    tables=(ACCOUNT, KEY),
    handlers={
        AccountOpened: _opened,
        AccountAdmitted: _admitted,
        PayeeSet: _payee,
        KeyRegistered: _registered,
        KeyRevoked: _revoked,
    },
)
