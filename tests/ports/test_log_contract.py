"""What every adapter of the log port promises."""

from __future__ import annotations

import itertools
import random
import threading
import time

import pytest

from domain.ports import LogTruncated, SettingsRefused
from tests.ports.harness import LogStore, read_all


def test_offsets_rise_by_one_from_zero_in_append_order(store: LogStore) -> None:
    """The n-th append gets offset n and is read there."""
    topic, log = store.new_topic(), store.open()
    values = [f"record {i}".encode() for i in range(20)]
    assert [log.append(topic, 0, value) for value in values] == list(range(20))
    assert [(r.offset, r.value) for r in read_all(log, topic)] == list(enumerate(values))


def test_partitions_have_offsets_of_their_own(store: LogStore) -> None:
    """Appends to one partition move no other."""
    topic, log = store.new_topic(3), store.open()
    assert log.partitions(topic) == 3
    assert [log.append(topic, p, bytes([p])) for p in (0, 2, 2, 0, 2)] == [0, 0, 1, 1, 2]
    assert [log.end(topic, p) for p in range(3)] == [2, 0, 3]
    assert {r.value for r in read_all(log, topic, 2)} == {b"\x02"}


def test_append_times_never_fall_and_are_about_now(store: LogStore) -> None:
    """The log's time is a clock's, in microseconds UTC."""
    topic, log = store.new_topic(), store.open()
    before_us = time.time_ns() // 1000
    for _ in range(50):
        log.append(topic, 0, b"x")
    times = [r.time_us for r in read_all(log, topic)]
    assert times == sorted(times)
    assert before_us - 1_000 <= times[0]
    assert times[-1] <= time.time_ns() // 1000


def test_a_read_from_the_middle_begins_exactly_there(store: LogStore) -> None:
    """Also inside what was appended by one call."""
    topic, log = store.new_topic(), store.open()
    log.append_many(topic, 0, [bytes([i]) for i in range(100)])
    fetched = log.read(topic, 0, 37, max_bytes=1 << 20)
    assert [r.offset for r in fetched.records] == list(range(37, 100))
    assert fetched.records[0].value == bytes([37])
    assert fetched.next_offset == 100


def test_a_read_stops_before_max_bytes_and_goes_on_from_there(store: LogStore) -> None:
    """Small reads together give everything once, whatever the cut."""
    topic, log = store.new_topic(), store.open()
    rng = random.Random(1)
    values = [rng.randbytes(rng.randrange(200)) for _ in range(120)]
    log.append_many(topic, 0, values)
    offset = 0
    seen: list[bytes] = []
    while offset < 120:
        limit = rng.randrange(1, 900)
        fetched = log.read(topic, 0, offset, max_bytes=limit)
        size = sum(len(r.value) for r in fetched.records)
        assert size <= limit or len(fetched.records) == 1
        seen += [r.value for r in fetched.records]
        offset = fetched.next_offset
    assert seen == values


def test_two_readers_at_different_positions_do_not_disturb_one_another(store: LogStore) -> None:
    """One log object may be read at several positions in turn."""
    topic, log = store.new_topic(), store.open()
    values = [f"{i}".encode() for i in range(60)]
    log.append_many(topic, 0, values)
    positions = [0, 25]
    seen: list[list[bytes]] = [[], []]
    while min(positions) < 60:
        for reader in (0, 1):
            fetched = log.read(topic, 0, positions[reader], max_bytes=9)
            seen[reader] += [r.value for r in fetched.records]
            positions[reader] = fetched.next_offset
    assert seen == [values, values[25:]]


def test_a_record_of_six_mebibytes_passes_whole(store: LogStore) -> None:
    """At least one record is returned, however small max_bytes is."""
    topic, log = store.new_topic(), store.open()
    large = random.Random(2).randbytes(6 << 20)
    log.append(topic, 0, b"before")
    assert log.append(topic, 0, large) == 1
    log.append(topic, 0, b"after")
    (record,) = log.read(topic, 0, 1, max_bytes=10).records
    assert record.value == large
    assert [len(r.value) for r in read_all(store.open(), topic)] == [6, 6 << 20, 5]


