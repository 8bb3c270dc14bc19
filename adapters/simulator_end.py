"""What must hold when a simulation has come to rest: everything is decided again and compared."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from adapters.audit import Diverged, hash_of_states
from adapters.bootstrap import Network, audit
from adapters.memory_log import MemoryLog
from adapters.simulator_cast import LEDGER_READER
from adapters.simulator_history import Answer, History
from adapters.simulator_laws import Laws, Seat, Violation
from adapters.simulator_parts import Tables
from domain.chain import Counted
from domain.commit import LEDGER_TOPICS, CommitBody, Ledger, unpack_event
from domain.market import Market
from domain.processor import DictStates
from domain.telemetry import TelemetryAccepted
from projections.columns import METADATA
from projections.fold import fold
from projections.fold_rows import At, Rows
from projections.held_tables import FOLDING, HELD_KEY
from projections.tables import ANSWER, BALANCE, CONSUMED, META, POSITION

_WHOLE: Final = 1 << 40
_FOLDED: Final = [t for t in METADATA.sorted_tables if t not in (META, POSITION, CONSUMED)]
ROWS_READER: Final = LEDGER_READER + 1


def audited(network: Network, log: MemoryLog) -> str:
    """The audit's state hash. Raises ``Violation`` with the first divergence."""
    try:
        return audit(network, log).state_hash
    except Diverged as diverged:
        raise Violation("the audit is clean", str(diverged)) from diverged


def _commits(log: MemoryLog, seat: Seat, laws: Laws) -> Iterator[tuple[Counted, CommitBody]]:
    """The counting records of a ledger with what they say, read once more from its start."""
    chain = laws.new_chain(seat)
    for record in log.read(LEDGER_TOPICS[seat[0]], seat[1], 0, max_bytes=_WHOLE).records:
        found = chain.judge(record)
        if isinstance(found, Counted):
            yield found, laws.body_of(chain, found)


def folded(network: Network, log: MemoryLog, laws: Laws) -> tuple[str, Rows]:
    """The state hash and the rows that a plain fold of the ledgers comes to."""
    states: dict[Seat, DictStates] = {}
    rows = Rows()
    market: Market | None = None
    for seat in network.ledgers():
        states[seat] = DictStates()
        processor = network.processor(*seat, states[seat])
        for counted, body in _commits(log, seat, laws):
            processor.adopt(body, counted.parts() or (), states[seat].keep)
            _fold_rows(network, rows, seat, counted.envelope.height, body)
        if isinstance(processor, Market):
            market = processor
    assert market is not None, "a network has a market"
    return hash_of_states(market, states), rows


def _fold_rows(network: Network, rows: Rows, seat: Seat, height: int, body: CommitBody) -> None:
    first = body.tree_size - len(body.events) + 1
    for position, data in enumerate(body.events, first):
        recorded = unpack_event(data)
        kind: Any = network.codec.kind(recorded.schema)
        if kind is not TelemetryAccepted:
            said = network.codec.decode(kind, recorded.payload)
            fold(rows, At(*seat, height, position, kind.NAME), recorded, said)


def check_rows(tables: Tables, expected: Rows, laws: Laws, history: History) -> None:
    """The read model is a plain fold of the ledgers, and its balances are the laws' own."""
    for kept in tables.contents(HELD_KEY).values():
        why = f"{kept['event']} of {kept['aggregate'].hex()}: {kept['why']}"
        raise Violation("rows can take every event", why)
    for folding in tables.contents(FOLDING).values():
        if folding["money_position"] is not None:
            raise Violation("rows can take every event", str(folding["money_why"]))
    for table in _FOLDED:
        found, wanted = tables.contents(table), expected.contents(table)
        if found != wanted:
            keys = [key for key in {**wanted, **found} if found.get(key) != wanted.get(key)]
            why = (
                f"{len(keys)} rows of {table.name} differ; {keys[0]!r} is "
                f"{found.get(keys[0])!r}, not {wanted.get(keys[0])!r}"
            )
            raise Violation("a projection is the fold of its ledger", why)
    held = {
        place: row["amount_nano"]
        for place, row in tables.contents(BALANCE).items()
        if row["amount_nano"]
    }
    own = {(p.value, bytes(owner)): nano for (p, owner), nano in laws.balances.items() if nano}
    if held != own:
        place = min(place for place in {**held, **own} if held.get(place) != own.get(place))
        why = f"{place[0]} {place[1].hex()}: {held.get(place)} by rows, {own.get(place)}"
        raise Violation("balances agree by both ways", why)
    for row in tables.contents(ANSWER).values():
        if row["ledger"] == Ledger.MARKET:
            history.add(
                Answer(
                    process=ROWS_READER,
                    number=(bytes(row["key"]), row["session"], row["number"]),
                    digest=bytes(row["digest"]),
                    code=row["code"],
                )
            )


def check_same_state(what: str, one: str, other: str) -> None:
    """Two ways to the state come to the same. Raises ``Violation``."""
    if one != other:
        raise Violation("the same inputs give the same state", f"{what}: {one}, not {other}")
