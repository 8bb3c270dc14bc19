"""kcat, the command line client of librdkafka, as somebody else's producer."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from adapters.kafka_broker import CHECKOUT

ROOT = CHECKOUT / ".cache" / "kcat"
KCAT = ROOT / "usr" / "bin" / "kcat"


def require_kcat() -> None:
    """Fail with what to do where it is not there."""
    if not KCAT.exists():
        pytest.fail("kcat is not in this checkout: scripts/setup kcat", pytrace=False)


def produce(
    bootstrap: str, topic: str, partition: int, values: Sequence[bytes], folder: Path
) -> None:
    """Append values in their order, each as a file, and return when all stand."""
    files = [folder / f"{number}.bin" for number in range(len(values))]
    for file, value in zip(files, values, strict=True):
        file.write_bytes(value)
    command: list[str | Path] = [KCAT, "-P", "-b", bootstrap, "-t", topic, "-p", str(partition)]
    command += ["-k", "whatever", "-H", "by=kcat", "-X", "enable.idempotence=true"]
    subprocess.run(
        [*command, *files],
        env={**os.environ, "LD_LIBRARY_PATH": str(ROOT / "lib")},
        capture_output=True,
        check=True,
        timeout=60,
    )
