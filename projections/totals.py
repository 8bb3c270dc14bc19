"""The second way to every total: sums over what events say, against the journal's balances.

A fold over the events of all ledgers, in any order among ledgers. An audit compares its sums with
the market's own balances, and what settlement made with what the market saw anchored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from domain.account import ClaimSettled, DepositCredited, WithdrawalRequested
from domain.checkpoint import CheckpointAnchored, CheckpointMade, PayoutLeaf, PayoutsAdded
from domain.commit import Ledger
from domain.epoch import EpochAnchored, EpochCut
from domain.ids import Hash32
from domain.journal import NOBODY, Balances, Place, Purse
from domain.lease import LeaseClosed, LeaseEnded, LeaseOpened, UsagePosted
from domain.provider import StakeSlashed
from domain.telemetry import TelemetryAccepted

_ESCROWS = (Purse.ESCROW_ALLOCATED, Purse.ESCROW_USAGE)


@dataclass(frozen=True, slots=True)
class Made:
    """What settlement made of an epoch."""

    checkpoint: Hash32
    authorised_nano: int
    payouts: Mapping[bytes, int]


class Totals:
    """Sums over the events of all ledgers."""

    def __init__(self) -> None:
        """Start with nothing seen."""
        self.journal = Balances()
        self.deposited = self.claimed = self.provider = self.protocol = self.slashed = 0
        self.withdrawn = self.early = 0
        self.readings = self.leases = self.epochs = self.anchored = 0
        self.lines: dict[tuple[bytes, str], int] = {}
        self.deposits: dict[bytes, int] = {}
        self.claims: dict[bytes, int] = {}
        self.earned: dict[bytes, int] = {}
        self.spent: dict[bytes, int] = {}
        self.slashes: dict[bytes, int] = {}
        #: Checkpoints by epoch; anchors that the market saw; the L1 block of the last deposit.
        self.made: dict[int, Made] = {}
        self.seen: dict[int, Hash32] = {}
        self.deposits_by_block: dict[int, int] = {}
        self.observed_block = -1
        self._cut: dict[int, int] = {}
        self._parts: tuple[PayoutLeaf, ...] = ()
        self._buyers: dict[bytes, bytes] = {}
        self._open: set[bytes] = set()
        self._leaving: dict[bytes, int] = {}
        self._wrong: list[str] = []

    def see(self, ledger: Ledger, shard: int, event: Any) -> None:
        """Take in one event of any ledger."""
        match event:
            case TelemetryAccepted():
                self.readings += event.rows - sum(byte.bit_count() for byte in event.refused)
            case DepositCredited():
                self.deposited += event.amount_nano
                _add(self.deposits, event.account, event.amount_nano)
                by_block = self.deposits_by_block
                by_block[event.block] = by_block.get(event.block, 0) + event.amount_nano
                self.observed_block = max(self.observed_block, event.block)
            case ClaimSettled():
                self.claimed += event.amount_nano
                _add(self.claims, event.account, event.amount_nano)
            case WithdrawalRequested():
                self.withdrawn += event.amount_nano
            case UsagePosted():
                self._posted(event)
            case LeaseOpened():
                self.leases += 1
                self._buyers[event.lease] = event.buyer
                self._open.add(event.lease)
            case LeaseEnded():
                self._ended(event)
            case LeaseClosed():
                self._open.discard(event.lease)
            case StakeSlashed():
                self.slashed += event.taken_nano
                _add(self.slashes, event.provider, event.taken_nano)
            case EpochCut():
                self._cut[event.number] = event.authorised_nano
            case EpochAnchored():
                self.seen[event.number] = event.checkpoint
                self.observed_block = max(self.observed_block, event.block)
            case PayoutsAdded():
                self._parts = (*self._parts, *event.payouts)
            case CheckpointMade():
                self.epochs += 1
                self._made(event)
            case CheckpointAnchored():
                self.anchored += 1
            case _:
                pass
        if ledger is Ledger.MARKET and (postings := getattr(event, "postings", None)):
            self.journal.post(postings)

    def add(self, other: Totals) -> None:
        """Take in the sums of other ledgers than the market, folded elsewhere."""
        self.readings += other.readings
        self.epochs += other.epochs
        self.anchored += other.anchored
        self.made.update(other.made)
        self._wrong += other._wrong

    def _posted(self, event: UsagePosted) -> None:
        lease, both = event.lease, event.provider_nano + event.protocol_nano
        self.provider += event.provider_nano
        self.protocol += event.protocol_nano
        _add(self.earned, event.account, event.provider_nano)
        _add(self.spent, self._buyers[lease], both)
        for line in event.lines:
            before = self.lines.get((lease, line.resource), 0)
            if line.posted_nano < before:
                self._wrong.append(f"what lease {lease.hex()} was charged fell")
            self.lines[lease, line.resource] = line.posted_nano
            both -= line.posted_nano - before
        # What no line explains is the price of leaving early, paid with the last statement.
        if not 0 <= both <= (self._leaving.get(lease, 0) if event.final else 0):
            self._wrong.append(f"lease {lease.hex()} was posted {both} that no line explains")
        self.early += both

    def _ended(self, event: LeaseEnded) -> None:
        if event.early_nano:
            self._leaving[event.lease] = event.early_nano
        if not event.was_active:
            self._open.discard(event.lease)

    def _made(self, event: CheckpointMade) -> None:
        before = self.made.get(event.epoch - 1)
        payouts = dict(before.payouts) if before is not None else {}
        parts, self._parts = (*self._parts, *event.payouts), ()
        for leaf in parts:
            if leaf.cumulative_nano < payouts.get(leaf.account, 0):
                self._wrong.append(f"the payout of {leaf.account.hex()} fell in {event.epoch}")
            payouts[leaf.account] = leaf.cumulative_nano
        self.made[event.epoch] = Made(event.checkpoint, event.authorised_nano, payouts)
        # The payouts of epochs before the last are of no use to anybody.
        if before is not None:
            self.made[event.epoch - 1] = Made(before.checkpoint, before.authorised_nano, {})

    @property
    def charged(self) -> int:
        """All that leases were charged: for what they used, and for leaving early."""
        return sum(self.lines.values()) + self.early

    def broken(self, balances: Mapping[Place, int]) -> Sequence[str]:
        """Laws that do not hold between these sums and the market's balances, as sentences."""
        wrong = list(self._wrong)
        if sum(balances.values()) != 0:
            wrong.append(f"all balances sum to {sum(balances.values())}, not zero")
        if dict(self.journal.all()) != dict(balances):
            wrong.append("the journal's balances are not the market's")
        if self.charged != self.provider + self.protocol:
            wrong.append(f"charged {self.charged}, shares {self.provider} + {self.protocol}")
        held = -balances.get((Purse.EXTERNAL, NOBODY), 0)
        if held != self.deposited - self.claimed:
            wrong.append(f"deposited {self.deposited} − claimed {self.claimed} is not {held}")
        for (purse, owner), nano in balances.items():
            if purse in _ESCROWS and owner not in self._open:
                wrong.append(f"escrow of closed lease {owner.hex()} holds {nano}")
        return wrong + list(self._unsettled())

    def _unsettled(self) -> Sequence[str]:
        wrong = []
        for epoch, seen in self.seen.items():
            made = self.made.get(epoch)
            if made is None or made.checkpoint != seen:
                wrong.append(f"the checkpoint seen anchored for epoch {epoch} was never made")
        last = 0
        for epoch, made in sorted(self.made.items()):
            if made.authorised_nano != self._cut.get(epoch):
                wrong.append(f"epoch {epoch} authorises another total than its cut")
            if not last <= made.authorised_nano <= self.deposited:
                wrong.append(f"authorised {made.authorised_nano} is below {last} or not covered")
            last = made.authorised_nano
        if self.claimed > last:
            wrong.append(f"claimed {self.claimed} is above the authorised {last}")
        return wrong


def _add(sums: dict[bytes, int], key: bytes, nano: int) -> None:
    sums[key] = sums.get(key, 0) + nano
