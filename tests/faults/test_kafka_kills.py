"""The whole system killed at every step, on a real broker and a real L1: nothing shows afterwards.

Consume, decide, append, acknowledge, project, anchor: one run of the small system in which the
process is killed with SIGKILL at each, in an order and at moments that come from a seed, and is
started again by nothing but its files and the log.
"""

from __future__ import annotations

import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from kafka import KafkaAdminClient

from adapters.bootstrap import Network, audit, create_topics
from adapters.evm_chain import EvmChain
from adapters.evm_deploy import Roles, deploy
from adapters.evm_keys import dev_key
from adapters.evm_rpc import Rpc, hexed, http_provider
from adapters.evm_wallet import Wallet
from adapters.kafka_broker import CHECKOUT, Guard, KafkaBroker
from adapters.kafka_log import KafkaLog
from adapters.kafka_topics import KafkaTopics
from adapters.local_topics import LocalTopics
from adapters.read_model import ReadModel
from domain.checkpoint import CheckpointMade
from domain.codec import CodecError
from domain.commit import Ledger
from domain.epoch import ObserveCheckpoint
from domain.l1 import Depth as Confirmations
from domain.l1 import L1Config, TxHash
from domain.ports import Log
from domain.signed import Signed
from tests.faults.scene import LONG
from tests.l1.scene import SYNOR, account, proposals
from tests.projections.plain import assert_equal
from tests.support.anvil import running_anvil
from tests.support.fault_matrix import FaultMatrix, Seen
from tests.support.kafka_broker import started_broker
from tests.support.killed_system import ANCHOR, PROPOSER, STEPS, Observed, Place, Plan
from tests.system.reading import events, story_of
from tests.system.reference import reference, reference_hash, reference_story
from tests.system.small import SEED, Sent, SmallSystem, memory_log, network

SEEDS = 20 if LONG else 2
CREATOR = dev_key(SEED, "faucet")
ENDS_WITHIN_S = 240.0

pytestmark = [pytest.mark.service, pytest.mark.slow, pytest.mark.timeout(600)]


class _Recorded(Sent):
    """Keeps what goes out together."""

    def __init__(self, log: Log) -> None:
        super().__init__(log)
        self.instants: list[dict[Place, list[bytes | Observed]]] = []

    def flush(self) -> None:
        if self._waiting:
            self.instants.append(
                {place: [*map(_to_be_made, values)] for place, values in self._waiting.items()}
            )
        super().flush()


def _to_be_made(value: bytes) -> bytes | Observed:
    """Inputs are as they were, but for those that name a commit of the reference's own log."""
    codec = network().codec
    try:
        signed = codec.decode(Signed, value)
    except CodecError:
        return value
    if not signed.kind.endswith(f".{ObserveCheckpoint.__name__}"):
        return value
    return Observed(
        observation=codec.decode(ObserveCheckpoint, signed.payload),
        session_us=signed.session,
        number=signed.number,
    )


@cache
def instants() -> list[dict[Place, list[bytes | Observed]]]:
    """The inputs of the reference run, by the instant at which they came."""
    log = memory_log()
    system = SmallSystem(log, LocalTopics(log), make_inputs=_Recorded)
    system.run()
    system.close()
    assert isinstance(system.inputs, _Recorded)
    return system.inputs.instants


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """A broker whose topics have the names of production."""
    made = started_broker(tmp_path_factory.mktemp("kafka"))
    yield made
    made.stop()


def vault(url: str) -> L1Config:
    """A vault on a fresh chain, with money in it; a block is final at once."""
    rpc = Rpc(http_provider(url))
    for signer in (CREATOR, PROPOSER):
        rpc.ask("anvil_setBalance", hexed(signer.address), hex(10**24))
    roles = Roles(admin=CREATOR.address, proposer=PROPOSER.address, guardian=CREATOR.address)

    def included(transaction: TxHash) -> None:
        give_up = time.monotonic() + 10
        while rpc.receipt(transaction) is None and time.monotonic() < give_up:
            time.sleep(0.01)

    config = deploy(rpc, CREATOR, roles, 10**9 * SYNOR, Confirmations(confirmations=0), included)
    Wallet(rpc=rpc, config=config, signer=CREATOR).deposit(account(1), 10**6 * SYNOR)
    return config


