"""Signed inputs over HTTP: judged by the gate's own code, appended, and answered if asked to wait.

Nothing is appended that the gate would only count. What needs the ledger's state (the signer's key,
the number) is judged by the ledger alone, except where the read model already shows an answer that
can never change: a revoked key, a number that has its answer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from adapters import api_reads
from adapters.api_problems import (
    APPEND_UNKNOWN,
    BODY_TOO_LARGE,
    BODY_TOO_SLOW,
    LOG_UNAVAILABLE,
    NOT_ANSWERED,
    RULES_NOT_HERE,
    TOO_MANY_REQUESTS,
    WRONG_MEDIA_TYPE,
    Problem,
    code_of,
)
from adapters.read_model import ReadModel
from domain.codec import Codec
from domain.commit import COMMANDS_TOPIC, Ledger
from domain.gate import Opened, for_network, open_input
from domain.genesis import Genesis
from domain.ids import shard_of
from domain.ledger import ActivateRules, Tick
from domain.ports import AppendUnknown, LogError
from domain.readings import NO_NODE
from domain.refusal import (
    KEY_ROLE,
    REVOKED_KEY,
    SEQUENCE_CONFLICT,
    UNKNOWN_KEY,
    WRONG_KIND,
    WRONG_SHARD,
    Refused,
)
from domain.rules import RULES
from domain.signed import Verifier
from domain.telemetry import Batch, BatchBytes
from projections.following import application_name

#: How long a body may take.
BODY_S: Final = 10.0
_DIGITS: Final = 18
_POLL_S: Final = 0.02
_OCTETS: Final = "application/octet-stream"
_COMMANDS: Final = "synor.command.v1."

#: Appends the bytes of a command and returns the offset, once durable. From any thread.
Submit = Callable[[bytes], int]
#: The same for telemetry of a shard: (shard, bytes) to offset.
SubmitTelemetry = Callable[[int, bytes], int]


class Bucket:
    """So many requests a second, and a burst; the clock is the caller's."""

    def __init__(self, per_second: float, burst: int, clock_s: Callable[[], float]) -> None:
        """Start full."""
        self._rate = per_second
        self._burst = float(burst)
        self._clock = clock_s
        self._level = float(burst)
        self._at = clock_s()

    def take(self) -> None:
        """Count one request. Raises ``Problem`` where it is one too many."""
        now = self._clock()
        self._level = min(self._burst, self._level + (now - self._at) * self._rate)
        self._at = now
        if self._level < 1:
            wait = int((1 - self._level) / self._rate) + 1
            raise Problem(TOO_MANY_REQUESTS, f"at most {self._rate:g} a second", retry_after_s=wait)
        self._level -= 1


async def body_of(request: Request, most: int) -> bytes:
    """The request's body. Raises ``Problem`` as soon as it is known to be too large or slow."""
    media = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if media != _OCTETS:
        raise Problem(WRONG_MEDIA_TYPE, f"the body is {media[:60]!r}")
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared[:_DIGITS]) > most:
        raise Problem(BODY_TOO_LARGE, f"{declared[:_DIGITS]} bytes, at most {most}")
    parts: list[bytes] = []
    length = 0
    try:
        # Who sends a byte now and then must not keep a place from those who send.
        async with asyncio.timeout(BODY_S):
            async for part in request.stream():
                length += len(part)
                if length > most:
                    raise Problem(BODY_TOO_LARGE, f"more than {most} bytes")
                parts.append(part)
    except TimeoutError:
        raise Problem(BODY_TOO_SLOW, f"{length} bytes came within {BODY_S:g} s") from None
    return b"".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """What judging an input needs."""

    genesis: Genesis
    genesis_hash: bytes
    shards: int
    codec: Codec
    verify: Verifier
    read_model: ReadModel

    def size_max(self) -> int:
        """The largest input, as the market's parameter stands."""
        with self.read_model.reading() as connection:
            return api_reads.parameter(
                connection, "input_bytes", self.genesis.parameters.input_bytes
            )

    def command(self, value: bytes, size_max: int) -> Opened:
        """A command that the market will hear. Raises ``Problem`` with the gate's refusal."""
        opened = self._open(value, size_max)
        if isinstance(opened.payload, Tick):
            clocks = {given.key for given in self.genesis.keys if given.role.value == "CLOCK"}
            if opened.signed.key not in clocks:
                raise Problem.refused(Refused(KEY_ROLE, "a tick is signed by a clock key"))
        elif not opened.signed.kind.startswith(_COMMANDS):
            raise Problem.refused(Refused(WRONG_KIND, opened.signed.kind))
        elif isinstance(opened.payload, ActivateRules) and opened.payload.version not in RULES:
            # The market cannot refuse it: that a program lacks a version is no fact of the ledger.
            here = ", ".join(map(str, sorted(RULES)))
            raise Problem(RULES_NOT_HERE, f"version {opened.payload.version}; here are {here}")
        return opened

    def telemetry(self, value: bytes, size_max: int) -> tuple[Opened, int]:
        """A batch that a shard will hear, and the shard. Raises ``Problem``."""
        opened = self._open(value, size_max)
        batch = opened.payload
        if not isinstance(batch, Batch | BatchBytes):
            raise Problem.refused(Refused(WRONG_KIND, opened.signed.kind))
        if not batch.nodes:
            raise Problem.refused(Refused(NO_NODE))
        shards = {shard_of(node, self.shards) for node in batch.nodes}
        if len(shards) != 1:
            raise Problem.refused(
                Refused(WRONG_SHARD, f"nodes of {len(shards)} shards; a batch has those of one")
            )
        return opened, shards.pop()

    def _open(self, value: bytes, size_max: int) -> Opened:
        opened = open_input(value, size_max=size_max, codec=self.codec, verify=self.verify)
        if isinstance(opened, Refused):
            raise Problem.refused(opened)
        wrong = for_network(opened.signed, self.genesis_hash)
        if wrong is not None:
            raise Problem.refused(wrong)
        return opened


