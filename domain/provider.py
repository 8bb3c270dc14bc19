"""Providers: registration, stake in tranches, admission, slashing (R5, R6)."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

from domain.ids import AccountId, Hash32, NodeId, PotId, ProviderId, SlashId, Wide, derive
from domain.journal import Posting
from domain.record import record


def provider_of(account: bytes) -> ProviderId:
    """An account runs at most one provider."""
    return ProviderId(derive("provider", account))


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


@record("synor.provider.v1.StakeTaken")
class StakeTaken:
    """What one slash takes from one tranche."""

    tranche: Annotated[int, "number of the tranche"]
    bonded_nano: Annotated[Wide, "taken from its bonded part"]
    unbonding_nano: Annotated[Wide, "taken from its unbonding part"]


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


ProviderEvent = (
    ProviderRegistered
    | StakeBonded
    | ProviderAdmitted
    | StakeUnbonding
    | StakeSlashed
    | StakeFrozen
    | StakeThawed
)


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
