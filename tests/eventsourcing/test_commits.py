"""What the recorder puts on the log, what counts there, and who wins."""

from __future__ import annotations

import threading
from pathlib import Path
from unittest import mock
from uuid import UUID

import pytest
from eventsourcing.persistence import (
    IntegrityError,
    OperationalError,
    ProgrammingError,
    StoredEvent,
    Tracking,
)

from adapters.ed25519 import Signer
from adapters.eventsourcing_index import Depth
from adapters.eventsourcing_mapper import AvroMapper
from adapters.eventsourcing_recorder import LedgerRecorder
from domain.commit import (
    COMMIT_BYTES_MAX,
    EVENT_BYTES_MAX,
    CommitBody,
    CommitHeader,
    part_of,
    unpack_event,
)
from domain.ledger import LEDGER_ID, WriterRotated
from tests.eventsourcing.events import HEADER, aggregate, event, events
from tests.eventsourcing.ledgers import (
    SIGNER,
    LedgerStore,
    codec,
    memory_ledger,
    sqlite_ledger,
)


def body_of(ledger: LedgerStore, height: int) -> CommitBody:
    """The body that counts at a height."""
    return codec().decode(CommitBody, ledger.verified()[height].body)


def test_one_insert_is_one_commit_of_the_header_and_the_events_in_order() -> None:
    """Header fields, bulk and events stand in the record as given."""
    ledger, log = memory_ledger()
    recorder = ledger.recorder(log=log, live=False)
    bulk = (part_of(b"first"), part_of(b"second"))
    header = CommitHeader(time_us=7, rules_version=3, bulk=bulk)
    assert recorder.insert_events(events(0, 3), header=header) == [1, 2, 3]
    (counted,) = ledger.verified()
    body = codec().decode(CommitBody, counted.body)
    assert (body.time_us, body.rules_version, body.tree_size) == (7, 3, 3)
    assert [unpack_event(leaf).aggregate for leaf in body.events] == [
        aggregate(i).bytes for i in range(3)
    ]
    assert counted.bulk() == b"\0\0\0\5first\0\0\0\6second"
    assert counted.parts() == bulk


def test_a_header_without_events_makes_an_empty_commit() -> None:
    """Consumed inputs are recorded also when no event came of them."""
    ledger, log = memory_ledger()
    recorder = ledger.recorder(log=log, live=False)
    assert recorder.insert_events([], header=HEADER) == []
    assert recorder.insert_events([]) == []
    assert recorder.head().height == 0
    assert recorder.max_notification_id() is None
    assert len(ledger.verified()) == 1


def test_an_acknowledged_append_at_the_expected_offset_is_not_read_back() -> None:
    """The steady state costs one append and no read."""
    ledger, log = memory_ledger()
    recorder = ledger.recorder(log=log, live=False)
    recorder.insert_events([event(0)], header=HEADER)
    with mock.patch.object(log, "read", side_effect=AssertionError("nothing is read")):
        recorder.insert_events([event(1)], header=HEADER)
    assert recorder.head().height == 1


def test_a_commit_that_a_replica_does_not_show_for_a_moment_is_not_lost() -> None:
    """What was read before is asked for again before the ledger is called truncated."""
    ledger, log = memory_ledger()
    recorder = ledger.recorder(log=log, live=False)
    recorder.insert_events([event(0)], header=HEADER)
    log.hide_tail(ledger.topic, 0, reads=3)
    assert len(list(recorder.commits())) == 1
    log.hide_tail(ledger.topic, 0, reads=3)
    assert recorder.commit_at(0) is not None


def test_garbage_and_gaps_before_an_append_do_not_matter() -> None:
    """A jump of the offset means reading the gap, and ours still counts."""
    ledger, log = memory_ledger()
    recorder = ledger.recorder(log=log, live=False)
    recorder.insert_events([event(0)], header=HEADER)
    log.append(ledger.topic, 0, b"not a commit")
    log.leave_gap(ledger.topic, 0, offsets=3)
    assert recorder.insert_events([event(1)], header=HEADER) == [2]
    assert [each.offset for each in ledger.verified()] == [0, 5]
    assert recorder.offset_of(1) == 5


def test_an_acknowledged_record_that_a_replica_does_not_show_yet_is_waited_for() -> None:
    """After a jump nothing is decided before the record at the acknowledged offset is read."""
    ledger, log = memory_ledger()
    recorder = ledger.recorder(log=log, live=False)
    recorder.insert_events([event(0)], header=HEADER)
    log.append(ledger.topic, 0, b"not a commit")
    log.hide_tail(ledger.topic, 0, reads=4)
    assert recorder.insert_events([event(1)], header=HEADER) == [2]


