"""The reader rule: which records of a ledger's partition count (design 2).

Everybody who reads a ledger, its own writer included, reads it through ``ChainReader``. The first
record at a height wins for every reader, for ever.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from domain.commit import (
    BODY_VERSION,
    ENVELOPE_BYTES,
    LEDGER_TOPICS,
    NO_HASH,
    BulkPart,
    Envelope,
    Ledger,
    body_of,
    bulk_hash,
    bulk_of,
    parse,
    split_bulk,
)
from domain.ids import PublicKey
from domain.ports import LogRecord
from domain.signed import Verifier

NOISE_HEIGHTS: Final = 64
#: Why a record of the writer on the head does not count: its body was changed on the log.
BODY_CHANGED: Final = "body does not hash right"


class LedgerStopped(Exception):
    """A named reason for which no reader may go on. ``name`` is the name of the fault."""

    def __init__(
        self,
        name: str,
        ledger: Ledger,
        shard: int,
        offset: int,
        why: str,
        *,
        height: int | None = None,
    ) -> None:
        """Say what, where and why; ``height`` where the fault has one."""
        at = "" if height is None else f"height {height} "
        super().__init__(f"{name}: {LEDGER_TOPICS[ledger]}[{shard}] {at}offset {offset}: {why}")
        self.name = name
        self.ledger = ledger
        self.shard = shard
        self.offset = offset
        self.height = height
        self.why = why


@dataclass(frozen=True, slots=True)
class Counted:
    """A record that counts: a commit of the ledger."""

    offset: int
    time_us: int
    envelope: Envelope
    hash: bytes
    body: bytes
    value: bytes

    def bulk(self) -> bytes:
        """The bulk's bytes, which the reader rule does not look at."""
        return bulk_of(self.value, self.envelope)

    def parts(self) -> tuple[BulkPart, ...] | None:
        """The bulk's parts; None where they do not hash right, and the ledger is ``corrupt``."""
        start = ENVELOPE_BYTES + self.envelope.body_length
        parts = split_bulk(self.value, start)
        if parts is None or bulk_hash(part.digest for part in parts) != self.envelope.bulk_hash:
            return None
        return parts


@dataclass(frozen=True, slots=True)
class Noise:
    """A record that does not count, and why."""

    offset: int
    why: str


class ChainReader:
    """Judges the records of one ledger partition in offset order."""

    def __init__(
        self, *, genesis: bytes, ledger: Ledger, shard: int, writer: PublicKey, verify: Verifier
    ) -> None:
        """Start before height 0; ``writer`` is the genesis' writer key of this ledger."""
        self._genesis = genesis
        self.ledger = ledger
        self.shard = shard
        self._verify = verify
        self.writer = writer
        self.height = -1
        self.hash = NO_HASH
        self.noise_count = 0
        self._noise: dict[bytes, int] = {}

    def resume(self, height: int, head: bytes, noise: dict[bytes, int]) -> None:
        """Go on after a commit that an index or a snapshot knows, with the noise near it."""
        self.height, self.hash, self._noise = height, head, dict(noise)

    def noise(self) -> dict[bytes, int]:
        """Hashes of noise at or above head − 64, with their heights; an index keeps them."""
        return dict(self._noise)

    def judge(self, record: LogRecord) -> Counted | Noise:
        """Whether the record counts. Raises ``LedgerStopped`` for a fork or an unknown version."""
        envelope = parse(record.value)
        if envelope is None:
            return self._ignore(record, "not a commit")
        if (
            envelope.genesis != self._genesis
            or envelope.ledger is not self.ledger
            or envelope.shard != self.shard
        ):
            return self._ignore(record, "of another ledger")
        if envelope.height <= self.height:
            return self._ignore(record, "height already decided", envelope)
        if envelope.previous in self._noise:
            return self._ignore(record, "built on noise", envelope)
        if envelope.writer != self.writer:
            return self._ignore(record, "not by a writer")
        if not self._verify(envelope.writer, envelope.unsigned(), envelope.signature):
            return self._ignore(record, "bad signature")
        if envelope.height != self.height + 1 or envelope.previous != self.hash:
            raise LedgerStopped(
                "fork",
                self.ledger,
                self.shard,
                record.offset,
                f"a signed commit does not stand on the head, which has height {self.height}",
                height=envelope.height,
            )
        body = body_of(record.value, envelope)
        if hashlib.sha256(body).digest() != envelope.body_hash:
            return self._ignore(record, BODY_CHANGED, envelope)
        if envelope.version != BODY_VERSION:
            raise LedgerStopped(
                "unknown_version",
                self.ledger,
                self.shard,
                record.offset,
                f"body version {envelope.version}; this program knows {BODY_VERSION}",
                height=envelope.height,
            )
        self.height = envelope.height
        self.hash = envelope.hash()
        if self._noise:
            low = self.height - NOISE_HEIGHTS
            self._noise = {h: at for h, at in self._noise.items() if at >= low}
        return Counted(record.offset, record.time_us, envelope, self.hash, body, record.value)

    def _ignore(self, record: LogRecord, why: str, envelope: Envelope | None = None) -> Noise:
        self.noise_count += 1
        if (
            envelope is not None
            and envelope.height >= self.height - NOISE_HEIGHTS
            and envelope.writer == self.writer
            and envelope.hash() != self.hash
            and self._verify(envelope.writer, envelope.unsigned(), envelope.signature)
        ):
            # Only a writer's own records are remembered: forged noise must not grow memory. A copy
            # of the head is noise too, but what stands on the head is not.
            self._noise[envelope.hash()] = envelope.height
        return Noise(record.offset, why)
