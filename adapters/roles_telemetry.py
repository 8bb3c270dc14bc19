"""Telemetry that may go: committed by its shard, and that long enough ago.

What a shard has consumed it keeps in its own ledger, signed bytes and all (ADR 0013), so old
telemetry is worth only what the audit of the raw topic adds. What a shard has not committed is
nowhere else: so nothing is deleted but what the counting commits of that shard's ledger name, and
nothing at all where a ledger is not sound.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from adapters.roles import ADMIN, Deployment
from adapters.roles_check import LedgerFound, look_over
from domain.commit import TELEMETRY_TOPIC, Ledger
from domain.ports import Log


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """One partition of telemetry: what is there, what its shard has committed, what may go."""

    shard: int
    start: int
    committed: int
    end: int
    #: Records before it are older than asked, by the ledger's own time; never above ``committed``.
    before: int

    @property
    def old(self) -> int:
        """How many offsets may go."""
        return max(self.before - self.start, 0)


def kept_by(deployment: Deployment, older_than_us: int) -> Sequence[Kept]:
    """What may go of each partition. Raises ``LedgerStopped`` where a metering ledger has a fault.

    A record is as old as the commit that consumed it, and the newest commit says what the time is:
    a ledger that stands still lets nothing grow old.
    """
    with ExitStack() as stack:
        log = deployment.log(stack, "reader")
        found = look_over(deployment.network, log)
        for ledger in found:
            if ledger.fault is not None:
                raise ledger.fault
        shards = [each for each in found if each.ledger is Ledger.METERING]
        newest = max((each.times[-1] for each in shards if each.times), default=0)
        return [_kept(log, each, newest - older_than_us) for each in shards]


def _kept(log: Log, found: LedgerFound, until_us: int) -> Kept:
    before = 0
    for time_us, consumed in zip(found.times, found.telemetry, strict=True):
        if time_us > until_us:
            break
        before = consumed
    end = log.end(TELEMETRY_TOPIC, found.shard)
    return Kept(
        shard=found.shard,
        start=log.start(TELEMETRY_TOPIC, found.shard),
        committed=found.telemetry[-1] if found.telemetry else 0,
        end=end,
        # The last record stays: where a log has no other word for its end, it is the word.
        before=min(before, end - 1),
    )


def delete(deployment: Deployment, kept: Sequence[Kept]) -> None:
    """Delete what may go, oldest first. Killed on the way it has deleted less."""
    with deployment.topics(ADMIN) as admin:
        for each in kept:
            if each.old:
                admin.delete_before(TELEMETRY_TOPIC, each.shard, each.before)
