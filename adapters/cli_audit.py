"""``synor audit``: every commit re-derived, and every checkpoint compared with the L1."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from adapters.cli_failures import Asked
from adapters.cli_output import Json, document, facts, noted, said, table
from adapters.cli_units import hexadecimal, shown_synor
from adapters.settings_security import Security, secured

if TYPE_CHECKING:
    from adapters.audit import LedgerReport, Verdict
    from adapters.bootstrap import Network
    from adapters.evm_chain import EvmChain
    from domain.ports import Log

_KAFKA: Final = "kafka:"
_SHOWN_EVERY_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Place:
    """A ledger that was named: how its log is opened, and its folder where it has one."""

    name: str
    open: Callable[[], AbstractContextManager[Log]]
    folder: Path | None


def audit(
    ledger: Annotated[
        str,
        typer.Argument(
            help="A folder of `synor up`, of the demo or with network.toml; a SQLite file; "
            "or kafka:HOST:PORT (with a file of [log.security] in SYNOR_KAFKA_SECURITY)."
        ),
    ],
    l1: Annotated[
        str | None, typer.Option("--l1", help="JSON-RPC URL of the L1 that it is anchored on.")
    ] = None,
    no_l1: Annotated[
        bool, typer.Option("--no-l1", help="Leave out the chain that is in the folder.")
    ] = False,
    genesis_hash: Annotated[
        str | None,
        typer.Option(help="The network that it must be; default: what the ledger says it is."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Re-derive every commit from the inputs; compare bytes, roots, balances, payouts, anchors.

    Nothing is trusted but the genesis hash, if it is given: signatures are checked again, inputs
    decided again. Exits 0, or with the code of the first divergence, which it names.
    """
    from adapters import bootstrap
    from adapters.audit import Diverged
    from adapters.avro_codec import AvroCodec

    place = place_of(ledger)
    codec = AvroCodec()
    with place.open() as log:
        genesis, shards = bootstrap.first_genesis(log, codec)
        network = bootstrap.Network.of(genesis, shards, codec)
        if genesis_hash is not None and network.hash != hexadecimal(
            genesis_hash, 32, "a network (a genesis hash)"
        ):
            raise Asked(
                f"{place.name} says that it is the network {network.hash.hex()}.",
                "That is not the genesis hash that was asked for: it is another ledger.",
            )
        progress = _Progress(quiet=as_json)
        try:
            verdict = bootstrap.audit(network, log, progress)
            progress.done()
            anchors = None
            with _chain(place, network, l1, no_l1) as chain:
                if chain is not None:
                    anchors = compare(network, log, verdict, chain)
        except Diverged as diverged:
            progress.done()
            _report_divergence(diverged, as_json)
            raise typer.Exit(diverged.exit_code) from None
    _report(place, network, verdict, anchors, progress.seconds(), as_json)


def place_of(ledger: str) -> Place:
    """What a person named: a folder, a file, or brokers."""
    if ledger.startswith(_KAFKA):
        bootstrap = ledger.removeprefix(_KAFKA)
        return Place(ledger, lambda: _kafka(bootstrap, secured()), None)
    path = Path(ledger)
    if path.is_file():
        return Place(ledger, lambda: _sqlite(path), path.parent)
    if not path.is_dir():
        raise Asked(
            f"There is no {ledger}.",
            "Name a folder of `synor up` or of the demo, a SQLite file, or kafka:HOST:PORT.",
        )
    from adapters import settings

    if (path / settings.FILE_NAME).exists():
        found = settings.load(path)
        if found.log.kind is settings.LogKind.KAFKA:
            return Place(ledger, lambda: _kafka(found.log.bootstrap, found.log.security), path)
        file = found.log.file
        return Place(ledger, lambda: _sqlite(file or path / "ledger.db"), path)
    if (path / "ledger.db").is_file():
        return Place(ledger, lambda: _sqlite(path / "ledger.db"), path)
    raise Asked(f"There is no ledger in {ledger}: it has neither network.toml nor ledger.db.")


