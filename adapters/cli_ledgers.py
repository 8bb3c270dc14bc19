"""Where a ledger is that a person named: a folder, a SQLite file, brokers, or bundles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from adapters.cli_failures import Asked
from adapters.settings_security import Security, secured

if TYPE_CHECKING:
    from adapters.bundle_log import BundleLog
    from domain.ports import Log

KAFKA: Final = "kafka:"


@dataclass(frozen=True, slots=True)
class Place:
    """A ledger that was named: how its log is opened, and its folder where it has one.

    ``open`` travels to other processes.
    """

    name: str
    open: Callable[[], Log]
    folder: Path | None = None
    bundles: tuple[Path, ...] = ()


def place_of(ledgers: Sequence[str]) -> Place:
    """The ledger of a folder, a file or brokers; several bundles go on one after another."""
    if len(ledgers) > 1 or (Path(ledgers[0]).is_file() and _is_zip(Path(ledgers[0]))):
        paths = tuple(map(Path, ledgers))
        for path in paths:
            if not path.is_file():
                raise Asked(f"There is no {path}.", "Several ledgers must be bundles, in order.")
        return Place(" ".join(ledgers), partial(bundle, *paths), None, paths)
    (ledger,) = ledgers
    if ledger.startswith(KAFKA):
        return Place(ledger, partial(_kafka, ledger.removeprefix(KAFKA), secured()))
    path = Path(ledger)
    if path.is_file():
        return Place(ledger, partial(_sqlite, path), path.parent)
    if not path.is_dir():
        raise Asked(
            f"There is no {ledger}.",
            "Name a folder of `synor up` or of the demo, a SQLite file, a bundle of "
            "`synor export`, or kafka:HOST:PORT.",
        )
    from adapters import settings

    if (path / settings.FILE_NAME).exists():
        found = settings.load(path)
        if found.log.kind is settings.LogKind.KAFKA:
            opened = partial(_kafka, found.log.bootstrap, found.log.security)
            return Place(ledger, opened, path)
        return Place(ledger, partial(_sqlite, found.log.file or path / "ledger.db"), path)
    if (path / "ledger.db").is_file():
        return Place(ledger, partial(_sqlite, path / "ledger.db"), path)
    raise Asked(f"There is no ledger in {ledger}: it has neither network.toml nor ledger.db.")


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def bundle(*paths: Path) -> BundleLog:
    """Bundles read as one log."""
    from adapters.bundle_log import BundleLog

    return BundleLog(*paths)


def _no_clock() -> int:
    """The clock of a log that is only read."""
    return 0


def _sqlite(path: Path) -> Log:
    from adapters.sqlite_log import SqliteLog

    if not path.is_file():
        raise Asked(f"There is no {path}: the ledger was not begun yet.")
    return SqliteLog(path, clock_us=_no_clock)


def _kafka(bootstrap: str, security: Security) -> Log:
    from adapters.kafka_log import KafkaLog

    options = security.options("reader")
    return KafkaLog(bootstrap, client_id="synor-audit", security=options)
