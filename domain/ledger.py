"""The ledger itself as an aggregate: what it is bound to, its genesis, rules and writers.

The first commit (height 0) of every ledger holds ``LogBound`` and ``GenesisRecorded``.
"""

from __future__ import annotations

from typing import Annotated, Final

from domain.genesis import Genesis
from domain.ids import AggregateId, Bytes16, PublicKey, derive
from domain.record import record

LEDGER_ID: Final = AggregateId(derive("ledger"))


@record("synor.ledger.v1.TopicBound")
class TopicBound:
    """One topic this ledger reads or writes, by the id of its incarnation."""

    topic: Annotated[str, "name of the topic"]
    id: Annotated[Bytes16, "id of this incarnation; a re-created topic has another"]
    partitions: Annotated[int, "number of partitions, for life"]


@record("synor.ledger.v1.LogBound")
class LogBound:
    """The first event of each ledger: the log it lives on. Not part of the genesis or the state."""

    at_us: Annotated[int, "effective time, µs UTC"]
    shards: Annotated[int, "P: number of metering shards, for life"]
    topics: Annotated[tuple[TopicBound, ...], "topics by name"]


@record("synor.ledger.v1.GenesisRecorded")
class GenesisRecorded:
    """The genesis document itself, so that a ledger suffices for its audit."""

    at_us: Annotated[int, "effective time, µs UTC"]
    genesis: Annotated[Genesis, "the document whose SHA-256 every record names"]


@record("synor.ledger.v1.RulesActivated")
class RulesActivated:
    """From the next height on this ledger decides by another version of the rules."""

    at_us: Annotated[int, "effective time, µs UTC"]
    version: Annotated[int, "version of the rules"]


@record("synor.ledger.v1.WriterRotated")
class WriterRotated:
    """From the next height on another key writes this ledger."""

    at_us: Annotated[int, "effective time, µs UTC"]
    writer: Annotated[PublicKey, "the new writer's key"]


@record("synor.ledger.v1.ParameterChanged")
class ParameterChanged:
    """A parameter's new value, effective from the next deadline of its kind (R10)."""

    at_us: Annotated[int, "effective time, µs UTC"]
    name: Annotated[str, "field of Parameters"]
    value: Annotated[int, "new value in the field's unit"]


@record("synor.ledger.v1.PriceRowAdded")
class PriceRowAdded:
    """A new row at the end of the catalogue: devices without a list price get one (R2.3)."""

    at_us: Annotated[int, "effective time, µs UTC"]
    resource: Annotated[str, "name of the resource; the row itself follows the genesis' shape"]
    unit: Annotated[int, "base units that cost price_nano"]
    price_nano: Annotated[int, "list price in nano SYNOR per unit"]
    market: Annotated[bool, "whether rounds price it"]


LedgerEvent = (
    LogBound | GenesisRecorded | RulesActivated | WriterRotated | ParameterChanged | PriceRowAdded
)


# Commands


@record("synor.command.v1.Tick")
class Tick:
    """A clock's tick, in every input partition. In logical time it is the time."""

    time_us: Annotated[int, "the time, µs UTC"]


@record("synor.command.v1.ChangeParameter")
class ChangeParameter:
    """The operator changes one parameter within its bounds."""

    name: Annotated[str, "field of Parameters"]
    value: Annotated[int, "new value in the field's unit"]
