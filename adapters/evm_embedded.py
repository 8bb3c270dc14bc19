"""The default L1: a whole EVM chain in this process, kept in one SQLite file.

It exists so that the ledger settles on real contracts with no server to install. The file holds
what the chain is a function of: its transactions and block times (keys and genesis come from the
caller). At start every block is executed again and must come out with the hash it had, so a damaged
file or a changed EVM is found out instead of believed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from eth.abc import BlockHeaderAPI

from adapters.evm_deploy import Roles, deploy
from adapters.evm_keccak import keccak
from adapters.evm_keys import LocalSigner, Unsigned, dev_key
from adapters.evm_node import TIP_WEI, EvmNode, TransactionRefused
from adapters.evm_rpc import Rpc, number_of
from adapters.evm_vault import call_data
from domain.ids import Address, Hash32
from domain.l1 import (
    WEI_PER_NANO,
    BlockHash,
    Depth,
    L1Config,
    L1Error,
    L1Fault,
    L1Position,
    TxHash,
)

CHAIN_ID: Final = 7_411_967
COIN_WEI: Final = 10**27  # what the faucet has of the chain's own coin, for fees
COIN_PER_PERSON_WEI: Final = 10**19
SUPPLY_NANO: Final = 10**9 * 10**9  # a thousand million SYNOR
TRANSFER_GAS: Final = 100_000

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS blocks (
    number INTEGER PRIMARY KEY, time_s INTEGER NOT NULL, hash BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS transactions (
    block INTEGER NOT NULL, place INTEGER NOT NULL, raw BLOB NOT NULL, PRIMARY KEY (block, place)
) STRICT;
CREATE TABLE IF NOT EXISTS contracts (
    vault BLOB NOT NULL, token BLOB NOT NULL, start INTEGER NOT NULL
) STRICT;
"""


class ChainInUse(L1Error):
    """Another process has the embedded chain open: it has one writer."""


class EmbeddedChainDiverged(L1Fault):
    """Executing the stored transactions again gives another chain than the one stored."""


