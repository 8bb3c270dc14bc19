"""The persistence module for the ``eventsourcing`` library: its recorders on a ledger.

A ledger partition is one application of the library: its notification ids are the Merkle leaves
counted from 1, without gaps, and one ``insert_events`` is one commit. Consumed notifications of
another application (``Tracking``) stand in the commit as an input run, so they can never disagree
with the events. Reads come from the index. Snapshots and read models are disposable and lie in
plain tables of the library's own SQLite recorders, never on the log.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final, Self
from uuid import UUID

from eventsourcing.persistence import (
    AggregateRecorder,
    ApplicationRecorder,
    InfrastructureFactory,
    InfrastructureFactoryError,
    IntegrityError,
    ListenNotifySubscription,
    Notification,
    NotSupportedError,
    OperationalError,
    ProcessRecorder,
    ProgrammingError,
    StoredEvent,
    Subscription,
    Tracking,
)
from eventsourcing.sqlite import SQLiteAggregateRecorder, SQLiteDatastore, SQLiteTrackingRecorder
from eventsourcing.utils import Environment, EnvType, resolve_topic

from adapters.eventsourcing_index import Depth, Head, IndexedEvent, IndexFailed
from adapters.eventsourcing_opaque import OPAQUE, pack_opaque, unpack_opaque
from adapters.eventsourcing_partition import (
    TRACKING_PREFIX,
    LedgerPartition,
    LostRace,
    TooLarge,
)
from adapters.eventsourcing_writer import NotTheWriter
from domain.chain import Counted
from domain.commit import NO_HASH, CommitHeader, InputRun, RecordedEvent, unpack_event
from domain.ids import Hash32, derive
from domain.invariant import invariant
from domain.ports import LogError

_POLL_S: Final = 0.01
_ROUNDS: Final = 100
_VERSION_MAX: Final = 2**63 - 1


class LedgerRecorder(ProcessRecorder):
    """One ledger partition as application and process recorder of the library.

    Raises ``IntegrityError`` when a version or tracking stands already or the race for the next
    commit was lost, ``ProgrammingError`` for what can never be recorded, ``OperationalError`` for
    what may go well later, and ``LedgerStopped`` (of the domain) when no reader may go on.
    """

    def __init__(
        self,
        partition: LedgerPartition,
        *,
        clock_us: Callable[[], int] | None = None,
        schemas: Mapping[str, int] | None = None,
        live: bool = False,
    ) -> None:
        """Record on a partition.

        ``schemas`` (Avro full name → number) makes it a ledger of our own records: other topics
        are refused; without it every event is opaque. ``clock_us`` is the time of commits that come
        without a header, as those of a foreign ``Application`` do. With ``live`` every read looks
        at the log first, so that it sees what other processes have written; a ledger's only writer
        needs no such look.
        """
        self.partition = partition
        self._clock_us = clock_us
        self._numbers = None if schemas is None else dict(schemas)
        self._names = {number: name for name, number in (schemas or {}).items()}
        invariant(OPAQUE not in self._names, "schema number 0 is for foreign events")
        self._live = live
        self._listeners: set[Callable[[], None]] = set()

    # Writing

    def insert_events(
        self,
        stored_events: Sequence[StoredEvent],
        *,
        header: CommitHeader | None = None,
        height: int | None = None,
        tracking: Tracking | None = None,
        **kwargs: Any,
    ) -> list[int]:
        """Make one commit of the events in order, and return their notification ids.

        With a header or tracking an empty list makes a commit too. Whoever gives a header has
        decided from the head as this recorder knows it (and as ``height`` says, where other threads
        catch up too), so a lost race is an ``IntegrityError``. Without a header the versions alone
        decide, and a race lost to other aggregates is run again.
        """
        if kwargs:
            raise ProgrammingError(f"a ledger records no {', '.join(sorted(kwargs))}")
        if not stored_events and header is None and tracking is None:
            return []
        events = [self._recorded(each) for each in stored_events]
        with self._mapped(), self.partition.lock:
            if header is not None:
                first = self._commit(header, events, tracking, height)
            else:
                first = self._commit_in_any_race(events, tracking)
        for notify in tuple(self._listeners):
            notify()
        return list(range(first, first + len(events)))

    def _commit_in_any_race(
        self, events: Sequence[RecordedEvent], tracking: Tracking | None
    ) -> int:
        if self._clock_us is None:
            raise ProgrammingError("a commit without a header needs a clock; this ledger has none")
        if not self.partition.caught_up:
            self.partition.catch_up()
        for _ in range(_ROUNDS):
            try:
                return self._commit(CommitHeader(time_us=self._time_us()), events, tracking)
            except LostRace:
                continue
        raise OperationalError(f"{_ROUNDS} races for the next commit were lost")

    def _time_us(self) -> int:
        """Now, and never before the last commit, even where another machine's clock made that."""
        invariant(self._clock_us is not None, "a commit without header has a clock")
        now = self._clock_us() if self._clock_us is not None else 0
        return max(now, self.partition.head().time_us)

    def _commit(
        self,
        header: CommitHeader,
        events: Sequence[RecordedEvent],
        tracking: Tracking | None,
        height: int | None = None,
    ) -> int:
        self.partition.head()
        self._check_versions(events)
        if tracking is not None:
            header = replace(header, runs=(*header.runs, self._run(tracking)))
        return self.partition.append(header, events, height=height).first

    def _check_versions(self, events: Sequence[RecordedEvent]) -> None:
        keys = [(event.aggregate, event.version) for event in events]
        taken = self.partition.index.taken(keys)
        if taken is not None:
            raise IntegrityError(f"aggregate {taken[0].hex()} has a version {taken[1]} already")
        if len(set(keys)) < len(keys):
            raise IntegrityError("two events have the same aggregate and version")

    def _run(self, tracking: Tracking) -> InputRun:
        """Tracking as the input run of one notification; the ids between were not for us."""
        name = tracking.application_name
        last = self.partition.index.tracking(name) or 0
        if tracking.notification_id <= last:
            raise IntegrityError(f"{name} is consumed to {last}, beyond {tracking.notification_id}")
        return InputRun(
            topic=TRACKING_PREFIX + name,
            partition=0,
            first=last + 1,
            next=tracking.notification_id + 1,
            count=1,
            digest=Hash32(NO_HASH),
        )

    def _recorded(self, event: StoredEvent) -> RecordedEvent:
        if not 0 <= event.originator_version <= _VERSION_MAX:
            raise ProgrammingError(f"{event.originator_version} is no version of an aggregate")
        originator = event.originator_id
        if self._numbers is not None:
            number = self._numbers.get(event.topic)
            if number is None or not isinstance(originator, UUID):
                raise ProgrammingError(f"{event.topic} is no event of this ledger")
            return RecordedEvent(originator.bytes, event.originator_version, number, event.state)
        text = originator if isinstance(originator, str) else ""
        return RecordedEvent(
            _originator(originator),
            event.originator_version,
            OPAQUE,
            pack_opaque(event.topic, text, event.state),
        )

    # Tracking

    def insert_tracking(self, tracking: Tracking) -> None:
        """Record tracking alone, in a commit without events."""
        self.insert_events((), tracking=tracking)

    def max_tracking_id(self, application_name: str) -> int | None:
        """The last consumed notification of the application, or None."""
        with self._mapped():
            self._look()
            return self.partition.index.tracking(application_name)

    # Reading

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        """Events of one aggregate in the order of their versions."""
        if self.partition.depth is Depth.COMMITS:
            raise NotSupportedError("this ledger's index finds no events by aggregate")
        with self._mapped():
            self._look()
            found = self.partition.index.events_of(
                _originator(originator_id), gt=gt, lte=lte, desc=desc, limit=limit
            )
            stored = []
            for each in found:
                topic, _, state = self._opened(each)
                stored.append(StoredEvent(originator_id, each.version, topic, state))
            return stored

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        """Events in the order of the ledger, by notification id."""
        first = 1 if start is None else start if inclusive_of_start else start + 1
        with self._mapped():
            self._look()
            if self.partition.depth is Depth.COMMITS:
                return self._scan(first, stop, limit, topics)
            numbers = self._topic_numbers(topics) if topics else None
            found = self.partition.index.events_from(first, stop, limit, numbers)
            return [self._notification(each) for each in found]

    def max_notification_id(self) -> int | None:
        """The number of events on the ledger, or None before the first."""
        with self._mapped():
            self._look()
            return self.partition.head().size or None

    def _look(self) -> None:
        if self._live:
            self.partition.catch_up()
        else:
            self.partition.head()

    def _topic_numbers(self, topics: Sequence[str]) -> list[int]:
        index = self.partition.index
        known = self._numbers if self._numbers is not None else {}
        numbers = (known.get(name, index.topic_number(name)) for name in topics)
        return [number for number in numbers if number is not None]

    def _notification(self, event: IndexedEvent) -> Notification:
        topic, text, state = self._opened(event)
        originator: UUID | str = text or UUID(bytes=event.originator)
        return Notification(originator, event.version, topic, state, event.id)

    def _opened(self, event: IndexedEvent) -> tuple[str, str, bytes]:
        """Topic, originator where it is text, and state."""
        payload = event.payload
        if payload is None:
            recorded = self.partition.recorded(event.id)
            invariant(recorded is not None, "an indexed event stands on the log")
            payload = b"" if recorded is None else recorded.payload
        if event.topic <= OPAQUE:
            return unpack_opaque(payload)
        name = self._names.get(event.topic)
        if name is None:
            raise ProgrammingError(f"event {event.id} has schema {event.topic}, which is unknown")
        return name, "", payload

    def _scan(
        self, first: int, stop: int | None, limit: int, topics: Sequence[str]
    ) -> list[Notification]:
        """Notifications by reading the commits themselves, where the index holds no event."""
        found: list[Notification] = []
        number = max(first, 1)
        while len(found) < limit and (stop is None or number <= stop):
            commit = self.partition.index.commit_of(number)
            if commit is None:
                break
            for data in self.partition.leaves(commit)[number - commit.first :]:
                event = unpack_event(data)
                each = self._notification(
                    IndexedEvent(
                        number, event.aggregate, event.version, event.schema, event.payload
                    )
                )
                if len(found) == limit or (stop is not None and number > stop):
                    break
                if not topics or each.topic in topics:
                    found.append(each)
                number += 1
        return found

    def subscribe(
        self, gt: int | None = None, topics: Sequence[str] = ()
    ) -> Subscription[ApplicationRecorder]:
        """Notifications from here on, those of other processes' commits too."""
        return LedgerSubscription(recorder=self, gt=gt, topics=topics)

    def listen(self, notify: Callable[[], None]) -> None:
        """Call ``notify`` after each commit made here."""
        self._listeners.add(notify)

    def unlisten(self, notify: Callable[[], None]) -> None:
        """Call it no more."""
        self._listeners.discard(notify)

    # The ledger itself, for processors and auditors

    def catch_up(self) -> Head:
        """Read what others appended; returns where the ledger stands."""
        with self._mapped():
            return self.partition.catch_up()

    def head(self) -> Head:
        """Where this recorder has read to, its own commits included."""
        with self._mapped():
            return self.partition.head()

    def commits(self, from_height: int = 0) -> Iterator[Counted]:
        """The counting records from a height up to the head, read from the log."""
        return self.partition.commits(from_height)

    def commit_at(self, height: int) -> Counted | None:
        """The counting record of a height, or None beyond the head."""
        with self._mapped():
            return self.partition.commit_at(height)

    def offset_of(self, height: int) -> int | None:
        """The offset of the counting record of a height, or None beyond the head."""
        with self._mapped():
            return self.partition.offset_of(height)

    def close(self) -> None:
        """Close log and index."""
        self.partition.close()

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        """The library's exceptions for those of the ledger, each with its cause."""
        try:
            yield
        except LostRace as error:
            raise IntegrityError(str(error)) from error
        except TooLarge as error:
            raise ProgrammingError(str(error)) from error
        except (LogError, IndexFailed, NotTheWriter) as error:
            raise OperationalError(str(error)) from error


