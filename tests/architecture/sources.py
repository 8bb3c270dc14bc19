"""The files of the project, as git sees them."""

import subprocess
from functools import cache
from pathlib import Path

from adapters.kafka_broker import CHECKOUT


@cache
def project_files() -> tuple[Path, ...]:
    """Every file that is tracked or would be, relative to the checkout."""
    answer = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    names = {name for name in answer.stdout.split("\0") if name}
    return tuple(Path(name) for name in sorted(names) if (CHECKOUT / name).is_file())


def python_files(folder: str | None = None) -> list[Path]:
    """The Python modules, of one top-level folder or all."""
    return [
        path
        for path in project_files()
        if path.suffix == ".py" and (folder is None or path.parts[0] == folder)
    ]


def text_of(path: Path) -> str | None:
    """The text of a file, or nothing if it is no text."""
    try:
        return (CHECKOUT / path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None
