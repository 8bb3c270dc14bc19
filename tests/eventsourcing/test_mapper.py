"""Our events through the library: Avro by an allow-list, and nothing imported for a record."""

from __future__ import annotations

import sys
from dataclasses import replace
from uuid import UUID

import pytest
from eventsourcing.persistence import MapperDeserialisationError, ProgrammingError, StoredEvent

from adapters.eventsourcing_mapper import AvroMapper, LedgerEvent, UnknownRecord, UnknownTopic
from adapters.eventsourcing_recorder import LedgerRecorder
from domain.ledger import LEDGER_ID, ParameterChanged, RulesActivated
from tests.eventsourcing.events import HEADER, event
from tests.eventsourcing.ledgers import SIGNER, codec, memory_ledger

ID = UUID(bytes=LEDGER_ID)
ACTIVATED = LedgerEvent(ID, 1, RulesActivated(at_us=5, version=2))


def mapper() -> AvroMapper:
    """An allow-list of one record."""
    return AvroMapper(codec(), [RulesActivated])


def test_an_event_comes_back_equal_and_its_topic_is_its_avro_name() -> None:
    """State is the Avro of the record, which is what the Merkle leaf holds."""
    stored = mapper().to_stored_event(ACTIVATED)
    assert stored.topic == "synor.ledger.v1.RulesActivated"
    assert stored.state == codec().encode(ACTIVATED.event)
    assert mapper().to_domain_event(stored) == ACTIVATED


def test_a_topic_that_is_not_on_the_allow_list_imports_nothing() -> None:
    """The library's own mapper would import the module that the record names."""
    sys.modules.pop("wave", None)
    for topic in ("wave:open", "synor.ledger.v1.ParameterChanged", ""):
        with pytest.raises(UnknownTopic):
            mapper().to_domain_event(StoredEvent(ID, 1, topic, b""))
    assert "wave" not in sys.modules


def test_an_event_that_is_not_on_the_allow_list_is_not_recorded() -> None:
    """By type, also where a schema for it exists."""
    change = ParameterChanged(at_us=1, name="round_us", value=2)
    with pytest.raises(UnknownRecord, match="ParameterChanged"):
        mapper().to_stored_event(LedgerEvent(ID, 1, change))
    with pytest.raises(UnknownRecord):
        mapper().to_stored_event(LedgerEvent(ID, 1, RulesActivated(at_us=1 << 70, version=1)))


def test_bytes_that_are_not_exactly_the_record_are_an_error() -> None:
    """A trailing byte is as wrong as a missing one."""
    stored = mapper().to_stored_event(ACTIVATED)
    for state in (stored.state + b"\0", stored.state[:-1]):
        with pytest.raises(MapperDeserialisationError):
            mapper().to_domain_event(replace(stored, state=state))


def test_a_ledger_of_our_records_takes_no_foreign_event() -> None:
    """Neither a topic beyond its schemas, nor an originator that is no aggregate's id."""
    ledger, log = memory_ledger()
    recorder = LedgerRecorder(ledger.partition(log), schemas=mapper().schemas())
    stored = mapper().to_stored_event(ACTIVATED)
    for wrong in (event(0), replace(stored, originator_id="text")):
        with pytest.raises(ProgrammingError):
            recorder.insert_events([wrong], header=HEADER)
    assert recorder.insert_events([stored], header=HEADER) == [1]
    assert recorder.select_events(ID) == [stored]
    topics = ["synor.ledger.v1.RulesActivated"]
    assert len(recorder.select_notifications(None, 10, topics=topics)) == 1


def test_a_schema_number_that_nobody_gave_a_name_is_an_error_when_read() -> None:
    """A recorder with a shorter allow-list does not skip what it does not know."""
    ledger, log = memory_ledger()
    full = LedgerRecorder(ledger.partition(log), schemas=mapper().schemas())
    full.insert_events([mapper().to_stored_event(ACTIVATED)], header=HEADER)
    other = AvroMapper(codec(), [ParameterChanged])
    short = LedgerRecorder(ledger.partition(log, signer=SIGNER), schemas=other.schemas(), live=True)
    with pytest.raises(ProgrammingError, match="unknown"):
        short.select_notifications(None, 10)