def _originator(originator: UUID | str) -> bytes:
    """The 16 bytes of an aggregate; an id that is text is named by its digest."""
    if isinstance(originator, UUID):
        return originator.bytes
    return derive("originator", hashlib.sha256(originator.encode()).digest())


class LedgerSubscription(ListenNotifySubscription[LedgerRecorder]):
    """Notifications as they are recorded: by this process at once, by others when it looks."""

    def __init__(
        self, recorder: LedgerRecorder, gt: int | None = None, topics: Sequence[str] = ()
    ) -> None:
        """Start the library's thread that pulls."""
        super().__init__(recorder=recorder, gt=gt, topics=topics)
        recorder.listen(self._has_been_notified.set)

    def _pull(self) -> None:
        # The library would wait for a notice, which another process cannot give.
        while not self._has_been_stopped:
            self._recorder.catch_up()
            super()._pull()
            self._has_been_notified.wait(_POLL_S)

    def stop(self) -> None:
        """Stop the iteration, from any thread."""
        super().stop()
        self._recorder.unlisten(self._has_been_notified.set)


class LedgerAggregateRecorder(AggregateRecorder):
    """A ledger as plain aggregate recorder, which gives out no notification ids."""

    def __init__(self, recorder: LedgerRecorder) -> None:
        """Record through an application recorder."""
        self._recorder = recorder

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> None:
        """Make one commit of the events; nothing for none."""
        self._recorder.insert_events(stored_events, **kwargs)

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        """Events of one aggregate in the order of their versions."""
        return self._recorder.select_events(originator_id, gt=gt, lte=lte, desc=desc, limit=limit)


