"""The folder of a ledger that runs in one process: what is in it, and how it comes to be.

Each step of making it leaves something that the next start finds and goes on from, so a kill at
any instant of the first start costs nothing. The genesis is written last of what names the
network; after that nothing about it can change.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from adapters import roles_genesis, settings
from adapters.avro_codec import AvroCodec
from adapters.bootstrap import Network
from adapters.embedded import SystemKeys, genesis_of
from adapters.evm_embedded import EmbeddedChain
from domain.genesis import Parameters, TimeSource
from domain.ports import LogError

SEED_BYTES: Final = 32
_MODE: Final = 0o600


class FolderInUse(LogError):
    """Another process runs on this folder."""


@dataclass(frozen=True, slots=True)
class Folder:
    """Paths in the folder."""

    path: Path

    @property
    def seed(self) -> Path:
        """The secret from which all keys of the system derive; as secret as they."""
        return self.path / "system.seed"

    @property
    def genesis(self) -> Path:
        """The genesis document, whose SHA-256 names the network."""
        return self.path / "genesis.avro"

    @property
    def log(self) -> Path:
        """Every input and every ledger."""
        return self.path / "ledger.db"

    @property
    def chain(self) -> Path:
        """The embedded L1: its transactions and block times."""
        return self.path / "l1.db"

    @property
    def outbox(self) -> Path:
        """What is on its way to the L1."""
        return self.path / "outbox.db"

    @property
    def running(self) -> Path:
        """Where the process that runs on it can be reached; there only while it runs."""
        return self.path / "up.json"

    def exists(self) -> bool:
        """Whether a network was made in it."""
        return self.genesis.exists()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep every other process from running on it. Raises ``FolderInUse``."""
        self.path.mkdir(parents=True, exist_ok=True)
        lock = os.open(self.path / "lock", os.O_CREAT | os.O_RDWR, _MODE)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise FolderInUse(
                    f"Another `synor up` runs on {self.path}; stop it, or take another --folder."
                ) from None
            yield
        finally:
            os.close(lock)

    def read_seed(self) -> bytes:
        """The seed. Raises ``OSError`` or ``LogError``."""
        try:
            seed = self.seed.read_bytes()
        except FileNotFoundError:
            raise LogError(
                f"{self.path} is no folder of `synor up`: it has no {self.seed.name}."
            ) from None
        if len(seed) != SEED_BYTES:
            raise LogError(f"{self.seed} is damaged: it has {len(seed)} bytes, not {SEED_BYTES}.")
        if self.seed.stat().st_mode & 0o077:
            raise LogError(f"{self.seed} can be read by others; run: chmod 600 {self.seed}")
        return seed

    def make_seed(self) -> bytes:
        """The seed, drawn where there is none yet."""
        if not self.seed.exists():
            draft = self.seed.with_name(f".{self.seed.name}.{secrets.token_hex(4)}")
            handle = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, _MODE)
            with os.fdopen(handle, "wb") as file:
                file.write(secrets.token_bytes(SEED_BYTES))
                file.flush()
                os.fsync(file.fileno())
            draft.rename(self.seed)
        return self.read_seed()


def make_genesis(
    folder: Folder,
    codec: AvroCodec,
    *,
    keys: SystemKeys,
    chain: EmbeddedChain,
    name: str,
    shards: int,
    parameters: Parameters,
    start_us: int,
) -> None:
    """Name the network: settings first, genesis last."""
    genesis = roles_genesis.drawn(
        lambda nonce: genesis_of(
            keys,
            name=name,
            start_us=start_us,
            time_source=TimeSource.BROKER,
            parameters=parameters,
            chain_id=chain.config.chain_id,
            vault=chain.config.vault,
            nonce=nonce,
        ),
        codec,
    )
    settings.write(
        folder.path / settings.FILE_NAME,
        {
            "": {"format": settings.FORMAT, "genesis": folder.genesis.name, "shards": shards},
            "log": {"kind": settings.LogKind.SQLITE, "file": folder.log.name},
            "read_model": {"url": "sqlite:///read.db"},
            "l1": {"kind": settings.ChainKind.EMBEDDED},
        },
        f"The ledger {name}, run by `synor up --folder` on this folder.",
    )
    roles_genesis.write(folder.genesis, genesis, codec)


def network_of(folder: Folder, codec: AvroCodec) -> tuple[Network, settings.Settings]:
    """The network that was made in the folder."""
    found = settings.load(folder.path)
    return roles_genesis.network_of(found, codec), found
