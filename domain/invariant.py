"""The third kind of failure: a bug. It stops the process and is never caught."""

from __future__ import annotations


class InvariantBroken(Exception):
    """A law of the ledger does not hold: the program is wrong, not the input."""


def invariant(condition: bool, why: str) -> None:
    """Raise ``InvariantBroken`` with ``why`` unless ``condition`` holds.

    A function and not ``assert``, because ``python -O`` drops assertions.
    """
    if not condition:
        raise InvariantBroken(why)
