"""``synor demo``: the whole story, on SQLite or on a Kafka broker that it starts itself."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from enum import Enum
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Annotated, Any, Final

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

EXIT_CHECK_FAILED: Final = 1
#: Columns of output that goes to a file or a pipe.
PLAIN_WIDTH: Final = 100


class LogKind(Enum):
    """What the ledger stands on."""

    SQLITE = "sqlite"
    KAFKA = "kafka"


def demo(
    log: Annotated[LogKind, typer.Option(help="What the ledger stands on.")] = LogKind.SQLITE,
    folder: Annotated[
        Path | None, typer.Option(help="Empty folder for the ledger; default: a new one.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="End with one line of JSON.")] = False,
    serve: Annotated[bool, typer.Option(help="Leave the API and its pages running.")] = False,
    port: Annotated[int, typer.Option(help="Port of the API, on loopback.")] = 8080,
) -> None:
    """Tell the main job from deposit to audit, and check every part of it."""
    from adapters.audit import Diverged
    from adapters.demo import Demo, DemoFailed, summary

    console = Console(stderr=as_json)
    if not console.is_terminal:
        console = Console(stderr=as_json, width=PLAIN_WIDTH)
    started = time.monotonic()
    place = _folder(folder)
    with _log(log, place) as (opened, topics, group, again):
        story = Demo(opened, topics, folder=place, say=console.print, group=group)
        try:
            story.run()
            console.print("The story is over; now everything is decided again and compared.")
            verdict = story.verify(again)
        except (DemoFailed, Diverged) as failed:
            console.print(f"[red]The demo failed:[/red] {failed}")
            console.print(f"Its ledger is in {place}")
            raise typer.Exit(EXIT_CHECK_FAILED) from failed
        _tables(console, story, verdict)
        result = summary(story, verdict, time.monotonic() - started)
        console.print(
            f"Audit ok: {result['events']:,} events, state hash {result['state_hash'][:16]}…, "
            f"in {result['seconds']} s. The ledger is in {place}"
        )
        if as_json:
            typer.echo(json.dumps(result))
        if serve:
            from adapters.demo_serve import serve_ledger

            serve_ledger(story, opened, port=port, say=console.print)


def _folder(folder: Path | None) -> Path:
    if folder is None:
        return Path(mkdtemp(prefix="synor-demo-"))
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise typer.BadParameter(f"{folder} is not empty; name a new folder")
    return folder


@contextmanager
def _log(kind: LogKind, folder: Path) -> Iterator[tuple[Any, Any, Any, Any]]:
    """The log, its admin, what joins a tick's appends, and how another process opens it."""
    if kind is LogKind.SQLITE:
        from adapters.local_topics import LocalTopics
        from adapters.sqlite_log import SqliteLog

        sqlite_path = folder / "ledger.db"
        # A power cut may cost a demo its last ticks; it costs no one a cent.
        sqlite = SqliteLog(sqlite_path, clock_us=_no_clock, durable=False)
        try:
            yield sqlite, LocalTopics(sqlite), sqlite.group, partial(_reopen_sqlite, sqlite_path)
        finally:
            sqlite.close()
        return
    from adapters.kafka_broker import KafkaBroker
    from adapters.kafka_log import KafkaLog
    from adapters.kafka_topics import KafkaTopics

    with KafkaBroker(folder / "kafka") as broker:
        admin = KafkaTopics(broker.bootstrap)
        kafka = KafkaLog(broker.bootstrap, client_id="synor-demo", sole_writer=True)
        try:
            yield kafka, admin, _no_group, partial(_reopen_kafka, broker.bootstrap)
        finally:
            kafka.close()
            admin.close()


def _no_clock() -> int:
    """In logical time nothing is read from an append time."""
    return 0


def _reopen_sqlite(path: Path) -> Any:
    from adapters.sqlite_log import SqliteLog

    return SqliteLog(path, clock_us=_no_clock)


def _reopen_kafka(bootstrap: str) -> Any:
    from adapters.kafka_log import KafkaLog

    return KafkaLog(bootstrap, client_id="synor-demo-audit")


def _no_group() -> AbstractContextManager[None]:
    return nullcontext()


def _tables(console: Console, story: Any, verdict: Any) -> None:
    """Who earned, paid and lost what, from the audited ledger."""
    from adapters.demo import synor
    from domain.journal import NOBODY, Purse
    from domain.provider import provider_of

    of_account = (Purse.FREE, Purse.PENDING, Purse.EARNED, Purse.WITHDRAWAL, Purse.PAYABLE)
    balances = verdict.market.folds.balances
    totals = verdict.totals

    def has(account: Any) -> int:
        provider = provider_of(account)
        places = [(purse, account) for purse in of_account]
        places += [(Purse.STAKE, provider), (Purse.UNBONDING, provider)]
        return sum(balances.of(purse, owner) for purse, owner in places)

    def plain(nano: int) -> str:
        return synor(nano).replace(",", "")

    table = Table(
        title="Who earned, paid and lost what (SYNOR)", box=SIMPLE, padding=(0, 1), pad_edge=False
    )
    table.add_column("who")
    for name in ("earned", "paid", "lost", "has now"):
        # On a narrow terminal a figure goes on in the next line; no digit is left out.
        table.add_column(name, justify="right", overflow="fold")
    for name, account in story.people():
        table.add_row(
            name,
            plain(totals.earned.get(account, 0)),
            plain(totals.spent.get(account, 0)),
            plain(totals.slashes.get(provider_of(account), 0)),
            plain(has(account)),
        )
    protocol = balances.of(Purse.PROTOCOL) + balances.of(Purse.PROTOCOL_PENDING)
    table.add_row("protocol", plain(totals.protocol), "", "", plain(protocol))
    table.add_row("insurance", "", "", "", plain(balances.of(Purse.INSURANCE, NOBODY)))
    console.print(table)
    ends = Table(title="Leases")
    ends.add_column("how they ended")
    ends.add_column("number", justify="right")
    for reason, number in sorted(story.told.reasons.items(), key=lambda kv: kv[0].value):
        ends.add_row(reason.value.lower().replace("_", " "), str(number))
    running = len(story.told.leases) - sum(story.told.reasons.values())
    ends.add_row("still running", str(running))
    console.print(ends)