class EmbeddedChain:
    """The chain with its file, its keys and its contracts; ``node`` is its provider.

    ``seed`` gives the keys of the faucet (which holds the token's supply and is the vault's admin),
    the proposer and the guardian. ``clock`` gives the time of the next block in seconds, raised to
    one more than the last block's where it is not later. ``path`` None keeps it in memory.

    Raises ``ChainInUse`` and ``EmbeddedChainDiverged``.
    """

    def __init__(
        self, path: Path | None, *, seed: bytes, clock: Callable[[], int], genesis_s: int = 0
    ) -> None:
        self._seed = seed
        self._clock = clock
        self.faucet = self.person("faucet")
        self.proposer = self.person("proposer")
        self.guardian = self.person("guardian")
        self.node = EvmNode(
            chain_id=CHAIN_ID,
            genesis_s=genesis_s,
            coin_wei={
                self.faucet.address: COIN_WEI,
                self.proposer.address: COIN_WEI,
                self.guardian.address: COIN_WEI,
            },
            mine=self._add,
        )
        self.rpc = Rpc(self.node)
        self._file = _open(path)
        try:
            self._run_again()
            self.config = self._contracts()
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Release the file."""
        self._file.close()

    def person(self, name: str) -> LocalSigner:
        """The key of a named person of this development chain."""
        return dev_key(self._seed, name)

    def fund(self, address: Address, amount_nano: int) -> None:
        """Give an address tokens from the faucet, and coin for fees if it has little."""
        with self.node.lock:
            if self.rpc.balance(address) < COIN_PER_PERSON_WEI // 10:
                self._from_faucet(address, b"", COIN_PER_PERSON_WEI)
            if amount_nano:
                wei = amount_nano * WEI_PER_NANO
                data = call_data("transfer(address,uint256)", address, wei)
                self._from_faucet(self.config.token, data, 0)

    def mine(self, blocks: int = 1) -> None:
        """Add empty blocks: how confirmations come without transactions."""
        with self.node.lock:
            for _ in range(blocks):
                self._add([])

    def _run_again(self) -> None:
        rows = self._file.execute("SELECT number, time_s, hash FROM blocks ORDER BY number")
        stored = rows.fetchall()
        if not stored:
            self._keep(self.node.head(), [])
            return
        if stored[0][2] != self.node.head().hash:
            raise EmbeddedChainDiverged(
                "The file holds the chain of another seed, genesis time or version of the EVM."
            )
        for number, time_s, block_hash in stored[1:]:
            raws = self._file.execute(
                "SELECT raw FROM transactions WHERE block = ? ORDER BY place", (number,)
            ).fetchall()
            try:
                header = self.node.execute([raw for (raw,) in raws], time_s)
            except TransactionRefused as refused:
                raise EmbeddedChainDiverged(
                    f"A transaction of block {number} no longer fits: {refused}."
                ) from refused
            if header.hash != block_hash:
                raise EmbeddedChainDiverged(
                    f"Block {number} was 0x{block_hash.hex()} and came out as {header.hex_hash}."
                )

    def _add(self, raws: Sequence[bytes]) -> None:
        """Mine a block at the clock's time and keep it before anyone is told of it."""
        time_s = max(self._clock(), self.node.head().timestamp + 1)
        self._keep(self.node.execute(raws, time_s), raws)

    def _keep(self, header: BlockHeaderAPI, raws: Sequence[bytes]) -> None:
        number = header.block_number
        with self._file:
            self._file.execute(
                "INSERT INTO blocks (number, time_s, hash) VALUES (?, ?, ?)",
                (number, header.timestamp, bytes(header.hash)),
            )
            self._file.executemany(
                "INSERT INTO transactions (block, place, raw) VALUES (?, ?, ?)",
                [(number, place, raw) for place, raw in enumerate(raws)],
            )

    def _contracts(self) -> L1Config:
        found = self._file.execute("SELECT vault, token, start FROM contracts").fetchone()
        if found is None:
            return self._deployed()
        vault, token, number = found
        block = self.rpc.block(number)
        if block is None:
            raise EmbeddedChainDiverged(f"The file has contracts from a block {number} it lacks.")
        return L1Config(
            chain_id=CHAIN_ID,
            vault=Address(vault),
            token=Address(token),
            code_hash=Hash32(keccak(self.rpc.code(Address(vault)))),
            start=L1Position(number=number, hash=BlockHash(block.hash)),
            finality=Depth(confirmations=0),
        )

    def _deployed(self) -> L1Config:
        roles = Roles(
            admin=self.faucet.address,
            proposer=self.proposer.address,
            guardian=self.guardian.address,
        )
        made = deploy(
            self.rpc, self.faucet, roles, SUPPLY_NANO, Depth(confirmations=0), _included_at_once
        )
        with self._file:
            self._file.execute(
                "INSERT INTO contracts (vault, token, start) VALUES (?, ?, ?)",
                (made.vault, made.token, made.start.number),
            )
        return made

    def _from_faucet(self, to: Address, data: bytes, value_wei: int) -> None:
        signed = self.faucet.sign_transaction(
            Unsigned(
                chain_id=CHAIN_ID,
                nonce=self.rpc.nonce(self.faucet.address),
                to=to,
                data=data,
                gas=TRANSFER_GAS,
                max_fee_wei=TIP_WEI + 2 * self.rpc.base_fee(),
                tip_wei=TIP_WEI,
                value_wei=value_wei,
            )
        )
        self.rpc.send(signed.raw)
        receipt = self.rpc.receipt(signed.hash)
        if receipt is None or number_of(receipt["status"]) != 1:
            raise L1Error("The faucet has not enough left to give.")


def _included_at_once(transaction: TxHash) -> None:
    """This chain answers a send when the transaction is in a block."""


def _open(path: Path | None) -> sqlite3.Connection:
    file = sqlite3.connect(":memory:" if path is None else path, timeout=0, check_same_thread=False)
    try:
        # Kept for as long as the process lives: a second writer would fork the file.
        file.execute("PRAGMA locking_mode = EXCLUSIVE")
        file.execute("PRAGMA journal_mode = WAL")
        file.execute("PRAGMA synchronous = FULL")
        file.executescript(SCHEMA)
        file.execute("BEGIN EXCLUSIVE")
        file.execute("COMMIT")
    except sqlite3.OperationalError as locked:
        file.close()
        raise ChainInUse(f"The embedded chain at {path} cannot be opened: {locked}.") from locked
    return file
