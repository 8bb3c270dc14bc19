"""What the texts tell a person to type exists: every command of them, with every option."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer

from adapters.cli import COMMANDS, program
from adapters.kafka_broker import CHECKOUT

TEXTS = sorted(
    path
    for path in (CHECKOUT / "README.md", *(CHECKOUT / "docs").rglob("*.md"))
    if "synor " in path.read_text()
)
#: Beside fenced blocks, what stands in backticks; a line that goes on ends with a backslash.
FENCED = re.compile(r"^```(?:sh)?\n(.*?)^```", re.MULTILINE | re.DOTALL)
QUOTED = re.compile(r"`(synor [^`]+)`")
#: Not arguments: ellipses of a sentence, and what a shell does with an output.
PLACEHOLDERS = ("…", "|", "&", ">")


def commands_in(text: str) -> list[list[str]]:
    """The arguments of every `synor …` in a text, comments cut off."""
    lines = [
        line for block in FENCED.findall(text) for line in block.replace("\\\n", " ").splitlines()
    ]
    starts = [line.strip().removeprefix("$ ") for line in lines]
    typed = [line for line in starts if line.startswith("synor ")]
    inner = [found for line in starts for found in re.findall(r"\$\((synor [^|)]*)", line)]
    return [shlex.split(line, comments=True)[1:] for line in typed + inner + QUOTED.findall(text)]


def test_the_texts_have_commands() -> None:
    """Else this module would check nothing."""
    assert len(TEXTS) > 5
    assert sum(len(commands_in(path.read_text())) for path in TEXTS) > 60


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_every_command_of_a_text_exists_with_its_options(path: Path) -> None:
    """A renamed command or option takes its texts along."""
    for arguments in commands_in(path.read_text()):
        _check(arguments, path)


def _check(arguments: list[str], path: Path) -> None:
    if arguments[0].startswith("-"):
        return
    assert arguments[0] in COMMANDS, (path, arguments)
    command: Any = typer.main.get_command(program(arguments))
    for each in arguments:
        if hasattr(command, "commands") and not each.startswith("-"):
            if each in PLACEHOLDERS or each.endswith(","):
                return
            assert each in command.commands, (path, arguments)
            command = command.commands[each]
        elif each.startswith("--"):
            known = {option for parameter in command.params for option in parameter.opts}
            known |= {option for parameter in command.params for option in parameter.secondary_opts}
            assert each.partition("=")[0] in {*known, "--help"}, (path, arguments)


def test_a_checkout_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    """All that is installed goes into it; a file in a folder's place stands for read-only."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(CHECKOUT / "scripts" / "setup", tmp_path / "scripts" / "setup")
    (tmp_path / ".cache").touch()
    done = subprocess.run(
        [tmp_path / "scripts" / "setup", "python"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "cannot be written" in done.stderr
