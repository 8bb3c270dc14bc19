"""The roles of a network that runs as many processes: the same processors, watcher and sender.

Every role reads the same settings and holds only its own key. Each takes turns until it is told to
stop. An operating error (brokers, the L1, a disk) is tried again, ever more seldom, and given up
when nothing has worked for a while: whoever started the role starts it again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from adapters import key_files, roles_genesis
from adapters.actor import Actor
from adapters.avro_codec import AvroCodec
from adapters.bootstrap import Network, snapshots_by, worker
from adapters.ed25519 import Signer
from adapters.eventsourcing_index import Depth
from adapters.eventsourcing_threads import OwnThreadLog
from adapters.l1_position import WatchedTo
from adapters.l1_turns import SenderTurn, WatcherTurn
from adapters.roles_check import made_again
from adapters.roles_clock import TICK_US, Clock, now_us
from adapters.roles_memory import recovering
from adapters.settings import ChainKind, ChainSettings, LogKind, Settings, SettingsInvalid
from adapters.worker import Worker
from adapters.worker_reading import writer_of
from domain.commit import LEDGER_TOPICS, Ledger
from domain.genesis import Role
from domain.ids import Address, Hash32, PublicKey
from domain.l1 import (
    BlockHash,
    CheckpointProposed,
    Claimed,
    Deposited,
    FinalityPolicy,
    L1Config,
    L1Error,
    L1Event,
    L1Position,
    Tagged,
)
from domain.l1 import Depth as Confirmations
from domain.ports import Log, LogError, TopicAdmin

if TYPE_CHECKING:
    from adapters.metrics import Metrics
    from adapters.up_web import Server

Say = Callable[[str], None]
Turn = Callable[[], object]

#: A processor waits so long for its first input; its others are looked at as often.
_WAIT_S: Final = 0.1
_L1_EVERY_S: Final = 1.0
_BROKERS_WITHIN_S: Final = 10.0
_PAUSE_S: Final = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
_GIVE_UP_AFTER: Final = 20
#: What figures call the vault's events.
_KIND_OF_FACT: Final[Mapping[type[L1Event], str]] = {
    Deposited: "deposit",
    CheckpointProposed: "checkpoint",
    Claimed: "claim",
}

#: The brokers' own administrator, who alone creates topics, users and ACLs; no role of the table.
ADMIN: Final = "admin"
OPERATOR: Final = "operator"
#: Whom the threads of a role are on the brokers, where that is not the name before the dash.
_PRINCIPALS: Final = {"projector": "api"}


class Deployment:
    """A network as its settings describe it, with what a role opens of it."""

    def __init__(self, settings: Settings) -> None:
        """Read and check the genesis; nothing is connected yet."""
        self.settings = settings
        self.network: Network = roles_genesis.network_of(settings, AvroCodec())

    def log(self, stack: ExitStack, role: str) -> Log:
        """The log, for one thread; closed with ``stack``."""
        return stack.enter_context(closing(self.open_log(role)))

    def open_log(self, role: str) -> Log:
        """The log, for one thread, which closes it."""
        found = self.settings.log
        if found.kind is LogKind.SQLITE:
            from adapters.sqlite_log import SqliteLog

            assert found.file is not None
            return SqliteLog(found.file, clock_us=now_us)
        from adapters.kafka_log import KafkaLog

        return KafkaLog(
            found.bootstrap,
            client_id=f"synor-{role}",
            security=found.security.options(_principal(role)),
        )

    @contextmanager
    def topics(self, role: str) -> Iterator[TopicAdmin]:
        """What creates and checks the topics, as ``role``."""
        with ExitStack() as stack:
            found = self.settings.log
            if found.kind is LogKind.SQLITE:
                from adapters.local_topics import LocalTopics
                from adapters.sqlite_log import SqliteLog

                assert found.file is not None
                log = stack.enter_context(closing(SqliteLog(found.file, clock_us=now_us)))
                yield LocalTopics(log)
                return
            from adapters.kafka_topics import KafkaTopics

            admin = KafkaTopics(
                found.bootstrap,
                security=found.security.options(role),
                timeout_s=_BROKERS_WITHIN_S,
            )
            stack.callback(admin.close)
            yield admin

    def signer(self, role: str) -> Signer:
        """The key of a role. Raises ``SettingsInvalid`` or what reading the file raises."""
        return self.signers(role)[0]

    def signers(self, role: str) -> list[Signer]:
        """The keys of a role; of a ledger's writer also those that may follow it.

        Raises ``SettingsInvalid`` where one is another role's by the genesis.
        """
        return [self._signer(path, role) for path in self.settings.key_files(role)]

    def _signer(self, path: Path, role: str) -> Signer:
        signer = Signer(self.identity(path).ledger)
        genesis = self.network.genesis
        known: list[tuple[PublicKey, Role | Ledger]] = [(k.key, k.role) for k in genesis.keys]
        known += [(writer_of(genesis, ledger), ledger) for ledger in Ledger]
        acts = [each.name.lower() for key, each in known if key == signer.public]
        if acts and role not in acts:
            raise SettingsInvalid(
                f"{path} holds the key {signer.public.hex()}; the genesis lets it act as "
                f"{' and '.join(acts)}, not as {role}."
            )
        return signer

    def identity(self, path: Path) -> key_files.Identity:
        """The secrets of a key file, opened with the passphrase file of the settings."""
        source = self.settings.passphrase_file

        def passphrase() -> bytes | None:
            if source is None:
                return None
            return source.read_bytes().split(b"\n", 1)[0].rstrip(b"\r")

        found, _ = key_files.read(path, passphrase)
        return found

    def actor(self, log: Log, role: str) -> Actor:
        """A signer of commands or ticks on this log."""
        return Actor(
            log=log,
            codec=self.network.codec,
            genesis_hash=self.network.hash,
            signer=self.signer(role),
            session_us=now_us(),
        )

    def chain_config(self) -> L1Config:
        """What is pinned of the L1. Raises ``SettingsInvalid`` where there is none by RPC."""
        chain = self.settings.chain
        if chain.kind is not ChainKind.RPC:
            raise SettingsInvalid(f"{self.settings.path}: [l1] names no JSON-RPC endpoint.")
        return config_of(chain)


def _principal(role: str) -> str:
    name = role.partition("-")[0]
    return _PRINCIPALS.get(name, name)


def config_of(chain: ChainSettings) -> L1Config:
    """The pins of the settings as the adapters of the L1 take them."""
    finality: FinalityPolicy = (
        Tagged(tag=chain.tag)
        if chain.tag is not None
        else Confirmations(confirmations=chain.confirmations or 0)
    )
    return L1Config(
        chain_id=chain.chain_id,
        vault=Address(chain.vault),
        token=Address(chain.token),
        code_hash=Hash32(chain.code_hash),
        start=L1Position(number=chain.start_number, hash=BlockHash(chain.start_hash)),
        finality=finality,
    )


def take_turns(
    turn: Turn,
    stop: threading.Event,
    say: Say,
    metrics: Metrics | None = None,
    *,
    every_s: float = 0.0,
) -> None:
    """Take turns until ``stop`` is set; operating errors are retried with a bound."""
    failed = 0
    while not stop.is_set():
        try:
            turn()
            failed = 0
        except (LogError, L1Error) as error:
            failed += 1
            if metrics is not None:
                metrics.failed_turns.labels(type(error).__name__).inc()
            if failed >= _GIVE_UP_AFTER:
                raise
            pause = _PAUSE_S[min(failed, len(_PAUSE_S)) - 1]
            say(f"{type(error).__name__}: {error} Trying again in {pause:g} s.")
            stop.wait(pause)
        if every_s:
            stop.wait(every_s)


def together(
    runs: Sequence[tuple[str, Callable[[threading.Event], None]]], stop: threading.Event
) -> None:
    """Run each in a thread of its own; the first that ends stops all, its error is raised."""
    with ThreadPoolExecutor(len(runs)) as pool:
        futures = [pool.submit(run, stop) for _, run in runs]
        for future in futures:
            future.add_done_callback(lambda _: stop.set())
        stop.wait()
    for future in futures:
        future.result()


def recovered(worker: Worker) -> str:
    """How a worker came to stand where it stands, as the end of a sentence."""
    found = worker.recovery
    if found is None or found.snapshot_height + found.folded < 0:
        return ""
    base = "" if found.snapshot_height < 0 else f"the snapshot at {found.snapshot_height} and "
    return f", after {base}{found.folded} commits in {found.seconds:.1f} s"


# The roles


def work(
    deployment: Deployment,
    ledger: Ledger,
    shards: Sequence[int],
    stop: threading.Event,
    say: Say,
    metrics: Metrics | None = None,
) -> None:
    """Run the processors of one ledger, each shard in a thread with a connection of its own."""
    index = deployment.settings.index
    index.mkdir(parents=True, exist_ok=True)
    place = processor(deployment, ledger, say, metrics)
    together(
        [
            (f"{ledger.name}-{shard}", place(shard, index / f"{LEDGER_TOPICS[ledger]}.{shard}.db"))
            for shard in shards
        ],
        stop,
    )


def processor(
    deployment: Deployment, ledger: Ledger, say: Say, metrics: Metrics | None
) -> Callable[[int, str | Path], Callable[[threading.Event], None]]:
    """What runs a shard on an index until it is told to stop; for a thread of its own."""
    network = deployment.network
    signer, *successors = deployment.signers(ledger.name.lower())

    def place(shard: int, index: str | Path) -> Callable[[threading.Event], None]:
        def body(stop: threading.Event) -> None:
            with ExitStack() as stack:
                role = f"{ledger.name.lower()}-{shard}"
                log = deployment.log(stack, role)
                own_log = None
                if ledger is Ledger.METERING:
                    own_log = OwnThreadLog(partial(deployment.open_log, role))
                    stack.callback(own_log.close)
                made = worker(
                    network,
                    ledger,
                    shard,
                    log=log,
                    index=index,
                    signer=signer,
                    successors=successors,
                    topics=network.bound_topics(log),
                    clock_us=now_us,
                    figures=None if metrics is None else metrics.of(ledger, shard),
                    snapshots=snapshots_by(
                        deployment.settings.snapshots,
                        network,
                        ledger,
                        shard,
                        signer=signer,
                        successors=successors,
                        say=say,
                    ),
                    own_log=own_log,
                )
                stack.callback(made.close)
                with recovering():
                    made.recover()
                again = made_again(network, log, ledger, shard)
                if again is not None:
                    raise again
                say(f"{ledger.name.lower()} {shard} works{recovered(made)}.")
                take_turns(lambda: made.turn(wait_s=_WAIT_S), stop, say, metrics)
                made.rest()

        return body

    return place


def clock(
    deployment: Deployment, stop: threading.Event, say: Say, metrics: Metrics | None = None
) -> None:
    """Tick every second to every partition."""
    with ExitStack() as stack:
        log = deployment.log(stack, "clock")
        ticking = Clock(log, deployment.network.shards, deployment.actor(log, "clock"), now_us)
        say("The clock ticks.")

        def turn() -> None:
            if ticking.due():
                ticking.tick()
                if metrics is not None:
                    metrics.ticks.inc()
            stop.wait((TICK_US - now_us() % TICK_US) / TICK_US)

        take_turns(turn, stop, say, metrics)


def watch(
    deployment: Deployment, stop: threading.Event, say: Say, metrics: Metrics | None = None
) -> None:
    """Sign into the commands what is final in the vault."""
    from adapters.evm_chain import EvmChain
    from adapters.evm_rpc import Rpc, http_provider
    from domain.l1_watcher import Observation, Watcher

    with ExitStack() as stack:
        log = deployment.log(stack, "watcher")
        config = deployment.chain_config()
        chain = EvmChain(Rpc(http_provider(deployment.settings.chain.url)), config)

        def told(seen: Observation) -> None:
            if metrics is not None:
                for event in seen.events:
                    metrics.facts.labels(_KIND_OF_FACT[type(event)]).inc()
                metrics.observed.set(seen.position.number)
                metrics.unobserved.set(chain.head().number - seen.position.number)

        turn = WatcherTurn(
            Watcher(chain=chain),
            deployment.actor(log, "watcher"),
            kept=WatchedTo(
                deployment.settings.folder / "watcher.json", log, deployment.network.hash, config
            ),
            told=told,
        )
        say(f"Watching vault 0x{config.vault.hex()} of chain {config.chain_id}.")
        take_turns(turn, stop, say, metrics, every_s=_L1_EVERY_S)


def send(
    deployment: Deployment, stop: threading.Event, say: Say, metrics: Metrics | None = None
) -> None:
    """Take every checkpoint of the settlement ledger to the L1."""
    from adapters.evm_chain import EvmChain
    from adapters.evm_keys import LocalSigner
    from adapters.evm_outbox import Outbox
    from adapters.evm_rpc import Rpc, http_provider
    from adapters.evm_sender import EvmSender, FeePolicy

    settings, network = deployment.settings, deployment.network
    if settings.evm_key is None:
        raise SettingsInvalid(
            f"{settings.path}: [keys] evm names no file; the sender pays with it."
        )
    secret = deployment.identity(settings.evm_key).evm
    if secret is None:
        raise SettingsInvalid(f"{settings.evm_key} holds no EVM key.")
    with ExitStack() as stack:
        log = deployment.log(stack, "sender")
        rpc = Rpc(http_provider(settings.chain.url))
        chain = EvmChain(rpc, deployment.chain_config())
        outbox = stack.enter_context(closing(Outbox(settings.folder / "outbox.db")))
        settlements = network.partition(
            Ledger.SETTLEMENT, 0, log=log, index=":memory:", depth=Depth.COMMITS
        )
        sender = EvmSender(rpc, chain, LocalSigner(secret), outbox, FeePolicy())

        def told() -> None:
            if metrics is not None:
                metrics.outbox.set(outbox.waiting())
                last = outbox.last_final()
                metrics.anchored.set(0 if last is None else last.epoch)

        told()
        turn = SenderTurn(network.hash, network.codec, settlements, sender, told)
        say("Sending checkpoints.")
        take_turns(turn, stop, say, metrics, every_s=_L1_EVERY_S)


def serve(
    deployment: Deployment,
    stop: threading.Event,
    say: Say,
    ready: Callable[[Server], None],
    metrics: Metrics | None = None,
) -> None:
    """Follow the ledgers into the read models and serve the query API."""
    from adapters.metrics import Metrics
    from adapters.read_model import ReadModel
    from adapters.roles_follow import Following
    from adapters.up_web import Appender, L1Beside, Server, application, pins_of

    settings, network = deployment.settings, deployment.network
    with ExitStack() as stack:
        read_model = stack.enter_context(closing(ReadModel(settings.read_model)))
        log = deployment.log(stack, "projector")
        following = Following(network, log, read_model, now_us, say)
        appender = stack.enter_context(closing(Appender(deployment.log(stack, "api"))))
        pins: dict[str, Any] | None = None
        if settings.chain.kind is ChainKind.RPC:
            pins = pins_of(deployment.chain_config(), settings.chain.url)
        metrics = metrics or Metrics()
        web = Server(
            L1Beside(application(network, read_model, appender, following, metrics), pins=pins),
            settings.api_host,
            settings.api_port,
        )
        web.start(stop)
        stack.callback(web.stop)
        ready(web)
        take_turns(lambda: following.turn(wait_s=_WAIT_S), stop, say, metrics)


def events(
    deployment: Deployment, stop: threading.Event, say: Say, metrics: Metrics | None = None
) -> None:
    """Publish every event of the ledgers as a CloudEvent, for anyone's consumer."""
    from adapters.kafka_events import KafkaEvents
    from adapters.roles_events import Publisher

    found = deployment.settings.log
    if found.kind is not LogKind.KAFKA:
        raise SettingsInvalid(f"{deployment.settings.path}: events are published on Kafka only.")
    with ExitStack() as stack:
        log = deployment.log(stack, "events")
        options = found.security.options("events")

        def publisher() -> Publisher:
            topic = opened.enter_context(closing(KafkaEvents(found.bootstrap, security=options)))
            return opened.enter_context(closing(Publisher(deployment.network, log, topic)))

        opened = stack.enter_context(ExitStack())
        now: Publisher | None = publisher()
        say("Publishing events.")

        def turn() -> None:
            nonlocal now
            before, now = now, None
            # After a failure nobody knows what stands there but the topic itself.
            if before is None:
                opened.close()
                before = publisher()
            sent = before.published
            if not before.turn():
                stop.wait(_WAIT_S)
            if metrics is not None:
                metrics.published.inc(before.published - sent)
            now = before

        take_turns(turn, stop, say, metrics)
