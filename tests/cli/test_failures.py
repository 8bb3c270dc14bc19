"""How a command ends when a ledger stops every reader: named, with a code and what to do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from adapters.audit import EXIT_CODES
from adapters.cli_failures import REMEDIES, failure_of
from domain.chain import LedgerStopped
from domain.commit import Ledger
from tests.architecture.sources import python_files, text_of

#: A name that is given where a ledger stops, the first argument, perhaps on a line of its own; and
#: what the check of the topics finds, which no reader would meet.
NAMED = re.compile(
    r'(?:LedgerStopped|self\._stop)\(\s*"(?P<stop>\w+)"|^\s*name="(?P<found>\w+)",$', re.MULTILINE
)
CHECK = Path("adapters/roles_check.py")


@pytest.mark.parametrize("name", REMEDIES)
def test_a_ledger_that_stops_ends_a_command_with_the_code_of_the_audit(name: str) -> None:
    """The same fault has the same code wherever it is met; 3 where no ledger is at fault."""
    stopped = LedgerStopped(name, Ledger.METERING, 3, 17, "as it was found", height=9)
    failure = failure_of(stopped)
    assert failure.code == EXIT_CODES.get(name, 3)
    assert failure.what == (
        f"{name}: synor.ledger.metering.v1[3] height 9 offset 17: as it was found."
    )
    assert failure.remedy == REMEDIES[name]


def test_every_name_that_a_reader_stops_with_has_a_remedy() -> None:
    """No reader may stop with a name that nobody explains."""
    used = {
        name
        for path in python_files()
        if path.parts[0] in ("adapters", "domain")
        for found in NAMED.finditer(text_of(path) or "")
        if (name := found["stop"] or (path == CHECK and found["found"]))
    }
    assert used == set(REMEDIES)
