"""The L1 as the ledger sees it: what happens in the vault, and the ports to read and write it.

Only plain values: no contract encoding but the checkpoint's hash, which the settlement processor
needs for the chain of checkpoints. Money is in nano; the chain's wei (nano × 10^9) stay in the
adapters (R1.1). The L1's hash function is Keccak-256, which the standard library lacks, so it comes
as a parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal, NewType, Protocol

from domain.ids import AccountId, Address, Hash32

Keccak = Callable[[bytes], bytes]
BlockHash = NewType("BlockHash", bytes)  # 32 bytes
TxHash = NewType("TxHash", bytes)  # 32 bytes
AccountWord = NewType("AccountWord", bytes)  # 32 bytes: an account as the vault names it

WEI_PER_NANO: Final = 10**9
TOKEN_DECIMALS: Final = 18
NO_HASH: Final = Hash32(bytes(32))


class L1Error(Exception):
    """An operating error of the chain or its endpoint: try again later, nothing is lost."""


class L1Unreachable(L1Error):
    """The endpoint gave no answer. Whether a sent transaction arrived is not known."""


class ChainBehind(L1Error):
    """The endpoint's chain is shorter than what was read from it before: lagging, or wiped."""


class L1Fault(Exception):
    """The chain contradicts the ledger: retrying cannot help, payouts stop, a person looks."""


class PinMismatch(L1Fault):
    """The endpoint serves another chain or contract than the configuration pins."""

    def __init__(self, pin: str, expected: object, found: object) -> None:
        self.pin = pin
        super().__init__(f"The {pin} on the chain is {found}, pinned is {expected}.")


class ReorgBelowFinality(L1Fault):
    """A block that was final by our policy is no longer part of the chain."""

    def __init__(self, number: int, expected: bytes, found: bytes) -> None:
        self.number = number
        super().__init__(
            f"Block {number} was final as 0x{expected.hex()}, the chain now has 0x{found.hex()}."
        )


class CheckpointFork(L1Fault):
    """The chain holds another checkpoint for an epoch than the one we made."""

    def __init__(self, epoch: int, ours: bytes, anchored: bytes) -> None:
        self.epoch = epoch
        super().__init__(
            f"Epoch {epoch} is anchored as 0x{anchored.hex()}, this ledger has 0x{ours.hex()}."
        )


class ForeignNonce(L1Fault):
    """Someone else used the sender's key: its nonce is spent by a transaction we never signed."""

    def __init__(self, address: bytes, nonce: int) -> None:
        self.nonce = nonce
        super().__init__(f"Nonce {nonce} of 0x{address.hex()} was used by a foreign transaction.")


class UnreadableEvent(L1Fault):
    """The vault emitted something that the pinned contract cannot emit."""


def account_word(account: AccountId) -> AccountWord:
    """An account id as the vault names it: its 16 bytes, then 16 zero bytes."""
    return AccountWord(account + bytes(16))


def account_of_word(word: AccountWord) -> AccountId | None:
    """The account a word names, or None: anyone may deposit for a word that names no account."""
    return AccountId(word[:16]) if word[16:] == bytes(16) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class L1Position:
    """A block that was read to its end: number and hash, since a number alone can change."""

    number: int
    hash: BlockHash


@dataclass(frozen=True, slots=True, kw_only=True)
class L1Block:
    """The head of a block."""

    number: int
    hash: BlockHash
    parent: BlockHash
    time_s: int

    @property
    def position(self) -> L1Position:
        """Where a reader stands that has read this block."""
        return L1Position(number=self.number, hash=self.hash)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPlace:
    """Where an event stands. (tx_hash, log_index) is unique among final events."""

    block_number: int
    block_hash: BlockHash
    tx_hash: TxHash
    log_index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What an epoch of the ledger comes to, as anchored. Epochs count from 1.

    ``authorised_total_nano`` is the sum of the payout tree's cumulative amounts; it never falls and
    is at most what was deposited (R9.3). ``prev_hash`` is zero for the first.
    """

    epoch: int
    ledger_origin: Hash32
    ledgers_root: Hash32
    state_root: Hash32
    payout_root: Hash32
    payout_count: int
    authorised_total_nano: int
    totals_hash: Hash32
    body_hash: Hash32
    prev_hash: Hash32


def checkpoint_words(checkpoint: Checkpoint) -> bytes:
    """The struct as the contract encodes it: ten words of 32 bytes."""
    return b"".join(
        (
            checkpoint.epoch.to_bytes(32, "big"),
            checkpoint.ledger_origin,
            checkpoint.ledgers_root,
            checkpoint.state_root,
            checkpoint.payout_root,
            checkpoint.payout_count.to_bytes(32, "big"),
            (checkpoint.authorised_total_nano * WEI_PER_NANO).to_bytes(32, "big"),
            checkpoint.totals_hash,
            checkpoint.body_hash,
            checkpoint.prev_hash,
        )
    )


def checkpoint_hash(keccak: Keccak, checkpoint: Checkpoint) -> Hash32:
    """The hash that the contract stores, and that the next checkpoint names as ``prev_hash``."""
    return Hash32(keccak(checkpoint_words(checkpoint)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Deposited:
    """Tokens came into the vault for an account."""

    place: LogPlace
    account: AccountWord
    depositor: Address
    amount_nano: int
    deposited_total_nano: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointProposed:
    """A checkpoint was anchored; ``hash`` is what the contract stored for it."""

    place: LogPlace
    checkpoint: Checkpoint
    hash: Hash32


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """The vault paid an account; ``cumulative_nano`` is all it was ever paid."""

    place: LogPlace
    account: AccountWord
    payee: Address
    amount_nano: int
    cumulative_nano: int


L1Event = Deposited | CheckpointProposed | Claimed


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultTotals:
    """The vault's own counters at one block: paid ≤ authorised ≤ deposited (R9.3)."""

    deposited_nano: int
    authorised_nano: int
    paid_nano: int
    last_epoch: int
    payout_root: Hash32


