"""Follows the ledgers into the read models, and makes these anew where that is asked for.

A generation that an older program made serves on while the new one is filled. What is held and what
stands still is said when it begins and when it ends.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Final

from adapters import bootstrap
from adapters.api_troubles import troubles
from adapters.bootstrap import Network
from adapters.metrics import Views
from adapters.projector import LedgerStatus, Projector
from adapters.read_model import BeingRebuilt, ReadModel, ReadModelStale, Standing
from domain.ports import Log
from projections.following import RowStore

Say = Callable[[str], None]

_TELL_EVERY_US: Final = 1_000_000


def projector_of(network: Network, log: Log, target: RowStore) -> Projector:
    """The projector of every ledger of a network; ``log`` is used by its thread alone."""
    return Projector(
        log=log,
        target=target,
        codec=network.codec,
        verify=bootstrap.verify,
        genesis=network.genesis,
        genesis_hash=network.hash,
        shards=network.shards,
    )


class Rebuild:
    """A new generation in the making; killed at any instant, the next one goes on from there."""

    def __init__(
        self, network: Network, log: Log, read_model: ReadModel, clock_us: Callable[[], int]
    ) -> None:
        """Begin, or go on with what another process has begun."""
        self._read_model = read_model
        self._clock_us = clock_us
        self.entry, self._generation = read_model.begin(network.hash, clock_us())
        self._projector = projector_of(network, log, self._generation)
        self._projector.look()
        self._tell()

    def turn(self, *, wait_s: float = 0.0) -> bool:
        """Take one batch of each ledger. True if it serves now."""
        moved = self._projector.turn()
        if moved and self._clock_us() - self.entry.told_us < _TELL_EVERY_US:
            return False
        self._tell()
        if moved:
            return False
        if self._read_model.switch(self.entry.number, self._generation, self._clock_us()):
            return True
        if wait_s:
            threading.Event().wait(wait_s)
        return False

    def _tell(self) -> None:
        seen = self.status()
        done = sum(each.next_offset for each in seen)
        total = sum(each.end or 0 for each in seen)
        now_us = self._clock_us()
        self.entry = self._read_model.tell(self.entry, done=done, total=total, now_us=now_us)

    def status(self) -> Sequence[LedgerStatus]:
        """How far each ledger is followed."""
        return self._projector.status()

    def close(self) -> None:
        """Release the connections; what is filled stays."""
        self._generation.close()


class Following:
    """Keeps the read models at the head of the ledgers. One thread takes turns."""

    def __init__(
        self,
        network: Network,
        log: Log,
        read_model: ReadModel,
        clock_us: Callable[[], int],
        say: Say,
    ) -> None:
        """Prepare the read models; nothing is read before the first turn."""
        self._network = network
        self._log = log
        self._read_model = read_model
        self._clock_us = clock_us
        self._say = say
        self._projector = projector_of(network, log, read_model)
        self._rebuild: Rebuild | None = None
        self._told: frozenset[str] = frozenset()
        self._looked_us = 0
        standing = read_model.prepare(network.hash)
        if standing is Standing.NEWER:
            raise ReadModelStale(
                "The read models were made by a newer version of this program. Update this one, or "
                "make them anew for it with: synor projections rebuild"
            )
        if standing is not Standing.CURRENT:
            say("The read models are of another version of this program: they are rebuilt.")
            self._rebuild = Rebuild(network, log, read_model, clock_us)

    def turn(self, *, wait_s: float = 0.0) -> bool:
        """Take one batch of each ledger; True if anything was there."""
        if self._rebuild is not None:
            if self._rebuild.turn(wait_s=wait_s):
                self._rebuild.close()
                self._rebuild = None
                self._say("The read models are rebuilt and serve.")
            return True
        moved = self._projector.turn(wait_s=wait_s)
        now_us = self._clock_us()
        if now_us - self._looked_us >= _TELL_EVERY_US:
            self._looked_us = now_us
            self._read_model.sweep(now_us)
            self._tell()
        return moved

    def _tell(self) -> None:
        """Say what is held and what stands still, when that changes."""
        with self._read_model.reading() as connection:
            now = frozenset(troubles(connection).sentences())
        for sentence in sorted(now - self._told):
            self._say(sentence)
        if self._told and not now:
            self._say("Nothing is held any more; every view is complete.")
        self._told = now

    def catch_up(self) -> None:
        """Take turns until nothing is left of what the log has now.

        Not while read models are made anew: the old ones serve meanwhile.
        """
        while self._rebuild is None and self.turn():
            pass

    def run(self, stop: threading.Event, *, wait_s: float = 0.2) -> None:
        """Take turns until ``stop`` is set; what a turn raises ends it."""
        while not stop.is_set():
            self.turn(wait_s=wait_s)

    def status(self) -> Sequence[LedgerStatus]:
        """How far each ledger is followed, into what is being filled where that is so."""
        rebuild = self._rebuild
        return self._projector.status() if rebuild is None else rebuild.status()

    def views(self) -> Views:
        """What is held, what stands still, and how far new read models are filled."""
        entry = self._read_model.filling()
        filled = 0 if entry is None else entry.done_records
        total = 0 if entry is None else entry.total_records
        try:
            with self._read_model.reading() as connection:
                found = troubles(connection)
        except BeingRebuilt:
            return Views(filled_records=filled, total_records=total)
        return Views(
            held_keys=found.held_keys,
            held_events=found.held_events,
            money_stopped=len(found.money),
            filled_records=filled,
            total_records=total,
        )
