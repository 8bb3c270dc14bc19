"""What a person sees of an audit that takes a while."""

from __future__ import annotations

import pytest

from adapters.audit import LedgerReport
from adapters.cli_audit_progress import AuditProgress
from domain.commit import Ledger

SEATS = ((Ledger.MARKET, 0), (Ledger.METERING, 0))


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_in_a_pipe_a_line_now_and_then_says_how_far_how_fast_and_how_long(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of all ledgers together; what is left is judged by the one that is last."""
    clock = Clock()
    progress = AuditProgress(SEATS, clock=clock, line_every_s=5.0)
    market = LedgerReport(*SEATS[0], offset=30, end_offset=100, inputs=400)
    shard = LedgerReport(*SEATS[1], offset=150, end_offset=200, inputs=600, readings=50_000)
    progress(market)
    assert capsys.readouterr().err == ""
    clock.now += 10.0
    progress(shard)
    said = capsys.readouterr().err
    assert said == (
        "Audited 180 of 300 commits, 100 records/s, 5,000 readings/s; "
        "market 0 is at 30%, about 23 s to go.\n"
    )
    clock.now += 4.0
    progress(shard)
    assert capsys.readouterr().err == ""
    progress.done()
    clock.now += 50.0
    assert progress.seconds() == 14.0


def test_a_ledger_that_grows_while_it_is_read_is_never_beyond_its_end() -> None:
    """Where it ended when the audit began is no bound."""
    clock = Clock()
    progress = AuditProgress(SEATS, clock=clock)
    clock.now += 1.0
    progress(LedgerReport(*SEATS[0], offset=120, end_offset=100))
    assert "120 of 120 commits" in progress.line()
    assert "100%" in progress.line()
