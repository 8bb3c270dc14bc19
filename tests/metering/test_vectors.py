"""The test vectors of docs/telemetry-format.md, for everyone who writes a producer."""

import hashlib
import re

import pytest

from adapters.kafka_broker import CHECKOUT
from domain.ids import LeaseId, NodeId, shard_of
from domain.refusal import CODES
from tests.support.metering import as_bytes, batch, codec

TEXT = (CHECKOUT / "docs" / "telemetry-format.md").read_text(encoding="utf-8")
TIME_US = 1_790_000_000_000_000
LEASE = LeaseId(b"\x11" * 16)
BATCH = batch([NodeId(bytes(16))], [(LEASE, 9, 0, TIME_US, 1000), (LEASE, 4, 1, TIME_US + 1, 0)])


def vector(name: str) -> bytes:
    """The bytes of a vector: the hexadecimal part of the lines after its name."""
    _, _, rest = TEXT.partition(f"\n{name}\n")
    lines = re.split(r"\n\n|```", rest)[0].splitlines()
    return bytes.fromhex("".join(line.split("   ")[0] for line in lines))


def test_both_encodings_of_the_vector_are_as_documented() -> None:
    """The codec writes what the page says."""
    assert codec().encode(BATCH) == vector("Batch")
    assert codec().encode(as_bytes(BATCH)) == vector("BatchBytes")


@pytest.mark.parametrize("line", re.findall(r"^\| `[0-9a-f]{32}` .*$", TEXT, re.MULTILINE))
def test_shards_are_as_documented(line: str) -> None:
    """The partition of a node, for several numbers of shards."""
    node, begins, *shards = (cell.strip(" `") for cell in line.strip("|").split("|"))
    id = bytes.fromhex(node)
    assert hashlib.sha256(b"synor-shard-v1" + id).hexdigest()[:16] == begins
    assert [shard_of(id, p) for p in (1, 4, 16, 64)] == [int(each) for each in shards]


def test_every_refusal_of_telemetry_is_documented() -> None:
    """A number and a name that a producer may get stand on the page."""
    for code in CODES.values():
        if 700 <= code.number < 800:
            assert str(code.number) in TEXT
            assert code.name in TEXT or code.number == 716
