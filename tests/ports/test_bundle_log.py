"""A bundle reads as the log that it was made of: the reading part of the contract, unmodified."""

from __future__ import annotations

import hashlib
import json
import time
import zipfile
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

import pytest

from adapters.bundle_log import MANIFEST, BundleLog
from adapters.bundle_writer import BundleWriter
from adapters.local_topics import LocalTopics
from adapters.memory_log import MemoryLog, MemoryStore
from domain.ports import Fetched, Log, LogDamaged, LogError
from tests.ports import test_log_contract as contract
from tests.ports.harness import LogStore, read_all, wall_clock_us

READING: tuple[Callable[[LogStore], None], ...] = (
    contract.test_offsets_rise_by_one_from_zero_in_append_order,
    contract.test_partitions_have_offsets_of_their_own,
    contract.test_append_times_never_fall_and_are_about_now,
    contract.test_a_read_from_the_middle_begins_exactly_there,
    contract.test_a_read_stops_before_max_bytes_and_goes_on_from_there,
    contract.test_two_readers_at_different_positions_do_not_disturb_one_another,
    contract.test_a_record_of_six_mebibytes_passes_whole,
    contract.test_an_empty_value_is_kept,
    contract.test_append_many_gives_the_offsets_in_order,
    contract.test_a_read_at_the_end_is_empty_and_asks_for_the_same_offset,
    contract.test_a_log_opened_again_has_everything,
    contract.test_a_topic_has_sixteen_bytes_of_its_own,
    contract.test_an_unknown_partition_is_refused,
    contract.test_a_read_beyond_the_end_is_a_truncated_log,
)


def bundled(log: Log, topics: dict[str, int], path: Path) -> Path:
    """All of some topics in a bundle."""
    writer = BundleWriter(path)
    for topic, partitions in topics.items():
        for partition in range(partitions):
            place = topic, partition
            writer.begin(place, log.start(*place))
            for record in read_all(log, topic, partition):
                writer.take(place, record)
            writer.ended(place, log.end(*place))
    ids = {topic: log.topic_id(topic) for topic in topics}
    writer.finish({"genesis": "00" * 32, "shards": 1, "to_epoch": 0}, ids, None)
    return path


class _Bundled:
    """Appends go to a log in memory; each read is from a bundle made of it."""

    _number = count()

    def __init__(self, log: Log, topics: dict[str, int], folder: Path) -> None:
        self._log = log
        self._topics = topics
        self._folder = folder
        self._bundle: BundleLog | None = None
        self._ends: list[int] = []

    def append(self, topic: str, partition: int, value: bytes) -> int:
        return self._log.append(topic, partition, value)

    def append_many(self, topic: str, partition: int, values: Sequence[bytes]) -> Sequence[int]:
        return self._log.append_many(topic, partition, values)

    def _now(self) -> BundleLog:
        ends = [self._log.end(t, p) for t, n in self._topics.items() for p in range(n)]
        if self._bundle is None or ends != self._ends:
            self.close()
            path = self._folder / f"{next(self._number)}.bundle"
            self._bundle = BundleLog(bundled(self._log, self._topics, path))
            self._ends = ends
        return self._bundle

    def read(
        self, topic: str, partition: int, offset: int, *, max_bytes: int, wait_s: float = 0.0
    ) -> Fetched:
        return self._now().read(topic, partition, offset, max_bytes=max_bytes, wait_s=wait_s)

    def end(self, topic: str, partition: int) -> int:
        return self._now().end(topic, partition)

    def start(self, topic: str, partition: int) -> int:
        return self._now().start(topic, partition)

    def topic_id(self, topic: str) -> bytes:
        return self._now().topic_id(topic)

    def partitions(self, topic: str) -> int:
        return self._now().partitions(topic)

    def close(self) -> None:
        if self._bundle is not None:
            self._bundle.close()


@pytest.mark.parametrize("case", READING, ids=lambda case: case.__name__.removeprefix("test_"))
def test_the_reading_part_of_the_contract_holds(
    case: Callable[[LogStore], None], tmp_path: Path
) -> None:
    """What the contract says of reads, starts, ends and ids."""
    memory = MemoryStore()
    topics: dict[str, int] = {}

    class Admin(LocalTopics):
        def create(self, topic: str, partitions: int, *, keep_forever: bool) -> None:
            super().create(topic, partitions, keep_forever=keep_forever)
            topics[topic] = partitions

    store = LogStore(
        "bundle",
        lambda: _Bundled(MemoryLog(wall_clock_us, memory), topics, tmp_path),
        Admin(MemoryLog(wall_clock_us, memory)),
    )
    case(store)
    store.close()


