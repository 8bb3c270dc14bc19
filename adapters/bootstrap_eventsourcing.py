"""The persistence module for anyone's ``eventsourcing`` application: a ledger by environment.

    PERSISTENCE_MODULE=adapters.bootstrap_eventsourcing

gives any ``Application`` of the library a signed, hash-chained ledger on SQLite or Kafka. The
variables, each of which may carry the application's name as prefix, are in docs/eventsourcing.md.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import adapters.eventsourcing_recorder as recorders
from adapters.avro_codec import AvroCodec
from adapters.ed25519 import Signer, verify
from adapters.eventsourcing_index import MEMORY, Depth, LedgerIndex
from adapters.eventsourcing_partition import LedgerIdentity, LedgerPartition
from adapters.eventsourcing_threads import OwnThreadLog
from adapters.kafka_log import KafkaLog
from adapters.kafka_topics import KafkaTopics
from adapters.local_topics import LocalTopics
from adapters.sqlite_log import SqliteLog
from domain.commit import Ledger
from domain.ids import PublicKey, length_prefixed
from domain.ports import Log

GENESIS_TAG: Final = b"synor-application-v1"
_KEY_BYTES: Final = 32
_TOPIC_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,200}")


class LedgerFactory(recorders.SynorFactory):
    """Opens the ledger that the environment names, when it is first asked for it."""

    LEDGER_LOG = "LEDGER_LOG"
    LEDGER_FILE = "LEDGER_FILE"
    LEDGER_DURABLE = "LEDGER_DURABLE"
    KAFKA_BOOTSTRAP = "KAFKA_BOOTSTRAP"
    LEDGER_TOPIC = "LEDGER_TOPIC"
    LEDGER_PARTITION = "LEDGER_PARTITION"
    LEDGER_PARTITIONS = "LEDGER_PARTITIONS"
    LEDGER_GENESIS = "LEDGER_GENESIS"
    LEDGER_INDEX = "LEDGER_INDEX"
    WRITER_KEY_FILE = "WRITER_KEY_FILE"
    WRITER_PUBLIC_KEY = "WRITER_PUBLIC_KEY"

    def open_recorder(self) -> recorders.LedgerRecorder:
        """The recorder, which sees other processes' commits at every read."""
        signer, writer = self._writer()
        topic = self.env.get(self.LEDGER_TOPIC) or f"synor.application.{self.env.name}"
        if not _TOPIC_NAME.fullmatch(topic):
            raise OSError(f"{topic!r} is no topic's name: set {self.LEDGER_TOPIC}")
        partition = int(self.env.get(self.LEDGER_PARTITION, "0"))
        identity = LedgerIdentity(
            genesis=self._genesis(topic, partition, writer),
            ledger=Ledger.MARKET,
            shard=partition,
            writer=writer,
            topic=topic,
            partition=partition,
        )
        index = LedgerIndex(
            self.env.get(self.LEDGER_INDEX, MEMORY),
            identity=identity.digest(),
            depth=Depth.PAYLOADS,
        )
        return recorders.LedgerRecorder(
            LedgerPartition(
                log=OwnThreadLog(self.log_opener(topic)),
                identity=identity,
                codec=AvroCodec(),
                verify=verify,
                index=index,
                signer=signer,
            ),
            clock_us=_wall_clock_us,
            live=True,
        )

    def log_opener(self, topic: str) -> Callable[[], Log]:
        """What opens the log, and makes the topic where there is none."""
        kind = self.env.get(self.LEDGER_LOG, "sqlite")
        partitions = int(self.env.get(self.LEDGER_PARTITIONS, "1"))
        if kind == "sqlite":
            file = self._needed(self.LEDGER_FILE)
            durable = self.env.get(self.LEDGER_DURABLE, "y") == "y"
            return lambda: _sqlite(file, topic, partitions, durable)
        if kind == "kafka":
            brokers = self._needed(self.KAFKA_BOOTSTRAP)
            return lambda: _kafka(brokers, topic, partitions)
        raise OSError(f"{self.LEDGER_LOG} is {kind!r}: it can be sqlite or kafka")

    def _writer(self) -> tuple[Signer | None, PublicKey]:
        """The key to write with, or the writer's public key alone, to read only."""
        file = self.env.get(self.WRITER_KEY_FILE)
        if file:
            signer = Signer(_key_from(Path(file)))
            return signer, signer.public
        return None, PublicKey(bytes.fromhex(self._needed(self.WRITER_PUBLIC_KEY)))

    def _genesis(self, topic: str, partition: int, writer: PublicKey) -> bytes:
        """What every record is bound to: given, or made of the ledger's place and first key."""
        given = self.env.get(self.LEDGER_GENESIS)
        if given:
            return bytes.fromhex(given)
        place = (topic.encode(), partition.to_bytes(4, "big"), writer)
        return hashlib.sha256(length_prefixed(GENESIS_TAG, *place)).digest()

    def _needed(self, key: str) -> str:
        value = self.env.get(key)
        if not value:
            raise OSError(f"{' or '.join(self.env.create_keys(key))} is not in the environment")
        return value


def _wall_clock_us() -> int:
    return time.time_ns() // 1000


def _sqlite(file: str, topic: str, partitions: int, durable: bool) -> Log:
    log = SqliteLog(file, clock_us=_wall_clock_us, durable=durable)
    LocalTopics(log).create(topic, partitions, keep_forever=True)
    return log


def _kafka(brokers: str, topic: str, partitions: int) -> Log:
    topics = KafkaTopics(brokers)
    try:
        topics.create(topic, partitions, keep_forever=True)
    finally:
        topics.close()
    return KafkaLog(brokers, client_id=f"eventsourcing-{topic}")


def _key_from(file: Path) -> bytes:
    try:
        return bytes.fromhex(file.read_text().strip())
    except FileNotFoundError:
        raise OSError(
            f"no key in {file}: python -m adapters.bootstrap_eventsourcing {file} makes one"
        ) from None


def make_key(file: Path) -> PublicKey:
    """Write a new private key, readable by its owner only; never over an existing file."""
    file.touch(mode=0o600, exist_ok=False)
    private = secrets.token_bytes(_KEY_BYTES)
    file.write_text(private.hex() + "\n")
    return Signer(private).public


if __name__ == "__main__":
    print(make_key(Path(sys.argv[1])).hex())
