"""The ledger against the L1, and the audit on several cores."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path

import pytest

from adapters.audit import Diverged, LedgerReport, Verdict
from adapters.bootstrap import audit
from adapters.bootstrap_audit import audit_on_cores, check_anchors
from adapters.local_topics import LocalTopics
from adapters.sqlite_log import SqliteLog
from domain.commit import TELEMETRY_TOPIC, Ledger
from domain.ids import Hash32
from domain.l1 import AccountWord, BlockHash, L1Error, VaultTotals, account_word
from tests.audit.forge import Book, flipped
from tests.l1.fake_chain import FakeChain
from tests.system.reference import reference, reference_hash
from tests.system.small import SmallSystem


@cache
def verdict() -> Verdict:
    """Of the small system, whose watcher never looked at a chain: here is one that fits."""
    return audit(reference().network, reference().log)


@dataclass
class Vault(FakeChain):
    """A chain whose vault holds what it is told to."""

    checkpoints: dict[int, Hash32] = field(default_factory=dict)
    now: VaultTotals = field(
        default_factory=lambda: VaultTotals(
            deposited_nano=0,
            authorised_nano=0,
            paid_nano=0,
            last_epoch=0,
            payout_root=Hash32(bytes(32)),
        )
    )
    claims: dict[bytes, int] = field(default_factory=dict)
    by_block: dict[int, int] = field(default_factory=dict)
    archive: bool = True

    def anchored(self, epoch: int, block: BlockHash | None = None) -> Hash32 | None:
        return self.checkpoints.get(epoch)

    def totals(self, block: BlockHash | None = None) -> VaultTotals:
        if block is None:
            return self.now
        if not self.archive:
            raise L1Error("missing trie node")
        number = next(each.number for each in self.blocks if each.hash == block)
        deposited = sum(nano for at, nano in self.by_block.items() if at <= number)
        return replace(self.now, deposited_nano=deposited)

    def claimed_nano(self, account: AccountWord) -> int:
        return self.claims.get(account, 0)


def vault() -> Vault:
    """A vault that agrees with the ledger in everything."""
    totals = verdict().totals
    made = Vault(
        confirmations=0,
        checkpoints={epoch: each.checkpoint for epoch, each in totals.made.items()},
        now=VaultTotals(
            deposited_nano=totals.deposited,
            authorised_nano=totals.made[3].authorised_nano,
            paid_nano=totals.claimed,
            last_epoch=3,
            payout_root=Hash32(bytes(32)),
        ),
        claims={account_word(a): nano for a, nano in totals.claims.items()},  # type: ignore[arg-type]
        by_block=dict(totals.deposits_by_block),
    )
    made.grow(20)
    return made


def test_a_vault_that_holds_what_the_ledger_says_is_compared_to_the_nano() -> None:
    """Three checkpoints are equal, none waits, deposits agree at the observed block."""
    found = check_anchors(verdict(), vault())
    assert (found.checkpoints, found.waiting) == (3, 0)
    assert found.at_observed_block
    assert found.paid_nano <= found.authorised_nano <= found.deposited_nano


def test_an_endpoint_without_old_state_is_compared_at_its_head() -> None:
    """It cannot say what the vault held then; what it holds now must still cover the ledger."""
    chain = vault()
    chain.archive = False
    assert not check_anchors(verdict(), chain).at_observed_block


def test_a_deposit_that_the_ledger_has_not_seen_yet_is_no_divergence() -> None:
    """The L1 goes on after the ledger's last observation."""
    chain = vault()
    chain.by_block[19] = 7
    chain.now = replace(chain.now, deposited_nano=chain.now.deposited_nano + 7)
    assert check_anchors(verdict(), chain).at_observed_block


def test_a_checkpoint_that_is_made_and_not_yet_anchored_waits() -> None:
    """Its epoch was not seen anchored by the market, so nothing is wrong."""
    found = verdict()
    chain = vault()
    del chain.checkpoints[3]
    chain.now = replace(
        chain.now, last_epoch=2, authorised_nano=found.totals.made[2].authorised_nano, paid_nano=0
    )
    seen = dict(found.totals.seen)
    claimed, claims = found.totals.claimed, found.totals.claims
    try:
        del found.totals.seen[3]
        found.totals.claimed, found.totals.claims = 0, {}
        assert check_anchors(found, chain).waiting == 1
    finally:
        found.totals.seen.update(seen)
        found.totals.claimed, found.totals.claims = claimed, claims


