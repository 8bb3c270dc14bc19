"""A server that a test or the demo started never stays behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from adapters.kafka_broker import CHECKOUT, OwnedProcess

PARENT = """
import sys, time
from pathlib import Path
from adapters.kafka_broker import OwnedProcess
folder = Path(sys.argv[1])
print(OwnedProcess(["sleep", "60"], output=folder / "log", cwd=folder).pid, flush=True)
time.sleep(60)
"""


def _ended(pid: int) -> bool:
    """Whether a process that is no child of ours is gone, within five seconds."""
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        stat = Path(f"/proc/{pid}/stat")
        # Where nobody reaps orphans, a process that ended stays as a zombie.
        if stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False


def test_a_server_ends_with_the_process_that_started_it_even_if_that_is_killed(
    tmp_path: Path,
) -> None:
    """A test run that is killed leaves no broker behind."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, tmp_path], stdout=subprocess.PIPE, cwd=CHECKOUT, text=True
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    assert _ended(child)


def test_a_frozen_server_can_be_stopped(tmp_path: Path) -> None:
    """Stopping wakes a process that a test had frozen, so that it can end in order."""
    process = OwnedProcess(["sleep", "60"], output=tmp_path / "log", cwd=tmp_path)
    process.send(signal.SIGSTOP)
    process.stop()
    assert not process.running
