"""A small ledger on `synor up` and its people, for tests that only use the command line."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.commands import Asker, Running, synor

TINY = Path(__file__).with_name("tiny.toml")
RUNS = '"api"'


class Town(Asker):
    """A ledger that runs, and the people of the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ledger = folder / "up"
        self.env = {"SYNOR_PASSPHRASE_FILE": str(folder / "passphrase")}
        (folder / "passphrase").write_text("correct horse\n")
        self.starts = 0
        self.port = "0"
        self.up = self.start()

    def start(self) -> Running:
        """Start the ledger, for the first time or again."""
        self.starts += 1
        more = ("--genesis", TINY) if self.starts == 1 else ()
        running = Running(
            *("up", "--folder", self.ledger, "--port", self.port, "--json", *more),
            env={},
            log=self.folder / f"up{self.starts}.txt",
        ).wait(RUNS)
        self.env["SYNOR_API"] = json.loads(running.text().splitlines()[-1])["api"]
        self.port = self.env["SYNOR_API"].rpartition(":")[2]
        return running

    def key(self, name: str) -> Path:
        """An identity file, made when first asked for."""
        path = self.folder / f"{name}.pem"
        if not path.exists():
            assert synor("key", "new", path, env=self.env).code == 0
        return path

    def purse(self, name: str, purse: str) -> int:
        """What an identity's account has in a purse."""
        found = self.ok("account", "show", "--key", self.key(name))["account"]["purses"]
        return sum(int(each["amount_nano"]) for each in found if each["purse"] == purse)