def made(path: Path, records: int = 5_000) -> tuple[MemoryLog, Path]:
    """A log with records of a kilobyte, with a hole, and its bundle."""
    log = MemoryLog(wall_clock_us)
    LocalTopics(log).create("t", 1, keep_forever=True)
    log.append_many(
        "t", 0, [hashlib.sha512(bytes([i % 256])).digest() * 16 for i in range(records)]
    )
    log.leave_gap("t", 0, offsets=3)
    log.append("t", 0, b"after the gap")
    log.leave_gap("t", 0, offsets=2)
    log.delete_before("t", 0, start=7)
    return log, bundled(log, {"t": 1}, path)


def test_parts_gaps_and_a_deleted_beginning_come_back_as_they_were(tmp_path: Path) -> None:
    """Several parts, offsets without a record, and a start that is not zero."""
    log, path = made(tmp_path / "a.bundle")
    bundle = BundleLog(path)
    assert (bundle.start("t", 0), bundle.end("t", 0)) == (7, log.end("t", 0))
    assert read_all(bundle, "t") == read_all(log, "t")
    with zipfile.ZipFile(path) as archive:
        assert len([name for name in archive.namelist() if name.startswith("t/0/")]) > 2
    with pytest.raises(LogError, match="starts at 7"):
        bundle.read("t", 0, 6, max_bytes=1)


def test_a_read_at_the_end_of_a_bundle_waits_for_nothing(tmp_path: Path) -> None:
    """Nothing ever comes to a file."""
    log, path = made(tmp_path / "a.bundle", records=10)
    end = log.end("t", 0)
    began = time.monotonic()
    assert BundleLog(path).read("t", 0, end, max_bytes=100, wait_s=60.0) == Fetched((), end)
    assert time.monotonic() - began < 30


def test_nothing_is_appended_to_a_bundle_and_none_is_written_over(tmp_path: Path) -> None:
    """A file for auditors stays as it is."""
    _, path = made(tmp_path / "a.bundle", records=10)
    bundle = BundleLog(path)
    for ask in (lambda: bundle.append("t", 0, b""), lambda: bundle.append_many("t", 0, [b""])):
        with pytest.raises(LogError, match="is a bundle"):
            ask()
    with pytest.raises(LogError, match="exists already"):
        BundleWriter(path)


def rewritten(path: Path, change: Callable[[str, bytes], bytes | None]) -> Path:
    """The bundle with other bytes in some entries."""
    target = path.with_suffix(".changed")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            data = change(name, old.read(name))
            if data is not None:
                new.writestr(name, data)
    return target


def _flipped(name: str, data: bytes) -> bytes:
    if name != "t/0/0000000000000007":
        return data
    return data[:500] + bytes([data[500] ^ 1]) + data[501:]


def _cut(name: str, data: bytes) -> bytes:
    return data[:-1] if name.startswith("t/") else data


def _missing(name: str, data: bytes) -> bytes | None:
    return None if name.startswith("t/") else data


def _renamed_topic_id(name: str, data: bytes) -> bytes:
    return data.replace(b'"bytes"', b'"octets"') if name == MANIFEST else data


def _part_left_out(name: str, data: bytes) -> bytes:
    if name != MANIFEST:
        return data
    manifest = json.loads(data)
    del manifest["topics"][0]["partitions"][0]["parts"][1]
    return json.dumps(manifest).encode()


def _no_json(name: str, data: bytes) -> bytes:
    return b"{" if name == MANIFEST else data


@pytest.mark.parametrize(
    "change", [_flipped, _cut, _missing, _renamed_topic_id, _part_left_out, _no_json]
)
def test_a_bundle_that_was_changed_is_named(
    change: Callable[[str, bytes], bytes | None], tmp_path: Path
) -> None:
    """The file, the part, and what is wrong with it; never other records."""
    _, path = made(tmp_path / "a.bundle")
    changed = rewritten(path, change)
    with pytest.raises(LogDamaged, match=r"a\.changed, (t/0/|manifest)"):
        read_all(BundleLog(changed), "t")


def test_a_file_that_is_no_bundle_is_refused(tmp_path: Path) -> None:
    """In one sentence that names it."""
    (tmp_path / "x").write_bytes(b"PK\x03\x04 nonsense")
    with pytest.raises(LogError, match="is no bundle"):
        BundleLog(tmp_path / "x")
    with pytest.raises(LogError, match="is no bundle"):
        BundleLog(tmp_path / "absent")
