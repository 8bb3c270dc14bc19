"""A ledger on a real broker that is damaged: noise is told apart from what stops every reader.

The readers are those of production, each resumed from where it stood before the damage: the
ledger's own worker and its index, a worker of another ledger, the projector, the audit, and what an
operator asks: `synor topics check`.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition

from adapters.actor import Actor
from adapters.audit import Diverged
from adapters.bootstrap import audit, create_topics
from adapters.cli_failures import REMEDIES
from adapters.ed25519 import Signer
from adapters.eventsourcing_index import Depth
from adapters.kafka_broker import KafkaBroker
from adapters.kafka_log import KafkaLog
from adapters.kafka_topics import KafkaTopics
from adapters.read_model import ReadModel
from adapters.roles_check import made_again
from adapters.roles_follow import projector_of
from adapters.worker import Worker
from domain.account import AccountOpened, OpenAccount
from domain.chain import LedgerStopped
from domain.commit import (
    COMMANDS_TOPIC,
    EVENTS_TOPIC,
    LEDGER_TOPICS,
    TELEMETRY_TOPIC,
    CommitBody,
    Ledger,
    body_of,
    bulk_of,
    parse,
    seal,
)
from domain.ids import Address, account_of
from domain.ledger import LogBound
from tests.audit.forge import flipped
from tests.cli.commands import Said, synor
from tests.faults.scene import LONG
from tests.support.damage import CORRUPT, corrupt
from tests.support.fault_matrix import FaultMatrix, Seen
from tests.support.kafka_broker import started_broker
from tests.system.described import described
from tests.system.reading import Seat, events, records
from tests.system.reference import check_same
from tests.system.small import (
    STEPS,
    SmallSystem,
    network,
    signer_of,
)

MARKET: Seat = (Ledger.MARKET, 0)
TOPIC = LEDGER_TOPICS[Ledger.MARKET]
TEST = "tests/faults/test_kafka_damage.py"
ENOUGH = 6
FOREIGN = 40 if LONG else 8

pytestmark = [pytest.mark.service, pytest.mark.slow, pytest.mark.timeout(600)]


@dataclass
class Town:
    """The small system on a broker, as a deployment: settings, indexes and read model in files."""

    broker: KafkaBroker
    folder: Path
    log: KafkaLog
    system: SmallSystem
    steps: int = 0

    def live(self, steps: int) -> None:
        """Live through more of the script."""
        self.system.live(range(self.steps, self.steps + steps))
        self.steps += steps

    def worker(self, ledger: Ledger, shard: int, index: Path) -> Worker:
        """A worker with its index in a file."""
        return self.system.worker(
            ledger, shard, log=self.log, index=str(index / f"{LEDGER_TOPICS[ledger]}.{shard}.db")
        )

    def keep(self) -> None:
        """Let every reader read what there is, and keep that it has."""
        for ledger, shard in network().ledgers():
            worker = self.system.seats[ledger, shard].worker
            worker.turn()
            worker.commit_now()
        self.project(self.folder / "network")

    def rest(self) -> Path:
        """Let every process end; a copy of what each of them has left."""
        self.system.close()
        copy = self.folder / f"copy-{uuid.uuid4().hex}"
        shutil.copytree(self.folder / "network", copy)
        return copy

    def project(self, folder: Path) -> int:
        """Follow into the read model of a folder; how many records it counts as noise."""
        with closing(ReadModel(f"sqlite:///{folder / 'read.db'}")) as rows:
            rows.prepare(network().hash)
            projector = projector_of(network(), self.log, rows)
            projector.catch_up()
            return sum(each.noise for each in projector.status())

    def check(self, folder: Path) -> Said:
        """What an operator is told."""
        return synor("topics", "check", "--network", folder, "--json")

    def append(self, value: bytes) -> int:
        """Anybody's record on the market ledger's partition."""
        return self.log.append(TOPIC, 0, value)

    def counting(self) -> list[bytes]:
        """The values of the market's commits."""
        at = network().partition(*MARKET, log=self.log, index=":memory:", depth=Depth.COMMITS)
        at.catch_up()
        return [counted.value for counted in at.commits(0)]


def forged(
    value: bytes,
    *,
    previous: bytes | None = None,
    height: int | None = None,
    time_us: int = 1,
    signed: bool = True,
) -> bytes:
    """A commit like one that counts, with another body, on another parent, signed by the writer."""
    envelope = parse(value)
    assert envelope is not None
    body = network().codec.decode(CommitBody, body_of(value, envelope))
    encoded = network().codec.encode(replace(body, time_us=body.time_us + time_us))
    signer = signer_of(envelope.ledger)
    unsigned = seal(
        genesis=envelope.genesis,
        ledger=envelope.ledger,
        shard=envelope.shard,
        height=envelope.height if height is None else height,
        previous=envelope.previous if previous is None else previous,
        writer=signer.public,
        body=encoded,
        bulk=(),
    ).unsigned()
    assert not bulk_of(value, envelope)
    signature = signer.sign(unsigned) if signed else bytes(64)
    return unsigned + signature + encoded


