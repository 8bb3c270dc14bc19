"""What the demo prints at its end, on a terminal of 80 columns."""

from __future__ import annotations

import io

from rich.console import Console

from adapters.cli_demo import PLAIN_WIDTH, figures_table


def test_amounts_of_a_whole_story_stand_on_one_line_of_eighty_columns() -> None:
    """Hundreds of thousands of SYNOR in the sum, tens of thousands of a person: none is folded."""
    table = figures_table("Who (SYNOR)", "who", "earned", "paid", "lost", "has")
    of_a_person = "39,264.274172004"
    of_all = "227,775.240411330"
    table.add_row("insurance", *[of_a_person] * 4)
    table.add_row("in all", *[of_a_person] * 3, of_all)
    printed = io.StringIO()
    Console(file=printed, width=PLAIN_WIDTH).print(table)
    text = printed.getvalue()
    assert PLAIN_WIDTH == 80
    assert text.count(of_a_person) == 7
    assert text.count(of_all) == 1
    assert max(map(len, text.splitlines())) <= PLAIN_WIDTH
