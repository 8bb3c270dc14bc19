"""Providers and what they are worth: stake required, nodes, windows, slashes, pots, earned.

Stake bonded, unbonding and frozen are balances (``accounts``).
"""

from __future__ import annotations

from typing import Any, Final

from domain.account import EarningsMatured
from domain.commit import Ledger
from domain.lease import LeaseOpened, UsagePosted
from domain.node import NodeRegistered, NodeRetired
from domain.pot import EvidenceAccepted, PotDivided, PotOpened
from domain.provider import ProviderAdmitted, ProviderRegistered, StakeSlashed, provider_of
from domain.sla import WindowAssessed
from projections.fold_rows import At, Projection, Row, Rows, copied
from projections.tables import EVIDENCE, NODE, POT, PROVIDER, SLA_WINDOW, SLASH

_NOTHING_YET: Final[Row] = dict.fromkeys(
    (
        "required_nano",
        "nodes",
        "leases",
        "posted_nano",
        "matured_nano",
        "windows",
        "obliged_us",
        "down_us",
        "excess_us",
        "slashes",
        "slashed_nano",
        "shortfall_nano",
    ),
    0,
)


def _add(rows: Rows, provider: bytes, **amounts: int) -> None:
    """Add to the running figures of a provider."""
    known = rows.known(PROVIDER, provider)
    rows.change(
        PROVIDER, provider, **{name: known[name] + amount for name, amount in amounts.items()}
    )


def _registered(rows: Rows, at: At, event: ProviderRegistered) -> None:
    row: Row = {**_NOTHING_YET, "registered_us": event.at_us, "position": at.position}
    rows.put(PROVIDER, copied(event, PROVIDER, **row))


def _admitted(rows: Rows, at: At, event: ProviderAdmitted) -> None:
    rows.change(PROVIDER, event.provider, admitted_us=event.at_us)


def _matured(rows: Rows, at: At, event: EarningsMatured) -> None:
    _add(rows, provider_of(event.account), matured_nano=event.amount_nano)


def _posted(rows: Rows, at: At, event: UsagePosted) -> None:
    _add(rows, provider_of(event.account), posted_nano=event.provider_nano)


def _slashed(rows: Rows, at: At, event: StakeSlashed) -> None:
    rows.put(SLASH, copied(event, SLASH, position=at.position))
    _add(
        rows,
        event.provider,
        slashes=1,
        slashed_nano=event.taken_nano,
        shortfall_nano=event.shortfall_nano,
    )


def _assessed(rows: Rows, at: At, event: WindowAssessed) -> None:
    rows.put(SLA_WINDOW, copied(event, SLA_WINDOW, position=at.position))
    _add(
        rows,
        event.provider,
        windows=1,
        obliged_us=event.obliged_us,
        down_us=event.down_us,
        excess_us=event.excess_us,
    )


def _pot(rows: Rows, at: At, event: PotOpened) -> None:
    row: dict[str, Any] = {
        "account": rows.known(PROVIDER, event.provider)["account"],
        "opened_us": event.at_us,
        "position": at.position,
    }
    rows.put(POT, copied(event, POT, **row))


def _evidence(rows: Rows, at: At, event: EvidenceAccepted) -> None:
    rows.add(EVIDENCE, copied(event, EVIDENCE, position=at.position))


def _divided(rows: Rows, at: At, event: PotDivided) -> None:
    figures = {"slashed_nano": event.slashed_nano, "thawed_nano": event.thawed_nano}
    rows.change(POT, event.pot, divided_us=event.at_us, **figures)


def _node(rows: Rows, at: At, event: NodeRegistered) -> None:
    _add(rows, event.provider, nodes=1, required_nano=event.required_nano)


def _retired(rows: Rows, at: At, event: NodeRetired) -> None:
    node = rows.known(NODE, event.node)
    _add(rows, node["provider"], nodes=-1, required_nano=-node["required_nano"])


def _leased(rows: Rows, at: At, event: LeaseOpened) -> None:
    _add(rows, event.provider, leases=1)


SCORECARD: Final = Projection(
    name="scorecard",
    ledger=Ledger.MARKET,
    tables=(PROVIDER, SLA_WINDOW, SLASH, POT, EVIDENCE),
    handlers={
        ProviderRegistered: _registered,
        ProviderAdmitted: _admitted,
        EarningsMatured: _matured,
        UsagePosted: _posted,
        StakeSlashed: _slashed,
        WindowAssessed: _assessed,
        PotOpened: _pot,
        EvidenceAccepted: _evidence,
        PotDivided: _divided,
        NodeRegistered: _node,
        NodeRetired: _retired,
        LeaseOpened: _leased,
    },
    money=True,
)
