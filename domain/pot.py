"""Pots: evidence freezes stake, more evidence joins, then it is divided once (R5.6–R5.9)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Final, assert_never

from domain.ids import Hash32, LeaseId, NodeId, PotId, ProviderId, PublicKey, SlashId, Wide
from domain.invariant import invariant
from domain.provider import Fault, StakeSlashed, StakeThawed, slashed_by, stake_after, thawed_by
from domain.record import record
from domain.refusal import Refused, code
from domain.sla import MILLION
from domain.stake import Stake


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
    """One fault in a pot: a contradiction raised by a shard, or a window's downtime (R5.4)."""

    at_us: Annotated[int, "effective time, µs UTC"]
    pot: Annotated[PotId, "the pot"]
    slash: Annotated[SlashId, "hash of the fault"]
    provider: Annotated[ProviderId, "the provider"]
    node: Annotated[NodeId, "the node whose share it takes"]
    fault: Annotated[Fault, "what is punished"]
    fault_us: Annotated[int, "the fault's first instant"]
    lease: Annotated[LeaseId | None, "the lease, where the fault is about one"]
    key: Annotated[PublicKey, "key that signed both readings; zero for downtime"]
    first: Annotated[Hash32, "digest of the accepted batch; zero for downtime"]
    second: Annotated[Hash32, "digest of the contradicting batch; zero for downtime"]
    base_nano: Annotated[Wide, "stake that the penalty is measured on (R5.4, R5.5)"]
    due_nano: Annotated[
        Wide,
        "the node's share, all stake, or the window's slash",
    ]


@record("synor.pot.v1.PotPartDivided")
class PotPartDivided:
    """Many charges of a pot that has very many are divided; their slashes follow, then the rest."""

    at_us: Annotated[int, "the deadline, µs UTC"]
    pot: Annotated[PotId, "the pot"]
    provider: Annotated[ProviderId, "the provider"]
    charges: Annotated[int, "how many charges"]
    slashed_nano: Annotated[Wide, "sum of their slashes"]


@record("synor.pot.v1.PotDivided")
class PotDivided:
    """The pot is divided: slashes follow as events of the provider; the rest thaws."""

    at_us: Annotated[int, "the deadline, µs UTC"]
    pot: Annotated[PotId, "the pot"]
    provider: Annotated[ProviderId, "the provider"]
    slashed_nano: Annotated[Wide, "sum of the slashes, those of earlier parts too"]
    thawed_nano: Annotated[Wide, "what goes back"]


PotEvent = PotOpened | EvidenceAccepted | PotPartDivided | PotDivided


# States


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """One fault that a pot will pay for."""

    slash: SlashId
    node: NodeId
    fault: Fault
    fault_us: int
    base_nano: int
    due_nano: int

    @property
    def whole(self) -> bool:
        """Whether it asks for all stake and not for a node's share."""
        return self.due_nano == self.base_nano


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """Evidence joins until one instant and is heard until the other."""

    provider: ProviderId
    joins_until_us: int
    divides_us: int
    charges: tuple[Charge, ...] = ()
    #: Of its charges, in the order of division.
    divided: int = 0
    slashed_nano: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Divided:
    """Done, for ever."""

    provider: ProviderId
    slashed_nano: int


PotState = Open | Divided


# Refusals: evidence that a shard reports has no answer, so these are the reasons of a silence

EVIDENCE_REPEATED: Final = code(
    801, "evidence_repeated", "Nothing is left to do: this fault was judged."
)
EVIDENCE_TOO_OLD: Final = code(802, "evidence_too_old", "Report a fault within the evidence age.")
EVIDENCE_ADDS_NOTHING: Final = code(
    803, "evidence_adds_nothing", "The open pot takes as much for this node or provider already."
)

#: A pot with more is divided in several items at one instant, so that commits keep within bounds.
CHARGES_PER_ITEM: Final = 256
#: The order in which a pot is divided (R5.8).
RANK: Final = {fault: place for place, fault in enumerate(Fault)}


# Decide


@dataclass(frozen=True, slots=True, kw_only=True)
class Accusation:
    """A contradiction and what the market knows of the accused at its first instant."""

    slash: SlashId
    node: NodeId
    fault_us: int
    claimed_us: int
    base_nano: int
    share_nano: int
    by_provider: bool
    guilty_nodes: int
    nodes: int


