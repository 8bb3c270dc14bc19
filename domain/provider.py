"""Providers: registration, bonding, admission, unbonding, slashing (R5, R6)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Annotated, Final, assert_never

from domain.ids import (
    AccountId,
    Hash32,
    LeaseId,
    NodeId,
    PotId,
    ProviderId,
    SlashId,
    Wide,
    derive,
)
from domain.invariant import invariant
from domain.journal import NOBODY, Posting, Purse, move
from domain.record import record
from domain.refusal import Refused, code
from domain.stake import Stake, StakeTaken, bonded_in, parts_of, taken_from, unbonding_in
from domain.text import is_shown_whole


def provider_of(account: bytes) -> ProviderId:
    """An account runs at most one provider."""
    return ProviderId(derive("provider", account))


def slash_of(fault: Fault, *subject: bytes | int | str) -> SlashId:
    """One fault, one slash (R5.7): the id is the fault's, whoever reports it with whatever."""
    return SlashId(derive("slash", fault.value, *subject))


class Fault(Enum):
    """What is punished, in the order in which a pot is divided (R5.8)."""

    MALICIOUS = "MALICIOUS"
    ATTESTATION = "ATTESTATION"
    DATA_LOSS = "DATA_LOSS"
    CONTRADICTION = "CONTRADICTION"
    DOWNTIME = "DOWNTIME"


@record("synor.provider.v1.ProviderRegistered")
class ProviderRegistered:
    """A provider with its commitment; it may offer once it is admitted."""

    at_us: Annotated[int, "effective time, µs UTC"]
    provider: Annotated[ProviderId, "the provider; aggregate id"]
    account: Annotated[AccountId, "account that funds and earns"]
    location: Annotated[str, "where it is, free text"]
    network: Annotated[Hash32, "SHA-256 of the network manifest"]
    uptime_ppm: Annotated[int, "committed uptime, 900,000..999,999"]
    response_time_ms: Annotated[int, "committed response time; shown, no money moves on it"]
    durability_pp12: Annotated[int, "committed durability in parts per 10^12"]
    penalty_ppm: Annotated[int, "SLA credit of a lease's charges in ppm (R5.10)"]


@record("synor.provider.v1.StakeBonded")
class StakeBonded:
    """A tranche of stake: free → stake."""

    at_us: Annotated[int, "effective time, µs UTC"]
    provider: Annotated[ProviderId, "the provider"]
    tranche: Annotated[int, "number of the tranche, from 0, oldest first"]
    amount_nano: Annotated[Wide, "nano SYNOR"]
    postings: Annotated[tuple[Posting, ...], "free → stake"]


@record("synor.provider.v1.ProviderAdmitted")
class ProviderAdmitted:
    """Bonded stake first reached Σ r of its nodes (R6.1); SLA windows count from here."""

    at_us: Annotated[int, "effective time, µs UTC"]
    provider: Annotated[ProviderId, "the provider"]
    required_nano: Annotated[Wide, "Σ r at admission"]


@record("synor.provider.v1.StakeUnbonding")
class StakeUnbonding:
    """Part of a tranche leaves bonded stake (R6.3): stake → unbonding, newest tranche first."""

    at_us: Annotated[int, "effective time, µs UTC"]
    provider: Annotated[ProviderId, "the provider"]
    tranche: Annotated[int, "tranche it is taken from"]
    amount_nano: Annotated[Wide, "nano SYNOR"]
    release_us: Annotated[int, "when it is free to be paid out"]
    postings: Annotated[tuple[Posting, ...], "stake → unbonding"]


@record("synor.provider.v1.StakeSlashed")
class StakeSlashed:
    """One fault, one slash (R5.7); what is missing is a shortfall, never a debt (R5.9)."""

    at_us: Annotated[int, "effective time, µs UTC"]
    slash: Annotated[SlashId, "hash of the fault: kind, subject, first instant or window"]
    provider: Annotated[ProviderId, "the provider"]
    node: Annotated[NodeId | None, "the node, where the fault is one node's"]
    fault: Annotated[Fault, "what is punished"]
    fault_us: Annotated[int, "the fault's first instant, or the window's start"]
    base_nano: Annotated[Wide, "stake that the penalty is measured on"]
    due_nano: Annotated[Wide, "what the rule asks for"]
    taken_nano: Annotated[Wide, "what could be reached"]
    shortfall_nano: Annotated[Wide, "due − taken"]
    tranches: Annotated[tuple[StakeTaken, ...], "oldest first"]
    pot: Annotated[PotId | None, "pot that it is paid from; None where stake pays directly"]
    postings: Annotated[tuple[Posting, ...], "stake, unbonding or pot → insurance"]