def test_the_loser_of_a_race_gets_an_integrity_error_and_knows_the_winner() -> None:
    """Of two writers at one head the first record counts, and the loser goes on from it."""
    ledger, log = memory_ledger()
    one, other = ledger.recorder(log=log, live=False), ledger.recorder(live=False)
    one.catch_up()
    other.insert_events([event(1)], header=HEADER)
    with pytest.raises(IntegrityError):
        one.insert_events([event(2)], header=HEADER)
    assert one.select_events(aggregate(1))
    assert one.insert_events([event(2)], header=HEADER) == [2]
    assert len(ledger.leaves()) == 2


def test_a_commit_decided_for_a_height_gets_that_one_or_none() -> None:
    """Another thread that catches up must not slip a foreign commit under a decision."""
    ledger, log = memory_ledger()
    one, other = ledger.recorder(log=log, live=False), ledger.recorder(live=False)
    one.insert_events([event(0)], header=HEADER, height=0)
    other.catch_up()
    other.insert_events([event(1)], header=HEADER, height=1)
    one.catch_up()
    with pytest.raises(IntegrityError):
        one.insert_events([event(2)], header=HEADER, height=1)
    one.insert_events([event(2)], header=HEADER, height=2)
    assert len(ledger.leaves()) == 3


def test_a_race_lost_to_other_aggregates_is_run_again_where_no_header_was_given() -> None:
    """Versions alone are the contract of a foreign application."""
    ledger, log = memory_ledger()
    one, other = ledger.recorder(log=log, live=False), ledger.recorder(live=False)
    one.insert_events([event(0)])
    other.insert_events([event(1)])
    assert one.insert_events([event(2)]) == [3]
    with pytest.raises(IntegrityError):
        other.insert_events([event(2)])
    assert len(ledger.leaves()) == 3


def test_a_version_that_stands_already_is_refused_before_anything_is_written() -> None:
    """Also within one insert, and with the log unchanged."""
    ledger, log = memory_ledger()
    recorder = ledger.recorder(log=log, live=False)
    recorder.insert_events([event(0, 1), event(0, 2)])
    end = log.end(ledger.topic, 0)
    for again in ([event(0, 2)], [event(0, 3), event(0, 3)], [event(1), event(0, 1)]):
        with pytest.raises(IntegrityError):
            recorder.insert_events(again, header=HEADER)
    assert log.end(ledger.topic, 0) == end


def test_tracking_stands_in_the_commit_as_an_input_run() -> None:
    """What was consumed and what came of it are one record."""
    ledger, log = memory_ledger()
    recorder = ledger.recorder(log=log, live=False)
    recorder.insert_events([event(0)], tracking=Tracking("upstream", 4))
    recorder.insert_events([event(1)], header=HEADER, tracking=Tracking("upstream", 9))
    runs = [body_of(ledger, height).runs for height in (0, 1)]
    assert [(run.topic, run.first, run.next) for (run,) in runs] == [
        ("eventsourcing:upstream", 1, 5),
        ("eventsourcing:upstream", 5, 10),
    ]
    assert ledger.recorder().max_tracking_id("upstream") == 9


@pytest.mark.parametrize("persisted", [True, False])
@pytest.mark.parametrize("same", [True, False])
def test_after_a_lost_answer_the_retry_leaves_one_chain_without_loss_or_doubling(
    persisted: bool, same: bool
) -> None:
    """Each step × persisted or not × retried alike or otherwise: the whole chain verifies."""
    for step in range(3):
        ledger, log = memory_ledger()
        recorder = ledger.recorder(log=log, live=False)
        for i in range(step):
            recorder.insert_events([event(i)], header=HEADER)
        log.fail_next_append(persist=persisted)
        first = [event(10)]
        retry = first if same else [event(11)]
        if persisted:
            # The tail shows our record: the insert has gone well.
            assert recorder.insert_events(first, header=HEADER) == [step + 1]
        else:
            with pytest.raises(OperationalError):
                recorder.insert_events(first, header=HEADER)
        if persisted and same:
            with pytest.raises(IntegrityError):
                recorder.insert_events(retry, header=HEADER)
        else:
            recorder.insert_events(retry, header=HEADER)
        recorder.insert_events([event(12)], header=HEADER)
        wanted = [*range(step), *([10] if persisted or same else []), *([] if same else [11]), 12]
        found = [unpack_event(leaf).aggregate for leaf in ledger.leaves()]
        assert found == [aggregate(i).bytes for i in wanted]


