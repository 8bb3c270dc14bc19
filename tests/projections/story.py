"""A market's life by hand: random but lawful events of every aggregate, from a seed.

The rules are not run here. The events only keep what a read model may rely on: what is named
exists, postings balance, and everything has the order that the market gives it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from eth_utils.crypto import keccak

from domain import payout_tree
from domain.account import (
    ClaimSettled,
    EarningsMatured,
    WithdrawalRequested,
)
from domain.checkpoint import (
    CHECKPOINTS,
    CheckpointAnchored,
    CheckpointMade,
    PayoutLeaf,
)
from domain.epoch import EpochAnchored, EpochCut, Payable, ShardPosition, epoch_aggregate
from domain.ids import (
    Address,
    Hash32,
    PotId,
    PublicKey,
    SlashId,
    Wide,
)
from domain.journal import NOBODY, Posting, Purse, move
from domain.l1 import account_word
from domain.node import NodeRetired
from domain.pot import EvidenceAccepted, PotDivided, PotOpened
from domain.provider import (
    Fault,
    StakeFrozen,
    StakeSlashed,
    StakeThawed,
    provider_of,
)
from domain.sla import WindowAssessed, window_aggregate
from domain.stake import StakeTaken
from domain.telemetry import (
    INTAKE,
    TelemetryRefused,
)
from tests.projections.ledgers import CHAIN_ID, VAULT, HandNetwork
from tests.projections.story_cast import SECOND, hashed
from tests.projections.story_market import MarketTelling


class Story(MarketTelling):
    """A market's life, with what becomes of its money and its providers."""

    def mature(self) -> None:
        """A provider's pending share matures."""
        for account in self.accounts:
            pending = self.balances.of(Purse.PENDING, account)
            if pending:
                matured = EarningsMatured(
                    at_us=self.step(),
                    account=account,
                    posted_us=self.time_us,
                    amount_nano=Wide(pending),
                    protocol_nano=Wide(0),
                    postings=move((Purse.PENDING, account), (Purse.EARNED, account), pending),
                )
                self.tell(account, matured)
                return

    def slash(self) -> None:
        """A window is assessed, a pot opened and divided, a slash taken from it."""
        if not self.nodes:
            return
        node, account, _, _ = self.random.choice(self.nodes)
        now = self.step()
        provider = provider_of(account)
        slash, pot = SlashId(self.fresh("slash")), PotId(self.fresh("pot"))
        taken = min(10**10, self.balances.of(Purse.STAKE, provider))
        half = taken // 2
        tranche = StakeTaken(tranche=0, bonded_nano=Wide(taken), unbonding_nano=Wide(0))
        self.tell(
            window_aggregate(node, now),
            WindowAssessed(
                at_us=now,
                node=node,
                provider=provider,
                start_us=now - 30 * SECOND,
                end_us=now,
                obliged_us=30 * SECOND,
                down_us=10 * SECOND,
                allowance_us=SECOND,
                excess_us=9 * SECOND,
                base_nano=Wide(10**14),
                required_nano=Wide(10**12),
                required_all_nano=Wide(2 * 10**12),
                slash_nano=Wide(half),
                slash=slash,
            ),
        )
        opened = PotOpened(
            at_us=now,
            pot=pot,
            provider=provider,
            frozen_nano=Wide(taken),
            joins_until_us=now + SECOND,
            divides_us=now + 2 * SECOND,
        )
        self.tell(pot, opened)
        frozen = StakeFrozen(
            at_us=now,
            provider=provider,
            pot=pot,
            tranches=(tranche,),
            postings=move((Purse.STAKE, provider), (Purse.POT, pot), taken),
        )
        self.tell(provider, frozen)
        evidence = EvidenceAccepted(
            at_us=now,
            pot=pot,
            slash=slash,
            provider=provider,
            node=node,
            fault=Fault.CONTRADICTION,
            fault_us=now,
            lease=None,
            key=self.keys[account],
            first=hashed("first", slash),
            second=hashed("second", slash),
            base_nano=Wide(10**14),
            due_nano=Wide(half),
        )
        self.tell(pot, evidence)
        slashed = StakeSlashed(
            at_us=now,
            slash=slash,
            provider=provider,
            node=node,
            fault=Fault.CONTRADICTION,
            fault_us=now,
            base_nano=Wide(10**14),
            due_nano=Wide(half),
            taken_nano=Wide(half),
            shortfall_nano=Wide(0),
            tranches=(),
            pot=pot,
            postings=move((Purse.POT, pot), (Purse.INSURANCE, NOBODY), half),
        )
        self.tell(provider, slashed)
        thawed = StakeThawed(
            at_us=now,
            provider=provider,
            pot=pot,
            tranches=(tranche,),
            postings=move((Purse.POT, pot), (Purse.STAKE, provider), taken - half),
        )
        self.tell(provider, thawed)
        divided = PotDivided(
            at_us=now,
            pot=pot,
            provider=provider,
            slashed_nano=Wide(half),
            thawed_nano=Wide(taken - half),
        )
        self.tell(pot, divided)

    def retire(self) -> None:
        """A node without leases retires."""
        used = {lease.node for lease in self.leases}
        offered = {offer.node for offer in self.offers}
        for at, (node, *_) in enumerate(self.nodes):
            if node not in used | offered and len(self.nodes) > 2:
                del self.nodes[at]
                self.tell(node, NodeRetired(at_us=self.step(), node=node))
                return

    def refuse_telemetry(self) -> None:
        """A shard refuses a batch as a whole."""
        self._number += 1
        refused = TelemetryRefused(
            at_us=self.step(),
            key=PublicKey(hashed("gateway")),
            session=1,
            number=self._number,
            digest=hashed("batch", self._number),
            code=205,
            detail="shard 1",
        )
        self.network.metering[0].commit(self.time_us, [(INTAKE, refused)])

    def cut(self, *, anchored: bool = True) -> None:
        """An epoch: money becomes payable, settlement makes its checkpoint, some claim."""
        now = self.step()
        asked = self.random.choice(self.accounts)
        amount = min(10**9, self.balances.of(Purse.FREE, asked))
        postings = move((Purse.FREE, asked), (Purse.WITHDRAWAL, asked), amount)
        wanted = WithdrawalRequested(
            at_us=now, account=asked, amount_nano=Wide(amount), postings=postings
        )
        self.tell(asked, wanted)
        self.epoch += 1
        payables: list[Payable] = []
        legs: list[Posting] = []
        for account in sorted(self.accounts):
            added = 0
            for purse in (Purse.WITHDRAWAL, Purse.EARNED):
                due = self.balances.of(purse, account)
                added += due
                legs += move((purse, account), (Purse.PAYABLE, account), due)
            if added:
                self.payable[account] = self.payable.get(account, 0) + added
                payables.append(
                    Payable(
                        account=account,
                        payee=Address(hashed("payee", account)[:20]),
                        added_nano=Wide(added),
                        cumulative_nano=Wide(self.payable[account]),
                    )
                )
        positions = tuple(
            ShardPosition(
                shard=each.shard,
                height=each.height,
                hash=Hash32(each.previous),
                root=Hash32(each.tree.root()),
                size=each.tree.size,
            )
            for each in self.network.metering
        )
        cut = EpochCut(
            at_us=now,
            number=self.epoch,
            payables=tuple(payables),
            positions=positions,
            deposited_nano=Wide(-self.balances.of(Purse.EXTERNAL)),
            authorised_nano=Wide(sum(self.payable.values())),
            paid_nano=Wide(0),
            state_root=hashed("state", self.epoch),
            postings=tuple(legs),
        )
        self.tell(epoch_aggregate(self.epoch), cut)
        self.flush()
        self._checkpoint(cut, anchored=anchored)
        if anchored and payables:
            self._claim(payables[0])

    def _checkpoint(self, cut: EpochCut, *, anchored: bool) -> None:
        leaves = [
            payout_tree.Payout(
                account=account_word(account),
                payee=Address(hashed("payee", account)[:20]),
                cumulative_nano=nano,
            )
            for account, nano in self.payable.items()
        ]
        domain = payout_tree.PayoutDomain(chain_id=CHAIN_ID, vault=VAULT)
        tree = payout_tree.build(keccak, domain, leaves)
        checkpoint = hashed("checkpoint", cut.number)
        made = CheckpointMade(
            at_us=cut.at_us,
            epoch=cut.number,
            roots=(),
            ledgers_root=hashed("ledgers", cut.number),
            state_root=cut.state_root,
            payouts=tuple(
                PayoutLeaf(account=p.account, payee=p.payee, cumulative_nano=p.cumulative_nano)
                for p in cut.payables
            ),
            payout_root=tree.root,
            payout_count=tree.count,
            deposited_nano=cut.deposited_nano,
            authorised_nano=cut.authorised_nano,
            paid_nano=cut.paid_nano,
            previous=self.previous,
            checkpoint=checkpoint,
        )
        self.previous = checkpoint
        self.network.settlement.commit(cut.at_us, [(CHECKPOINTS, made)])
        if not anchored:
            return
        now = self.step()
        told = EpochAnchored(
            at_us=now,
            number=cut.number,
            checkpoint=checkpoint,
            block=100 + cut.number,
            transaction=hashed("anchor", cut.number),
        )
        self.tell(epoch_aggregate(cut.number), told)
        reported = CheckpointAnchored(at_us=now, epoch=cut.number, checkpoint=checkpoint)
        self.network.settlement.commit(now, [(CHECKPOINTS, reported)])

    def _claim(self, payable: Payable) -> None:
        account = payable.account
        amount = self.balances.of(Purse.PAYABLE, account)
        settled = ClaimSettled(
            at_us=self.step(),
            account=account,
            amount_nano=Wide(amount),
            cumulative_nano=payable.cumulative_nano,
            transaction=hashed("claim", account, self.epoch),
            postings=move((Purse.PAYABLE, account), (Purse.EXTERNAL, NOBODY), amount),
        )
        self.tell(account, settled)


def tell_story(network: HandNetwork, seed: int, events: int, *, per_commit: int = 12) -> Story:
    """A story of about so many market events."""
    story = Story(network=network, random=random.Random(seed), per_commit=per_commit)
    for _ in range(3):
        story.open_provider()
    for _ in range(4):
        story.open_account()
    acts: list[tuple[Callable[[], Any], int]] = [
        (story.offer, 8),
        (story.bid, 10),
        (story.clear, 10),
        (story.ready, 8),
        (story.usage, 30),
        (story.end, 4),
        (story.mature, 4),
        (story.cancel_bid, 1),
        (story.withdraw_offer, 1),
        (story.fall, 2),
        (story.slash, 1),
        (story.retire, 1),
        (story.refuse_telemetry, 1),
        (story.open_account, 1),
        (story.cut, 1),
    ]
    chosen = [act for act, weight in acts for _ in range(weight)]
    while story.told < events:
        story.random.choice(chosen)()
    story.flush()
    return story
