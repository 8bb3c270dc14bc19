"""The reader rule: the first record at a height wins, for every reader, for ever."""

from __future__ import annotations

from dataclasses import replace

import pytest

from adapters.ed25519 import Signer, verify
from domain.chain import ChainReader, Counted, LedgerStopped, Noise
from domain.commit import (
    ENVELOPE_BYTES,
    NO_HASH,
    Envelope,
    Ledger,
    RunDigest,
    bulk_hash,
    pack_bulk,
    part_of,
    seal,
    split_bulk,
)
from domain.ports import LogRecord

GENESIS = b"g" * 32
WRITER = Signer(b"w" * 32)
STRANGER = Signer(b"s" * 32)


def reader() -> ChainReader:
    """A reader before height 0."""
    return ChainReader(
        genesis=GENESIS, ledger=Ledger.MARKET, shard=0, writer=WRITER.public, verify=verify
    )


def commit(
    height: int, previous: bytes, body: bytes = b"body", signer: Signer = WRITER, version: int = 1
) -> tuple[bytes, bytes]:
    """The bytes of a commit and its hash."""
    envelope = replace(
        seal(
            genesis=GENESIS,
            ledger=Ledger.MARKET,
            shard=0,
            height=height,
            previous=previous,
            writer=signer.public,
            body=body,
        ),
        version=version,
    )
    signed: Envelope = replace(envelope, signature=signer.sign(envelope.unsigned()))
    return signed.unsigned() + signed.signature + body, signed.hash()


def judge(chain: ChainReader, offset: int, value: bytes) -> Counted | Noise:
    """Judge one record."""
    return chain.judge(LogRecord(offset, 0, value))


def test_commits_that_stand_on_the_head_count() -> None:
    """Height after height."""
    chain = reader()
    first, first_hash = commit(0, NO_HASH)
    second, second_hash = commit(1, first_hash)
    assert isinstance(judge(chain, 0, first), Counted)
    assert isinstance(judge(chain, 1, second), Counted)
    assert (chain.height, chain.hash) == (1, second_hash)


def test_of_two_writers_the_first_wins_and_the_loser_is_noise() -> None:
    """Also a second record of the loser, built on its lost one."""
    chain = reader()
    winner, winner_hash = commit(0, NO_HASH, b"winner")
    loser, loser_hash = commit(0, NO_HASH, b"loser")
    child, _ = commit(1, loser_hash)
    assert isinstance(judge(chain, 0, winner), Counted)
    assert isinstance(judge(chain, 1, loser), Noise)
    assert isinstance(judge(chain, 2, child), Noise)
    assert (chain.height, chain.hash, chain.noise_count) == (0, winner_hash, 2)


def test_forged_and_foreign_records_are_noise_and_take_no_memory() -> None:
    """Anyone may write to a topic whose rights are wrong; nobody can stop a reader by it."""
    chain = reader()
    first, first_hash = commit(0, NO_HASH)
    judge(chain, 0, first)
    forged, _ = commit(1, first_hash, signer=STRANGER)
    torn = bytearray(commit(1, first_hash)[0])
    torn[-1] ^= 1
    broken = bytearray(commit(1, first_hash)[0])
    broken[190] ^= 1
    for value in (b"", b"noise", forged, bytes(broken), first[:-1]):
        assert isinstance(judge(chain, 1, value), Noise)
    assert not chain.noise()
    # A writer's own record whose body was changed under way does not count either.
    assert isinstance(judge(chain, 2, bytes(torn)), Noise)


def test_a_signed_commit_beyond_the_head_on_another_parent_is_a_fork() -> None:
    """The one thing that only a writer can do, and that stops everybody."""
    chain = reader()
    judge(chain, 0, commit(0, NO_HASH)[0])
    with pytest.raises(LedgerStopped, match="fork"):
        judge(chain, 1, commit(1, b"x" * 32)[0])
    with pytest.raises(LedgerStopped, match="fork"):
        judge(chain, 1, commit(5, b"x" * 32)[0])


def test_an_unknown_body_version_stops_the_reader() -> None:
    """It counts, so to skip it would be to lose it."""
    chain = reader()
    with pytest.raises(LedgerStopped, match="unknown_version"):
        judge(chain, 0, commit(0, NO_HASH, version=2)[0])


def test_a_reader_that_resumes_knows_the_noise_near_its_head() -> None:
    """Between a loser's two records it must not take the second for a fork."""
    chain = reader()
    winner, _ = commit(0, NO_HASH, b"winner")
    loser, loser_hash = commit(0, NO_HASH, b"loser")
    child, _ = commit(1, loser_hash)
    judge(chain, 0, winner)
    judge(chain, 1, loser)
    resumed = reader()
    resumed.resume(chain.height, chain.hash, chain.noise())
    assert isinstance(judge(resumed, 2, child), Noise)


VALUES = (b"first", b"", b"third")


def _run(*records: LogRecord) -> bytes:
    digest = RunDigest()
    for record in records:
        digest.add(record)
    return digest.digest()


def test_a_run_binds_offset_time_length_value_order_and_number() -> None:
    """No other reading of a partition has the digest of this one."""
    records = [LogRecord(i, 10 + i, value) for i, value in enumerate(VALUES)]
    first, *rest = records
    others = [
        [replace(first, offset=7), *rest],
        [replace(first, time_us=7), *rest],
        [LogRecord(0, 10, b"firs"), *rest],
        [LogRecord(0, 10, b"First"), *rest],
        [*reversed(records)],
        rest,
        [*records, LogRecord(3, 13, b"")],
    ]
    digests = {_run(*each) for each in (records, *others)}
    assert len(digests) == 1 + len(others)


def test_a_bulk_binds_its_values_their_bounds_and_their_order() -> None:
    """Moving a byte from one value to the next is another bulk, though the values join equal."""
    lists = [VALUES, (b"firs", b"t", b"third"), (b"first", b"third"), (b"third", b"", b"first"), ()]
    hashes = {bulk_hash(part_of(value).digest for value in values) for values in lists}
    assert len(hashes) == len(lists)
    for values in lists:
        parts = tuple(map(part_of, values))
        assert split_bulk(pack_bulk(parts)) == parts


def test_a_bulk_that_does_not_hash_right_has_no_parts() -> None:
    """Any byte changed, missing or added: the commit counts, its bulk is corrupt."""
    parts = tuple(map(part_of, VALUES))
    envelope = seal(
        genesis=bytes(32),
        ledger=Ledger.METERING,
        shard=0,
        height=0,
        previous=NO_HASH,
        writer=bytes(32),
        body=b"body",
        bulk=parts,
    )
    bulk = pack_bulk(parts)
    assert envelope.bulk_length == len(bulk)

    def parts_of(data: bytes) -> object:
        value = bytes(ENVELOPE_BYTES) + b"body" + data
        return Counted(0, 0, envelope, b"", b"body", value).parts()

    assert parts_of(bulk) == parts
    for at in range(len(bulk)):
        assert parts_of(bulk[:at] + bytes([bulk[at] ^ 1]) + bulk[at + 1 :]) is None
        assert parts_of(bulk[:at]) is None
    assert parts_of(bulk + bytes(4)) is None
    assert parts_of(bulk + b"x") is None