@record("synor.provider.v1.StakeFrozen")
class StakeFrozen:
    """Reachable stake goes into a pot when its first evidence is accepted (R5.8)."""

    at_us: Annotated[int, "effective time, µs UTC"]
    provider: Annotated[ProviderId, "the provider"]
    pot: Annotated[PotId, "the pot"]
    tranches: Annotated[tuple[StakeTaken, ...], "what is frozen, oldest first"]
    postings: Annotated[tuple[Posting, ...], "stake and unbonding → pot"]


@record("synor.provider.v1.StakeThawed")
class StakeThawed:
    """What a pot did not need goes back to the tranches that it came from."""

    at_us: Annotated[int, "effective time, µs UTC"]
    provider: Annotated[ProviderId, "the provider"]
    pot: Annotated[PotId, "the pot"]
    tranches: Annotated[tuple[StakeTaken, ...], "what goes back"]
    postings: Annotated[tuple[Posting, ...], "pot → stake and unbonding"]


@record("synor.provider.v1.StakeReleased")
class StakeReleased:
    """Finished unbonding left with an epoch cut, whose postings carry the money (R9.1)."""

    at_us: Annotated[int, "the cut's deadline: what was released by then is gone, µs UTC"]
    provider: Annotated[ProviderId, "the provider"]
    amount_nano: Annotated[Wide, "nano SYNOR"]


@record("synor.provider.v1.StakeForfeited")
class StakeForfeited:
    """Stake went to the buyer of a broken reservation, whose postings carry the money (R8.5)."""

    at_us: Annotated[int, "effective time, µs UTC"]
    provider: Annotated[ProviderId, "the provider"]
    lease: Annotated[LeaseId, "the lease that was reserved"]
    tranches: Annotated[tuple[StakeTaken, ...], "oldest first"]


ProviderEvent = (
    ProviderRegistered
    | StakeBonded
    | ProviderAdmitted
    | StakeUnbonding
    | StakeSlashed
    | StakeFrozen
    | StakeThawed
    | StakeReleased
    | StakeForfeited
)


# States


@dataclass(frozen=True, slots=True, kw_only=True)
class Commitment:
    """What a provider promises (R5)."""

    uptime_ppm: int
    response_time_ms: int
    durability_pp12: int
    penalty_ppm: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Applicant:
    """Registered; bonded stake has not reached what its nodes require."""

    account: AccountId
    commitment: Commitment
    stake: Stake


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """May offer; SLA windows count from ``admitted_us``."""

    account: AccountId
    commitment: Commitment
    stake: Stake
    admitted_us: int


ProviderState = Applicant | Admitted


# Commands


@record("synor.command.v1.RegisterProvider")
class RegisterProvider:
    """An account becomes a provider."""

    location: Annotated[str, "where it is, free text, at most 100 characters"]
    network: Annotated[Hash32, "SHA-256 of the network manifest"]
    uptime_ppm: Annotated[int, "committed uptime, 900,000..999,999"]
    response_time_ms: Annotated[int, "committed response time"]
    durability_pp12: Annotated[int, "committed durability in parts per 10^12"]
    penalty_ppm: Annotated[int, "SLA credit in ppm"]


@record("synor.command.v1.BondStake")
class BondStake:
    """Bond free balance as a new tranche of stake."""

    amount_nano: Annotated[Wide, "nano SYNOR, above zero"]


@record("synor.command.v1.UnbondStake")
class UnbondStake:
    """Start unbonding, newest tranche first, only above what is required (R6.3)."""

    amount_nano: Annotated[Wide, "nano SYNOR, above zero"]


# Refusals

PROVIDER_EXISTS: Final = code(401, "provider_exists", "An account runs one provider; use it.")
NOT_A_PROVIDER: Final = code(402, "not_a_provider", "Register the account as a provider first.")
COMMITMENT_OUT_OF_BOUNDS: Final = code(
    403, "commitment_out_of_bounds", "Keep the commitment within the bounds that are named."
)
LOCATION_TOO_LONG: Final = code(404, "location_too_long", "Name the place in 100 characters.")
LOCATION_HIDDEN: Final = code(
    405, "location_hides_characters", "Leave out control characters and what cannot be seen."
)
STAKE_IS_FROZEN: Final = code(
    406, "stake_is_frozen", "Wait until the open pot is divided; then unbond what thaws."
)
STAKE_IS_REQUIRED: Final = code(
    407,
    "stake_is_required",
    "Unbond at most what exceeds the required stake, or retire nodes."
    " The figures are nano SYNOR, 10^9 to one.",
)
TOO_MANY_TRANCHES: Final = code(
    408, "too_many_tranches", "Bond or unbond fewer, larger amounts; wait for releases."
)

