"""``synor telemetry delete``: what is committed and old goes, and nothing that anybody needs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from kafka import TopicPartition
from kafka.admin import KafkaAdminClient

from adapters.bootstrap import audit
from adapters.kafka_broker import CHECKOUT
from adapters.kafka_log import KafkaLog
from adapters.kafka_topics import KafkaTopics
from adapters.local_topics import LocalTopics
from adapters.sqlite_log import SqliteLog
from domain.commit import COMMANDS_TOPIC, EVENTS_TOPIC, LEDGER_TOPICS, TELEMETRY_TOPIC, Ledger
from domain.ports import Log, LogError, SettingsRefused, TopicAdmin
from tests.audit.forge import flipped
from tests.cli.commands import Said, synor
from tests.support.fault_matrix import FaultMatrix, Seen
from tests.support.kafka_broker import started_broker
from tests.system.described import described
from tests.system.reading import records
from tests.system.reference import check_same
from tests.system.small import STEPS, SmallSystem, network

LONG = os.environ.get("SYNOR_LONG") == "1"
TEST = "tests/recovery/test_delete_telemetry.py"
SHARDS = (0, 1)
#: Told before the deletion; the rest of the story is told after it.
TOLD = 14

pytestmark = pytest.mark.timeout(300)


@dataclass
class Town:
    """The small system as a deployment whose log is on a disk or on brokers."""

    folder: Path
    log: Log
    topics: TopicAdmin
    system: SmallSystem
    steps: int = 0

    def live(self, until: int) -> None:
        """Live through the script up to a step."""
        self.system.live(range(self.steps, until))
        self.steps = until

    def ask(self, *arguments: str, yes: bool = True) -> Said:
        """Run the command."""
        confirmed = ("--yes",) if yes else ()
        return synor(
            "telemetry", "delete", "--network", self.folder, "--json", *arguments, *confirmed
        )

    def delete(self, older_than: str, *, yes: bool = True) -> list[dict[str, Any]]:
        """What it says of each shard."""
        said = self.ask("--older-than", older_than, yes=yes)
        assert said.code == 0, said.err
        assert said.json["deleted"] is yes
        found: list[dict[str, Any]] = said.json["shards"]
        return found

    def starts(self) -> list[int]:
        """Where each partition of telemetry begins now."""
        return [self.log.start(TELEMETRY_TOPIC, shard) for shard in SHARDS]

    def told_to_its_end(self) -> None:
        """Workers start anew with nothing but the log; the story ends as it does undisturbed."""
        self.system.close()
        self.live(STEPS)
        self.system.script.look()
        check_same(self.system)


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    """Some of the story, on a SQLite file."""
    described(tmp_path, 'kind = "sqlite"\nfile = "ledger.db"')
    log = SqliteLog(tmp_path / "ledger.db", clock_us=lambda: 0, durable=False)
    topics = LocalTopics(log)
    made = Town(tmp_path, log, topics, SmallSystem(log, topics))
    made.live(TOLD)
    yield made
    made.system.close()
    log.close()


def test_only_what_is_committed_and_old_goes_and_the_rest_of_the_story_is_the_same(
    town: Town, fault_matrix: FaultMatrix
) -> None:
    """A dry run first; then by age; then all that is committed, while a shard has some unread."""
    assert town.starts() == [0, 0]
    planned = town.delete("3h", yes=False)
    assert town.starts() == [0, 0], "nothing goes without --yes"
    assert town.delete("3h") == planned
    first = town.starts()
    assert first == [each["before"] for each in planned]
    assert all(0 < each["before"] < each["committed"] for each in planned)
    # Six steps of 30 minutes are younger than three hours.
    assert min(e["committed"] - e["before"] for e in planned) >= 6
    for _ in range(5):
        town.log.append(TELEMETRY_TOPIC, 1, b"not read by anybody yet")
    done = town.delete("0s")
    assert done[1]["committed"] == done[1]["end"] - 5
    assert town.starts() == [done[0]["end"] - 1, done[1]["committed"]]
    assert [each["old"] for each in town.delete("0s")] == [0, 0], "a second run finds nothing"
    unread = [record.value for record in records(town.log, TELEMETRY_TOPIC, 1)]
    assert unread == [b"not read by anybody yet"] * 5
    town.told_to_its_end()
    assert synor("topics", "check", "--network", town.folder).code == 0
    fault_matrix.record(
        Seen(fault="old telemetry is deleted", where="sqlite system", runs=3, test=TEST)
    )


DELETER = """
import os, signal, sys
from adapters import sqlite_log
from adapters.cli import main
left = int(sys.argv.pop(1))
sqlite_log._DELETE_RECORDS = 3
connect = sqlite_log.sqlite3.connect
def counted(*given, **named):
    db = connect(*given, **named)
    def told(statement):
        global left
        left -= "DELETE" in statement or "COMMIT" in statement
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
    db.set_trace_callback(told)
    return db