def fresh_topics(bootstrap: str, topics: KafkaTopics) -> None:
    """The topics of production, with nothing on them."""
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    there = set(admin.list_topics())
    gone = [topic for topic in network().topics() if topic in there]
    if gone:
        admin.delete_topics(gone)
    admin.close()
    create_topics(network(), topics)


class Killed:
    """`tests.support.killed_system`, and what it says."""

    def __init__(self, plan: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.killed_system", str(plan)],
            cwd=CHECKOUT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._guard = Guard(-self._process.pid)

    def said(self) -> str:
        """Its next line."""
        assert self._process.stdout is not None
        late = threading.Timer(ENDS_WITHIN_S, self._process.kill)
        late.start()
        line = self._process.stdout.readline()
        late.cancel()
        return line.strip()

    def run(self, *order: object) -> str:
        """Start the system; how it ended."""
        assert self._process.stdin is not None
        self._process.stdin.write(" ".join(map(str, order)) + "\n")
        self._process.stdin.flush()
        return self.said()

    def end(self) -> None:
        """Let it go."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(30)
        self._guard.dismiss()


@contextmanager
def killed(plan: Path) -> Iterator[Killed]:
    """A system to be killed; nothing of it is left at the end."""
    made = Killed(plan)
    try:
        assert made.said() == "ready"
        yield made
    finally:
        made.end()


@dataclass(frozen=True)
class _System:
    network: Network
    log: Log

    @property
    def shards(self) -> int:
        return self.network.shards

    def open_log(self) -> Log:
        return self.log


@pytest.mark.parametrize("seed", range(SEEDS))
def test_killed_at_every_step_the_system_ends_as_if_it_had_not_been(
    seed: int, broker: KafkaBroker, tmp_path: Path, fault_matrix: FaultMatrix
) -> None:
    """Ledgers, rows, balances and the vault are those of the undisturbed run."""
    chance = random.Random(seed)
    deaths = list(STEPS)
    chance.shuffle(deaths)
    with (
        running_anvil(tmp_path) as url,
        closing(KafkaTopics(broker.bootstrap, client_id="kills-admin")) as topics,
        closing(KafkaLog(broker.bootstrap, client_id="kills")) as log,
    ):
        fresh_topics(broker.bootstrap, topics)
        config = vault(url)
        plan = Plan(
            bootstrap=broker.bootstrap,
            folder=tmp_path,
            seed=seed,
            instants=instants(),
            url=url,
            config=config,
        )
        (tmp_path / "plan").write_bytes(pickle.dumps(plan))
        with killed(tmp_path / "plan") as system:
            for step in deaths:
                nth = 1 if step == ANCHOR else chance.randint(1, 15)
                assert system.run(step, nth) == "killed", f"at {step} number {nth}, seed {seed}"
            assert system.run() == "ended"

        story = story_of(network(), log)
        missing = sum(
            len([e for e in said if e not in set(story[seat])])
            for seat, said in reference_story().items()
        )
        surplus = sum(len(said) for said in story.values()) - sum(
            len(said) for said in reference_story().values()
        )
        verdict = audit(network(), log)
        for step in STEPS:
            fault_matrix.record(
                Seen(
                    fault=f"SIGKILL at {step}",
                    where="kafka system",
                    runs=1,
                    lost=missing,
                    doubled=max(surplus, 0),
                    test="tests/faults/test_kafka_kills.py",
                )
            )
        assert story == reference_story()
        assert verdict.state_hash == reference_hash()
        undisturbed = audit(reference().network, reference().log)
        assert dict(verdict.market.folds.balances.all()) == dict(
            undisturbed.market.folds.balances.all()
        )
        with (
            closing(ReadModel(f"sqlite:///{tmp_path / 'rows.db'}")) as rows,
            rows.reading() as connection,
        ):
            assert_equal(_System(network(), log), connection)
        rpc = Rpc(http_provider(url))
        made = [e for e in events(network(), log, Ledger.SETTLEMENT) if type(e) is CheckpointMade]
        assert proposals(EvmChain(rpc, config)) == [(e.epoch, e.checkpoint) for e in made]
        assert rpc.nonce(PROPOSER.address) == len(made) == 3
