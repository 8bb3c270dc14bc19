"""A chain of plain values that can be extended, cut and reorganised."""

from dataclasses import dataclass, field, replace

from domain.ids import Address, Hash32
from domain.l1 import (
    NO_HASH,
    AccountWord,
    BlockHash,
    Deposited,
    Depth,
    L1Block,
    L1Config,
    L1Error,
    L1Event,
    LogPlace,
    TxHash,
    VaultTotals,
)
from tests.l1.scene import account


def _block(number: int, branch: int, parent: BlockHash) -> L1Block:
    made = BlockHash(bytes([branch]) + number.to_bytes(31, "big"))
    return L1Block(number=number, hash=made, parent=parent, time_s=number)


@dataclass
class FakeChain:
    """The L1 chain port; each block holds ``number % 3`` deposits, numbered by block and branch."""

    confirmations: int
    blocks: list[L1Block] = field(
        default_factory=lambda: [_block(0, 0, BlockHash(bytes(32)))], repr=False
    )

    def grow(self, count: int, branch: int = 0) -> None:
        for _ in range(count):
            parent = self.blocks[-1]
            self.blocks.append(_block(parent.number + 1, branch, parent.hash))

    def reorganise(self, depth: int, branch: int, grow: int) -> None:
        del self.blocks[len(self.blocks) - depth :]
        self.grow(grow, branch)

    @property
    def config(self) -> L1Config:
        return L1Config(
            chain_id=1,
            vault=Address(bytes(20)),
            token=Address(bytes(20)),
            code_hash=NO_HASH,
            start=self.blocks[0].position,
            finality=Depth(confirmations=self.confirmations),
        )

    def check(self) -> None:
        return

    def head(self) -> L1Block:
        return self.blocks[-1]

    def final(self) -> L1Block | None:
        number = len(self.blocks) - 1 - self.confirmations
        return self.blocks[number] if number >= 0 else None

    def block(self, number: int) -> L1Block | None:
        return self.blocks[number] if number < len(self.blocks) else None

    def events(self, block: BlockHash) -> list[L1Event]:
        for found in self.blocks:
            if found.hash == block:
                return [_deposit(found, index) for index in range(found.number % 3)]
        raise L1Error("unknown block")

    def anchored(self, epoch: int, block: BlockHash | None = None) -> Hash32 | None:
        return None

    def totals(self, block: BlockHash | None = None) -> VaultTotals:
        raise L1Error("a fake chain has no vault")

    def claimed_nano(self, account: AccountWord) -> int:
        return 0

    def all_events(self, up_to: int) -> list[L1Event]:
        return [event for block in self.blocks[1 : up_to + 1] for event in self.events(block.hash)]


def _deposit(block: L1Block, index: int) -> Deposited:
    place = LogPlace(
        block_number=block.number,
        block_hash=block.hash,
        tx_hash=TxHash(bytes([index]) + block.hash[1:]),
        log_index=index,
    )
    made = Deposited(
        place=place,
        account=account(index + 1),
        depositor=Address(bytes(20)),
        amount_nano=block.number,
        deposited_total_nano=0,
    )
    return replace(made, amount_nano=block.number * 1000 + block.hash[0])


@dataclass
class MovingChain(FakeChain):
    """Reorganises once, between two questions of one step."""

    moves_at: int = 3
    depth: int = 1

    def block(self, number: int) -> L1Block | None:
        if number == self.moves_at:
            self.moves_at = -1
            self.reorganise(self.depth, branch=9, grow=self.depth + 1)
        return super().block(number)
