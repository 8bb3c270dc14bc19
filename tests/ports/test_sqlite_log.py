"""What only the SQLite log can do, and what only a file can suffer."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters.local_topics import LocalTopics
from adapters.sqlite_log import SqliteLog
from domain.ports import LogError, SettingsRefused
from tests.ports.harness import read_all, wall_clock_us

_APPEND_IN_A_PROCESS = """
import sys, time
from adapters.sqlite_log import SqliteLog
log = SqliteLog(sys.argv[1], clock_us=lambda: time.time_ns() // 1000, durable=False)
for i in range(150):
    log.append("t", 0, bytes([int(sys.argv[2]), i]))
"""


Open = Callable[..., SqliteLog]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with a topic of three partitions."""
    made = tmp_path / "log.db"
    log = SqliteLog(made, clock_us=wall_clock_us)
    LocalTopics(log).create("t", 3, keep_forever=True)
    log.close()
    return made


@pytest.fixture
def open_log(path: Path) -> Iterator[Open]:
    """Opens the file, and closes at the end what it opened."""
    opened: list[SqliteLog] = []

    def open_it(clock_us: Callable[[], int] = wall_clock_us, **options: Any) -> SqliteLog:
        opened.append(SqliteLog(path, clock_us=clock_us, **options))
        return opened[-1]

    yield open_it
    for log in opened:
        log.close()


def test_a_group_is_seen_at_once_inside_and_at_its_end_outside(open_log: Open) -> None:
    """One transaction over several partitions."""
    log = open_log()
    other = open_log()
    with log.group():
        assert log.append("t", 0, b"a") == 0
        assert list(log.append_many("t", 1, [b"b", b"c"])) == [0, 1]
        assert [r.value for r in log.read("t", 1, 0, max_bytes=99).records] == [b"b", b"c"]
        assert (other.end("t", 0), other.end("t", 1)) == (0, 0)
    assert (other.end("t", 0), other.end("t", 1)) == (1, 2)


def test_a_group_that_fails_leaves_nothing(open_log: Open) -> None:
    """Nor does the object remember offsets that were undone."""
    log = open_log()
    log.append("t", 0, b"kept")

    def append_and_fail() -> None:
        with log.group():
            log.append("t", 0, b"lost")
            raise KeyError

    with pytest.raises(KeyError):
        append_and_fail()
    assert log.end("t", 0) == 1
    assert log.append("t", 0, b"next") == 1


def test_groups_do_not_nest(open_log: Open) -> None:
    """The inner one could not be durable at its end."""
    log = open_log()
    with pytest.raises(LogError, match="open already"), log.group(), log.group():
        pass
    assert log.append("t", 0, b"x") == 0


def test_two_processes_append_to_one_file_without_loss(path: Path, open_log: Open) -> None:
    """The write lock gives them turns, and a reader here sees them while they run."""
    writers = [
        subprocess.Popen([sys.executable, "-c", _APPEND_IN_A_PROCESS, str(path), str(writer)])
        for writer in (1, 2)
    ]
    log = open_log()
    values: list[bytes] = []
    deadline = time.monotonic() + 60
    while len(values) < 300 and time.monotonic() < deadline:
        fetched = log.read("t", 0, len(values), max_bytes=1 << 20, wait_s=1.0)
        values += [r.value for r in fetched.records]
    assert [writer.wait(30) for writer in writers] == [0, 0]
    for writer in (1, 2):
        assert [v[1] for v in values if v[0] == writer] == list(range(150))


def test_times_do_not_fall_when_the_clock_does_or_the_file_is_opened_again(open_log: Open) -> None:
    """The time is the maximum of the clock and the last record's."""
    log = open_log(iter([5_000, 4_000]).__next__)
    log.append("t", 0, b"x")
    log.append("t", 0, b"x")
    again = open_log(iter([3_000, 6_000]).__next__)
    again.append_many("t", 0, [b"x", b"x"])
    again.append("t", 0, b"x")
    assert [r.time_us for r in read_all(log, "t")] == [5_000] * 4 + [6_000]


def test_a_locked_file_is_an_error_with_nothing_written(path: Path, open_log: Open) -> None:
    """Whoever holds the write lock too long costs a retry, not a record."""
    log = open_log(busy_timeout_s=0.05)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(LogError, match="locked"):
        log.append("t", 0, b"x")
    holder.execute("ROLLBACK")
    holder.close()
    assert log.append("t", 0, b"x") == 0


def test_a_file_that_is_something_else_is_refused(tmp_path: Path) -> None:
    """Neither a text nor a log file of a later format is opened."""
    text = tmp_path / "text"
    text.write_text("no database, and long enough to be looked at " * 100)
    with pytest.raises(LogError, match="cannot be used as a log"):
        SqliteLog(text, clock_us=wall_clock_us)
    later = tmp_path / "later.db"
    with sqlite3.connect(later) as database:
        database.execute("PRAGMA user_version=99")
    database.close()
    with pytest.raises(LogError, match="format 99"):
        SqliteLog(later, clock_us=wall_clock_us)


def test_a_topic_needs_a_partition(open_log: Open) -> None:
    """And not more than a key has room for."""
    topics = LocalTopics(open_log())
    for partitions in (0, 5_000):
        with pytest.raises(SettingsRefused, match="must be 1"):
            topics.create("new", partitions, keep_forever=True)


def test_a_read_at_the_end_is_cheap(open_log: Open) -> None:
    """A turn loop asks tens of thousands of times; the bound is ten times what was measured."""
    log = open_log(durable=False)
    log.append("t", 0, b"x")
    began = time.perf_counter()
    for _ in range(2_000):
        log.read("t", 0, 1, max_bytes=100)
    assert (time.perf_counter() - began) / 2_000 < 0.000_1
