"""The plain fold: the same log, read whole, folded in memory without cuts, caches or SQL."""

from __future__ import annotations

from typing import Any, Protocol

from sqlalchemy import Connection, Table, select

from domain.commit import LEDGER_TOPICS, CommitBody, Ledger, body_of, parse, unpack_event
from domain.ports import Log
from domain.telemetry import TelemetryAccepted
from projections.columns import METADATA
from projections.fold import fold
from projections.fold_rows import At, Key, Row, Rows, primary
from projections.tables import CONSUMED, META, POSITION
from tests.projections.ledgers import codec

#: What is no fold of events.
OWN = (META, POSITION, CONSUMED)
FOLDED = [table for table in METADATA.sorted_tables if table not in OWN]


class Followed(Protocol):
    """A log with the ledgers of a network."""

    @property
    def shards(self) -> int:
        """P."""
        ...

    def open_log(self) -> Log:
        """The log they are on."""
        ...


def events_of(network: Followed, ledger: Ledger, shard: int) -> list[tuple[At, Any, Any]]:
    """Every event of a ledger whose records beyond its head all count."""
    found = []
    height = -1
    log = network.open_log()
    topic = LEDGER_TOPICS[ledger]
    for record in log.read(topic, shard, 0, max_bytes=1 << 30).records:
        envelope = parse(record.value)
        if envelope is None or envelope.height <= height:
            continue
        height = envelope.height
        body = codec().decode(CommitBody, body_of(record.value, envelope))
        first = body.tree_size - len(body.events) + 1
        for position, data in enumerate(body.events, first):
            recorded = unpack_event(data)
            kind: Any = codec().kind(recorded.schema)
            if kind is not TelemetryAccepted:
                at = At(ledger, shard, envelope.height, position, kind.NAME)
                found.append((at, recorded, codec().decode(kind, recorded.payload)))
    return found


def ledgers(network: Followed) -> list[tuple[Ledger, int]]:
    """Every ledger, the market last, so that no fold can rely on another ledger's rows."""
    metering = [(Ledger.METERING, shard) for shard in range(network.shards)]
    return [(Ledger.SETTLEMENT, 0), *metering, (Ledger.MARKET, 0)]


def plain_fold(network: Followed) -> dict[Table, dict[Key, Row]]:
    """What the read models should hold."""
    rows = Rows()
    for ledger, shard in ledgers(network):
        for at, recorded, said in events_of(network, ledger, shard):
            fold(rows, at, recorded, said)
    return {table: rows.contents(table) for table in FOLDED}


def contents(connection: Connection) -> dict[Table, dict[Key, Row]]:
    """What the read models hold."""
    found: dict[Table, dict[Key, Row]] = {}
    for table in FOLDED:
        names = primary(table)
        found[table] = {
            tuple(row[name] for name in names): dict(row)
            for row in connection.execute(select(table)).mappings()
        }
    return found


def assert_equal(network: Followed, connection: Connection) -> None:
    """Name the table that differs, not ten thousand rows."""
    expected, found = plain_fold(network), contents(connection)
    for table in FOLDED:
        assert found[table].keys() == expected[table].keys(), table.name
        for key, row in expected[table].items():
            assert found[table][key] == row, (table.name, key)
