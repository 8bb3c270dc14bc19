"""The library's Application as a processor's unit of work.

A step takes states from the repository on first touch, decides and evolves them in a dict of its
own, and saves the events in their order with the final states by one call, which is one commit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final
from uuid import UUID

from eventsourcing.application import (
    AggregateNotFoundError,
    Application,
    ProcessingEvent,
    Repository,
)
from eventsourcing.persistence import (
    EventStore,
    InfrastructureFactory,
    IntegrityError,
    OperationalError,
    PersistenceError,
    Recording,
)
from eventsourcing.utils import Environment, EnvType

from adapters.eventsourcing_index import Head
from adapters.eventsourcing_mapper import AvroMapper, LedgerEvent
from adapters.eventsourcing_recorder import LedgerRecorder, SynorFactory
from domain.commit import CommitHeader
from domain.ids import AggregateId
from domain.processor import Asleep, Emitted, Evolve, Versioned

#: How many aggregates' states are kept in memory; beyond it the least used are read again.
CACHED_STATES: Final = 200_000


class LedgerStore(EventStore[UUID]):
    """The library's event store without a recording per event: no one asks for them here."""

    def put(self, domain_events: Sequence[Any], **kwargs: Any) -> list[Recording[UUID]]:
        """Record the events in one commit, also none of them."""
        self.recorder.insert_events(
            [self.mapper.to_stored_event(event) for event in domain_events], **kwargs
        )
        return []


@dataclass(frozen=True, slots=True)
class Seed:
    """An aggregate's state of a snapshot, as the library's repository takes it: the first event."""

    originator_id: UUID
    originator_version: int
    state: Any


class Seeds:
    """States of a snapshot that no one has asked for yet: the repository's snapshot store.

    A state may be older than the ledger: the repository folds the events that came after it.
    """

    def __init__(self) -> None:
        """Start with none."""
        self.asleep: Asleep | None = None

    def get(self, originator_id: UUID, *, lte: int | None = None, **_: Any) -> Iterator[Seed]:
        """The state of an aggregate, once: from then on the repository's cache has it."""
        if lte is None and self.asleep is not None:
            found = self.asleep.wake(AggregateId(originator_id.bytes))
            if found is not None:
                yield Seed(originator_id, found.version, found.state)