@dataclass(frozen=True, slots=True, kw_only=True)
class Depth:
    """A block is final with this many blocks on top of it; 0 makes the head final."""

    confirmations: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tagged:
    """A block is final when the node says so by a tag of proof of stake."""

    tag: Literal["safe", "finalized"]


FinalityPolicy = Depth | Tagged


@dataclass(frozen=True, slots=True, kw_only=True)
class L1Config:
    """The pinned facts of the chain: an endpoint that differs in any is refused by name.

    ``start`` is a final block at or after the vault's creation and before its first event; it also
    tells two chains of one chain id apart. ``code_hash`` is Keccak-256 of the vault's code.
    """

    chain_id: int
    vault: Address
    token: Address
    code_hash: Hash32
    start: L1Position
    finality: FinalityPolicy
    token_decimals: int = TOKEN_DECIMALS


class L1Chain(Protocol):
    """Read access to one vault on one chain.

    *Trusted*: as far as its endpoint. Everything is asked by block hash or re-checked against it,
    so a chain that moves between two calls is noticed. *Errors*: ``L1Error`` when there was no
    usable answer (ask again), ``L1Fault`` when the answer contradicts what is pinned.
    *Concurrent*: one thread per object.
    """

    @property
    def config(self) -> L1Config:
        """What is pinned."""
        ...

    def check(self) -> None:
        """Compare chain id, start block, vault code, token and decimals with what is pinned.

        Raises ``PinMismatch``. An adapter also does this when it is made.
        """
        ...

    def head(self) -> L1Block:
        """The newest block."""
        ...

    def final(self) -> L1Block | None:
        """The newest block that is final by the policy; None while there is none."""
        ...

    def block(self, number: int) -> L1Block | None:
        """The canonical block of a number; None beyond the head."""
        ...

    def events(self, block: BlockHash) -> Sequence[L1Event]:
        """The vault's events in a block, in log order. Raises ``L1Error`` if it is unknown."""
        ...

    def anchored(self, epoch: int, block: BlockHash | None = None) -> Hash32 | None:
        """The checkpoint hash the vault holds for an epoch, at a block (default: the head)."""
        ...

    def totals(self, block: BlockHash | None = None) -> VaultTotals:
        """The vault's counters at a block (default: the head)."""
        ...

    def claimed_nano(self, account: AccountWord) -> int:
        """What an account was paid in all, at the head."""
        ...


class SendState(StrEnum):
    """How far a checkpoint is on its way. Only FINAL ends it; a reorg takes it back to SIGNED."""

    QUEUED = "queued"  # nothing signed: it waits for the one before, or for what ``reason`` says
    SIGNED = "signed"  # signed bytes are durable; whether the network has them is not known
    SENT = "sent"  # the endpoint has taken the bytes
    INCLUDED = "included"  # in a block that is not final yet
    FINAL = "final"  # anchored, in a final block
    REVERTED = "reverted"  # included and refused by the contract; ``reason`` names the error


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """Where the sending of one checkpoint stands."""

    hash: Hash32
    epoch: int
    state: SendState
    nonce: int | None
    tx_hash: TxHash | None  # of the newest attempt, or of the one included
    block: L1Position | None  # where it is included
    reason: str  # what holds it up, as a sentence; empty when nothing does


class L1Sender(Protocol):
    """Anchors checkpoints, each exactly once, however often it is told and wherever it dies.

    *Durable*: ``propose`` returns when the checkpoint is in the outbox; signed bytes are in the
    outbox before they are sent, and after a crash the same bytes are sent again. *Ordered*: one at
    a time, by epoch. *Retries*: ``advance`` is one attempt and may be called for ever; ``L1Error``
    means call it again, ``L1Fault`` means stop. *Concurrent*: one sender per signing key.
    """

    def propose(self, checkpoint: Checkpoint) -> Hash32:
        """Put a checkpoint into the outbox and return its hash; a repeat changes nothing.

        Raises ``CheckpointFork`` when the outbox holds another one for its epoch.
        """
        ...

    def advance(self) -> Sequence[Sending]:
        """Do what can be done now and return those whose state or reason changed, in order."""
        ...

    def sending(self, checkpoint: Hash32) -> Sending | None:
        """Where a checkpoint stands; None if it was never proposed here."""
        ...

    def retry(self, checkpoint: Hash32) -> None:
        """Queue a REVERTED checkpoint again, after a person has removed the reason."""
        ...
