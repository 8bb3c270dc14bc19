"""Follows one ledger from its start: every event once, in order, by the reader rule."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from adapters.eventsourcing_partition import LedgerPartition
from domain.codec import Codec
from domain.commit import CommitBody, unpack_event


class Follower:
    """A reader's position in a ledger; ``new`` gives what has come since the last call."""

    def __init__(self, partition: LedgerPartition, codec: Codec) -> None:
        """Start before the first commit."""
        self._partition = partition
        self._codec = codec
        self.height = -1

    def new(self) -> Iterator[Any]:
        """Events of commits that were not given yet, decoded."""
        if self._partition.catch_up().height <= self.height:
            return
        for counted in self._partition.commits(self.height + 1):
            body = self._codec.decode(CommitBody, counted.body)
            for recorded in map(unpack_event, body.events):
                yield self._codec.decode(self._codec.kind(recorded.schema), recorded.payload)
            self.height = counted.envelope.height