def hash_of(value: bytes) -> bytes:
    """The hash of a commit."""
    envelope = parse(value)
    assert envelope is not None
    return envelope.hash()


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """A broker whose topics have the names of production."""
    made = started_broker(tmp_path_factory.mktemp("kafka"))
    yield made
    made.stop()


@pytest.fixture
def town(broker: KafkaBroker, tmp_path: Path) -> Iterator[Town]:
    """The small system with fresh topics, at rest after some steps."""
    topics = KafkaTopics(broker.bootstrap, client_id="damage-admin")
    drop_topics(broker)
    create_topics(network(), topics)
    topics.create(EVENTS_TOPIC, 2, keep_forever=False)
    folder = tmp_path / "network"
    described(folder, f'kind = "kafka"\nbootstrap = "{broker.bootstrap}"')
    log = KafkaLog(broker.bootstrap, client_id="damage")
    made: list[Town] = []
    system = SmallSystem(
        log,
        topics,
        make_worker=lambda ledger, shard: made[0].worker(ledger, shard, folder / "index"),
    )
    made.append(Town(broker, tmp_path, log, system))
    made[0].live(ENOUGH)
    made[0].project(folder)
    yield made[0]
    system.close()
    log.close()
    topics.close()


def drop_topics(broker: KafkaBroker, *chosen: str) -> None:
    """Delete topics, as somebody with the rights and no idea would."""
    admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap)
    there = set(admin.list_topics())
    gone = [topic for topic in chosen or network().topics() if topic in there]
    if gone:
        admin.delete_topics(gone)
    admin.close()


def stops(town: Town, folder: Path) -> dict[str, str]:
    """By reader, resumed from what it had left: the name with which it stops."""

    def own() -> None:
        with closing(town.worker(*MARKET, folder / "index")) as worker:
            worker.turn()

    def other() -> None:
        with closing(town.worker(Ledger.SETTLEMENT, 0, folder / "index")) as worker:
            worker.turn()

    def shard() -> None:
        with closing(town.worker(Ledger.METERING, 0, folder / "index")) as worker:
            worker.turn()

    def index() -> None:
        path = folder / "index" / f"{TOPIC}.0.db"
        depth = Depth.PAYLOADS
        at = network().partition(*MARKET, log=town.log, index=path, depth=depth)
        try:
            at.catch_up()
        finally:
            at.index.close()

    readers: dict[str, Callable[[], Any]] = {
        "worker": own,
        "settlement": other,
        "metering": shard,
        "index": index,
        "projector": lambda: town.project(folder),
        "audit": lambda: audit(network(), town.log),
    }
    found, said = {}, []
    for name, read in readers.items():
        try:
            read()
        except (LedgerStopped, Diverged) as stopped:
            found[name] = stopped.name
            said.append(str(stopped))
        else:
            found[name] = ""
    place = re.compile(r"synor\.ledger\.[a-z]+\.v1\[\d\] height \d+ offset \d+")
    assert [each for each in said if not place.search(each)] == [], "each says where"
    return found


ALL = ("worker", "settlement", "metering", "index", "projector", "audit")


def test_noise_and_forgeries_are_ignored_counted_and_told(
    town: Town, fault_matrix: FaultMatrix
) -> None:
    """Garbage, copies, strangers, bad signatures and lost races: no reader stops for any."""
    values = town.counting()
    head = values[-1]
    wrong = {
        b"garbage": "not a commit",
        head: "height already decided",
        forged(head): "height already decided",
        forged(head, height=len(values), previous=hash_of(head), signed=False): "bad signature",
        flipped(forged(head, height=len(values), previous=hash_of(head)), 12): "of another ledger",
    }
    for value in wrong:
        town.append(value)
    rest = town.rest()
    assert stops(town, rest) == dict.fromkeys(ALL, "")
    town.live(2)
    assert town.project(rest) == len(wrong)
    said = town.check(rest)
    assert said.code == 0, said.err
    (market,) = (each for each in said.json["ledgers"] if each["topic"] == TOPIC)
    assert market["noise"] == dict(sorted(Counter(wrong.values()).items()))
    assert market["fault"] is None
    fault_matrix.record(
        Seen(fault="noise and forged records", where="kafka ledger", runs=len(wrong), test=TEST)
    )


