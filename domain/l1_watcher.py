"""Reads the vault's events once each, in order, and only from final blocks.

A step is a function of the chain and a position; the caller keeps the position where it keeps the
events, so that the two cannot disagree (the ledger records both in one commit).
"""

from __future__ import annotations

from dataclasses import dataclass

from domain.l1 import ChainBehind, L1Chain, L1Event, L1Position, ReorgBelowFinality


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """Events after the asked position, in order, and the position to ask from next.

    ``reached`` is false when the step ended at its bound before the newest final block.
    """

    events: tuple[L1Event, ...]
    position: L1Position
    reached: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Watcher:
    """Walks from block to block along parent hashes, never by number alone.

    ``blocks_per_step`` bounds the work of one call (two questions to the endpoint per block).
    """

    chain: L1Chain
    blocks_per_step: int = 256

    def observe(self, after: L1Position | None) -> Observation:
        """Read on after a position (None: the pinned start).

        A chain that moves above finality is waited for. Raises ``ReorgBelowFinality`` when the
        block at the position is no longer canonical, ``ChainBehind`` when the chain ends before it.
        """
        position = self.chain.config.start if after is None else after
        self._still_there(position)
        final = self.chain.final()
        events: list[L1Event] = []
        if final is None:
            return Observation(events=(), position=position, reached=True)
        last = min(final.number, position.number + self.blocks_per_step)
        while position.number < last:
            block = self.chain.block(position.number + 1)
            if block is None:
                break
            if block.parent != position.hash:
                # Between two questions the chain moved: judge what is left of it, then wait.
                self._still_there(position)
                break
            events.extend(self.chain.events(block.hash))
            position = block.position
        return Observation(
            events=tuple(events), position=position, reached=position.number >= final.number
        )

    def _still_there(self, position: L1Position) -> None:
        block = self.chain.block(position.number)
        if block is None:
            raise ChainBehind(f"The chain ends before block {position.number}, read before.")
        if block.hash != position.hash:
            raise ReorgBelowFinality(position.number, position.hash, block.hash)
