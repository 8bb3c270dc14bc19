"""A fleet's producer by somebody else: docs/wire-format.md and docs/telemetry-format.md, no more.

Only public libraries and the committed schema files; a test holds that nothing of ours is imported.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fastavro
from confluent_kafka import Producer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

Row = tuple[bytes, int, int, int, int]  # lease, resource, generation, time_us, total
WIDTHS = {"lease": 2, "resource": 2, "generation": 1, "time_us": 8, "total": 8}
TELEMETRY = "synor.telemetry.v1"


def without_doc(schema: Any) -> Any:
    """The normalised schema."""
    if isinstance(schema, list):
        return [without_doc(branch) for branch in schema]
    if not isinstance(schema, dict):
        return schema
    return {k: v if k == "default" else without_doc(v) for k, v in schema.items() if k != "doc"}


class Schema:
    """A published schema file."""

    def __init__(self, folder: Path, name: str) -> None:
        text = json.loads((folder / f"{name}.avsc").read_text())
        normal = json.dumps(without_doc(text), sort_keys=True, separators=(",", ":"))
        self.name = name
        self.fingerprint = hashlib.sha256(normal.encode()).digest()
        self._parsed: Any = fastavro.parse_schema(text)

    def encode(self, value: dict[str, Any]) -> bytes:
        """Avro's binary encoding."""
        out = io.BytesIO()
        fastavro.schemaless_writer(out, self._parsed, value)
        return out.getvalue()


def shard_of(node: bytes, shards: int) -> int:
    """The partition that a node's telemetry goes to."""
    return int.from_bytes(hashlib.sha256(b"synor-shard-v1" + node).digest()[:8], "big") % shards


class Fleet:
    """One key that signs for nodes, and a producer."""

    def __init__(
        self, bootstrap: str, schemas: Path, *, genesis: bytes, private: bytes, session_us: int
    ) -> None:
        self._producer = Producer(
            {"bootstrap.servers": bootstrap, "acks": "all", "enable.idempotence": True}
        )
        self._genesis = genesis
        self._private = Ed25519PrivateKey.from_private_bytes(private)
        self._session_us = session_us
        self._number = 0
        self._signed = Schema(schemas, "synor.input.v1.Signed")
        self._batch = Schema(schemas, "synor.telemetry.v1.Batch")
        self._batch_bytes = Schema(schemas, "synor.telemetry.v1.BatchBytes")
        lock = json.loads((schemas / "lock.json").read_text())["records"]
        self._frame = b"\x00" + lock["synor.input.v1.Signed"]["number"].to_bytes(4, "big")

    def value(self, node: bytes, rows: Sequence[Row], *, columns_as_bytes: bool) -> bytes:
        """A signed batch: bare with longs, in the Confluent frame with columns as bytes."""
        leases = list(dict.fromkeys(row[0] for row in rows))
        columns: dict[str, Any] = {
            "lease": [leases.index(row[0]) for row in rows],
            "resource": [row[1] for row in rows],
            "generation": [row[2] for row in rows],
            "time_us": [row[3] for row in rows],
            "total": [row[4] for row in rows],
        }
        schema = self._batch
        if columns_as_bytes:
            schema = self._batch_bytes
            columns = {
                name: b"".join(n.to_bytes(WIDTHS[name], "little") for n in column)
                for name, column in columns.items()
            }
        payload = schema.encode({"nodes": [node], "leases": leases, **columns})
        value = self._sign(schema, payload)
        return self._frame + value if columns_as_bytes else value

    def _sign(self, schema: Schema, payload: bytes) -> bytes:
        number, self._number = self._number, self._number + 1
        key = self._private.public_key().public_bytes_raw()
        parts = (
            b"synor/1",
            self._genesis,
            schema.name.encode(),
            key,
            self._session_us.to_bytes(8, "big"),
            number.to_bytes(8, "big"),
            schema.fingerprint,
            payload,
        )
        preimage = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        return self._signed.encode(
            {
                "genesis": self._genesis,
                "kind": schema.name,
                "key": key,
                "session": self._session_us,
                "number": number,
                "schema": schema.fingerprint,
                "payload": payload,
                "signature": self._private.sign(preimage),
            }
        )

    def produce(self, partition: int, values: Sequence[bytes]) -> None:
        """Send, with a key and headers that mean nothing here, and wait until they stand."""
        failed: list[Any] = []

        def delivered(error: Any, message: Any) -> None:
            if error is not None:
                failed.append((error, message))

        for value in values:
            self._producer.produce(
                TELEMETRY,
                value,
                key=b"whatever",
                partition=partition,
                headers={"by": b"somebody else"},
                on_delivery=delivered,
            )
        self._producer.flush(30)
        assert not failed, failed
