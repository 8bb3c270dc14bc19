"""Double entry: where money can stand, postings, and the balances that they add up to.

Every event that moves money carries its postings (R1.7). Balances are an in-process fold over
them; nothing else holds a balance. No rule lives here but the two laws: postings of one event sum
to zero, and no account but ``external`` is ever negative.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Annotated

from domain.ids import Bytes16, Wide
from domain.invariant import invariant
from domain.merkle import leaf_hash, root_of
from domain.record import record


class Purse(Enum):
    """The kinds of account; with an owner id (16 bytes) one of each is an account of the ledger."""

    EXTERNAL = "EXTERNAL"  # the L1; owner zero; the only one below zero
    FREE = "FREE"  # account: spendable
    RESERVED = "RESERVED"  # bid: its worst case
    ESCROW_ALLOCATED = "ESCROW_ALLOCATED"  # lease
    ESCROW_USAGE = "ESCROW_USAGE"  # lease
    PENDING = "PENDING"  # provider account: posted, not yet matured (R4.9)
    EARNED = "EARNED"  # provider account: matured
    PROTOCOL_PENDING = "PROTOCOL_PENDING"  # owner zero
    PROTOCOL = "PROTOCOL"  # owner zero
    STAKE = "STAKE"  # provider: bonded
    UNBONDING = "UNBONDING"  # provider
    POT = "POT"  # pot: stake frozen by evidence (R5.8)
    INSURANCE = "INSURANCE"  # owner zero
    REWARD_POOL = "REWARD_POOL"  # owner zero
    WITHDRAWAL = "WITHDRAWAL"  # account: asked for, waits for the epoch
    PAYABLE = "PAYABLE"  # account: authorised by an epoch cut, waits for the claim on L1


NOBODY = Bytes16(bytes(16))

Place = tuple[Purse, bytes]


@record("synor.ledger.v1.Posting")
class Posting:
    """One leg: ``amount_nano`` is added to the account (purse, owner); negative takes from it."""

    purse: Annotated[Purse, "kind of account"]
    owner: Annotated[Bytes16, "id of the account, bid, lease, provider or pot; zero for shared"]
    amount_nano: Annotated[Wide, "signed change in nano SYNOR"]


def move(source: Place, target: Place, amount_nano: int) -> tuple[Posting, ...]:
    """The two legs that move ``amount_nano`` (≥ 0) from source to target; none for zero."""
    invariant(amount_nano >= 0, "money moves forward")
    if amount_nano == 0:
        return ()
    return (
        Posting(purse=source[0], owner=Bytes16(source[1]), amount_nano=Wide(-amount_nano)),
        Posting(purse=target[0], owner=Bytes16(target[1]), amount_nano=Wide(amount_nano)),
    )


class Balances:
    """The fold: (purse, owner) → nano. An account at zero is not kept, so memory follows money."""

    def __init__(self) -> None:
        """Start with an empty ledger."""
        self._nano: dict[Place, int] = {}

    def of(self, purse: Purse, owner: bytes = NOBODY) -> int:
        """What stands on the account now."""
        return self._nano.get((purse, owner), 0)

    def post(self, postings: Iterable[Posting]) -> None:
        """Apply the postings of one event; they must sum to zero and overdraw nothing."""
        total = 0
        touched: dict[Place, int] = {}
        for posting in postings:
            place: Place = (posting.purse, posting.owner)
            total += posting.amount_nano
            touched[place] = touched.get(place, 0) + posting.amount_nano
        invariant(total == 0, "postings sum to zero")
        for place, change in touched.items():
            now = self._nano.get(place, 0) + change
            invariant(
                now >= 0 or place[0] is Purse.EXTERNAL, f"account {place[0].value} below zero"
            )
            if now:
                self._nano[place] = now
            else:
                self._nano.pop(place, None)

    def all(self) -> Mapping[Place, int]:
        """Every account that is not zero. A view: do not keep it over a posting."""
        return self._nano

    def root(self) -> bytes:
        """RFC 6962 root over all balances: leaves purse ‖ 0x00 ‖ owner ‖ nano (17 bytes signed).

        Leaves stand in the order of (purse, owner). What an epoch's checkpoint calls state root.
        """
        leaves = [
            leaf_hash(
                purse.value.encode() + b"\x00" + owner + nano.to_bytes(17, "big", signed=True)
            )
            for (purse, owner), nano in sorted(
                self._nano.items(), key=lambda kv: (kv[0][0].value, kv[0][1])
            )
        ]
        return root_of(leaves)
