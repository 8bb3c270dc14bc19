"""Pots: evidence freezes stake, more evidence joins, then it is divided once (R5.6–R5.9)."""

from __future__ import annotations

from typing import Annotated

from domain.ids import Hash32, LeaseId, NodeId, PotId, ProviderId, PublicKey, SlashId, Wide
from domain.provider import Fault
from domain.record import record


@record("synor.pot.v1.PotOpened")
class PotOpened:
    """The first accepted evidence of a provider's fault opens a pot."""

    at_us: Annotated[int, "effective time, µs UTC"]
    pot: Annotated[PotId, "the pot; aggregate id"]
    provider: Annotated[ProviderId, "the provider"]
    frozen_nano: Annotated[Wide, "reachable stake, frozen"]
    joins_until_us: Annotated[int, "evidence accepted before this joins"]
    divides_us: Annotated[int, "when it is divided: after the time in which disputes are heard"]


@record("synor.pot.v1.EvidenceAccepted")
class EvidenceAccepted:
    """One fault in a pot: a contradiction raised by a shard, judged and measured."""

    at_us: Annotated[int, "effective time, µs UTC"]
    pot: Annotated[PotId, "the pot"]
    slash: Annotated[SlashId, "hash of the fault"]
    provider: Annotated[ProviderId, "the provider"]
    node: Annotated[NodeId, "the node whose share it takes"]
    fault: Annotated[Fault, "what is punished"]
    fault_us: Annotated[int, "the fault's first instant"]
    lease: Annotated[LeaseId | None, "the lease, where the fault is about one"]
    key: Annotated[PublicKey, "key that signed both readings"]
    first: Annotated[Hash32, "digest of the accepted batch"]
    second: Annotated[Hash32, "digest of the contradicting batch"]
    base_nano: Annotated[Wide, "bonded plus unbonding stake at the fault's first instant"]
    due_nano: Annotated[Wide, "the node's share, or all stake where the provider itself is guilty"]


@record("synor.pot.v1.PotDivided")
class PotDivided:
    """The pot is divided: slashes follow as events of the provider; the rest thaws."""

    at_us: Annotated[int, "the deadline, µs UTC"]
    pot: Annotated[PotId, "the pot"]
    provider: Annotated[ProviderId, "the provider"]
    slashed_nano: Annotated[Wide, "sum of the slashes"]
    thawed_nano: Annotated[Wide, "what goes back"]


PotEvent = PotOpened | EvidenceAccepted | PotDivided
