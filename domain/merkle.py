"""RFC 6962 Merkle tree over the recorded event bytes of one ledger.

Leaf ``H(0x00 ‖ d)``, node ``H(0x01 ‖ l ‖ r)``, empty root ``SHA-256("")``. Only the right edge is
kept (one hash per set bit of the size), so memory is logarithmic and an append is O(1) amortised.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

EMPTY_ROOT = hashlib.sha256(b"").digest()


def leaf_hash(data: bytes) -> bytes:
    """Hash of a leaf."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash of an inner node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class MerkleTree:
    """The right edge of a growing tree."""

    __slots__ = ("_edge", "size")

    def __init__(self, size: int = 0, edge: Sequence[bytes] = ()) -> None:
        """Start empty, or from the size and edge of a snapshot."""
        self.size = size
        self._edge = list(edge)

    def append(self, data: bytes) -> None:
        """Add one leaf."""
        node = leaf_hash(data)
        size = self.size
        while size & 1:
            node = node_hash(self._edge.pop(), node)
            size >>= 1
        self._edge.append(node)
        self.size += 1

    def extend(self, leaves: Sequence[bytes]) -> None:
        """Add leaves in order."""
        for data in leaves:
            self.append(data)

    def root(self) -> bytes:
        """The root over everything appended."""
        if not self._edge:
            return EMPTY_ROOT
        node = self._edge[-1]
        for left in reversed(self._edge[:-1]):
            node = node_hash(left, node)
        return node

    def edge(self) -> tuple[bytes, ...]:
        """The hashes of the complete subtrees, largest first."""
        return tuple(self._edge)

    def copy(self) -> MerkleTree:
        """An independent tree with the same leaves."""
        return MerkleTree(self.size, self._edge)


def root_of(leaf_hashes: Sequence[bytes]) -> bytes:
    """Root by the recursive definition of RFC 6962 2.1; the plain twin of ``MerkleTree.root``."""
    n = len(leaf_hashes)
    if n == 0:
        return EMPTY_ROOT
    if n == 1:
        return leaf_hashes[0]
    k = 1 << ((n - 1).bit_length() - 1)
    return node_hash(root_of(leaf_hashes[:k]), root_of(leaf_hashes[k:]))


def inclusion_proof(index: int, leaf_hashes: Sequence[bytes]) -> tuple[bytes, ...]:
    """Audit path of leaf ``index`` (RFC 6962 2.1.1), from the leaf up."""
    n = len(leaf_hashes)
    if n <= 1:
        return ()
    k = 1 << ((n - 1).bit_length() - 1)
    if index < k:
        return (*inclusion_proof(index, leaf_hashes[:k]), root_of(leaf_hashes[k:]))
    return (*inclusion_proof(index - k, leaf_hashes[k:]), root_of(leaf_hashes[:k]))


def verify_inclusion(
    leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes
) -> bool:
    """Whether ``leaf`` (a leaf hash) stands at ``index`` of the tree of ``size`` with ``root``."""
    if not 0 <= index < size:
        return False
    fn, sn, node = index, size - 1, leaf
    for sibling in proof:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            node = node_hash(sibling, node)
            if not fn & 1:
                while fn and not fn & 1:
                    fn >>= 1
                    sn >>= 1
        else:
            node = node_hash(node, sibling)
        fn >>= 1
        sn >>= 1
    return sn == 0 and node == root