sqlite_log.sqlite3.connect = counted
main()
"""


def test_a_deletion_killed_at_any_statement_has_deleted_less(
    town: Town, fault_matrix: FaultMatrix
) -> None:
    """SIGKILL before a delete and before a commit; the next run ends it, and all is well.

    Each run goes on where the one before was killed, so a long one ends when nothing is left.
    """
    lives = range(20) if LONG else (1, 6)
    kills, partly = 0, False
    planned = town.delete("0s", yes=False)
    starts = town.starts()
    for left in lives:
        command = ("telemetry", "delete", "--network", str(town.folder), "--older-than", "0s")
        killed = subprocess.run(
            [sys.executable, "-c", DELETER, str(left), *command, "--yes"],
            cwd=CHECKOUT,
            capture_output=True,
            timeout=60,
            check=False,
        )
        if kills > 2 and killed.returncode == 0:
            break
        assert killed.returncode == -9, killed.stderr
        kills += 1
        now = town.starts()
        assert all(s <= n <= e["before"] for s, n, e in zip(starts, now, planned, strict=True))
        partly = partly or 0 < now[0] < planned[0]["before"]
        starts = now
    assert partly
    town.delete("0s")
    assert town.starts() == [each["before"] for each in planned]
    town.told_to_its_end()
    fault_matrix.record(
        Seen(
            fault="SIGKILL while telemetry is deleted",
            where="sqlite system",
            runs=kills,
            test=TEST,
        )
    )


def test_nothing_is_deleted_where_a_ledger_is_not_sound(town: Town) -> None:
    """A byte of a market commit is another: exit 12, and telemetry stays, committed or not."""
    log = town.log
    assert isinstance(log, SqliteLog)
    topic, offset = LEDGER_TOPICS[Ledger.MARKET], 3
    (value,) = (r.value for r in records(log, topic, 0) if r.offset == offset)
    log._db.execute(
        "UPDATE record SET value = ? WHERE value = ?", (flipped(value, len(value) - 1), value)
    )
    said = town.ask("--older-than", "0s")
    assert said.code == 12
    assert f"{topic}[0] height {offset} offset {offset}" in said.json["error"]
    assert town.starts() == [0, 0]


def test_commands_and_ledgers_are_never_shortened(town: Town) -> None:
    """The port itself refuses what is kept for ever; a wrong age is asked wrongly."""
    for topic in (COMMANDS_TOPIC, *LEDGER_TOPICS.values()):
        with pytest.raises(SettingsRefused, match="kept for ever"):
            town.topics.delete_before(topic, 0, 1)
        assert town.log.start(topic, 0) == 0
    assert town.ask("--older-than", "soon").code == 2


def test_a_shard_whose_unread_telemetry_is_gone_does_not_go_on_without_it(town: Town) -> None:
    """Whoever deleted it did not ask: the worker fails with the offsets, the check names it."""
    committed = town.delete("0s", yes=False)[0]["committed"]
    for _ in range(4):
        town.log.append(TELEMETRY_TOPIC, 0, b"unread")
    log = town.log
    assert isinstance(log, SqliteLog)
    log.delete_before(TELEMETRY_TOPIC, 0, committed + 2)
    town.system.close()
    worker = town.system.worker(Ledger.METERING, 0)
    with pytest.raises(LogError, match=f"starts at {committed + 2}, after the asked offset"):
        worker.turn()
    worker.close()
    said = synor("topics", "check", "--network", town.folder, "--json")
    assert said.code == 26
    (fault,) = (each["fault"] for each in said.json["ledgers"] if each["fault"] is not None)
    assert fault["name"] == "inputs_deleted"
    assert f"consumed it up to {committed}: the rest is nowhere" in fault["why"]


@pytest.mark.service
@pytest.mark.slow
def test_on_brokers_the_same_command_deletes_the_same_and_never_what_is_unread(
    tmp_path: Path, fault_matrix: FaultMatrix
) -> None:
    """Kafka's own deletion of records; retention that went too far is named by the check."""
    broker = started_broker(tmp_path / "kafka")
    described(tmp_path / "network", f'kind = "kafka"\nbootstrap = "{broker.bootstrap}"')
    topics = KafkaTopics(broker.bootstrap, client_id="delete-admin")
    topics.create(EVENTS_TOPIC, 2, keep_forever=False)
    with closing(KafkaLog(broker.bootstrap, client_id="delete", sole_writer=True)) as log:
        town = Town(tmp_path / "network", log, topics, SmallSystem(log, topics))
        town.live(5)
        for _ in range(5):
            log.append(TELEMETRY_TOPIC, 1, b"not read by anybody yet")
        planned = town.delete("0s", yes=False)
        assert town.starts() == [0, 0]
        assert town.delete("0s") == planned
        assert town.starts() == [planned[0]["end"] - 1, planned[1]["end"] - 5]
        town.system.close()
        town.live(7)
        assert synor("topics", "check", "--network", town.folder).code == 0
        assert sum(report.kept_runs for report in audit(network(), log).reports) > 0
        committed = town.delete("0s")[0]["committed"]
        for _ in range(3):
            log.append(TELEMETRY_TOPIC, 0, b"unread")
        admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap)
        admin.delete_records({TopicPartition(TELEMETRY_TOPIC, 0): committed + 2})
        admin.close()
        said = synor("topics", "check", "--network", town.folder, "--json")
        assert said.code == 26
        assert "the rest is nowhere" in said.json["error"]
        town.system.close()
    topics.close()
    broker.stop()
    fault_matrix.record(
        Seen(fault="old telemetry is deleted", where="kafka system", runs=1, test=TEST)
    )
