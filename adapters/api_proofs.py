"""Claim proofs: the payout tree of an epoch, rebuilt from settlement's leaves and checked."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock
from typing import Any, Final

from sqlalchemy import Connection, select

from adapters.api_problems import NO_PROOF, NOT_FOUND, PROOF_MISMATCH, Problem
from adapters.api_reads import claimed, maybe
from adapters.api_troubles import refuse_money
from adapters.evm_keccak import keccak
from domain.genesis import Genesis
from domain.ids import AccountId, Address
from domain.l1 import WEI_PER_NANO, account_word
from domain.payout_tree import Payout, PayoutDomain, PayoutTree, build, leaf_hash
from projections.tables import CHECKPOINT, EPOCH, PAYOUT_LEAF

_TREES_KEPT: Final = 4


@dataclass(frozen=True, slots=True)
class _Payouts:
    """The tree of an epoch with the payouts that its leaves are made of."""

    tree: PayoutTree
    payouts: dict[bytes, Payout]


class Proofs:
    """Proofs against the payout roots of checkpoints; the last few trees are kept."""

    def __init__(self, genesis: Genesis) -> None:
        """Trees are of the one vault that the genesis names."""
        self._domain = PayoutDomain(chain_id=genesis.chain_id, vault=genesis.vault)
        self._kept: OrderedDict[bytes, _Payouts] = OrderedDict()
        self._lock = Lock()

    def proof(self, connection: Connection, number: int, account: bytes) -> dict[str, Any]:
        """All that a claim on the L1 needs, as text that tools of the L1 take.

        Raises ``Problem`` where the epoch has no checkpoint or the account no payout in it.
        """
        refuse_money(connection, CHECKPOINT, EPOCH)
        checkpoint = maybe(connection, CHECKPOINT, epoch=number)
        if checkpoint is None:
            raise Problem(NOT_FOUND, f"there is no checkpoint of epoch {number}")
        payouts = self._payouts(connection, checkpoint)
        payout = payouts.payouts.get(account)
        if payout is None:
            raise Problem(NO_PROOF, f"account {account.hex()}, epoch {number}")
        epoch = maybe(connection, EPOCH, number=number)
        word = account_word(AccountId(account))
        paid = claimed(connection, account)
        return {
            "epoch": number,
            "anchored": epoch is not None and epoch["anchored_us"] is not None,
            "checkpoint": _0x(checkpoint["checkpoint"]),
            "payout_root": _0x(checkpoint["payout_root"]),
            "chain_id": self._domain.chain_id,
            "vault": _0x(self._domain.vault),
            "account": account.hex(),
            "account_word": _0x(word),
            "payee": _0x(payout.payee),
            "cumulative_nano": payout.cumulative_nano,
            "cumulative_wei": str(payout.cumulative_nano * WEI_PER_NANO),
            "claimed_nano": paid,
            "claimable_nano": max(0, payout.cumulative_nano - paid),
            "leaf": _0x(leaf_hash(keccak, self._domain, payout)),
            "proof": [_0x(node) for node in payouts.tree.proof(word)],
        }

    def _payouts(self, connection: Connection, checkpoint: dict[str, Any]) -> _Payouts:
        key = checkpoint["checkpoint"]
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None:
                self._kept.move_to_end(key)
                return kept
        made = self._build(connection, checkpoint)
        with self._lock:
            self._kept[key] = made
            while len(self._kept) > _TREES_KEPT:
                self._kept.popitem(last=False)
        return made

    def _build(self, connection: Connection, checkpoint: dict[str, Any]) -> _Payouts:
        leaves = (
            select(PAYOUT_LEAF)
            .where(PAYOUT_LEAF.c.epoch <= checkpoint["epoch"])
            .order_by(PAYOUT_LEAF.c.epoch)
        )
        payouts: dict[bytes, Payout] = {}
        for row in connection.execute(leaves):
            payouts[row.account] = Payout(
                account=account_word(AccountId(row.account)),
                payee=Address(row.payee),
                cumulative_nano=row.cumulative_nano,
            )
        tree = build(keccak, self._domain, list(payouts.values()))
        if tree.root != checkpoint["payout_root"] or tree.count != checkpoint["payout_count"]:
            raise Problem(
                PROOF_MISMATCH,
                f"epoch {checkpoint['epoch']}: the leaves give root {tree.root.hex()}",
            )
        return _Payouts(tree, payouts)


def _0x(data: bytes) -> str:
    return f"0x{data.hex()}"
