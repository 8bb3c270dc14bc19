"""The order in which inputs are judged: a table that the page of refusals and its tests read.

The code that judges is the gate's and the processors'; a test feeds every pair of faults and holds
the table true. Nothing else decides by it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from domain.readings import (
    ABOVE_LIMIT,
    CONTRADICTION,
    GENERATION_RANGE,
    LEASE_INDEX,
    NO_NODE,
    NOT_ACTIVE,
    NOT_METERED,
    OTHER_NODE,
    TOO_EARLY,
    TOO_LATE,
    TOO_MANY_GENERATIONS,
    TOTAL_RANGE,
    UNEQUAL_COLUMNS,
    UNKNOWN_LEASE,
    UNKNOWN_NODE,
)
from domain.refusal import (
    ARRAY_TOO_LONG,
    BAD_SIGNATURE,
    KEY_ROLE,
    MALFORMED,
    OUT_OF_RANGE,
    OVERSIZE,
    REVOKED_KEY,
    SEQUENCE_CONFLICT,
    SEQUENCE_TOO_OLD,
    SESSION_IN_FUTURE,
    SESSION_TOO_OLD,
    TOO_MANY_ROWS,
    TRAILING_BYTES,
    UNKNOWN_ENVELOPE,
    UNKNOWN_KEY,
    UNKNOWN_SCHEMA,
    WRONG_KIND,
    WRONG_NETWORK,
    WRONG_SHARD,
    Code,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What is judged at one point; its codes exclude one another."""

    name: str
    judges: str
    codes: tuple[Code, ...]
    #: Whether the refusal is an event, final for a number that was new; else it is counted.
    answered: bool = False


#: What is judged without any state.
_BYTES: Final = (
    Stage(name="size", judges="the bytes of the record", codes=(OVERSIZE,)),
    Stage(name="framing", judges="the first byte", codes=(UNKNOWN_ENVELOPE,)),
    Stage(name="envelope", judges="the Avro of `Signed`", codes=(MALFORMED,)),
    Stage(name="schema", judges="the fingerprint", codes=(UNKNOWN_SCHEMA,)),
    Stage(name="name", judges="whether `kind` is that schema's name", codes=(MALFORMED,)),
    Stage(
        name="end", judges="whether the record ends where `Signed` does", codes=(TRAILING_BYTES,)
    ),
    Stage(name="payload", judges="the Avro of the payload", codes=(TRAILING_BYTES, MALFORMED)),
    Stage(name="range", judges="signature's length, session, number", codes=(OUT_OF_RANGE,)),
    Stage(name="arrays", judges="counts of the payload's arrays", codes=(ARRAY_TOO_LONG,)),
    Stage(name="signature", judges="Ed25519 over the preimage", codes=(BAD_SIGNATURE,)),
)
_NETWORK: Final = Stage(name="network", judges="the genesis hash", codes=(WRONG_NETWORK,))
#: Then whose it is; what is refused up to here touches nobody's number.
_FRAMES: Final = (
    *_BYTES,
    Stage(
        name="key",
        judges="the key, at the market height that this ledger has consumed",
        codes=(UNKNOWN_KEY, REVOKED_KEY),
    ),
    _NETWORK,
    Stage(name="kind", judges="whether such records belong here", codes=(WRONG_KIND,)),
)
NUMBER: Final = Stage(
    name="number",
    judges="number and session; a repeat gets its first answer",
    codes=(SEQUENCE_CONFLICT, SEQUENCE_TOO_OLD, SESSION_TOO_OLD, SESSION_IN_FUTURE),
)

#: Of a tick, in any topic; it has no number of its own, since a time that was told moves nothing.
TICK: Final = (
    *_BYTES,
    Stage(name="clock", judges="whether the key is a clock's of the genesis", codes=(KEY_ROLE,)),
    _NETWORK,
)
#: Of a command; then the rules of its kind.
COMMAND: Final = (
    *_FRAMES,
    NUMBER,
    Stage(
        name="role",
        judges="what the key may do, then the rules of the command (3xx to 6xx, 8xx)",
        codes=(KEY_ROLE,),
        answered=True,
    ),
)
#: Of a batch of telemetry as a whole.
TELEMETRY: Final = (
    *_FRAMES,
    Stage(
        name="shard",
        judges=(
            "whether each listed node is of this shard; where none is the batch is only counted, "
            "and its number stays free"
        ),
        codes=(WRONG_SHARD,),
        answered=True,
    ),
    NUMBER,
    Stage(name="nodes", judges="whether nodes are listed", codes=(NO_NODE,), answered=True),
    Stage(name="known", judges="each listed node in turn", codes=(UNKNOWN_NODE,), answered=True),
    Stage(name="role", judges="whom the key speaks for", codes=(KEY_ROLE,), answered=True),
    Stage(name="rows", judges="how many there are", codes=(TOO_MANY_ROWS,), answered=True),
    Stage(name="columns", judges="their lengths", codes=(UNEQUAL_COLUMNS,), answered=True),
    Stage(name="leases", judges="indices into the leases", codes=(LEASE_INDEX,), answered=True),
)
#: Of one row of an accepted batch: a bit of the batch's event marks it.
ROWS: Final = (
    UNKNOWN_LEASE,
    OTHER_NODE,
    NOT_METERED,
    NOT_ACTIVE,
    TOO_EARLY,
    TOO_LATE,
    TOTAL_RANGE,
    GENERATION_RANGE,
    CONTRADICTION,
    ABOVE_LIMIT,
    TOO_MANY_GENERATIONS,
)
