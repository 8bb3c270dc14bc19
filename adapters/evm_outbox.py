"""The sender's memory: what is to be anchored and every byte ever signed for it, in SQLite.

A row is committed before the step it stands for is taken, so that whatever is on the network is
known here. One process at a time; a second one is refused, since two senders of one key would race
for nonces.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from adapters.evm_keys import Signed
from adapters.evm_rpc import hexed
from domain.ids import Address, Hash32
from domain.l1 import (
    BlockHash,
    CheckpointFork,
    L1Config,
    L1Error,
    L1Position,
    PinMismatch,
    Sending,
    SendState,
    TxHash,
)

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS pins (
    chain_id INTEGER NOT NULL, vault BLOB NOT NULL, address BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS sendings (
    epoch INTEGER PRIMARY KEY, hash BLOB NOT NULL UNIQUE, data BLOB NOT NULL, state TEXT NOT NULL,
    nonce INTEGER, tx_hash BLOB, block_number INTEGER, block_hash BLOB, reason TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS attempts (
    number INTEGER PRIMARY KEY, hash BLOB NOT NULL REFERENCES sendings (hash),
    nonce INTEGER NOT NULL, tx_hash BLOB NOT NULL UNIQUE, raw BLOB NOT NULL,
    max_fee_wei TEXT NOT NULL, tip_wei TEXT NOT NULL,
    sent_at INTEGER
) STRICT;
"""
COLUMNS: Final = "hash, epoch, state, nonce, tx_hash, block_number, block_hash, reason"


