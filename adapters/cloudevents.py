"""One event of a ledger as a CloudEvent 1.0 in Kafka's binary mode, for anyone's consumer.

Everything follows from the ledger, so an event published twice is the same to the byte: the id is
its place (ledger, shard, leaf of the Merkle tree), the source is the network. The value is the
recorded Avro in the Confluent frame, as the standard deserialisers read it with ``/registry``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from domain.commit import Ledger, RecordedEvent

CONTENT_TYPE: Final = "application/vnd.confluent.avro"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TAG: Final = b"synor-events-v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudEvent:
    """A record of ``synor.events.v1``."""

    key: bytes
    headers: Mapping[str, bytes]
    value: bytes

    @property
    def id(self) -> str:
        """Its place in the ledgers."""
        return self.headers["ce_id"].decode()


def event_id(ledger: Ledger, shard: int, leaf: int) -> str:
    """The id of the event at a leaf of a ledger's tree."""
    return f"{ledger.name.lower()}/{shard}/{leaf}"


def cloud_event(
    *,
    genesis_hash: bytes,
    id: str,
    name: str,
    fingerprint: bytes,
    at_us: int,
    recorded: RecordedEvent,
) -> CloudEvent:
    """``name`` and ``fingerprint`` are the event's schema's; ``at_us`` its effective time."""
    aggregate = recorded.aggregate.hex()
    time = (_EPOCH + timedelta(microseconds=at_us)).isoformat(timespec="microseconds")
    said = {
        "ce_specversion": "1.0",
        "ce_id": id,
        "ce_source": f"urn:synor:{genesis_hash.hex()}",
        "ce_type": name,
        "ce_subject": aggregate,
        "ce_time": time.replace("+00:00", "Z"),
        "ce_dataschema": f"urn:synor:schema:{fingerprint.hex()}",
        "ce_partitionkey": aggregate,
        "ce_version": str(recorded.version),
        "content-type": CONTENT_TYPE,
    }
    return CloudEvent(
        key=aggregate.encode(),
        headers={header: text.encode() for header, text in said.items()},
        value=b"\x00" + recorded.schema.to_bytes(4, "big") + recorded.payload,
    )


def partition_of(aggregate: bytes, partitions: int) -> int:
    """Where an aggregate's events go, all to one partition: the order of their making is kept."""
    digest = hashlib.sha256(_TAG + aggregate).digest()
    return int.from_bytes(digest[:8], "big") % partitions