def decide_contradiction(
    accused: Accusation,
    pot: Open | None,
    *,
    judged: bool,
    evidence_age_us: int,
    guilty_most: int,
    guilty_ppm: int,
    now_us: int,
) -> Charge | Refused:
    """What a contradiction costs (R5.6, R5.7); ``pot`` is the one that it would join.

    Its first instant is when the shard met it, which nobody can choose; the readings' own time is
    their signer's claim and only makes it too old. A node's key alone takes the node's share, once
    in a pot; the provider's key, ``guilty_most`` nodes or more than ``guilty_ppm`` of the nodes
    take all.
    """
    if judged:
        return Refused(EVIDENCE_REPEATED, accused.slash.hex())
    if now_us - min(accused.fault_us, accused.claimed_us) > evidence_age_us:
        return Refused(EVIDENCE_TOO_OLD, f"{accused.fault_us} at {now_us}")
    whole = (
        accused.by_provider
        or accused.guilty_nodes >= guilty_most
        or accused.guilty_nodes * MILLION > accused.nodes * guilty_ppm
    )
    charges = [c for c in pot.charges if c.fault is not Fault.DOWNTIME] if pot is not None else []
    most = max((c.base_nano for c in charges if c.whole), default=0)
    if whole:
        due = accused.base_nano if accused.base_nano > most else 0
    elif accused.base_nano <= most:
        due = 0
    else:
        before = sum(c.due_nano for c in charges if c.node == accused.node)
        due = max(0, accused.share_nano - before)
    if due == 0:
        return Refused(EVIDENCE_ADDS_NOTHING, accused.slash.hex())
    return Charge(
        slash=accused.slash,
        node=accused.node,
        fault=Fault.CONTRADICTION,
        fault_us=accused.fault_us,
        base_nano=accused.base_nano,
        due_nano=due,
    )


def decide_division(
    pot: PotId, state: Open, stake: Stake, *, now_us: int
) -> tuple[PotPartDivided | PotDivided, tuple[StakeSlashed, ...], StakeThawed | None]:
    """The pot, divided once (R5.8): worst fault first, then the earlier, then the smaller id.

    Each slash is measured on its own base and takes what is left of the tranches that it reaches.
    Of very many charges a full part is divided; what is left thaws with the last.
    """
    slashes: list[StakeSlashed] = []
    ranked = sorted(state.charges, key=lambda c: (RANK[c.fault], c.fault_us, c.slash))
    until = state.divided + CHARGES_PER_ITEM
    for charge in ranked[state.divided : until]:
        slash = slashed_by(
            stake,
            provider=state.provider,
            node=charge.node,
            slash=charge.slash,
            fault=charge.fault,
            fault_us=charge.fault_us,
            base_nano=charge.base_nano,
            due_nano=charge.due_nano,
            pot=pot,
            now_us=now_us,
        )
        slashes.append(slash)
        stake = stake_after(stake, slash)
    taken = sum(slash.taken_nano for slash in slashes)
    if until < len(ranked):
        part = PotPartDivided(
            at_us=now_us,
            pot=pot,
            provider=state.provider,
            charges=CHARGES_PER_ITEM,
            slashed_nano=Wide(taken),
        )
        return part, tuple(slashes), None
    thawed = thawed_by(stake, provider=state.provider, pot=pot, now_us=now_us)
    divided = PotDivided(
        at_us=now_us,
        pot=pot,
        provider=state.provider,
        slashed_nano=Wide(state.slashed_nano + taken),
        thawed_nano=Wide(sum(t.bonded_nano + t.unbonding_nano for t in thawed.tranches))
        if thawed is not None
        else Wide(0),
    )
    return divided, tuple(slashes), thawed


# Evolve


def evolve(state: PotState | None, event: PotEvent) -> PotState:
    """The pot after one more event."""
    match event:
        case PotOpened():
            return Open(
                provider=event.provider,
                joins_until_us=event.joins_until_us,
                divides_us=event.divides_us,
            )
        case EvidenceAccepted():
            return replace(_open(state), charges=(*_open(state).charges, charge_of(event)))
        case PotPartDivided():
            state = _open(state)
            return replace(
                state,
                divided=state.divided + event.charges,
                slashed_nano=state.slashed_nano + event.slashed_nano,
            )
        case PotDivided():
            return Divided(provider=_open(state).provider, slashed_nano=event.slashed_nano)
        case _:
            assert_never(event)


def charge_of(event: EvidenceAccepted) -> Charge:
    """The charge that a pot's event stands for."""
    return Charge(
        slash=event.slash,
        node=event.node,
        fault=event.fault,
        fault_us=event.fault_us,
        base_nano=event.base_nano,
        due_nano=event.due_nano,
    )


def _open(state: PotState | None) -> Open:
    invariant(isinstance(state, Open), "the pot is open")
    assert isinstance(state, Open)
    return state
