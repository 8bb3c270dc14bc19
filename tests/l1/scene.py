"""A chain with a vault, people with tokens, and checkpoints that fit what is anchored."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from adapters.evm_chain import EvmChain
from adapters.evm_embedded import CHAIN_ID, EmbeddedChain
from adapters.evm_keccak import keccak
from adapters.evm_keys import LocalSigner
from adapters.evm_vault import propose_data
from adapters.evm_wallet import CallRefused, Wallet
from domain.ids import AccountId, Address, Hash32
from domain.l1 import (
    NO_HASH,
    AccountWord,
    BlockHash,
    Checkpoint,
    CheckpointProposed,
    L1Chain,
    TxHash,
    account_word,
    checkpoint_hash,
)
from domain.l1_watcher import Watcher
from domain.payout_tree import Payout, PayoutDomain, PayoutTree, build

SYNOR = 10**9
SEED = b"a seed for tests"
ORIGIN = Hash32(bytes([7]) * 32)


def account(number: int) -> AccountWord:
    """An account id as the vault names it."""
    return account_word(AccountId(number.to_bytes(16, "big")))


def payout(number: int, payee: Address, cumulative_nano: int) -> Payout:
    """A row of the payout tree."""
    return Payout(account=account(number), payee=payee, cumulative_nano=cumulative_nano)


def checkpoint(
    epoch: int, tree: PayoutTree, authorised_nano: int, previous: Hash32 = NO_HASH
) -> Checkpoint:
    """A checkpoint whose hashes other than the payout root are made up."""
    return Checkpoint(
        epoch=epoch,
        ledger_origin=ORIGIN,
        ledgers_root=Hash32(bytes([1]) * 32),
        state_root=Hash32(bytes([2]) * 32),
        payout_root=tree.root,
        payout_count=tree.count,
        authorised_total_nano=authorised_nano,
        totals_hash=Hash32(bytes([3]) * 32),
        body_hash=Hash32(bytes([4]) * 32),
        prev_hash=previous,
    )


def chain_of(count: int, authorised_nano: int = 0) -> list[Checkpoint]:
    """Checkpoints that follow one another and pay nobody."""
    made: list[Checkpoint] = []
    previous = NO_HASH
    empty = PayoutTree(nodes=(), places={})
    for epoch in range(1, count + 1):
        made.append(checkpoint(epoch, empty, authorised_nano, previous))
        previous = checkpoint_hash(keccak, made[-1])
    return made


@contextmanager
def refused(error: str) -> Iterator[None]:
    """Expect the contract's error of this name."""
    with pytest.raises(CallRefused) as caught:
        yield
    assert caught.value.revert.name == error


@dataclass(slots=True)
class Scene:
    """The embedded chain with a buyer (1,000 SYNOR) and the roles' wallets."""

    chain: EmbeddedChain
    evm: EvmChain = field(init=False)
    last: Checkpoint | None = None

    def __post_init__(self) -> None:
        self.evm = EvmChain(self.chain.rpc, self.chain.config)

    @property
    def domain(self) -> PayoutDomain:
        return PayoutDomain(chain_id=CHAIN_ID, vault=self.chain.config.vault)

    def wallet(self, signer: LocalSigner) -> Wallet:
        return Wallet(rpc=self.chain.rpc, config=self.chain.config, signer=signer)

    def person(self, name: str, tokens_nano: int = 0) -> Wallet:
        """Someone with coin for fees, and tokens if asked for."""
        signer = self.chain.person(name)
        self.chain.fund(signer.address, tokens_nano)
        return self.wallet(signer)

    def deposited(self, amount_nano: int, number: int = 1) -> Wallet:
        """A buyer who has put this much into the vault."""
        buyer = self.person("buyer", amount_nano)
        buyer.deposit(account(number), amount_nano)
        return buyer

    def next(self, payouts: Sequence[Payout]) -> tuple[Checkpoint, PayoutTree]:
        """The checkpoint after the last one proposed here."""
        tree = build(keccak, self.domain, payouts)
        epoch = 1 if self.last is None else self.last.epoch + 1
        previous = NO_HASH if self.last is None else checkpoint_hash(keccak, self.last)
        total = sum(row.cumulative_nano for row in payouts)
        return checkpoint(epoch, tree, total, previous), tree

    def propose(self, made: Checkpoint) -> TxHash:
        """Anchor a checkpoint by the proposer's key, without the sender."""
        sent = self.wallet(self.chain.proposer).send(self.chain.config.vault, propose_data(made))
        self.last = made
        return sent

    def anchor(self, payouts: Sequence[Payout]) -> PayoutTree:
        """Make and anchor the next checkpoint."""
        made, tree = self.next(payouts)
        self.propose(made)
        return tree


@contextmanager
def scene(path: Path | None = None) -> Iterator[Scene]:
    """A scene that starts at second 1,000 and whose clock stands."""
    chain = EmbeddedChain(path, seed=SEED, clock=lambda: 1_000)
    try:
        yield Scene(chain)
    finally:
        chain.close()


def proposals(chain: L1Chain) -> list[tuple[int, Hash32]]:
    """Every checkpoint the chain holds, in order, by walking all blocks."""
    events = Watcher(chain=chain, blocks_per_step=10_000).observe(None).events
    return [(e.checkpoint.epoch, e.hash) for e in events if isinstance(e, CheckpointProposed)]


def block_hashes(chain: L1Chain) -> list[BlockHash]:
    """The hashes of all blocks."""
    numbers = range(chain.head().number + 1)
    return [block.hash for number in numbers if (block := chain.block(number)) is not None]
