"""A writer of one ledger as a process of its own, told by lines what to do: for races and kills.

`python -m tests.support.ledger_writer BOOTSTRAP TOPIC NAME`; it says `ready`, then to each line:

- `try`: append the next item from the head as it is known; says `won HEIGHT ITEM` or `lost HEIGHT`;
- `run COUNT`: append so many items, deciding anew after whatever goes wrong; says `ran NEXT`, the
  number of items that are acknowledged by then, and how many appends were lost, unknown, failed;
- nothing more: ends.
"""

from __future__ import annotations

import sys
import time

from adapters.eventsourcing_index import Depth
from adapters.eventsourcing_partition import LedgerPartition, LostRace
from adapters.kafka_log import KafkaLog
from domain.commit import CommitBody, CommitHeader, RecordedEvent, unpack_event
from domain.ids import AggregateId
from domain.ports import AppendUnknown, LogError
from tests.eventsourcing.ledgers import LedgerStore, codec

SCHEMA = 1
APPEND_S = 3.0


def item_event(name: str, number: int) -> RecordedEvent:
    """The event that stands for an item: who wrote it and its number."""
    aggregate = AggregateId(name.encode().ljust(16, b"\0"))
    return RecordedEvent(aggregate, number + 1, SCHEMA, f"{name} {number}".encode())


def items_of(store: LedgerStore) -> list[str]:
    """The items that count, in order, read from the first record by the reader rule."""
    return [unpack_event(leaf).payload.decode() for leaf in store.leaves()]


def append_item(partition: LedgerPartition, name: str, number: int) -> int:
    """Append an item from the head as it is known; the height of its commit."""
    header = CommitHeader(time_us=number + 1)
    return partition.append(header, [item_event(name, number)]).height


class Writer:
    """One process' writer."""

    def __init__(self, bootstrap: str, topic: str, name: str) -> None:
        self.name = name
        self.next = 0
        self.lost = self.unknown = self.failed = 0
        log = KafkaLog(
            bootstrap, client_id=name, append_timeout_s=APPEND_S, read_timeout_s=APPEND_S
        )
        self.partition = LedgerStore(lambda: log, topic).partition(log, depth=Depth.COMMITS)
        self._folded = -1
        self.fold()

    def fold(self) -> None:
        """Read what counts, and know by it which items of ours are there: how a worker recovers."""
        self.partition.catch_up()
        for counted in self.partition.commits(self._folded + 1):
            for leaf in codec().decode(CommitBody, counted.body).events:
                writer, number = unpack_event(leaf).payload.decode().split()
                if writer == self.name:
                    self.next = int(number) + 1
            self._folded = counted.envelope.height

    def attempt(self) -> str:
        """One append of the next item."""
        try:
            height = append_item(self.partition, self.name, self.next)
        except LostRace:
            self.lost += 1
            return f"lost {self.partition.head().height}"
        self.next += 1
        return f"won {height} {self.name} {self.next - 1}"

    def run(self, count: int) -> str:
        """Append items until so many are acknowledged."""
        last, sure = self.next + count, True
        while self.next < last:
            try:
                if not sure:
                    self.fold()
                    sure = True
                    continue
                self.attempt()
            except AppendUnknown:
                self.unknown += 1
                sure = False
            except LogError:
                self.failed += 1
                sure = False
                time.sleep(0.1)
        return f"ran {self.next} lost {self.lost} unknown {self.unknown} failed {self.failed}"


def main() -> None:
    """Do as the lines say."""
    writer = Writer(*sys.argv[1:4])
    print("ready", flush=True)
    for line in sys.stdin:
        match line.split():
            case ["try"]:
                print(writer.attempt(), flush=True)
            case ["run", count]:
                print(writer.run(int(count)), flush=True)
            case _:
                raise SystemExit(f"{line!r} is no order")


if __name__ == "__main__":
    main()