RESPONSE_TIME_MS: Final = (0, 86_400_000)
DURABILITY_PP12: Final = (0, 10**12)
PENALTY_PPM: Final = (0, 1_000_000)


# Decide


def decide_register(
    command: RegisterProvider,
    state: ProviderState | None,
    *,
    account: AccountId,
    uptime_ppm: tuple[int, int],
    location_length: int,
    now_us: int,
) -> ProviderRegistered | Refused:
    """An account becomes a provider, with a commitment within its bounds (R5)."""
    if state is not None:
        return Refused(PROVIDER_EXISTS, provider_of(account).hex())
    for name, value, (low, high) in (
        ("uptime_ppm", command.uptime_ppm, uptime_ppm),
        ("response_time_ms", command.response_time_ms, RESPONSE_TIME_MS),
        ("durability_pp12", command.durability_pp12, DURABILITY_PP12),
        ("penalty_ppm", command.penalty_ppm, PENALTY_PPM),
    ):
        if not low <= value <= high:
            return Refused(COMMITMENT_OUT_OF_BOUNDS, f"{name} {value} is not in {low}..{high}")
    if len(command.location) > location_length:
        return Refused(LOCATION_TOO_LONG, f"{len(command.location)} characters")
    if not is_shown_whole(command.location):
        return Refused(LOCATION_HIDDEN, command.location)
    return ProviderRegistered(
        at_us=now_us,
        provider=provider_of(account),
        account=account,
        location=command.location,
        network=command.network,
        uptime_ppm=command.uptime_ppm,
        response_time_ms=command.response_time_ms,
        durability_pp12=command.durability_pp12,
        penalty_ppm=command.penalty_ppm,
    )


def decide_bond(
    amount_nano: int,
    state: ProviderState | None,
    *,
    provider: ProviderId,
    parts_most: int,
    now_us: int,
) -> StakeBonded | Refused:
    """A new tranche; the amount was found in the free balance."""
    if state is None:
        return Refused(NOT_A_PROVIDER)
    if parts_of(state.stake) >= parts_most:
        return Refused(TOO_MANY_TRANCHES, f"{parts_of(state.stake)} parts, at most {parts_most}")
    return StakeBonded(
        at_us=now_us,
        provider=provider,
        tranche=state.stake.next_number,
        amount_nano=Wide(amount_nano),
        postings=move((Purse.FREE, state.account), (Purse.STAKE, provider), amount_nano),
    )


def decide_admission(
    state: ProviderState, *, provider: ProviderId, required_nano: int, nodes: int, now_us: int
) -> ProviderAdmitted | None:
    """Admission where bonded stake first reaches Σ r of at least one node (R6.1)."""
    if not isinstance(state, Applicant) or nodes == 0 or state.stake.bonded_nano < required_nano:
        return None
    return ProviderAdmitted(at_us=now_us, provider=provider, required_nano=Wide(required_nano))


def decide_unbond(
    amount_nano: int,
    state: ProviderState | None,
    *,
    provider: ProviderId,
    required_nano: int,
    pot_open: bool,
    release_us: int,
    parts_most: int,
    now_us: int,
) -> tuple[StakeUnbonding, ...] | Refused:
    """Newest tranche first, only above what is required (R6.3), one event per tranche."""
    if state is None:
        return Refused(NOT_A_PROVIDER)
    if pot_open:
        return Refused(STAKE_IS_FROZEN)
    stake = state.stake
    if stake.bonded_nano - amount_nano < required_nano:
        return Refused(STAKE_IS_REQUIRED, f"bonded {stake.bonded_nano}, required {required_nano}")
    events: list[StakeUnbonding] = []
    rest = amount_nano
    for tranche in reversed(stake.tranches):
        part = min(rest, tranche.bonded_nano)
        if part:
            events.append(
                StakeUnbonding(
                    at_us=now_us,
                    provider=provider,
                    tranche=tranche.number,
                    amount_nano=Wide(part),
                    release_us=release_us,
                    postings=move((Purse.STAKE, provider), (Purse.UNBONDING, provider), part),
                )
            )
            rest -= part
    if parts_of(stake) + len(events) > parts_most:
        return Refused(TOO_MANY_TRANCHES, f"{parts_of(stake)} parts, at most {parts_most}")
    return tuple(events)


