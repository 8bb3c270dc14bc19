"""The program itself: quick to start, every command listed, every mistake a sentence."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from adapters.cli import COMMANDS
from adapters.cli_failures import OPERATING_ERROR, WRONG_USAGE
from domain.rules import RULES
from tests.cli.commands import synor

HEAVY = ("web3", "eth", "fastapi", "kafka", "sqlalchemy", "eventsourcing", "numpy", "rich")
UNKNOWN = "ab" * 16


def test_help_loads_nothing_that_it_does_not_need() -> None:
    """What takes seconds to import is imported by the commands that use it."""
    code = (
        "import sys, json\n"
        "sys.argv = ['synor', '--help']\n"
        "from adapters.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit:\n"
        "    print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    loaded = json.loads(done.stdout.splitlines()[-1])
    assert [name for name in HEAVY if name in loaded] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_of_the_list_is_there_and_explains_itself(name: str) -> None:
    """The list and the modules agree."""
    said = synor(name, "--help")
    assert said.code == 0, said.err
    assert "Usage: synor" in said.out


def test_no_line_of_a_list_of_commands_is_cut_off() -> None:
    """What stands in the list is the whole first sentence, however narrow the terminal is."""
    said = synor("key", "--help")
    assert "Make an identity: a key that signs for the ledger, and one for" in said.out
    assert "..." not in said.out.partition("Commands:")[2]


def test_the_version_names_the_rules_that_it_has() -> None:
    """What an operator compares before `activate-rules`."""
    said = synor("--version")
    assert said.code == 0
    assert said.out.endswith(f"versions of the rules: {', '.join(map(str, RULES))}\n")


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An identity without a passphrase."""
    path = tmp_path_factory.mktemp("keys") / "me.pem"
    assert synor("key", "new", path, "--no-passphrase").code == 0
    return path


@pytest.fixture(scope="module")
def nobody() -> str:
    """A URL at which nothing answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


@pytest.mark.parametrize(
    "arguments",
    [
        ("frobnicate",),
        ("lease", "show"),
        ("lease", "show", "nonsense"),
        ("lease", "close", UNKNOWN[:-2], "--key", "KEY"),
        ("deposit", "12,5", "--key", "KEY"),
        ("deposit", "-1", "--key", "KEY"),
        ("withdraw", "0", "--key", "KEY"),
        ("withdraw", "0.0000000001", "--key", "KEY"),
        ("bid", "place", "--key", "KEY", "--resource", "gpu.h100", "--region", "eu"),
        (
            [
                "bid",
                "place",
                "--key",
                "KEY",
                "--resource",
                "gpu.h100",
                "--region",
                "eu",
                "--limit",
                "4",
                "--term",
                "soon",
            ]
        ),
        ("offer", "place", UNKNOWN, "--key", "KEY", "--resource", "gpu.h100", "--ask", "dear"),
        ("account", "show"),
        ("provider", "register", "--key", "KEY", "--uptime", "120"),
        ("node", "attest", UNKNOWN),
        ("epoch", "show", "last"),
        ("history", "--type", "LeaseOpend"),
        ("audit", "nowhere"),
        ("book", "gpu.h100", "eu", "--api", "example.org"),
        ("up", "--port", "99999"),
        ("up", "--genesis", "nowhere.toml", "--folder", "FOLDER"),
        ("faucet", "5"),
        ("faucet", "0", "--key", "KEY"),
        ("faucet", "5", "--address", "0x" + "00" * 20),
        ("account", "payee", "0x12", "--key", "KEY"),
        ("account", "payee", "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1Beaed", "--key", "KEY"),
        ("demo", "--port", "99999"),
        (
            [
                "bid",
                "place",
                "--key",
                "KEY",
                "--resource",
                "gpu.h100",
                "--region",
                "",
                "--limit",
                "4",
                "--term",
                "1h",
            ]
        ),
    ],
)
def test_what_is_asked_wrongly_is_told_in_words(
    arguments: tuple[str, ...], identity: Path, nobody: str, tmp_path: Path
) -> None:
    """Exit 2, no traceback, and nothing was sent."""
    given = [
        str(identity) if each == "KEY" else str(tmp_path / "x") if each == "FOLDER" else each
        for each in arguments
    ]
    env = {} if "--api" in given else {"SYNOR_API": nobody}
    said = synor(*given, env=env)
    assert said.code == WRONG_USAGE, (said.code, said.err)
    assert said.err
    assert "Traceback" not in said.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("account", "open", "--key", "KEY"),
        ("book", "gpu.h100", "eu"),
        ("lease", "ls"),
        ("lease", "show", UNKNOWN),
        ("deposit", "1", "--key", "KEY"),
        ("claim", "--key", "KEY"),
        ("faucet", "5", "--key", "KEY"),
        ("node", "run", "--key", "KEY"),
        ("account", "show", "--key", "no-such-file"),
        ("key", "show", "no-such-file"),
        ("node", "attest", UNKNOWN, "--folder", "no-such-folder"),
        ("network", "change", "ready_within", "15m", "--folder", "no-such-folder"),
        ("demo", "--folder", "/proc/no-such-folder"),
    ],
)
def test_a_server_or_a_file_that_is_not_there_is_one_sentence(
    arguments: tuple[str, ...], identity: Path, nobody: str
) -> None:
    """Exit 3 and what to do."""
    given = [str(identity) if each == "KEY" else each for each in arguments]
    said = synor(*given, env={"SYNOR_API": nobody})
    assert said.code == OPERATING_ERROR, (said.code, said.err)
    assert "Traceback" not in said.err
    assert "Errno" not in said.err
    if arguments[0] == "demo":
        return  # Its --json is of another kind: the last line of a story.
    told = synor(*given, "--json", env={"SYNOR_API": nobody})
    assert told.json["exit"] == OPERATING_ERROR
    assert told.json["error"]


def test_what_answers_but_is_no_ledger_is_told_apart(identity: Path) -> None:
    """Another server on the port is named as such."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        code = (
            "import http.server, socket, sys\n"
            "s = socket.socket(fileno=int(sys.argv[1]))\n"
            "c, _ = s.accept()\n"
            "c.recv(4096)\n"
            "c.sendall(b'HTTP/1.0 200 OK\\r\\n\\r\\nhello')\n"
            "c.close()\n"
        )
        other = subprocess.Popen(
            [sys.executable, "-c", code, str(server.fileno())], pass_fds=[server.fileno()]
        )
        try:
            said = synor("lease", "ls", env={"SYNOR_API": url})
        finally:
            other.kill()
            other.wait()
    assert said.code == OPERATING_ERROR
    assert "no ledger's API" in said.err
