"""Events that no lawful market writes, and that rows cannot take: each returns its aggregate."""

from __future__ import annotations

from dataclasses import replace

from domain.ids import Bytes16, LeaseId, NodeId, OfferId, Wide
from domain.journal import NOBODY, Posting, Purse
from domain.lease import UsagePosted
from domain.node import NodeHealthChanged
from domain.offer import OfferPlaced
from domain.round import RoundCleared, RoundOpened, instrument_of
from tests.projections.story import Story
from tests.projections.story_cast import SECOND


def stranger_falls(story: Story, node: bytes | None = None) -> bytes:
    """The health of a node that nobody registered: a missing row."""
    node = node or story.fresh("stranger")
    at = story.step()
    story.tell(
        node,
        NodeHealthChanged(
            at_us=at, node=NodeId(node), up=False, down_since_us=at - SECOND, up_us=0
        ),
    )
    return node


def unstorable_region(story: Story) -> bytes:
    """An offer in a region whose name holds a NUL: text that PostgreSQL cannot store."""
    known = next(event for _, event in story.everything if isinstance(event, OfferPlaced))
    offer = OfferId(story.fresh("offer"))
    story.tell(offer, replace(known, at_us=story.step(), offer=offer, region="eu\0"))
    return offer


def endless_volume(story: Story) -> bytes:
    """Rounds whose volumes add up beyond 64 bits."""
    resource, region = "gpu.endless", "eu"
    instrument = instrument_of(resource, region)
    for number in (1, 2):
        at = story.step()
        story.tell(
            instrument,
            RoundOpened(
                at_us=at,
                instrument=instrument,
                resource=resource,
                region=region,
                number=number,
                clears_us=at,
            ),
        )
        story.tell(
            instrument,
            RoundCleared(
                at_us=at,
                instrument=instrument,
                number=number,
                reference_nano=1,
                low_nano=1,
                high_nano=1,
                price_nano=1,
                demand_milli=1,
                supply_milli=1,
                volume_milli=2**62,
                fills=(),
            ),
        )
    return instrument


def orphan_statement(story: Story) -> bytes:
    """Money posted for a lease that was never opened."""
    lease = LeaseId(story.fresh("lease"))
    at = story.step()
    story.tell(
        lease,
        UsagePosted(
            at_us=at,
            lease=lease,
            account=story.accounts[0],
            window_end_us=at,
            covered_us=1,
            lines=(),
            provider_nano=Wide(0),
            protocol_nano=Wide(5),
            final=False,
            postings=(
                Posting(purse=Purse.EXTERNAL, owner=Bytes16(bytes(16)), amount_nano=Wide(-5)),
                Posting(purse=Purse.PROTOCOL_PENDING, owner=NOBODY, amount_nano=Wide(5)),
            ),
        ),
    )
    return lease
