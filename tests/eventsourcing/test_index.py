"""The index: droppable, rebuilt to the same bytes, and never trusted against the log."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from eventsourcing.persistence import IntegrityError, Tracking

from adapters.eventsourcing_index import Depth, IndexFailed
from adapters.eventsourcing_recorder import LedgerRecorder
from adapters.kafka_broker import CHECKOUT
from adapters.memory_log import MemoryLog
from domain.chain import LedgerStopped
from domain.commit import CommitHeader
from tests.eventsourcing.events import HEADER, aggregate, event, events
from tests.eventsourcing.ledgers import LedgerStore, memory_ledger, sqlite_ledger


def history(ledger: LedgerStore, log: MemoryLog, recorder: LedgerRecorder) -> None:
    """Commits of all kinds, with a lost race and garbage between them."""
    other = ledger.recorder(live=False)
    for i in range(6):
        recorder.insert_events(events(10 * i, 4), header=CommitHeader(time_us=i))
    other.catch_up()
    recorder.insert_events([event(70)], tracking=Tracking("upstream", 3))
    with pytest.raises(IntegrityError):
        other.insert_events([event(71)], header=HEADER)
    log.append(ledger.topic, 0, b"garbage")
    recorder.insert_events([], header=HEADER, tracking=Tracking("upstream", 8))
    recorder.insert_events([event(72), event(72, 2)], header=HEADER)
    recorder.catch_up()


def dump(index: Path) -> list[str]:
    """All rows of an index that nobody has open."""
    connection = sqlite3.connect(index)
    lines = list(connection.iterdump())
    connection.close()
    return lines


def answers(recorder: LedgerRecorder) -> list[object]:
    """What the recorder says to everything that it can be asked."""
    found: list[object] = [
        recorder.select_notifications(None, 1000),
        recorder.max_tracking_id("upstream"),
        recorder.head(),
        [each.hash for each in recorder.commits()],
    ]
    if recorder.partition.depth is not Depth.COMMITS:
        found += [recorder.select_events(aggregate(i)) for i in (0, 13, 72)]
    return found


@pytest.mark.parametrize("depth", list(Depth))
def test_a_deleted_index_is_built_again_to_the_same_dump_and_answers(
    depth: Depth, tmp_path: Path
) -> None:
    """Written commit by commit or read in one go: the same rows."""
    ledger, log = memory_ledger()
    first = tmp_path / "first.db"
    recorder = ledger.recorder(log=log, index=first, depth=depth, live=False)
    history(ledger, log, recorder)
    wanted = answers(recorder)
    recorder.close()
    second = tmp_path / "second.db"
    again = ledger.recorder(index=second, depth=depth)
    again.catch_up()
    assert answers(again) == wanted
    again.partition.rebuild()
    assert answers(again) == wanted
    again.close()
    ledger.opened.clear()
    assert dump(second) == dump(first)


def test_an_index_that_is_behind_goes_on_from_where_it_stands(tmp_path: Path) -> None:
    """A crash after the append and before the index costs a little reading."""
    ledger, log = memory_ledger()
    path, older = tmp_path / "index.db", tmp_path / "older.db"
    recorder = ledger.recorder(log=log, index=path, live=False)
    recorder.insert_events(events(0, 3), header=HEADER)
    recorder.close()
    shutil.copy(path, older)
    recorder = ledger.recorder(log=log, index=path, live=False)
    recorder.insert_events(events(3, 3), header=HEADER)
    wanted = answers(recorder)
    recorder.close()
    assert answers(ledger.recorder(index=older)) == wanted


def test_a_log_that_ends_before_the_indexed_head_is_truncated(tmp_path: Path) -> None:
    """A reader that resumes does not go on as if nothing had been lost."""
    ledger, log = memory_ledger()
    path = tmp_path / "index.db"
    recorder = ledger.recorder(log=log, index=path, live=False)
    for i in range(3):
        recorder.insert_events([event(i)], header=HEADER)
    recorder.close()
    log.truncate(ledger.topic, 0, end=2)
    resumed = ledger.recorder(index=path)
    with pytest.raises(LedgerStopped, match="truncated"):
        resumed.catch_up()
    with pytest.raises(LedgerStopped, match="truncated"):
        resumed.insert_events([event(5)], header=HEADER)


def test_a_log_with_another_history_below_the_indexed_head_is_truncated(tmp_path: Path) -> None:
    """The topic was lost and written anew: the offset is there, the commit is not."""
    ledger, log = memory_ledger()
    path = tmp_path / "index.db"
    recorder = ledger.recorder(log=log, index=path, live=False)
    recorder.insert_events([event(0)], header=HEADER)
    recorder.close()
    log.truncate(ledger.topic, 0, end=0)
    ledger.recorder(log=log, live=False).insert_events([event(1)], header=HEADER)
    with pytest.raises(LedgerStopped, match="truncated"):
        ledger.recorder(index=path).catch_up()


def test_a_log_that_is_truncated_under_a_running_recorder_stops_it() -> None:
    """Also where the lost records are written over at once."""
    ledger, log = memory_ledger()
    recorder = ledger.recorder(log=log, live=False)
    for i in range(3):
        recorder.insert_events([event(i)], header=HEADER)
    log.truncate(ledger.topic, 0, end=1)
    with pytest.raises(LedgerStopped, match="truncated"):
        recorder.insert_events([event(5)], header=HEADER)


def test_a_log_without_its_beginning_builds_no_index() -> None:
    """Retention on a ledger is a loss like any other."""
    ledger, log = memory_ledger()
    recorder = ledger.recorder(log=log, live=False)
    for i in range(3):
        recorder.insert_events([event(i)], header=HEADER)
    log.delete_before(ledger.topic, 0, start=1)
    with pytest.raises(LedgerStopped, match="truncated"):
        ledger.recorder().catch_up()


@pytest.mark.parametrize("damage", [b"", b"not a database at all" * 100])
def test_a_torn_index_is_made_anew(damage: bytes, tmp_path: Path) -> None:
    """The index is disposable: a file that SQLite cannot read is no fault of the ledger's."""
    ledger, log = memory_ledger()
    path = tmp_path / "index.db"
    recorder = ledger.recorder(log=log, index=path, live=False)
    recorder.insert_events([event(0)], header=HEADER)
    recorder.close()
    path.write_bytes(damage)
    assert ledger.recorder(index=path).max_notification_id() == 1


