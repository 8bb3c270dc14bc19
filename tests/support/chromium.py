"""Headless Chromium, for pictures of pages and for their text after scripts have run."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

PAGE_SECONDS = 60.0
NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    # Its sandbox does not start as root; it opens only pages of our own.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    # Nothing but the page: else it looks for its maker's hosts at every start.
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def find_chromium() -> str:
    """The browser's path; without one the test is skipped, but fails where CI says it runs all."""
    for name in NAMES:
        path = shutil.which(name)
        if path is not None:
            return path
    reason = "no Chromium on the PATH: run scripts/setup browser (as root, on Debian)"
    if os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def screenshot(url: str, picture: Path, *, width: int = 1280, height: int = 900) -> None:
    """Write a PNG of the page as a person would see it."""
    _run(url, [f"--screenshot={picture}", f"--window-size={width},{height}"])


def page_source(url: str) -> str:
    """The page's HTML after its scripts have run."""
    return _run(url, ["--dump-dom"])


def _run(url: str, options: Sequence[str]) -> str:
    with tempfile.TemporaryDirectory(prefix="synor-chromium-") as profile:
        answer = subprocess.run(
            [find_chromium(), *FLAGS, f"--user-data-dir={profile}", *options, url],
            capture_output=True,
            text=True,
            timeout=PAGE_SECONDS,
            check=False,
        )
    if answer.returncode != 0:
        raise RuntimeError(f"Chromium failed on {url}:\n{answer.stderr}")
    return answer.stdout
