"""The payout tree of an epoch: cumulative amounts per account, in OpenZeppelin's standard form.

The contract checks claims against its root (R9.2). Form (``@openzeppelin/merkle-tree``, standard
v1): a leaf is keccak(keccak(abi.encode(values))), leaves stand in the order of their hashes at the
end of an array heap of 2n − 1 nodes, from the back, and a node is the hash of its two children in
byte order. A tree of one leaf is its own root, so chain and vault are inside the leaf.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from domain.ids import Address, Hash32
from domain.invariant import invariant
from domain.l1 import NO_HASH, WEI_PER_NANO, AccountWord, Keccak


@dataclass(frozen=True, slots=True, kw_only=True)
class Payout:
    """All that an account has ever been authorised to be paid, and to whom it goes."""

    account: AccountWord
    payee: Address
    cumulative_nano: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PayoutDomain:
    """The one vault on the one chain that a tree is for."""

    chain_id: int
    vault: Address


def leaf_hash(keccak: Keccak, domain: PayoutDomain, payout: Payout) -> Hash32:
    """The leaf of (chain id, vault, account, payee, cumulative in wei), all static words."""
    words = b"".join(
        (
            domain.chain_id.to_bytes(32, "big"),
            domain.vault.rjust(32, b"\0"),
            payout.account,
            payout.payee.rjust(32, b"\0"),
            (payout.cumulative_nano * WEI_PER_NANO).to_bytes(32, "big"),
        )
    )
    return Hash32(keccak(keccak(words)))


def node_hash(keccak: Keccak, one: bytes, other: bytes) -> Hash32:
    """The hash of two children, whichever is left: proofs need no directions."""
    return Hash32(keccak(one + other if one < other else other + one))


@dataclass(frozen=True, slots=True, kw_only=True)
class PayoutTree:
    """The heap, root first, and where each account's leaf stands in it."""

    nodes: tuple[Hash32, ...]
    places: Mapping[AccountWord, int]

    @property
    def root(self) -> Hash32:
        """The root; zero for a tree without payouts, which no proof can match."""
        return self.nodes[0] if self.nodes else NO_HASH

    @property
    def count(self) -> int:
        """How many payouts it holds."""
        return len(self.places)

    def proof(self, account: AccountWord) -> tuple[Hash32, ...]:
        """The siblings from the account's leaf to the root. Raises ``KeyError`` for a stranger."""
        at = self.places[account]
        siblings = []
        while at > 0:
            siblings.append(self.nodes[at + 1 if at % 2 else at - 1])
            at = (at - 1) // 2
        return tuple(siblings)


def build(keccak: Keccak, domain: PayoutDomain, payouts: Sequence[Payout]) -> PayoutTree:
    """The tree of an epoch's payouts, one per account; their order does not matter."""
    hashed = sorted((leaf_hash(keccak, domain, payout), payout.account) for payout in payouts)
    places = {account: 2 * len(hashed) - 2 - rank for rank, (_, account) in enumerate(hashed)}
    invariant(len(places) == len(hashed), "an account has one payout per tree")
    nodes = [NO_HASH] * (len(hashed) - 1) + [leaf for leaf, _ in reversed(hashed)]
    for at in range(len(hashed) - 2, -1, -1):
        nodes[at] = node_hash(keccak, nodes[2 * at + 1], nodes[2 * at + 2])
    return PayoutTree(nodes=tuple(nodes), places=places)


def verifies(keccak: Keccak, root: Hash32, leaf: Hash32, proof: Sequence[Hash32]) -> bool:
    """Whether a leaf belongs to a root, as the contract checks it."""
    node = leaf
    for sibling in proof:
        node = node_hash(keccak, node, sibling)
    return node == root