def test_an_index_of_another_ledger_or_depth_is_not_taken_for_this_one(tmp_path: Path) -> None:
    """A wrong path in a configuration costs a rebuild, and no wrong answer."""
    path = tmp_path / "index.db"
    ledger, log = memory_ledger()
    recorder = ledger.recorder(log=log, index=path, live=False)
    recorder.insert_events(events(0, 7), header=HEADER)
    recorder.close()
    deeper = ledger.recorder(index=path, depth=Depth.KEYS)
    assert deeper.max_notification_id() == 7
    deeper.close()
    ledger.topic, other = "synor.ledger.other.v1", ledger
    log.create_topic(other.topic, 1, keep_forever=True)
    assert other.recorder(index=path).max_notification_id() is None


def test_an_index_in_use_by_another_recorder_is_refused(tmp_path: Path) -> None:
    """Two owners of one index would both be wrong."""
    ledger, log = memory_ledger()
    path = tmp_path / "index.db"
    recorder = ledger.recorder(log=log, index=path, live=False)
    recorder.insert_events([event(0)], header=HEADER)
    with pytest.raises(IndexFailed, match="locked"):
        ledger.recorder(log=log, index=path)


WRITER = """
import sys
from pathlib import Path
from eventsourcing.persistence import IntegrityError
from tests.eventsourcing.events import HEADER, event
from tests.eventsourcing.ledgers import sqlite_ledger

first = int(sys.argv[2])
ledger = sqlite_ledger(Path(sys.argv[1]))
recorder = ledger.recorder(live=False)
for i in range(first, first + 100):
    while True:
        try:
            recorder.insert_events([event(i)], header=HEADER)
            break
        except IntegrityError:
            recorder.catch_up()
ledger.close()
"""


def test_a_subscription_sees_the_racing_commits_of_two_other_processes(tmp_path: Path) -> None:
    """Every event arrives once and in order, and both processes' events are all there."""
    path = tmp_path / "log.db"
    ledger = sqlite_ledger(path)
    reader = ledger.recorder(signer=None)
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, path, str(first)], cwd=CHECKOUT)
        for first in (0, 100)
    ]
    with reader.subscribe() as subscription:
        seen = [next(subscription) for _ in range(200)]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    assert [each.id for each in seen] == list(range(1, 201))
    assert {each.originator_id for each in seen} == {aggregate(i) for i in range(200)}
    assert len(ledger.leaves()) == 200
    ledger.close()
