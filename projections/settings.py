"""Parameters, price list and shares as they stand, from the genesis and every change since."""

from __future__ import annotations

from dataclasses import fields
from typing import Final

from domain.commit import Ledger
from domain.ledger import GenesisRecorded, ParameterChanged, PriceRowAdded
from projections.fold_rows import At, Projection, Rows, copied, made
from projections.tables import CATALOGUE, KEY, PARAMETER, SHARE

OPERATORS: Final = bytes(16)


def _recorded(rows: Rows, at: At, event: GenesisRecorded) -> None:
    genesis = event.genesis
    since = {"position": at.position}
    for field in fields(genesis.parameters):
        value = getattr(genesis.parameters, field.name)
        row = {"name": field.name, "value": value, "changed_us": event.at_us, **since}
        rows.put(PARAMETER, made(PARAMETER, row))
    for number, price in enumerate(genesis.catalogue):
        rows.put(CATALOGUE, copied(price, CATALOGUE, number=number, since_us=event.at_us, **since))
    for share in genesis.shares:
        rows.put(SHARE, copied(share, SHARE))
    for given in genesis.keys:
        row = {"account": OPERATORS, "registered_us": event.at_us, **since}
        rows.put(KEY, copied(given, KEY, **row))


def _changed(rows: Rows, at: At, event: ParameterChanged) -> None:
    rows.put(PARAMETER, copied(event, PARAMETER, changed_us=event.at_us, position=at.position))


def _added(rows: Rows, at: At, event: PriceRowAdded) -> None:
    number = 0
    while rows.get(CATALOGUE, number) is not None:
        number += 1
    # The event follows the device rows of the genesis: derived quantities, split as compute.
    row = {"number": number, "how": "ALLOCATED", "since_us": event.at_us, "position": at.position}
    rows.put(CATALOGUE, copied(event, CATALOGUE, **row))


SETTINGS: Final = Projection(
    name="settings",
    ledger=Ledger.MARKET,
    tables=(PARAMETER, CATALOGUE, SHARE),
    handlers={GenesisRecorded: _recorded, ParameterChanged: _changed, PriceRowAdded: _added},
)