@contextmanager
def _sqlite(path: Path) -> Iterator[Log]:
    from adapters.sqlite_log import SqliteLog

    if not path.is_file():
        raise Asked(f"There is no {path}: the ledger was not begun yet.")
    with closing(SqliteLog(path, clock_us=lambda: 0)) as log:
        yield log


@contextmanager
def _kafka(bootstrap: str, security: Security) -> Iterator[Log]:
    from adapters.kafka_log import KafkaLog

    options = security.options("reader")
    with closing(KafkaLog(bootstrap, client_id="synor-audit", security=options)) as log:
        yield log


# The L1


@contextmanager
def _chain(
    place: Place, network: Network, url: str | None, left_out: bool
) -> Iterator[EvmChain | None]:
    """The vault of this ledger: at a URL, at the process that runs it, or from its file."""
    from adapters.evm_rpc import Rpc, http_provider

    if left_out or network.genesis.chain_id == 0:
        if url is not None:
            raise Asked("There is nothing to compare with the L1: this ledger has none.")
        yield None
    elif url is not None:
        yield _pinned(network, Rpc(http_provider(url)))
    elif place.folder is not None and (place.folder / "l1.db").exists():
        with embedded_rpc(place.folder) as rpc:
            yield _pinned(network, rpc)
    else:
        noted("The checkpoints are not compared with the L1: name it with --l1 URL.")
        yield None


@contextmanager
def embedded_rpc(folder: Path) -> Iterator[Any]:
    """The embedded chain of a folder: of the process that runs it, else executed again."""
    import json
    import sqlite3
    import tempfile

    from adapters.evm_embedded import EmbeddedChain
    from adapters.evm_rpc import Rpc, http_provider

    with tempfile.TemporaryDirectory(prefix="synor-audit-") as scratch:
        # On a copy: a file that is looked at must not change, and its process may start meanwhile.
        copy = Path(scratch) / "l1.db"
        source = sqlite3.connect(f"file:{folder / 'l1.db'}?mode=ro", uri=True, timeout=0)
        try:
            with closing(source), closing(sqlite3.connect(copy)) as target:
                # Raises where a process has the file; the backup by itself would wait for ever.
                ((begins_s,),) = source.execute("SELECT time_s FROM blocks WHERE number = 0")
                source.backup(target)
        except sqlite3.OperationalError as locked:
            running = folder / "up.json"
            if not running.exists():
                raise Asked(f"{folder / 'l1.db'} cannot be read: {locked}.") from locked
            yield Rpc(http_provider(json.loads(running.read_text())["rpc"]))
            return
        seeded = folder / "system.seed"
        if seeded.exists():
            seed = seeded.read_bytes()
        else:
            from adapters.demo import SEED

            seed = SEED
        with closing(
            EmbeddedChain(copy, seed=seed, clock=lambda: begins_s, genesis_s=begins_s)
        ) as chain:
            yield chain.rpc


def _pinned(network: Network, rpc: Any) -> EvmChain:
    """The vault that the genesis names, with the code that this release has for it."""
    from adapters.evm_chain import EvmChain, read_config
    from adapters.evm_vault import vault_code_hash
    from domain.l1 import Depth, PinMismatch

    genesis = network.genesis
    config = read_config(rpc, genesis.vault, 0, Depth(confirmations=0))
    for pin, expected, found in (
        ("chain id", genesis.chain_id, config.chain_id),
        ("hash of the vault's code", vault_code_hash(config.token).hex(), config.code_hash.hex()),
    ):
        if expected != found:
            raise PinMismatch(pin, expected, found)
    return EvmChain(rpc, config)


@dataclass(frozen=True, slots=True)
class Anchors:
    """What a comparison with the L1 found."""

    checkpoints: int
    waiting: int
    deposited_nano: int
    authorised_nano: int
    paid_nano: int


