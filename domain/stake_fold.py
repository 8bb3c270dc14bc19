"""What stake rules know beside the aggregates: fleets, windows, pots, stake as it was (R5, R6).

A fold over events alone. Down intervals arrive late, so what a node owed and when it was silent is
kept as intervals until the window that they fall in is assessed, and no longer.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from domain.due import MarketDue
from domain.genesis import Genesis
from domain.ids import LeaseId, NodeId, OfferId, PotId, ProviderId, SlashId
from domain.lease import LeaseEnded, LeaseOpened, ReservationBroken
from domain.ledger import ParameterChanged
from domain.node import NodeHealthChanged, NodeRegistered, NodeRetired
from domain.offer import OfferPlaced, OfferWithdrawn
from domain.pot import EvidenceAccepted, PotDivided, PotOpened, PotPartDivided
from domain.provider import (
    Fault,
    ProviderAdmitted,
    ProviderRegistered,
    StakeBonded,
    StakeForfeited,
    StakeFrozen,
    StakeReleased,
    StakeSlashed,
    StakeThawed,
    StakeUnbonding,
    stake_after,
)
from domain.sla import OpenSpan, Span, Standing, WindowAssessed, obligation
from domain.stake import Stake

if TYPE_CHECKING:
    from domain.market import Market


class Track:
    """The union of intervals that open and close in order of time."""

    __slots__ = ("count", "spans")

    def __init__(self) -> None:
        """Nothing is open."""
        self.count = 0
        self.spans: list[OpenSpan] = []

    def open(self, us: int) -> None:
        """One more is open from here."""
        self.count += 1
        if self.count > 1:
            return
        if self.spans and self.spans[-1][1] == us:
            self.spans[-1] = (self.spans[-1][0], None)
        else:
            self.spans.append((us, None))

    def close(self, us: int) -> None:
        """One fewer is open from here."""
        self.count -= 1
        if self.count == 0:
            self.spans[-1] = (self.spans[-1][0], us)


@dataclass(slots=True, kw_only=True)
class Fleet:
    """One node as its obligation sees it."""

    provider: ProviderId
    required_nano: int
    registered_us: int
    retired_us: int | None = None
    first_sign_us: int | None = None
    offered: Track = field(default_factory=Track)
    leased: Track = field(default_factory=Track)
    downs: list[OpenSpan] = field(default_factory=list)
    broken: list[Span] = field(default_factory=list)

    @property
    def down(self) -> bool:
        """Whether the last thing heard is a silence."""
        return bool(self.downs) and self.downs[-1][1] is None

    def counted(self, start_us: int, end_us: int) -> tuple[int, int]:
        """The part of a window that can oblige: from its first sign of life to its retirement."""
        first = end_us if self.first_sign_us is None else self.first_sign_us
        last = end_us if self.retired_us is None else min(end_us, self.retired_us)
        return max(start_us, first), last

    def forget_before(self, us: int) -> None:
        """Drop what no window that ends later can count."""
        kept = [
            span
            for span in self.offered.spans
            if any(end is None or end > us for _, end in obligation([span], (), self.downs))
        ]
        self.offered.spans = kept
        self.leased.spans = [s for s in self.leased.spans if s[1] is None or s[1] > us]
        self.downs = [d for d in self.downs if d[1] is None or d[1] > us]
        self.broken = [b for b in self.broken if b[1] > us]


@dataclass(slots=True, kw_only=True)
class Window:
    """A provider's oldest window that is not assessed; ``queue`` once its assessment began."""

    start_us: int
    end_us: int
    queue: tuple[NodeId, ...] | None = None
    assessed: int = 0


@dataclass(slots=True, kw_only=True)
class PotFacts:
    """An open pot as others see it."""

    pot: PotId
    joins_until_us: int
    last_fault_us: int = 0


class History:
    """What stood when: values from an instant on. Old ones go when nobody can ask for them."""

    __slots__ = ("instants", "values")

    def __init__(self) -> None:
        """Nothing ever stood."""
        self.instants: list[int] = []
        self.values: list[Any] = []

    def note(self, us: int, value: Any) -> None:
        """From ``us`` on it is ``value``."""
        if self.instants and self.instants[-1] == us:
            self.values[-1] = value
        elif not self.values or self.values[-1] != value:
            self.instants.append(us)
            self.values.append(value)

    def at(self, us: int, before: Any) -> Any:
        """What stood at ``us``; ``before`` where nothing did yet."""
        place = bisect_right(self.instants, us)
        return self.values[place - 1] if place else before

    def forget_before(self, us: int) -> None:
        """Keep what stood at ``us`` and came later."""
        place = bisect_right(self.instants, us)
        if place > 1:
            del self.instants[: place - 1], self.values[: place - 1]


