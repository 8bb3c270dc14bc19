"""docs/wire-format.md is true: its vectors, its example and its tables."""

import hashlib
import re

import pytest

from adapters.avro_codec import AvroCodec
from adapters.ed25519 import Signer, sign_input, verify
from adapters.kafka_broker import CHECKOUT
from domain.commit import (
    ENVELOPE_BYTES,
    RecordedEvent,
    RunDigest,
    bulk_hash,
    pack_bulk,
    part_of,
)
from domain.ids import Hash32, account_of, shard_of
from domain.ledger import Tick
from domain.ports import LogRecord
from domain.refusal import CODES
from domain.signed import preimage

DOC = (CHECKOUT / "docs" / "wire-format.md").read_text()
CODEC = AvroCodec()
SIGNER = Signer(b"\x01" * 32)
TIME_US = 1_760_000_000_000_000
WIRE, SIGNED = sign_input(CODEC, SIGNER, Hash32(b"\x07" * 32), Tick(time_us=TIME_US), TIME_US, 0)


def block(language: str) -> str:
    """The one fenced block of this language."""
    found = re.findall(rf"^```{language}\n(.*?)^```$", DOC, re.MULTILINE | re.DOTALL)
    assert len(found) == 1
    return str(found[0])


def vector() -> dict[str, str]:
    """The lines ``name: hex`` of the vector, their hex joined."""
    rows = re.findall(r"^(\S[^:]*):((?:\s+[0-9a-f]+)+)$", block("vector"), re.MULTILINE)
    return {name: "".join(value.split()) for name, value in rows}


def test_the_vector_is_what_the_code_makes() -> None:
    """Each intermediate value, so that another implementation finds its first difference."""
    message = preimage(
        SIGNED.genesis,
        SIGNED.kind,
        SIGNED.key,
        SIGNED.session,
        SIGNED.number,
        SIGNED.schema,
        SIGNED.payload,
    )
    assert vector() == {
        "public key": SIGNER.public.hex(),
        "schema": SIGNED.schema.hex(),
        "payload": SIGNED.payload.hex(),
        "preimage": message.hex(),
        "preimage SHA-256": hashlib.sha256(message).hexdigest(),
        "signature": SIGNED.signature.hex(),
        "value, bare": WIRE.hex(),
        "value, framed": CODEC.encode_frame(SIGNED, confluent=True).hex(),
    }
    assert verify(SIGNER.public, message, bytes.fromhex(vector()["signature"]))


def test_the_example_by_hand_makes_the_vector(monkeypatch: pytest.MonkeyPatch) -> None:
    """A producer who follows the page needs none of our code."""
    monkeypatch.chdir(CHECKOUT)
    names: dict[str, bytes] = {}
    exec(block("python"), names)  # noqa: S102  # The example of our own page.
    assert names["value"].hex() == vector()["value, bare"]
    assert names["preimage"].hex() == vector()["preimage"]
    assert CODEC.open_signed(names["value"]) == SIGNED


def test_the_shards_of_the_page_are_the_shards() -> None:
    """Producers choose the partition by this table's rule."""
    rows = re.findall(r"^\| `([0-9a-f]{32})` \| (\d+) \| (\d+) \| (\d+) \|$", DOC, re.MULTILINE)
    assert len(rows) == 3
    for node, *shards in rows:
        expected = [shard_of(bytes.fromhex(node), count) for count in (16, 64, 1000)]
        assert list(map(int, shards)) == expected


def test_the_ids_and_the_leaf_of_the_page_are_ours() -> None:
    """The account of the vector's key, and a recorded event."""
    assert block("account").strip() == account_of(SIGNER.public).hex()
    event = RecordedEvent(
        aggregate=bytes(range(16)),
        version=1,
        schema=CODEC.number(Tick),
        payload=CODEC.encode(Tick(time_us=1)),
    )
    assert block("event").strip() == event.pack().hex()


def test_the_digests_of_the_page_are_ours() -> None:
    """What run, event and bulk say of one record."""
    record = LogRecord(5, TIME_US, WIRE)
    part = part_of(WIRE)
    run = RunDigest()
    run.add(record)
    assert dict(line.split(": ") for line in block("digests").splitlines()) == {
        "value": record.digest().hex(),
        "run": run.digest().hex(),
        "bulk begins": pack_bulk([part])[:8].hex(),
        "bulk": bulk_hash([part.digest]).hex(),
    }
    assert part.digest == record.digest()


def test_the_envelope_of_the_page_has_the_length_of_the_envelope() -> None:
    """The first column of the table adds up."""
    table = DOC[DOC.index("| bytes | envelope |") : DOC.index("The hash of a commit")]
    sizes = re.findall(r"^\| ([\d, ]+) \|", table, re.MULTILINE)
    assert sum(int(size) for cell in sizes for size in cell.split(",")) == ENVELOPE_BYTES


def test_the_refusals_of_the_page_are_the_refusals() -> None:
    """Number and name of each; of those before the signature only telemetry's own is elsewhere."""
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", DOC, re.MULTILINE)
    assert [int(number) for number, _ in rows] == [n for n in sorted(CODES) if n < 200 and n != 107]
    for number, name in rows:
        assert CODES[int(number)].name == name