def compare(network: Network, log: Log, verdict: Verdict, chain: EvmChain) -> Anchors:
    """Every checkpoint against the contract, and R9.3 there. Raises ``Diverged``."""
    from adapters.audit import Diverged
    from adapters.eventsourcing_index import Depth
    from adapters.follow import Follower
    from domain.checkpoint import CheckpointAnchored, CheckpointMade
    from domain.commit import Ledger

    partition = network.partition(
        Ledger.SETTLEMENT, 0, log=log, index=":memory:", depth=Depth.COMMITS
    )

    def diverged(at: str, why: str) -> Diverged:
        head = partition.head()
        return Diverged("anchor", Ledger.SETTLEMENT, 0, head.height, -1, at, why)

    made: list[CheckpointMade] = []
    seen = 0
    follower = Follower(partition, network.codec)
    for event in follower.new():
        if isinstance(event, CheckpointMade):
            made.append(event)
        elif isinstance(event, CheckpointAnchored):
            seen = max(seen, event.epoch)
    totals = chain.totals()
    for each in made[: totals.last_epoch]:
        anchored = chain.anchored(each.epoch)
        if anchored != each.checkpoint:
            on_chain = "nothing" if anchored is None else anchored.hex()
            raise diverged(
                f"epoch {each.epoch}", f"the vault has {on_chain}, not {each.checkpoint.hex()}"
            )
    if not seen <= totals.last_epoch <= len(made):
        raise diverged(
            "epochs",
            f"the vault has {totals.last_epoch}, the ledger made {len(made)} and saw {seen} final",
        )
    if not totals.paid_nano <= totals.authorised_nano <= totals.deposited_nano:
        raise diverged(
            "totals",
            f"paid {totals.paid_nano}, authorised {totals.authorised_nano}, "
            f"deposited {totals.deposited_nano}: they must not fall in this order",
        )
    authorised = made[totals.last_epoch - 1].authorised_nano if totals.last_epoch else 0
    for name, on_chain_nano, ours, fits in (
        ("authorised", totals.authorised_nano, authorised, totals.authorised_nano == authorised),
        (
            "deposited",
            totals.deposited_nano,
            verdict.totals.deposited,
            totals.deposited_nano >= verdict.totals.deposited,
        ),
        (
            "paid",
            totals.paid_nano,
            verdict.totals.claimed,
            totals.paid_nano >= verdict.totals.claimed,
        ),
    ):
        if not fits:
            raise diverged(name, f"the vault says {on_chain_nano}, the ledger {ours}")
    return Anchors(
        checkpoints=totals.last_epoch,
        waiting=len(made) - totals.last_epoch,
        deposited_nano=totals.deposited_nano,
        authorised_nano=totals.authorised_nano,
        paid_nano=totals.paid_nano,
    )


# What is printed


class _Progress:
    """One line on the terminal, redrawn: how far, and how fast."""

    def __init__(self, *, quiet: bool) -> None:
        self._began = time.monotonic()
        self._ended: float | None = None
        self._shown = 0.0
        self._finished: dict[tuple[int, int], tuple[int, int]] = {}
        self._status: Any = None
        if not quiet:
            from rich.console import Console

            console = Console(stderr=True)
            if console.is_terminal:
                self._status = console.status("Reading the first commits")
                self._status.start()

    def __call__(self, report: LedgerReport) -> None:
        self._finished[report.ledger, report.shard] = (report.commits, report.inputs)
        now = time.monotonic()
        if self._status is None or now - self._shown < _SHOWN_EVERY_S:
            return
        self._shown = now
        commits = sum(each for each, _ in self._finished.values())
        inputs = sum(each for _, each in self._finished.values())
        rate = commits / max(now - self._began, 0.001)
        self._status.update(
            f"{report.ledger.name.lower()} {report.shard}: {commits:,} commits, "
            f"{inputs:,} inputs, {rate:,.0f} commits a second"
        )

    def done(self) -> None:
        """Take the line away."""
        if self._ended is None:
            self._ended = time.monotonic()
        if self._status is not None:
            self._status.stop()

    def seconds(self) -> float:
        """How long the re-deriving took."""
        return (self._ended or time.monotonic()) - self._began


