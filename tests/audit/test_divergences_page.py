"""The auditor's page of exit codes is the table of the code."""

from __future__ import annotations

from pathlib import Path

from adapters.audit_faults import FAULTS

PAGE = Path(__file__).parents[2] / "docs" / "audit-divergences.md"
HEAD = (
    "# What an audit can find\n\n"
    "Each class of divergence, the exit code of `synor audit`, what it means and what to do. Made "
    "from `adapters/audit_faults.py` by `tests/audit/test_divergences_page.py`, which fails where "
    "the two differ. 0 is a clean audit; 1 to 3 are refused, asked wrongly and an operating error, "
    "as of every command.\n\n"
    "A divergence is printed with its class, topic and partition, height, offset, and the field: "
    "`runs[0].digest`, `events[3].price_nano`, `bulk`. It is the first one of its ledger: what "
    "comes after it follows from it.\n\n"
    "| class | exit code | what it means | what to do |\n"
    "|---|---|---|---|\n"
)


def page() -> str:
    """The page as it must be."""
    rows = (
        f"| `{name}` | {fault.code} | {fault.meaning} | {fault.remedy} |\n"
        for name, fault in FAULTS.items()
    )
    return HEAD + "".join(rows)


def test_the_page_of_divergences_is_that_of_the_code() -> None:
    """Write it anew with: python -m tests.audit.test_divergences_page"""
    assert PAGE.read_text() == page()


if __name__ == "__main__":
    PAGE.write_text(page())
