"""What a reader of the repository may rely on: nothing unfinished, nothing of one machine."""

import os
import re
import subprocess

from adapters.kafka_broker import CHECKOUT
from tests.architecture.sources import project_files, python_files, text_of

MOST_LINES = 600
# Written apart so that this file does not hold them.
UNFINISHED = re.compile(r"\b(" + "|".join(("FIX" + "ME", "TO" + "DO", "XX" + "X")) + r")\b")
MACHINE_PATH = re.compile(r"(?<![\w.}-])/(work|farm|root|home)/\w")
ARTEFACT_FOLDERS = ("contracts/artefacts/",)


def _lines_with(pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{path}:{number}: {line.strip()[:100]}"
        for path in project_files()
        if not str(path).startswith(ARTEFACT_FOLDERS)
        for number, line in enumerate((text_of(path) or "").splitlines(), 1)
        if pattern.search(line)
    ]


def test_nothing_is_promised_for_later_in_the_files() -> None:
    """What is not done yet stands in an issue, not in the code."""
    assert _lines_with(UNFINISHED) == []


def test_no_file_names_a_path_of_the_machine_it_was_written_on() -> None:
    """A clone works wherever it lies."""
    assert _lines_with(MACHINE_PATH) == []


def test_no_module_is_longer_than_a_reader_can_hold() -> None:
    """A module does one thing; one that grows past the bound does several."""
    sizes = {str(path): len((text_of(path) or "").splitlines()) for path in python_files()}
    assert {path: size for path, size in sizes.items() if size > MOST_LINES} == {}


def test_every_module_says_why_it_exists() -> None:
    """A module starts with its docstring."""
    without = [
        str(path) for path in python_files() if not re.match(r'(#!.*\n)?r?"""', text_of(path) or "")
    ]
    assert without == []


def test_every_decision_record_is_indexed() -> None:
    """Each file in docs/adr is linked from its README, and each link has its file."""
    records = {
        path.name
        for path in project_files()
        if path.parts[:2] == ("docs", "adr") and path.suffix == ".md" and path.name != "README.md"
    }
    index = CHECKOUT / "docs" / "adr" / "README.md"
    linked = re.findall(r"\]\(([\w.-]+\.md)\)", index.read_text()) if index.exists() else []
    assert sorted(linked) == sorted(records)


def test_every_script_can_be_run_and_has_no_error_of_syntax() -> None:
    """The commands of the README work in a clone: run bit set, bash reads them."""
    scripts = [
        path
        for path in project_files()
        if (text_of(path) or "").startswith("#!") and path.parts[0] in ("scripts", ".ci")
    ]
    assert scripts
    assert [str(path) for path in scripts if not os.access(CHECKOUT / path, os.X_OK)] == []
    for path in scripts:
        if "bash" in (text_of(path) or "").splitlines()[0]:
            subprocess.run(["bash", "-n", CHECKOUT / path], check=True, timeout=10)
