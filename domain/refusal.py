"""Refusals: values with a stable number, never exceptions.

The number is for ever, its name is the sentence, the text says what to do. ``domain/judging.py``
has the order in which inputs are judged: of several faults the earliest stage answers. 1xx belong
to the gate before the signature (counted, nobody's number is touched), 2xx to the gate after it,
3xx to accounts and keys, 4xx providers and nodes, 5xx offers, bids and rounds, 6xx leases, 7xx
telemetry, 8xx evidence. ``docs/refusals.md`` lists them all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from domain.invariant import invariant
from domain.text import shown

DETAIL_CHARACTERS: Final = 200


@dataclass(frozen=True, slots=True)
class Code:
    """One refusal: its number, its name and what the sender can do."""

    number: int
    name: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Refused:
    """A refusal of one command, batch or row, with the figures that explain it.

    The detail is short, and shows what it repeats of an input as it can be seen.
    """

    code: Code
    detail: str = ""

    def __post_init__(self) -> None:
        # Details repeat what strangers sent, stand in events, and are remembered with numbers.
        object.__setattr__(self, "detail", shown(self.detail, DETAIL_CHARACTERS))

    def __str__(self) -> str:
        said = f"{self.code.number} {self.code.name}"
        return f"{said}: {self.detail}" if self.detail else said


CODES: dict[int, Code] = {}


def code(number: int, name: str, remedy: str) -> Code:
    """Declare a refusal; a number or a name is used once, for ever."""
    invariant(number not in CODES, f"refusal {number} is declared twice")
    invariant(all(c.name != name for c in CODES.values()), f"refusal {name} is declared twice")
    made = Code(number, name, remedy)
    CODES[number] = made
    return made


def named(name: str) -> Code:
    """The code with this name; for tests and tools."""
    return next(c for c in CODES.values() if c.name == name)


# Gate, before and including the signature: counted, never an event. (Rows are counted after it.)
OVERSIZE: Final = code(101, "oversize", "Send at most the input record size of the genesis.")
UNKNOWN_ENVELOPE: Final = code(
    102, "unknown_envelope", "Send a Signed record, bare or in the Confluent frame of its id."
)
MALFORMED: Final = code(103, "malformed", "Encode the record by its published Avro schema.")
TRAILING_BYTES: Final = code(104, "trailing_bytes", "Send the record and nothing after it.")
UNKNOWN_SCHEMA: Final = code(
    105, "unknown_schema", "Use a schema fingerprint of the published lock file."
)
OUT_OF_RANGE: Final = code(106, "out_of_range", "Keep every field within its documented bounds.")
TOO_MANY_ROWS: Final = code(107, "too_many_rows", "Send at most the rows per batch of the genesis.")
ARRAY_TOO_LONG: Final = code(
    108, "array_too_long", "Let an array's count be that of the items that follow it."
)
BAD_SIGNATURE: Final = code(
    110, "bad_signature", "Sign the documented preimage with the key that the record names."
)
# Gate, after the signature.
WRONG_NETWORK: Final = code(201, "wrong_network", "Sign for the genesis hash of this ledger.")
UNKNOWN_KEY: Final = code(202, "unknown_key", "Register the key first.")
REVOKED_KEY: Final = code(203, "revoked_key", "Sign with a key that is in force.")
WRONG_KIND: Final = code(204, "wrong_kind", "Send commands to commands and telemetry to telemetry.")
WRONG_SHARD: Final = code(205, "wrong_shard", "Send the batch to the partition that is named.")
SESSION_TOO_OLD: Final = code(206, "session_too_old", "Open a new session: a later start time.")
SESSION_IN_FUTURE: Final = code(
    207, "session_in_future", "Use a session start time that is not ahead of the ledger's time."
)
SEQUENCE_CONFLICT: Final = code(
    208, "sequence_conflict", "This number was used for other content; use the next number."
)
SEQUENCE_TOO_OLD: Final = code(
    209, "sequence_too_old", "The number is below the window and was never executed; use a new one."
)
KEY_ROLE: Final = code(210, "key_role_not_allowed", "Sign with a key whose role allows this.")
