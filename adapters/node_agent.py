"""The agent of one node: signs a beat at every interval, and what it can measure of its leases.

It measures the bytes of the machine's network interfaces. They are the node's as a whole, so they
are a lease's only while that lease is the one that is metered on the node; with two at once it
says that it cannot tell them apart and adds nothing to either. What it measured is written to a
file before it is sent: after a restart the same counters go on.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import psutil

from domain.ids import LeaseId, NodeId
from domain.telemetry import Batch

INGRESS: Final = "network.ingress"
EGRESS: Final = "network.egress"
MEASURED: Final = frozenset({INGRESS, EGRESS})
_LOOPBACK: Final = "lo"


class Unreachable(Exception):
    """The ledger does not answer now; the next beat tries again."""


class Ledger(Protocol):
    """What the agent asks of a ledger. Every call may raise ``Unreachable``."""

    def leases(self) -> Sequence[Lease]:
        """The node's leases that are opened, active or closing."""
        ...

    def ready(self, lease: bytes) -> None:
        """Say that a lease can be used."""
        ...

    def send(self, batch: Batch) -> None:
        """Sign a batch and send it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A lease on the node, as the ledger shows it."""

    id: bytes
    state: str
    ready_us: int | None
    limits: Mapping[str, int]


def network_bytes(interfaces: Sequence[str]) -> dict[str, int]:
    """Bytes in and out of the named interfaces, or of all but loopback, since the machine began."""
    counters = psutil.net_io_counters(pernic=True, nowrap=True)
    chosen = [
        counter
        for name, counter in counters.items()
        if (name in interfaces if interfaces else name != _LOOPBACK)
    ]
    return {
        INGRESS: sum(counter.bytes_recv for counter in chosen),
        EGRESS: sum(counter.bytes_sent for counter in chosen),
    }


@dataclass(slots=True)
class Meters:
    """Cumulative totals of leases, by lease and resource, kept in a file."""

    path: Path
    totals: dict[str, dict[str, int]] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Meters:
        """What was measured before, or nothing."""
        if not path.exists():
            return cls(path)
        found = json.loads(path.read_text())
        return cls(path, {str(k): {str(r): int(t) for r, t in v.items()} for k, v in found.items()})

    def add(self, lease: bytes, resource: str, amount: int, most: int) -> int:
        """Count on, up to ``most``; the new total."""
        counters = self.totals.setdefault(lease.hex(), {})
        counters[resource] = max(
            counters.get(resource, 0), min(counters.get(resource, 0) + amount, most)
        )
        return counters[resource]

    def save(self) -> None:
        """Write the file, whole or not at all."""
        draft = self.path.with_name(f"{self.path.name}.new")
        draft.write_text(json.dumps(self.totals))
        draft.replace(self.path)


class Agent:
    """One node's agent."""

    def __init__(
        self,
        *,
        node: NodeId,
        beat_us: int,
        ledger: Ledger,
        meters: Meters,
        numbers: Mapping[str, int],
        measure: Callable[[], Mapping[str, int]] | None,
        auto_ready: bool,
        say: Callable[[str], None],
        clock_us: Callable[[], int],
    ) -> None:
        """``numbers`` are the catalogue's row numbers; ``measure`` None sends beats alone."""
        self._node = node
        self._beat_s = beat_us / 1_000_000
        self._ledger = ledger
        self._meters = meters
        self._numbers = numbers
        self._measure = measure
        self._auto_ready = auto_ready
        self._say = say
        self._clock_us = clock_us
        self._last: Mapping[str, int] | None = None
        self._told: set[tuple[object, ...]] = set()
        self._leases: Sequence[Lease] = ()
        self.beats = 0
        self.readings = 0

    def run(self, stop: threading.Event, beats: int | None = None) -> None:
        """Beat until ``stop`` is set, or so many times."""
        due = time.monotonic()
        unreachable = False
        while not stop.is_set() and (beats is None or self.beats < beats):
            try:
                self.beat()
                if unreachable:
                    self._say("The ledger answers again.")
                unreachable = False
            except Unreachable as error:
                if not unreachable:
                    self._say(f"{error} It is tried again with every beat.")
                unreachable = True
            due = max(due + self._beat_s, time.monotonic())
            stop.wait(max(due - time.monotonic(), 0))

    def beat(self) -> None:
        """One sign of life, with what was measured since the last."""
        self._leases = self._ledger.leases()
        if self._auto_ready:
            for lease in self._leases:
                if lease.state == "OPENED":
                    self._ledger.ready(lease.id)
                    self._say(f"Lease {lease.id.hex()} is ready.")
        rows = self._rows()
        leases = list(dict.fromkeys(lease for lease, _, _ in rows))
        at = self._clock_us()
        batch = Batch(
            nodes=(self._node,),
            leases=tuple(LeaseId(lease) for lease in leases),
            lease=tuple(leases.index(lease) for lease, _, _ in rows),
            resource=tuple(self._numbers[resource] for _, resource, _ in rows),
            generation=(0,) * len(rows),
            time_us=(at,) * len(rows),
            total=tuple(total for _, _, total in rows),
        )
        self._ledger.send(batch)
        self.beats += 1
        self.readings += len(rows)
        for of, resource, total in rows:
            self._say(f"beat {self.beats}: {of.hex()} {resource} {total:,}")
        if not rows:
            self._say(f"beat {self.beats}")

    def _rows(self) -> list[tuple[bytes, str, int]]:
        """The readings of this beat: (lease, resource, cumulative total)."""
        if self._measure is None:
            return []
        now = self._measure()
        before, self._last = self._last or now, now
        live = [lease for lease in self._leases if lease.state in ("ACTIVE", "CLOSING")]
        rows: list[tuple[bytes, str, int]] = []
        for lease in live:
            if lease.state != "ACTIVE" or lease.ready_us is None:
                continue
            for resource, per_second in lease.limits.items():
                if resource not in MEASURED:
                    self._once(
                        ("other", lease.id, resource),
                        f"Lease {lease.id.hex()}: this agent cannot measure {resource}.",
                    )
                    continue
                sharing = [other for other in live if resource in other.limits]
                if len(sharing) > 1:
                    self._once(
                        ("shared", *(other.id for other in sharing), resource),
                        f"{len(sharing)} leases are metered for {resource} at once: the bytes of "
                        "the machine cannot be told apart, and none are counted.",
                    )
                    continue
                elapsed_us = max(self._clock_us() - lease.ready_us, 0)
                most = per_second * elapsed_us // 1_000_000
                total = self._meters.add(
                    lease.id, resource, max(now[resource] - before[resource], 0), most
                )
                rows.append((lease.id, resource, total))
        if rows:
            self._meters.save()
        return rows

    def _once(self, key: tuple[object, ...], text: str) -> None:
        if key not in self._told:
            self._told.add(key)
            self._say(text)


def lease_of(row: Mapping[str, Any]) -> Lease:
    """A lease from a row of the API."""
    return Lease(
        id=bytes.fromhex(row["lease"]),
        state=row["state"],
        ready_us=None if row["ready_us"] is None else int(row["ready_us"]),
        limits={name: int(most) for name, most in map(_pair, row["metered"])},
    )


def _pair(each: Any) -> tuple[str, Any]:
    resource, number = each.values() if isinstance(each, dict) else each
    return resource, number
