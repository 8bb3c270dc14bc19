"""Data that nobody here has seen needs a mapping and no code."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from adapters.cli import program
from adapters.cli_failures import Asked
from adapters.replay import ReplayResult, run_replay
from adapters.replay_values import ReplayRefused
from tests.replay.scene import write_farm

HOUR = 3_600_000
NANO = 1_000_000_000


def _farm(place: Path, **options: Any) -> ReplayResult:
    mapping, data = write_farm(place)
    return run_replay(mapping, data, **{"log": "memory", **options})


def test_an_unseen_data_set_is_billed_as_its_rows_say(tmp_path: Path) -> None:
    """Terms, an outage, a close, an unfilled bid, disordered meters: all from a mapping."""
    figures = _farm(tmp_path, audited=True).figures
    assert figures["rows_left_out"] == {"machines": 0, "jobs": 1, "meters": 0, "log": 0}
    assert figures["ended"] == {"buyer_closed": 1, "expired": 1}
    assert figures["orders_never_leased"] == 1
    assert figures["refused"] == figures["gate_refused"] == {}
    assert figures["audit"] == "ok"
    # Both leases are on machine a, whose power is off for ten minutes of each.
    red, blue = 1000 * (HOUR * 3 // 2 - 600_000), 1000 * (59 * 60_000 - 600_000)
    assert figures["quantities"]["card"] == red + blue
    assert figures["totals"]["card_seconds"] == (red + blue) // 1_000_000
    # The first bid meets its own limit, the second the list price between ask and limit.
    per = 1000 * HOUR
    bills = figures["buyers"]
    assert bills["red"]["card"]["posted_nano"] == red * 5 * NANO // 4 // per
    assert bills["blue"]["card"]["posted_nano"] == blue * 13 * NANO // 10 // per
    assert bills["red"]["network.egress"] == {"quantity": 1_500_000_000, "posted_nano": 75_000_000}
    assert bills["blue"]["network.egress"] == {"quantity": 400_000_000, "posted_nano": 20_000_000}
    assert figures["peaks"]["card"] == {"quantity": 2000, "leases": 2}


def test_a_replay_told_twice_or_shuffled_or_with_duplicates_bills_the_same(tmp_path: Path) -> None:
    """Order within the bounds, repetition and a second run change no bill and no balance."""
    options: list[dict[str, Any]] = [{}, {"shuffle": 1}, {"shuffle": 2}, {"duplicates": 3}]
    runs = [_farm(tmp_path / str(n), **each).figures for n, each in enumerate([{}, *options])]
    assert len({run["bills"] for run in runs}) == 1
    assert len({run["balances"] for run in runs}) == 1
    assert runs[-1]["duplicates"] > 0


def test_a_replay_on_sqlite_is_the_same_as_in_memory(tmp_path: Path) -> None:
    """The log is a port: the state hash of an audited replay does not know which one it was."""
    memory = _farm(tmp_path / "m", audited=True).figures
    folder = tmp_path / "ledger"
    sqlite = _farm(tmp_path / "s", log="sqlite", folder=folder, audited=True).figures
    assert sqlite["state_hash"] == memory["state_hash"]
    assert (folder / "ledger.db").is_file()


@pytest.mark.service
@pytest.mark.slow
def test_a_replay_on_kafka_is_the_same_as_in_memory(tmp_path: Path) -> None:
    """The broker is started for the replay and stopped after it."""
    memory = _farm(tmp_path / "m", audited=True).figures
    kafka = _farm(tmp_path / "k", log="kafka", folder=tmp_path / "ledger", audited=True).figures
    assert kafka["state_hash"] == memory["state_hash"]


def test_a_replay_begins_a_ledger_of_its_own(tmp_path: Path) -> None:
    """It never writes into a folder that holds something."""
    (tmp_path / "something").touch()
    with pytest.raises(ReplayRefused, match="not empty"):
        _farm(tmp_path / "farm", log="sqlite", folder=tmp_path)


def test_a_row_out_of_order_is_named(tmp_path: Path) -> None:
    """A stream is not sorted behind the reader's back: the mapping says how far rows stray."""
    mapping, data = write_farm(tmp_path)
    mapping.write_text(mapping.read_text().replace('disorder = "10min"', 'disorder = "1min"'))
    with pytest.raises(ReplayRefused, match=r"meters.csv line 4 is 300000000 µs before"):
        run_replay(mapping, data, log="memory")


def test_a_row_that_cannot_be_read_is_named_with_its_step(tmp_path: Path) -> None:
    """The first thing that anyone with new data needs is where it went wrong."""
    mapping, data = write_farm(tmp_path)
    (data / "machines.csv").write_text("host;site;cards;ask\na;oslo;two;1.25\n")
    where = r"machines.csv line 2, for rows\[0\]: column cards: 'two' is no number"
    with pytest.raises(ReplayRefused, match=where):
        run_replay(mapping, data, log="memory")


def test_a_figure_that_the_mapping_expects_otherwise_is_named(tmp_path: Path) -> None:
    """So a mapping carries the truth that others counted, and a run checks itself."""
    mapping, data = write_farm(tmp_path)
    mapping.write_text(mapping.read_text() + '\n[expect]\nleases = 2\n"ended/expired" = 2\n')
    result = run_replay(mapping, data, log="memory")
    assert result.unlike == ("ended/expired is 1, expected 2",)


def test_the_command_prints_one_line_of_json_and_exits_by_what_it_expects(tmp_path: Path) -> None:
    """0 where all is as expected, 1 where a figure is not, 2 where a mapping is of no use."""
    mapping, data = write_farm(tmp_path)
    arguments = ["replay", str(mapping), str(data), "--log", "memory", "--json"]
    done = CliRunner().invoke(program(arguments), arguments)
    assert done.exit_code == 0
    assert json.loads(done.stdout)["leases"] == 2
    mapping.write_text(mapping.read_text() + "\n[expect]\nleases = 3\n")
    unlike = CliRunner().invoke(program(arguments), arguments)
    assert unlike.exit_code == 1
    assert json.loads(unlike.stdout)["unlike"] == ["leases is 2, expected 3"]
    mapping.write_text("name = 3")
    refused = CliRunner().invoke(program(arguments), arguments)
    assert isinstance(refused.exception, Asked)


def test_the_command_tells_people_what_was_billed(tmp_path: Path) -> None:
    """Without --json it is a table; a total that is not whole is a fraction."""
    mapping, data = write_farm(tmp_path)
    mapping.write_text(mapping.read_text().replace("divide = 1_000_000", "divide = 7_000_003"))
    arguments = ["replay", str(mapping), str(data), "--log", "memory"]
    done = CliRunner().invoke(program(arguments), arguments)
    assert done.exit_code == 0
    assert "2: 1 buyer_closed, 1 expired" in done.stdout
    assert "network.egress" in done.stdout
    assert "/7000003" in done.stdout
