"""The market processor: one writer, one order, all the money.

Newcomer's index: ``HANDLERS`` says what can be asked, ``FIRE`` what time does, ``LEARN`` what is
taken from other ledgers, ``EVOLVE`` which aggregate an event belongs to. The rules stand in the
``market_*`` modules; this one only puts them together and answers each number once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

# The rules, by subject: each module gives HANDLERS, FIRE, LEARN and EVOLVE of its own.
from domain import market_epochs, market_leases, market_orders, market_registry, market_stake
from domain.account import OpenAccount
from domain.codec import Codec
from domain.commit import COMMANDS_TOPIC, LEDGER_TOPICS, Ledger
from domain.gate import COMMAND_WINDOW, Answer, Opened, Repeat, Sequences
from domain.genesis import Genesis
from domain.ids import AggregateId, Hash32, derive
from domain.key import CommandAnswered, RowRefused, key_aggregate
from domain.market_folds import Folds, Holder
from domain.ports import LogRecord
from domain.processor import ForeignCommit, Processor, Source, States
from domain.refusal import (
    REVOKED_KEY,
    UNKNOWN_KEY,
    WRONG_KIND,
    Code,
    Refused,
)
from domain.signed import Verifier


@dataclass(frozen=True, slots=True)
class Request:
    """A command whose signer is known and whose number is new."""

    command: Any
    holder: Holder
    key: bytes
    session: int
    number: int

    def id(self, kind: str, row: int = 0) -> bytes:
        """The id of the thing that this command's row makes."""
        return derive(kind, self.key, self.session, self.number, row)


#: A handler decides: it refuses before it emits anything, or emits and names refused rows.
Handler = Callable[["Market", Request], Refused | Sequence[RowRefused]]

_MODULES: Final = (market_registry, market_orders, market_leases, market_stake, market_epochs)

HANDLERS: Final[Mapping[type[Any], Handler]] = {
    kind: handler for module in _MODULES for kind, handler in module.HANDLERS.items()
}
FIRE: Final[Mapping[int, Callable[[Market, int, bytes], None]]] = {
    kind: fire for module in _MODULES for kind, fire in module.FIRE.items()
}
LEARN: Final[Mapping[type[Any], Callable[[Market, ForeignCommit, Any], None]]] = {
    kind: learn for module in _MODULES for kind, learn in module.LEARN.items()
}
EVOLVE: Final[Mapping[type[Any], Callable[[Any, Any], Any]]] = {
    kind: evolve for module in _MODULES for kind, evolve in module.EVOLVE.items()
}


def evolve(state: Any, event: Any) -> Any:
    """The aggregate's next state; an event without an entry in ``EVOLVE`` is a bug."""
    return EVOLVE[type(event)](state, event)


class Market(Processor):
    """Accounts, stake, offers, bids, rounds, leases, slashes, epochs."""

    ledger = Ledger.MARKET

    def __init__(
        self,
        *,
        genesis: Genesis,
        genesis_hash: bytes,
        shards: int,
        states: States,
        folds: Folds,
        codec: Codec,
        verify: Verifier,
    ) -> None:
        """A market before its first event; ``folds`` are empty and belong to it alone."""
        super().__init__(
            genesis=genesis,
            genesis_hash=genesis_hash,
            shard=0,
            shards=shards,
            states=states,
            evolve=evolve,
            codec=codec,
            verify=verify,
        )
        self.folds = folds
        self.sequences = Sequences(COMMAND_WINDOW)
        #: Of the round that is being told in parts, so that it is computed once.
        self.clearing: market_orders.Clearing | None = None
        folds.bind(self)

    def sources(self) -> tuple[Source, ...]:
        """Commands first, then what the metering shards report."""
        return (
            Source(COMMANDS_TOPIC, 0, None),
            *(
                Source(LEDGER_TOPICS[Ledger.METERING], shard, Ledger.METERING)
                for shard in range(self.shards)
            ),
        )

    def key_fault(self, opened: Opened) -> Code | None:
        """A key that nobody registered may only open an account."""
        holder = self.folds.keys.holder(opened.signed.key)
        if holder is None:
            return None if isinstance(opened.payload, OpenAccount) else UNKNOWN_KEY
        return REVOKED_KEY if holder.revoked else None

    def handle(self, opened: Opened, source: Source, record: LogRecord) -> None:
        """Answer a command: once, with an event, in the order of design 3."""
        signed = opened.signed
        handler = HANDLERS.get(type(opened.payload))
        if handler is None:
            self.unit.count(WRONG_KIND.number, record.offset)
            return
        verdict = self.sequences.judge(
            signed.key,
            signed.session,
            signed.number,
            opened.digest,
            self.time_us + self.parameters.session_ahead_us,
        )
        if isinstance(verdict, Repeat):
            return
        if isinstance(verdict, Refused):
            self.unit.count(verdict.code.number, record.offset)
            return
        holder = self.folds.keys.holder(signed.key) or Holder.newcomer(signed.key)
        request = Request(opened.payload, holder, signed.key, signed.session, signed.number)
        before = len(self.unit.events)
        said = handler(self, request)
        self.emit(
            key_aggregate(signed.key),
            CommandAnswered(
                at_us=self.time_us,
                key=signed.key,
                session=signed.session,
                number=signed.number,
                digest=Hash32(opened.digest),
                kind=signed.kind,
                code=said.code.number if isinstance(said, Refused) else 0,
                detail=said.detail if isinstance(said, Refused) else "",
                rows=() if isinstance(said, Refused) else tuple(said),
                events=len(self.unit.events) - before,
            ),
        )

    def learn(self, commit: ForeignCommit, aggregate: bytes, event: Any) -> None:
        """Take notice of an event of a metering shard."""
        taught = LEARN.get(type(event))
        if taught is not None:
            taught(self, commit, event)

    def passed(self, commit: ForeignCommit) -> Iterator[None]:
        """A shard has passed a time: windows may be ripe for assessment."""
        self.folds.shards.consumed(commit)
        yield from market_stake.assess_ripe_windows(self)

    def resume(self, commit: ForeignCommit) -> None:
        """Remember which commit of a shard was consumed last."""
        self.folds.shards.consumed(commit)

    def fire(self, due_us: int, kind: int, id: bytes) -> None:
        """Do what is due."""
        FIRE[kind](self, due_us, id)

    def apply(self, aggregate: AggregateId, event: Any, bulk: bytes | None) -> None:
        """Fold an event into the number windows and every in-process fold."""
        if isinstance(event, CommandAnswered):
            self.sequences.answered(
                event.key,
                event.session,
                event.number,
                Answer(event.digest, event.code, event.detail),
            )
        self.folds.apply(event)
