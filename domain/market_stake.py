"""Stake: bonding, health, SLA windows, and what faults cost (R5, R6).

Not in this version of the rules: maintenance and observer outages (R5.2, R5.3), compensation and
credits (R5.10), disputes; a slash goes to the insurance whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, get_args

from domain import pot, provider, sla
from domain.account import AMOUNT_NOT_POSITIVE, unaffordable
from domain.due import MarketDue
from domain.genesis import Role
from domain.ids import (
    AggregateId,
    Hash32,
    LeaseId,
    NodeId,
    PotId,
    ProviderId,
    PublicKey,
    Wide,
    derive,
)
from domain.invariant import invariant
from domain.journal import Purse
from domain.key import RowRefused
from domain.market_leases import provider_ruined
from domain.market_orders import capacity_freed, offers_match_again
from domain.market_registry import admit, role_refused
from domain.node import NodeHealthChanged
from domain.pot import Accusation, Charge, EvidenceAccepted, PotOpened
from domain.provider import BondStake, Fault, UnbondStake, provider_of, slash_of
from domain.refusal import Refused
from domain.sla import WindowAssessed, share_of, window_aggregate
from domain.stake import bonded_in, unbonding_in
from domain.stake_fold import Fleet, PotFacts, StakeFold, Window
from domain.telemetry import ContradictionFound, NodeCameUp, NodeWentDown

if TYPE_CHECKING:
    from domain.market import Market, Request
    from domain.processor import ForeignCommit

__all__ = ["EVOLVE", "FIRE", "HANDLERS", "LEARN", "StakeFold", "assess_ripe_windows"]

_NO_KEY: Final = PublicKey(bytes(32))
_NO_BATCH: Final = Hash32(bytes(32))


# Bonding


def _bond(market: Market, request: Request) -> Refused | Sequence[RowRefused]:
    refused = role_refused(request, Role.OWNER)
    if refused is not None:
        return refused
    command: BondStake = request.command
    owner = request.holder.account
    refused = unaffordable(command.amount_nano, market.folds.balances.of(Purse.FREE, owner))
    if refused is not None:
        return refused
    provider_id = provider_of(owner)
    aggregate = AggregateId(provider_id)
    said = provider.decide_bond(
        command.amount_nano,
        market.unit.state(aggregate),
        provider=provider_id,
        parts_most=market.parameters.stake_parts,
        now_us=market.time_us,
    )
    if isinstance(said, Refused):
        return said
    could_match = market.folds.stake.may_match(provider_id)
    market.emit(aggregate, said)
    admit(market, provider_id)
    if not could_match and market.folds.stake.may_match(provider_id):
        offers_match_again(market, provider_id, market.time_us)
    return ()


def _unbond(market: Market, request: Request) -> Refused | Sequence[RowRefused]:
    refused = role_refused(request, Role.OWNER)
    if refused is not None:
        return refused
    command: UnbondStake = request.command
    if command.amount_nano <= 0:
        return Refused(AMOUNT_NOT_POSITIVE, f"{command.amount_nano}")
    provider_id = provider_of(request.holder.account)
    aggregate = AggregateId(provider_id)
    said = provider.decide_unbond(
        command.amount_nano,
        market.unit.state(aggregate),
        provider=provider_id,
        required_nano=market.folds.stake.held_nano(provider_id),
        pot_open=bool(market.folds.stake.pots(provider_id)),
        release_us=market.time_us + market.parameters.unbonding_us,
        parts_most=market.parameters.stake_parts,
        now_us=market.time_us,
    )
    if isinstance(said, Refused):
        return said
    for event in said:
        market.emit(aggregate, event)
    return ()


# Health


def _learn_down(market: Market, commit: ForeignCommit, event: NodeWentDown) -> None:
    fleet = _in_service(market, event.node)
    if fleet is not None and fleet.first_sign_us is not None and not fleet.down:
        _health(market, event.node, up=False, down_since_us=event.since_us, up_us=0)


def _learn_up(market: Market, commit: ForeignCommit, event: NodeCameUp) -> None:
    fleet = _in_service(market, event.node)
    if fleet is not None and (fleet.first_sign_us is None or fleet.down):
        _health(market, event.node, up=True, down_since_us=event.since_us, up_us=event.at_us)
        capacity_freed(market, event.node, market.time_us)


def _in_service(market: Market, node: NodeId) -> Fleet | None:
    fleet = market.folds.stake.node(node)
    return None if fleet is None or fleet.retired_us is not None else fleet


def _health(market: Market, node: NodeId, *, up: bool, down_since_us: int, up_us: int) -> None:
    market.emit(
        AggregateId(node),
        NodeHealthChanged(
            at_us=market.time_us, node=node, up=up, down_since_us=down_since_us, up_us=up_us
        ),
    )


# SLA windows


def assess_ripe_windows(market: Market) -> Iterator[None]:
    """Assess every node whose window every consumed shard has passed (R5.4), one after another."""
    passed_us = market.folds.shards.all_passed_us()
    while (found := market.folds.stake.ripe(passed_us)) is not None:
        _assess(market, *found)
        yield


def _assess(market: Market, provider_id: ProviderId, window: Window, node: NodeId) -> None:
    fold = market.folds.stake
    fleet = fold.node(node)
    invariant(fleet is not None, "a node stays known until its window is assessed")
    assert fleet is not None
    start, end = fleet.counted(window.start_us, window.end_us)
    measured = sla.measure(
        offered=fleet.offered.spans,
        leased=fleet.leased.spans,
        downs=fleet.downs,
        broken=fleet.broken,
        start_us=start,
        end_us=end,
    )
    first = measured.first_down_us
    assessed = sla.decide_assessment(
        node=node,
        provider=provider_id,
        start_us=window.start_us,
        end_us=window.end_us,
        measured=measured,
        uptime_ppm=fold.uptime_ppm(provider_id),
        slash_hour_ppm=fold.value("slash_hour_ppm", window.start_us),
        required_nano=fleet.required_nano,
        at_start=fold.standing(provider_id, max(window.start_us, fleet.registered_us)),
        at_first_down=None if first is None else fold.standing(provider_id, first),
        now_us=market.time_us,
    )
    market.emit(window_aggregate(node, window.start_us), assessed)
    if assessed.slash is not None and first is not None:
        _punish_downtime(market, assessed, first)


def _punish_downtime(market: Market, assessed: WindowAssessed, first_down_us: int) -> None:
    assert assessed.slash is not None
    charge = Charge(
        slash=assessed.slash,
        node=assessed.node,
        fault=Fault.DOWNTIME,
        fault_us=first_down_us,
        base_nano=assessed.base_nano,
        due_nano=assessed.slash_nano,
    )
    open_pots = market.folds.stake.pots(assessed.provider)
    if open_pots:
        _join(market, assessed.provider, open_pots[-1].pot, charge)
        return
    market.emit(
        AggregateId(assessed.provider),
        provider.slashed_by(
            market.folds.stake.stake(assessed.provider),
            provider=assessed.provider,
            node=charge.node,
            slash=charge.slash,
            fault=charge.fault,
            fault_us=charge.fault_us,
            base_nano=charge.base_nano,
            due_nano=charge.due_nano,
            pot=None,
            now_us=market.time_us,
        ),
    )
    _end_leases_of_the_ruined(market, assessed.provider, market.time_us)


def _end_leases_of_the_ruined(market: Market, provider_id: ProviderId, at_us: int) -> None:
    """Leases end with the last of the stake that stood for them (R8.6)."""
    if market.folds.stake.stake(provider_id).total_nano == 0:
        provider_ruined(market, at_us, provider_id)


# Evidence


def _learn_contradiction(market: Market, commit: ForeignCommit, event: ContradictionFound) -> None:
    facts = market.folds.registry.node(event.node)
    if facts is None:
        return
    fold = market.folds.stake
    slash = slash_of(
        Fault.CONTRADICTION, event.lease, event.resource, event.generation, event.time_us
    )
    signer = market.folds.keys.holder(event.key)
    standing = fold.standing(facts.provider, event.at_us)
    guilty = fold.guilty(facts.provider, event.at_us)
    joined = next((p for p in fold.pots(facts.provider) if market.time_us < p.joins_until_us), None)
    state = None if joined is None else market.unit.state(AggregateId(joined.pot))
    charge = pot.decide_contradiction(
        Accusation(
            slash=slash,
            node=event.node,
            fault_us=event.at_us,
            claimed_us=event.time_us,
            base_nano=standing.total_nano,
            share_nano=share_of(
                standing.total_nano,
                facts.required_nano,
                max(standing.required_all_nano, facts.required_nano),
            ),
            by_provider=signer is not None and signer.role is not Role.NODE,
            guilty_nodes=len({*guilty, event.node}),
            nodes=fold.unretired(facts.provider),
        ),
        state,
        judged=fold.judged(slash),
        evidence_age_us=market.parameters.evidence_age_us,
        guilty_most=market.parameters.guilty_nodes,
        guilty_ppm=market.parameters.guilty_ppm,
        now_us=market.time_us,
    )
    if isinstance(charge, Refused):
        return
    into = _open_pot(market, facts.provider, charge) if joined is None else joined.pot
    _join(
        market,
        facts.provider,
        into,
        charge,
        lease=event.lease,
        key=event.key,
        first=event.first,
        second=event.second,
    )


def _open_pot(market: Market, provider_id: ProviderId, charge: Charge) -> PotId:
    made = PotId(derive("pot", charge.slash))
    reached = provider.frozen_by(
        market.folds.stake.stake(provider_id),
        provider=provider_id,
        pot=made,
        fault_us=charge.fault_us,
        now_us=market.time_us,
    )
    joins_until_us = market.time_us + market.parameters.pot_us
    market.emit(
        AggregateId(made),
        PotOpened(
            at_us=market.time_us,
            pot=made,
            provider=provider_id,
            frozen_nano=Wide(0)
            if reached is None
            else Wide(bonded_in(reached.tranches) + unbonding_in(reached.tranches)),
            joins_until_us=joins_until_us,
            divides_us=joins_until_us + market.parameters.dispute_us,
        ),
    )
    return made


def _join(
    market: Market,
    provider_id: ProviderId,
    into: PotId,
    charge: Charge,
    *,
    lease: LeaseId | None = None,
    key: PublicKey = _NO_KEY,
    first: Hash32 = _NO_BATCH,
    second: Hash32 = _NO_BATCH,
) -> None:
    _freeze(market, provider_id, into, charge.fault_us)
    market.emit(
        AggregateId(into),
        EvidenceAccepted(
            at_us=market.time_us,
            pot=into,
            slash=charge.slash,
            provider=provider_id,
            node=charge.node,
            fault=charge.fault,
            fault_us=charge.fault_us,
            lease=lease,
            key=key,
            first=first,
            second=second,
            base_nano=Wide(charge.base_nano),
            due_nano=Wide(charge.due_nano),
        ),
    )


def _freeze(market: Market, provider_id: ProviderId, into: PotId, fault_us: int) -> None:
    """Freeze what a fault reaches and no pot holds."""
    frozen = provider.frozen_by(
        market.folds.stake.stake(provider_id),
        provider=provider_id,
        pot=into,
        fault_us=fault_us,
        now_us=market.time_us,
    )
    if frozen is not None:
        market.emit(AggregateId(provider_id), frozen)


def _divide(market: Market, due_us: int, id: bytes) -> None:
    """Divide a pot once (R5.8); what thaws may be reached by a pot that was opened after it.

    After a part of a pot with very many charges the deadline stands again at the same instant.
    """
    pot_id = PotId(id)
    state = market.unit.state(AggregateId(pot_id))
    invariant(isinstance(state, pot.Open), "a pot is divided once")
    assert isinstance(state, pot.Open)
    divided, slashes, thawed = pot.decide_division(
        pot_id, state, market.folds.stake.stake(state.provider), now_us=due_us
    )
    market.emit(AggregateId(pot_id), divided)
    for event in (*slashes, *(() if thawed is None else (thawed,))):
        market.emit(AggregateId(state.provider), event)
    if isinstance(divided, pot.PotPartDivided):
        return
    _end_leases_of_the_ruined(market, state.provider, due_us)
    later: Sequence[PotFacts] = market.folds.stake.pots(state.provider)
    for other in later:
        _freeze(market, state.provider, other.pot, other.last_fault_us)


HANDLERS: Final = {BondStake: _bond, UnbondStake: _unbond}
FIRE: Final[Mapping[int, Callable[[Market, int, bytes], None]]] = {
    MarketDue.POT_DIVIDES: _divide,
}
LEARN: Final[Mapping[type[Any], Callable[[Market, ForeignCommit, Any], None]]] = {
    NodeWentDown: _learn_down,
    NodeCameUp: _learn_up,
    ContradictionFound: _learn_contradiction,
}
EVOLVE: Final[Mapping[type[Any], Callable[[Any, Any], Any]]] = {
    WindowAssessed: sla.evolve,
    **dict.fromkeys(get_args(pot.PotEvent), pot.evolve),
}
