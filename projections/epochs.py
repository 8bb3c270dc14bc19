"""Epochs with payables, and settlement's checkpoints with the payout leaves behind claim proofs.

The market's cut and settlement's checkpoint of one epoch stand in tables of their own, since the
two ledgers are followed apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from domain.checkpoint import CheckpointAnchored, CheckpointMade, PayoutsAdded
from domain.commit import Ledger
from domain.epoch import EpochAnchored, EpochCut, Payable, PayablesAdded
from projections.fold_rows import At, Projection, Rows, copied
from projections.tables import CHECKPOINT, EPOCH, EPOCH_PART, PAYABLE, PAYOUT_LEAF


def _cut(rows: Rows, at: At, event: EpochCut) -> None:
    """The epoch with all of its payables: those of its full parts, which came before, too."""
    accounts, added = _sum(event.payables)
    part = 0
    while (full := rows.get(EPOCH_PART, event.number, part)) is not None:
        accounts, added = accounts + full["accounts"], added + full["added_nano"]
        part += 1
    row: dict[str, Any] = {
        "height": at.height,
        "accounts": accounts,
        "added_nano": added,
        "position": at.position,
    }
    rows.put(EPOCH, copied(event, EPOCH, **row))
    for payable in event.payables:
        rows.add(PAYABLE, copied(payable, PAYABLE, epoch=event.number))


def _sum(payables: Sequence[Payable]) -> tuple[int, int]:
    """How many accounts, and how much is added to them."""
    return len(payables), sum(payable.added_nano for payable in payables)


def _cut_part(rows: Rows, at: At, event: PayablesAdded) -> None:
    accounts, added = _sum(event.payables)
    row = {"epoch": event.number, "part": event.part, "accounts": accounts, "added_nano": added}
    rows.put(EPOCH_PART, row)
    for payable in event.payables:
        rows.add(PAYABLE, copied(payable, PAYABLE, epoch=event.number))


def _anchored(rows: Rows, at: At, event: EpochAnchored) -> None:
    rows.change(
        EPOCH,
        event.number,
        anchored_us=event.at_us,
        anchored=event.checkpoint,
        block=event.block,
        transaction=event.transaction,
    )


def _checkpoint(rows: Rows, at: At, event: CheckpointMade) -> None:
    rows.put(CHECKPOINT, copied(event, CHECKPOINT, position=at.position))
    for leaf in event.payouts:
        rows.add(PAYOUT_LEAF, copied(leaf, PAYOUT_LEAF, epoch=event.epoch))


def _checkpoint_part(rows: Rows, at: At, event: PayoutsAdded) -> None:
    for leaf in event.payouts:
        rows.add(PAYOUT_LEAF, copied(leaf, PAYOUT_LEAF, epoch=event.epoch))


def _reported(rows: Rows, at: At, event: CheckpointAnchored) -> None:
    rows.change(CHECKPOINT, event.epoch, anchored_us=event.at_us)


EPOCHS: Final = Projection(
    name="epochs",
    ledger=Ledger.MARKET,
    tables=(EPOCH, EPOCH_PART, PAYABLE),
    money=True,
    handlers={PayablesAdded: _cut_part, EpochCut: _cut, EpochAnchored: _anchored},
)
CHECKPOINTS: Final = Projection(
    name="checkpoints",
    ledger=Ledger.SETTLEMENT,
    tables=(CHECKPOINT, PAYOUT_LEAF),
    money=True,
    handlers={
        PayoutsAdded: _checkpoint_part,
        CheckpointMade: _checkpoint,
        CheckpointAnchored: _reported,
    },
)
