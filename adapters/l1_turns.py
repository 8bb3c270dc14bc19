"""The L1's two neighbours of the ledger: the sender of checkpoints and the watcher of the vault.

Both take turns like processors. They hold nothing that is not on the ledger, in the outbox or on
the chain, so either may be killed at any step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from adapters.actor import Actor
from domain.account import ObserveClaim, ObserveDeposit
from domain.checkpoint import CheckpointMade
from domain.codec import Codec
from domain.commit import CommitBody, unpack_event
from domain.epoch import ObserveCheckpoint
from domain.ids import AccountId, Hash32, Wide, derive
from domain.l1 import (
    CheckpointProposed,
    Claimed,
    Deposited,
    L1Event,
    L1Position,
    L1Sender,
    SendState,
    account_of_word,
)
from domain.l1_watcher import Observation, Watcher
from domain.settlement import checkpoint_of


class Settlements(Protocol):
    """The settlement ledger by the reader rule."""

    def catch_up(self) -> Any:
        """Read what the log has."""
        ...

    def commits(self, from_height: int = 0) -> Any:
        """Counting records in order."""
        ...


class SenderTurn:
    """Takes every recorded checkpoint to the L1, in order, exactly once."""

    def __init__(
        self,
        genesis_hash: Hash32,
        codec: Codec,
        settlements: Settlements,
        sender: L1Sender,
        told: Callable[[], None] | None = None,
    ) -> None:
        """Read ``settlements`` from its start: what is in the outbox already changes nothing.

        ``told`` is called after each turn in which something may have moved.
        """
        self._genesis_hash = genesis_hash
        self._codec = codec
        self._settlements = settlements
        self._sender = sender
        self._told = told
        self._made = codec.number(CheckpointMade)
        self._height = 0
        self._last: Hash32 | None = None

    def __call__(self) -> bool:
        """Propose what is new and advance what is open. True if something moved."""
        head = self._settlements.catch_up()
        if head.height >= self._height:
            for counted in self._settlements.commits(self._height):
                body = self._codec.decode(CommitBody, counted.body)
                for recorded in map(unpack_event, body.events):
                    if recorded.schema == self._made:
                        made = self._codec.decode(CheckpointMade, recorded.payload)
                        self._last = self._sender.propose(checkpoint_of(self._genesis_hash, made))
                self._height = counted.envelope.height + 1
        if self._last is None:
            return False
        changed = self._sender.advance()
        last = self._sender.sending(self._last)
        if last is not None and last.state is SendState.FINAL:
            # Checkpoints are anchored in order: with the last one all are.
            self._last = None
        if self._told is not None:
            self._told()
        return bool(changed)


class KeptPosition(Protocol):
    """Where a watcher's position outlives it; ``WatchedTo`` is the one."""

    def read(self) -> L1Position | None:
        """The position, or None to begin at the start."""
        ...

    def write(self, position: L1Position) -> None:
        """Everything up to ``position`` is on the log."""
        ...


class WatcherTurn:
    """Signs what is final in the vault into the commands partition, in order."""

    def __init__(
        self,
        watcher: Watcher,
        actor: Actor,
        *,
        head: Callable[[], int] | None = None,
        kept: KeptPosition | None = None,
        told: Callable[[Observation], None] | None = None,
    ) -> None:
        """``head`` tells cheaply whether the chain moved; without it every turn asks the chain.

        Without ``kept`` everything is observed again after a restart, and the market refuses what
        it has seen. ``told`` hears of each observation once it is on the log.
        """
        self._watcher = watcher
        self._actor = actor
        self._head = head
        self._kept = kept
        self._told = told
        self._seen = -1
        self._position: L1Position | None = None if kept is None else kept.read()

    def __call__(self) -> bool:
        """Observe on from the last position. True if a command was sent."""
        if self._head is not None:
            now = self._head()
            if now == self._seen:
                return False
            self._seen = now
        sent = False
        while True:
            seen = self._watcher.observe(self._position)
            for event in seen.events:
                self._actor.command(observation(event))
                sent = True
            if self._kept is not None and seen.position != self._position:
                self._kept.write(seen.position)
            self._position = seen.position
            if self._told is not None:
                self._told(seen)
            if seen.reached:
                return sent


def observation(event: L1Event) -> Any:
    """The command that tells the market of an event of the vault."""
    place = event.place
    where: dict[str, Any] = {
        "block": place.block_number,
        "block_hash": Hash32(place.block_hash),
        "transaction": Hash32(place.tx_hash),
        "log_index": place.log_index,
    }
    match event:
        case Deposited():
            # Anyone may deposit for a word that names no account: it is credited to an account
            # that nobody can open, so that what the vault holds and what the ledger says agree.
            account = account_of_word(event.account)
            return ObserveDeposit(
                account=account or AccountId(derive("foreign", event.account)),
                amount_nano=Wide(event.amount_nano),
                **where,
            )
        case CheckpointProposed():
            return ObserveCheckpoint(epoch=event.checkpoint.epoch, checkpoint=event.hash, **where)
        case Claimed():
            account = account_of_word(event.account)
            return ObserveClaim(
                account=account or AccountId(derive("foreign", event.account)),
                amount_nano=Wide(event.amount_nano),
                cumulative_nano=Wide(event.cumulative_nano),
                **where,
            )
