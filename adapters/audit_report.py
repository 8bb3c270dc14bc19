"""What an audit found, and the ``state_hash`` of what it derived."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from domain.canonical import state_hash
from domain.commit import NO_HASH, Ledger
from domain.ledger import LEDGER_ID
from domain.market import Market
from domain.processor import DictStates
from domain.telemetry import INTAKE
from projections.totals import Totals


@dataclass(slots=True)
class LedgerReport:
    """What an audit found of one ledger."""

    ledger: Ledger
    shard: int
    commits: int = 0
    events: int = 0
    inputs: int = 0
    readings: int = 0
    noise: int = 0
    input_bytes: int = 0
    head: bytes = NO_HASH
    root: bytes = b""
    #: How far the ledger's partition is read, and where it ended when the audit began.
    offset: int = 0
    end_offset: int = 0
    #: Records that the witness has read a second time.
    witnessed: int = 0
    #: Runs of telemetry, and their records, that the topic no longer has: their signed batches
    #: were taken from the ledger's bulk, and the runs' digests were not compared with anything.
    kept_runs: int = 0
    kept_inputs: int = 0


@dataclass(slots=True)
class Verdict:
    """A clean audit's findings."""

    state_hash: str
    reports: list[LedgerReport]
    states: dict[tuple[Ledger, int], DictStates]
    market: Market
    totals: Totals


def hash_of_states(market: Market, states: dict[tuple[Ledger, int], DictStates]) -> str:
    """The ``state_hash``: all aggregates of all ledgers, and all balances."""
    entries: list[tuple[bytes, Any]] = []
    for (ledger, _), held in states.items():
        for aggregate, versioned in held.all.items():
            if aggregate not in (LEDGER_ID, INTAKE):
                entries.append((bytes([ledger]) + aggregate, versioned.state))
    for (purse, owner), nano in market.folds.balances.all().items():
        entries.append((b"\x00" + purse.value.encode() + owner, nano))
    return state_hash(entries)
