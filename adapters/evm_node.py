"""An EVM node inside this process: py-evm behind the JSON-RPC that the other EVM modules speak.

Every transaction becomes a block of its own at once; nothing comes from chance or a clock, so a
chain is a function of its genesis, its transactions and its block times. It is a web3 provider, and
``answer`` serves the same requests as JSON-RPC bytes, so other processes can reach it as they would
any node.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from eth.abc import BlockHeaderAPI, ComputationAPI, ReceiptAPI, SignedTransactionAPI
from eth.chains.base import MiningChain
from eth.consensus.applier import ConsensusApplier
from eth.consensus.noproof import NoProofConsensus
from eth.db import get_db_backend
from eth.exceptions import HeaderNotFound, PyEVMError
from eth.typing import AccountDetails, HeaderParams
from eth.vm.forks.cancun import CancunVM
from eth.vm.message import Message
from eth_keys.exceptions import BadSignature
from eth_typing import Address as EvmAddress
from eth_typing import BlockNumber
from eth_typing import Hash32 as EvmHash
from eth_utils.exceptions import ValidationError
from rlp.exceptions import RLPException  # type: ignore[import-untyped]
from web3.providers import BaseProvider
from web3.types import RPCEndpoint, RPCResponse

from adapters.evm_rpc import bytes_of, hexed, number_of
from domain import outside_json
from domain.ids import Address

BLOCK_GAS: Final = 30_000_000
TIP_WEI: Final = 10**9
PARSE_ERROR: Final = -32700
NOT_FOUND: Final = -32601
BAD_PARAMETERS: Final = -32602
REFUSED: Final = -32000
REVERTED: Final = 3
HEAD_TAGS: Final = frozenset({"latest", "safe", "finalized", "pending"})


class TransactionRefused(Exception):
    """A transaction that no block can hold; the text is the one that nodes answer with."""


class _Refused(Exception):
    def __init__(self, code: int, message: str, data: bytes = b"") -> None:
        self.error: dict[str, Any] = {"code": code, "message": message}
        if data:
            self.error["data"] = hexed(data)
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class _Included:
    """An executed transaction, kept beside the chain: looking it up there walks all blocks."""

    header: BlockHeaderAPI
    place: int
    transaction: SignedTransactionAPI
    receipt: ReceiptAPI
    computation: ComputationAPI
    gas_used: int
    first_log: int

    def log_rows(self) -> Iterable[dict[str, Any]]:
        """The logs as JSON-RPC shows them."""
        for index, log in enumerate(self.receipt.logs):
            yield {
                "address": hexed(log.address),
                "topics": [hexed(topic.to_bytes(32, "big")) for topic in log.topics],
                "data": hexed(log.data),
                "blockNumber": hex(self.header.block_number),
                "blockHash": hexed(self.header.hash),
                "transactionHash": hexed(self.transaction.hash),
                "transactionIndex": hex(self.place),
                "logIndex": hex(self.first_log + index),
                "removed": False,
            }


def _chain_class(number: int) -> type[MiningChain]:
    class Chain(MiningChain):
        chain_id = number
        vm_configuration = ConsensusApplier(NoProofConsensus).amend_vm_configuration(
            ((BlockNumber(0), CancunVM),)
        )

    return Chain


class EvmNode(BaseProvider):
    """A chain in memory and its JSON-RPC, for any thread.

    ``mine`` is called with a transaction that the node would take, and is to bring it into a block
    by ``execute``: when, and what is kept of it, is the owner's affair.
    """

    def __init__(
        self,
        *,
        chain_id: int,
        genesis_s: int,
        coin_wei: Mapping[Address, int],
        mine: Callable[[Sequence[bytes]], None],
    ) -> None:
        super().__init__()
        self._mine = mine
        self.lock = threading.RLock()
        self._included: dict[bytes, _Included] = {}
        self._in_block: dict[bytes, list[_Included]] = {}
        header: dict[str, HeaderParams] = {
            "difficulty": 0,
            "gas_limit": BLOCK_GAS,
            "timestamp": genesis_s,
            "coinbase": bytes(20),
            "nonce": bytes(8),
            "mix_hash": bytes(32),
            "extra_data": b"synor",
        }
        accounts: dict[EvmAddress, AccountDetails] = {
            EvmAddress(address): {"balance": wei, "nonce": 0, "code": b"", "storage": {}}
            for address, wei in coin_wei.items()
        }
        chain = _chain_class(chain_id).from_genesis(get_db_backend(), header, accounts)
        self._chain = cast(MiningChain, chain)  # py-evm states only the base class
        self._methods: Mapping[str, Callable[..., object]] = {
            "eth_chainId": lambda: hex(chain_id),
            "net_version": lambda: str(chain_id),
            "eth_blockNumber": lambda: hex(self.head().block_number),
            "eth_getBlockByNumber": self._block_by_number,
            "eth_getBlockByHash": self._block_by_hash,
            "eth_getCode": self._code,
            "eth_getBalance": self._balance,
            "eth_getTransactionCount": self._transaction_count,
            "eth_call": self._call,
            "eth_getLogs": self._logs,
            "eth_getTransactionReceipt": self._receipt,
            "eth_sendRawTransaction": self._send,
            "eth_maxPriorityFeePerGas": lambda: hex(TIP_WEI),
            "eth_gasPrice": lambda: hex(TIP_WEI + (self.head().base_fee_per_gas or 0)),
        }

    def head(self) -> BlockHeaderAPI:
        """The newest header."""
        return self._chain.get_canonical_head()

    def execute(self, raws: Sequence[bytes], time_s: int) -> BlockHeaderAPI:
        """Add a block of these transactions at this time, which is later than the head's.

        Raises ``TransactionRefused`` and adds nothing if one of them does not fit.
        """
        chain = self._chain
        parent = chain.get_canonical_head()
        # py-evm would let the gas limit drift towards the use.
        chain.header = chain.create_header_from_parent(parent, gas_limit=parent.gas_limit).copy(
            timestamp=time_s, mix_hash=bytes(32)
        )
        try:
            transactions = [self._decoded(raw) for raw in raws]
            imported, receipts, computations = chain.mine_all(transactions)
        except (ValidationError, PyEVMError, BadSignature) as refused:
            raise TransactionRefused(str(refused)) from refused
        header = imported.imported_block.header
        rows: list[_Included] = []
        gas_before, logs_before = 0, 0
        for place, (transaction, receipt, computation) in enumerate(
            zip(transactions, receipts, computations, strict=True)
        ):
            gas_used = receipt.gas_used - gas_before
            row = _Included(header, place, transaction, receipt, computation, gas_used, logs_before)
            gas_before, logs_before = receipt.gas_used, logs_before + len(receipt.logs)
            rows.append(row)
            self._included[bytes(transaction.hash)] = row
        self._in_block[bytes(header.hash)] = rows
        return header

    def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        """Answer a request of web3."""
        answer: dict[str, Any] = {"jsonrpc": "2.0", "id": 1}
        asked = self._methods.get(method)
        with self.lock:
            try:
                if asked is None:
                    raise _Refused(NOT_FOUND, f"the method {method} does not exist")
                answer["result"] = asked(*params)
            except _Refused as refused:
                answer["error"] = refused.error
            except (ValidationError, TypeError, KeyError, ValueError, AttributeError) as wrong:
                answer["error"] = {"code": BAD_PARAMETERS, "message": f"{method}: {wrong}"}
        return answer  # type: ignore[return-value]

    def is_connected(self, show_traceback: bool = False) -> bool:
        """Always: the chain is in this process."""
        return True

    def answer(self, body: bytes) -> bytes:
        """Answer one JSON-RPC request (no batch) that came over some transport."""
        try:
            asked = outside_json.parse(body)
            method, params, number = asked["method"], asked.get("params", []), asked.get("id")
        except (ValueError, KeyError, TypeError, AttributeError):
            error = {"code": PARSE_ERROR, "message": "this is no JSON-RPC request"}
            return json.dumps({"jsonrpc": "2.0", "id": None, "error": error}).encode()
        return json.dumps({**self.make_request(RPCEndpoint(method), params), "id": number}).encode()

    def _decoded(self, raw: bytes) -> SignedTransactionAPI:
        try:
            return self._chain.get_vm().get_transaction_builder().decode(raw)
        except (RLPException, PyEVMError, ValidationError, ValueError, TypeError) as broken:
            raise TransactionRefused(f"the transaction does not decode: {broken}") from broken

    # -- the methods, by the names of JSON-RPC

    def _header(self, which: Any) -> BlockHeaderAPI | None:
        """The canonical header of a number, tag or hash; None if there is none."""
        head = self.head()
        if isinstance(which, dict):
            if "blockHash" in which:
                return self._header_of_hash(which["blockHash"])
            which = which["blockNumber"]
        if which in HEAD_TAGS:
            return head
        number = 0 if which == "earliest" else number_of(which)
        if number > head.block_number:
            return None
        return self._chain.get_canonical_block_header_by_number(BlockNumber(number))

    def _header_of_hash(self, block_hash: str) -> BlockHeaderAPI | None:
        try:
            return self._chain.get_block_header_by_hash(EvmHash(bytes_of(block_hash)))
        except HeaderNotFound:
            return None

    def _known(self, which: Any) -> BlockHeaderAPI:
        header = self._header(which)
        if header is None:
            raise _Refused(REFUSED, "header not found")
        return header

    def _block_by_number(self, which: str, full: bool = False) -> object:
        return self._shown(self._header(which))

    def _block_by_hash(self, block_hash: str, full: bool = False) -> object:
        return self._shown(self._header_of_hash(block_hash))

    def _shown(self, header: BlockHeaderAPI | None) -> object:
        if header is None:
            return None
        return {
            "number": hex(header.block_number),
            "hash": hexed(header.hash),
            "parentHash": hexed(header.parent_hash),
            "timestamp": hex(header.timestamp),
            "stateRoot": hexed(header.state_root),
            "transactionsRoot": hexed(header.transaction_root),
            "receiptsRoot": hexed(header.receipt_root),
            "miner": hexed(header.coinbase),
            "gasLimit": hex(header.gas_limit),
            "gasUsed": hex(header.gas_used),
            "baseFeePerGas": hex(header.base_fee_per_gas or 0),
            "extraData": hexed(header.extra_data),
            "transactions": [
                hexed(row.transaction.hash) for row in self._in_block.get(bytes(header.hash), ())
            ],
        }

    def _code(self, address: str, which: Any = "latest") -> str:
        state = self._chain.get_vm(self._known(which)).state
        return hexed(state.get_code(EvmAddress(bytes_of(address))))

    def _balance(self, address: str, which: Any = "latest") -> str:
        state = self._chain.get_vm(self._known(which)).state
        return hex(state.get_balance(EvmAddress(bytes_of(address))))

    def _transaction_count(self, address: str, which: Any = "latest") -> str:
        state = self._chain.get_vm(self._known(which)).state
        return hex(state.get_nonce(EvmAddress(bytes_of(address))))

    def _call(self, request: Mapping[str, str], which: Any = "latest") -> str:
        # A message and no transaction, so that the caller needs neither coin nor nonce. The state
        # belongs to this VM and is thrown away with it.
        state = self._chain.get_vm(self._known(which)).state
        to = EvmAddress(bytes_of(request["to"]))
        sender = EvmAddress(bytes_of(request.get("from", hexed(bytes(20)))))
        data = bytes_of(request.get("data", request.get("input", "0x")))
        message = Message(
            gas=BLOCK_GAS, to=to, sender=sender, value=0, data=data, code=state.get_code(to)
        )
        context = state.get_transaction_context_class()(gas_price=0, origin=sender)
        computation = state.get_computation(message, context).apply_message(state, message, context)
        if computation.is_error:
            output = bytes(computation.output)
            raise _Refused(REVERTED, f"execution reverted: {computation.error!r}", output)
        return hexed(computation.output)

    def _logs(self, asked: Mapping[str, Any]) -> list[dict[str, Any]]:
        if "blockHash" in asked:
            headers = [self._known({"blockHash": asked["blockHash"]})]
        else:
            first = self._known(asked.get("fromBlock", "latest")).block_number
            last = self._known(asked.get("toBlock", "latest")).block_number
            headers = [self._known(hex(number)) for number in range(first, last + 1)]
        address = asked.get("address")
        wanted = [address] if isinstance(address, str) else address
        lowered = None if wanted is None else {one.lower() for one in wanted}
        return [
            log
            for header in headers
            for row in self._in_block.get(bytes(header.hash), ())
            for log in row.log_rows()
            if lowered is None or log["address"] in lowered
        ]

    def _receipt(self, transaction: str) -> object:
        row = self._included.get(bytes_of(transaction))
        if row is None:
            return None
        created = row.computation.msg.storage_address if row.transaction.to == b"" else None
        return {
            "transactionHash": hexed(row.transaction.hash),
            "transactionIndex": hex(row.place),
            "blockHash": hexed(row.header.hash),
            "blockNumber": hex(row.header.block_number),
            "from": hexed(row.transaction.sender),
            "to": None if created is not None else hexed(row.transaction.to),
            "contractAddress": None if created is None else hexed(created),
            "status": "0x1" if row.computation.is_success else "0x0",
            "gasUsed": hex(row.gas_used),
            "cumulativeGasUsed": hex(row.receipt.gas_used),
            "effectiveGasPrice": hex(row.header.base_fee_per_gas or 0),
            "logsBloom": hexed(row.receipt.bloom.to_bytes(256, "big")),
            "type": hex(row.transaction.type_id or 0),
            "logs": list(row.log_rows()),
        }

    def _send(self, raw: str) -> str:
        try:
            transaction = self._decoded(bytes_of(raw))
            if bytes(transaction.hash) in self._included:
                raise TransactionRefused("already known")
            # py-evm executes transactions that are signed for another chain.
            if transaction.chain_id != self._chain.chain_id:
                raise TransactionRefused(
                    f"invalid chain id for signer: {transaction.chain_id}, here it is"
                    f" {self._chain.chain_id}"
                )
            count = self._chain.get_vm(self.head()).state.get_nonce(transaction.sender)
            if transaction.nonce != count:
                low = "low" if transaction.nonce < count else "high"
                raise TransactionRefused(
                    f"nonce too {low}: next nonce {count}, tx nonce {transaction.nonce}"
                )
            self._mine([bytes_of(raw)])
        except TransactionRefused as refused:
            raise _Refused(REFUSED, str(refused)) from refused
        return hexed(transaction.hash)
