"""Our events through the ``eventsourcing`` library: Avro by an allow-list of records.

The library's own mapper imports whatever module a stored topic names. Ours knows the record types
it was given and nothing else, so a record on the log can never choose what code is loaded.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from eventsourcing.domain import DomainEventProtocol
from eventsourcing.persistence import (
    JSONTranscoder,
    Mapper,
    MapperDeserialisationError,
    ProgrammingError,
    StoredEvent,
)

from domain.codec import Codec, CodecError


class UnknownTopic(MapperDeserialisationError):
    """A stored event whose topic is not on the allow-list; nothing was imported for it."""


class UnknownRecord(ProgrammingError):
    """An event whose type is not on the allow-list, or a value that its schema cannot hold."""


@dataclass(frozen=True, slots=True)
class LedgerEvent:
    """An event of the domain with what the library wants of one: its aggregate and version.

    ``state`` are its bytes, where they are known already.
    """

    originator_id: UUID
    originator_version: int
    event: Any
    state: bytes | None = field(default=None, compare=False)


class AvroMapper(Mapper[UUID]):
    """``LedgerEvent`` to and from stored events: the Avro full name as topic, the Avro as state.

    State is neither compressed nor encrypted: the recorded bytes are the Merkle leaf, which every
    auditor must be able to make again from the event.
    """

    def __init__(self, codec: Codec, kinds: Iterable[type[Any]]) -> None:
        """Map the record types ``kinds`` by ``codec``."""
        super().__init__(transcoder=JSONTranscoder())
        self._codec = codec
        self._kinds: dict[str, type[Any]] = {kind.NAME: kind for kind in kinds}
        self._names = {kind: name for name, kind in self._kinds.items()}

    def schemas(self) -> dict[str, int]:
        """The allow-list as the recorder wants it: schema numbers by Avro full name."""
        return {name: self._codec.number(kind) for name, kind in self._kinds.items()}

    def to_stored_event(self, domain_event: DomainEventProtocol[UUID]) -> StoredEvent:
        """Encode a ``LedgerEvent``; raises ``UnknownRecord``."""
        if not isinstance(domain_event, LedgerEvent):
            raise UnknownRecord(f"{type(domain_event).__qualname__} is no LedgerEvent")
        event = domain_event.event
        topic = self._names.get(type(event))
        if topic is None:
            raise UnknownRecord(f"{type(event).__qualname__} is no event of this ledger")
        try:
            state = domain_event.state or self._codec.encode(event)
        except CodecError as error:
            raise UnknownRecord(f"{topic}: {error}") from error
        return StoredEvent(
            domain_event.originator_id, domain_event.originator_version, topic, state
        )

    def to_domain_event(self, stored_event: StoredEvent) -> LedgerEvent:
        """Decode to a ``LedgerEvent``; raises ``UnknownTopic``, or the library's error."""
        kind = self._kinds.get(stored_event.topic)
        if kind is None:
            raise UnknownTopic(f"{stored_event.topic} is no event of this ledger")
        originator = stored_event.originator_id
        if not isinstance(originator, UUID):
            raise UnknownTopic(f"{originator!r} is no aggregate of this ledger")
        try:
            event = self._codec.decode(kind, stored_event.state)
        except CodecError as error:
            raise MapperDeserialisationError(f"{stored_event.topic}: {error}") from error
        return LedgerEvent(originator, stored_event.originator_version, event)
