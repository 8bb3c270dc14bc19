"""The fault switches of the memory log."""

from __future__ import annotations

import itertools

import pytest

from adapters.local_topics import LocalTopics
from adapters.memory_log import MemoryLog
from domain.ports import AppendUnknown, LogError, LogTruncated
from tests.ports.harness import read_all


@pytest.fixture
def log() -> MemoryLog:
    """A log with one topic and a clock that counts."""
    made = MemoryLog(itertools.count(1_000).__next__)
    LocalTopics(made).create("t", 1, keep_forever=True)
    return made


def test_a_lost_answer_may_hide_a_record_that_was_written(log: MemoryLog) -> None:
    """Persisted but reported failed, once."""
    log.fail_next_append(persist=True)
    with pytest.raises(AppendUnknown):
        log.append("t", 0, b"a")
    assert [r.value for r in read_all(log, "t")] == [b"a"]
    assert log.append("t", 0, b"b") == 1


def test_a_lost_answer_may_hide_that_nothing_was_written(log: MemoryLog) -> None:
    """Not persisted and reported failed, once."""
    log.fail_next_append(persist=False)
    with pytest.raises(AppendUnknown):
        log.append("t", 0, b"a")
    assert log.append("t", 0, b"b") == 0


def test_a_lost_answer_to_many_leaves_a_prefix(log: MemoryLog) -> None:
    """After AppendUnknown any prefix may be there."""
    log.fail_next_append(persist=True)
    with pytest.raises(AppendUnknown):
        log.append_many("t", 0, [b"a", b"b"])
    assert [r.value for r in read_all(log, "t")] == [b"a"]


def test_a_refused_append_writes_nothing(log: MemoryLog) -> None:
    """The error is not AppendUnknown, and holds once."""
    log.refuse_next_append()
    with pytest.raises(LogError) as raised:
        log.append("t", 0, b"a")
    assert not isinstance(raised.value, AppendUnknown)
    assert log.append("t", 0, b"a") == 0


def test_a_duplicated_append_is_there_twice(log: MemoryLog) -> None:
    """Readers must judge the second one."""
    log.duplicate_next_append()
    assert log.append("t", 0, b"a") == 0
    assert [r.value for r in read_all(log, "t")] == [b"a", b"a"]


def test_a_hidden_tail_appears_after_the_reads_it_was_hidden_from(log: MemoryLog) -> None:
    """A delay counted in reads, not in seconds."""
    log.append("t", 0, b"a")
    log.hide_tail("t", 0, reads=2)
    found = [len(log.read("t", 0, 0, max_bytes=9).records) for _ in range(3)]
    assert found == [0, 0, 1]


def test_offsets_without_records_move_the_position_on(log: MemoryLog) -> None:
    """A gap in the middle is skipped, a gap at the end is passed."""
    log.append("t", 0, b"a")
    log.leave_gap("t", 0, offsets=2)
    fetched = log.read("t", 0, 1, max_bytes=9)
    assert (list(fetched.records), fetched.next_offset) == ([], 3)
    assert log.append("t", 0, b"b") == 3
    assert [r.offset for r in read_all(log, "t")] == [0, 3]


def test_a_truncated_log_ends_earlier(log: MemoryLog) -> None:
    """A reader that was further is told by name."""
    log.append_many("t", 0, [b"a", b"b", b"c"])
    log.truncate("t", 0, end=1)
    assert log.end("t", 0) == 1
    with pytest.raises(LogTruncated):
        log.read("t", 0, 3, max_bytes=9)


def test_deleted_records_move_the_start(log: MemoryLog) -> None:
    """What retention took is an error to ask for, but no truncation."""
    log.append_many("t", 0, [b"a", b"b", b"c"])
    log.delete_before("t", 0, start=2)
    assert (log.start("t", 0), log.end("t", 0)) == (2, 3)
    assert [r.value for r in log.read("t", 0, 2, max_bytes=9).records] == [b"c"]
    with pytest.raises(LogError, match="starts at 2") as raised:
        log.read("t", 0, 1, max_bytes=9)
    assert not isinstance(raised.value, LogTruncated)


def test_a_topic_made_again_has_another_id(log: MemoryLog) -> None:
    """Its offsets begin again, so its name alone does not tell which it is."""
    first = log.topic_id("t")
    log.delete_topic("t")
    LocalTopics(log).create("t", 1, keep_forever=True)
    assert log.topic_id("t") != first


def test_times_do_not_fall_when_the_clock_does() -> None:
    """The time is the maximum of the clock and the last record's."""
    clock = iter([5_000, 4_000, 6_000])
    log = MemoryLog(clock.__next__)
    LocalTopics(log).create("t", 1, keep_forever=True)
    for _ in range(3):
        log.append("t", 0, b"x")
    assert [r.time_us for r in read_all(log, "t")] == [5_000, 5_000, 6_000]
