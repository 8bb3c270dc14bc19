"""What a person does on chain: look at a balance, deposit, claim.

A call is tried on the node before it is signed, so a refusal costs nothing and has the contract's
own name. A wallet keeps nothing: who loses the answer looks at the chain.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from adapters.evm_keys import Signer, Unsigned
from adapters.evm_rpc import Rpc, RpcRefused, number_of
from adapters.evm_vault import Revert, call_data, claim_data, revert_of
from domain.ids import Address, Hash32
from domain.l1 import WEI_PER_NANO, AccountWord, L1Config, L1Error, TxHash
from domain.payout_tree import Payout

GAS: Final = 250_000
TIP_WEI: Final = 10**9
POLL_S: Final = 0.2


class CallRefused(L1Error):
    """The contract refuses the call; ``revert`` is its error."""

    def __init__(self, revert: Revert) -> None:
        self.revert = revert
        super().__init__(f"The contract refuses: {revert}.")


class NotIncluded(L1Error):
    """No block took the transaction in time; it may still come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wallet:
    """One signer at one vault. ``wait_s`` bounds the wait for a block."""

    rpc: Rpc
    config: L1Config
    signer: Signer
    wait_s: float = 60.0

    def balance_nano(self, address: Address | None = None) -> int:
        """Tokens of an address (default: the signer's), in whole nanos."""
        return balance_nano(self.rpc, self.config, address or self.signer.address)

    def deposit(self, account: AccountWord, amount_nano: int) -> TxHash:
        """Put tokens into the vault for a ledger account: approve what is missing, then deposit.

        Raises ``CallRefused``, ``NotIncluded`` or another ``L1Error``.
        """
        wei = amount_nano * WEI_PER_NANO
        token, vault = self.config.token, self.config.vault
        asked = call_data("allowance(address,address)", self.signer.address, vault)
        if int.from_bytes(self.rpc.call(token, asked), "big") < wei:
            self.send(token, call_data("approve(address,uint256)", vault, wei))
        return self.send(vault, call_data("deposit(bytes32,uint256)", account, wei))

    def claim(self, payout: Payout, proof: Sequence[Hash32]) -> TxHash:
        """Have the vault pay an account; anyone may pay the fee for it. Raises as ``deposit``."""
        data = claim_data(payout.account, payout.payee, payout.cumulative_nano, proof)
        return self.send(self.config.vault, data)

    def send(self, to: Address, data: bytes) -> TxHash:
        """Try a call, sign it, send it and wait for its block."""
        try:
            self.rpc.call(to, data, sender=self.signer.address)
        except RpcRefused as refused:
            if not refused.reverted:
                raise
            raise CallRefused(revert_of(refused.data)) from refused
        signed = self.signer.sign_transaction(
            Unsigned(
                chain_id=self.config.chain_id,
                nonce=self.rpc.nonce(self.signer.address, "pending"),
                to=to,
                data=data,
                gas=GAS,
                max_fee_wei=TIP_WEI + 2 * self.rpc.base_fee(),
                tip_wei=TIP_WEI,
            )
        )
        self.rpc.send(signed.raw)
        return self._included(signed.hash)

    def _included(self, transaction: TxHash) -> TxHash:
        give_up = time.monotonic() + self.wait_s
        while (receipt := self.rpc.receipt(transaction)) is None:
            if time.monotonic() >= give_up:
                raise NotIncluded(f"No block has 0x{transaction.hex()} after {self.wait_s} s.")
            time.sleep(POLL_S)
        if number_of(receipt["status"]) != 1:
            raise L1Error(f"Transaction 0x{transaction.hex()} was included and reverted.")
        return transaction


def balance_nano(rpc: Rpc, config: L1Config, address: Address) -> int:
    """Tokens of an address in whole nanos; what is below a nano is not counted."""
    answer = rpc.call(config.token, call_data("balanceOf(address)", address))
    return int.from_bytes(answer, "big") // WEI_PER_NANO