_NOTHING: Final = Standing(total_nano=0, required_all_nano=0)
_OF_WINDOWS: Final = ("sla_window_us", "slash_hour_ppm")


class StakeFold:
    """Stake, fleets, windows and pots of every provider."""

    def __init__(self, genesis: Genesis) -> None:
        """Nobody has stake; parameters are the genesis'."""
        self._market: Market | None = None
        self._stakes: dict[ProviderId, Stake] = {}
        self._required: dict[ProviderId, int] = {}
        self._unretired: dict[ProviderId, int] = {}
        self._admitted: dict[ProviderId, int] = {}
        self._uptime_ppm: dict[ProviderId, int] = {}
        self._nodes: dict[NodeId, Fleet] = {}
        self._fleets: dict[ProviderId, dict[NodeId, None]] = {}
        self._history: dict[ProviderId, History] = {}
        self._offers: dict[OfferId, NodeId] = {}
        self._leases: dict[LeaseId, NodeId] = {}
        self._windows: dict[ProviderId, Window] = {}
        self._heap: list[tuple[int, ProviderId]] = []
        self._last_end: dict[ProviderId, int] = {}
        self._pots: dict[ProviderId, list[PotFacts]] = {}
        self._guilty: dict[ProviderId, dict[int, dict[NodeId, None]]] = {}
        self._judged: dict[SlashId, None] = {}
        self._largest_grace_us = genesis.parameters.grace_max_us
        self._evidence_age_us = genesis.parameters.evidence_age_us
        self._values: dict[str, History] = {name: History() for name in _OF_WINDOWS}
        for name in _OF_WINDOWS:
            self._values[name].note(genesis.start_us, getattr(genesis.parameters, name))

    def bind(self, market: Market) -> None:
        """Take the market whose deadlines pots set."""
        self._market = market

    # What rules ask

    def stake(self, provider: ProviderId) -> Stake:
        """All tranches of a provider."""
        return self._stakes.get(provider, Stake())

    def required_nano(self, provider: ProviderId) -> int:
        """Σ r of the provider's unretired nodes (R6.2)."""
        return self._required.get(provider, 0)

    def held_nano(self, provider: ProviderId) -> int:
        """What may not be unbonded (R6.3): Σ r, retired nodes with an open window included."""
        if provider not in self._admitted:
            return 0
        return sum(self._nodes[n].required_nano for n in self._fleets.get(provider, ()))

    def unretired(self, provider: ProviderId) -> int:
        """Number of unretired nodes."""
        return self._unretired.get(provider, 0)

    def may_match(self, provider: ProviderId) -> bool:
        """Admitted, and bonded stake that no pot holds reaches Σ r (R6.2)."""
        return provider in self._admitted and self.stake(
            provider
        ).bonded_nano >= self._required.get(provider, 0)

    def live_offers(self, node: NodeId) -> int:
        """Offers of a node that are not withdrawn."""
        known = self._nodes.get(node)
        return 0 if known is None else known.offered.count

    def bound_until_us(self, node: NodeId) -> int:
        """When the last broken reservation of a node is over; 0 for none that is remembered."""
        known = self._nodes.get(node)
        return 0 if known is None else max((until for _, until in known.broken), default=0)

    def node(self, node: NodeId) -> Fleet | None:
        """A node whose window is not assessed to its end yet."""
        return self._nodes.get(node)

    def standing(self, provider: ProviderId, us: int) -> Standing:
        """Stake and Σ r as they stood at an instant."""
        history = self._history.get(provider)
        found: Standing = _NOTHING if history is None else history.at(us, _NOTHING)
        return found

    def uptime_ppm(self, provider: ProviderId) -> int:
        """The committed uptime."""
        return self._uptime_ppm[provider]

    def value(self, name: str, us: int) -> int:
        """A parameter of SLA windows as it stood at an instant."""
        found: int = self._values[name].at(us, self._values[name].values[0])
        return found

    def window(self, provider: ProviderId) -> Window | None:
        """The oldest window that is not assessed."""
        return self._windows.get(provider)

    def pots(self, provider: ProviderId) -> list[PotFacts]:
        """Open pots, oldest first."""
        return self._pots.get(provider, [])

    def judged(self, slash: SlashId) -> bool:
        """Whether the fault was judged (R5.7)."""
        return slash in self._judged

    def guilty(self, provider: ProviderId, us: int) -> list[NodeId]:
        """Nodes found guilty in the window of an instant."""
        return list(self._guilty.get(provider, {}).get(self._window_start(provider, us), {}))

    def ripe(self, passed_us: int) -> tuple[ProviderId, Window, NodeId] | None:
        """The next node to assess, every shard having passed an instant; by (end, provider, node).

        A window is ripe once the largest grace has passed after its end (R5.4).
        """
        while self._heap:
            end, provider = self._heap[0]
            window = self._windows.get(provider)
            if window is None or window.end_us != end:
                heapq.heappop(self._heap)
                continue
            if end + self._largest_grace_us > passed_us:
                return None
            return provider, window, self._queue(provider, window)[window.assessed]
        return None

    # Events

    def apply(self, event: Any) -> None:
        """Take in one event; events of no interest are ignored."""
        follow = _FOLLOW.get(type(event))
        if follow is not None:
            follow(self, event)

    def _provider_registered(self, event: ProviderRegistered) -> None:
        self._stakes[event.provider] = Stake()
        self._uptime_ppm[event.provider] = event.uptime_ppm
        self._history[event.provider] = History()

    def _stake_changed(self, event: Any) -> None:
        self._stakes[event.provider] = stake_after(self._stakes[event.provider], event)
        self._note(event.provider, event.at_us)

    def _note(self, provider: ProviderId, us: int) -> None:
        history = self._history[provider]
        history.note(
            us,
            Standing(
                total_nano=self._stakes[provider].total_nano,
                required_all_nano=self._required.get(provider, 0),
            ),
        )
        window = self._windows.get(provider)
        oldest = us - self._evidence_age_us
        history.forget_before(oldest if window is None else min(oldest, window.start_us))

    def _provider_admitted(self, event: ProviderAdmitted) -> None:
        self._admitted[event.provider] = event.at_us
        self._last_end[event.provider] = event.at_us
        self._next_window(event.provider)

    def _node_registered(self, event: NodeRegistered) -> None:
        provider = event.provider
        self._nodes[event.node] = Fleet(
            provider=provider, required_nano=event.required_nano, registered_us=event.at_us
        )
        self._fleets.setdefault(provider, {})[event.node] = None
        self._required[provider] = self._required.get(provider, 0) + event.required_nano
        self._unretired[provider] = self._unretired.get(provider, 0) + 1
        self._largest_grace_us = max(self._largest_grace_us, event.grace_us)
        self._note(provider, event.at_us)
        if provider in self._admitted and provider not in self._windows:
            self._next_window(provider)

    def _node_retired(self, event: NodeRetired) -> None:
        fleet = self._nodes[event.node]
        fleet.retired_us = event.at_us
        self._required[fleet.provider] -= fleet.required_nano
        self._unretired[fleet.provider] -= 1
        self._note(fleet.provider, event.at_us)
        window = self._windows.get(fleet.provider)
        if window is None:
            self._forget(event.node)
        elif event.at_us <= window.start_us:
            # No window is left that it was in service in.
            self._forget(event.node)
            if not self._in_scope(fleet.provider, window.start_us, window.end_us):
                self._next_window(fleet.provider)

    def _node_health_changed(self, event: NodeHealthChanged) -> None:
        fleet = self._nodes.get(event.node)
        if fleet is None:
            return
        if not event.up:
            fleet.downs.append((event.down_since_us, None))
            return
        if fleet.first_sign_us is None:
            fleet.first_sign_us = event.up_us
        if fleet.down:
            fleet.downs[-1] = (fleet.downs[-1][0], event.up_us)

    def _offer_placed(self, event: OfferPlaced) -> None:
        self._offers[event.offer] = event.node
        self._nodes[event.node].offered.open(event.at_us)

    def _offer_withdrawn(self, event: OfferWithdrawn) -> None:
        self._nodes[self._offers.pop(event.offer)].offered.close(event.at_us)

    def _lease_opened(self, event: LeaseOpened) -> None:
        self._nodes[event.node].leased.open(event.at_us)

    def _lease_ended(self, event: LeaseEnded) -> None:
        self._nodes[event.node].leased.close(event.at_us)

    def _reservation_broken(self, event: ReservationBroken) -> None:
        self._nodes[event.node].broken.append((event.at_us, event.until_us))

    def _parameter_changed(self, event: ParameterChanged) -> None:
        if event.name in self._values:
            self._values[event.name].note(event.at_us, event.value)
        elif event.name == "grace_max_us":
            self._largest_grace_us = max(self._largest_grace_us, event.value)
        elif event.name == "evidence_age_us":
            self._evidence_age_us = max(self._evidence_age_us, event.value)

    def _window_assessed(self, event: WindowAssessed) -> None:
        window = self._windows[event.provider]
        queue = self._queue(event.provider, window)
        window.assessed += 1
        fleet = self._nodes[event.node]
        fleet.forget_before(event.end_us)
        if fleet.retired_us is not None and fleet.retired_us <= event.end_us:
            self._forget(event.node)
        if window.assessed == len(queue):
            self._last_end[event.provider] = window.end_us
            self._next_window(event.provider)

    def _pot_opened(self, event: PotOpened) -> None:
        self._pots.setdefault(event.provider, []).append(
            PotFacts(pot=event.pot, joins_until_us=event.joins_until_us)
        )
        if self._market is not None:
            self._market.deadlines.set(MarketDue.POT_DIVIDES, event.pot, event.divides_us)

    def _evidence_accepted(self, event: EvidenceAccepted) -> None:
        self._judged[event.slash] = None
        for pot in self._pots[event.provider]:
            if pot.pot == event.pot:
                pot.last_fault_us = max(pot.last_fault_us, event.fault_us)
        if event.fault is not Fault.DOWNTIME:
            start = self._window_start(event.provider, event.fault_us)
            self._guilty.setdefault(event.provider, {}).setdefault(start, {})[event.node] = None

    def _pot_part_divided(self, event: PotPartDivided) -> None:
        if self._market is not None:
            self._market.deadlines.set(MarketDue.POT_DIVIDES, event.pot, event.at_us)

    def _pot_divided(self, event: PotDivided) -> None:
        left = [pot for pot in self._pots[event.provider] if pot.pot != event.pot]
        self._pots[event.provider] = left
        if not left:
            del self._pots[event.provider]
        if self._market is not None:
            self._market.deadlines.clear(MarketDue.POT_DIVIDES, event.pot)

    # Windows

    def _queue(self, provider: ProviderId, window: Window) -> tuple[NodeId, ...]:
        if window.queue is None:
            window.queue = tuple(sorted(self._in_scope(provider, window.start_us, window.end_us)))
        return window.queue

    def _in_scope(self, provider: ProviderId, start_us: int, end_us: int) -> list[NodeId]:
        return [
            node
            for node in self._fleets.get(provider, ())
            if self._nodes[node].registered_us < end_us
            and ((gone := self._nodes[node].retired_us) is None or gone > start_us)
        ]

    def _next_window(self, provider: ProviderId) -> None:
        """Open the first window after the last one that has a node; none for an empty fleet."""
        self._windows.pop(provider, None)
        if not self._fleets.get(provider):
            return
        start = self._last_end[provider]
        end = start + self.value("sla_window_us", start)
        while not self._in_scope(provider, start, end):
            start, end = end, end + self.value("sla_window_us", end)
        self._windows[provider] = Window(start_us=start, end_us=end)
        heapq.heappush(self._heap, (end, provider))
        guilty = self._guilty.get(provider, {})
        for old in [us for us in guilty if us < start]:
            del guilty[old]

    def _window_start(self, provider: ProviderId, us: int) -> int:
        """The start of the window that holds an instant, from the oldest open one on."""
        window = self._windows.get(provider)
        if window is None:
            return self._last_end.get(provider, 0)
        start, end = window.start_us, window.end_us
        while end <= us:
            start, end = end, end + self.value("sla_window_us", end)
        return start

    def _forget(self, node: NodeId) -> None:
        fleet = self._nodes.pop(node)
        del self._fleets[fleet.provider][node]


