"""docs/invariants.md names a test for every invariant; the tests it names are there."""

import re

from adapters.kafka_broker import CHECKOUT
from tests.architecture.sources import python_files, text_of

PAGE = CHECKOUT / "docs" / "invariants.md"
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def test_every_test_that_the_page_of_invariants_names_exists() -> None:
    """A test that is renamed takes its line on the page with it."""
    texts = {str(path): text_of(path) or "" for path in python_files()}
    missing = [
        f"{path}::{name}"
        for path, name in NAMED.findall(PAGE.read_text())
        if not re.search(rf"^\s*def {name}\(", texts.get(path, ""), re.MULTILINE)
    ]
    assert missing == []


def test_every_invariant_has_a_test() -> None:
    """A row without a test is a wish."""
    rows = [line for line in PAGE.read_text().splitlines() if re.match(r"\| \d", line)]
    assert len(rows) > 40
    assert [row for row in rows if not NAMED.search(row)] == []
    numbers = [int(row.split("|")[1]) for row in rows]
    assert numbers == list(range(1, len(rows) + 1))
