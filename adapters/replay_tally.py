"""The figures of a replay, counted from the ledger's events and from nothing else."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Final

from adapters.replay_mapping import Total
from domain.account import DepositCredited
from domain.bid import BidCancelled, BidPlaced
from domain.ids import LeaseId, NodeId
from domain.key import CommandAnswered
from domain.lease import (
    LeaseClosed,
    LeaseEnded,
    LeaseOpened,
    LeaseReady,
    UsageLine,
    UsagePosted,
)
from domain.node import NodeRegistered
from domain.provider import StakeBonded, StakeSlashed
from domain.refusal import CODES
from domain.telemetry import NodeCameUp, NodeWentDown, TelemetryAccepted, TelemetryRefused

#: What the tally and the driver follow of the market ledger.
MARKET_EVENTS: Final = (
    BidCancelled,
    BidPlaced,
    CommandAnswered,
    DepositCredited,
    LeaseClosed,
    LeaseEnded,
    LeaseOpened,
    LeaseReady,
    NodeRegistered,
    StakeBonded,
    StakeSlashed,
    UsagePosted,
)
METERING_EVENTS: Final = (NodeCameUp, NodeWentDown, TelemetryAccepted, TelemetryRefused)

_HASH: Final = 1 << 256


@dataclass(slots=True)
class _Open:
    """A lease that is not closed: what it holds, and the last line of each resource."""

    buyer: bytes
    amounts: tuple[tuple[str, int], ...]
    ready_us: int = -1
    lines: dict[str, UsageLine] = field(default_factory=dict)


@dataclass(slots=True)
class Peak:
    """The most that was active at one instant, and over how many leases."""

    quantity: int = 0
    leases: int = 0


class Tally:
    """Sums over leases; what is kept per lease goes when it closes."""

    def __init__(self) -> None:
        """Nothing seen."""
        self.orders = self.cancelled = self.leases = self.active = self.readied = self.closed = 0
        self.reasons: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.quantities: Counter[str] = Counter()
        self.charged: Counter[str] = Counter()
        self.posted: Counter[str] = Counter()
        self.buyers: dict[bytes, dict[str, tuple[int, int]]] = {}
        self.unfunded_nano = self.early_nano = self.refunded_nano = 0
        self.deposited_nano = self.staked_nano = self.slashed_nano = 0
        self.provider_nano = self.protocol_nano = 0
        self.lifetimes_us: Counter[str] = Counter()
        self.nodes = self.batches = self.readings = 0
        self.outages = self.outages_us = 0
        self._down: dict[NodeId, int] = {}
        self.peaks: dict[str, Peak] = {}
        self.most_active = 0
        self._bills = 0
        self._unleased: set[bytes] = set()
        self._never = 0
        self._open: dict[LeaseId, _Open] = {}
        self._held: dict[str, Peak] = {}
        self._instant_us = -1

    @property
    def open_leases(self) -> int:
        """Leases that are not closed."""
        return len(self._open)

    @property
    def bills(self) -> str:
        """A hash over every final line of every closed lease, whatever their order."""
        return f"{self._bills:064x}"

    def see(self, event: Any) -> None:
        """Take in one event of a market or metering ledger."""
        match event:
            case BidPlaced():
                self.orders += 1
                self._unleased.add(event.bid)
            case BidCancelled():
                self.cancelled += 1
                self._never += event.bid in self._unleased
                self._unleased.discard(event.bid)
            case LeaseOpened():
                self.leases += 1
                self._unleased.discard(event.bid)
                self._open[event.lease] = _Open(
                    event.buyer,
                    tuple((held.resource, held.amount) for held in event.allocations),
                )
            case LeaseReady():
                self._ready(event)
            case LeaseEnded():
                self._ended(event)
            case UsagePosted():
                self.provider_nano += event.provider_nano
                self.protocol_nano += event.protocol_nano
                self._open[event.lease].lines.update((line.resource, line) for line in event.lines)
            case LeaseClosed():
                self._closed(event)
            case _:
                self._other(event)

    def _other(self, event: Any) -> None:
        match event:
            case CommandAnswered():
                if event.code:
                    self.refused[CODES[event.code].name] += 1
                for row in event.rows:
                    self.refused[CODES[row.code].name] += 1
            case DepositCredited():
                self.deposited_nano += event.amount_nano
            case StakeBonded():
                self.staked_nano += event.amount_nano
            case StakeSlashed():
                self.slashed_nano += event.taken_nano
            case NodeRegistered():
                self.nodes += 1
            case NodeWentDown():
                self._down[event.node] = event.since_us
            case NodeCameUp():
                if event.node in self._down:
                    self.outages += 1
                    self.outages_us += event.at_us - self._down.pop(event.node)
            case TelemetryAccepted():
                self.batches += 1
                refused = sum(byte.bit_count() for byte in event.refused)
                self.readings += event.rows - refused
                if refused:
                    self.refused["row_of_a_batch"] += refused
            case TelemetryRefused():
                self.refused[CODES[event.code].name] += 1
            case _:
                pass

    # Active leases

    def _ready(self, event: LeaseReady) -> None:
        self._reach(event.at_us)
        lease = self._open[event.lease]
        lease.ready_us = event.at_us
        self.readied += 1
        self.active += 1
        for resource, amount in lease.amounts:
            held = self._held.setdefault(resource, Peak())
            held.quantity += amount
            held.leases += 1

    def _ended(self, event: LeaseEnded) -> None:
        self._reach(event.at_us)
        reason = event.reason.value.lower()
        self.reasons[reason] += 1
        self.early_nano += event.early_nano
        if not event.was_active:
            return
        lease = self._open[event.lease]
        self.active -= 1
        self.lifetimes_us[reason] += event.at_us - lease.ready_us
        for resource, amount in lease.amounts:
            held = self._held[resource]
            held.quantity -= amount
            held.leases -= 1

    def _reach(self, at_us: int) -> None:
        """Intervals are half-open: what ends and begins at one instant never stood together."""
        if at_us > self._instant_us:
            self._measure()
            self._instant_us = at_us

    def _measure(self) -> None:
        self.most_active = max(self.most_active, self.active)
        for resource, held in self._held.items():
            peak = self.peaks.setdefault(resource, Peak())
            if held.quantity > peak.quantity:
                peak.quantity, peak.leases = held.quantity, held.leases

    # Bills

    def _closed(self, event: LeaseClosed) -> None:
        lease = self._open.pop(event.lease)
        self.closed += 1
        self.refunded_nano += event.refund_nano
        for resource, line in sorted(lease.lines.items()):
            self.quantities[resource] += line.quantity
            self.charged[resource] += line.charged_nano
            self.posted[resource] += line.posted_nano
            self.unfunded_nano += line.unfunded_nano
            bill = self.buyers.setdefault(lease.buyer, {})
            quantity, nano = bill.get(resource, (0, 0))
            bill[resource] = (quantity + line.quantity, nano + line.posted_nano)
            text = f"{event.lease.hex()} {resource} {line.quantity} {line.charged_nano}"
            digest = hashlib.sha256(text.encode()).digest()
            self._bills = (self._bills + int.from_bytes(digest, "big")) % _HASH

    def figures(self, totals: Sequence[Total], buyers: Mapping[bytes, str]) -> dict[str, Any]:
        """The report's part that is read from the ledger; ``buyers`` are names by account."""
        self._measure()
        return {
            "nodes": self.nodes,
            "outages": {"ended": self.outages, "us": self.outages_us, "open": len(self._down)},
            "orders": self.orders,
            "orders_never_leased": self._never + len(self._unleased),
            "orders_cancelled": self.cancelled,
            "leases": self.leases,
            "leases_readied": self.readied,
            "leases_closed": self.closed,
            "ended": dict(sorted(self.reasons.items())),
            "lifetimes_us": dict(sorted(self.lifetimes_us.items())),
            "peak_active_leases": self.most_active,
            "peaks": {
                resource: {"quantity": peak.quantity, "leases": peak.leases}
                for resource, peak in sorted(self.peaks.items())
            },
            "quantities": dict(sorted(self.quantities.items())),
            "totals": {each.name: self._total(each) for each in totals},
            "charged_nano": dict(sorted(self.charged.items())),
            "posted_nano": dict(sorted(self.posted.items())),
            "buyers": {
                buyers[account]: {
                    resource: {"quantity": quantity, "posted_nano": nano}
                    for resource, (quantity, nano) in sorted(bill.items())
                }
                for account, bill in sorted(self.buyers.items(), key=lambda b: buyers[b[0]])
            },
            "batches": self.batches,
            "readings": self.readings,
            "refused": dict(sorted(self.refused.items())),
            "money": {
                "deposited_nano": self.deposited_nano,
                "staked_nano": self.staked_nano,
                "charged_nano": sum(self.charged.values()),
                "posted_nano": sum(self.posted.values()),
                "early_nano": self.early_nano,
                "unfunded_nano": self.unfunded_nano,
                "provider_nano": self.provider_nano,
                "protocol_nano": self.protocol_nano,
                "refunded_nano": self.refunded_nano,
                "slashed_nano": self.slashed_nano,
            },
            "bills": self.bills,
        }

    def _total(self, total: Total) -> int | str:
        exact = Fraction(sum(self.quantities[each] for each in total.resources), total.divide)
        return exact.numerator if exact.denominator == 1 else str(exact)
