"""Snapshots of one processor as files: when they are made, written, found again, and thrown away.

A file is a header (which ledger, height and commit, by which code, SHA-256 of the rest), the
writer's signature over it, and the processor's memory. It is written beside its name and renamed,
after both have reached the disk. What does not fit is thrown away with a message: a snapshot is
disposable, and the ledger alone is enough.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from adapters.snapshot_columns import CannotPack, CannotUnpack
from adapters.snapshot_memory import Remembered, code_fingerprint, recall, remember
from domain.commit import LEDGER_TOPICS, Ledger
from domain.ids import PublicKey, length_prefixed
from domain.processor import Asleep, Processor, Versioned
from domain.signed import Verifier

#: Of the file and of the memory in it; a change of the folds shows in the code's fingerprint.
SCHEMA: Final = 2
SUFFIX: Final = ".snapshot"
_MAGIC: Final = b"SYNORSN1"
_TAG: Final = b"synor-snapshot-v1"
_LENGTH: Final = struct.Struct(">I")
_SIGNATURE_BYTES: Final = 64
_HEADER_MAX: Final = 4096
#: What is not worth a snapshot when a worker stops: it is folded again in a moment.
_LITTLE: Final = 1_000


class Signer(Protocol):
    """The key of the ledger's writer."""

    @property
    def public(self) -> PublicKey:
        """The Ed25519 public key."""
        ...

    def sign(self, message: bytes) -> bytes:
        """The signature, 64 bytes."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotPolicy:
    """When a snapshot is due: what a recovery would have to fold, or how long ago the last was.

    Taking one holds the processor up; ``rest`` times as long it is then let alone.
    """

    events: int = 20_000
    bulk_bytes: int = 16 * 1024 * 1024
    seconds: int = 60
    rest: int = 20
    keep: int = 2


class Unfit(Exception):
    """A snapshot that is of no use here, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotFile:
    """A file of the folder and what its header says; ``unfit`` says why it cannot be used."""

    path: Path
    ledger: str
    shard: int
    height: int
    hash: str
    bytes: int
    unfit: str | None


def stem_of(ledger: Ledger, shard: int) -> str:
    """How the files of a ledger's shard begin."""
    return f"{LEDGER_TOPICS[ledger]}.{shard}."