def test_a_reader_restarted_between_a_losers_two_records_declares_no_fork(
    town: Town, fault_matrix: FaultMatrix
) -> None:
    """The second record stands on noise; whoever was restarted remembers that it is noise."""
    values = town.counting()
    lost = forged(values[-1])
    town.append(lost)
    # Every reader reads the first, keeps that it has, and ends.
    town.keep()
    rest = town.rest()
    town.append(forged(lost, height=len(values), previous=hash_of(lost)))
    assert stops(town, rest) == dict.fromkeys(ALL, "")
    town.live(2)
    assert town.check(rest).code == 0
    (market,) = (e for e in town.check(rest).json["ledgers"] if e["topic"] == TOPIC)
    assert market["noise"] == {"built on noise": 1, "height already decided": 1}
    fault_matrix.record(
        Seen(
            fault="readers restarted between a loser's two records",
            where="kafka ledger",
            runs=len(ALL),
            test=TEST,
        )
    )


def test_a_signed_foreign_branch_stops_every_reader_as_a_fork(
    town: Town, fault_matrix: FaultMatrix
) -> None:
    """The writer's own key on another parent: named alike by all, with what to do."""
    rest = town.rest()
    values = town.counting()
    offset = town.append(forged(values[-1], height=len(values), previous=bytes(32)))
    assert stops(town, rest) == dict.fromkeys(ALL, "fork")
    said = town.check(rest)
    assert said.code == 10
    (fault,) = (e["fault"] for e in said.json["ledgers"] if e["fault"] is not None)
    assert (fault["name"], fault["height"], fault["offset"]) == ("fork", len(values), offset)
    assert said.json["remedy"] == fault["remedy"] == REMEDIES["fork"]
    assert f"{TOPIC}[0] height {len(values)} offset {offset}" in said.json["error"]
    fault_matrix.record(
        Seen(fault="a signed foreign branch", where="kafka ledger", runs=len(ALL), test=TEST)
    )


def test_a_record_that_is_not_what_its_writer_signed_is_corrupt(
    town: Town, fault_matrix: FaultMatrix
) -> None:
    """A bulk, a body, a body that is none: named with their places by the check and the audit."""
    rest = town.rest()
    seats = ((Ledger.METERING, 0), MARKET, (Ledger.SETTLEMENT, 0))
    places = {}
    for seat, damage in zip(seats, CORRUPT, strict=True):
        at = network().partition(*seat, log=town.log, index=":memory:", depth=Depth.COMMITS)
        at.catch_up()
        values = [counted.value for counted in at.commits(0)]
        place = (LEDGER_TOPICS[seat[0]], seat[1])
        offset = town.log.append(*place, corrupt(values[-1], signer_of(seat[0]), damage))
        places[place] = (len(values), offset, damage.says)
    said = town.check(rest)
    assert said.code == 12
    found = {(e["topic"], e["partition"]): e["fault"] for e in said.json["ledgers"]}
    for place, (height, offset, says) in places.items():
        fault = found.pop(place)
        assert (fault["name"], fault["height"], fault["offset"]) == ("corrupt", height, offset)
        assert says in fault["why"]
    assert set(found.values()) == {None}
    assert stops(town, rest)["audit"] == "corrupt"
    fault_matrix.record(
        Seen(fault="a commit's body or bulk is another", where="kafka ledger", runs=3, test=TEST)
    )


def test_a_tail_that_is_lost_after_it_was_acknowledged_stops_every_reader_as_truncated(
    town: Town, fault_matrix: FaultMatrix
) -> None:
    """The broker comes back with an older data folder: acknowledged commits are gone."""
    town.system.close()
    data = town.broker.directory / "data"
    older = town.folder / "older"
    town.broker.stop()
    shutil.copytree(data, older)
    town.broker.start()
    height = len(town.counting())
    town.live(4)
    lost = len(town.counting()) - height
    assert lost > 2
    town.keep()
    rest = town.rest()
    town.broker.stop()
    shutil.rmtree(data)
    shutil.copytree(older, data)
    town.broker.start()
    found = stops(town, rest)
    # Who trusts nothing but the log sees a shorter history, and cannot know better by itself.
    assert found.pop("audit") == ""
    assert found == dict.fromkeys(found, "truncated")
    said = town.check(rest)
    assert said.code == 11
    fault = next(each["fault"] for each in said.json["ledgers"] if each["topic"] == TOPIC)
    assert fault["name"] == "truncated"
    assert fault["offset"] == height
    assert "has read up to offset" in fault["why"]
    assert said.json["remedy"] == REMEDIES["truncated"]
    fault_matrix.record(
        Seen(
            fault="an older data folder is restored",
            where="kafka ledger",
            runs=len(ALL),
            test=TEST,
        )
    )


