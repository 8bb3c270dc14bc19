"""The rules by version: what each version decides otherwise than the others (design 2, "Versions").

Every change of an outcome, bug fixes included, is a new version here. One that a released ledger
used stays as it is, so that every height is decided again as it was decided first. The operator
activates a version by a command, in the order of the numbers; it is in force from the market's next
height on. The other ledgers take it over by an event of their own.

A program that lacks a version that is in force must not go on: it does not know what to decide.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from domain.lease import ActiveLease
from domain.lease_decisions import decide_complete_1, decide_complete_2
from domain.refusal import Refused


class RulesUnknown(Exception):
    """A version is in force that this program does not have; nothing may be decided by it."""

    def __init__(self, version: int) -> None:
        """Say which version, and which there are."""
        super().__init__(
            f"unknown_rules: version {version} of the rules is in force and this program has "
            f"{', '.join(map(str, sorted(RULES)))}; install a release that has it"
        )
        self.version = version


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """One version of the rules: the decisions that differ between versions, and no others."""

    version: int
    #: Whether the node's word that the workload is over ends the lease (R4.4).
    decide_complete: Callable[..., ActiveLease | Refused]


#: Every version that there ever was.
RULES: Final[dict[int, Rules]] = {
    1: Rules(version=1, decide_complete=decide_complete_1),
    # The node's word ends no lease whose end by the provider would cost it (ADR 0009).
    2: Rules(version=2, decide_complete=decide_complete_2),
}
#: What new networks begin with.
NEWEST: Final = max(RULES)


def rules_of(version: int) -> Rules:
    """The rules of a version. Raises ``RulesUnknown``."""
    found = RULES.get(version)
    if found is None:
        raise RulesUnknown(version)
    return found
