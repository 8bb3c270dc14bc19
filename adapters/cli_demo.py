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
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

EXIT_CHECK_FAILED: Final = 1
#: Columns of output that goes to a file or a pipe.
PLAIN_WIDTH: Final = 80


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
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of the API, on loopback; with --serve.")
    ] = 8080,
) -> None:
    """Tell the main job from deposit to audit, and check every part of it."""
    from adapters.audit import Diverged
    from adapters.cli_audit_progress import AuditProgress
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
            progress = AuditProgress(story.network.ledgers())
            try:
                verdict = story.verify(again, progress)
            finally:
                progress.done()
        except (DemoFailed, Diverged) as failed:
            console.print(f"[red]The demo failed:[/red] {failed}")
            console.print(f"Its ledger is in {place}")
            raise typer.Exit(EXIT_CHECK_FAILED) from failed
        _tables(console, story, verdict)
        result = summary(story, verdict, time.monotonic() - started)
        console.print(
            f"Audit ok: {result['events']:,} events, state hash {result['state_hash'][:16]}…, "
            f"in {result['seconds']} s."
        )
        # Not folded: it is to be copied.
        console.print(f"The ledger is in {place}", soft_wrap=True)
        if log is LogKind.SQLITE and not as_json:
            console.print(f"Once more, alone: .venv/bin/synor audit {place}", soft_wrap=True)
            if not serve:
                console.print("In a browser:     scripts/demo --serve")
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

    rows = [
        (
            name,
            totals.earned.get(account, 0),
            totals.spent.get(account, 0),
            totals.slashes.get(provider_of(account), 0),
            has(account),
        )
        for name, account in story.people()
    ]
    protocol = balances.of(Purse.PROTOCOL) + balances.of(Purse.PROTOCOL_PENDING)
    rows.append(("protocol", totals.protocol, 0, 0, protocol))
    rows.append(("insurance", 0, 0, 0, balances.of(Purse.INSURANCE, NOBODY)))
    title = "Who earned, paid and lost what (SYNOR)"
    money = figures_table(title, "who", "earned", "paid", "lost", "has")
    for name, *figures in rows:
        money.add_row(name, *(synor(nano) if nano else "" for nano in figures))
    money.add_section()
    money.add_row("in all", *(synor(sum(row[n] for row in rows)) for n in (1, 2, 3, 4)))
    console.print(money)
    console.print(
        f"Deposited {synor(totals.deposited)}, claimed on L1 {synor(totals.claimed)}: "
        "the difference is what all have."
    )
    ends = figures_table("Leases", "how they ended", "number")
    for reason, number in sorted(story.told.reasons.items(), key=lambda kv: kv[0].value):
        ends.add_row(reason.value.lower().replace("_", " "), str(number))
    running = len(story.told.leases) - sum(story.told.reasons.values())
    ends.add_row("still running", str(running))
    console.print(ends)


def figures_table(title: str, first: str, *figures: str) -> Table:
    """A table of at most 80 columns: amounts to nine places, a space between them."""
    made = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=0, show_edge=False)
    made.add_column(first)
    for name in figures:
        # On a narrow terminal a figure goes on in the next line; no digit is left out.
        made.add_column(name, justify="right", overflow="fold")
    return made
