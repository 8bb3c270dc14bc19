"""A signer with a session: turns commands and batches into signed records on the log."""

from __future__ import annotations

from typing import Any, Protocol

from adapters.ed25519 import Signer, prove, prove_writer, sign_input
from domain.codec import Codec
from domain.commit import COMMANDS_TOPIC, TELEMETRY_TOPIC
from domain.genesis import Role
from domain.ids import Hash32, PublicKey, derive
from domain.ports import Log


class Inputs(Protocol):
    """Where inputs are appended: a log, or what gathers for one."""

    def append(self, topic: str, partition: int, value: bytes) -> int | None:
        """Append one record, now or with the next flush."""
        ...


class Gathered:
    """Appends that wait for ``flush``: then each partition gets its records in one batch."""

    def __init__(self, log: Log) -> None:
        """Gather for ``log``."""
        self._log = log
        self._waiting: dict[tuple[str, int], list[bytes]] = {}

    def append(self, topic: str, partition: int, value: bytes) -> None:
        """Keep a record, after those of its partition."""
        self._waiting.setdefault((topic, partition), []).append(value)

    def flush(self) -> None:
        """Append what waits."""
        waiting, self._waiting = self._waiting, {}
        for (topic, partition), values in waiting.items():
            self._log.append_many(topic, partition, values)


class Actor:
    """One key's current session; numbers rise from 0. Not for two threads at once."""

    def __init__(
        self, *, log: Inputs, codec: Codec, genesis_hash: Hash32, signer: Signer, session_us: int
    ) -> None:
        """``session_us`` is the start time, later than that of this key's last session."""
        self._log = log
        self._codec = codec
        self._genesis_hash = genesis_hash
        self._signer = signer
        self.session_us = session_us
        self.next_number = 0

    @property
    def key(self) -> PublicKey:
        """The public key."""
        return self._signer.public

    def sign(self, payload: Any) -> bytes:
        """The wire bytes (bare Avro) of a payload under the next number."""
        number = self.next_number
        self.next_number += 1
        wire, _ = sign_input(
            self._codec, self._signer, self._genesis_hash, payload, self.session_us, number
        )
        return wire

    def prove(self, account: bytes, role: Role) -> bytes:
        """This key's signature that it is to be of an account, in a role."""
        return prove(self._signer, self._genesis_hash, account, role)

    def prove_writer(self, ledger: int) -> bytes:
        """This key's signature that it is to write a ledger."""
        return prove_writer(self._signer, self._genesis_hash, ledger)

    def command(self, payload: Any) -> int:
        """Append a command; returns the number that it was sent under."""
        number = self.next_number
        self._log.append(COMMANDS_TOPIC, 0, self.sign(payload))
        return number

    def telemetry(self, shard: int, batch: Any) -> int:
        """Append a batch to its shard's partition; returns the number."""
        number = self.next_number
        self._log.append(TELEMETRY_TOPIC, shard, self.sign(batch))
        return number

    def id_of(self, kind: str, number: int, row: int = 0) -> bytes:
        """The id of what a command of this session made."""
        return derive(kind, self.key, self.session_us, number, row)
