"""``synor topics check`` on a file: a record that was changed is named with its place."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from adapters.cli_failures import REMEDIES
from adapters.local_topics import LocalTopics
from adapters.sqlite_log import SqliteLog
from domain.commit import COMMANDS_TOPIC, LEDGER_TOPICS, Ledger
from tests.audit.forge import flipped
from tests.cli.commands import synor
from tests.support.damage import CORRUPT, corrupt
from tests.support.fault_matrix import FaultMatrix, Seen
from tests.system.described import described
from tests.system.reading import records
from tests.system.small import SmallSystem, signer_of

TEST = "tests/cli/test_topics_check.py"
SEATS = ((Ledger.METERING, 0), (Ledger.MARKET, 0), (Ledger.SETTLEMENT, 0))


def test_a_record_that_is_not_what_its_writer_signed_is_corrupt(
    tmp_path: Path, fault_matrix: FaultMatrix
) -> None:
    """A bulk, a body, a body that is none: each on a ledger of its own, each with its place."""
    described(tmp_path, 'kind = "sqlite"\nfile = "ledger.db"')
    with closing(SqliteLog(tmp_path / "ledger.db", clock_us=lambda: 0, durable=False)) as log:
        SmallSystem(log, LocalTopics(log)).run(4).close()
        places = {}
        for (ledger, shard), damage in zip(SEATS, CORRUPT, strict=True):
            topic = LEDGER_TOPICS[ledger]
            head = [record.value for record in records(log, topic, shard)][-1]
            offset = log.append(topic, shard, corrupt(head, signer_of(ledger), damage))
            places[topic, shard] = (offset, damage.says)
    said = synor("topics", "check", "--network", tmp_path, "--json")
    assert said.code == 12
    found = {(e["topic"], e["partition"]): e["fault"] for e in said.json["ledgers"]}
    for place, (offset, says) in places.items():
        fault = found.pop(place)
        # One record a height: nothing raced here.
        assert (fault["name"], fault["offset"], fault["height"]) == ("corrupt", offset, offset)
        assert says in fault["why"]
        assert fault["remedy"] == REMEDIES["corrupt"]
    assert set(found.values()) == {None}
    shown = synor("topics", "check", "--network", tmp_path)
    assert shown.code == 12
    assert shown.out.count("corrupt") == len(CORRUPT)
    fault_matrix.record(
        Seen(fault="a commit's body or bulk is another", where="sqlite ledger", runs=3, test=TEST)
    )


def test_a_byte_changed_in_the_file_is_found_wherever_it_stands(tmp_path: Path) -> None:
    """Of an old commit: the rest of the ledger is no excuse. Then commands that are gone."""
    described(tmp_path, 'kind = "sqlite"\nfile = "ledger.db"')
    topic, offset = LEDGER_TOPICS[Ledger.MARKET], 2
    with closing(SqliteLog(tmp_path / "ledger.db", clock_us=lambda: 0, durable=False)) as log:
        SmallSystem(log, LocalTopics(log)).run(4).close()
        (value,) = (r.value for r in records(log, topic) if r.offset == offset)
        other = flipped(value, len(value) - 1)
        update = "UPDATE record SET value = ? WHERE value = ?"
        log._db.execute(update, (other, value))
        said = synor("topics", "check", "--network", tmp_path, "--json")
        assert said.code == 12
        assert f"{topic}[0] height {offset} offset {offset}" in said.json["error"]
        log._db.execute(update, (value, other))
        assert synor("topics", "check", "--network", tmp_path).code == 0
        log.delete_before(COMMANDS_TOPIC, 0, 3)
    said = synor("topics", "check", "--network", tmp_path, "--json")
    assert said.code == 26
    assert "starts at offset 3, and commands are kept for ever" in said.json["error"]
    assert said.json["remedy"] == REMEDIES["inputs_deleted"]
