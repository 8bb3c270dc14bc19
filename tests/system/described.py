"""The small system's network as a folder of settings, for commands that people run."""

from __future__ import annotations

from pathlib import Path

from tests.system.small import network


def described(folder: Path, log: str) -> None:
    """Write genesis and settings; ``log`` is the table [log]."""
    (folder / "index").mkdir(parents=True, exist_ok=True)
    (folder / "genesis.avro").write_bytes(network().codec.encode(network().genesis))
    (folder / "network.toml").write_text(
        f'format = 1\ngenesis = "genesis.avro"\nshards = 2\n[log]\n{log}\n'
        '[read_model]\nurl = "sqlite:///read.db"\n[api]\nhost = "127.0.0.1"\nport = 0\n'
        '[l1]\nkind = "none"\n[keys]\n'
    )
