"""Anchors checkpoints on an EVM chain, each exactly once.

What makes it exactly once: the contract takes epoch n + 1 only after n, so a second copy reverts;
signed bytes are durable before they are sent, so a crash sends the same bytes again and never signs
anew; and a nonce that is used up is answered by looking for our own transactions, never by signing
at the next one (which is how others have settled twice).

Time is counted in blocks: when none are made nothing is stuck, and no clock is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from adapters.evm_keccak import keccak
from adapters.evm_keys import Signer, Unsigned
from adapters.evm_outbox import Attempt, Outbox
from adapters.evm_rpc import Rpc, RpcRefused, bytes_of, number_of
from adapters.evm_vault import propose_data, revert_of
from domain.ids import Hash32
from domain.invariant import InvariantBroken
from domain.l1 import (
    BlockHash,
    ChainBehind,
    Checkpoint,
    CheckpointFork,
    ForeignNonce,
    L1Chain,
    L1Error,
    L1Position,
    ReorgBelowFinality,
    Sending,
    SendState,
    TxHash,
    checkpoint_hash,
)

# What nodes say, in lower case; there are no codes for these.
ALREADY_THERE: Final = ("already known", "already imported", "known transaction", "already exists")
NONCE_USED: Final = ("nonce too low",)
TOO_CHEAP: Final = (
    "underpriced",
    "fee too low",
    "max fee per gas less than block base fee",
    "fee cap less than block base fee",
)

# A way from QUEUED to FINAL is four steps; endpoints that disagree must not keep a turn for ever.
STEPS_PER_TURN: Final = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class FeePolicy:
    """What anchoring may cost: beyond the cap it waits, since late is better than wrong.

    The offer is tip + 2 × base fee. After ``bump_after_blocks`` blocks without inclusion both parts
    rise by a tenth (rounded up), which is what nodes ask of a replacement.
    """

    max_fee_cap_wei: int = 500 * 10**9
    tip_wei: int = 10**9
    bump_after_blocks: int = 4
    gas: int = 400_000


def _tenth_more(wei: int) -> int:
    return -(-wei * 11 // 10)


class EvmSender:
    """One signing key's sender. Raises ``PinMismatch`` if the outbox is of another chain or key."""

    def __init__(
        self, rpc: Rpc, chain: L1Chain, signer: Signer, outbox: Outbox, fees: FeePolicy
    ) -> None:
        self._rpc = rpc
        self._chain = chain
        self._signer = signer
        self._outbox = outbox
        self._fees = fees
        self._told: tuple[TxHash, int] | None = None  # what the node was last given, at which head
        outbox.pin(chain.config, signer.address)

    def propose(self, checkpoint: Checkpoint) -> Hash32:
        purpose = checkpoint_hash(keccak, checkpoint)
        self._outbox.add(purpose, checkpoint.epoch, propose_data(checkpoint))
        return purpose

    def sending(self, checkpoint: Hash32) -> Sending | None:
        return self._outbox.sending(checkpoint)

    def advance(self) -> Sequence[Sending]:
        self._check_last_final()
        changed = []
        while (before := self._outbox.first_open()) is not None:
            now = self._worked(before)
            if now != before:
                changed.append(now)
            if now.state is not SendState.FINAL:
                break
        return changed

    def _worked(self, sending: Sending) -> Sending:
        """Step until nothing changes, or only the reason: each step is durable before the next."""
        for _ in range(STEPS_PER_TURN):
            after = self._step(sending)
            if after == sending:
                break
            self._outbox.put(after)
            only_the_reason = after.state is sending.state
            sending = after
            if only_the_reason:
                break
        return sending

    def retry(self, checkpoint: Hash32) -> None:
        sending = self._outbox.sending(checkpoint)
        if sending is None or sending.state is not SendState.REVERTED or sending.block is None:
            raise L1Error("Only a checkpoint whose transaction reverted can be tried again.")
        final = self._chain.final()
        if final is None or final.number < sending.block.number:
            raise L1Error("The reverted transaction is not final yet; it may still succeed.")
        self._outbox.put(
            replace(
                sending, state=SendState.QUEUED, nonce=None, tx_hash=None, block=None, reason=""
            )
        )

    def _check_last_final(self) -> None:
        """What was final must still be there, or everything built on it is wrong."""
        last = self._outbox.last_final()
        if last is None or last.block is None:
            return
        block = self._chain.block(last.block.number)
        if block is None:
            raise ChainBehind(f"The chain ends before block {last.block.number}, final before.")
        if block.hash != last.block.hash:
            raise ReorgBelowFinality(last.block.number, last.block.hash, block.hash)

    def _step(self, sending: Sending) -> Sending:
        match sending.state:
            case SendState.QUEUED:
                return self._queued(sending)
            case SendState.SIGNED | SendState.SENT | SendState.REVERTED:
                return self._under_way(sending)
            case SendState.INCLUDED:
                return self._included(sending)
            case SendState.FINAL:
                return sending

    # -- QUEUED: nothing signed yet

    def _queued(self, sending: Sending) -> Sending:
        if self._anchored(sending):
            return self._adopted(sending)
        data = self._outbox.data(sending.hash)
        try:
            self._rpc.call(self._chain.config.vault, data, sender=self._signer.address)
        except RpcRefused as refused:
            if not refused.reverted:
                raise
            return replace(sending, reason=f"The vault would refuse it: {revert_of(refused.data)}.")
        tip = max(self._fees.tip_wei, self._rpc.tip())
        max_fee = tip + 2 * self._rpc.base_fee()
        last = self._outbox.last_nonce()
        nonce = max(self._rpc.nonce(self._signer.address), 0 if last is None else last + 1)
        return self._signed(sending, nonce, max_fee, tip)

    def _signed(self, sending: Sending, nonce: int, max_fee: int, tip: int) -> Sending:
        cap = self._fees.max_fee_cap_wei
        if max_fee > cap:
            return replace(
                sending, reason=f"It would cost {max_fee} wei per gas, the cap is {cap}."
            )
        signed = self._signer.sign_transaction(
            Unsigned(
                chain_id=self._chain.config.chain_id,
                nonce=nonce,
                to=self._chain.config.vault,
                data=self._outbox.data(sending.hash),
                gas=self._fees.gas,
                max_fee_wei=max_fee,
                tip_wei=tip,
            )
        )
        attempt = Attempt(
            tx_hash=signed.hash,
            raw=signed.raw,
            nonce=nonce,
            max_fee_wei=max_fee,
            tip_wei=tip,
            sent_at=None,
        )
        return self._outbox.sign(replace(sending, block=None, reason=""), signed, attempt)

    # -- SIGNED, SENT, REVERTED: a nonce is taken

    def _under_way(self, sending: Sending) -> Sending:
        nonce = sending.nonce
        if nonce is None:
            raise InvariantBroken("what is signed has a nonce")
        # The count is asked before the receipts: what it counts must then have a receipt.
        final = self._chain.final()
        address = self._signer.address
        used_for_good = final is not None and self._rpc.nonce(address, final.number) > nonce
        used = used_for_good or self._rpc.nonce(address) > nonce
        attempts = self._outbox.attempts(sending.hash, nonce)
        for attempt in attempts:
            receipt = self._rpc.receipt(attempt.tx_hash)
            if receipt is not None:
                return self._landed(sending, attempt, receipt)
        if used_for_good:
            if self._anchored(sending):
                return self._adopted(sending)
            raise ForeignNonce(address, nonce)
        if used:
            return replace(sending, reason="Its nonce is used and the receipt is not there yet.")
        if sending.state is SendState.REVERTED:
            return _lost(sending)
        return self._broadcast(sending, attempts[0])

    def _landed(self, sending: Sending, attempt: Attempt, receipt: Mapping[str, Any]) -> Sending:
        block = _place(receipt)
        if number_of(receipt["status"]) == 1:
            return replace(
                sending,
                state=SendState.INCLUDED,
                tx_hash=attempt.tx_hash,
                block=block,
                reason="",
            )
        if self._anchored(sending):
            return self._adopted(sending)
        if sending.state is SendState.REVERTED and sending.block == block:
            return sending
        return replace(
            sending,
            state=SendState.REVERTED,
            tx_hash=attempt.tx_hash,
            block=block,
            reason=self._why_reverted(sending),
        )

    def _why_reverted(self, sending: Sending) -> str:
        try:
            data = self._outbox.data(sending.hash)
            self._rpc.call(self._chain.config.vault, data, sender=self._signer.address)
        except RpcRefused as refused:
            return f"The vault refused it: {revert_of(refused.data)}."
        return "The vault refused it then and would take it now."

    def _broadcast(self, sending: Sending, newest: Attempt) -> Sending:
        """Give the newest bytes to the node: once per new head, since pools forget."""
        head = self._chain.head().number
        reason = ""
        if sending.state is SendState.SENT:
            if self._told == (newest.tx_hash, head):
                return sending
            if head - (newest.sent_at or 0) >= self._fees.bump_after_blocks:
                bumped = self._bumped(sending, newest)
                if bumped.tx_hash != newest.tx_hash:
                    return bumped
                reason = bumped.reason
        try:
            self._rpc.send(newest.raw)
        except RpcRefused as refused:
            said = refused.message.lower()
            if any(phrase in said for phrase in TOO_CHEAP):
                return self._bumped(sending, newest)
            if not any(phrase in said for phrase in ALREADY_THERE + NONCE_USED):
                return replace(sending, reason=f"The node refused it: {refused.message}")
        self._told = (newest.tx_hash, head)
        if sending.state is SendState.SIGNED:
            self._outbox.sent(newest.tx_hash, head)
        return replace(sending, state=SendState.SENT, reason=reason)

    def _bumped(self, sending: Sending, newest: Attempt) -> Sending:
        tip = max(_tenth_more(newest.tip_wei), self._fees.tip_wei, self._rpc.tip())
        max_fee = max(_tenth_more(newest.max_fee_wei), tip + 2 * self._rpc.base_fee())
        return self._signed(sending, newest.nonce, max_fee, tip)

    # -- INCLUDED: seen in a block

    def _included(self, sending: Sending) -> Sending:
        final = self._chain.final()
        if sending.tx_hash is None:
            if final is not None and self._anchored(sending, final.hash):
                return replace(sending, state=SendState.FINAL, block=final.position)
            if self._anchored(sending):
                return sending
            return _lost(sending)
        receipt = self._rpc.receipt(sending.tx_hash)
        if receipt is None:
            return _lost(sending)
        block = _place(receipt)
        if block != sending.block or number_of(receipt["status"]) != 1:
            return _lost(sending)
        if final is None or final.number < block.number:
            return sending
        canonical = self._chain.block(block.number)
        if canonical is None or canonical.hash != block.hash:
            return sending
        return replace(sending, state=SendState.FINAL)

    # -- what the chain holds

    def _anchored(self, sending: Sending, block: BlockHash | None = None) -> bool:
        """Whether the vault holds this checkpoint; raises ``CheckpointFork`` on another."""
        found = self._chain.anchored(sending.epoch, block)
        if found is not None and found != sending.hash:
            raise CheckpointFork(sending.epoch, sending.hash, found)
        return found is not None

    def _adopted(self, sending: Sending) -> Sending:
        """It is anchored, by a transaction that is not in our outbox (or not by the one we saw)."""
        return replace(sending, state=SendState.INCLUDED, tx_hash=None, block=None, reason="")


def _lost(sending: Sending) -> Sending:
    """Its block is gone: what is signed is sent again, what was never signed is queued."""
    state = SendState.QUEUED if sending.nonce is None else SendState.SIGNED
    return replace(sending, state=state, block=None, reason="")


def _place(receipt: Mapping[str, Any]) -> L1Position:
    return L1Position(
        number=number_of(receipt["blockNumber"]), hash=BlockHash(bytes_of(receipt["blockHash"]))
    )
