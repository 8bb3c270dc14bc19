"""The page of refusals, written from the table that the program answers by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from domain import market, metering
from domain.judging import COMMAND, NUMBER, ROWS, TELEMETRY, TICK, Stage
from domain.refusal import CODES

_PARTS: Final = {
    1: "Before the signature",
    2: "After the signature",
    3: "Accounts, keys, money, parameters",
    4: "Providers and nodes",
    5: "Offers, bids and rounds",
    6: "Leases",
    7: "Telemetry",
    8: "Evidence",
}
_HEAD: Final = """\
# Refusals

Written by `scripts/refusals` from `domain/refusal.py` and `domain/judging.py`; a test compares.

A refusal has a number for ever; its name says what was wrong, and the answer carries the figures
that explain it. The list is closed: nothing else is refused.

Records are judged in the order below, and of several faults the first is answered. What is
*counted* touches nobody's number: it costs one line for each code and commit, with a digest over
the records' offsets. An *event* is final for its number: the same bytes again get the same answer,
in every worker and after every restart.

Of one payload the first byte that is wrong answers: there decoding ends.
"""


def page() -> str:
    """The whole page."""
    # The processors know every module that declares a refusal.
    _ = market.HANDLERS, metering.LEARN
    parts = [
        _HEAD,
        "## How a command is judged\n",
        _stages(COMMAND),
        "## How a tick is judged\n",
        _stages(TICK),
        "## How a batch of telemetry is judged\n",
        _stages(TELEMETRY),
        "Of an accepted batch each row is judged alone, in this order: "
        + ", ".join(f"{code.number} `{code.name}`" for code in ROWS)
        + ".\n",
    ]
    for hundred, title in _PARTS.items():
        parts += [f"## {title}\n", _codes(hundred)]
    return "\n".join(parts)


def _stages(stages: Sequence[Stage]) -> str:
    rows = ["| | judged | refused as | |", "|---|---|---|---|"]
    new = False
    for place, stage in enumerate(stages, 1):
        new = new or stage is NUMBER
        codes = ", ".join(f"{code.number} `{code.name}`" for code in stage.codes)
        event = "event" if new else "event if the number is new, else counted"
        rows.append(
            f"| {place} | {stage.judges} | {codes} | {event if stage.answered else 'counted'} |"
        )
    return "\n".join(rows) + "\n"


def _codes(hundred: int) -> str:
    rows = ["| number | what was wrong | what to do |", "|---|---|---|"]
    rows += [
        f"| {number} | `{CODES[number].name}` | {CODES[number].remedy} |"
        for number in sorted(CODES)
        if number // 100 == hundred
    ]
    return "\n".join(rows) + "\n"
