"""The settlement processor: one checkpoint per epoch cut, and the payout tree it authorises (R9).

It reads the market ledger alone: a cut carries the shards' positions and the root over balances.
Who takes checkpoints to the L1 is the sender's business; that one is anchored comes back through
the market, as an observation of the watcher.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, assert_never

from domain import l1, payout_tree
from domain.checkpoint import (
    CHECKPOINTS,
    CheckpointAnchored,
    CheckpointEvent,
    CheckpointMade,
    PayoutLeaf,
    PayoutsAdded,
    ShardRoot,
)
from domain.codec import Codec
from domain.commit import LEDGER_TOPICS, Ledger
from domain.epoch import EpochAnchored, EpochCut, Payable, PayablesAdded
from domain.genesis import Genesis
from domain.ids import AggregateId, Hash32, Wide
from domain.invariant import invariant
from domain.ledger import (
    LEDGER_ID,
    GenesisRecorded,
    LogBound,
    RulesActivated,
    WriterAppointed,
    WriterRotated,
)
from domain.merkle import leaf_hash, root_of
from domain.ports import LogRecord
from domain.processor import ForeignCommit, Processor, Source, States
from domain.signed import Verifier

NOTHING: Final = Hash32(bytes(32))


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoints:
    """The chain of checkpoints so far."""

    epoch: int
    last: Hash32
    authorised_nano: int
    anchored: int


def evolve(state: Checkpoints | None, event: CheckpointEvent) -> Checkpoints:
    """The chain after one more event."""
    before = state or Checkpoints(epoch=0, last=NOTHING, authorised_nano=0, anchored=0)
    match event:
        case CheckpointMade():
            return Checkpoints(
                epoch=event.epoch,
                last=event.checkpoint,
                authorised_nano=event.authorised_nano,
                anchored=before.anchored,
            )
        case PayoutsAdded():
            return before
        case CheckpointAnchored():
            return Checkpoints(
                epoch=before.epoch,
                last=before.last,
                authorised_nano=before.authorised_nano,
                anchored=event.epoch,
            )
        case _:
            assert_never(event)


def _nothing_held(state: Any, event: Any) -> Any:
    return event


#: Which aggregate takes an event in.
EVOLVE: Final[Mapping[type[Any], Callable[[Any, Any], Any]]] = {
    PayoutsAdded: evolve,
    CheckpointMade: evolve,
    CheckpointAnchored: evolve,
    LogBound: _nothing_held,
    GenesisRecorded: _nothing_held,
    RulesActivated: _nothing_held,
    WriterRotated: _nothing_held,
}


def dispatch(state: Any, event: Any) -> Any:
    """The aggregate's next state."""
    return EVOLVE[type(event)](state, event)


def encoded_root(root: ShardRoot) -> bytes:
    """A ledger's position as the leaf of the ledgers' root: fixed widths, big-endian."""
    return b"".join(
        (
            root.ledger.to_bytes(1, "big"),
            root.shard.to_bytes(2, "big"),
            root.height.to_bytes(8, "big", signed=True),
            root.hash,
            root.root,
            root.size.to_bytes(8, "big"),
        )
    )


def totals_hash(deposited_nano: int, authorised_nano: int, paid_nano: int) -> Hash32:
    """SHA-256 over the epoch's totals, 16 bytes each."""
    return Hash32(
        hashlib.sha256(
            b"".join(n.to_bytes(16, "big") for n in (deposited_nano, authorised_nano, paid_nano))
        ).digest()
    )