def _report_divergence(diverged: Any, as_json: bool) -> None:
    if as_json:
        document(
            {
                "audit": "diverged",
                "divergence": diverged.name,
                "ledger": diverged.ledger.name.lower(),
                "shard": diverged.shard,
                "height": diverged.height,
                "offset": diverged.offset,
                "at": diverged.at,
                "text": str(diverged),
                "exit": diverged.exit_code,
            }
        )
        return
    noted(f"The ledger is not what its inputs make of it.\n  {diverged}")


def _report(
    place: Place,
    network: Network,
    verdict: Verdict,
    anchors: Anchors | None,
    seconds: float,
    as_json: bool,
) -> None:
    reports, totals = verdict.reports, verdict.totals
    commits = sum(each.commits for each in reports)
    events = sum(each.events for each in reports)
    inputs = sum(each.inputs for each in reports)
    noise = sum(each.noise for each in reports)
    if as_json:
        document(
            {
                "audit": "ok",
                "ledger": place.name,
                "network": network.genesis.network,
                "genesis_hash": network.hash,
                "commits": commits,
                "events": events,
                "inputs": inputs,
                "noise": noise,
                "leases": totals.leases,
                "readings": totals.readings,
                "deposited_nano": totals.deposited,
                "claimed_nano": totals.claimed,
                "charged_nano": totals.charged,
                "provider_nano": totals.provider,
                "protocol_nano": totals.protocol,
                "slashed_nano": totals.slashed,
                "epochs": totals.epochs,
                "epochs_anchored": totals.anchored,
                "l1": None
                if anchors is None
                else {
                    "checkpoints": anchors.checkpoints,
                    "waiting": anchors.waiting,
                    "deposited_nano": anchors.deposited_nano,
                    "authorised_nano": anchors.authorised_nano,
                    "paid_nano": anchors.paid_nano,
                },
                "state_hash": verdict.state_hash,
                "seconds": f"{seconds:.3f}",
            }
        )
        return
    table(
        ("ledger", ">commits", ">events", ">inputs", "head"),
        (
            (
                f"{each.ledger.name.lower()} {each.shard}",
                f"{each.commits:,}",
                f"{each.events:,}",
                f"{each.inputs:,}",
                each.head.hex()[:16],
            )
            for each in reports
        ),
    )
    said("")
    facts(
        (
            ("network", f"{network.genesis.network}  {network.hash.hex()}"),
            ("leases, readings", f"{totals.leases:,}, {totals.readings:,}"),
            ("deposited", shown_synor(totals.deposited)),
            ("claimed", shown_synor(totals.claimed)),
            ("charged", shown_synor(totals.charged)),
            ("  to providers", shown_synor(totals.provider)),
            ("  to the protocol", shown_synor(totals.protocol)),
            ("slashed", shown_synor(totals.slashed)),
            ("epochs, seen final", f"{totals.epochs:,}, {totals.anchored:,}"),
            (
                "on the L1",
                "not compared"
                if anchors is None
                else f"{anchors.checkpoints:,} checkpoints equal, {anchors.waiting:,} to come; "
                f"paid {shown_synor(anchors.paid_nano)} of {shown_synor(anchors.authorised_nano)} "
                f"authorised of {shown_synor(anchors.deposited_nano)} deposited",
            ),
            ("records ignored", f"{noise:,}" if noise else ""),
            ("state hash", verdict.state_hash),
        )
    )
    rate = inputs / max(seconds, 0.001)
    said(f"Audit ok: every commit follows from its inputs. {seconds:.1f} s, {rate:,.0f} inputs/s.")