def append(submit: Callable[[], int]) -> int:
    """Append by the given call; the log's operating errors become problems."""
    try:
        return submit()
    except AppendUnknown as error:
        raise Problem(APPEND_UNKNOWN, str(error)) from error
    except LogError as error:
        raise Problem(LOG_UNAVAILABLE, str(error)) from error


class Answers:
    """Answers of the market to commands, as the read model shows them."""

    def __init__(self, read_model: ReadModel, codec: Codec, shards: int) -> None:
        """Read from a read model."""
        self._read_model = read_model
        self._codec = codec
        self._shards = shards

    def final(self, opened: Opened) -> dict[str, Any] | None:
        """An answer that stands already: a repeat gets the first one, other content a refusal.

        Raises ``Problem`` where the ledger would refuse whatever comes.
        """
        signed = opened.signed
        with self._read_model.reading() as connection:
            found = api_reads.answer(
                connection, Ledger.MARKET, signed.key, signed.session, signed.number
            )
            position = api_reads.heights(connection, self._shards)
            if found is None:
                held = api_reads.holder(connection, signed.key)
                if held is not None and held["revoked_us"] is not None:
                    raise Problem.refused(Refused(REVOKED_KEY, signed.key.hex()), position=position)
                return None
            if found["digest"] != opened.digest:
                detail = f"number {signed.number} was used for {found['digest'].hex()}"
                raise Problem.refused(Refused(SEQUENCE_CONFLICT, detail), position=position)
            told = api_reads.told(connection, self._codec, found)
            return {"position": position, "repeat": True, "answer": told}

    async def awaited(self, opened: Opened, offset: int, wait_s: float) -> dict[str, Any]:
        """The answer once it is there; ``pending`` where the time has passed before."""
        deadline = time.monotonic() + wait_s
        while True:
            found = await run_in_threadpool(self._look, opened, offset)
            if found["answer"] is not None:
                return found
            if "unanswered" in found:
                raise self._unanswered(opened, found)
            if time.monotonic() >= deadline:
                return found
            await asyncio.sleep(_POLL_S)

    def _look(self, opened: Opened, offset: int) -> dict[str, Any]:
        signed = opened.signed
        with self._read_model.reading() as connection:
            position = api_reads.heights(connection, self._shards)
            found = api_reads.answer(
                connection, Ledger.MARKET, signed.key, signed.session, signed.number
            )
            seen: dict[str, Any] = {"position": position, "offset": offset, "answer": None}
            if found is not None:
                seen["answer"] = api_reads.told(connection, self._codec, found)
                return seen
            market = application_name(Ledger.MARKET, 0)
            if api_reads.consumed(connection, market, COMMANDS_TOPIC, 0) > offset:
                seen["unanswered"] = api_reads.holder(connection, signed.key)
            return seen

    def _unanswered(self, opened: Opened, seen: dict[str, Any]) -> Problem:
        """The market consumed the command and only counted it: its number was never touched."""
        where = {"position": seen["position"], "offset": seen["offset"]}
        if seen["unanswered"] is None:
            return Problem.refused(Refused(UNKNOWN_KEY, opened.signed.key.hex()), **where)
        return Problem(NOT_ANSWERED, opened.signed.kind, **where)


def refused(found: dict[str, Any]) -> Problem | None:
    """The problem that an answer tells of, or None where the command was accepted."""
    told = found["answer"]
    if told is None or told["accepted"]:
        return None
    more = {name: found[name] for name in ("position", "offset", "repeat") if name in found}
    return Problem(code_of(told["code"]), told["detail"], answer=told, **more)