def test_an_empty_value_is_kept(store: LogStore) -> None:
    """The log judges nothing, not even emptiness."""
    topic, log = store.new_topic(), store.open()
    log.append_many(topic, 0, [b"", b"a", b""])
    assert [r.value for r in read_all(log, topic)] == [b"", b"a", b""]


def test_append_many_gives_the_offsets_in_order(store: LogStore) -> None:
    """More records than fit into one request keep their order."""
    topic, log = store.new_topic(), store.open()
    values = [i.to_bytes(4, "big") for i in range(4_500)]
    log.append(topic, 0, b"first")
    assert list(log.append_many(topic, 0, values)) == list(range(1, 4_501))
    assert list(log.append_many(topic, 0, [])) == []
    assert [r.value for r in read_all(log, topic)] == [b"first", *values]


def test_a_read_at_the_end_is_empty_and_asks_for_the_same_offset(store: LogStore) -> None:
    """Nothing there is an answer, given at once."""
    topic, log = store.new_topic(), store.open()
    assert (list(log.read(topic, 0, 0, max_bytes=100).records), log.end(topic, 0)) == ([], 0)
    log.append(topic, 0, b"x")
    fetched = log.read(topic, 0, 1, max_bytes=100)
    assert (list(fetched.records), fetched.next_offset) == ([], 1)
    assert (log.start(topic, 0), log.end(topic, 0)) == (0, 1)


def test_a_record_appended_by_another_object_is_seen_at_once(store: LogStore) -> None:
    """A record whose append had returned before the read is in it, without waiting."""
    topic, writer, reader = store.new_topic(), store.open(), store.open()
    for i in range(30):
        assert not reader.read(topic, 0, i, max_bytes=100).records
        writer.append(topic, 0, bytes([i]))
        assert [r.value for r in reader.read(topic, 0, i, max_bytes=100).records] == [bytes([i])]
        assert reader.end(topic, 0) == i + 1


def test_a_waiting_read_wakes_when_another_object_appends(store: LogStore) -> None:
    """It comes back soon after the append, far before its time is up."""
    topic, writer, reader = store.new_topic(), store.open(), store.open()
    writer.append(topic, 0, b"first")
    reader.read(topic, 0, 0, max_bytes=100)
    appended_at: list[float] = []

    def append_later() -> None:
        time.sleep(0.2)
        writer.append(topic, 0, b"late")
        appended_at.append(time.monotonic())

    thread = threading.Thread(target=append_later)
    thread.start()
    fetched = reader.read(topic, 0, 1, max_bytes=100, wait_s=20.0)
    woke_at = time.monotonic()
    thread.join(20)
    assert [r.value for r in fetched.records] == [b"late"]
    assert woke_at - appended_at[0] < 2.0


def test_a_waiting_read_gives_up_when_its_time_is_up(store: LogStore) -> None:
    """An empty answer, not an error."""
    topic, log = store.new_topic(), store.open()
    began = time.monotonic()
    fetched = log.read(topic, 0, 0, max_bytes=100, wait_s=0.3)
    assert (list(fetched.records), fetched.next_offset) == ([], 0)
    assert 0.25 < time.monotonic() - began < 3.0