_WRONG = {
    "another checkpoint": ("anchor", "epoch 2"),
    "no checkpoint": ("anchor", "epoch 1"),
    "an epoch more": ("truncated", "epoch"),
    "an epoch less": ("anchor", "epoch"),
    "authorised more": ("anchor", "authorised"),
    "paid more than authorised": ("anchor", "totals"),
    "deposited less": ("anchor", "deposited"),
    "paid less": ("anchor", "paid"),
    "a claim less": ("anchor", "claims of"),
    "a deposit that the watcher left out": ("anchor", "deposited"),
}


@pytest.mark.parametrize("wrong", _WRONG)
def test_a_vault_that_says_otherwise_is_named(wrong: str) -> None:
    """Checkpoints, totals, claims: each difference has its class and its field."""
    chain = vault()
    match wrong:
        case "another checkpoint":
            chain.checkpoints[2] = Hash32(bytes(32))
        case "no checkpoint":
            del chain.checkpoints[1]
        case "an epoch more":
            chain.now = replace(chain.now, last_epoch=4)
        case "an epoch less":
            chain.now = replace(chain.now, last_epoch=2)
        case "authorised more":
            chain.now = replace(chain.now, authorised_nano=chain.now.authorised_nano + 1)
        case "paid more than authorised":
            chain.now = replace(chain.now, paid_nano=chain.now.authorised_nano + 1)
        case "deposited less":
            chain.now = replace(chain.now, deposited_nano=chain.now.deposited_nano - 1)
        case "paid less":
            chain.now = replace(chain.now, paid_nano=chain.now.paid_nano - 1)
        case "a claim less":
            chain.claims = {account: nano - 1 for account, nano in chain.claims.items()}
        case _:
            chain.by_block[2] = chain.by_block.get(2, 0) + 1
            chain.now = replace(chain.now, deposited_nano=chain.now.deposited_nano + 1)
    with pytest.raises(Diverged) as found:
        check_anchors(verdict(), chain)
    name, at = _WRONG[wrong]
    assert found.value.name == name
    assert found.value.at.startswith(at)
    assert found.value.ledger is Ledger.SETTLEMENT


# On several cores


def _never() -> int:
    return 0


def _rebound(path: Path) -> partial[SqliteLog]:
    """The small system on a file: topic ids are a file's own, so it is lived through there."""
    with closing(SqliteLog(path, clock_us=_never, durable=False)) as log:
        SmallSystem(log, LocalTopics(log)).run().close()
    return partial(SqliteLog, path, clock_us=_never)


def test_the_audit_on_two_cores_finds_what_the_audit_on_one_finds(tmp_path: Path) -> None:
    """The same state, reports and totals; a fault in a shard comes back with its name."""
    open_log = _rebound(tmp_path / "ledger.db")
    network = reference().network
    heard: list[LedgerReport] = []
    both = audit_on_cores(network, open_log, progress=heard.append)
    with closing(open_log()) as log:
        one = audit(network, log)
        book = Book(network, log)
    assert both.state_hash == one.state_hash == reference_hash()
    assert both.totals.readings == one.totals.readings
    assert [r.head for r in both.reports] == [r.head for r in one.reports]
    assert {(r.ledger, r.shard) for r in heard} == set(network.ledgers())
    # A tick stands in every partition; a batch is the shard's own.
    batches = book.lists[TELEMETRY_TOPIC, 1]
    ticks = set(book.lists[TELEMETRY_TOPIC, 0])
    at = next(number for number, value in enumerate(batches) if value not in ticks)
    changed = batches[at]
    tampered = tmp_path / "tampered.db"
    tampered.write_bytes((tmp_path / "ledger.db").read_bytes())
    _overwrite(tampered, TELEMETRY_TOPIC, 1, at, flipped(changed, len(changed) - 1))
    with pytest.raises(Diverged) as found:
        audit_on_cores(network, partial(SqliteLog, tampered, clock_us=_never))
    assert (found.value.name, found.value.ledger, found.value.shard) == (
        "run_digest",
        Ledger.METERING,
        1,
    )


def _overwrite(path: Path, topic: str, partition: int, offset: int, value: bytes) -> None:
    with closing(sqlite3.connect(path)) as database:
        rows = database.execute("SELECT key, value FROM record").fetchall()
        with closing(SqliteLog(path, clock_us=_never)) as log:
            old = log.read(topic, partition, offset, max_bytes=1).records[0].value
        (key,) = (key for key, found in rows if found == old)
        database.execute("UPDATE record SET value = ? WHERE key = ?", (value, key))
        database.commit()
