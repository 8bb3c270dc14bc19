"""Watcher and sender as roles, on a real node of the L1: deposit, anchor, claim, audit."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from adapters import roles, settings
from adapters.metrics import Metrics
from domain.commit import Ledger
from tests.api.test_metrics import of, read
from tests.cli.commands import synor, until
from tests.support.anvil import json_rpc, running_anvil

TINY = Path(__file__).with_name("tiny.toml")
SYNOR = 1_000_000_000

pytestmark = [pytest.mark.service, pytest.mark.slow, pytest.mark.timeout(240)]


def settings_on_one_file(folder: Path) -> None:
    """The same settings with a SQLite file as log, which processes and threads may share too."""
    path = folder / settings.FILE_NAME
    text = path.read_text()
    before, _, rest = text.partition("[log]\n")
    _, _, after = rest.partition("\n\n")
    path.write_text(f'{before}[log]\nkind = "sqlite"\n\n{after}')


@contextmanager
def every_role(folder: Path, metrics: Metrics) -> Iterator[str]:
    """All roles in threads, each with what it would have as a process; gives the API's URL."""
    stop = threading.Event()
    urls: list[str] = []
    said: list[str] = []

    def deployment() -> roles.Deployment:
        return roles.Deployment(settings.load(folder))

    def serve(found: roles.Deployment) -> None:
        roles.serve(
            found,
            stop,
            said.append,
            lambda web: urls.append(f"http://127.0.0.1:{web.port}"),
            metrics,
        )

    runs: list[Callable[[roles.Deployment], None]] = [
        lambda d: roles.work(d, Ledger.MARKET, (0,), stop, said.append, metrics),
        lambda d: roles.work(d, Ledger.METERING, (0, 1), stop, said.append, metrics),
        lambda d: roles.work(d, Ledger.SETTLEMENT, (0,), stop, said.append, metrics),
        lambda d: roles.clock(d, stop, said.append, metrics),
        lambda d: roles.watch(d, stop, said.append, metrics),
        lambda d: roles.send(d, stop, said.append, metrics),
        serve,
    ]
    with ThreadPoolExecutor(len(runs)) as pool:
        futures: list[Future[None]] = [pool.submit(run, deployment()) for run in runs]
        try:
            until(lambda: urls or any(each.done() for each in futures))
            yield urls[0]
        finally:
            stop.set()
            for each in futures:
                each.result()


def test_a_deposit_and_a_claim_pass_through_watcher_and_sender_on_a_real_node(
    tmp_path: Path,
) -> None:
    """The vault is pinned; a block counts when another is on top of it. Figures tell of it."""
    metrics = Metrics()
    key, folder = tmp_path / "me.pem", tmp_path / "network"
    address = synor("key", "new", key, "--no-passphrase", "--json").json["evm_address"]
    with running_anvil(tmp_path, options=("--block-time", "1")) as url:
        json_rpc(url, "anvil_setBalance", address, hex(10**20))
        made = synor(
            *("network", "new", folder, "--kafka", "127.0.0.1:1", "--genesis", TINY),
            *("--port", "0", "--l1-rpc", url, "--deploy-key", key, "--confirmations", "1"),
        )
        assert made.code == 0, made.err
        settings_on_one_file(folder)
        assert synor("topics", "create", "--network", folder).code == 0
        with every_role(folder, metrics) as api:

            def ok(*arguments: str | Path) -> Any:
                said = synor(*arguments, "--json", env={"SYNOR_API": api})
                assert said.code == 0, (arguments, said.out, said.err)
                return said.json

            ok("account", "open", "--key", key)
            ok("deposit", "25", "--key", key)
            ok("withdraw", "5.5", "--key", key)
            assert synor("faucet", "1", "--key", key, env={"SYNOR_API": api}).code != 0

            def claimed() -> bool:
                return synor("claim", "--key", key, env={"SYNOR_API": api}).code == 0

            until(claimed, within_s=90)
        figures = read(metrics.text())
        facts = {
            kind: of(figures, "synor_l1_events_total", kind=kind)
            for kind in ("deposit", "checkpoint", "claim")
        }
        assert (facts["deposit"], facts["claim"]) == (1, 1)
        # A block counts when another is on top of it, so what is observed stays behind the head.
        assert of(figures, "synor_l1_observed_block") > 0
        assert of(figures, "synor_l1_unobserved_blocks") >= 1
        assert 1 <= of(figures, "synor_l1_anchored_epoch") <= facts["checkpoint"] + 1
        assert of(figures, "synor_ticks_total") >= 2
        verdict = synor("audit", folder, "--l1", url, "--json")
        assert verdict.code == 0, (verdict.out, verdict.err)
        assert verdict.json["l1"]["deposited_nano"] == 25 * SYNOR
        assert verdict.json["l1"]["paid_nano"] == 5_500_000_000
        assert verdict.json["claimed_nano"] == 5_500_000_000
    with running_anvil(tmp_path) as other:
        wrong = synor("audit", folder, "--l1", other, "--json")
        assert wrong.code != 0
        assert "error" in wrong.json
