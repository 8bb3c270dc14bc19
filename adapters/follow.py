"""Follows one ledger from its start: every event once, in order, by the reader rule."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from adapters.eventsourcing_partition import LedgerPartition
from domain.codec import Codec
from domain.commit import CommitBody, unpack_event


class Follower:
    """A reader's position in a ledger; ``new`` gives what has come since the last call."""

    def __init__(
        self,
        partition: LedgerPartition,
        codec: Codec,
        wanted: Sequence[type[Any]] | None = None,
    ) -> None:
        """Start before the first commit; with ``wanted`` other events are counted, not decoded."""
        self._partition = partition
        self._codec = codec
        self._wanted = None if wanted is None else {codec.number(kind) for kind in wanted}
        self.height = -1
        self.events = 0
        self.gate: dict[int, int] = {}

    def new(self) -> Iterator[Any]:
        """Events of commits that were not given yet, decoded."""
        if self._partition.catch_up().height <= self.height:
            return
        for counted in self._partition.commits(self.height + 1):
            body = self._codec.decode(CommitBody, counted.body)
            for refused in body.refused:
                self.gate[refused.code] = self.gate.get(refused.code, 0) + refused.count
            self.events += len(body.events)
            for recorded in map(unpack_event, body.events):
                if self._wanted is None or recorded.schema in self._wanted:
                    yield self._codec.decode(self._codec.kind(recorded.schema), recorded.payload)
            self.height = counted.envelope.height