def test_concurrent_appenders_interleave_without_loss(store: LogStore) -> None:
    """Three log objects in three threads: every record once, each object's in its order."""
    topic = store.new_topic()
    logs = [store.open() for _ in range(3)]
    offsets: list[list[int]] = [[], [], []]

    def append_all(writer: int) -> None:
        for i in range(40):
            offsets[writer].append(logs[writer].append(topic, 0, bytes([writer, i])))

    threads = [threading.Thread(target=append_all, args=(w,)) for w in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    records = read_all(logs[0], topic)
    assert [r.offset for r in records] == list(range(120))
    for writer in range(3):
        mine = [r for r in records if r.value[0] == writer]
        assert [r.value[1] for r in mine] == list(range(40))
        assert [r.offset for r in mine] == offsets[writer]
    assert all(a.time_us <= b.time_us for a, b in itertools.pairwise(records))


def test_a_log_opened_again_has_everything(store: LogStore) -> None:
    """Records, ends and the topic's id outlive the object that made them."""
    topic, log = store.new_topic(2), store.open()
    log.append_many(topic, 1, [b"a", b"b"])
    again = store.open()
    assert again.topic_id(topic) == log.topic_id(topic)
    assert again.end(topic, 1) == 2
    assert again.append(topic, 1, b"c") == 2
    assert [r.value for r in read_all(again, topic, 1)] == [b"a", b"b", b"c"]


def test_a_topic_has_sixteen_bytes_of_its_own(store: LogStore) -> None:
    """Two topics have different ids, and the id does not change."""
    one, other, log = store.new_topic(), store.new_topic(), store.open()
    assert len(log.topic_id(one)) == 16
    assert log.topic_id(one) != log.topic_id(other)
    assert log.topic_id(one) == store.open().topic_id(one)


def test_an_unknown_topic_is_refused_and_not_made_up(store: LogStore) -> None:
    """Neither a question nor an append creates a topic."""
    log = store.open()
    for ask in (
        lambda: log.topic_id("contract.absent"),
        lambda: log.partitions("contract.absent"),
        lambda: log.end("contract.absent", 0),
        lambda: log.read("contract.absent", 0, 0, max_bytes=1),
        lambda: log.append("contract.absent", 0, b"x"),
        lambda: log.append_many("contract.absent", 0, [b"x"]),
    ):
        with pytest.raises(SettingsRefused, match=r"contract\.absent"):
            ask()
    assert store.admin.check("contract.absent", 1) != []


def test_an_unknown_partition_is_refused(store: LogStore) -> None:
    """A partition beyond the topic's is no partition."""
    topic, log = store.new_topic(2), store.open()
    with pytest.raises(SettingsRefused, match="partition 2"):
        log.append(topic, 2, b"x")
    with pytest.raises(SettingsRefused, match="partition 2"):
        log.read(topic, 2, 0, max_bytes=1)


def test_a_read_beyond_the_end_is_a_truncated_log(store: LogStore) -> None:
    """Somebody saw a record there, so the log has lost it."""
    topic, log = store.new_topic(), store.open()
    log.append(topic, 0, b"x")
    for wait_s in (0.0, 0.2):
        with pytest.raises(LogTruncated, match="ends at 1"):
            log.read(topic, 0, 2, max_bytes=100, wait_s=wait_s)
    assert [r.value for r in log.read(topic, 0, 0, max_bytes=100).records] == [b"x"]


def test_creating_a_topic_again_changes_nothing(store: LogStore) -> None:
    """Creation may be repeated at every start."""
    topic, log = store.new_topic(2), store.open()
    topic_id = log.topic_id(topic)
    log.append(topic, 1, b"x")
    store.admin.create(topic, 2, keep_forever=True)
    assert (log.topic_id(topic), log.end(topic, 1)) == (topic_id, 1)
    assert store.admin.check(topic, 2) == []


def test_a_topic_with_other_partitions_is_named_and_refused(store: LogStore) -> None:
    """The number of partitions is for life."""
    topic = store.new_topic(2)
    (sentence,) = store.admin.check(topic, 3)
    assert topic in sentence
    assert "partitions is 2, must be 3" in sentence
    with pytest.raises(SettingsRefused, match="partitions is 2, must be 3"):
        store.admin.create(topic, 3, keep_forever=True)


def test_a_topic_that_deletes_is_too_weak_for_what_is_kept_for_ever(store: LogStore) -> None:
    """A topic of 90 days passes as such and not as one for ever."""
    topic = store.new_topic() + ".short"
    store.admin.create(topic, 1, keep_forever=False)
    assert store.admin.check(topic, 1, keep_forever=False) == []
    (sentence,) = store.admin.check(topic, 1)
    assert topic in sentence
