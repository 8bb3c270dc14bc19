"""What commands print: tables for people, one JSON document for programs.

Figures in JSON are exact: money is in nano, time in µs; a number beyond 2^53 is a text, because
most readers of JSON take numbers for floats.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Final

import typer

from adapters.cli_failures import Failure

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead.")]

_EXACT_IN_A_FLOAT: Final = 1 << 53
_FIGURE: Final = re.compile(r"-?[\d,]+(?:\.\d+)?|")


def commands() -> typer.Typer:
    """A group of commands, to be filled."""
    # Its rich form of help texts takes as long to load as all else together.
    return typer.Typer(no_args_is_help=True, rich_markup_mode=None)


def exact(value: Any) -> Any:
    """A value as JSON that nobody reads wrongly: bytes in hexadecimal, large numbers as text."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, int):
        return value if -_EXACT_IN_A_FLOAT <= value <= _EXACT_IN_A_FLOAT else str(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return {str(name): exact(each) for name, each in value.items()}
    if isinstance(value, Iterable):
        return [exact(each) for each in value]
    return str(value)


def document(value: Mapping[str, Any]) -> None:
    """Print one JSON document on a line of its own."""
    sys.stdout.write(json.dumps(exact(value)) + "\n")
    sys.stdout.flush()


def said(text: str) -> None:
    """Print one line for a person, as it is."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def noted(text: str) -> None:
    """Print one line beside the result: progress, a warning."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    title: str = "",
    none: str = "None.",
) -> None:
    """Print a table, or ``none``; columns whose name begins with > have point under point."""
    cells = [[str(each) for each in row] for row in rows]
    if title:
        said(title)
    if not cells:
        said(none)
        return
    made = [
        _on_the_point(column) if name.startswith(">") else column
        for name, column in zip(columns, zip(*cells, strict=True), strict=True)
    ]
    cells = [list(row) for row in zip(*made, strict=True)]
    if sys.stdout.isatty():
        _rich_table(columns, cells)
    else:
        _plain_table(columns, cells)


def _on_the_point(column: Sequence[str]) -> Sequence[str]:
    """Figures of a column with as much behind the point, so that they can be compared by eye."""
    if not all(map(_FIGURE.fullmatch, column)):
        return column
    behind = [len(each.partition(".")[2]) + ("." in each) for each in column]
    most = max(behind)
    return [each + " " * (most - own) for each, own in zip(column, behind, strict=True)]


def _rich_table(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    made = Table(header_style="bold", box=None)
    ranged = []
    for name, column in zip(columns, zip(*cells, strict=True), strict=True):
        head = name.removeprefix(">")
        # Figures are ranged here, since the library would strip what stands behind a point. What
        # does not fit is folded in the other columns.
        width = max(map(len, (head, *column))) if name.startswith(">") else 0
        made.add_column(head.rjust(width), overflow="fold", no_wrap=width > 0)
        ranged.append([Text(each.rjust(width)) for each in column])
    for row in zip(*ranged, strict=True):
        made.add_row(*row)
    Console(highlight=False).print(made)


def _plain_table(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    """In a pipe there is no width: nothing is cut or folded there."""
    heads = [name.removeprefix(">") for name in columns]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    for row in (heads, *cells):
        said(
            "  ".join(
                cell.rjust(width) if name.startswith(">") else cell.ljust(width)
                for name, cell, width in zip(columns, row, widths, strict=True)
            ).rstrip()
        )


def facts(rows: Iterable[tuple[str, str]]) -> None:
    """Print names and values in two columns, as they are."""
    pairs = [(name, value) for name, value in rows if value != ""]
    width = max((len(name) for name, _ in pairs), default=0)
    for name, value in pairs:
        said(f"{name:<{width}}  {value}")


def positioned(position: Mapping[str, Any]) -> str:
    """The ledger position that an answer reflects: the height of each ledger."""
    shards = ",".join(str(height) for height in position["metering"])
    return f"at market {position['market']}, metering {shards}, settlement {position['settlement']}"


def failed(failure: Failure, *, as_json: bool) -> None:
    """Say what went wrong, what to do, and what position of the ledger that reflects."""
    if as_json:
        told: dict[str, Any] = {"error": failure.what, "remedy": failure.remedy}
        if failure.position is not None:
            told["position"] = failure.position
        document({**told, "exit": failure.code})
        return
    lines = [f"synor: {failure.what}", failure.remedy]
    if failure.position is not None:
        lines.append(positioned(failure.position))
    noted("\n  ".join(line for line in lines if line))
