"""The L1 chain port over JSON-RPC: any node by URL, or the embedded chain in this process."""

from __future__ import annotations

from collections.abc import Sequence

from eth_abi.abi import decode

from adapters.evm_keccak import keccak
from adapters.evm_rpc import Rpc, RpcRefused, bytes_of, hexed
from adapters.evm_vault import call_data, event_of
from domain.ids import Address, Hash32
from domain.l1 import (
    NO_HASH,
    TOKEN_DECIMALS,
    WEI_PER_NANO,
    AccountWord,
    BlockHash,
    Depth,
    L1Block,
    L1Config,
    L1Error,
    L1Event,
    PinMismatch,
    Tagged,
    VaultTotals,
)


class EvmChain:
    """One vault on one chain, checked against its pins when made."""

    def __init__(self, rpc: Rpc, config: L1Config) -> None:
        self._rpc = rpc
        self._config = config
        self.check()

    @property
    def config(self) -> L1Config:
        return self._config

    def check(self) -> None:
        pinned = self._config
        _same("chain id", pinned.chain_id, self._rpc.chain_id())
        start = self._rpc.block(pinned.start.number)
        found = "absent" if start is None else hexed(start.hash)
        _same(f"hash of block {pinned.start.number}", hexed(pinned.start.hash), found)
        code_hash = keccak(self._rpc.code(pinned.vault))
        _same("hash of the vault's code", hexed(pinned.code_hash), hexed(code_hash))
        token = Address(self._ask("token()")[12:])
        _same("vault's token", hexed(pinned.token), hexed(token))
        _same("number of the token's decimals", TOKEN_DECIMALS, pinned.token_decimals)
        answer = self._rpc.call(pinned.token, call_data("decimals()"))
        _same(
            "number of the token's decimals", pinned.token_decimals, int.from_bytes(answer, "big")
        )

    def head(self) -> L1Block:
        return self._rpc.head()

    def final(self) -> L1Block | None:
        match self._config.finality:
            case Depth(confirmations=0):
                return self._rpc.head()
            case Depth(confirmations=confirmations):
                number = self._rpc.head().number - confirmations
                return self._rpc.block(number) if number >= 0 else None
            case Tagged(tag=tag):
                return self._rpc.block(tag)

    def block(self, number: int) -> L1Block | None:
        return self._rpc.block(number)

    def events(self, block: BlockHash) -> Sequence[L1Event]:
        asked = {"address": hexed(self._config.vault), "blockHash": hexed(block)}
        logs = self._rpc.ask("eth_getLogs", asked)
        if any(bytes_of(log["blockHash"]) != block or log.get("removed") for log in logs):
            raise L1Error("The node answered with logs of another block than the one asked for.")
        logs = sorted(logs, key=lambda log: int(log["logIndex"], 16))
        return [event for log in logs if (event := event_of(log)) is not None]

    def anchored(self, epoch: int, block: BlockHash | None = None) -> Hash32 | None:
        found = Hash32(self._ask("checkpointHash(uint64)", epoch, block=block))
        return None if found == NO_HASH else found

    def totals(self, block: BlockHash | None = None) -> VaultTotals:
        # One block for all five, so that they are of one moment.
        at = self._rpc.head().hash if block is None else block
        return VaultTotals(
            deposited_nano=self._nano("depositedTotal()", block=at),
            authorised_nano=self._nano("authorisedTotal()", block=at),
            paid_nano=self._nano("paidTotal()", block=at),
            last_epoch=int.from_bytes(self._ask("lastEpoch()", block=at), "big"),
            payout_root=Hash32(self._ask("payoutRoot()", block=at)),
        )

    def claimed_nano(self, account: AccountWord) -> int:
        return self._nano("claimed(bytes32)", account)

    def _nano(self, signature: str, *arguments: object, block: BlockHash | None = None) -> int:
        (wei,) = decode(["uint256"], self._ask(signature, *arguments, block=block))
        return int(wei) // WEI_PER_NANO

    def _ask(self, signature: str, *arguments: object, block: BlockHash | None = None) -> bytes:
        answer = self._rpc.call(self._config.vault, call_data(signature, *arguments), block=block)
        if len(answer) != 32:
            raise L1Error(f"The vault's {signature} answered {len(answer)} bytes, not a word.")
        return answer


def _same(pin: str, expected: object, found: object) -> None:
    if expected != found:
        raise PinMismatch(pin, expected, found)


def read_config(rpc: Rpc, vault: Address, start: int, finality: Depth | Tagged) -> L1Config:
    """The facts of a vault as a chain states them now, to be pinned by a person who trusts it.

    ``start`` is a block at or after the vault's creation and before its first deposit.
    """
    block = rpc.block(start)
    if block is None:
        raise L1Error(f"The chain has no block {start} to start from.")
    try:
        token = Address(rpc.call(vault, call_data("token()"))[12:])
        decimals = int.from_bytes(rpc.call(token, call_data("decimals()")), "big")
    except RpcRefused as refused:
        raise L1Error(f"There is no vault at {hexed(vault)}: {refused}") from refused
    return L1Config(
        chain_id=rpc.chain_id(),
        vault=vault,
        token=token,
        code_hash=Hash32(keccak(rpc.code(vault))),
        start=block.position,
        finality=finality,
        token_decimals=decimals,
    )
