"""Stake in tranches, oldest first, and what a fault reaches of it (R5.9, R6.3).

A slash reaches only what was bonded or unbonding at the fault, oldest first, and unbonding begins
with the newest: so each bond is a tranche of its own. A tranche is frozen whole: a pot either
reaches it or does not. Nothing here changes; every operation gives another ``Stake``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from domain.ids import PotId, Wide
from domain.invariant import invariant
from domain.record import record


@record("synor.provider.v1.StakeTaken")
class StakeTaken:
    """What one slash takes from one tranche."""

    tranche: Annotated[int, "number of the tranche"]
    bonded_nano: Annotated[Wide, "taken from its bonded part"]
    unbonding_nano: Annotated[Wide, "taken from its unbonding part"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unbonding:
    """A part of a tranche that is on its way out."""

    release_us: int
    amount_nano: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tranche:
    """What one ``StakeBonded`` added and is still there; ``pot`` where it is frozen."""

    number: int
    bonded_us: int
    bonded_nano: int
    unbonding: tuple[Unbonding, ...] = ()
    pot: PotId | None = None

    @property
    def unbonding_nano(self) -> int:
        """What is on its way out."""
        return sum(part.amount_nano for part in self.unbonding)

    @property
    def total_nano(self) -> int:
        """Bonded plus unbonding."""
        return self.bonded_nano + self.unbonding_nano


@dataclass(frozen=True, slots=True, kw_only=True)
class Stake:
    """All stake of a provider, oldest tranche first."""

    tranches: tuple[Tranche, ...] = ()
    next_number: int = 0

    @property
    def bonded_nano(self) -> int:
        """What is bonded and not frozen: what carries the nodes (R6.2)."""
        return sum(t.bonded_nano for t in self.tranches if t.pot is None)

    @property
    def total_nano(self) -> int:
        """Bonded plus unbonding, frozen or not: what a penalty is measured on."""
        return sum(t.total_nano for t in self.tranches)

    def released_nano(self, now_us: int) -> int:
        """Unbonding that is over by now and that no pot holds (R6.3)."""
        return sum(
            part.amount_nano
            for tranche in self.tranches
            if tranche.pot is None
            for part in tranche.unbonding
            if part.release_us <= now_us
        )

    def bonded(self, number: int, now_us: int, amount_nano: int) -> Stake:
        """With one more tranche."""
        added = Tranche(number=number, bonded_us=now_us, bonded_nano=amount_nano)
        return Stake(tranches=(*self.tranches, added), next_number=number + 1)

    def unbonding(self, number: int, amount_nano: int, release_us: int) -> Stake:
        """With part of a tranche on its way out."""
        part = Unbonding(release_us=release_us, amount_nano=amount_nano)
        return self._with(
            replace(
                t,
                bonded_nano=t.bonded_nano - amount_nano,
                unbonding=tuple(sorted((*t.unbonding, part), key=lambda p: p.release_us)),
            )
            if t.number == number
            else t
            for t in self.tranches
        )

    def less(self, taken: Iterable[StakeTaken]) -> Stake:
        """Without what a slash took."""
        of = {one.tranche: one for one in taken}
        return self._with(_less(t, of.get(t.number)) for t in self.tranches)

    def frozen(self, numbers: Sequence[int], pot: PotId) -> Stake:
        """With these tranches in a pot."""
        named = set(numbers)
        return self._with(replace(t, pot=pot) if t.number in named else t for t in self.tranches)

    def thawed(self, pot: PotId) -> Stake:
        """With nothing in this pot any more."""
        return self._with(replace(t, pot=None) if t.pot == pot else t for t in self.tranches)

    def released(self, now_us: int) -> Stake:
        """Without the unbonding that is over by now and that no pot holds."""
        return self._with(
            t
            if t.pot is not None
            else replace(t, unbonding=tuple(p for p in t.unbonding if p.release_us > now_us))
            for t in self.tranches
        )

    def _with(self, tranches: Iterable[Tranche]) -> Stake:
        return replace(self, tranches=tuple(t for t in tranches if t.total_nano))


def taken_from(
    stake: Stake, amount_nano: int, *, fault_us: int, pot: PotId | None
) -> tuple[StakeTaken, ...]:
    """What a slash of ``amount_nano`` takes: oldest tranche first, its bonded part first (R5.9).

    Reached are tranches bonded at or before the fault that are in ``pot`` (None: not frozen).
    """
    taken: list[StakeTaken] = []
    rest = amount_nano
    for tranche in stake.tranches:
        if tranche.pot != pot or tranche.bonded_us > fault_us:
            continue
        bonded = min(rest, tranche.bonded_nano)
        unbonding = min(rest - bonded, tranche.unbonding_nano)
        if bonded or unbonding:
            taken.append(
                StakeTaken(
                    tranche=tranche.number,
                    bonded_nano=Wide(bonded),
                    unbonding_nano=Wide(unbonding),
                )
            )
            rest -= bonded + unbonding
    return tuple(taken)


def bonded_in(taken: Iterable[StakeTaken]) -> int:
    """Sum of the bonded parts."""
    return sum(t.bonded_nano for t in taken)


def unbonding_in(taken: Iterable[StakeTaken]) -> int:
    """Sum of the unbonding parts."""
    return sum(t.unbonding_nano for t in taken)


def parts_of(stake: Stake) -> int:
    """How many amounts make up the stake."""
    return sum(1 + len(t.unbonding) for t in stake.tranches)


def _less(tranche: Tranche, taken: StakeTaken | None) -> Tranche:
    if taken is None:
        return tranche
    rest = int(taken.unbonding_nano)
    left: list[Unbonding] = []
    for part in tranche.unbonding:
        gone = min(rest, part.amount_nano)
        rest -= gone
        if part.amount_nano > gone:
            left.append(replace(part, amount_nano=part.amount_nano - gone))
    invariant(rest == 0 and taken.bonded_nano <= tranche.bonded_nano, "a tranche holds its slash")
    return replace(
        tranche, bonded_nano=tranche.bonded_nano - taken.bonded_nano, unbonding=tuple(left)
    )
