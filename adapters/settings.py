"""The settings of a deployment: one TOML file that every role of a network reads.

What the genesis fixes is not in here: this file says only where things are (log, read model, L1,
key files). It is checked whole before anything starts, so that a typing error is a sentence and
not a surprise at the first use. Relative paths are relative to the file.
"""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Literal, cast

from adapters.settings_security import Security, SecurityInvalid, security_of

FILE_NAME: Final = "network.toml"
FORMAT: Final = 1
API_PORT: Final = 7411
SHARDS_MAX: Final = 4096
#: Those that write a ledger: their key may be followed by others.
WRITES: Final = ("market", "metering", "settlement")
ROLES: Final = (*WRITES, "clock", "watcher", "operator", "attestor")
WRITERS_MAX: Final = 8


class SettingsInvalid(Exception):
    """The file cannot be used; the text names file, field, what is there and what should be."""


class LogKind(StrEnum):
    """Where the log is."""

    SQLITE = "sqlite"
    KAFKA = "kafka"


class ChainKind(StrEnum):
    """Which L1 the network settles on."""

    NONE = "none"
    EMBEDDED = "embedded"
    RPC = "rpc"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """A file, or brokers with how each role proves itself to them."""

    kind: LogKind
    file: Path | None = None
    bootstrap: str = ""
    security: Security = field(default_factory=Security)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainSettings:
    """The L1's endpoint and what is pinned of it."""

    kind: ChainKind
    url: str = ""
    chain_id: int = 0
    vault: bytes = bytes(20)
    token: bytes = bytes(20)
    code_hash: bytes = bytes(32)
    start_number: int = 0
    start_hash: bytes = bytes(32)
    confirmations: int | None = None
    tag: Literal["safe", "finalized"] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotSettings:
    """Where processors leave snapshots, and after how much work; 0 events: never."""

    folder: Path
    events: int
    bulk_bytes: int
    seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """A network as one deployment runs it."""

    path: Path
    genesis: Path
    shards: int
    log: LogSettings
    read_model: str
    api_host: str
    api_port: int
    chain: ChainSettings
    keys: Mapping[str, tuple[Path, ...]]
    evm_key: Path | None
    passphrase_file: Path | None
    index: Path
    snapshots: SnapshotSettings

    @property
    def folder(self) -> Path:
        """Where the file is; its paths are relative to it."""
        return self.path.parent

    def key_files(self, role: str) -> tuple[Path, ...]:
        """The key files of a role; of a ledger's writer also those that may follow it.

        Raises ``SettingsInvalid`` where the file names none.
        """
        found = self.keys.get(role)
        if found is None:
            raise SettingsInvalid(
                f"{self.path}: [keys] names no file for {role}; this role signs with that key."
            )
        return found


class _Table:
    """One table of the file: each field is taken once, and what is left over is a mistake."""

    def __init__(self, path: Path, name: str, found: Mapping[str, Any]) -> None:
        self._path = path
        self._name = name
        self._rest = dict(found)
        self._known: list[str] = []

    def wrong(self, field: str, why: str) -> SettingsInvalid:
        where = f"[{self._name}] {field}" if self._name else field
        return SettingsInvalid(f"{self._path}: {where} {why}")

    def take(self, field: str, kind: type[Any], default: Any = None) -> Any:
        self._known.append(field)
        if field not in self._rest:
            if default is None:
                raise self.wrong(field, "is missing.")
            return default
        value = self._rest.pop(field)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            named = {str: "a text", int: "a whole number", dict: "a table"}[kind]
            raise self.wrong(field, f"is {value!r}, and must be {named}.")
        return value

    def texts(self, field: str, most: int) -> tuple[str, ...]:
        """A text, or a list of up to ``most``; none where it is missing or empty."""
        self._known.append(field)
        found = self._rest.pop(field, "")
        listed = found if isinstance(found, list) else [found]
        if len(listed) > most or not all(isinstance(each, str) for each in listed):
            wanted = "a text" if most == 1 else f"a text, or a list of at most {most}"
            raise self.wrong(field, f"is {found!r}, and must be {wanted}.")
        return tuple(each for each in listed if each)

    def text(self, field: str, default: str | None = None) -> str:
        return cast(str, self.take(field, str, default))

    def number(self, field: str, low: int, high: int, default: int | None = None) -> int:
        value: int = self.take(field, int, default)
        if not low <= value <= high:
            raise self.wrong(field, f"is {value}, and must be within {low}..{high}.")
        return value

    def hexadecimal(self, field: str, length: int) -> bytes:
        text = self.text(field)
        try:
            value = bytes.fromhex(text.removeprefix("0x"))
        except ValueError:
            value = b""
        if len(value) != length:
            raise self.wrong(field, f"is {text!r}, and must be {length} bytes in hexadecimal.")
        return value

    def choice(self, field: str, choices: Sequence[str], default: str | None = None) -> str:
        value = self.text(field, default)
        if value not in choices:
            raise self.wrong(field, f"is {value!r}, and must be one of {', '.join(choices)}.")
        return value

    def path(self, field: str, default: str | None = None) -> Path:
        return self._path.parent / self.text(field, default)

    def table(self, field: str) -> _Table:
        name = f"{self._name}.{field}" if self._name else field
        return _Table(self._path, name, self.take(field, dict, {}))

    def security(self) -> Security:
        """The whole table as how clients prove themselves."""
        rest, self._rest = self._rest, {}
        try:
            return security_of(f"{self._path}: [{self._name}]", self._path.parent, rest)
        except SecurityInvalid as error:
            raise SettingsInvalid(str(error)) from None

    def done(self) -> None:
        for name in self._rest:
            near = difflib.get_close_matches(name, self._known, n=1)
            hint = f"; is {near[0]} meant?" if near else f"; known are {', '.join(self._known)}."
            raise self.wrong(name, f"is not a setting{hint}")


