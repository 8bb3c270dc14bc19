"""The ledger itself as an aggregate: what it is bound to, its genesis, rules and writers.

The first commit (height 0) of every ledger holds ``LogBound`` and ``GenesisRecorded``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Final, assert_never

from domain.catalogue import Catalogue, How, PriceRow, Revenue
from domain.commit import Ledger
from domain.genesis import BOUNDS, Genesis, Parameters, broken_bounds
from domain.ids import (
    QUANTITY_MAX,
    AggregateId,
    Bytes16,
    PublicKey,
    derive,
    length_prefixed,
)
from domain.invariant import invariant
from domain.record import record
from domain.refusal import Refused, code

LEDGER_ID: Final = AggregateId(derive("ledger"))
_APPOINTMENT_TAG: Final = b"synor-writer/1"


def appointment(genesis: bytes, ledger: int, key: bytes) -> bytes:
    """What a new writer's key signs itself: a ledger given to a key that nobody has is lost.

    ``synor-writer/1``, genesis hash, number of the ledger in one byte, key, each behind its length.
    """
    return length_prefixed(_APPOINTMENT_TAG, genesis, ledger.to_bytes(1, "big"), key)


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


@record("synor.ledger.v1.WriterAppointed")
class WriterAppointed:
    """The market says who is to write a ledger; each of its shards takes that over by itself."""

    at_us: Annotated[int, "effective time, µs UTC"]
    ledger: Annotated[int, "1 market, 2 metering (all shards), 3 settlement"]
    writer: Annotated[PublicKey, "the new writer's key"]


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
    LogBound
    | GenesisRecorded
    | RulesActivated
    | WriterAppointed
    | WriterRotated
    | ParameterChanged
    | PriceRowAdded
)


# State


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerState:
    """What is in force; None before the genesis was recorded. ``LogBound`` is no part of it."""

    parameters: Parameters | None = None
    rules_version: int = 0
    rows_added: tuple[PriceRow, ...] = ()


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


@record("synor.command.v1.ActivateRules")
class ActivateRules:
    """The operator puts the next version of the rules in force, from the next height on."""

    version: Annotated[int, "version of the rules: the one after that in force"]


@record("synor.command.v1.RotateWriter")
class RotateWriter:
    """The operator gives a ledger to another key, from the height after it has heard of it on."""

    ledger: Annotated[int, "1 market, 2 metering (all shards), 3 settlement"]
    writer: Annotated[PublicKey, "the new writer's key, which nothing was signed with before"]
    proof: Annotated[bytes, "the new key's Ed25519 signature that it is to write this ledger"]


@record("synor.command.v1.AddPriceRow")
class AddPriceRow:
    """The operator gives device time that has no list price one, for leases that come (R2.3)."""

    resource: Annotated[str, "name: lower-case letters, digits, dots and dashes"]
    unit: Annotated[int, "base units that cost price_nano: 3.6e9 milli-device·ms a device·hour"]
    price_nano: Annotated[int, "list price in nano SYNOR per unit"]
    market: Annotated[bool, "whether rounds price it; the list price is the first reference"]


# Refusals

UNKNOWN_PARAMETER: Final = code(
    314, "unknown_parameter", "Name a field of the genesis' parameters."
)
PARAMETER_OUT_OF_BOUNDS: Final = code(
    315, "parameter_out_of_bounds", "Keep every parameter within its bounds; the first is named."
)
RULES_NOT_NEXT: Final = code(
    317, "rules_not_next", "Activate the version that follows the one in force; it is named."
)
NOT_A_RESOURCE: Final = code(
    319,
    "not_a_resource",
    "Name it by 1 to 64 lower-case letters, digits, dots and dashes, a letter first.",
)
PRICED_ALREADY: Final = code(
    324, "priced_already", "Nothing to do: a row of the price list never changes."
)
PRICE_ROW_OUT_OF_RANGE: Final = code(
    325, "price_row_out_of_range", "Give a unit and a price above zero, of at most 2^62."
)
PRICE_ROW_OFF_TICK: Final = code(
    326, "price_row_off_tick", "Give device time that rounds price a multiple of the tick."
)
PRICE_LIST_FULL: Final = code(
    327, "price_list_full", "The price list takes no more rows; raise price_rows if it may."
)
NO_SUCH_LEDGER: Final = code(
    328, "no_such_ledger", "Name a ledger by its number: 1 market, 2 metering, 3 settlement."
)
WRITER_NOT_NEW: Final = code(
    329, "writer_not_new", "Make a new key: one that writes or wrote a ledger, or signs, is not it."
)
WRITER_NOT_PROVEN: Final = code(
    331,
    "writer_not_proven",
    "Let the new key sign genesis, ledger and itself: synor network rotate-writer does.",
)

_LETTERS: Final = frozenset("abcdefghijklmnopqrstuvwxyz")
_RESOURCE: Final = _LETTERS | frozenset("0123456789.-")
RESOURCE_CHARACTERS: Final = 64


# Decide


def decide_add_row(
    command: AddPriceRow, catalogue: Catalogue, parameters: Parameters, *, now_us: int
) -> PriceRowAdded | Refused:
    """A row at the end of the price list.

    Rows never change and never go, so a lease keeps the prices that it was opened under (R2.3).
    """
    name = command.resource
    if (
        not 0 < len(name) <= RESOURCE_CHARACTERS
        or name[0] not in _LETTERS
        or not _RESOURCE.issuperset(name)
    ):
        return Refused(NOT_A_RESOURCE, name[:RESOURCE_CHARACTERS])
    if catalogue.row(name) is not None:
        return Refused(PRICED_ALREADY, name)
    for what, value in (("unit", command.unit), ("price_nano", command.price_nano)):
        if not 0 < value <= QUANTITY_MAX:
            return Refused(PRICE_ROW_OUT_OF_RANGE, f"{what} = {value}")
    if command.market and command.price_nano % parameters.price_tick_nano:
        return Refused(PRICE_ROW_OFF_TICK, f"{command.price_nano}, {parameters.price_tick_nano}")
    if len(catalogue.rows) >= parameters.price_rows:
        return Refused(PRICE_LIST_FULL, f"{len(catalogue.rows)} rows")
    return PriceRowAdded(
        at_us=now_us,
        resource=name,
        unit=command.unit,
        price_nano=command.price_nano,
        market=command.market,
    )


def decide_activate(
    command: ActivateRules, in_force: int, *, now_us: int
) -> RulesActivated | Refused:
    """The next version of the rules.

    Whether a program has it is no matter here: that is no fact of the ledger, and an auditor with
    a later release must decide the same. Who lacks the version stops (``rules``).
    """
    if command.version != in_force + 1:
        return Refused(RULES_NOT_NEXT, f"{command.version}, next is {in_force + 1}")
    return RulesActivated(at_us=now_us, version=command.version)


def decide_rotate(
    command: RotateWriter, *, used: bool, proven: Callable[[], bool], now_us: int
) -> WriterAppointed | Refused:
    """Another writer for a ledger; ``used`` where its key has had any part in this network.

    A key never writes again: a reader that starts after a rotation knows the writers from there on
    only, and could take what a former one left behind for a fork.
    """
    if command.ledger not in list(Ledger):
        return Refused(NO_SUCH_LEDGER, str(command.ledger))
    if used:
        return Refused(WRITER_NOT_NEW, command.writer.hex())
    if not proven():
        return Refused(WRITER_NOT_PROVEN, command.writer.hex())
    return WriterAppointed(at_us=now_us, ledger=command.ledger, writer=command.writer)


def decide_change(
    command: ChangeParameter, parameters: Parameters, *, now_us: int
) -> ParameterChanged | Refused:
    """Another value for one parameter, if all of them together keep their bounds (R10)."""
    if command.name not in BOUNDS:
        return Refused(UNKNOWN_PARAMETER, command.name[:64])
    wrong = broken_bounds(changed(parameters, command.name, command.value))
    if wrong:
        return Refused(PARAMETER_OUT_OF_BOUNDS, wrong[0])
    return ParameterChanged(at_us=now_us, name=command.name, value=command.value)


def changed(parameters: Parameters, name: str, value: int) -> Parameters:
    """The parameters with one other value."""
    return replace(parameters, **{name: value})


def priced(event: PriceRowAdded) -> PriceRow:
    """The catalogue row of a device that the genesis did not price (R2.3): compute, by time."""
    return PriceRow(
        resource=event.resource,
        how=How.ALLOCATED,
        unit=event.unit,
        price_nano=event.price_nano,
        revenue=Revenue.COMPUTE,
        market=event.market,
    )


def extended(catalogue: Catalogue, genesis: Genesis, event: PriceRowAdded) -> Catalogue:
    """The catalogue with one more row at its end."""
    return Catalogue((*catalogue.rows, priced(event)), genesis.shares)


# Evolve


def evolve(state: LedgerState | None, event: LedgerEvent) -> LedgerState:
    """What is in force after one more event."""
    now = state or LedgerState()
    match event:
        case LogBound() | WriterAppointed() | WriterRotated():
            return now
        case GenesisRecorded():
            return replace(
                now,
                parameters=event.genesis.parameters,
                rules_version=event.genesis.rules_version,
            )
        case RulesActivated():
            return replace(now, rules_version=event.version)
        case ParameterChanged():
            invariant(now.parameters is not None, "the genesis comes first")
            assert now.parameters is not None
            return replace(now, parameters=changed(now.parameters, event.name, event.value))
        case PriceRowAdded():
            return replace(now, rows_added=(*now.rows_added, priced(event)))
        case _:
            assert_never(event)
