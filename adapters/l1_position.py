"""How far the vault was read, in a file: so that a watcher that starts again goes on from there.

Disposable. What it says counts only while it can be held against the chain and the log: another
vault, another commands topic, or a log that ends before what was sent to it, and the watcher reads
the chain from its start again; the market refuses what it has seen. It is written after the log has
taken what was observed, so what it passes over stands on the log.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from domain.commit import COMMANDS_TOPIC
from domain.l1 import BlockHash, L1Config, L1Position
from domain.ports import Log

_FORMAT: Final = 1


class WatchedTo:
    """The file of one watcher."""

    def __init__(self, path: Path, log: Log, genesis: bytes, config: L1Config) -> None:
        """``genesis`` and ``config`` name what is watched, for whom."""
        self._path = path
        self._log = log
        self._of = {
            "format": _FORMAT,
            "genesis": genesis.hex(),
            "chain": config.chain_id,
            "vault": config.vault.hex(),
            "start": config.start.hash.hex(),
            "commands": log.topic_id(COMMANDS_TOPIC).hex(),
        }

    def read(self) -> L1Position | None:
        """The position, or None where there is none that counts."""
        try:
            found: Any = json.loads(self._path.read_text())
            told = {name: found[name] for name in self._of}
            sent, number = int(found["sent"]), int(found["block"])
            block = bytes.fromhex(found["hash"])
        except (OSError, ValueError, LookupError, TypeError):
            return None
        if told != self._of or self._log.end(COMMANDS_TOPIC, 0) < sent:
            return None
        return L1Position(number=number, hash=BlockHash(block))

    def write(self, position: L1Position) -> None:
        """Everything up to ``position`` is on the log."""
        draft = self._path.with_name(f".{self._path.name}.new")
        draft.write_text(
            json.dumps(
                {
                    **self._of,
                    "sent": self._log.end(COMMANDS_TOPIC, 0),
                    "block": position.number,
                    "hash": position.hash.hex(),
                }
            )
        )
        draft.replace(self._path)