def frozen_by(
    stake: Stake, *, provider: ProviderId, pot: PotId, fault_us: int, now_us: int
) -> StakeFrozen | None:
    """What a fault's evidence freezes beside what is frozen: whole tranches that it reaches."""
    reached = taken_from(stake, stake.total_nano, fault_us=fault_us, pot=None)
    if not reached:
        return None
    return StakeFrozen(
        at_us=now_us,
        provider=provider,
        pot=pot,
        tranches=reached,
        postings=(
            *move((Purse.STAKE, provider), (Purse.POT, pot), bonded_in(reached)),
            *move((Purse.UNBONDING, provider), (Purse.POT, pot), unbonding_in(reached)),
        ),
    )


def thawed_by(stake: Stake, *, provider: ProviderId, pot: PotId, now_us: int) -> StakeThawed | None:
    """What is left in a pot goes back to the tranches that it came from."""
    left = tuple(
        StakeTaken(
            tranche=t.number,
            bonded_nano=Wide(t.bonded_nano),
            unbonding_nano=Wide(t.unbonding_nano),
        )
        for t in stake.tranches
        if t.pot == pot
    )
    if not left:
        return None
    return StakeThawed(
        at_us=now_us,
        provider=provider,
        pot=pot,
        tranches=left,
        postings=(
            *move((Purse.POT, pot), (Purse.STAKE, provider), bonded_in(left)),
            *move((Purse.POT, pot), (Purse.UNBONDING, provider), unbonding_in(left)),
        ),
    )


def slashed_by(
    stake: Stake,
    *,
    provider: ProviderId,
    node: NodeId | None,
    slash: SlashId,
    fault: Fault,
    fault_us: int,
    base_nano: int,
    due_nano: int,
    pot: PotId | None,
    now_us: int,
) -> StakeSlashed:
    """One slash, capped by what is reached; all of it goes to the insurance."""
    tranches = taken_from(stake, due_nano, fault_us=fault_us, pot=pot)
    bonded, unbonding = bonded_in(tranches), unbonding_in(tranches)
    insurance = (Purse.INSURANCE, NOBODY)
    return StakeSlashed(
        at_us=now_us,
        slash=slash,
        provider=provider,
        node=node,
        fault=fault,
        fault_us=fault_us,
        base_nano=Wide(base_nano),
        due_nano=Wide(due_nano),
        taken_nano=Wide(bonded + unbonding),
        shortfall_nano=Wide(due_nano - bonded - unbonding),
        tranches=tranches,
        pot=pot,
        postings=move((Purse.POT, pot), insurance, bonded + unbonding)
        if pot is not None
        else (
            *move((Purse.STAKE, provider), insurance, bonded),
            *move((Purse.UNBONDING, provider), insurance, unbonding),
        ),
    )


# Evolve


def evolve(state: ProviderState | None, event: ProviderEvent) -> ProviderState:
    """The provider after one more event."""
    match event:
        case ProviderRegistered():
            return Applicant(
                account=event.account,
                commitment=Commitment(
                    uptime_ppm=event.uptime_ppm,
                    response_time_ms=event.response_time_ms,
                    durability_pp12=event.durability_pp12,
                    penalty_ppm=event.penalty_ppm,
                ),
                stake=Stake(),
            )
        case ProviderAdmitted():
            invariant(isinstance(state, Applicant), "a provider is admitted once")
            assert state is not None
            return Admitted(
                account=state.account,
                commitment=state.commitment,
                stake=state.stake,
                admitted_us=event.at_us,
            )
        case (
            StakeBonded()
            | StakeUnbonding()
            | StakeSlashed()
            | StakeFrozen()
            | StakeThawed()
            | StakeReleased()
            | StakeForfeited()
        ):
            assert state is not None
            return replace(state, stake=stake_after(state.stake, event))
        case _:
            assert_never(event)


StakeEvent = (
    StakeBonded
    | StakeUnbonding
    | StakeSlashed
    | StakeFrozen
    | StakeThawed
    | StakeReleased
    | StakeForfeited
)


def stake_after(stake: Stake, event: StakeEvent) -> Stake:
    """The tranches after one more event; an empty tranche is gone."""
    match event:
        case StakeBonded():
            return stake.bonded(event.tranche, event.at_us, event.amount_nano)
        case StakeUnbonding():
            return stake.unbonding(event.tranche, event.amount_nano, event.release_us)
        case StakeSlashed() | StakeForfeited():
            return stake.less(event.tranches)
        case StakeFrozen():
            return stake.frozen([taken.tranche for taken in event.tranches], event.pot)
        case StakeThawed():
            return stake.thawed(event.pot)
        case StakeReleased():
            return stake.released(event.at_us)
        case _:
            assert_never(event)
