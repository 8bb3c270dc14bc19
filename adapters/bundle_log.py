"""A ledger in a file: everything an audit reads, in a zip archive that needs no server.

Each partition stands in parts of a few MiB, one archive entry each; ``manifest.json`` names them
with their offsets, lengths and SHA-256. A part is its records one after another: offset (8 bytes),
append time in µs (8), length of the value (4), all big-endian, and the value. Format and reader use
nothing but zip, deflate and JSON, which any language reads (docs/auditing.md).
"""

from __future__ import annotations

import hashlib
import struct
import zipfile
import zlib
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from domain import outside_json
from domain.ports import (
    Fetched,
    LogDamaged,
    LogError,
    LogRecord,
    LogTruncated,
    SettingsRefused,
)

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
L1_FACTS: Final = "l1.json"
RECORD: Final = struct.Struct(">QQI")
MANIFEST_BYTES_MAX: Final = 256 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Records of one partition, in one entry of one archive."""

    archive: int
    name: str
    first: int
    next: int
    records: int
    bytes: int
    sha256: str


@dataclass(slots=True)
class _Stream:
    """One partition: where it starts and ends, its parts in order, and the one read last."""

    start: int
    end: int
    parts: list[Part]
    firsts: list[int]
    open_part: Part | None = None
    records: Sequence[LogRecord] = ()
    offsets: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Origin:
    """What the manifest says of the ledger; trusted by nobody before the audit."""

    genesis: bytes
    shards: int
    to_epoch: int


class BundleLog:
    """The reading part of the ``Log`` port on bundles; to append to one is a ``LogError``.

    Several bundles are read as one where each goes on exactly where the one before ends: one of
    epochs 1 to 9, then one from epoch 10 on. Each part is checked against the manifest when it is
    read; ``LogDamaged`` names one that was changed. Beside the last part of each partition that
    was read nothing is held.
    """

    def __init__(self, *paths: str | Path) -> None:
        """Open the files. Raises ``LogError`` where one is no bundle or does not go on."""
        self._paths = [str(path) for path in paths]
        self._archives: list[zipfile.ZipFile] = []
        self._ids: dict[str, bytes] = {}
        self._streams: dict[tuple[str, int], _Stream] = {}
        self._l1: tuple[int, str] | None = None
        self.origin = Origin(b"", 0, 0)
        try:
            for number, path in enumerate(self._paths):
                self._open(number, path)
        except BaseException:
            self.close()
            raise

    def _open(self, number: int, path: str) -> None:
        try:
            archive = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile) as error:
            raise LogError(f"{path} is no bundle of a ledger: {error}") from error
        self._archives.append(archive)
        try:
            manifest = outside_json.parse(self._entry(number, MANIFEST, MANIFEST_BYTES_MAX))
            if manifest["format"] != FORMAT:
                raise LogError(
                    f"{path} has format {manifest['format']} of bundles, known is {FORMAT}."
                )
            origin = Origin(
                bytes.fromhex(manifest["genesis"]), manifest["shards"], manifest["to_epoch"]
            )
            for topic in manifest["topics"]:
                self._add(number, topic)
            if manifest["l1"]:
                self._l1 = number, manifest["l1"]
        except (KeyError, TypeError, ValueError) as error:
            raise LogDamaged(f"{path}, {MANIFEST}: {type(error).__name__} {error}") from error
        if number and origin.genesis != self.origin.genesis:
            raise LogError(f"{path} is of another network than {self._paths[0]}.")
        self.origin = origin

    def _add(self, number: int, topic: Mapping[str, Any]) -> None:
        name, id = topic["topic"], bytes.fromhex(topic["id"])
        if self._ids.setdefault(name, id) != id:
            raise LogError(f"{self._paths[number]} has another topic {name} than the file before.")
        for partition, found in enumerate(topic["partitions"]):
            parts = [Part(archive=number, **part) for part in found["parts"]]
            stream = self._streams.get((name, partition))
            if stream is None:
                stream = _Stream(found["start"], found["start"], [], [])
                self._streams[name, partition] = stream
            if found["start"] != stream.end:
                raise LogError(
                    f"{self._paths[number]} has {name}[{partition}] from {found['start']} on, "
                    f"and what is before it ends at {stream.end}."
                )
            at = found["start"]
            for part in parts:
                if part.first != at or part.next <= part.first:
                    raise LogDamaged(f"{self._paths[number]}, {MANIFEST}: {part.name} has a gap.")
                at = part.next
            if at != found["end"]:
                raise LogDamaged(
                    f"{self._paths[number]}, {MANIFEST}: {name}[{partition}] is short."
                )
            stream.end = at
            stream.parts += parts
            stream.firsts += [part.first for part in parts]

    def _entry(self, number: int, name: str, size_max: int) -> bytes:
        where = f"{self._paths[number]}, {name}"
        archive = self._archives[number]
        try:
            if archive.getinfo(name).file_size > size_max:
                raise LogDamaged(f"{where}: it is larger than {size_max} bytes.")
            return archive.read(name)
        except (KeyError, zipfile.BadZipFile, zlib.error, OSError, EOFError) as error:
            raise LogDamaged(f"{where}: {error}") from error

    def l1_facts(self) -> bytes | None:
        """What the L1 said when the bundle was made; None where it was not asked."""
        if self._l1 is None:
            return None
        number, digest = self._l1
        facts = self._entry(number, L1_FACTS, MANIFEST_BYTES_MAX)
        if hashlib.sha256(facts).hexdigest() != digest:
            raise LogDamaged(
                f"{self._paths[number]}, {L1_FACTS}: it is not what the manifest says."
            )
        return facts

    # The port

    def topic_id(self, topic: str) -> bytes:
        """The id that the topic had on the log that was exported."""
        self.partitions(topic)
        return self._ids[topic]

    def partitions(self, topic: str) -> int:
        """How many partitions the topic has. Raises ``SettingsRefused`` if there is no topic."""
        found = sum(name == topic for name, _ in self._streams)
        if not found:
            raise SettingsRefused(f"Topic {topic} is not in {', '.join(self._paths)}.")
        return found

    def append(self, topic: str, partition: int, value: bytes) -> int:
        """Refused: a bundle is read only."""
        raise LogError(f"{self._paths[-1]} is a bundle: nothing is appended to it.")

    def append_many(self, topic: str, partition: int, values: Sequence[bytes]) -> Sequence[int]:
        """Refused: a bundle is read only."""
        raise LogError(f"{self._paths[-1]} is a bundle: nothing is appended to it.")

    def read(
        self, topic: str, partition: int, offset: int, *, max_bytes: int, wait_s: float = 0.0
    ) -> Fetched:
        """Records from ``offset`` on; nothing ever comes, so nothing is waited for."""
        stream = self._stream(topic, partition)
        if offset > stream.end:
            raise LogTruncated(f"{topic}/{partition} ends at {stream.end}, before {offset}.")
        if offset < stream.start:
            raise LogError(f"{topic}/{partition} starts at {stream.start}, after {offset}.")
        if offset == stream.end:
            return Fetched((), offset)
        part = stream.parts[bisect_right(stream.firsts, offset) - 1]
        if stream.open_part is not part:
            stream.records = self._records(part)
            stream.offsets = [record.offset for record in stream.records]
            stream.open_part = part
        first = last = bisect_right(stream.offsets, offset - 1)
        size = 0
        for record in stream.records[first:]:
            size += len(record.value)
            if size > max_bytes and last > first:
                return Fetched(stream.records[first:last], stream.records[last - 1].offset + 1)
            last += 1
        return Fetched(stream.records[first:], part.next)

    def _records(self, part: Part) -> list[LogRecord]:
        where = f"{self._paths[part.archive]}, {part.name}"
        data = self._entry(part.archive, part.name, part.bytes)
        if hashlib.sha256(data).hexdigest() != part.sha256:
            raise LogDamaged(f"{where}: its bytes are not what the manifest says.")
        records: list[LogRecord] = []
        at = 0
        while at < len(data):
            if len(data) - at < RECORD.size:
                raise LogDamaged(f"{where}: it ends within a record.")
            offset, time_us, length = RECORD.unpack_from(data, at)
            value = data[at + RECORD.size : at + RECORD.size + length]
            least = records[-1].offset + 1 if records else part.first
            if len(value) != length or not least <= offset < part.next:
                raise LogDamaged(f"{where}: record {len(records)} does not fit.")
            records.append(LogRecord(offset, time_us, value))
            at += RECORD.size + length
        if len(records) != part.records:
            raise LogDamaged(f"{where}: {len(records)} records, not {part.records}.")
        return records

    def end(self, topic: str, partition: int) -> int:
        """Where the export ended."""
        return self._stream(topic, partition).end

    def start(self, topic: str, partition: int) -> int:
        """The first offset that was still kept when the export began."""
        return self._stream(topic, partition).start

    def _stream(self, topic: str, partition: int) -> _Stream:
        if not 0 <= partition < self.partitions(topic):
            raise SettingsRefused(f"Topic {topic} has no partition {partition}.")
        return self._streams[topic, partition]

    def close(self) -> None:
        """Close the files."""
        for archive in self._archives:
            archive.close()