def test_a_lost_append_that_arrives_late_beats_the_retry() -> None:
    """The record that is first on the log counts, whoever believes what."""
    ledger, log = memory_ledger()
    recorder, late = ledger.recorder(log=log, live=False), ledger.recorder(live=False)
    recorder.insert_events([event(0)], header=HEADER)
    late.catch_up()
    log.fail_next_append(persist=False)
    with pytest.raises(OperationalError):
        recorder.insert_events([event(1)], header=HEADER)
    # What the first try sent reaches the log only now.
    late.insert_events([event(1)], header=HEADER)
    with pytest.raises(IntegrityError):
        recorder.insert_events([event(2)], header=HEADER)
    assert recorder.insert_events([event(2)], header=HEADER) == [3]
    assert len(ledger.leaves()) == 3


def test_a_refused_append_writes_nothing_and_can_be_tried_again() -> None:
    """An operating error leaves the recorder as it was."""
    ledger, log = memory_ledger()
    recorder = ledger.recorder(log=log, live=False)
    log.refuse_next_append()
    with pytest.raises(OperationalError):
        recorder.insert_events([event(0)], header=HEADER)
    assert recorder.insert_events([event(0)], header=HEADER) == [1]
    assert len(ledger.leaves()) == 1


def test_a_record_that_the_log_has_twice_counts_once() -> None:
    """A retry behind the writer's back is noise, and the chain goes on from the first."""
    ledger, log = memory_ledger()
    recorder = ledger.recorder(log=log, live=False)
    recorder.insert_events([event(0)], header=HEADER)
    log.duplicate_next_append()
    recorder.insert_events([event(1)], header=HEADER)
    recorder.insert_events([event(2)], header=HEADER)
    recorder.insert_events([event(3)], header=HEADER)
    assert len(ledger.leaves()) == 4


