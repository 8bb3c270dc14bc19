"""The demo as a person runs it: the whole story, every check, and one line of figures."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cli.commands import PROGRAM, Running, until

LONG = os.environ.get("SYNOR_LONG") == "1"


def told_and_served(folder: Path) -> dict[str, object]:
    """Run the demo and leave its API running: its line of figures, and what the API says."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = Running(
        *("demo", "--json", "--serve", "--port", str(port), "--folder", folder),
        env={},
        log=folder.with_name("demo.txt"),
    )
    url = f"http://127.0.0.1:{port}"
    try:
        until(lambda: f"Serving on {url}/" in running.text(), within_s=600)
        said: dict[str, object] = json.loads(
            next(line for line in running.text().splitlines() if line.startswith("{"))
        )
        # It says where it serves just before it does.
        latest = until(lambda: answered(f"{url}/v1/epochs/latest"))["epoch"]
        assert latest["number"] == said["epochs_anchored"]
        assert len(answered(f"{url}/v1/leases?limit=100")["items"]) == said["leases"]
        assert "text/html" in httpx.get(f"{url}/").headers["content-type"]
    finally:
        assert running.stop() == 0
    return said


def answered(url: str) -> Any:
    """A JSON answer of the API; None while nothing listens yet."""
    try:
        return httpx.get(url, timeout=10).raise_for_status().json()
    except httpx.ConnectError:
        return None


def told(folder: Path, *arguments: str) -> dict[str, object]:
    """Run the demo as a process of its own and return its last line."""
    done = subprocess.run(
        [*PROGRAM, "demo", "--json", "--folder", str(folder), *arguments],
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    last: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return last


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_demo_tells_its_story_and_its_folder_is_audited_and_tampering_is_named(
    tmp_path: Path,
) -> None:
    """Thirty epochs anchored, two slashes, every figure there; one byte changed is found."""
    folder = tmp_path / "demo"
    said = told_and_served(folder)
    assert said["audit"] == "ok"
    assert said["epochs_anchored"] == 32
    assert said["charged_nano"] == int(str(said["provider_nano"])) + int(str(said["protocol_nano"]))
    assert int(str(said["slashed_nano"])) > 0
    assert said["ledger"] == str(folder)
    if LONG:
        on_kafka = told(tmp_path / "kafka", "--log", "kafka")
        assert on_kafka["state_hash"] == said["state_hash"]
    with sqlite3.connect(folder / "ledger.db") as log:
        ((number, value),) = log.execute(
            "SELECT key, value FROM record ORDER BY length(value) DESC LIMIT 1"
        ).fetchall()
        changed = bytearray(value)
        changed[-1] ^= 1
        log.execute("UPDATE record SET value = ? WHERE key = ?", (bytes(changed), number))
    audited = subprocess.run(
        [*PROGRAM, "audit", str(folder), "--json"],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert audited.returncode >= 10, audited.stdout
    assert "Traceback" not in audited.stderr
