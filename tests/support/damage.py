"""Commits that their writer signs, with a part that is not what was signed for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from adapters.ed25519 import Signer
from domain.commit import ENVELOPE_BYTES, body_of, pack_bulk, parse, part_of, seal
from tests.audit.forge import flipped


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """Which byte after the envelope is another, from the end; or a body that is none."""

    from_end: int = 0
    body: bytes = b""
    says: str


_BULK: Final = part_of(b"telemetry as it was signed")

#: A bulk and a body that do not hash right, and a body that does and cannot be read.
CORRUPT: Final = (
    Damage(from_end=1, says="the bulk does not hash as the envelope says"),
    Damage(from_end=len(pack_bulk([_BULK])) + 1, says="body does not hash right"),
    Damage(body=b"no body of a commit", says=""),
)


def corrupt(head: bytes, signer: Signer, damage: Damage) -> bytes:
    """The record at the height after ``head``, signed by its writer, damaged on its way."""
    envelope = parse(head)
    assert envelope is not None
    body = damage.body or bytes(body_of(head, envelope))
    unsigned = seal(
        genesis=envelope.genesis,
        ledger=envelope.ledger,
        shard=envelope.shard,
        height=envelope.height + 1,
        previous=envelope.hash(),
        writer=signer.public,
        body=body,
        bulk=[_BULK],
    ).unsigned()
    value = unsigned + signer.sign(unsigned) + body + pack_bulk([_BULK])
    assert len(value) > ENVELOPE_BYTES + damage.from_end
    return flipped(value, len(value) - damage.from_end) if damage.from_end else value
