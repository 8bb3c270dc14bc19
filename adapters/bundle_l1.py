"""What the L1 said when a bundle was made, so that anchors can be compared without it.

It is evidence of the exporter's, not of the L1's: an audit by it says so and names the block, whose
hash anyone compares with the L1 itself.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

from domain import outside_json
from domain.ids import Address, Hash32
from domain.l1 import (
    AccountWord,
    BlockHash,
    Depth,
    L1Block,
    L1Chain,
    L1Config,
    L1Error,
    L1Event,
    L1Position,
    VaultTotals,
    account_word,
)
from domain.ports import LogDamaged

FORMAT: Final = 1


def facts_of(
    chain: L1Chain, at_least: int, claimants: Collection[bytes], observed_block: int
) -> bytes:
    """The facts that ``check_anchors`` asks for, as JSON.

    ``at_least`` is how many epochs the vault held before the first record was read.
    """
    head = chain.head()
    totals = chain.totals(head.hash)
    observed: dict[str, Any] | None = None
    try:
        block = chain.block(observed_block - 1) if observed_block > 0 else None
        if block is not None:
            observed = _block(block) | {"totals": _totals(chain.totals(block.hash))}
    except L1Error:
        # An endpoint that keeps no old state; the audit then compares with the head alone.
        observed = None
    config = chain.config
    facts = {
        "format": FORMAT,
        "chain_id": config.chain_id,
        "vault": config.vault.hex(),
        "token": config.token.hex(),
        "code_hash": config.code_hash.hex(),
        "start": {"number": config.start.number, "hash": config.start.hash.hex()},
        "head": _block(head) | {"totals": _totals(totals)},
        "observed": observed,
        "at_least": at_least,
        "checkpoints": [
            held.hex() if (held := chain.anchored(epoch, head.hash)) is not None else ""
            for epoch in range(1, totals.last_epoch + 1)
        ],
        "claimed": {
            word.hex(): str(chain.claimed_nano(word))
            for word in (account_word(account) for account in sorted(claimants))  # type: ignore[arg-type]
        },
    }
    return json.dumps(facts, indent=1).encode()


def _block(block: L1Block) -> dict[str, Any]:
    return {
        "number": block.number,
        "hash": block.hash.hex(),
        "parent": block.parent.hex(),
        "time_s": block.time_s,
    }


def _totals(totals: VaultTotals) -> dict[str, Any]:
    # As text: a number beyond 2^53 is no number to most readers of JSON.
    return {
        "deposited_nano": str(totals.deposited_nano),
        "authorised_nano": str(totals.authorised_nano),
        "paid_nano": str(totals.paid_nano),
        "last_epoch": totals.last_epoch,
        "payout_root": totals.payout_root.hex(),
    }


@dataclass(frozen=True, slots=True)
class _At:
    block: L1Block
    totals: VaultTotals


def _at(found: Any) -> _At:
    totals = found["totals"]
    return _At(
        L1Block(
            number=found["number"],
            hash=BlockHash(bytes.fromhex(found["hash"])),
            parent=BlockHash(bytes.fromhex(found["parent"])),
            time_s=found["time_s"],
        ),
        VaultTotals(
            deposited_nano=int(totals["deposited_nano"]),
            authorised_nano=int(totals["authorised_nano"]),
            paid_nano=int(totals["paid_nano"]),
            last_epoch=totals["last_epoch"],
            payout_root=Hash32(bytes.fromhex(totals["payout_root"])),
        ),
    )


class RecordedChain:
    """The ``L1Chain`` port on recorded facts; what was not recorded is an ``L1Error``."""

    def __init__(self, facts: bytes) -> None:
        """Read ``l1.json``. Raises ``LogDamaged`` where it is not what ``facts_of`` writes."""
        try:
            found = outside_json.parse(facts)
            if found["format"] != FORMAT:
                raise ValueError(f"format {found['format']}")
            self._head = _at(found["head"])
            self._observed = None if found["observed"] is None else _at(found["observed"])
            self._checkpoints = [bytes.fromhex(each) for each in found["checkpoints"]]
            self._claimed = {bytes.fromhex(w): int(n) for w, n in found["claimed"].items()}
            self.at_least: int = found["at_least"]
            self._config = L1Config(
                chain_id=found["chain_id"],
                vault=Address(bytes.fromhex(found["vault"])),
                token=Address(bytes.fromhex(found["token"])),
                code_hash=Hash32(bytes.fromhex(found["code_hash"])),
                start=L1Position(
                    number=found["start"]["number"],
                    hash=BlockHash(bytes.fromhex(found["start"]["hash"])),
                ),
                finality=Depth(confirmations=0),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise LogDamaged(f"The facts of the L1 cannot be read: {error!r}.") from error

    @property
    def config(self) -> L1Config:
        """What the endpoint said of itself."""
        return self._config

    def check(self) -> None:
        """Nothing to ask: the caller compares ``config`` with what the genesis pins."""

    def head(self) -> L1Block:
        """The block at which the facts were taken."""
        return self._head.block

    def final(self) -> L1Block | None:
        """The same."""
        return self._head.block

    def block(self, number: int) -> L1Block | None:
        """One of the two blocks that were recorded."""
        for at in (self._head, self._observed):
            if at is not None and at.block.number == number:
                return at.block
        raise L1Error(f"Block {number} of the L1 was not recorded in the bundle.")

    def events(self, block: BlockHash) -> Sequence[L1Event]:
        """Events were not recorded."""
        raise L1Error("The events of the L1 were not recorded in the bundle.")

    def anchored(self, epoch: int, block: BlockHash | None = None) -> Hash32 | None:
        """The checkpoint that the vault held for an epoch."""
        if not 1 <= epoch <= len(self._checkpoints):
            return None
        return Hash32(self._checkpoints[epoch - 1]) if self._checkpoints[epoch - 1] else None

    def totals(self, block: BlockHash | None = None) -> VaultTotals:
        """The vault's counters at one of the two blocks."""
        for at in (self._head, self._observed):
            if at is not None and block in (None, at.block.hash):
                return at.totals
        raise L1Error("That block of the L1 was not recorded in the bundle.")

    def claimed_nano(self, account: AccountWord) -> int:
        """What an account was paid; of others than the ledger's claimants nothing is recorded."""
        return self._claimed.get(account, 0)