def test_a_ledger_without_its_beginning_stops_every_reader_that_starts_there(
    town: Town, fault_matrix: FaultMatrix
) -> None:
    """Records deleted from the front, as retention would: nobody can begin there."""
    rest = town.rest()
    for path in (rest / "index").iterdir():
        path.unlink()
    (rest / "read.db").unlink()
    admin = KafkaAdminClient(bootstrap_servers=town.broker.bootstrap)
    admin.delete_records({TopicPartition(TOPIC, 0): 3})
    admin.close()
    found = stops(town, rest)
    assert {found[name] for name in ("worker", "index", "projector")} == {"truncated"}
    said = town.check(rest)
    assert said.code == 11
    assert "starts at offset 3" in said.json["error"]
    fault_matrix.record(
        Seen(fault="the first records are deleted", where="kafka ledger", runs=4, test=TEST)
    )


def test_topics_that_were_made_again_are_named_even_when_they_have_grown_again(
    town: Town, fault_matrix: FaultMatrix
) -> None:
    """Their offsets begin again: what comes now would be taken for what comes next."""
    rest = town.rest()
    values = [record.value for record in records(town.log, COMMANDS_TOPIC)]
    drop_topics(town.broker, COMMANDS_TOPIC)
    with closing(KafkaTopics(town.broker.bootstrap)) as topics:
        create_topics(network(), topics)
    with closing(KafkaLog(town.broker.bootstrap, client_id="again")) as log:
        log.append_many(COMMANDS_TOPIC, 0, values * 2)
        stopped = made_again(network(), log, *MARKET)
    assert stopped is not None
    assert stopped.name == "truncated"
    assert f"{COMMANDS_TOPIC} was deleted and made again" in str(stopped)
    said = town.check(rest)
    assert said.code == 11
    assert f"{COMMANDS_TOPIC} was deleted and made again" in said.json["error"]
    fault_matrix.record(
        Seen(fault="a topic is deleted and made again", where="kafka inputs", runs=2, test=TEST)
    )


def test_foreign_transactions_on_every_topic_do_no_harm(
    town: Town, fault_matrix: FaultMatrix
) -> None:
    """Aborted and committed records, markers and gaps among inputs and commits: the same story."""
    foreign = KafkaProducer(
        bootstrap_servers=town.broker.bootstrap, transactional_id=f"foreign-{uuid.uuid4().hex}"
    )
    foreign.init_transactions()
    places = [
        (topic, partition)
        for topic, partitions in network().topics().items()
        for partition in range(partitions)
    ]
    transactions = 0
    while town.steps < STEPS:
        if town.steps % 5 == 0 and transactions < FOREIGN:
            foreign.begin_transaction()
            for topic, partition in places:
                copied = town.system.inputs.last.get((topic, partition), b"theirs")
                for value in (b"aborted or not", copied):
                    foreign.send(topic, value, partition=partition).get(20)
            if transactions % 2:
                foreign.commit_transaction()
            else:
                foreign.abort_transaction()
            transactions += 1
        town.live(1)
    foreign.close(timeout=10)
    town.system.script.look()
    town.system.close()
    bound = events(network(), town.log, Ledger.MARKET)[0]
    assert isinstance(bound, LogBound)
    check_same(town.system)
    gaps = sum(
        town.log.end(topic, partition) - len(list(records(town.log, topic, partition)))
        for topic, partition in places
    )
    assert gaps == transactions * len(places), "a marker takes an offset in each partition"
    assert town.check(town.folder / "network").code == 0
    assert {TELEMETRY_TOPIC, COMMANDS_TOPIC} < {topic for topic, _ in places}
    fault_matrix.record(
        Seen(
            fault="foreign transactions, aborted and committed, on every topic",
            where="kafka system",
            runs=transactions,
            test=TEST,
        )
    )


def test_what_an_aborted_transaction_has_sent_counts_as_if_it_were_committed(town: Town) -> None:
    """Inputs are read as they stand: nobody takes back what is on the log, and all agree on it."""
    town.live(3)
    signer = Signer(hashlib.sha256(b"who aborts").digest())
    actor = Actor(
        log=town.log,
        codec=network().codec,
        genesis_hash=network().hash,
        signer=signer,
        session_us=network().genesis.start_us,
    )
    foreign = KafkaProducer(
        bootstrap_servers=town.broker.bootstrap, transactional_id=f"foreign-{uuid.uuid4().hex}"
    )
    with closing(foreign):
        foreign.init_transactions()
        foreign.begin_transaction()
        value = actor.sign(OpenAccount(payee=Address(bytes(19) + b"\x07")))
        foreign.send(COMMANDS_TOPIC, value, partition=0).get(20)
        foreign.abort_transaction()
    town.live(3)
    town.system.close()
    found = events(network(), town.log, Ledger.MARKET)
    opened = [each for each in found if isinstance(each, AccountOpened)]
    assert [each.account for each in opened].count(account_of(signer.public)) == 1
    audit(network(), town.log)
    assert town.check(town.folder / "network").code == 0
