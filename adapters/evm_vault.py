"""The vault's and token's wire form: calls, events, errors, and the artefacts they come from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError

from adapters.evm_keccak import keccak
from adapters.evm_rpc import bytes_of, number_of
from domain.ids import Address, Hash32
from domain.l1 import (
    WEI_PER_NANO,
    AccountWord,
    BlockHash,
    Checkpoint,
    CheckpointProposed,
    Claimed,
    Deposited,
    L1Event,
    LogPlace,
    TxHash,
    UnreadableEvent,
    checkpoint_words,
)

CHECKPOINT: Final = (
    "(uint64,bytes32,bytes32,bytes32,bytes32,uint64,uint256,bytes32,bytes32,bytes32)"
)


@dataclass(frozen=True, slots=True)
class Artefact:
    """A compiled contract as committed. ``immutables`` are (start, length) in the deployed code."""

    abi: Sequence[Mapping[str, Any]]
    bytecode: bytes
    deployed: bytes
    immutables: Sequence[tuple[int, int]]


@cache
def artefact(contract: str) -> Artefact:
    """The artefact of ``SynorToken`` or ``SettlementVault``."""
    source = files("contracts") / "artefacts" / f"{contract}.json"
    made = json.loads(source.read_text(encoding="utf-8"))
    return Artefact(
        abi=made["abi"],
        bytecode=bytes_of(made["bytecode"]),
        deployed=bytes_of(made["deployedBytecode"]),
        immutables=[(place["start"], place["length"]) for place in made["immutables"]],
    )


def vault_code_hash(token: Address) -> Hash32:
    """Keccak-256 of the code that a vault of this release has on chain, over a given token.

    The token's address is the vault's one immutable, so the code follows from the artefact alone
    and an auditor can check the pinned hash against the release without any chain.
    """
    made = artefact("SettlementVault")
    code = bytearray(made.deployed)
    for start, length in made.immutables:
        code[start : start + length] = token.rjust(length, b"\0")
    return Hash32(keccak(bytes(code)))


def token_creation(holder: Address, supply_nano: int) -> bytes:
    """The bytes that create the token with its whole supply in one hand."""
    arguments = encode(["address", "uint256"], [holder, supply_nano * WEI_PER_NANO])
    return artefact("SynorToken").bytecode + arguments


def vault_creation(
    token: Address, admin: Address, admin_delay_s: int, proposer: Address, guardian: Address
) -> bytes:
    """The bytes that create a vault."""
    types = ["address", "address", "uint48", "address", "address"]
    arguments = encode(types, [token, admin, admin_delay_s, proposer, guardian])
    return artefact("SettlementVault").bytecode + arguments


def call_data(signature: str, *arguments: object) -> bytes:
    """A call by its signature, as ``transfer(address,uint256)``."""
    types = _types(signature)
    return keccak(signature.encode())[:4] + encode(types, list(arguments))


def _types(signature: str) -> list[str]:
    """The parameter types of a signature without nested tuples."""
    inner = signature[signature.index("(") + 1 : -1]
    return inner.split(",") if inner else []


def propose_data(checkpoint: Checkpoint) -> bytes:
    """The call that anchors a checkpoint: a static struct is encoded in place."""
    return keccak(f"propose({CHECKPOINT})".encode())[:4] + checkpoint_words(checkpoint)


def claim_data(
    account: AccountWord, payee: Address, cumulative_nano: int, proof: Sequence[Hash32]
) -> bytes:
    """The call that pays an account what the latest tree says."""
    return call_data(
        "claim(bytes32,address,uint256,bytes32[])",
        account,
        payee,
        cumulative_nano * WEI_PER_NANO,
        list(proof),
    )


@dataclass(frozen=True, slots=True)
class Revert:
    """A refusal of a contract: the error's name and its arguments."""

    name: str
    arguments: tuple[object, ...]

    def __str__(self) -> str:
        """The error as a person reads it."""
        shown = [f"0x{a.hex()}" if isinstance(a, bytes) else str(a) for a in self.arguments]
        return f"{self.name}({', '.join(shown)})"


@cache
def _errors() -> Mapping[bytes, tuple[str, tuple[str, ...]]]:
    known = {keccak(b"Error(string)")[:4]: ("Error", ("string",))}
    for contract in ("SettlementVault", "SynorToken"):
        for entry in artefact(contract).abi:
            if entry["type"] == "error":
                types = tuple(parameter["type"] for parameter in entry["inputs"])
                signature = f"{entry['name']}({','.join(types)})"
                known[keccak(signature.encode())[:4]] = (entry["name"], types)
    return known


def revert_of(data: bytes) -> Revert:
    """The error that revert bytes stand for; ``unknown`` with the bytes if it is not ours."""
    name, types = _errors().get(data[:4], ("unknown", ()))
    if name == "unknown":
        return Revert("unknown", (data,))
    return Revert(name, tuple(decode(types, data[4:])))


DEPOSITED: Final = keccak(b"Deposited(bytes32,address,uint256,uint256)")
PROPOSED: Final = keccak(f"CheckpointProposed(uint64,bytes32,{CHECKPOINT})".encode())
CLAIMED: Final = keccak(b"Claimed(bytes32,address,uint256,uint256)")


def _nano(wei: int) -> int:
    nano, rest = divmod(wei, WEI_PER_NANO)
    if rest:
        raise UnreadableEvent(f"The vault moved {wei} wei, which is no whole number of nanos.")
    return nano


def event_of(log: Mapping[str, Any]) -> L1Event | None:
    """One log of the vault as a value; None for logs of roles and pauses.

    Raises ``UnreadableEvent`` when a log of ours does not decode.
    """
    topics = [bytes_of(topic) for topic in log["topics"]]
    kind = topics[0] if topics else b""
    if kind not in (DEPOSITED, PROPOSED, CLAIMED):
        return None
    place = LogPlace(
        block_number=number_of(log["blockNumber"]),
        block_hash=BlockHash(bytes_of(log["blockHash"])),
        tx_hash=TxHash(bytes_of(log["transactionHash"])),
        log_index=number_of(log["logIndex"]),
    )
    try:
        return _decoded(kind, topics, bytes_of(log["data"]), place)
    except (DecodingError, IndexError) as broken:
        raise UnreadableEvent(
            f"A log of transaction {log['transactionHash']}: {broken}"
        ) from broken


def _decoded(kind: bytes, topics: Sequence[bytes], data: bytes, place: LogPlace) -> L1Event:
    if kind == PROPOSED:
        (words,) = decode([CHECKPOINT], data)
        return CheckpointProposed(
            place=place, checkpoint=_checkpoint(words), hash=Hash32(topics[2])
        )
    account = AccountWord(topics[1])
    address = Address(topics[2][12:])
    first, second = (_nano(wei) for wei in decode(["uint256", "uint256"], data))
    if kind == DEPOSITED:
        return Deposited(
            place=place,
            account=account,
            depositor=address,
            amount_nano=first,
            deposited_total_nano=second,
        )
    return Claimed(
        place=place, account=account, payee=address, amount_nano=first, cumulative_nano=second
    )


def _checkpoint(words: Sequence[Any]) -> Checkpoint:
    return Checkpoint(
        epoch=words[0],
        ledger_origin=Hash32(words[1]),
        ledgers_root=Hash32(words[2]),
        state_root=Hash32(words[3]),
        payout_root=Hash32(words[4]),
        payout_count=words[5],
        authorised_total_nano=_nano(words[6]),
        totals_hash=Hash32(words[7]),
        body_hash=Hash32(words[8]),
        prev_hash=Hash32(words[9]),
    )
