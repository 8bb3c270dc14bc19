"""The Merkle tree of a ledger: RFC 6962, and what it proves."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from domain.merkle import (
    EMPTY_ROOT,
    MerkleTree,
    inclusion_proof,
    leaf_hash,
    root_of,
    verify_inclusion,
)

leaves = st.lists(st.binary(max_size=40), max_size=70)


def test_the_empty_root_is_the_hash_of_nothing() -> None:
    """RFC 6962 2.1."""
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_roots_equal_the_vectors_of_the_certificate_transparency_reference() -> None:
    """The eight inputs and roots that the reference implementations test with."""
    inputs = [
        b"",
        b"\x00",
        b"\x10",
        b"\x20\x21",
        b"\x30\x31",
        b"\x40\x41\x42\x43",
        bytes.fromhex("5051525354555657"),
        bytes.fromhex("606162636465666768696a6b6c6d6e6f"),
    ]
    roots = [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ]
    tree = MerkleTree()
    for data, root in zip(inputs, roots, strict=True):
        tree.append(data)
        assert tree.root().hex() == root


@given(leaves)
def test_the_running_root_equals_the_recursive_definition(data: list[bytes]) -> None:
    """Two ways to one root, at every size."""
    tree = MerkleTree()
    hashes: list[bytes] = []
    for leaf in data:
        tree.append(leaf)
        hashes.append(leaf_hash(leaf))
    assert tree.root() == root_of(hashes)
    assert tree.size == len(data)


@given(leaves.filter(bool), st.data())
def test_an_inclusion_proof_holds_for_its_leaf_and_index_alone(
    data: list[bytes], draw: st.DataObject
) -> None:
    """A flipped bit in leaf, proof or root, or another index, is refused."""
    hashes = [leaf_hash(leaf) for leaf in data]
    index = draw.draw(st.integers(0, len(data) - 1))
    proof = inclusion_proof(index, hashes)
    root = root_of(hashes)
    assert verify_inclusion(hashes[index], index, len(data), proof, root)
    flipped = bytes([hashes[index][0] ^ 1]) + hashes[index][1:]
    assert not verify_inclusion(flipped, index, len(data), proof, root)
    assert not verify_inclusion(hashes[index], index, len(data), proof, flipped)
    assert not verify_inclusion(hashes[index], len(data), len(data), proof, root)
    for other in range(len(data)):
        if hashes[other] != hashes[index]:
            assert not verify_inclusion(hashes[index], other, len(data), proof, root)
