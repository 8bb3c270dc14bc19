"""One store behind the log port, opened as often as a test likes."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from domain.ports import Log, LogRecord, TopicAdmin


def wall_clock_us() -> int:
    """The time, as the composition root gives it to an adapter."""
    return time.time_ns() // 1000


@dataclass
class LogStore:
    """What an adapter keeps records in: ``open`` gives another log object on the same store."""

    adapter: str
    open_log: Callable[[], Log]
    admin: TopicAdmin
    opened: list[Log] = field(default_factory=list)

    def open(self) -> Log:
        log = self.open_log()
        self.opened.append(log)
        return log

    def new_topic(self, partitions: int = 1) -> str:
        name = f"contract.{uuid.uuid4().hex}"
        self.admin.create(name, partitions, keep_forever=True)
        return name

    def close(self) -> None:
        for log in self.opened:
            log.close()


def read_all(
    log: Log, topic: str, partition: int = 0, *, max_bytes: int = 1 << 20
) -> list[LogRecord]:
    """Every record from the start to the end of now."""
    records: list[LogRecord] = []
    offset = log.start(topic, partition)
    end = log.end(topic, partition)
    while offset < end:
        fetched = log.read(topic, partition, offset, max_bytes=max_bytes)
        assert fetched.next_offset > offset, "a read below the end must move on"
        records += fetched.records
        offset = fetched.next_offset
    return records
