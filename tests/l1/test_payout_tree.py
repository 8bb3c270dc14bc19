"""The payout tree equals OpenZeppelin's, node by node."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.evm_keccak import keccak
from adapters.evm_rpc import bytes_of
from domain.ids import Address, Hash32
from domain.invariant import InvariantBroken
from domain.l1 import NO_HASH, WEI_PER_NANO, AccountWord
from domain.payout_tree import Payout, PayoutDomain, build, leaf_hash, verifies
from tests.l1.scene import payout

VECTORS = Path(__file__).parent / "vectors" / "standard_merkle_tree.json"
TREES: list[dict[str, Any]] = json.loads(VECTORS.read_text())["trees"]
DOMAIN = PayoutDomain(chain_id=31337, vault=Address(bytes_of("0x" + "51ab".rjust(40, "0"))))


def _payouts(values: list[list[str]]) -> list[Payout]:
    return [
        Payout(
            account=AccountWord(bytes_of(account)),
            payee=Address(bytes_of(payee)),
            cumulative_nano=int(wei) // WEI_PER_NANO,
        )
        for _, _, account, payee, wei in values
    ]


@pytest.mark.parametrize("vector", TREES, ids=lambda vector: f"{len(vector['values'])} leaves")
def test_nodes_and_proofs_are_those_of_the_javascript_library(vector: dict[str, Any]) -> None:
    """Recorded from ``@openzeppelin/merkle-tree`` 1.0.8, whose proofs the contract checks."""
    payouts = _payouts(vector["values"])
    tree = build(keccak, DOMAIN, payouts)
    assert list(tree.nodes) == [bytes_of(node) for node in vector["tree"]]
    assert tree.root == bytes_of(vector["root"])
    for row, proof in zip(payouts, vector["proofs"], strict=True):
        assert list(tree.proof(row.account)) == [bytes_of(node) for node in proof]


def test_an_epoch_without_payouts_has_the_zero_root() -> None:
    """And no account has a proof in it."""
    tree = build(keccak, DOMAIN, [])
    assert (tree.root, tree.count) == (NO_HASH, 0)


def test_two_payouts_of_one_account_are_a_bug() -> None:
    """The vault counts by account, so the second could never be claimed in full."""
    row = payout(1, Address(bytes(20)), 5)
    with pytest.raises(InvariantBroken, match="one payout per tree"):
        build(keccak, DOMAIN, [row, row])


@given(
    st.lists(st.integers(1, 2**100), min_size=1, max_size=40, unique=True),
    st.randoms(use_true_random=False),
)
def test_every_payout_verifies_and_order_does_not_matter(numbers: list[int], random: Any) -> None:
    """The root is a function of the set of payouts, and a changed amount never verifies."""
    rows = [payout(number, Address(bytes(20)), number % 1000) for number in numbers]
    tree = build(keccak, DOMAIN, rows)
    shuffled = list(rows)
    random.shuffle(shuffled)
    assert build(keccak, DOMAIN, shuffled).root == tree.root
    for row in rows:
        proof = tree.proof(row.account)
        assert verifies(keccak, tree.root, leaf_hash(keccak, DOMAIN, row), proof)
        other = Hash32(leaf_hash(keccak, DOMAIN, row)[::-1])
        assert not verifies(keccak, tree.root, other, proof)
