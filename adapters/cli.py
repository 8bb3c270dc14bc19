"""The command ``synor``. ``COMMANDS`` is the newcomer's index.

Only the module of the command that is asked for is imported, and in it libraries only where they
are used: an EVM or a web server takes seconds to load, and ``synor --help`` has no use for either.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Final

import typer

from adapters.cli_failures import Failure, expected, failure_of
from adapters.cli_output import failed

INTERRUPTED: Final = 130


@dataclass(frozen=True, slots=True)
class Entry:
    """One command, or one group of commands, and where it is."""

    module: str
    attribute: str
    help: str


COMMANDS: Final[dict[str, Entry]] = {
    "key": Entry("cli_key", "app", "Make identity files; register, rotate and revoke keys."),
    "account": Entry("cli_account", "app", "Open and show an account."),
    "deposit": Entry("cli_money", "deposit", "Put tokens of the L1 into an account."),
    "withdraw": Entry("cli_money", "withdraw", "Ask for free money, to be claimed."),
    "claim": Entry("cli_money", "claim", "Have the vault on the L1 pay what is due."),
    "faucet": Entry("cli_money", "faucet", "Tokens of an embedded development chain."),
    "bid": Entry("cli_orders", "bids", "Place and cancel bids."),
    "lease": Entry("cli_lease", "app", "List, show and steer leases."),
    "book": Entry("cli_market", "book", "Show the order book of an instrument."),
    "epoch": Entry("cli_market", "epochs", "List and show epochs and checkpoints."),
    "history": Entry("cli_market", "history", "Show the events of the ledger."),
    "provider": Entry("cli_provider", "app", "Register, stake and unbond."),
    "node": Entry("cli_node", "app", "Register, attest and run nodes."),
    "offer": Entry("cli_orders", "offers", "Place and withdraw offers."),
    "up": Entry("cli_up", "up", "Run a whole ledger in one process."),
    "network": Entry("cli_network", "app", "Describe a network of processes; change its rules."),
    "topics": Entry("cli_roles", "topics", "Create and check the topics on Kafka."),
    "telemetry": Entry("cli_telemetry", "app", "Delete telemetry that is committed and old."),
    "work": Entry("cli_roles", "work", "Run processors of a network."),
    "snapshots": Entry("cli_snapshots", "app", "List and drop snapshots of processors."),
    "serve": Entry("cli_roles", "serve", "Follow the ledgers and serve the query API."),
    "projections": Entry("cli_projections", "app", "Show, retry and rebuild the read models."),
    "clock": Entry("cli_roles", "clock", "Tick every second to every partition."),
    "watch": Entry("cli_roles", "watch", "Sign what is final in the vault on the L1."),
    "send": Entry("cli_roles", "send", "Take checkpoints to the L1."),
    "audit": Entry("cli_audit", "audit", "Re-derive every commit and compare."),
    "export": Entry("cli_export", "export", "Write a ledger into one file for auditors."),
    "replay": Entry("cli_replay", "replay", "Turn foreign data into a ledger."),
    "demo": Entry("cli_demo", "demo", "Tell the story of a small market."),
    "simulate": Entry("cli_simulate", "simulate", "Run markets in virtual time, with faults."),
    "bench": Entry("cli_bench", "app", "Measure the processors."),
}


def program(arguments: Sequence[str]) -> typer.Typer:
    """The commands; the one that ``arguments`` ask for is real, the others only have a name."""
    root = typer.Typer(
        name="synor",
        callback=_start,
        help="An event-sourced marketplace ledger for decentralised compute.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        # Its rich form of help texts takes as long to load as all else together.
        rich_markup_mode=None,
    )
    wanted = next((each for each in arguments if not each.startswith("-")), None)
    for name, entry in COMMANDS.items():
        found = (
            getattr(import_module(f"adapters.{entry.module}"), entry.attribute)
            if name == wanted
            else _unasked
        )
        _attach(root, name, entry, found)
    return root


def _attach(
    root: typer.Typer, name: str, entry: Entry, found: typer.Typer | Callable[..., None]
) -> None:
    if isinstance(found, typer.Typer):
        for each in found.registered_commands:
            # Else the list would cut each off at the width of the terminal.
            each.short_help = each.short_help or _first_paragraph(each.callback)
        root.add_typer(found, name=name, help=entry.help)
        return
    # A command's own docstring says more than its line in the list.
    help = entry.help if found is _unasked else None
    root.command(name, help=help)(found)


def _first_paragraph(of: Callable[..., None] | None) -> str:
    text = inspect.getdoc(of) or ""
    return " ".join(text.partition("\n\n")[0].split())


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        from domain.rules import RULES

        known = ", ".join(map(str, sorted(RULES)))
        typer.echo(f"synor {version('synor-ledger')}, versions of the rules: {known}")
        raise typer.Exit


def _start(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Show the program's version."
        ),
    ] = False,
) -> None:
    """Take the options that stand before a command."""


def _unasked() -> None:
    """Stand for a command in the list."""


def main() -> None:
    """Run one command and exit with its code."""
    arguments = sys.argv[1:]
    as_json = "--json" in arguments
    try:
        program(arguments)(prog_name="synor")
    except Failure as failure:
        failed(failure, as_json=as_json)
        sys.exit(failure.code)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except expected() as error:
        known = failure_of(error)
        failed(known, as_json=as_json)
        sys.exit(known.code)