_FOLLOW: Final[Mapping[type[Any], Callable[[StakeFold, Any], None]]] = {
    ProviderRegistered: StakeFold._provider_registered,
    ProviderAdmitted: StakeFold._provider_admitted,
    NodeRegistered: StakeFold._node_registered,
    NodeRetired: StakeFold._node_retired,
    NodeHealthChanged: StakeFold._node_health_changed,
    OfferPlaced: StakeFold._offer_placed,
    OfferWithdrawn: StakeFold._offer_withdrawn,
    LeaseOpened: StakeFold._lease_opened,
    LeaseEnded: StakeFold._lease_ended,
    ReservationBroken: StakeFold._reservation_broken,
    ParameterChanged: StakeFold._parameter_changed,
    WindowAssessed: StakeFold._window_assessed,
    PotOpened: StakeFold._pot_opened,
    EvidenceAccepted: StakeFold._evidence_accepted,
    PotPartDivided: StakeFold._pot_part_divided,
    PotDivided: StakeFold._pot_divided,
    **dict.fromkeys(
        (
            StakeBonded,
            StakeUnbonding,
            StakeSlashed,
            StakeFrozen,
            StakeThawed,
            StakeReleased,
            StakeForfeited,
        ),
        StakeFold._stake_changed,
    ),
}
