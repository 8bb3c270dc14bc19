"""The audit beyond one process and beyond the log: on several cores, and against the L1."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass
from multiprocessing import get_context

from adapters.audit import Diverged, LedgerReport, Verdict
from adapters.avro_codec import AvroCodec
from adapters.bootstrap import Network, concluded, ledger_audit
from domain.commit import Ledger
from domain.genesis import Genesis
from domain.ids import AccountId, Hash32
from domain.l1 import L1Chain, L1Error, account_word
from domain.market import Market
from domain.ports import Log
from domain.processor import DictStates
from projections.totals import Totals

#: Opens the log anew; travels to another process, so it is a function or a ``partial`` of one.
OpenLog = Callable[[], Log]
Progress = Callable[[LedgerReport], None]


def audit_on_cores(
    network: Network, open_log: OpenLog, *, jobs: int = 2, progress: Progress | None = None
) -> Verdict:
    """``bootstrap.audit`` with the shards and settlement in other processes.

    The market, which is the longest, stays here. Raises ``Diverged`` at a fault of any ledger;
    ``progress`` hears of the market commit by commit, and of the others when they are through.
    """
    totals = Totals()
    reports: dict[tuple[Ledger, int], LedgerReport] = {}
    states: dict[tuple[Ledger, int], DictStates] = {}
    genesis = network.codec.encode(network.genesis)
    # A forked child would share open files and threads with its parent; a spawned one has none.
    with ProcessPoolExecutor(max(jobs - 1, 1), mp_context=get_context("spawn")) as pool:
        others = [
            pool.submit(_audit_one, open_log, genesis, network.shards, ledger, shard)
            for ledger, shard in network.ledgers()
            if ledger is not Ledger.MARKET
        ]
        try:
            with closing(open_log()) as log:
                one = ledger_audit(network, log, Ledger.MARKET, 0, totals.see)
                for report in one.run():
                    if progress is not None:
                        progress(report)
            for done in as_completed(others):
                found = done.result()
                if found.fault is not None:
                    raise _diverged(*found.fault)
                seat = found.report.ledger, found.report.shard
                reports[seat], states[seat] = found.report, found.states
                totals.add(found.totals)
                if progress is not None:
                    progress(found.report)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    market = one.processor
    assert isinstance(market, Market)
    reports[Ledger.MARKET, 0], states[Ledger.MARKET, 0] = one.report, one.states
    in_order = [reports[seat] for seat in network.ledgers()]
    return concluded(market, in_order, {seat: states[seat] for seat in network.ledgers()}, totals)


_Fault = tuple[str, Ledger, int, int, int, str, str]


@dataclass(frozen=True, slots=True)
class _One:
    """What another process found of one ledger. A fault travels as its parts."""

    report: LedgerReport
    states: DictStates
    totals: Totals
    fault: _Fault | None = None


def _audit_one(open_log: OpenLog, genesis: bytes, shards: int, ledger: Ledger, shard: int) -> _One:
    codec = AvroCodec()
    network = Network(
        codec.decode(Genesis, genesis), Hash32(hashlib.sha256(genesis).digest()), shards, codec
    )
    totals = Totals()
    with closing(open_log()) as log:
        one = ledger_audit(network, log, ledger, shard, totals.see)
        try:
            for _ in one.run():
                pass
        except Diverged as diverged:
            return _One(one.report, DictStates(), totals, _parts(diverged))
    return _One(one.report, one.states, totals)


def _parts(diverged: Diverged) -> _Fault:
    return (
        diverged.name,
        diverged.ledger,
        diverged.shard,
        diverged.height,
        diverged.offset,
        diverged.at,
        diverged.why,
    )


def _diverged(
    name: str, ledger: Ledger, shard: int, height: int, offset: int, at: str, why: str
) -> Diverged:
    return Diverged(name, ledger, shard, height, offset, at, why)


# The L1


@dataclass(frozen=True, slots=True)
class Anchors:
    """What a comparison with the L1 found to be equal."""

    checkpoints: int
    waiting: int
    deposited_nano: int
    authorised_nano: int
    paid_nano: int
    #: Whether the deposits were compared at the block that the ledger has observed last. An
    #: endpoint that keeps no old state only allows the comparison with the head.
    at_observed_block: bool


def check_anchors(verdict: Verdict, chain: L1Chain) -> Anchors:
    """Compare a clean ledger with the vault. Raises ``Diverged`` (``anchor``, ``truncated``).

    Every anchored checkpoint is the one that the ledger makes, the vault holds none that the
    ledger does not make, paid ≤ authorised ≤ deposited in the vault, and the vault's deposits and
    payments are at least those that the ledger says it has seen: exactly those, for deposits, at
    the block before the last one that the ledger took anything from.
    """
    totals = verdict.totals
    report = next(each for each in verdict.reports if each.ledger is Ledger.SETTLEMENT)

    def diverged(name: str, at: str, why: str) -> Diverged:
        return Diverged(name, Ledger.SETTLEMENT, 0, report.commits - 1, report.offset - 1, at, why)

    vault = chain.totals()
    last = max(totals.made, default=0)
    if vault.last_epoch > last:
        raise diverged(
            "truncated", "epoch", f"the vault holds {vault.last_epoch} epochs, the ledger {last}"
        )
    if max(totals.seen, default=0) > vault.last_epoch:
        raise diverged(
            "anchor",
            "epoch",
            f"the ledger saw epoch {max(totals.seen)} anchored, the vault has {vault.last_epoch}",
        )
    for epoch in range(1, vault.last_epoch + 1):
        held, made = chain.anchored(epoch), totals.made[epoch].checkpoint
        if held != made:
            shown = "nothing" if held is None else held.hex()
            raise diverged("anchor", f"epoch {epoch}", f"the vault has {shown}, not {made.hex()}")
    authorised = totals.made[vault.last_epoch].authorised_nano if vault.last_epoch else 0
    if vault.authorised_nano != authorised:
        raise diverged("anchor", "authorised", f"{vault.authorised_nano}, the ledger {authorised}")
    if not vault.paid_nano <= vault.authorised_nano <= vault.deposited_nano:
        raise diverged(
            "anchor",
            "totals",
            f"paid {vault.paid_nano} ≤ authorised {vault.authorised_nano} ≤ deposited "
            f"{vault.deposited_nano} does not hold",
        )
    for name, on_chain, ours in (
        ("deposited", vault.deposited_nano, totals.deposited),
        ("paid", vault.paid_nano, totals.claimed),
    ):
        if on_chain < ours:
            raise diverged("anchor", name, f"{on_chain} in the vault, the ledger has {ours}")
    for account, ours in totals.claims.items():
        on_chain = chain.claimed_nano(account_word(AccountId(account)))
        if on_chain < ours:
            raise diverged(
                "anchor", f"claims of {account.hex()}", f"{on_chain} in the vault, not {ours}"
            )
    return Anchors(
        checkpoints=vault.last_epoch,
        waiting=last - vault.last_epoch,
        deposited_nano=vault.deposited_nano,
        authorised_nano=vault.authorised_nano,
        paid_nano=vault.paid_nano,
        at_observed_block=_deposits_are_exact(totals, chain, diverged),
    )


def _deposits_are_exact(
    totals: Totals, chain: L1Chain, diverged: Callable[[str, str, str], Diverged]
) -> bool:
    """Of the last observed block the ledger may have taken a part; of those before it, all."""
    number = totals.observed_block - 1
    if number < chain.config.start.number:
        return True
    try:
        block = chain.block(number)
        if block is None:
            raise diverged("anchor", "block", f"the L1 has no block {number}, which was observed")
        on_chain = chain.totals(block.hash).deposited_nano
    except L1Error:
        return False
    ours = sum(nano for at, nano in totals.deposits_by_block.items() if at <= number)
    if on_chain != ours:
        raise diverged(
            "anchor", "deposited", f"{on_chain} in the vault at block {number}, the ledger {ours}"
        )
    return True
