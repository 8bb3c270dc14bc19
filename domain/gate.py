"""The gate: who is heard, in a fixed order, and how a number is answered once (design 3).

Order: size cap → envelope → schema → bytes to the end → strict payload → ranges → signature → key
→ network → kind → shard → number → domain rules; ``domain/judging.py`` has it as a table. Refusals
up to and including the kind touch nobody's number.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final

from domain.codec import Codec
from domain.refusal import (
    ARRAY_TOO_LONG,
    BAD_SIGNATURE,
    OUT_OF_RANGE,
    OVERSIZE,
    SEQUENCE_CONFLICT,
    SEQUENCE_TOO_OLD,
    SESSION_IN_FUTURE,
    SESSION_TOO_OLD,
    WRONG_NETWORK,
    Refused,
)
from domain.signed import Signed, Verifier, message_of

COMMAND_WINDOW: Final = 1024
TELEMETRY_WINDOW: Final = 64
SESSIONS_KEPT: Final = 2
SIGNATURE_BYTES: Final = 64


@dataclass(frozen=True, slots=True)
class Opened:
    """An input that is validly signed, by whom and for which network ever, and its payload."""

    signed: Signed
    payload: Any
    message: bytes  # the signed preimage

    @property
    def digest(self) -> bytes:
        """SHA-256 of the signed preimage: which content a command's number was used for."""
        return hashlib.sha256(self.message).digest()


def within_range(signed: Signed, payload: Any) -> Any | Refused:
    """The payload as it was opened, or the first refusal of its bytes and the envelope's ranges.

    What the payload's bytes are refused for comes first, but for an array's count beyond them.
    """
    if isinstance(payload, Refused) and payload.code is not ARRAY_TOO_LONG:
        return payload
    if len(signed.signature) != SIGNATURE_BYTES:
        return Refused(OUT_OF_RANGE, f"signature of {len(signed.signature)} bytes")
    if signed.session < 0:
        return Refused(OUT_OF_RANGE, f"session {signed.session}")
    if signed.number < 0:
        return Refused(OUT_OF_RANGE, f"number {signed.number}")
    return payload


def for_network(signed: Signed, genesis_hash: bytes) -> Refused | None:
    """The refusal of what is signed for another network."""
    if signed.genesis == genesis_hash:
        return None
    return Refused(WRONG_NETWORK, f"signed for {signed.genesis.hex()}")


def open_input(value: bytes, *, size_max: int, codec: Codec, verify: Verifier) -> Opened | Refused:
    """Judge a record up to its signature; whose key it is needs the state of a ledger."""
    if len(value) > size_max:
        return Refused(OVERSIZE, f"{len(value)} bytes, at most {size_max}")
    signed = codec.open_signed(value)
    if isinstance(signed, Refused):
        return signed
    payload = within_range(signed, codec.open_payload(signed))
    if isinstance(payload, Refused):
        return payload
    message = message_of(signed)
    if not verify(signed.key, message, signed.signature):
        return Refused(BAD_SIGNATURE, signed.key.hex())
    return Opened(signed, payload, message)


@dataclass(frozen=True, slots=True)
class Answer:
    """The first answer to a number: what was sent and the refusal's number (0: accepted)."""

    digest: bytes
    code: int
    detail: str


@dataclass(frozen=True, slots=True)
class Repeat:
    """The same content under the same number again: nothing happens, the first answer stands."""

    answer: Answer


class _Session:
    __slots__ = ("answers", "highest", "start_us")

    def __init__(self, start_us: int) -> None:
        self.start_us = start_us
        self.highest = -1
        self.answers: OrderedDict[int, Answer] = OrderedDict()


class Sequences:
    """The number windows of all keys of one processor: bounded, and nothing runs twice.

    Of each key the two latest sessions are kept, in each the highest number and the first answers
    of the last ``window`` numbers. A fold over answer events; ``judge`` only reads.
    """

    def __init__(self, window: int) -> None:
        """Start with nobody heard."""
        self._window = window
        self._keys: dict[bytes, list[_Session]] = {}

    def judge(
        self, key: bytes, session: int, number: int, digest: bytes, latest_us: int
    ) -> Repeat | Refused | None:
        """None if the number is new; the first answer of a repeat; or the refusal.

        ``latest_us`` is the latest start time that a session may have.
        """
        sessions = self._keys.get(key)
        if sessions is not None:
            for kept in sessions:
                if kept.start_us == session:
                    return self._judge_number(kept, number, digest)
            if session < sessions[-1].start_us:
                return Refused(SESSION_TOO_OLD, f"session {session} < {sessions[-1].start_us}")
        if session > latest_us:
            return Refused(SESSION_IN_FUTURE, f"session {session} > {latest_us}")
        return None

    def _judge_number(self, kept: _Session, number: int, digest: bytes) -> Repeat | Refused | None:
        if number <= kept.highest - self._window:
            low = kept.highest - self._window + 1
            return Refused(SEQUENCE_TOO_OLD, f"number {number}, the window begins at {low}")
        answer = kept.answers.get(number)
        if answer is None:
            return None
        if answer.digest == digest:
            return Repeat(answer)
        return Refused(SEQUENCE_CONFLICT, f"number {number} was used for {answer.digest.hex()}")

    def answered(self, key: bytes, session: int, number: int, answer: Answer) -> None:
        """Fold one answer."""
        sessions = self._keys.setdefault(key, [])
        for kept in sessions:
            if kept.start_us == session:
                break
        else:
            kept = _Session(session)
            sessions.append(kept)
            del sessions[:-SESSIONS_KEPT]
        kept.answers[number] = answer
        if number > kept.highest:
            before, kept.highest = kept.highest, number
            # The numbers that fell out of the window, or all answers where those are fewer.
            first, end = before - self._window + 1, number - self._window + 1
            # A number may be 2^63 - 1, and the range longer than Python can say.
            few = end - first < len(kept.answers)
            for old in range(first, end) if few else tuple(kept.answers):
                if first <= old < end:
                    kept.answers.pop(old, None)