def test_events_and_commits_over_the_limits_are_refused_by_name() -> None:
    """No reader meets a record that it need not be able to read."""
    ledger, log = memory_ledger()
    recorder = ledger.recorder(log=log, live=False)
    with pytest.raises(ProgrammingError, match=str(EVENT_BYTES_MAX)):
        recorder.insert_events([event(0, state=bytes(EVENT_BYTES_MAX))], header=HEADER)
    half = bytes(EVENT_BYTES_MAX // 2)
    with pytest.raises(ProgrammingError, match=str(COMMIT_BYTES_MAX)):
        recorder.insert_events([event(i, state=half) for i in range(16)], header=HEADER)
    large = CommitHeader(time_us=1, bulk=(part_of(bytes(COMMIT_BYTES_MAX)),))
    with pytest.raises(ProgrammingError, match=str(COMMIT_BYTES_MAX)):
        recorder.insert_events([], header=large)
    assert log.end(ledger.topic, 0) == 0
    assert recorder.insert_events([event(0)], header=HEADER) == [1]


def test_nothing_that_is_not_recorded_is_accepted_in_silence() -> None:
    """A keyword that the ledger does not know is an error, not a loss."""
    ledger, log = memory_ledger()
    with pytest.raises(ProgrammingError, match="metadata"):
        ledger.recorder(log=log).insert_events([event(0)], metadata={})


def test_reading_never_writes() -> None:
    """Any number of projections beside the writer leave the log as it is."""
    ledger, log = memory_ledger()
    writer = ledger.recorder(log=log, live=False)
    writer.insert_events(events(0, 5), header=HEADER)
    end = log.end(ledger.topic, 0)
    for _ in range(5):
        reader = ledger.recorder(signer=None)
        assert len(reader.select_notifications(None, 10)) == 5
        assert reader.select_events(aggregate(3))
        with pytest.raises(OperationalError, match=r"the writer of .* is the key"):
            reader.insert_events([event(9)])
    assert log.end(ledger.topic, 0) == end
    assert writer.insert_events([event(5)], header=HEADER) == [6]


def test_a_rotated_key_writes_from_the_next_height_on_and_the_old_one_no_more() -> None:
    """The ledger's own event changes its writer for recorders and readers alike."""
    ledger, log = memory_ledger()
    mapper = AvroMapper(codec(), [WriterRotated])
    new = Signer(bytes(32))
    old_recorder, new_recorder = (
        LedgerRecorder(ledger.partition(log, signer=signer), schemas=mapper.schemas())
        for signer in (SIGNER, new)
    )
    rotation = codec().encode(WriterRotated(at_us=1, writer=new.public))
    rotated = StoredEvent(UUID(bytes=LEDGER_ID), 1, "synor.ledger.v1.WriterRotated", rotation)
    old_recorder.insert_events([rotated], header=HEADER)
    with pytest.raises(OperationalError, match=r"the writer of .* is the key"):
        old_recorder.insert_events([], header=HEADER)
    new_recorder.catch_up()
    new_recorder.insert_events([], header=HEADER)
    new_recorder.insert_events([], header=HEADER)
    old_recorder.catch_up()
    assert [each.envelope.writer for each in old_recorder.commits()] == [
        SIGNER.public,
        new.public,
        new.public,
    ]


def test_two_writers_racing_lose_and_double_nothing(tmp_path: Path) -> None:
    """One winner at each height; every event of both is there once."""
    for ledger in (memory_ledger()[0], sqlite_ledger(tmp_path / "log.db")):
        races(ledger)
        ledger.close()


def races(ledger: LedgerStore) -> None:
    """Two threads, each with a recorder of its own, write all they have."""
    rounds = 150
    lost = [0, 0]

    def write(writer: int) -> None:
        recorder = ledger.recorder(live=False)
        for i in range(rounds):
            while True:
                try:
                    recorder.insert_events([event(writer * rounds + i)], header=HEADER)
                    break
                except IntegrityError:
                    lost[writer] += 1
                    recorder.catch_up()

    threads = [threading.Thread(target=write, args=(writer,)) for writer in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    heights = [each.envelope.height for each in ledger.verified()]
    assert heights == list(range(2 * rounds))
    found = [unpack_event(leaf).aggregate for leaf in ledger.leaves()]
    assert sorted(found) == sorted(aggregate(i).bytes for i in range(2 * rounds))
    for writer in (0, 1):
        own = [aggregate(writer * rounds + i).bytes for i in range(rounds)]
        assert [each for each in found if each in set(own)] == own


def test_commits_are_read_from_any_height_with_their_bulk() -> None:
    """What processors and auditors read: counting records, noise left out."""
    ledger, log = memory_ledger()
    recorder = ledger.recorder(log=log, live=False)
    for i in range(5):
        bulk = (part_of(b"b%d" % i),)
        recorder.insert_events([event(i)], header=CommitHeader(time_us=i, bulk=bulk))
        log.append(ledger.topic, 0, b"noise")
    read = list(recorder.commits(2))
    assert [each.envelope.height for each in read] == [2, 3, 4]
    assert [each.parts() for each in read] == [(part_of(b),) for b in (b"b2", b"b3", b"b4")]
    one = recorder.commit_at(3)
    assert one is not None
    assert (one.offset, recorder.offset_of(3)) == (6, 6)
    assert recorder.commit_at(5) is None
    assert recorder.offset_of(5) is None
    assert list(recorder.commits(5)) == []


@pytest.mark.parametrize("depth", list(Depth))
def test_notifications_are_the_same_at_every_depth_of_the_index(depth: Depth) -> None:
    """What the index does not hold is read from the log."""
    ledger, log = memory_ledger()
    writer = ledger.recorder(log=log, live=False)
    for i in range(0, 60, 3):
        writer.insert_events(events(i, 3), header=HEADER)
        writer.insert_events([], header=HEADER)
    reader = ledger.recorder(depth=depth)
    for start, limit, stop, topics in (
        (None, 100, None, ()),
        (5, 7, None, ()),
        (0, 10, 4, ()),
        (58, 10, None, ()),
        (61, 10, None, ()),
        (1, 2, None, ("tests:Event",)),
        (1, 2, None, ("tests:Other",)),
    ):
        wanted = writer.select_notifications(start, limit, stop, topics)
        assert reader.select_notifications(start, limit, stop, topics) == wanted
    if depth is not Depth.COMMITS:
        assert reader.select_events(aggregate(30)) == writer.select_events(aggregate(30))


def test_originators_may_be_text() -> None:
    """The library allows it, and other recorders would hand the text back too."""
    ledger, log = memory_ledger()
    recorder = ledger.recorder(log=log, live=False)
    stored = StoredEvent("account-é", 1, "tests:Event", b"x")
    recorder.insert_events([stored])
    assert recorder.select_events("account-é") == [stored]
    (notification,) = recorder.select_notifications(None, 10)
    assert notification.originator_id == "account-é"
