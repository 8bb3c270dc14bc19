"""Where a passphrase comes from: a file, standard input, or the terminal. Never an argument.

What stands in the arguments of a process can be read by every user of the machine.
"""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path
from typing import Final

from adapters.cli_failures import Asked

ENVIRONMENT: Final = "SYNOR_PASSPHRASE_FILE"
_SHORTEST: Final = 8
_HOW: Final = (
    f"Name a file with --passphrase-file FILE (- is standard input) or in {ENVIRONMENT}, "
    "or type it at a terminal."
)


def from_file(source: Path | None) -> bytes | None:
    """The first line of the file that is named, or None where none is."""
    if source is None:
        named = os.environ.get(ENVIRONMENT)
        if not named:
            return None
        source = Path(named)
    if str(source) == "-":
        line = sys.stdin.readline()
    else:
        try:
            with source.open(encoding="utf-8") as file:
                line = file.readline()
        except (OSError, UnicodeDecodeError) as error:
            raise Asked(f"The passphrase file {source} cannot be read: {error}.", _HOW) from error
    passphrase = line.rstrip("\r\n")
    if not passphrase:
        raise Asked("The passphrase is empty.", _HOW)
    return passphrase.encode()


def known(source: Path | None, what: str) -> bytes:
    """The passphrase of an existing file, asked once."""
    given = from_file(source)
    if given is not None:
        return given
    if not sys.stdin.isatty():
        raise Asked(f"{what} is encrypted and there is no terminal to ask at.", _HOW)
    return getpass.getpass(f"Passphrase of {what}: ").encode()


def chosen(source: Path | None, what: str) -> bytes:
    """A passphrase for a new file, asked twice."""
    given = from_file(source)
    if given is None:
        if not sys.stdin.isatty():
            raise Asked(f"{what} needs a passphrase and there is no terminal to ask at.", _HOW)
        given = getpass.getpass(f"New passphrase for {what}: ").encode()
        if getpass.getpass("The same again: ").encode() != given:
            raise Asked("The two passphrases differ.", "Start again.")
    if len(given) < _SHORTEST:
        raise Asked(f"The passphrase has fewer than {_SHORTEST} characters.", "Take a longer one.")
    return given
