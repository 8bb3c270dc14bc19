"""A log for callers in any thread, though a log object belongs to one thread.

The ``eventsourcing`` library calls a recorder from whatever thread it likes: those of a web server,
of a projection, of a subscription. So the log object lives on a thread of its own, on which it is
also opened and closed, and every call is handed over. A processor needs none of it: it has one
thread, and uses its log directly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from domain.ports import Fetched, Log


class OwnThreadLog:
    """The ``Log`` port by another log's, usable from any thread. Calls are done one at a time."""

    def __init__(self, open_log: Callable[[], Log]) -> None:
        """Open the log on the new thread; what ``open_log`` raises is raised here."""
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="log")
        try:
            self._log = self._thread.submit(open_log).result()
        except BaseException:
            self._thread.shutdown()
            raise
        self._closed = False

    def topic_id(self, topic: str) -> bytes:
        """See the port."""
        return self._thread.submit(self._log.topic_id, topic).result()

    def partitions(self, topic: str) -> int:
        """See the port."""
        return self._thread.submit(self._log.partitions, topic).result()

    def append(self, topic: str, partition: int, value: bytes) -> int:
        """See the port."""
        return self._thread.submit(self._log.append, topic, partition, value).result()

    def append_many(self, topic: str, partition: int, values: Sequence[bytes]) -> Sequence[int]:
        """See the port."""
        return self._thread.submit(self._log.append_many, topic, partition, values).result()

    def read(
        self, topic: str, partition: int, offset: int, *, max_bytes: int, wait_s: float = 0.0
    ) -> Fetched:
        """See the port. A call that waits keeps the others waiting."""
        return self._thread.submit(
            self._log.read, topic, partition, offset, max_bytes=max_bytes, wait_s=wait_s
        ).result()

    def end(self, topic: str, partition: int) -> int:
        """See the port."""
        return self._thread.submit(self._log.end, topic, partition).result()

    def start(self, topic: str, partition: int) -> int:
        """See the port."""
        return self._thread.submit(self._log.start, topic, partition).result()

    def close(self) -> None:
        """Close the log and end its thread."""
        if not self._closed:
            self._closed = True
            self._thread.submit(self._log.close).result()
            self._thread.shutdown()