def header_of(path: Path) -> tuple[dict[str, Any], bytes, bytes, int]:
    """Header, its bytes, signature, and where the memory begins. Raises ``Unfit``."""
    try:
        with path.open("rb") as file:
            start = file.read(len(_MAGIC) + _LENGTH.size)
            if start[: len(_MAGIC)] != _MAGIC or len(start) < len(_MAGIC) + _LENGTH.size:
                raise Unfit("it is no snapshot of this format")
            (length,) = _LENGTH.unpack(start[len(_MAGIC) :])
            if length > _HEADER_MAX:
                raise Unfit("its header is too long")
            raw, signature = file.read(length), file.read(_SIGNATURE_BYTES)
            at = file.tell()
        header = json.loads(raw)
        typed = {"schema": int, "ledger": str, "shard": int, "height": int, "hash": str}
        if not isinstance(header, dict) or any(
            not isinstance(header.get(name), kind) for name, kind in typed.items()
        ):
            raise Unfit("its header is not whole")
    except OSError as error:
        raise Unfit(f"it cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise Unfit("its header is not whole") from error
    return header, raw, signature, at


def _message(raw: bytes) -> bytes:
    return length_prefixed(_TAG, raw)


def snapshots_in(folder: Path, stem: str = "") -> list[SnapshotFile]:
    """The snapshots of a folder, by name: per shard the oldest first."""
    found = []
    for path in sorted(folder.glob(f"{stem}*{SUFFIX}")):
        try:
            header, _, _, _ = header_of(path)
        except Unfit as why:
            header = {"ledger": "", "shard": -1, "height": -1, "hash": ""}
            unfit: str | None = str(why)
        else:
            mine = header.get("code") == code_fingerprint().hex()
            unfit = None if mine else "another version of the program made it"
        found.append(
            SnapshotFile(
                path=path,
                ledger=header["ledger"],
                shard=header["shard"],
                height=header["height"],
                hash=header["hash"],
                bytes=path.stat().st_size,
                unfit=unfit,
            )
        )
    return found


class SnapshotKeeper:
    """The snapshots of one worker. Files are written by a thread of its own, one at a time."""

    def __init__(
        self,
        folder: Path,
        *,
        ledger: Ledger,
        shard: int,
        genesis: bytes,
        signer: Signer,
        successors: Sequence[Signer] = (),
        verify: Verifier,
        policy: SnapshotPolicy,
        say: Callable[[str], None],
    ) -> None:
        """Keep them in ``folder``; ``say`` gets a sentence for each that is thrown away.

        Those that ``signer`` or one of the ``successors`` signed fit; the last of them signs.
        """
        self._folder = folder
        self._ledger = ledger
        self._shard = shard
        self._genesis = genesis
        self._signers = (signer, *successors)
        self._verify = verify
        self._policy = policy
        self._say = say
        self._stem = stem_of(ledger, shard)
        self._events = self._bulk = 0
        self._last_s = time.monotonic()
        self._took_s = 0.0
        self._writing: threading.Thread | None = None
        self._off = False
        self.made = 0

    # Recovery

    def recall(
        self, make: Callable[[], Processor], stands: Callable[[Mapping[str, Any]], bool]
    ) -> tuple[Processor, Remembered] | None:
        """A processor that remembers the newest snapshot that fits, or None.

        ``stands`` says whether the ledger has the commit at which a snapshot was made.
        """
        self._settle()
        self._events = self._bulk = 0
        for path in sorted(self._folder.glob(f"{self._stem}*{SUFFIX}"), reverse=True):
            try:
                data = self._read(path)
                processor = make()
                remembered = recall(data, processor)
                if not stands(remembered.where):
                    raise Unfit("the ledger has another commit at its height, or none")
            except (Unfit, CannotUnpack) as why:
                path.unlink(missing_ok=True)
                self._say(f"The snapshot {path.name} is thrown away: {why}.")
            else:
                return processor, remembered
        return None

    def _read(self, path: Path) -> bytes:
        header, raw, signature, at = header_of(path)
        expected = self._identity() | {"code": code_fingerprint().hex()}
        message = _message(raw)
        if not any(self._verify(each.public, message, signature) for each in self._signers):
            raise Unfit("this ledger's writer did not sign it")
        for name, value in expected.items():
            if header.get(name) != value:
                raise Unfit(
                    "another version of the program made it"
                    if name in ("code", "schema")
                    else "it is of another ledger"
                )
        with path.open("rb") as file:
            file.seek(at)
            data = file.read()
        if hashlib.sha256(data).hexdigest() != header.get("sha256"):
            raise Unfit("its bytes do not hash as its header says")
        return data

    def _identity(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "genesis": self._genesis.hex(),
            "ledger": self._ledger.name.lower(),
            "shard": self._shard,
        }

    # At work

    def committed(self, events: int, bulk_bytes: int) -> None:
        """A commit was made, or folded at recovery."""
        self._events += events
        self._bulk += bulk_bytes

    def due(self) -> bool:
        """Whether it is time for another one."""
        if self._off or not self._events:
            return False
        policy, since_s = self._policy, time.monotonic() - self._last_s
        if since_s < self._took_s * policy.rest:
            return False
        if self._writing is not None and self._writing.is_alive():
            return False
        return (
            self._events >= policy.events
            or self._bulk >= policy.bulk_bytes
            or since_s >= policy.seconds
        )

    def worthwhile(self) -> bool:
        """Whether a worker that stops should leave one."""
        return not self._off and (self._events >= _LITTLE or self._bulk > 0)

    def take(
        self,
        processor: Processor,
        where: Mapping[str, Any],
        states: Sequence[Versioned],
        asleep: Asleep | None,
    ) -> None:
        """Remember a processor as of the commit that ``where`` names; written in the background."""
        began = time.monotonic()
        try:
            data = remember(processor, where, states, asleep)
        except CannotPack as error:
            self._off = True
            self._say(f"No snapshots are made: {error}. Recovery folds the whole ledger.")
            return
        self._last_s = time.monotonic()
        self._took_s = self._last_s - began
        self._events = self._bulk = 0
        self._settle()
        head = where["head"]
        self._writing = threading.Thread(
            target=self._write, args=(data, head["height"], bytes(head["hash"])), daemon=True
        )
        self._writing.start()

    def close(self) -> None:
        """Wait until what was taken is written."""
        self._settle()

    def _settle(self) -> None:
        if self._writing is not None:
            self._writing.join()
            self._writing = None

    def _write(self, data: bytes, height: int, digest: bytes) -> None:
        header = self._identity() | {
            "code": code_fingerprint().hex(),
            "height": height,
            "hash": digest.hex(),
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        raw = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
        signature = self._signers[-1].sign(_message(raw))
        path = self._folder / f"{self._stem}{height:012d}{SUFFIX}"
        draft = path.with_suffix(f".{os.getpid()}.new")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with draft.open("wb") as file:
                file.write(_MAGIC + _LENGTH.pack(len(raw)) + raw + signature)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
            _sync_folder(self._folder)
            for old in sorted(self._folder.glob(f"{self._stem}*{SUFFIX}"))[: -self._policy.keep]:
                old.unlink(missing_ok=True)
        except OSError as error:
            draft.unlink(missing_ok=True)
            self._say(f"The snapshot {path.name} was not written: {error.strerror or error}.")
            return
        self.made += 1


def _sync_folder(folder: Path) -> None:
    """Let the rename reach the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