class Settlement(Processor):
    """Turns epoch cuts into checkpoints."""

    ledger = Ledger.SETTLEMENT

    def __init__(
        self,
        *,
        genesis: Genesis,
        genesis_hash: bytes,
        shards: int,
        states: States,
        codec: Codec,
        verify: Verifier,
        keccak: l1.Keccak,
    ) -> None:
        """A settlement before its first epoch; ``keccak`` is the L1's hash function."""
        super().__init__(
            genesis=genesis,
            genesis_hash=genesis_hash,
            shard=0,
            shards=shards,
            states=states,
            evolve=dispatch,
            codec=codec,
            verify=verify,
        )
        self._keccak = keccak
        self._domain = payout_tree.PayoutDomain(chain_id=genesis.chain_id, vault=genesis.vault)
        self._leaves: dict[bytes, PayoutLeaf] = {}

    def sources(self) -> tuple[Source, ...]:
        """The market ledger."""
        return (Source(LEDGER_TOPICS[Ledger.MARKET], 0, Ledger.MARKET),)

    def handle(self, opened: Any, source: Source, record: LogRecord) -> None:
        """It has no input of its own."""
        invariant(False, "settlement reads no external input")

    def fire(self, due_us: int, kind: int, id: bytes) -> None:
        """It has no deadline of its own."""
        invariant(False, "settlement sets no deadline")

    def learn(self, commit: ForeignCommit, aggregate: bytes, event: Any) -> None:
        """An epoch was cut, its checkpoint was seen on L1; rules or a writer are new."""
        if isinstance(event, PayablesAdded):
            self.emit(
                CHECKPOINTS,
                PayoutsAdded(
                    at_us=event.at_us,
                    epoch=event.number,
                    part=event.part,
                    payouts=leaves_of(event.payables),
                ),
            )
        elif isinstance(event, EpochCut):
            self.emit(CHECKPOINTS, self._checkpoint(commit, event))
        elif isinstance(event, EpochAnchored):
            self.emit(
                CHECKPOINTS,
                CheckpointAnchored(
                    at_us=self.time_us, epoch=event.number, checkpoint=event.checkpoint
                ),
            )
        elif isinstance(event, RulesActivated):
            self.emit(LEDGER_ID, replace(event, at_us=self.time_us))
        elif isinstance(event, WriterAppointed) and event.ledger == Ledger.SETTLEMENT:
            self.emit(LEDGER_ID, WriterRotated(at_us=self.time_us, writer=event.writer))

    def apply(self, aggregate: AggregateId, event: Any, bulk: bytes | None) -> None:
        """Keep the leaves of the payout tree."""
        if isinstance(event, PayoutsAdded | CheckpointMade):
            for leaf in event.payouts:
                self._leaves[leaf.account] = leaf

    def _checkpoint(self, commit: ForeignCommit, cut: EpochCut) -> CheckpointMade:
        before: Checkpoints | None = self.unit.state(CHECKPOINTS)
        previous = before.last if before is not None else NOTHING
        invariant(
            cut.number == (before.epoch if before is not None else 0) + 1, "epochs follow in order"
        )
        roots = (
            ShardRoot(
                ledger=int(Ledger.MARKET),
                shard=0,
                height=commit.height,
                hash=Hash32(commit.hash),
                root=Hash32(commit.tree_root),
                size=commit.tree_size,
            ),
            *(
                ShardRoot(
                    ledger=int(Ledger.METERING),
                    shard=at.shard,
                    height=at.height,
                    hash=at.hash,
                    root=at.root,
                    size=at.size,
                )
                for at in cut.positions
            ),
        )
        changed = leaves_of(cut.payables)
        leaves = dict(self._leaves)
        for leaf in changed:
            leaves[leaf.account] = leaf
        authorised = sum(leaf.cumulative_nano for leaf in leaves.values())
        invariant(authorised == cut.authorised_nano, "two ways to the authorised total agree")
        tree = payout_tree.build(self._keccak, self._domain, payouts_of(leaves.values()))
        ledgers_root = Hash32(root_of([leaf_hash(encoded_root(root)) for root in roots]))
        checkpoint = l1.Checkpoint(
            epoch=cut.number,
            ledger_origin=Hash32(self.genesis_hash),
            ledgers_root=ledgers_root,
            state_root=cut.state_root,
            payout_root=tree.root,
            payout_count=tree.count,
            authorised_total_nano=authorised,
            totals_hash=totals_hash(cut.deposited_nano, authorised, cut.paid_nano),
            body_hash=Hash32(hashlib.sha256(b"".join(map(encoded_root, roots))).digest()),
            prev_hash=previous,
        )
        return CheckpointMade(
            at_us=cut.at_us,
            epoch=cut.number,
            roots=roots,
            ledgers_root=ledgers_root,
            state_root=cut.state_root,
            payouts=changed,
            payout_root=tree.root,
            payout_count=tree.count,
            deposited_nano=cut.deposited_nano,
            authorised_nano=Wide(authorised),
            paid_nano=cut.paid_nano,
            previous=previous,
            checkpoint=l1.checkpoint_hash(self._keccak, checkpoint),
        )


def leaves_of(payables: Sequence[Payable]) -> tuple[PayoutLeaf, ...]:
    """The leaves that an epoch's payables change."""
    return tuple(
        PayoutLeaf(account=p.account, payee=p.payee, cumulative_nano=p.cumulative_nano)
        for p in payables
    )


def payouts_of(leaves: Any) -> list[payout_tree.Payout]:
    """The payout tree's entries for leaves."""
    return [
        payout_tree.Payout(
            account=l1.account_word(leaf.account),
            payee=leaf.payee,
            cumulative_nano=leaf.cumulative_nano,
        )
        for leaf in leaves
    ]


def checkpoint_of(genesis_hash: bytes, made: CheckpointMade) -> l1.Checkpoint:
    """The struct that the sender anchors for a recorded checkpoint."""
    return l1.Checkpoint(
        epoch=made.epoch,
        ledger_origin=Hash32(genesis_hash),
        ledgers_root=made.ledgers_root,
        state_root=made.state_root,
        payout_root=made.payout_root,
        payout_count=made.payout_count,
        authorised_total_nano=made.authorised_nano,
        totals_hash=totals_hash(made.deposited_nano, made.authorised_nano, made.paid_nano),
        body_hash=Hash32(hashlib.sha256(b"".join(map(encoded_root, made.roots))).digest()),
        prev_hash=made.previous,
    )


#: What settlement learns from the market.
LEARNED: Final[tuple[type[Any], ...]] = (
    PayablesAdded,
    EpochCut,
    EpochAnchored,
    RulesActivated,
    WriterAppointed,
)