class SynorFactory(InfrastructureFactory[SQLiteTrackingRecorder]):
    """Our recorders for the library's applications and projections.

    This class knows no log: it is given a recorder (``over``), or a subclass in a composition
    module opens one from the environment, which is then the ``PERSISTENCE_MODULE``. Read models and
    snapshots go to the SQLite database SQLITE_DBNAME, by default in memory.
    """

    SQLITE_DBNAME = "SQLITE_DBNAME"

    def __init__(self, env: Environment | EnvType | None) -> None:
        """Open nothing yet: a read model's factory never needs a log."""
        super().__init__(env)
        self._recorder: LedgerRecorder | None = None
        self._tables: SQLiteDatastore | None = None

    @classmethod
    def over(cls, recorder: LedgerRecorder, env: EnvType | None = None) -> Self:
        """The factory of an application on a recorder that its caller built and closes."""
        factory = cls(env)
        factory._recorder = recorder
        factory._closes = False
        return factory

    _closes = True

    def open_recorder(self) -> LedgerRecorder:
        """Open the ledger that the environment names; a composition module says how."""
        raise InfrastructureFactoryError(
            "this module composes nothing: PERSISTENCE_MODULE is adapters.bootstrap_eventsourcing"
        )

    def application_recorder(self) -> LedgerRecorder:
        """The ledger; the same object at every call, since it has one writer."""
        if self._recorder is None:
            self._recorder = self.open_recorder()
        return self._recorder

    def process_recorder(self) -> LedgerRecorder:
        """The ledger: every one of them also tracks what it has consumed."""
        return self.application_recorder()

    def aggregate_recorder(self, purpose: str = "events") -> AggregateRecorder:
        """The ledger for events; for snapshots a plain table, since those are disposable."""
        if purpose == "events":
            return LedgerAggregateRecorder(self.application_recorder())
        recorder = SQLiteAggregateRecorder(
            datastore=self._datastore(), events_table_name="stored_" + purpose
        )
        recorder.create_table()
        return recorder

    def tracking_recorder(
        self, tracking_recorder_class: type[SQLiteTrackingRecorder] | None = None
    ) -> SQLiteTrackingRecorder:
        """A read model, in the database of read models."""
        if tracking_recorder_class is None:
            topic = self.env.get(self.TRACKING_RECORDER_TOPIC)
            tracking_recorder_class = resolve_topic(topic) if topic else SQLiteTrackingRecorder
        recorder = tracking_recorder_class(datastore=self._datastore())
        recorder.create_table()
        return recorder

    def _datastore(self) -> SQLiteDatastore:
        if self._tables is None:
            self._tables = SQLiteDatastore(db_name=self.env.get(self.SQLITE_DBNAME, ":memory:"))
        return self._tables

    def close(self) -> None:
        """Close what this factory opened."""
        if self._tables is not None:
            self._tables.close()
            self._tables = None
        if self._recorder is not None and self._closes:
            self._recorder.close()
            self._recorder = None
