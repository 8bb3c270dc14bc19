"""An L1 of plain values: blocks that can be dropped, a pool, and the vault's rules.

The real sender, outbox, watcher and chain port are used; only the endpoint is this one. It keeps
the vault's three numbers at every block: paid ≤ authorised ≤ deposited.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from adapters.evm_keccak import keccak
from adapters.evm_keys import Signed, Unsigned
from adapters.evm_rpc import Rpc, RpcRefused, hexed
from adapters.simulator_faults import Crash, Fault, Faults
from domain.ids import AccountId, Address, Hash32, derive, length_prefixed
from domain.l1 import (
    NO_HASH,
    WEI_PER_NANO,
    AccountWord,
    BlockHash,
    Checkpoint,
    CheckpointProposed,
    Claimed,
    Deposited,
    Depth,
    L1Block,
    L1Config,
    L1Error,
    L1Event,
    L1Position,
    L1Unreachable,
    LogPlace,
    TxHash,
    VaultTotals,
    account_word,
    checkpoint_hash,
)

CHAIN_ID: Final = 31_337
VAULT: Final = Address(derive("simulated vault") + bytes(4))
PROPOSER: Final = Address(derive("simulated proposer") + bytes(4))
CONFIRMATIONS: Final = 2
GWEI: Final = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """Something that waits for a block: a deposit, a claim, or the sender's proposal."""

    id: TxHash
    deposit: tuple[AccountWord, int] | None = None
    claim: tuple[AccountWord, int] | None = None  # account, cumulative
    proposal: Unsigned | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Vault:
    """The vault after a block."""

    deposited: int = 0
    authorised: int = 0
    paid: int = 0
    last_epoch: int = 0
    last_hash: Hash32 = NO_HASH
    nonce: int = 0
    anchored: Mapping[int, Hash32] = field(default_factory=dict)
    claimed: Mapping[AccountWord, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mined:
    """A block, what it held, and the vault after it."""

    block: L1Block
    transactions: tuple[Transaction, ...]
    status: Mapping[TxHash, int]
    events: tuple[L1Event, ...]
    vault: Vault


class SimulatedSigner:
    """Signs by writing down what it signed: the same input gives the same bytes."""

    def __init__(self) -> None:
        """Start with nothing signed."""
        self.known: dict[bytes, Unsigned] = {}

    @property
    def address(self) -> Address:
        """The proposer's."""
        return PROPOSER

    def sign_transaction(self, unsigned: Unsigned) -> Signed:
        """The bytes name every field."""
        numbers = (unsigned.nonce, unsigned.max_fee_wei, unsigned.tip_wei, unsigned.gas)
        raw = length_prefixed(*(n.to_bytes(16, "big") for n in numbers), unsigned.data)
        self.known[raw] = unsigned
        return Signed(raw=raw, hash=TxHash(hashlib.sha256(raw).digest()))


class SimulatedL1:
    """The chain. It is an ``L1Chain``, and what ``SimulatedRpc`` asks."""

    def __init__(self, rng: random.Random, payouts: Callable[[int], Mapping[bytes, int]]) -> None:
        """``payouts`` tells what the tree of an epoch authorises, by account."""
        self._rng = rng
        self._payouts = payouts
        self._branch = 0
        self._numbered = 0
        self.signer = SimulatedSigner()
        self.pool: list[Transaction] = []
        self.base_fee = GWEI
        start = L1Block(
            number=0, hash=BlockHash(hashlib.sha256(b"L1").digest()), parent=NO_PARENT, time_s=0
        )
        self.blocks = [Mined(block=start, transactions=(), status={}, events=(), vault=Vault())]
        #: Nonces at which proposals of an epoch came in, and proposals that reverted in a block.
        self.nonces: dict[int, set[int]] = {}
        self.reverted: list[int] = []
        self.received: list[bytes] = []

    # What people do

    def deposit(self, account: AccountId, amount_nano: int) -> None:
        """Someone puts tokens into the vault."""
        self.pool.append(Transaction(id=self._id(), deposit=(account_word(account), amount_nano)))

    def claim(self, account: AccountId) -> None:
        """Someone claims all that the latest anchored tree authorises."""
        due = self._payouts(self.vault.last_epoch).get(account, 0)
        if due > self.vault.claimed.get(account_word(account), 0):
            self.pool.append(Transaction(id=self._id(), claim=(account_word(account), due)))

    def _id(self) -> TxHash:
        self._numbered += 1
        return TxHash(hashlib.sha256(b"tx" + self._numbered.to_bytes(8, "big")).digest())

    # Blocks

    @property
    def vault(self) -> Vault:
        """The vault at the head."""
        return self.blocks[-1].vault

    def mine(self, *, all_of_it: bool = False) -> None:
        """One more block with some of the pool, or with all that can be taken."""
        self.base_fee = GWEI * (1 if all_of_it else self._rng.randrange(1, 4))
        head = self.blocks[-1].block
        number = head.number + 1
        wanted = [
            each for each in self.pool if all_of_it or each.proposal or self._rng.randrange(4)
        ]
        vault = self.vault
        taken: list[Transaction] = []
        status: dict[TxHash, int] = {}
        drafts: list[tuple[Transaction, Any]] = []
        for each in wanted:
            after, said = self._applied(vault, each)
            if after is None:
                continue
            taken.append(each)
            status[each.id] = int(said is not None)
            if said is not None:
                drafts.append((each, said))
            vault = after
        seal = length_prefixed(
            head.hash, number.to_bytes(8, "big"), bytes([self._branch]), *(t.id for t in taken)
        )
        block = L1Block(
            number=number,
            hash=BlockHash(hashlib.sha256(seal).digest()),
            parent=head.hash,
            time_s=number,
        )
        events = tuple(
            make(
                LogPlace(
                    block_number=number, block_hash=block.hash, tx_hash=each.id, log_index=index
                )
            )
            for index, (each, make) in enumerate(drafts)
        )
        gone = {each.id for each in taken}
        spent = vault.nonce
        self.pool = [
            each
            for each in self.pool
            if each.id not in gone and (each.proposal is None or each.proposal.nonce >= spent)
        ]
        self.blocks.append(
            Mined(block=block, transactions=tuple(taken), status=status, events=events, vault=vault)
        )

    def reorganise(self) -> None:
        """Drop the newest block, which was not final; what it held waits again."""
        if len(self.blocks) > 1:
            dropped = self.blocks.pop()
            self._branch += 1
            self.pool = [*dropped.transactions, *self.pool]

    def _applied(self, vault: Vault, each: Transaction) -> tuple[Vault | None, Any]:
        """The vault after a transaction (None: it cannot be in this block) and its event."""
        if each.deposit is not None:
            word, nano = each.deposit
            total = vault.deposited + nano

            def deposited(place: LogPlace) -> Deposited:
                return Deposited(
                    place=place,
                    account=word,
                    depositor=PROPOSER,
                    amount_nano=nano,
                    deposited_total_nano=total,
                )

            return replace(vault, deposited=total), deposited
        if each.claim is not None:
            account, cumulative = each.claim
            amount = cumulative - vault.claimed.get(account, 0)
            due = self._payouts(vault.last_epoch).get(account[:16], 0)
            if amount <= 0 or cumulative > due:
                return vault, None

            def claimed(place: LogPlace) -> Claimed:
                return Claimed(
                    place=place,
                    account=account,
                    payee=PROPOSER,
                    amount_nano=amount,
                    cumulative_nano=cumulative,
                )

            paid = {**vault.claimed, account: cumulative}
            return replace(vault, paid=vault.paid + amount, claimed=paid), claimed
        proposal = each.proposal
        if proposal is None or proposal.nonce != vault.nonce:
            return None, None
        if proposal.max_fee_wei < self.base_fee:
            return None, None
        checkpoint = checkpoint_of_data(proposal.data)
        vault = replace(vault, nonce=vault.nonce + 1)
        if refusal(vault, checkpoint) is not None:
            self.reverted.append(checkpoint.epoch)
            return vault, None
        made = checkpoint_hash(keccak, checkpoint)

        def proposed(place: LogPlace) -> CheckpointProposed:
            return CheckpointProposed(place=place, checkpoint=checkpoint, hash=made)

        return (
            replace(
                vault,
                authorised=checkpoint.authorised_total_nano,
                last_epoch=checkpoint.epoch,
                last_hash=made,
                anchored={**vault.anchored, checkpoint.epoch: made},
            ),
            proposed,
        )

    # The chain port

    @property
    def config(self) -> L1Config:
        """What is pinned."""
        return L1Config(
            chain_id=CHAIN_ID,
            vault=VAULT,
            token=VAULT,
            code_hash=NO_HASH,
            start=self.blocks[0].block.position,
            finality=Depth(confirmations=CONFIRMATIONS),
        )

    def check(self) -> None:
        """This is the chain that is pinned."""

    def head(self) -> L1Block:
        """The newest block."""
        return self.blocks[-1].block

    def final(self) -> L1Block | None:
        """The block with enough others on top."""
        number = len(self.blocks) - 1 - CONFIRMATIONS
        return self.blocks[number].block if number >= 0 else None

    def block(self, number: int) -> L1Block | None:
        """The canonical block of a number."""
        return self.blocks[number].block if number < len(self.blocks) else None

    def events(self, block: BlockHash) -> Sequence[L1Event]:
        """The vault's events in a block."""
        return self._mined(block).events

    def anchored(self, epoch: int, block: BlockHash | None = None) -> Hash32 | None:
        """What the vault holds for an epoch."""
        return self._at(block).anchored.get(epoch)

    def totals(self, block: BlockHash | None = None) -> VaultTotals:
        """The vault's counters."""
        vault = self._at(block)
        return VaultTotals(
            deposited_nano=vault.deposited,
            authorised_nano=vault.authorised,
            paid_nano=vault.paid,
            last_epoch=vault.last_epoch,
            payout_root=NO_HASH,
        )

    def claimed_nano(self, account: AccountWord) -> int:
        """What an account was paid in all."""
        return self.vault.claimed.get(account, 0)

    def _at(self, block: BlockHash | None) -> Vault:
        return self.vault if block is None else self._mined(block).vault

    def _mined(self, block: BlockHash) -> Mined:
        for each in reversed(self.blocks):
            if each.block.hash == block:
                return each
        raise L1Error("The block is not canonical.")


NO_PARENT: Final = BlockHash(bytes(32))


class SimulatedRpc(Rpc):
    """The endpoint as the sender asks it; it may not answer, and the sender may die at it."""

    def __init__(self, chain: SimulatedL1, faults: Faults) -> None:
        """Ask ``chain``."""
        self._chain = chain
        self._faults = faults

    def _asked(self) -> None:
        if self._faults.strikes(Fault.L1_UNREACHABLE):
            raise L1Unreachable("The L1 was kept from answering by the simulation.")

    def call(
        self,
        to: Address,
        data: bytes,
        *,
        sender: Address | None = None,
        block: BlockHash | None = None,
    ) -> bytes:
        """Whether the vault would take a proposal now."""
        self._asked()
        why = refusal(self._chain.vault, checkpoint_of_data(data))
        if why is not None:
            raise RpcRefused("eth_call", 3, f"execution reverted: {why}", b"")
        return b""

    def nonce(self, address: Address, which: int | str = "latest") -> int:
        """How many of the proposer's transactions are in the chain up to a block."""
        self._asked()
        blocks = self._chain.blocks
        return blocks[which if isinstance(which, int) else -1].vault.nonce

    def receipt(self, transaction: TxHash) -> Mapping[str, Any] | None:
        """Where a transaction was included."""
        self._asked()
        for each in reversed(self._chain.blocks):
            if transaction in each.status:
                return {
                    "status": hex(each.status[transaction]),
                    "blockNumber": hex(each.block.number),
                    "blockHash": hexed(each.block.hash),
                }
        return None

    def send(self, raw: bytes) -> None:
        """Take signed bytes into the pool, by a node's usual rules."""
        self._asked()
        fault = self._faults.pick(
            Fault.SENDER_DIES_BEFORE_BROADCAST,
            Fault.SENDER_DIES_AFTER_BROADCAST,
            Fault.L1_ANSWER_LOST,
        )
        if fault is Fault.SENDER_DIES_BEFORE_BROADCAST:
            raise Crash
        self._take(raw)
        if fault is Fault.SENDER_DIES_AFTER_BROADCAST:
            raise Crash
        if fault is Fault.L1_ANSWER_LOST:
            raise L1Unreachable("The answer to the broadcast was lost by the simulation.")

    def _take(self, raw: bytes) -> None:
        chain = self._chain
        unsigned = chain.signer.known[raw]
        id = TxHash(hashlib.sha256(raw).digest())
        chain.received.append(raw)
        epoch = checkpoint_of_data(unsigned.data).epoch
        chain.nonces.setdefault(epoch, set()).add(unsigned.nonce)
        if unsigned.nonce < chain.vault.nonce:
            raise RpcRefused("eth_sendRawTransaction", -32000, "nonce too low", b"")
        for place, other in enumerate(chain.pool):
            if other.id == id:
                raise RpcRefused("eth_sendRawTransaction", -32000, "already known", b"")
            if other.proposal is not None and other.proposal.nonce == unsigned.nonce:
                if unsigned.max_fee_wei * 10 < other.proposal.max_fee_wei * 11:
                    why = "replacement transaction underpriced"
                    raise RpcRefused("eth_sendRawTransaction", -32000, why, b"")
                chain.pool[place] = Transaction(id=id, proposal=unsigned)
                return
        chain.pool.append(Transaction(id=id, proposal=unsigned))

    def base_fee(self) -> int:
        """The base fee of the newest block."""
        self._asked()
        return self._chain.base_fee

    def tip(self) -> int:
        """The tip that the node suggests."""
        return GWEI


def checkpoint_of_data(data: bytes) -> Checkpoint:
    """The checkpoint in a call that proposes one: ten words after the selector."""
    words = [data[at : at + 32] for at in range(4, len(data), 32)]
    return Checkpoint(
        epoch=int.from_bytes(words[0], "big"),
        ledger_origin=Hash32(words[1]),
        ledgers_root=Hash32(words[2]),
        state_root=Hash32(words[3]),
        payout_root=Hash32(words[4]),
        payout_count=int.from_bytes(words[5], "big"),
        authorised_total_nano=int.from_bytes(words[6], "big") // WEI_PER_NANO,
        totals_hash=Hash32(words[7]),
        body_hash=Hash32(words[8]),
        prev_hash=Hash32(words[9]),
    )


def refusal(vault: Vault, checkpoint: Checkpoint) -> str | None:
    """Why the vault would not take a checkpoint."""
    if checkpoint.epoch != vault.last_epoch + 1:
        return "EpochDoesNotFollow"
    if checkpoint.prev_hash != vault.last_hash:
        return "PreviousDiffers"
    if not vault.authorised <= checkpoint.authorised_total_nano <= vault.deposited:
        return "NotCovered"
    return None


__all__ = ["CHAIN_ID", "PROPOSER", "VAULT", "L1Position", "SimulatedL1", "SimulatedRpc"]
