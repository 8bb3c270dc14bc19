"""Where an audit stands in a partition that its ledger has read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from domain.chain import ChainReader
from domain.ports import Log, LogRecord
from domain.processor import Source

READ_BYTES: Final = 8 * 1024 * 1024


class Reading:
    """Where an input stands. Runs are contiguous, so what a read brought is used up before more."""

    def __init__(self, log: Log, source: Source, chain: ChainReader | None) -> None:
        self.source = source
        self.chain = chain
        self.next_offset = 0
        self.items_done = -1
        self.start = self.end = -1
        self._log = log
        self._fetched: Sequence[LogRecord] = ()
        self._at = 0
        self._ahead = 0

    def look(self) -> None:
        """Ask the log where the partition starts and ends."""
        self.start = self._log.start(self.source.topic, self.source.partition)
        self.end = self._log.end(self.source.topic, self.source.partition)

    def skip(self, offset: int) -> None:
        """Go on from an offset, or from the start of what is still there."""
        self._fetched, self._at, self._ahead = (), 0, max(offset, self.start)

    def until(self, offset: int) -> Iterator[LogRecord]:
        """The records before an offset that were not given yet."""
        while self._has(offset):
            self._at += 1
            yield self._fetched[self._at - 1]

    def peek(self, offset: int) -> LogRecord | None:
        """The record at an offset, to be given again."""
        if not self._has(offset + 1):
            return None
        record = self._fetched[self._at]
        return record if record.offset == offset else None

    def _has(self, before: int) -> bool:
        while self._at == len(self._fetched):
            if self._ahead >= before:
                return False
            fetched = self._log.read(
                self.source.topic, self.source.partition, self._ahead, max_bytes=READ_BYTES
            )
            if fetched.next_offset == self._ahead:
                return False
            self._fetched, self._at, self._ahead = fetched.records, 0, fetched.next_offset
        return self._fetched[self._at].offset < before
