"""The keys with which a process may write a ledger, and which of them does now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from domain.commit import LEDGER_TOPICS, Ledger
from domain.ids import PublicKey


class Signer(Protocol):
    """A writer's key."""

    @property
    def public(self) -> PublicKey:
        """The Ed25519 public key that stands in the envelope."""
        ...

    def sign(self, message: bytes) -> bytes:
        """The signature, 64 bytes."""
        ...


class NotTheWriter(Exception):
    """No key at hand is the one that writes this ledger."""


class WritingKeys:
    """A writer's key and those that may follow it by a rotation."""

    def __init__(
        self, ledger: Ledger, shard: int, first: Signer | None, successors: Sequence[Signer]
    ) -> None:
        """``first`` is None for who only reads."""
        self._ledger = ledger
        self._shard = shard
        self._keys = {each.public: each for each in (first, *successors) if each is not None}

    def of(self, writer: PublicKey, height: int) -> Signer:
        """The key of the ledger's ``writer`` at ``height``. Raises ``NotTheWriter``."""
        found = self._keys.get(writer)
        if found is None:
            held = ", ".join(key.hex() for key in self._keys) or "none"
            raise NotTheWriter(
                f"From height {height} on the writer of {LEDGER_TOPICS[self._ledger]}"
                f"[{self._shard}] is the key {writer.hex()}, and this process has {held}. Name the "
                f"file of that key under {self._ledger.name.lower()} in the [keys] of the "
                "settings, and start again"
            )
        return found
