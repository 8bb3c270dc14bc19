"""anvil, the EVM node from npm, for what the in-process EVM lacks: reorganisations and fees."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from adapters.kafka_broker import CHECKOUT, OwnedProcess, free_ports

START_SECONDS = 20.0
CHAIN_ID = 31337
PACKAGES = CHECKOUT / ".cache" / "npm" / "node_modules" / "@foundry-rs"


def find_anvil() -> Path:
    """The program itself, which the package for this kind of machine carries."""
    for program in sorted(PACKAGES.glob("anvil-*/bin/anvil*")):
        return program
    pytest.fail(f"anvil is not in {PACKAGES}: run scripts/setup evm", pytrace=False)


def json_rpc(url: str, method: str, *parameters: object) -> object:
    """Ask a JSON-RPC endpoint and return the result."""
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(parameters)}
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=START_SECONDS) as answer:
        parsed: dict[str, object] = json.load(answer)
    if "error" in parsed:
        raise RuntimeError(f"{method} was refused: {parsed['error']}")
    return parsed["result"]


@contextmanager
def running_anvil(
    directory: Path, *, chain_id: int = CHAIN_ID, options: Sequence[str] = ()
) -> Iterator[str]:
    """A chain of its own on a free loopback port; gives its URL and stops it at the end.

    `options` are anvil's own, such as `("--block-time", "1")` or `("--state", path)`.
    """
    program = find_anvil()
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    output = directory / "anvil.log"
    command = [program, "--host", "127.0.0.1", "--port", str(port), "--chain-id", str(chain_id)]
    process = OwnedProcess([*map(str, command), *options], output=output, cwd=directory)
    try:
        _wait_for_answer(url, process, output)
        yield url
    finally:
        process.stop()


def _wait_for_answer(url: str, process: OwnedProcess, output: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.running:
        try:
            json_rpc(url, "eth_chainId")
        except urllib.error.URLError:
            time.sleep(0.02)
        else:
            return
    pytest.fail(f"anvil did not come up:\n{output.read_text()}", pytrace=False)


@pytest.fixture
def anvil(tmp_path: Path) -> Iterator[str]:
    """The URL of a fresh chain with anvil's ten rich accounts."""
    with running_anvil(tmp_path) as url:
        yield url
