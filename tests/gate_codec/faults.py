"""Every fault of an input that the gate knows, in the order in which it judges them.

Faults of one stage exclude one another; of two stages the earlier one is answered.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import Any, Final

from domain.account import SetPayee
from domain.bid import PlaceBids
from domain.ids import Address
from domain.ledger import ChangeParameter
from domain.node import AttestNodes
from domain.readings import LEASE_INDEX, NO_NODE, UNEQUAL_COLUMNS, UNKNOWN_NODE
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
from tests.gate_codec.gates import (
    ELSEWHERE,
    FOREIGN,
    FORGOTTEN,
    HIGHEST,
    LEASE,
    NOBODYS,
    NODE,
    NOW,
    REVOKED,
    STRANGER,
    Fault,
    Recipe,
    codec,
    network,
)
from tests.support.metering import EGRESS, batch

BOMB: Final = b"\xfe\xff\xff\xff\x0f"  # an array that says it has 2^31 - 1 items
FLOAT: Final = struct.pack("<d", 1 + 2**-45)  # no long in its shortest form begins with 80 00


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One fault: its stage, its name, the code of the refusal, and how an input gets it."""

    stage: str
    name: str
    code: Code
    fault: Fault


def _edit(change: Any) -> Fault:
    return lambda recipe: recipe.edits.append(change)


def _set(**fields: Any) -> Fault:
    def fault(recipe: Recipe) -> None:
        for name, value in fields.items():
            setattr(recipe, name, value)

    return fault


def _instead(payload: Any, raw: bytes) -> Fault:
    """Bytes that are no record of the payload's schema."""
    return _set(payload=payload, kind=None, schema=None, raw=raw)


def _longer(recipe: Recipe) -> None:
    recipe.raw = codec().encode(recipe.payload) + b"\x00"


def _oversize(value: bytes) -> bytes:
    return value.ljust(network().genesis.parameters.input_bytes + 1, b"\x00")


def _flipped(signature: bytes) -> bytes:
    return bytes([signature[0] ^ 1]) + signature[1:]


def _rows(stage: str, *rows: tuple[str, Code, Fault]) -> list[Row]:
    return [Row(stage=stage, name=name, code=code, fault=fault) for name, code, fault in rows]


_FRAMES: Final = [
    *_rows("size", ("oversize", OVERSIZE, _edit(_oversize))),
    *_rows(
        "framing",
        ("frame of another schema", UNKNOWN_ENVELOPE, _edit(b"\x00\x00\x00\x00\x01".__add__)),
    ),
    *_rows("envelope", ("envelope cut short", MALFORMED, _edit(lambda value: value[:-9]))),
    *_rows("schema", ("unknown schema", UNKNOWN_SCHEMA, _set(schema=bytes(32)))),
    *_rows("name", ("name of another schema", MALFORMED, _set(kind="synor.command.v1.Nothing"))),
    *_rows("end", ("bytes after the envelope", TRAILING_BYTES, _edit(lambda v: v + b"\x00"))),
]
_RANGES: Final = _rows(
    "range",
    ("signature of 63 bytes", OUT_OF_RANGE, _set(signature=lambda s: s[:63])),
    ("session below zero", OUT_OF_RANGE, _set(session=-1)),
    ("number below zero", OUT_OF_RANGE, _set(number=-1)),
)
_SIGNED: Final = [
    *_rows("signature", ("bad signature", BAD_SIGNATURE, _set(signature=_flipped))),
    *_rows(
        "key",
        ("unknown key", UNKNOWN_KEY, _set(signer=STRANGER)),
        ("revoked key", REVOKED_KEY, _set(signer=REVOKED)),
    ),
    *_rows("network", ("wrong network", WRONG_NETWORK, _set(genesis=b"\x09" * 32))),
]
_NUMBERS: Final = _rows(
    "number",
    ("number of other content", SEQUENCE_CONFLICT, _set(number=HIGHEST)),
    ("number below the window", SEQUENCE_TOO_OLD, _set(number=7)),
    ("session too old", SESSION_TOO_OLD, _set(session=FORGOTTEN)),
    ("session ahead", SESSION_IN_FUTURE, _set(session=NOW + 10**12)),
)

COMMANDS: Final = (
    *_FRAMES,
    *_rows(
        "payload",
        ("bytes after the payload", TRAILING_BYTES, _longer),
        (
            "float in a long",
            MALFORMED,
            _instead(ChangeParameter(name="x", value=1), b"\x02x" + FLOAT),
        ),
    ),
    *_RANGES,
    *_rows("arrays", ("null-array bomb", ARRAY_TOO_LONG, _instead(PlaceBids(bids=()), BOMB))),
    *_SIGNED,
    *_rows("kind", ("telemetry among commands", WRONG_KIND, _set(payload=batch([NODE])))),
    *_NUMBERS,
    *_rows("role", ("owner attests", KEY_ROLE, _set(payload=AttestNodes(attestations=())))),
)


def _batch(**fields: Any) -> Fault:
    """Columns or lists of a batch; a command in its place has none."""

    def fault(recipe: Recipe) -> None:
        recipe.payload = replace(recipe.payload, **fields)

    return fault


def _listed(node: Any) -> Fault:
    def fault(recipe: Recipe) -> None:
        recipe.payload = replace(recipe.payload, nodes=(node, *recipe.payload.nodes))

    return fault


def _unequal(recipe: Recipe) -> None:
    recipe.payload = replace(recipe.payload, total=(*recipe.payload.total, 1))


def _many(recipe: Recipe) -> None:
    recipe.payload = replace(
        recipe.payload, leases=(LEASE,) * (network().genesis.parameters.batch_rows + 1)
    )


_ROW: Final = batch([NODE], [(LEASE, EGRESS, 0, NOW, 1)])
_ONE_ROW: Final = b"\x02" + NODE + b"\x00\x02" + LEASE + b"\x00" + b"\x02\x00\x00" * 3

TELEMETRY: Final = (
    *_FRAMES,
    *_rows(
        "payload",
        ("bytes after the payload", TRAILING_BYTES, _longer),
        ("float in a long", MALFORMED, _instead(_ROW, _ONE_ROW + b"\x02" + FLOAT + b"\x00\x00")),
    ),
    *_RANGES,
    *_rows("arrays", ("null-array bomb", ARRAY_TOO_LONG, _instead(_ROW, BOMB))),
    *_SIGNED,
    *_rows(
        "kind",
        ("command among telemetry", WRONG_KIND, _set(payload=SetPayee(payee=Address(bytes(20))))),
    ),
    *_rows("shard", ("wrong shard", WRONG_SHARD, _batch(nodes=(NODE, ELSEWHERE)))),
    *_NUMBERS,
    *_rows("nodes", ("no node", NO_NODE, _batch(nodes=()))),
    *_rows("known", ("node of nobody", UNKNOWN_NODE, _listed(NOBODYS))),
    *_rows("role", ("node of another provider", KEY_ROLE, _listed(FOREIGN))),
    *_rows("rows", ("too many rows", TOO_MANY_ROWS, _many)),
    *_rows("columns", ("columns unequal", UNEQUAL_COLUMNS, _unequal)),
    *_rows(
        "leases",
        (
            "lease index beyond",
            LEASE_INDEX,
            _batch(lease=(7,), resource=(0,), generation=(0,), time_us=(NOW,), total=(0,)),
        ),
    ),
)
