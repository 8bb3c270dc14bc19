"""What rows become: small values that the driver of a replay turns into signed inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from adapters.replay_mapping import Kind, Named, Step
from adapters.replay_values import ReplayRefused, Row
from domain.catalogue import PriceRow

Amounts = tuple[tuple[str, int], ...]

#: Names that a mapping may leave out.
NOBODY: Final = "replay"


@dataclass(frozen=True, slots=True, kw_only=True)
class WithdrawNode:
    """The node's asks leave the book."""

    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EndLeases:
    """Leases of a bid, or all on a node, end at this instant."""

    how: str
    bid: str | None
    node: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelBidding:
    """What is unfilled of a bid leaves the book."""

    bid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RetireOne:
    """The node is gone."""

    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AddNode:
    """A node of a provider; ``devices`` 0: as many as its capacity of device time needs."""

    key: str
    provider: str
    region: str
    devices: int
    capacity: Amounts


@dataclass(frozen=True, slots=True, kw_only=True)
class AddOffer:
    """An ask; without ``ask_nano`` the list price. With a notice it may be reclaimed."""

    node: str
    resource: str
    quantity_milli: int
    ask_nano: int | None
    notice_us: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AddBid:
    """A bid; without ``limit_nano`` the list price. Amounts of zero are left out."""

    key: str
    buyer: str
    resource: str
    region: str
    quantity_milli: int
    limit_nano: int | None
    term_us: int
    usage_budget_nano: int
    allocations: Amounts
    metered: Amounts


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeReady:
    """The leases of a bid can be used."""

    bid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """A node gives no sign of life until an instant, relative to the origin; None: its beat."""

    node: str
    until_us: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """A sign of life of a node."""

    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A counter of a bid's lease: its total, or what it grew by since the row before."""

    bid: str
    resource: str
    total: int | None
    add: int | None


Action = (
    WithdrawNode
    | EndLeases
    | CancelBidding
    | RetireOne
    | AddNode
    | AddOffer
    | AddBid
    | MakeReady
    | Silence
    | Beat
    | Reading
)


class _Said:
    """The values of a step for one row."""

    def __init__(self, step: Step, row: Row) -> None:
        self._step = step
        self._row = row

    def text(self, name: str, default: str | None = None) -> str:
        value = self._step.values.get(name)
        if value is None:
            assert default is not None, "a value without a default is required by the mapping"
            return default
        return value.text(self._row)

    def maybe(self, name: str) -> int | None:
        value = self._step.values.get(name)
        return None if value is None else value.number(self._row)

    def number(self, name: str, default: int = 0) -> int:
        found = self.maybe(name)
        return default if found is None else found

    def amounts(self, name: str) -> Amounts:
        return tuple(
            (named.resource.text(self._row), amount)
            for named in self._step.lists[name]
            if (amount := _amount(named, self._row))
        )


def _amount(named: Named, row: Row) -> int:
    return named.amount.number(row)


def _end(step: Step, said: _Said) -> Action:
    by_bid = "bid" in step.values
    return EndLeases(
        how=step.how,
        bid=said.text("bid") if by_bid else None,
        node=None if by_bid else said.text("node"),
    )


def _node(step: Step, said: _Said) -> Action:
    return AddNode(
        key=said.text("key"),
        provider=said.text("provider", NOBODY),
        region=said.text("region", NOBODY),
        devices=said.number("devices"),
        capacity=said.amounts("capacity"),
    )


def _offer(step: Step, said: _Said) -> Action:
    return AddOffer(
        node=said.text("node"),
        resource=said.text("resource"),
        quantity_milli=said.number("quantity"),
        ask_nano=said.maybe("ask"),
        notice_us=said.maybe("notice"),
    )


def _bid(step: Step, said: _Said) -> Action:
    return AddBid(
        key=said.text("key"),
        buyer=said.text("buyer", NOBODY),
        resource=said.text("resource"),
        region=said.text("region", NOBODY),
        quantity_milli=said.number("quantity"),
        limit_nano=said.maybe("limit"),
        term_us=said.number("term"),
        usage_budget_nano=said.number("usage_budget"),
        allocations=said.amounts("allocations"),
        metered=said.amounts("metered"),
    )


def _reading(step: Step, said: _Said) -> Action:
    return Reading(
        bid=said.text("bid"),
        resource=said.text("resource"),
        total=said.maybe("total"),
        add=said.maybe("add"),
    )


_MAKE: Final[Mapping[Kind, Callable[[Step, _Said], Action]]] = {
    Kind.WITHDRAW: lambda step, said: WithdrawNode(node=said.text("node")),
    Kind.END: _end,
    Kind.CANCEL: lambda step, said: CancelBidding(bid=said.text("bid")),
    Kind.RETIRE: lambda step, said: RetireOne(node=said.text("node")),
    Kind.NODE: _node,
    Kind.OFFER: _offer,
    Kind.BID: _bid,
    Kind.READY: lambda step, said: MakeReady(bid=said.text("bid")),
    Kind.OUTAGE: lambda step, said: Silence(node=said.text("node"), until_us=said.maybe("until")),
    Kind.BEAT: lambda step, said: Beat(node=said.text("node")),
    Kind.READING: _reading,
}


def action_of(step: Step, row: Row) -> Action | None:
    """What the row becomes by this step, or None where it does not meet the conditions."""
    if not all(condition.holds(row) for condition in step.where):
        return None
    return _MAKE[step.kind](step, _Said(step, row))


def price_row_of(step: Step, row: Row) -> PriceRow | None:
    """The catalogue row that a price row becomes, or None where it is not meant."""
    if not all(condition.holds(row) for condition in step.where):
        return None
    if step.row is None:
        raise ReplayRefused(f"{step.place} is no step of price rows")
    said = _Said(step, row)
    return replace(
        step.row,
        resource=said.text("resource"),
        price_nano=said.number("price"),
        unit=said.number("per", step.row.unit),
    )
