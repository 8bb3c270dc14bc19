"""Keccak-256 alone: every processor needs it for payout trees, and few need the rest of the EVM."""

from __future__ import annotations

from eth_hash.auto import keccak as hashed


def keccak(data: bytes) -> bytes:
    """Keccak-256, the hash that the domain takes as a parameter."""
    return bytes(hashed(data))
