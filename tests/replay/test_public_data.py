"""Public data sets: reduced ones against a plain count, whole ones against their publishers'."""

import csv
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from adapters.replay import run_replay
from tests.replay.scene import LONG, MAPPINGS, public

WAYS: tuple[dict[str, Any], ...] = ({}, {"shuffle": 11}, {"duplicates": 12})


def _head(source: Path, target: Path, lines: int, *, every: int = 1) -> None:
    """The first lines of a file, or each so-manieth; data stays as it is, there is only less."""
    with source.open(encoding="utf-8", newline="") as file:
        target.write_text("".join(islice(file, 0, lines * every, every)))


def _reduced(name: str, data: Path, ways: Sequence[dict[str, Any]] = WAYS) -> dict[str, Any]:
    """Replay in each way; all give the same balances and bills. The first one's figures."""
    runs = [
        run_replay(MAPPINGS / f"{name}.toml", data, log="memory", **way).figures for way in ways
    ]
    assert len({(run["balances"], run["bills"]) for run in runs}) == 1
    for run in runs:
        assert run["refused"] == run["gate_refused"] == {}
        assert run["late_ready"] == run["ends_of_no_lease"] == 0
        assert run["leases_closed"] == run["leases"] == run["leases_readied"]
        assert run["money"]["slashed_nano"] == run["money"]["unfunded_nano"] == 0
    return runs[0]


@pytest.mark.slow
def test_pods_of_a_cluster_are_leased_for_exactly_as_long_as_they_ran(tmp_path: Path) -> None:
    """The first sixty pods: quantities of GPUs, cores and memory to the unit."""
    data = public("openb-gpu-cluster-2023")
    nodes, pods = "openb_node_list_all_node.csv", "openb_pod_list_default.csv"
    _head(data / nodes, tmp_path / nodes, 100, every=15)
    _head(data / pods, tmp_path / pods, 61)
    figures = _reduced("openb-default", tmp_path)
    with (tmp_path / pods).open(newline="") as file:
        rows = list(csv.DictReader(file))
    placed = [row for row in rows if row["scheduled_time"]]
    seconds = [int(row["deletion_time"]) - int(row["scheduled_time"]) for row in placed]

    def sum_of(amount: Sequence[int]) -> int:
        return sum(a * s for a, s in zip(amount, seconds, strict=True))

    assert figures["ended"] == {"expired": len(placed)}
    assert figures["orders_never_leased"] == len(rows) - len(placed)
    assert figures["totals"] == {
        "milli_gpu_seconds": sum_of([int(r["num_gpu"]) * int(r["gpu_milli"]) for r in placed]),
        "milli_cpu_seconds": sum_of([int(r["cpu_milli"]) for r in placed]),
        "mib_seconds": sum_of([int(r["memory_mib"]) for r in placed]),
    }


@pytest.mark.slow
def test_each_removal_ends_one_lease_once(tmp_path: Path) -> None:
    """The first sixty changes of a spot fleet: counts and lifetimes."""
    data = public("spot-preemptions")
    _head(data / "p3-trace.csv", tmp_path / "p3-trace.csv", 60)
    figures = _reduced("spot-p3", tmp_path)
    began: dict[str, int] = {}
    lived: list[int] = []
    for line in (tmp_path / "p3-trace.csv").read_text().splitlines():
        ms, change, name = line.split(",")
        if change == "add":
            began[name] = int(ms)
        else:
            lived.append(int(ms) - began[name])
    assert figures["leases"] == len(began)
    assert figures["ended"]["provider_reclaimed"] == len(lived)
    assert figures["lifetimes_us"]["provider_reclaimed"] == sum(lived) * 1000
    assert figures["active_at_end_of_data"] == len(began) - len(lived)


@pytest.mark.slow
def test_tokens_of_requests_are_billed_per_million(tmp_path: Path) -> None:
    """The first eight hundred requests: tokens to the unit, at 0.10 per million."""
    data = public("azure-llm-2023")
    name = "AzureLLMInferenceTrace_conv.csv"
    _head(data / name, tmp_path / name, 801)
    figures = _reduced("azure-llm", tmp_path)
    with (tmp_path / name).open(newline="") as file:
        rows = list(csv.DictReader(file))
    context = sum(int(row["ContextTokens"]) for row in rows)
    generated = sum(int(row["GeneratedTokens"]) for row in rows)
    assert figures["quantities"]["inference.tokens"] == context + generated
    assert figures["posted_nano"]["inference.tokens"] == 100 * (context + generated)


@pytest.mark.skipif(not LONG, reason="whole data sets are replayed by scripts/test --long")
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("openb-default", "openb-gpu-cluster-2023"),
        ("openb-gpuspec33", "openb-gpu-cluster-2023"),
        ("spot-p3", "spot-preemptions"),
        ("spot-gcloud-a100", "spot-preemptions"),
        ("azure-llm", "azure-llm-2023"),
        ("azure-functions", "azure-functions-2021-sample"),
        ("uptime-services", "uptime-services-2026"),
    ],
)
def test_a_whole_data_set_gives_its_publishers_totals(
    tmp_path: Path, name: str, folder: str
) -> None:
    """Twice, shuffled and with duplicates, on SQLite: the figures of [expect], one set of bills."""
    data = public(folder)
    ways: tuple[dict[str, Any], ...] = ({"audited": True}, *WAYS)
    runs = [
        run_replay(
            MAPPINGS / f"{name}.toml", data, log="sqlite", folder=tmp_path / str(number), **way
        )
        for number, way in enumerate(ways)
    ]
    assert [run.unlike for run in runs] == [()] * len(ways)
    assert len({(run.figures["balances"], run.figures["bills"]) for run in runs}) == 1