class LedgerApplication(Application[UUID]):
    """One ledger's application: ``States`` for its processor. ``named`` makes the class of a shard.

    The library tells an event by its ``originator_id`` and asks what has ``collect_events`` for
    its own; ``Versioned`` of the domain has neither, so it goes to the cache and nowhere else.
    The application takes nothing from the process' environment, where a variable of the library
    could switch on what would make replay differ.
    """

    env: ClassVar[dict[str, str]] = {
        Application.AGGREGATE_CACHE_MAXSIZE: str(CACHED_STATES),
        Application.AGGREGATE_CACHE_FASTFORWARD: "n",
        Application.DEEPCOPY_FROM_AGGREGATE_CACHE: "n",
    }

    #: What ``commit`` raises when another commit took the height.
    lost: ClassVar[tuple[type[Exception], ...]] = (IntegrityError,)

    def __init__(
        self,
        recorder: LedgerRecorder,
        mapper: AvroMapper,
        evolve: Evolve,
        env: EnvType | None = None,
    ) -> None:
        """Work on a recorder, which the caller closes; ``env`` overrides the class' settings.

        ``evolve`` is the processor's fold of one event into an aggregate's state (or None).
        """
        self._ledger = recorder
        self._avro = mapper
        self._evolve = evolve
        self._seeds = Seeds()
        super().__init__(env)

    @classmethod
    def named(cls, name: str) -> type[LedgerApplication]:
        """The class for one ledger or shard; the name is the one that others track it by."""
        return type(name, (cls,), {"name": name})

    def construct_env(self, name: str, env: EnvType | None = None) -> Environment:
        """The class' settings and the given ones, and nothing of the process' environment."""
        return Environment(name, {**type(self).env, **(env or {})})

    def construct_factory(self, env: Environment) -> InfrastructureFactory[Any]:
        """A factory over the given recorder."""
        return SynorFactory.over(self._ledger, env)

    def construct_mapper(self) -> AvroMapper:
        """The given mapper."""
        return self._avro

    def construct_repository(self) -> Repository[UUID]:
        """The library's repository, which looks for a state among the seeds before it folds."""
        made = super().construct_repository()
        seeds: Any = self._seeds
        made.snapshot_store = seeds
        return made

    def construct_event_store(self) -> EventStore[UUID]:
        """A store that makes no recordings."""
        return LedgerStore(mapper=self.mapper, recorder=self.recorder)

    def load(self, aggregate: AggregateId) -> Versioned | None:
        """The committed state of an aggregate, folded from its events or cached, or None."""
        # Its protocols want a UUID as id; what the projector returns is what it caches and returns.
        repository: Any = self.repository
        try:
            found: Versioned = repository.get(UUID(bytes=aggregate), projector_func=self._project)
        except AggregateNotFoundError:
            return None
        return found

    def _project(
        self, known: Versioned | None, events: Iterable[LedgerEvent | Seed]
    ) -> Versioned | None:
        """The library's projector function: several times faster than its default one."""
        state = None if known is None else known.state
        last: LedgerEvent | Seed | None = None
        for last in events:
            state = last.state if isinstance(last, Seed) else self._evolve(state, last.event)
        if last is None:
            return known
        return Versioned(AggregateId(last.originator_id.bytes), last.originator_version, state)

    def commit(
        self,
        events: Iterable[Emitted],
        states: Iterable[Versioned],
        header: CommitHeader,
        *,
        height: int | None = None,
    ) -> Head:
        """Record one step as one commit and keep its states; returns where the ledger stands.

        The step was decided from the head as the recorder knows it; ``height`` is the one it was
        decided for, where other threads make the recorder catch up too.

        On ``IntegrityError`` another commit took the height, or others follow ours already; on an
        error of the log or the index it failed, or it is not certain that it did. Either way the
        cache is empty now, and the caller drops its own states and catches up before it decides
        again.
        """
        wrapped = [
            LedgerEvent(UUID(bytes=each.aggregate), each.version, each.event, each.payload)
            for each in events
        ]
        try:
            self.save(*wrapped, *states, header=header, height=height)
        except OperationalError as error:
            self.forget()
            # The library's name hides what to retry and what to tell from whoever runs the worker.
            if error.__cause__ is not None:
                raise error.__cause__ from None
            raise
        except PersistenceError:
            self.forget()
            raise
        head = self._ledger.head()
        if height is not None and head.height != height:
            # A rival that decides the same writes the same bytes: its commit was ours, and it has
            # gone on from it. States that are loaded now would be of a later height than the rest.
            self.forget()
            raise IntegrityError(f"height {height} counts, and so does {head.height}")
        return head

    def save(self, *objs: Any, **kwargs: Any) -> list[Recording[UUID]]:
        """The library's ``save``, telling events and states apart by type.

        The library asks a runtime protocol of every object, which costs more than the commit.
        """
        step: ProcessingEvent[UUID] = ProcessingEvent()
        states: dict[UUID, Any] = step.aggregates
        for obj in objs:
            if type(obj) is LedgerEvent:
                step.events.append(obj)
            elif type(obj) is Versioned:
                states[UUID(bytes=obj.id)] = obj
            else:
                step.collect_events(obj)
        step.saved_kwargs.update(kwargs)
        recordings = self._record(step)
        self._notify(recordings)
        return recordings

    def settle(self, *, wait: bool) -> bool:
        """A commit is recorded when ``commit`` returns."""
        return True

    def forget(self) -> None:
        """Drop every cached state, since they may be of a history that did not happen."""
        # The library's LRUCache.clear() leaves its entries in place, so there is a new cache.
        self._seeds = Seeds()
        self._repository = self.construct_repository()

    def held(self) -> list[Versioned]:
        """The states in memory, for a snapshot: of committed steps, by their versions."""
        cache: Any = self.repository.cache
        cached = {} if cache is None else {k: link[3] for k, link in cache.cache.items()}
        return list(cached.values())

    @property
    def asleep(self) -> Asleep | None:
        """States of a snapshot that no one has asked for yet."""
        return self._seeds.asleep

    def seed(self, asleep: Asleep) -> None:
        """Take states of a snapshot of this ledger; each is brought up to date when asked for."""
        self._seeds.asleep = asleep

    def cached(self) -> Mapping[UUID, Any]:
        """The cache's entries, for tests and figures."""
        cache = self.repository.cache
        return {} if cache is None else cache.cache
