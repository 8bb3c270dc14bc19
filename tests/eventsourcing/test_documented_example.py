"""The example in docs/eventsourcing.md does what the page says."""

from __future__ import annotations

import re
import subprocess
import sys

from adapters.bootstrap_eventsourcing import LedgerFactory
from adapters.kafka_broker import CHECKOUT

PAGE = (CHECKOUT / "docs" / "eventsourcing.md").read_text()


def test_the_example_runs_and_prints_what_the_page_says() -> None:
    """As a reader would run it: one file, in a process of its own."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    answer = subprocess.run(
        [sys.executable, "-c", code],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    trick, *commits = answer.stdout.splitlines()
    assert trick == "['roll over']"
    assert [line.split()[0] for line in commits] == ["0", "1"]


def test_the_page_names_every_setting() -> None:
    """A setting that is not on the page does not exist for its reader."""
    settings = {
        value
        for name, value in vars(LedgerFactory).items()
        if name.isupper() and isinstance(value, str)
    }
    assert {each for each in settings if f"`{each}`" not in PAGE} == set()
