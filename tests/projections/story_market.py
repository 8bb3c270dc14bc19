"""What a story's market does: orders, rounds, leases and what is charged for them."""

from __future__ import annotations

from domain.bid import BidCancelled, BidFilled, BidPlaced, MeteredLimit
from domain.ids import (
    BidId,
    Bytes16,
    LeaseId,
    OfferId,
    Wide,
)
from domain.journal import NOBODY, Posting, Purse, move
from domain.key import RowRefused
from domain.lease import (
    BREAKS,
    EndReason,
    LeaseClosed,
    LeaseEnded,
    LeaseOpened,
    LeaseReady,
    ReservationBroken,
    UsageLine,
    UsagePosted,
)
from domain.node import Amount
from domain.offer import OfferPlaced, OfferWithdrawn
from domain.provider import (
    provider_of,
)
from domain.round import Fill, RoundCleared, RoundOpened, instrument_of
from domain.telemetry import (
    Quantity,
    UsageStated,
)
from tests.projections.story_cast import (
    DEVICES,
    PRICE_NANO,
    REGIONS,
    SECOND,
    Lease,
    Telling,
    hashed,
    instrument_of_order,
    names_of,
)


class MarketTelling(Telling):
    """Orders and leases."""

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
        bid = next((b for b in self.bids if instrument_of_order(b) == instrument), None)
        offer = next(
            (o for o in self.offers if instrument_of_order(o) == instrument and self._room(o, bid)),
            None,
        )
        fills: tuple[Fill, ...] = ()
        if bid is not None and offer is not None:
            lots = bid.quantity_milli // bid.lot_milli
            lease = LeaseId(self.fresh("lease"))
            fills = (Fill(bid=bid.bid, offer=offer.offer, node=offer.node, lots=lots, lease=lease),)
        self.tell(
            instrument,
            RoundCleared(
                at_us=now,
                instrument=instrument_of(*names_of(instrument)),
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
        self.leases.append(Lease(lease, offer.offer, milli, bid.account, offer.account, offer.node))
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
        reason = self.random.choice(list(EndReason))
        self.tell(
            each.lease,
            LeaseEnded(
                at_us=now,
                lease=each.lease,
                node=each.node,
                reason=reason,
                was_active=each.ready,
                closing_us=now + 600 * SECOND,
                early_nano=0,
                postings=(),
            ),
        )
        if reason in BREAKS:
            self.tell(
                each.lease,
                ReservationBroken(
                    at_us=now,
                    lease=each.lease,
                    node=each.node,
                    provider=provider_of(each.account),
                    buyer=each.buyer,
                    until_us=now + 7200 * SECOND,
                    reference_nano=PRICE_NANO,
                    due_nano=Wide(PRICE_NANO),
                    taken_nano=Wide(0),
                    shortfall_nano=Wide(PRICE_NANO),
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