def load(path: Path) -> Settings:
    """Read and check a file; a folder stands for its ``network.toml``."""
    path = path / FILE_NAME if path.is_dir() else path
    try:
        with path.open("rb") as file:
            found = tomllib.load(file)
    except FileNotFoundError:
        raise SettingsInvalid(
            f"There is no {path}. Name the network's file or folder with --network (of `synor up` "
            "the one of its --folder), or describe a network with: synor network new"
        ) from None
    except OSError as error:
        raise SettingsInvalid(f"{path} cannot be read: {error.strerror or error}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsInvalid(f"{path} is no TOML: {error}.") from error
    root = _Table(path, "", found)
    root.number("format", FORMAT, FORMAT)
    genesis = root.path("genesis", "genesis.avro")
    shards = root.number("shards", 1, SHARDS_MAX)
    log = _log(root.table("log"))
    read = root.table("read_model")
    read_model = read.text("url", "sqlite:///read.db")
    read.done()
    api = root.table("api")
    host, port = api.text("host", "127.0.0.1"), api.number("port", 0, 65535, API_PORT)
    api.done()
    chain = _chain(root.table("l1"))
    work = root.table("work")
    index = work.path("index", "index")
    snapshots = SnapshotSettings(
        folder=work.path("snapshots", "snapshots"),
        events=work.number("snapshot_events", 0, 10**9, 20_000),
        bulk_bytes=work.number("snapshot_mib", 1, 10**6, 16) * 1024 * 1024,
        seconds=work.number("snapshot_seconds", 1, 10**6, 60),
    )
    work.done()
    keys = root.table("keys")
    evm = keys.text("evm", "") or None
    passphrase = keys.text("passphrase_file", "") or None
    files = {role: keys.texts(role, WRITERS_MAX if role in WRITES else 1) for role in ROLES}
    keys.done()
    root.done()
    return Settings(
        path=path,
        genesis=genesis,
        shards=shards,
        log=log,
        read_model=_placed(read_model, path.parent),
        api_host=host,
        api_port=port,
        chain=chain,
        keys={
            role: tuple(path.parent / name for name in names)
            for role, names in files.items()
            if names
        },
        evm_key=None if evm is None else path.parent / evm,
        passphrase_file=None if passphrase is None else path.parent / passphrase,
        index=index,
        snapshots=snapshots,
    )


def _log(table: _Table) -> LogSettings:
    kind = LogKind(table.choice("kind", tuple(LogKind)))
    if kind is LogKind.SQLITE:
        made = LogSettings(kind=kind, file=table.path("file", "ledger.db"))
    else:
        made = LogSettings(
            kind=kind,
            bootstrap=table.text("bootstrap"),
            security=table.table("security").security(),
        )
    table.done()
    return made


def _chain(table: _Table) -> ChainSettings:
    kind = ChainKind(table.choice("kind", tuple(ChainKind), ChainKind.NONE))
    if kind is not ChainKind.RPC:
        table.done()
        return ChainSettings(kind=kind)
    confirmations = table.number("confirmations", -1, 10_000, -1)
    tag = table.choice("tag", ("", "safe", "finalized"), "")
    if (confirmations < 0) == (tag == ""):
        raise table.wrong("confirmations", "or tag must be given, and not both.")
    made = ChainSettings(
        kind=kind,
        url=table.text("rpc"),
        chain_id=table.number("chain_id", 1, 2**63 - 1),
        vault=table.hexadecimal("vault", 20),
        token=table.hexadecimal("token", 20),
        code_hash=table.hexadecimal("code_hash", 32),
        start_number=table.number("start_number", 0, 2**63 - 1),
        start_hash=table.hexadecimal("start_hash", 32),
        confirmations=None if confirmations < 0 else confirmations,
        tag=cast(Literal["safe", "finalized"], tag) if tag else None,
    )
    table.done()
    return made


def _placed(url: str, folder: Path) -> str:
    """A URL of SQLite with a relative file is relative to the settings."""
    prefix = "sqlite:///"
    if url.startswith(prefix) and not url.startswith(prefix + "/"):
        return f"{prefix}{(folder / url.removeprefix(prefix)).resolve()}"
    return url


def write(path: Path, tables: Mapping[str, Mapping[str, object]], comment: str) -> None:
    """Write a file of settings, whole or not at all; the table named "" comes first."""
    lines = [f"# {line}" for line in comment.splitlines()]
    for name, fields in tables.items():
        if not fields:
            continue
        lines.append("" if name == "" else f"\n[{name}]")
        lines += [f"{field} = {_toml(value)}" for field, value in fields.items()]
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text("\n".join(lines) + "\n")
    draft.replace(path)


def _toml(value: object) -> str:
    if isinstance(value, int):
        return str(value)
    # A JSON string is a basic string of TOML but for the surrogates that no path here has.
    return json.dumps(str(value), ensure_ascii=False)
