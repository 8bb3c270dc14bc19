"""A market's life by hand: random but lawful events of every aggregate, from a seed.

The rules are not run here. The events only keep what a read model may rely on: what is named
exists, postings balance, and everything has the order that the market gives it.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from eth_utils.crypto import keccak

from domain import payout_tree
from domain.account import (
    AccountOpened,
    ClaimSettled,
    DepositCredited,
    EarningsMatured,
    WithdrawalRequested,
)
from domain.bid import BidCancelled, BidFilled, BidPlaced, MeteredLimit
from domain.checkpoint import (
    CHECKPOINTS,
    CheckpointAnchored,
    CheckpointMade,
    PayoutLeaf,
)
from domain.commit import COMMANDS_TOPIC, InputRun
from domain.epoch import EpochAnchored, EpochCut, Payable, ShardPosition, epoch_aggregate
from domain.genesis import Role
from domain.ids import (
    AccountId,
    Address,
    BidId,
    Bytes16,
    Hash32,
    LeaseId,
    NodeId,
    OfferId,
    PotId,
    PublicKey,
    SlashId,
    Wide,
    account_of,
    derive,
)
from domain.journal import NOBODY, Balances, Posting, Purse, move
from domain.key import CommandAnswered, KeyRegistered, RowRefused, key_aggregate
from domain.l1 import account_word
from domain.lease import (
    EndReason,
    LeaseClosed,
    LeaseEnded,
    LeaseOpened,
    LeaseReady,
    UsageLine,
    UsagePosted,
)
from domain.node import Amount, NodeHealthChanged, NodeRegistered, NodeRetired
from domain.offer import OfferPlaced, OfferWithdrawn
from domain.pot import EvidenceAccepted, PotDivided, PotOpened
from domain.provider import (
    Fault,
    ProviderAdmitted,
    ProviderRegistered,
    StakeBonded,
    StakeFrozen,
    StakeSlashed,
    StakeThawed,
    provider_of,
)
from domain.round import Fill, RoundCleared, RoundOpened, instrument_of
from domain.sla import WindowAssessed, window_aggregate
from domain.stake import StakeTaken
from domain.telemetry import (
    INTAKE,
    NodeAssigned,
    NodeCameUp,
    NodeWentDown,
    Quantity,
    TelemetryRefused,
    UsageStated,
)
from tests.projections.ledgers import CHAIN_ID, START_US, VAULT, HandNetwork

SECOND = 1_000_000
REGIONS = ("eu", "us")
DEVICES = ("gpu.h100", "gpu.rtx4090")
PRICE_NANO = 4_000_000_000


def hashed(*parts: object) -> Hash32:
    """A hash that only looks like one."""
    return Hash32(hashlib.sha256(repr(parts).encode()).digest())


@dataclass
class _Lease:
    lease: LeaseId
    offer: OfferId
    device_milli: int
    buyer: AccountId
    account: AccountId
    node: NodeId
    ready: bool = False
    quantity: int = 0
    posted: int = 0
    protocol: int = 0


@dataclass
class Story:
    """Tells events to a network, commit by commit, and keeps the balances that they add up to."""

    network: HandNetwork
    random: random.Random
    per_commit: int = 12
    time_us: int = START_US
    balances: Balances = field(default_factory=Balances)
    accounts: list[AccountId] = field(default_factory=list)
    keys: dict[AccountId, PublicKey] = field(default_factory=dict)
    nodes: list[tuple[NodeId, AccountId, str, str]] = field(default_factory=list)
    offers: list[OfferPlaced] = field(default_factory=list)
    bids: list[BidPlaced] = field(default_factory=list)
    open_rounds: dict[bytes, int] = field(default_factory=dict)
    rounds: dict[bytes, int] = field(default_factory=dict)
    leases: list[_Lease] = field(default_factory=list)
    taken_milli: dict[OfferId, int] = field(default_factory=dict)
    payable: dict[AccountId, int] = field(default_factory=dict)
    previous: Hash32 = field(default_factory=lambda: Hash32(bytes(32)))
    epoch: int = 0
    told: int = 0
    everything: list[tuple[bytes, Any]] = field(default_factory=list)
    _waiting: list[tuple[bytes, Any]] = field(default_factory=list)
    _number: int = 0
    _commands: int = 0

    # Telling

    def tell(self, aggregate: bytes, event: Any) -> None:
        """One market event."""
        postings = getattr(event, "postings", ())
        self.balances.post(postings)
        self._waiting.append((aggregate, event))
        self.everything.append((aggregate, event))
        self.told += 1
        if len(self._waiting) >= self.per_commit:
            self.flush()

    def flush(self) -> int:
        """Commit what was told, with the commands that it came from."""
        if self._waiting:
            first, self._commands = self._commands, self._commands + 1
            run = InputRun(
                topic=COMMANDS_TOPIC,
                partition=0,
                first=first,
                next=first + 1,
                count=1,
                digest=hashed(first),
            )
            self.network.market.commit(self.time_us, self._waiting, (run,))
            self._waiting = []
        return self.network.market.height

    def step(self) -> int:
        """Time passes."""
        self.time_us += self.random.randrange(1, 3 * SECOND)
        return self.time_us

    def fresh(self, kind: str) -> bytes:
        """A new id."""
        self._number += 1
        return derive(kind, self._number)

    def answer(
        self, account: AccountId, kind: str, code: int = 0, rows: Sequence[RowRefused] = ()
    ) -> tuple[PublicKey, int, int]:
        """The answer that follows a command's events."""
        self._number += 1
        key = self.keys[account]
        self.tell(
            key_aggregate(key),
            CommandAnswered(
                at_us=self.time_us,
                key=key,
                session=1,
                number=self._number,
                digest=hashed("command", self._number),
                kind=f"synor.command.v1.{kind}",
                code=code,
                detail="" if code == 0 else "because of the test",
                rows=tuple(rows),
            ),
        )
        return key, 1, self._number

    # Subjects

    def open_account(self, deposit_nano: int = 10**15) -> AccountId:
        """An account with money."""
        now = self.step()
        key = PublicKey(hashed("key", len(self.accounts)))
        account = account_of(key)
        self.accounts.append(account)
        self.keys[account] = key
        payee = Address(hashed("payee", account)[:20])
        opened = AccountOpened(at_us=now, account=account, key=key, owner=account, payee=payee)
        self.tell(account, opened)
        registered = KeyRegistered(at_us=now, key=key, role=Role.OWNER, account=account)
        self.tell(key_aggregate(key), registered)
        self.answer(account, "OpenAccount")
        self.tell(
            account,
            DepositCredited(
                at_us=now,
                account=account,
                amount_nano=Wide(deposit_nano),
                block=len(self.accounts),
                transaction=hashed("deposit", account),
                log_index=0,
                postings=move((Purse.EXTERNAL, NOBODY), (Purse.FREE, account), deposit_nano),
            ),
        )
        return account

    def open_provider(self, nodes: int = 2) -> AccountId:
        """A provider with stake and nodes."""
        account = self.open_account()
        now = self.step()
        provider = provider_of(account)
        self.tell(
            provider,
            ProviderRegistered(
                at_us=now,
                provider=provider,
                account=account,
                location="Reykjavík <hall 2>",
                network=hashed("network", account),
                uptime_ppm=999_000,
                response_time_ms=50,
                durability_pp12=999_999_999_999,
                penalty_ppm=100_000,
            ),
        )
        stake = 10**14
        self.tell(
            provider,
            StakeBonded(
                at_us=now,
                provider=provider,
                tranche=0,
                amount_nano=Wide(stake),
                postings=move((Purse.FREE, account), (Purse.STAKE, provider), stake),
            ),
        )
        for _ in range(nodes):
            self.add_node(account)
        admitted = ProviderAdmitted(
            at_us=now, provider=provider, required_nano=Wide(nodes * 10**12)
        )
        self.tell(provider, admitted)
        return account

    def add_node(self, account: AccountId) -> NodeId:
        """A node that beats, and its metering shard that knows it."""
        node = NodeId(self.fresh("node"))
        device, region = self.random.choice(DEVICES), self.random.choice(REGIONS)
        provider = provider_of(account)
        key = PublicKey(hashed("node key", node))
        self.nodes.append((node, account, device, region))
        self.tell(
            node,
            NodeRegistered(
                at_us=self.time_us,
                node=node,
                provider=provider,
                account=account,
                key=key,
                region=region,
                capacity=(
                    Amount(resource=device, amount=8000),
                    Amount(resource="storage.hot", amount=10**6),
                ),
                identities=(hashed("device", node),),
                manifest_version=1,
                beat_us=10 * SECOND,
                grace_us=30 * SECOND,
                required_nano=Wide(10**12),
            ),
        )
        shard = self.shard(node)
        assigned = NodeAssigned(
            at_us=self.time_us,
            node=node,
            provider=provider,
            key=key,
            beat_us=10 * SECOND,
            grace_us=30 * SECOND,
        )
        came = NodeCameUp(at_us=self.time_us, node=node, since_us=self.time_us)
        self.network.metering[shard].commit(self.time_us, [(node, assigned), (node, came)])
        self._health(node, up=True)
        return node

    def shard(self, node: bytes) -> int:
        """Some shard of the node."""
        return node[0] % self.network.shards

    def _health(self, node: NodeId, *, up: bool) -> None:
        changed = NodeHealthChanged(
            at_us=self.time_us,
            node=node,
            up=up,
            down_since_us=self.time_us - SECOND,
            up_us=self.time_us if up else 0,
        )
        self.tell(node, changed)

    def fall(self) -> None:
        """A node goes down."""
        if not self.nodes:
            return
        now = self.step()
        node = self.random.choice(self.nodes)[0]
        down = NodeWentDown(at_us=now, node=node, since_us=now - 31 * SECOND)
        self.network.metering[self.shard(node)].commit(now, [(node, down)])
        self._health(node, up=False)

    def _open_round(self, resource: str, region: str) -> None:
        instrument = instrument_of(resource, region)
        if instrument in self.open_rounds:
            return
        number = self.rounds[instrument] = self.rounds.get(instrument, 0) + 1
        self.open_rounds[instrument] = number
        self.tell(
            instrument,
            RoundOpened(
                at_us=self.time_us,
                instrument=instrument,
                resource=resource,
                region=region,
                number=number,
                clears_us=self.time_us + 5 * SECOND,
            ),
        )

    def offer(self) -> OfferPlaced:
        """An ask on some node."""
        now = self.step()
        node, account, device, region = self.random.choice(self.nodes)
        self._open_round(device, region)
        self._number += 1
        placed = OfferPlaced(
            at_us=now,
            offer=OfferId(self.fresh("offer")),
            order_no=self._number,
            node=node,
            provider=provider_of(account),
            account=account,
            resource=device,
            region=region,
            quantity_milli=4000,
            ask_nano=self.random.randrange(1, 9) * 10**9,
            interruptible=self.random.random() < 0.3,
            notice_us=120 * SECOND,
        )
        self.offers.append(placed)
        self.tell(placed.offer, placed)
        self.answer(account, "PlaceOffers")
        return placed

    def withdraw_offer(self) -> None:
        """An ask leaves the book."""
        if self.offers:
            offer = self.offers.pop(self.random.randrange(len(self.offers))).offer
            self.tell(offer, OfferWithdrawn(at_us=self.step(), offer=offer))

    def bid(self, limit_nano: int | None = None) -> BidPlaced:
        """A bid of some buyer with its worst case reserved."""
        now = self.step()
        account = self.random.choice(self.accounts)
        device, region = self.random.choice(DEVICES), self.random.choice(REGIONS)
        self._open_round(device, region)
        lots = self.random.randrange(1, 4)
        reserved = lots * (PRICE_NANO + 10**9)
        bid = BidId(self.fresh("bid"))
        self._number += 1
        placed = BidPlaced(
            at_us=now,
            bid=bid,
            order_no=self._number,
            account=account,
            resource=device,
            region=region,
            quantity_milli=lots * 1000,
            lot_milli=1000,
            limit_nano=limit_nano or self.random.randrange(1, 9) * 10**9,
            term_us=3600 * SECOND,
            allocations=(Amount(resource="storage.hot", amount=100),),
            metered=(MeteredLimit(resource="network.egress", per_second=10**9),),
            lot_allocated_nano=PRICE_NANO,
            lot_usage_nano=10**9,
            reserved=False,
            specification=hashed("specification", bid),
            postings=move((Purse.FREE, account), (Purse.RESERVED, bid), reserved),
        )
        self.bids.append(placed)
        self.tell(bid, placed)
        self.answer(account, "PlaceBids", rows=(RowRefused(row=1, code=110, detail="no"),))
        return placed

    def cancel_bid(self) -> None:
        """What is unfilled leaves the book."""
        if not self.bids:
            return
        bid = self.bids.pop(self.random.randrange(len(self.bids)))
        held = self.balances.of(Purse.RESERVED, bid.bid)
        postings = move((Purse.RESERVED, bid.bid), (Purse.FREE, bid.account), held)
        self.tell(bid.bid, BidCancelled(at_us=self.step(), bid=bid.bid, postings=postings))

    def clear(self) -> None:
        """A round of some instrument clears; the first bid and offer there meet."""
        if not self.open_rounds:
            return
        instrument = self.random.choice(sorted(self.open_rounds))
        number = self.open_rounds.pop(instrument)
        now = self.step()
        bid = next((b for b in self.bids if _of(b) == instrument), None)
        offer = next((o for o in self.offers if _of(o) == instrument and self._room(o, bid)), None)
        fills: tuple[Fill, ...] = ()
        if bid is not None and offer is not None:
            lots = bid.quantity_milli // bid.lot_milli
            lease = LeaseId(self.fresh("lease"))
            fills = (Fill(bid=bid.bid, offer=offer.offer, node=offer.node, lots=lots, lease=lease),)
        self.tell(
            instrument,
            RoundCleared(
                at_us=now,
                instrument=instrument_of(*_names(instrument)),
                number=number,
                reference_nano=PRICE_NANO,
                low_nano=PRICE_NANO if fills else 0,
                high_nano=PRICE_NANO if fills else 0,
                price_nano=PRICE_NANO if fills else 0,
                demand_milli=1000,
                supply_milli=4000,
                volume_milli=fills[0].lots * 1000 if fills else 0,
                fills=fills,
            ),
        )
        if bid is not None and offer is not None and fills:
            self.bids.remove(bid)
            filled = BidFilled(at_us=now, bid=bid.bid, lots=fills[0].lots, open_lots=0)
            self.tell(bid.bid, filled)
            self._open_lease(bid, offer, fills[0], number)

    def _room(self, offer: OfferPlaced, bid: BidPlaced | None) -> bool:
        wanted = 0 if bid is None else bid.quantity_milli
        return self.taken_milli.get(offer.offer, 0) + wanted <= offer.quantity_milli

    def _open_lease(self, bid: BidPlaced, offer: OfferPlaced, fill: Fill, number: int) -> None:
        allocated, usage = fill.lots * PRICE_NANO, fill.lots * 10**9
        lease = fill.lease
        reserved = (Purse.RESERVED, bid.bid)
        milli = fill.lots * bid.lot_milli
        self.taken_milli[offer.offer] = self.taken_milli.get(offer.offer, 0) + milli
        self.leases.append(
            _Lease(lease, offer.offer, milli, bid.account, offer.account, offer.node)
        )
        self.tell(
            lease,
            LeaseOpened(
                at_us=self.time_us,
                lease=lease,
                bid=bid.bid,
                offer=offer.offer,
                instrument=instrument_of(bid.resource, bid.region),
                round=number,
                buyer=bid.account,
                provider=offer.provider,
                account=offer.account,
                node=offer.node,
                resource=bid.resource,
                price_nano=PRICE_NANO,
                term_us=bid.term_us,
                ready_by_us=self.time_us + 600 * SECOND,
                allocations=(
                    Amount(resource=bid.resource, amount=fill.lots * 1000),
                    Amount(resource="storage.hot", amount=fill.lots * 100),
                ),
                metered=bid.metered,
                interruptible=offer.interruptible,
                notice_us=offer.notice_us,
                reserved=bid.reserved,
                escrow_allocated_nano=allocated,
                escrow_usage_nano=usage,
                postings=(
                    *move(reserved, (Purse.ESCROW_ALLOCATED, lease), allocated),
                    *move(reserved, (Purse.ESCROW_USAGE, lease), usage),
                ),
            ),
        )

    def ready(self) -> None:
        """Some lease becomes active."""
        for each in self.leases:
            if not each.ready:
                each.ready = True
                now = self.step()
                told = LeaseReady(
                    at_us=now, lease=each.lease, node=each.node, expires_us=now + 3600 * SECOND
                )
                self.tell(each.lease, told)
                return

    def usage(self) -> None:
        """A statement of some active lease, by its shard and then posted by the market."""
        active = [each for each in self.leases if each.ready]
        if not active:
            return
        each = self.random.choice(active)
        now = self.step()
        charge = min(
            self.balances.of(Purse.ESCROW_ALLOCATED, each.lease), self.random.randrange(10**8)
        )
        each.quantity += 10**6
        each.posted += charge
        each.protocol += charge // 10
        stated = UsageStated(
            at_us=now,
            lease=each.lease,
            window_end_us=now,
            covered_us=each.quantity,
            quantities=(Quantity(resource="gpu.h100", quantity=each.quantity),),
            final=False,
        )
        self.network.metering[self.shard(each.node)].commit(now, [(each.lease, stated)])
        protocol = charge // 10
        self.tell(
            each.lease,
            UsagePosted(
                at_us=now,
                lease=each.lease,
                account=each.account,
                window_end_us=now,
                covered_us=each.quantity,
                lines=(
                    UsageLine(
                        resource="gpu.h100",
                        quantity=each.quantity,
                        charged_nano=each.posted,
                        posted_nano=each.posted,
                        protocol_nano=each.protocol,
                        unfunded_nano=0,
                    ),
                ),
                provider_nano=Wide(charge - protocol),
                protocol_nano=Wide(protocol),
                final=False,
                postings=(
                    Posting(
                        purse=Purse.ESCROW_ALLOCATED,
                        owner=Bytes16(each.lease),
                        amount_nano=Wide(-charge),
                    ),
                    Posting(
                        purse=Purse.PENDING,
                        owner=Bytes16(each.account),
                        amount_nano=Wide(charge - protocol),
                    ),
                    Posting(purse=Purse.PROTOCOL_PENDING, owner=NOBODY, amount_nano=Wide(protocol)),
                ),
            ),
        )

    def end(self) -> None:
        """Some lease ends and closes."""
        if not self.leases:
            return
        each = self.leases.pop(self.random.randrange(len(self.leases)))
        self.taken_milli[each.offer] -= each.device_milli
        now = self.step()
        self.tell(
            each.lease,
            LeaseEnded(
                at_us=now,
                lease=each.lease,
                node=each.node,
                reason=self.random.choice(list(EndReason)),
                was_active=each.ready,
                closing_us=now + 600 * SECOND,
                early_nano=0,
                postings=(),
            ),
        )
        left = [
            (purse, self.balances.of(purse, each.lease))
            for purse in (Purse.ESCROW_ALLOCATED, Purse.ESCROW_USAGE)
        ]
        back = tuple(
            posting
            for purse, nano in left
            for posting in move((purse, each.lease), (Purse.FREE, each.buyer), nano)
        )
        refund = Wide(sum(nano for _, nano in left))
        closed = LeaseClosed(at_us=self.step(), lease=each.lease, refund_nano=refund, postings=back)
        self.tell(each.lease, closed)

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


INSTRUMENTS = {
    instrument_of(device, region): (device, region) for device in DEVICES for region in REGIONS
}


def _names(instrument: bytes) -> tuple[str, str]:
    return next(names for id_, names in INSTRUMENTS.items() if id_ == instrument)


def _of(order: BidPlaced | OfferPlaced) -> bytes:
    return instrument_of(order.resource, order.region)


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
