"""Raw JSON-RPC over any web3 provider: bytes and integers in and out, errors by kind.

web3's own layers are passed by on purpose: its HTTP provider repeats ``eth_sendRawTransaction`` on
a lost answer unless told not to, its chain-id check leaves raw sends out, and a revert reaches us
best as the bytes the node sent. The provider, and so the transport, is web3's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from web3 import HTTPProvider
from web3.exceptions import Web3Exception
from web3.providers import BaseProvider
from web3.types import RPCEndpoint

from domain.ids import Address
from domain.l1 import BlockHash, L1Block, L1Error, L1Unreachable, TxHash

ANSWER_WITHIN_S: Final = 10


class RpcRefused(L1Error):
    """The node answered with an error; ``data`` holds revert bytes if there are any."""

    def __init__(self, method: str, code: int, message: str, data: bytes) -> None:
        self.code = code
        self.message = message
        self.data = data
        super().__init__(f"{method}: {message} (code {code})")

    @property
    def reverted(self) -> bool:
        """Whether a contract refused the call, as against the node."""
        return bool(self.data) or "revert" in self.message.lower()


def hexed(data: bytes) -> str:
    """Bytes as JSON-RPC writes them."""
    return "0x" + data.hex()


def bytes_of(text: str) -> bytes:
    """Bytes from JSON-RPC's hexadecimal."""
    return bytes.fromhex(text[2:])


def number_of(text: str) -> int:
    """A number from JSON-RPC's hexadecimal."""
    return int(text, 16)


def block_of(found: Mapping[str, Any]) -> L1Block:
    """The head of a block from JSON-RPC's answer."""
    return L1Block(
        number=number_of(found["number"]),
        hash=BlockHash(bytes_of(found["hash"])),
        parent=BlockHash(bytes_of(found["parentHash"])),
        time_s=number_of(found["timestamp"]),
    )


def http_provider(url: str) -> HTTPProvider:
    """A provider that sends every request once: who may repeat it is decided above."""
    return HTTPProvider(
        url, request_kwargs={"timeout": ANSWER_WITHIN_S}, exception_retry_configuration=None
    )


class Rpc:
    """The few questions we put to a node. One thread at a time."""

    def __init__(self, provider: BaseProvider) -> None:
        self._provider = provider

    def ask(self, method: str, *parameters: object) -> Any:
        """The result of one request, sent once.

        Raises ``L1Unreachable`` without an answer, ``RpcRefused`` with an error for an answer.
        """
        try:
            answer = self._provider.make_request(RPCEndpoint(method), list(parameters))
        except (OSError, ValueError, Web3Exception) as lost:
            raise L1Unreachable(f"{method}: {lost}") from lost
        error = answer.get("error")
        if error is None:
            return answer.get("result")
        if isinstance(error, str):
            raise RpcRefused(method, 0, error, b"")
        data = error.get("data")
        revert = bytes_of(data) if isinstance(data, str) and data.startswith("0x") else b""
        raise RpcRefused(method, error.get("code", 0), error.get("message", ""), revert)

    def chain_id(self) -> int:
        """The chain id the node states."""
        return number_of(self.ask("eth_chainId"))

    def block(self, which: int | str) -> L1Block | None:
        """The canonical block of a number or tag; None if there is none."""
        name = hex(which) if isinstance(which, int) else which
        found = self.ask("eth_getBlockByNumber", name, False)
        return None if found is None else block_of(found)

    def head(self) -> L1Block:
        """The newest block."""
        found = self.block("latest")
        if found is None:
            raise L1Unreachable("The node has no block at all.")
        return found

    def code(self, address: Address) -> bytes:
        """The code at an address, at the head."""
        return bytes_of(self.ask("eth_getCode", hexed(address), "latest"))

    def call(
        self,
        to: Address,
        data: bytes,
        *,
        sender: Address | None = None,
        block: BlockHash | None = None,
    ) -> bytes:
        """What a call returns, at a canonical block (default: the head)."""
        request = {"to": hexed(to), "data": hexed(data)}
        if sender is not None:
            request["from"] = hexed(sender)
        at: object = "latest"
        if block is not None:
            at = {"blockHash": hexed(block), "requireCanonical": True}
        return bytes_of(self.ask("eth_call", request, at))

    def nonce(self, address: Address, which: int | str = "latest") -> int:
        """How many transactions of an address are in the chain up to a block."""
        name = hex(which) if isinstance(which, int) else which
        return number_of(self.ask("eth_getTransactionCount", hexed(address), name))

    def receipt(self, transaction: TxHash) -> Mapping[str, Any] | None:
        """The receipt of an included transaction; None while it is in no block."""
        found: Mapping[str, Any] | None = self.ask("eth_getTransactionReceipt", hexed(transaction))
        return found

    def send(self, raw: bytes) -> None:
        """Give signed bytes to the node."""
        self.ask("eth_sendRawTransaction", hexed(raw))

    def base_fee(self) -> int:
        """The base fee of the newest block, in wei per gas."""
        found = self.ask("eth_getBlockByNumber", "latest", False)
        return number_of(found["baseFeePerGas"])

    def tip(self) -> int:
        """The tip that the node suggests, in wei per gas."""
        return number_of(self.ask("eth_maxPriorityFeePerGas"))

    def balance(self, address: Address) -> int:
        """The chain's own coin at an address, in wei."""
        return number_of(self.ask("eth_getBalance", hexed(address), "latest"))
