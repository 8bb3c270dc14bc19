"""Runs commands as a person would: short ones in this process, long ones as their own."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from adapters.cli import main
from adapters.kafka_broker import CHECKOUT

PROGRAM = (
    sys.executable,
    "-c",
    "import sys; sys.argv[0] = 'synor'; from adapters.cli import main; main()",
)
READY_S = 60.0


@dataclass(frozen=True, slots=True)
class Said:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its one JSON document."""
        return json.loads(self.out)


def synor(*arguments: str | Path, env: Mapping[str, str] | None = None) -> Said:
    """Run one short command in this process."""
    out, err = io.StringIO(), io.StringIO()
    argv = ["synor", *map(str, arguments)]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SYNOR_")}
    code: Any = 0
    with (
        mock.patch.object(sys, "argv", argv),
        mock.patch.object(sys, "stdin", io.StringIO()),
        mock.patch.dict(os.environ, {**clean, **(env or {})}, clear=True),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as end:
            code = end.code
    return Said(code or 0, out.getvalue(), err.getvalue())


class Asker:
    """Speaks to one ledger: what it names in the environment stands in ``env``."""

    env: dict[str, str]

    def ask(self, *arguments: str | Path) -> Said:
        """Run a command."""
        return synor(*arguments, env=self.env)

    def ok(self, *arguments: str | Path) -> Any:
        """Run a command that is to succeed; its JSON."""
        said = self.ask(*arguments, "--json")
        assert said.code == 0, (arguments, said.out, said.err)
        return said.json


class Running:
    """A long command as a process of its own, stopped when the test ends, however it ends."""

    def __init__(self, *arguments: str | Path, env: Mapping[str, str], log: Path) -> None:
        """Start it; what it prints goes to ``log``."""
        self.log = log
        self._arguments = arguments
        clean = {name: v for name, v in os.environ.items() if not name.startswith("SYNOR_")}
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                [*PROGRAM, *map(str, arguments)],
                env={**clean, "PYTHONUNBUFFERED": "1", **env},
                cwd=CHECKOUT,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    def wait(self, ready: str) -> Running:
        """Wait until it has printed ``ready``."""
        deadline = time.monotonic() + READY_S
        while ready not in self.text():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"{self._arguments} did not come up:\n{self.text()}")
            time.sleep(0.05)
        return self

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def text(self) -> str:
        """What it has printed."""
        return self.log.read_text()

    def stop(self) -> int:
        """Ask it to end; its exit code."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        try:
            return self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def ended(self, within_s: float) -> int:
        """Its exit code, once it has ended by itself."""
        return self._process.wait(timeout=within_s)

    def kill(self) -> None:
        """End it with no chance to clean up."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(timeout=30)


@contextlib.contextmanager
def stopped_at_the_end(running: Sequence[Running]) -> Iterator[None]:
    """Leave no process behind."""
    try:
        yield
    finally:
        for each in reversed(running):
            each.kill()


def until(what: Any, within_s: float = 40.0) -> Any:
    """Ask until the answer is true."""
    deadline = time.monotonic() + within_s
    while not (found := what()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.25)
    return found
