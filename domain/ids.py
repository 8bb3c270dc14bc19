"""Identifiers: fixed-size bytes, derived and never drawn.

An id is the first 16 bytes of SHA-256 over a tag, the kind and length-prefixed parts, so that it
depends on (key, session, number, row) alone and replay gives the same ids on every log.
"""

from __future__ import annotations

import hashlib
from typing import Final, NewType

Bytes16 = NewType("Bytes16", bytes)
Bytes32 = NewType("Bytes32", bytes)

AggregateId = NewType("AggregateId", bytes)  # 16 bytes
AccountId = NewType("AccountId", bytes)  # 16 bytes
ProviderId = NewType("ProviderId", bytes)  # 16 bytes
NodeId = NewType("NodeId", bytes)  # 16 bytes
OfferId = NewType("OfferId", bytes)  # 16 bytes
BidId = NewType("BidId", bytes)  # 16 bytes
RoundId = NewType("RoundId", bytes)  # 16 bytes
LeaseId = NewType("LeaseId", bytes)  # 16 bytes
PotId = NewType("PotId", bytes)  # 16 bytes
SlashId = NewType("SlashId", bytes)  # 16 bytes
PublicKey = NewType("PublicKey", bytes)  # 32 bytes, Ed25519
Hash32 = NewType("Hash32", bytes)  # 32 bytes, SHA-256
Address = NewType("Address", bytes)  # 20 bytes, EVM
Wide = NewType("Wide", int)  # 128-bit signed integer, fixed(16) big-endian on the wire

INT64_MAX: Final = 2**63 - 1
QUANTITY_MAX: Final = 2**62  # R1.6
WIDE_MAX: Final = 2**127 - 1


def length_prefixed(*parts: bytes) -> bytes:
    """Join parts so that no two different lists give the same bytes (4-byte big-endian lengths)."""
    return b"".join([len(part).to_bytes(4, "big") + part for part in parts])


def derive(kind: str, *parts: bytes | int | str) -> bytes:
    """Sixteen bytes that name the thing of ``kind`` made from ``parts``."""
    encoded = [
        part.to_bytes(16, "big", signed=True)
        if isinstance(part, int)
        else part.encode()
        if isinstance(part, str)
        else part
        for part in parts
    ]
    return hashlib.sha256(length_prefixed(b"synor-id-v1", kind.encode(), *encoded)).digest()[:16]


def account_of(key: PublicKey) -> AccountId:
    """The account that a first owner key opens; it stays when the key is rotated."""
    return AccountId(derive("account", key))


def shard_of(node: bytes, shards: int) -> int:
    """The metering shard of a node, for life (design 2, Shards)."""
    return int.from_bytes(hashlib.sha256(b"synor-shard-v1" + node).digest()[:8], "big") % shards
