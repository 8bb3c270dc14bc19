"""The laws of what is in force: versions of the rules, parameters, and keys.

The market decides them and the other ledgers take them over at heights of their own; each must
judge by what the market said up to the height that it has consumed, no more and no less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from domain.commit import LEDGER_TOPICS, InputRun, Ledger
from domain.key import CommandAnswered, KeyRegistered, KeyRevoked
from domain.ledger import ParameterChanged, RulesActivated, WriterAppointed, WriterRotated
from domain.telemetry import KeyAssigned, KeyWithdrawn, TelemetryAccepted, TelemetryRefused

_MARKET: Final = LEDGER_TOPICS[Ledger.MARKET]

VERSION: Final = "a commit is decided by the rules in force"
TAKEN_OVER: Final = "a ledger takes over what the market decided"
SIGNS_NOTHING: Final = "a key signs only while it is in force"

#: What was set: a parameter's name, or None for the rules, and the value.
Setting = tuple[str | None, int]


@dataclass(slots=True)
class _Follower:
    """What one ledger has taken over."""

    rules_version: int
    #: The last height of the market that it has consumed whole.
    market_height: int = -1
    settings: list[Setting] = field(default_factory=list)
    assigned: set[bytes] = field(default_factory=set)
    withdrawn: set[bytes] = field(default_factory=set)
    writers: list[bytes] = field(default_factory=list)


class InForce:
    """What the market put in force, and what the others made of it. Sees commits in order."""

    def __init__(self, rules_version: int) -> None:
        """Begin with the version of the genesis."""
        self._began = rules_version
        self._followers: dict[tuple[Ledger, int], _Follower] = {}
        #: With the market's height at which it was decided.
        self._settings: list[tuple[int, Setting]] = []
        self._appointed: list[tuple[int, int, bytes]] = []
        self._registered: dict[bytes, int] = {}
        self._revoked: dict[bytes, tuple[int, int]] = {}

    def commit(
        self,
        seat: tuple[Ledger, int],
        height: int,
        rules_version: int,
        runs: Sequence[InputRun],
        events: Sequence[Any],
    ) -> tuple[str, str] | None:
        """One more commit; the law that it breaks, and how."""
        own = self._followers.setdefault(seat, _Follower(self._began))
        if rules_version != own.rules_version:
            return VERSION, f"{rules_version} with {own.rules_version} in force"
        if seat[0] is Ledger.MARKET:
            return self._market(own, height, events)
        consumed = [run for run in runs if run.topic == _MARKET and run.height >= 0]
        for number, event in enumerate(events):
            while consumed and consumed[0].events <= number:
                own.market_height = consumed.pop(0).height
            if isinstance(event, WriterRotated):
                broken = self._written(own, seat[0], event.writer)
            else:
                broken = self._follows(own, event, number, len(events))
            if broken is not None:
                return broken
        if consumed:
            own.market_height = consumed[-1].height
        return self._complete(own, seat[0])

    def _market(self, own: _Follower, height: int, events: Sequence[Any]) -> tuple[str, str] | None:
        for number, event in enumerate(events):
            match event:
                case RulesActivated():
                    if event.version != own.rules_version + 1 or len(events) != number + 2:
                        why = f"{event.version} after {own.rules_version}, event {number} of "
                        return VERSION, f"{why}{len(events)}"
                    own.rules_version = event.version
                    self._settings.append((height, (None, event.version)))
                case ParameterChanged():
                    self._settings.append((height, (event.name, event.value)))
                case WriterAppointed():
                    if any(event.writer == writer for _, _, writer in self._appointed):
                        return TAKEN_OVER, f"{event.writer.hex()[:12]} is to write again"
                    self._appointed.append((height, event.ledger, event.writer))
                case WriterRotated():
                    broken = self._written(own, Ledger.MARKET, event.writer)
                    if broken is not None:
                        return broken
                case KeyRegistered():
                    self._registered[event.key] = height
                case KeyRevoked():
                    self._revoked[event.key] = (height, number)
                case CommandAnswered():
                    # A key may take itself out of force, and is answered.
                    gone = self._revoked.get(event.key)
                    if gone is not None and gone < (height, number - event.events):
                        return (
                            SIGNS_NOTHING,
                            f"{event.key.hex()[:12]} commands after height {gone[0]}",
                        )
                case _:
                    pass
        own.market_height = height
        return self._writers_complete(own, Ledger.MARKET)

    def _written(self, own: _Follower, ledger: Ledger, writer: bytes) -> tuple[str, str] | None:
        """Each ledger's writers come in the order in which the market has appointed them."""
        own.writers.append(writer)
        said = [key for _, named, key in self._appointed if named == ledger]
        if own.writers != said[: len(own.writers)]:
            return TAKEN_OVER, f"{writer.hex()[:12]} writes, and was not appointed next"
        return None

    def _writers_complete(self, own: _Follower, ledger: Ledger) -> tuple[str, str] | None:
        due = [
            key
            for height, named, key in self._appointed
            if height <= own.market_height and named == ledger
        ]
        if len(own.writers) < len(due):
            return TAKEN_OVER, f"{due[-1].hex()[:12]} was appointed by height {own.market_height}"
        return None

    def _follows(
        self, own: _Follower, event: Any, number: int, count: int
    ) -> tuple[str, str] | None:
        match event:
            case RulesActivated():
                if number != count - 1:
                    return VERSION, f"event {number} of {count} activates rules"
                own.rules_version = event.version
                return self._next(own, (None, event.version))
            case ParameterChanged():
                return self._next(own, (event.name, event.value))
            case KeyAssigned():
                own.assigned.add(event.key)
            case KeyWithdrawn():
                own.withdrawn.add(event.key)
            case TelemetryAccepted() | TelemetryRefused():
                return self._signed(own, event.key)
            case _:
                pass
        return None

    def _next(self, own: _Follower, taken: Setting) -> tuple[str, str] | None:
        """Settings come in the market's order; a ledger that holds rules alone skips the others."""
        own.settings.append(taken)
        said = [each for _, each in self._settings]
        if own.settings != said[: len(own.settings)]:
            rules = [each for each in said if each[0] is None]
            if own.settings != rules[: len(own.settings)]:
                return TAKEN_OVER, f"{own.settings} where the market said {said}"
        return None

    def _signed(self, own: _Follower, key: bytes) -> tuple[str, str] | None:
        """Telemetry is judged at the height of the market that the shard has consumed (R6.7)."""
        at = own.market_height
        # Of the commit after it some events may be learned already.
        if self._registered.get(key, at + 2) > at + 1:
            return SIGNS_NOTHING, f"{key.hex()[:12]} is not registered up to height {at}"
        gone = self._revoked.get(key)
        if gone is not None and gone[0] <= at:
            return SIGNS_NOTHING, f"{key.hex()[:12]} was revoked at height {gone[0]}, now {at}"
        return None

    def _complete(self, own: _Follower, ledger: Ledger) -> tuple[str, str] | None:
        """All that was decided up to the height that is consumed has been taken over."""
        due = [
            each
            for height, each in self._settings
            if height <= own.market_height and (ledger is Ledger.METERING or each[0] is None)
        ]
        if len(own.settings) < len(due):
            return TAKEN_OVER, f"{due} by height {own.market_height}, taken {own.settings}"
        for key, (height, _) in self._revoked.items():
            if height <= own.market_height and key in own.assigned - own.withdrawn:
                return TAKEN_OVER, f"{key.hex()[:12]} was revoked at {height} and is in force"
        return self._writers_complete(own, ledger)
