"""Creates a token and a vault on a chain that has none yet: development chains and tests.

A production vault is created once, by people who hold its admin key; the ledger only pins it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from adapters.evm_keccak import keccak
from adapters.evm_keys import Signer, Unsigned
from adapters.evm_rpc import Rpc, bytes_of, number_of
from adapters.evm_vault import token_creation, vault_code_hash, vault_creation
from domain.ids import Address, Hash32
from domain.l1 import FinalityPolicy, L1Config, L1Error, L1Position, PinMismatch, TxHash

CREATION_GAS: Final = 3_000_000
TIP_WEI: Final = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """Who may do what in a new vault; on a real chain five different keys."""

    admin: Address
    proposer: Address
    guardian: Address
    admin_delay_s: int = 0


def deploy(
    rpc: Rpc,
    creator: Signer,
    roles: Roles,
    supply_nano: int,
    finality: FinalityPolicy,
    included: Callable[[TxHash], None],
) -> L1Config:
    """Create the token, its supply with the creator, and the vault over it; the facts to pin.

    ``included`` returns when a transaction is in a block: it mines, or waits.
    """
    token, _ = _create(rpc, creator, token_creation(creator.address, supply_nano), included)
    made = vault_creation(token, roles.admin, roles.admin_delay_s, roles.proposer, roles.guardian)
    vault, start = _create(rpc, creator, made, included)
    code_hash = Hash32(keccak(rpc.code(vault)))
    if code_hash != vault_code_hash(token):
        raise PinMismatch("code of the new vault", vault_code_hash(token).hex(), code_hash.hex())
    return L1Config(
        chain_id=rpc.chain_id(),
        vault=vault,
        token=token,
        code_hash=code_hash,
        start=start,
        finality=finality,
    )


def _create(
    rpc: Rpc, creator: Signer, code: bytes, included: Callable[[TxHash], None]
) -> tuple[Address, L1Position]:
    signed = creator.sign_transaction(
        Unsigned(
            chain_id=rpc.chain_id(),
            nonce=rpc.nonce(creator.address),
            to=None,
            data=code,
            gas=CREATION_GAS,
            max_fee_wei=TIP_WEI + 2 * rpc.base_fee(),
            tip_wei=TIP_WEI,
        )
    )
    rpc.send(signed.raw)
    included(signed.hash)
    receipt = rpc.receipt(signed.hash)
    if receipt is None or number_of(receipt["status"]) != 1:
        raise L1Error(f"The contract was not created by 0x{signed.hash.hex()}.")
    block = rpc.block(number_of(receipt["blockNumber"]))
    if block is None:
        raise L1Error("The block of the new contract is gone again.")
    return Address(bytes_of(receipt["contractAddress"])), block.position
