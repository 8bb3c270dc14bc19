"""The settings of a deployment: a mistake in the file is a sentence, before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters import cli_genesis, settings
from adapters.cli_failures import Asked
from adapters.cli_roles import shards_of
from adapters.settings import ChainKind, LogKind, SettingsInvalid
from adapters.settings_security import Protocol, Security
from domain.genesis import Parameters, broken_bounds
from tests.cli.commands import synor

WHOLE = """
format = 1
shards = 4
[log]
kind = "kafka"
bootstrap = "127.0.0.1:9092"
[log.security]
protocol = "SSL"
ca_file = "ca.pem"
[l1]
kind = "rpc"
rpc = "http://127.0.0.1:8545"
chain_id = 31337
vault = "0x1111111111111111111111111111111111111111"
token = "0x2222222222222222222222222222222222222222"
code_hash = "0x3333333333333333333333333333333333333333333333333333333333333333"
start_number = 7
start_hash = "0x4444444444444444444444444444444444444444444444444444444444444444"
confirmations = 12
[keys]
market = "keys/market.pem"
"""


def test_a_whole_file_is_read_with_paths_relative_to_it(tmp_path: Path) -> None:
    """What it does not say has its default."""
    (tmp_path / settings.FILE_NAME).write_text(WHOLE)
    found = settings.load(tmp_path)
    assert found.log.kind is LogKind.KAFKA
    assert found.log.security == Security(protocol=Protocol.SSL, ca_file=str(tmp_path / "ca.pem"))
    assert found.chain.kind is ChainKind.RPC
    assert found.chain.confirmations == 12
    assert found.genesis == tmp_path / "genesis.avro"
    assert found.key_files("market") == (tmp_path / "keys/market.pem",)
    assert found.read_model == f"sqlite:///{tmp_path / 'read.db'}"
    with pytest.raises(SettingsInvalid, match="clock"):
        found.key_files("clock")


def test_who_writes_a_ledger_may_have_followers_in_the_file(tmp_path: Path) -> None:
    """In their order; an empty name is none."""
    listed = WHOLE.replace('"keys/market.pem"', '["keys/market.pem", "", "keys/2.pem"]')
    (tmp_path / settings.FILE_NAME).write_text(listed)
    found = settings.load(tmp_path).key_files("market")
    assert found == (tmp_path / "keys/market.pem", tmp_path / "keys/2.pem")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("shards = 4", "", "shards is missing"),
        ("shards = 4", "shards = 0", "within 1..4096"),
        ("shards = 4", "shards = true", "whole number"),
        ("shards = 4", 'shards = "4"', "whole number"),
        ("format = 1", "format = 2", "within 1..1"),
        ("shards = 4", "shards = 4\nshard = 4", "is shards meant"),
        ('kind = "kafka"', 'kind = "rabbit"', "sqlite, kafka"),
        ("bootstrap =", "boots =", "bootstrap is missing"),
        ("chain_id = 31337", "chain_id = 0", "chain_id"),
        ('vault = "0x11', 'vault = "0x', "20 bytes"),
        ("confirmations = 12", "", "confirmations or tag"),
        ("confirmations = 12", 'confirmations = 12\ntag = "safe"', "not both"),
        ('market = "keys/market.pem"', 'markt = "x"', "is market meant"),
        ('market = "keys/market.pem"', 'clock = ["a", "b"]', "clock is .* must be a text"),
        ('"keys/market.pem"', '["a", 1]', "a list of at most 8"),
        ('"keys/market.pem"', str([str(n) for n in range(9)]), "a list of at most 8"),
        ("[keys]", "[keys", "no TOML"),
    ],
)
def test_a_mistake_is_named_with_its_field(tmp_path: Path, old: str, new: str, says: str) -> None:
    """File, field, what is there and what should be."""
    path = tmp_path / settings.FILE_NAME
    path.write_text(WHOLE.replace(old, new, 1))
    with pytest.raises(SettingsInvalid, match=says) as wrong:
        settings.load(path)
    assert str(path) in str(wrong.value)


def test_what_is_written_reads_back(tmp_path: Path) -> None:
    """Quotes and backslashes in a path survive."""
    path = tmp_path / settings.FILE_NAME
    odd = 'odd "name" \\ ü.db'
    settings.write(
        path,
        {"": {"format": 1, "shards": 2}, "log": {"kind": LogKind.SQLITE, "file": odd}},
        "two\nlines",
    )
    found = settings.load(path)
    assert found.log.file == tmp_path / odd


def test_a_role_without_settings_is_told_how_to_make_them(tmp_path: Path) -> None:
    """Exit 2 and the command that helps."""
    said = synor("work", "market", "--network", tmp_path)
    assert said.code == 2
    assert "synor network new" in said.err


def test_the_fast_genesis_is_within_its_bounds() -> None:
    """Its numbers fit together."""
    fast = cli_genesis.wanted(None, fast=True, name="x", shards=4)
    assert broken_bounds(fast.parameters) == ()
    assert fast.parameters != Parameters()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[parameters]\nrond = '2s'", "is not a parameter"),
        ("[parameters]\nround = 2", "duration"),
        ("[parameters]\nround = '2 weeks'", "not a duration"),
        ("[parameters]\nstake_hours = '4'", "whole number"),
        ("[parameters]\nclosing = '1s'", "do not fit together"),
        ("shards = 0", "not possible"),
        ("network = 5", "must be a text"),
        ("colour = 'red'", "not known here"),
        ("= 1", "no TOML"),
    ],
)
def test_a_mistake_in_a_genesis_file_is_named(tmp_path: Path, text: str, says: str) -> None:
    """A network is for life, so nothing in its file is guessed."""
    path = tmp_path / "genesis.toml"
    path.write_text(text)
    with pytest.raises(Asked, match=says):
        cli_genesis.wanted(path, fast=False, name="x", shards=4)


@pytest.mark.parametrize(("text", "shards"), [("0", (0,)), ("0,2", (0, 2)), ("0-3", (0, 1, 2, 3))])
def test_shards_are_chosen_singly_or_in_ranges(text: str, shards: tuple[int, ...]) -> None:
    """As an operator spreads them over machines."""
    assert shards_of(text, 4) == shards


@pytest.mark.parametrize("text", ["4", "0,0", "", "a", "0-9", "3-1", "-1"])
def test_shards_that_are_not_there_are_refused(text: str) -> None:
    """Nothing is run twice by one process."""
    with pytest.raises(Asked):
        shards_of(text, 4)