class OutboxInUse(L1Error):
    """Another process has the outbox open: a signing key has one sender."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """Signed bytes for a nonce; ``sent_at`` is the number of the head when they were first sent."""

    tx_hash: TxHash
    raw: bytes
    nonce: int
    max_fee_wei: int
    tip_wei: int
    sent_at: int | None


class Outbox:
    """Rows of one sender; each method is one durable transaction. ``path`` None: in memory."""

    def __init__(self, path: Path | None) -> None:
        self._file = sqlite3.connect(":memory:" if path is None else path, timeout=0)
        try:
            self._file.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._file.execute("PRAGMA journal_mode = WAL")
            self._file.execute("PRAGMA synchronous = FULL")
            self._file.executescript(SCHEMA)
            self._file.execute("BEGIN EXCLUSIVE")
            self._file.execute("COMMIT")
        except sqlite3.OperationalError as locked:
            self._file.close()
            raise OutboxInUse(f"The outbox at {path} cannot be opened: {locked}.") from locked

    def close(self) -> None:
        """Release the file."""
        self._file.close()

    def pin(self, config: L1Config, address: Address) -> None:
        """Bind the outbox to one chain, vault and key at first use; refuse another later."""
        wanted = (config.chain_id, bytes(config.vault), bytes(address))
        found = self._file.execute("SELECT chain_id, vault, address FROM pins").fetchone()
        if found is None:
            with self._file:
                self._file.execute("INSERT INTO pins VALUES (?, ?, ?)", wanted)
        elif found != wanted:
            shown = [f"{one[0]}, {hexed(one[1])}, {hexed(one[2])}" for one in (found, wanted)]
            raise PinMismatch("chain, vault and key of the outbox", *shown)

    def add(self, checkpoint: Hash32, epoch: int, data: bytes) -> None:
        """Queue a checkpoint; a repeat changes nothing."""
        with self._file:
            self._file.execute(
                "INSERT INTO sendings (epoch, hash, data, state, reason) VALUES (?, ?, ?, ?, '')"
                " ON CONFLICT (epoch) DO NOTHING",
                (epoch, checkpoint, data, SendState.QUEUED),
            )
        (held,) = self._file.execute(
            "SELECT hash FROM sendings WHERE epoch = ?", (epoch,)
        ).fetchone()
        if held != checkpoint:
            raise CheckpointFork(epoch, checkpoint, held)

    def data(self, checkpoint: Hash32) -> bytes:
        """The call that anchors a queued checkpoint."""
        (data,) = self._file.execute(
            "SELECT data FROM sendings WHERE hash = ?", (checkpoint,)
        ).fetchone()
        return bytes(data)

    def sending(self, checkpoint: Hash32) -> Sending | None:
        """Where a checkpoint stands."""
        return self._one("WHERE hash = ?", checkpoint)

    def first_open(self) -> Sending | None:
        """The lowest epoch that is not final."""
        return self._one("WHERE state <> ? ORDER BY epoch LIMIT 1", SendState.FINAL)

    def waiting(self) -> int:
        """How many checkpoints are not final."""
        (count,) = self._file.execute(
            "SELECT count(*) FROM sendings WHERE state <> ?", (SendState.FINAL,)
        ).fetchone()
        return int(count)

    def last_final(self) -> Sending | None:
        """The highest epoch that is final."""
        return self._one("WHERE state = ? ORDER BY epoch DESC LIMIT 1", SendState.FINAL)

    def last_nonce(self) -> int | None:
        """The highest nonce ever signed."""
        (nonce,) = self._file.execute("SELECT max(nonce) FROM attempts").fetchone()
        return nonce if nonce is None else int(nonce)

    def put(self, sending: Sending) -> None:
        """Keep where a checkpoint stands now."""
        with self._file:
            self._put(sending)

    def sign(self, sending: Sending, signed: Signed, attempt: Attempt) -> Sending:
        """Keep signed bytes and the state SIGNED together, before anything is sent."""
        now = replace(sending, state=SendState.SIGNED, nonce=attempt.nonce, tx_hash=signed.hash)
        with self._file:
            self._file.execute(
                "INSERT INTO attempts (hash, nonce, tx_hash, raw, max_fee_wei, tip_wei)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (
                    sending.hash,
                    attempt.nonce,
                    signed.hash,
                    signed.raw,
                    str(attempt.max_fee_wei),
                    str(attempt.tip_wei),
                ),
            )
            self._put(now)
        return now

    def sent(self, transaction: TxHash, head: int) -> None:
        """Keep at which head bytes were taken by the node."""
        with self._file:
            self._file.execute(
                "UPDATE attempts SET sent_at = ? WHERE tx_hash = ?", (head, transaction)
            )

    def attempts(self, checkpoint: Hash32, nonce: int) -> Sequence[Attempt]:
        """Everything signed for a checkpoint at a nonce, newest first."""
        rows = self._file.execute(
            "SELECT tx_hash, raw, max_fee_wei, tip_wei, sent_at FROM attempts"
            " WHERE hash = ? AND nonce = ? ORDER BY number DESC",
            (checkpoint, nonce),
        )
        return [
            Attempt(
                tx_hash=TxHash(tx_hash),
                raw=raw,
                nonce=nonce,
                max_fee_wei=int(max_fee),
                tip_wei=int(tip),
                sent_at=sent_at,
            )
            for tx_hash, raw, max_fee, tip, sent_at in rows
        ]

    def _put(self, sending: Sending) -> None:
        block = sending.block
        self._file.execute(
            "UPDATE sendings SET state = ?, nonce = ?, tx_hash = ?, block_number = ?,"
            " block_hash = ?, reason = ? WHERE hash = ?",
            (
                sending.state,
                sending.nonce,
                sending.tx_hash,
                None if block is None else block.number,
                None if block is None else block.hash,
                sending.reason,
                sending.hash,
            ),
        )

    def _one(self, where: str, parameter: bytes | str) -> Sending | None:
        row = self._file.execute(f"SELECT {COLUMNS} FROM sendings {where}", (parameter,)).fetchone()
        if row is None:
            return None
        found, epoch, state, nonce, tx_hash, number, block_hash, reason = row
        return Sending(
            hash=Hash32(found),
            epoch=epoch,
            state=SendState(state),
            nonce=nonce,
            tx_hash=None if tx_hash is None else TxHash(tx_hash),
            block=None if number is None else L1Position(number=number, hash=BlockHash(block_hash)),
            reason=reason,
        )
