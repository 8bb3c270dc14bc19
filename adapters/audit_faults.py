"""How a ledger can differ from what its inputs make of it: each class with an exit code of its own.

``docs/audit-divergences.md`` is made from this table and a test keeps it so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from domain.commit import LEDGER_TOPICS, Ledger


@dataclass(frozen=True, slots=True)
class Fault:
    """A class of divergence: its exit code, what it says, and what an auditor does about it."""

    code: int
    meaning: str
    remedy: str


_WRITER: Final = (
    "The holder of the ledger's writer key is answerable: keep the log, and the report."
)
_INPUTS: Final = "Compare the partition with another replica or bundle; the one that differs lies."
_STORE: Final = (
    "Read another replica or bundle of the same network; if that is clean the store is bad."
)

#: Classes of divergence; the exit code 0 is a clean audit.
FAULTS: Final = {
    # The chain of one ledger, by itself.
    "fork": Fault(
        10,
        "A commit signed by the writer stands on another parent than the head, or one is missing.",
        "Both branches are evidence against the writer; no reader goes on.",
    ),
    "truncated": Fault(
        11,
        "A log ends before what another ledger or the L1 has seen of it.",
        "Restore the log from a replica or a bundle; what is gone was acknowledged.",
    ),
    "corrupt": Fault(
        12,
        "A body or bulk does not hash as its signed envelope says, or is not canonical.",
        _STORE,
    ),
    "unknown_version": Fault(
        13,
        "A commit's body has a format that this program does not know.",
        "Audit with a release that knows it.",
    ),
    "genesis": Fault(
        14,
        "The first commit is not this network's genesis, or is bound to another log than this one.",
        "Check the genesis hash; topics that were created again have other ids.",
    ),
    "unknown_rules": Fault(
        15,
        "A commit was made by a version of the rules that this program does not know.",
        "Audit with a release that knows it.",
    ),
    "damaged": Fault(
        16,
        "The store's own checksums do not hold: a bundle's part is not what its manifest says.",
        _STORE,
    ),
    # What a commit says that it has read.
    "run_gap": Fault(
        20,
        "A range of inputs was left out, read twice, or is of no input of this processor.",
        _WRITER,
    ),
    "run_digest": Fault(
        21,
        "The inputs are not those that the commit says it has read: edited, lost or added.",
        _INPUTS,
    ),
    "run_head": Fault(
        22,
        "The commit names another head of a ledger that it has read than that ledger has.",
        _WRITER,
    ),
    "time": Fault(23, "The effective time does not follow from the inputs.", _WRITER),
    "rules_version": Fault(24, "The commit was made by rules that were not in force.", _WRITER),
    "gate_count": Fault(
        25, "Inputs that the gate refused are not counted as the gate counts them.", _WRITER
    ),
    "inputs_deleted": Fault(
        26,
        "Commands or a ledger, which are kept for ever, are gone from the log.",
        "Audit a bundle that has them; deleted telemetry alone is no fault.",
    ),
    "run_events": Fault(
        27, "A run of inputs ends at another event of the commit than it says.", _WRITER
    ),
    # What a commit says that follows.
    "event_missing": Fault(30, "An event that follows from the inputs is not there.", _WRITER),
    "event_surplus": Fault(31, "An event does not follow from the inputs.", _WRITER),
    "event_differs": Fault(
        32, "An event has another field, schema or place than follows from the inputs.", _WRITER
    ),
    "bulk_differs": Fault(
        33, "The bulk is not the signed telemetry of the commit's events, in order.", _WRITER
    ),
    "merkle_root": Fault(34, "The tree's root or size is not that of the events so far.", _WRITER),
    "decoded_differs": Fault(
        35,
        "A second decoder reads other values from the same bytes than this program does.",
        "A bug of this program or of fastavro: report it with the record.",
    ),
    # What all ledgers say together.
    "law_broken": Fault(
        40,
        "A law of the domain does not hold while the inputs are decided again.",
        "A bug of this program, or of the one that wrote: report it with the ledger.",
    ),
    "totals": Fault(
        41,
        "Sums over the events are not the balances, or settlement is not what the market cut.",
        "A bug of this program, or of the one that wrote: report it with the ledger.",
    ),
    # The L1.
    "anchor": Fault(
        50,
        "The vault on the L1 holds another checkpoint, or other sums, than the ledger makes.",
        "Stop claims; ledger, vault and block are the evidence of who is wrong.",
    ),
    "not_a_ledger": Fault(
        60, "The log has no commit of this genesis.", "Check the address and the genesis hash."
    ),
}
EXIT_CODES: Final = {name: fault.code for name, fault in FAULTS.items()}


class Diverged(Exception):
    """The first place where a ledger is not what its inputs make of it."""

    def __init__(
        self, name: str, ledger: Ledger, shard: int, height: int, offset: int, at: str, why: str
    ) -> None:
        """``at`` is the field; ``why`` gives what was found and what was expected."""
        super().__init__(
            f"{name}: {LEDGER_TOPICS[ledger]}[{shard}] height {height} offset {offset}, {at}: {why}"
        )
        self.name = name
        self.ledger = ledger
        self.shard = shard
        self.height = height
        self.offset = offset
        self.at = at
        self.why = why
        self.exit_code = EXIT_CODES[name]
