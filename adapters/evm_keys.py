"""Keys that sign transactions: the interface, a key in memory, and the keys of development chains.

A key of a hardware or cloud signer fulfils ``Signer`` as well; nothing above knows the secret.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from eth_account import Account
from eth_utils.address import to_canonical_address, to_checksum_address

from adapters.evm_keccak import keccak
from domain.ids import Address
from domain.l1 import TxHash


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsigned:
    """A transaction with EIP-1559 fees, in wei per gas. ``to`` None creates a contract."""

    chain_id: int
    nonce: int
    to: Address | None
    data: bytes
    gas: int
    max_fee_wei: int
    tip_wei: int
    value_wei: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """Signed bytes and their hash, by which the chain knows the transaction."""

    raw: bytes
    hash: TxHash


class Signer(Protocol):
    """Signs with one key. The same input gives the same bytes (RFC 6979)."""

    @property
    def address(self) -> Address:
        """The address that the chain derives from the key."""
        ...

    def sign_transaction(self, unsigned: Unsigned) -> Signed:
        """Sign; the chain id is part of what is signed."""
        ...


class LocalSigner:
    """A key in this process's memory."""

    def __init__(self, secret: bytes) -> None:
        self._account = Account.from_key(secret)
        self._address = Address(bytes(to_canonical_address(self._account.address)))

    @property
    def address(self) -> Address:
        return self._address

    def sign_transaction(self, unsigned: Unsigned) -> Signed:
        signed = self._account.sign_transaction(
            {
                "type": 2,
                "chainId": unsigned.chain_id,
                "nonce": unsigned.nonce,
                "to": b"" if unsigned.to is None else to_checksum_address(unsigned.to),
                "data": unsigned.data,
                "gas": unsigned.gas,
                "value": unsigned.value_wei,
                "maxFeePerGas": unsigned.max_fee_wei,
                "maxPriorityFeePerGas": unsigned.tip_wei,
            }
        )
        return Signed(raw=bytes(signed.raw_transaction), hash=TxHash(bytes(signed.hash)))


def dev_key(seed: bytes, name: str) -> LocalSigner:
    """The key of a named person on a development chain: anyone with the seed has it."""
    return LocalSigner(keccak(b"synor-dev-l1-v1\0" + keccak(seed) + name.encode()))
