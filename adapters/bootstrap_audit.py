"""The audit beyond one process and beyond the log: on several cores, and against the L1."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Event
from typing import Final

from adapters.audit import Diverged, LedgerReport, Verdict
from adapters.avro_codec import AvroCodec
from adapters.bootstrap import Network, concluded, ledger_audit
from adapters.fastavro_witness import TELEMETRY_ONE_IN
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
#: How often another process says how far it is.
TELL_EVERY_S: Final = 0.25
_POLL_S: Final = 0.1


def audit_on_cores(
    network: Network,
    open_log: OpenLog,
    *,
    jobs: int = 2,
    every: int = TELEMETRY_ONE_IN,
    progress: Progress | None = None,
) -> Verdict:
    """``bootstrap.audit`` with the shards and settlement in other processes.

    The market, which is the longest, stays here. Raises ``Diverged`` at a fault of any ledger;
    ``progress`` hears of the market commit by commit, and of the others a few times a second.
    """
    totals = Totals()
    reports: dict[tuple[Ledger, int], LedgerReport] = {}
    states: dict[tuple[Ledger, int], DictStates] = {}
    genesis = network.codec.encode(network.genesis)
    # A forked child would share open files and threads with its parent; a spawned one has none.
    context = get_context("spawn")
    told: SimpleQueue[LedgerReport] = context.SimpleQueue()
    stop = context.Event()

    def listen() -> None:
        while not told.empty():
            report = told.get()
            if progress is not None:
                progress(report)

    with ProcessPoolExecutor(
        max(jobs - 1, 1), mp_context=context, initializer=_tell_to, initargs=(told, stop)
    ) as pool:
        others = {
            pool.submit(_audit_one, open_log, genesis, network.shards, ledger, shard, every)
            for ledger, shard in network.ledgers()
            if ledger is not Ledger.MARKET
        }
        try:
            with closing(open_log()) as log:
                one = ledger_audit(network, log, Ledger.MARKET, 0, totals.see, every=every)
                for report in one.run():
                    listen()
                    if progress is not None:
                        progress(report)
            while others:
                done, others = wait(others, timeout=_POLL_S, return_when=FIRST_COMPLETED)
                listen()
                for each in done:
                    found = each.result()
                    if found.fault is not None:
                        raise _diverged(*found.fault)
                    seat = found.report.ledger, found.report.shard
                    reports[seat], states[seat] = found.report, found.states
                    totals.add(found.totals)
                    if progress is not None:
                        progress(found.report)
        finally:
            stop.set()
            others = {each for each in others if not each.cancel()}
            while others:
                # A process that tells would wait for ever on a queue that nobody empties.
                _, others = wait(others, timeout=_POLL_S)
                while not told.empty():
                    told.get()
    market = one.processor
    assert isinstance(market, Market)
    reports[Ledger.MARKET, 0], states[Ledger.MARKET, 0] = one.report, one.states
    in_order = [reports[seat] for seat in network.ledgers()]
    return concluded(market, in_order, {seat: states[seat] for seat in network.ledgers()}, totals)


@dataclass(slots=True)
class _Parent:
    """In another process: where its reports go, and whether anybody still waits for it."""

    told: SimpleQueue[LedgerReport] | None = None
    stop: Event | None = None


_parent = _Parent()


def _tell_to(told: SimpleQueue[LedgerReport], stop: Event) -> None:
    _parent.told, _parent.stop = told, stop


_Fault = tuple[str, Ledger, int, int, int, str, str]


@dataclass(frozen=True, slots=True)
class _One:
    """What another process found of one ledger. A fault travels as its parts."""

    report: LedgerReport
    states: DictStates
    totals: Totals
    fault: _Fault | None = None


def _audit_one(
    open_log: OpenLog, genesis: bytes, shards: int, ledger: Ledger, shard: int, every: int
) -> _One:
    codec = AvroCodec()
    network = Network(
        codec.decode(Genesis, genesis), Hash32(hashlib.sha256(genesis).digest()), shards, codec
    )
    totals = Totals()
    with closing(open_log()) as log:
        one = ledger_audit(network, log, ledger, shard, totals.see, every=every)
        try:
            told_at = time.monotonic()
            for report in one.run():
                now = time.monotonic()
                if now - told_at > TELL_EVERY_S and _parent.told is not None:
                    told_at = now
                    _parent.told.put(report)
                    if _parent.stop is not None and _parent.stop.is_set():
                        break
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


def check_anchors(verdict: Verdict, chain: L1Chain, *, at_least: int | None = None) -> Anchors:
    """Compare a clean ledger with the vault. Raises ``Diverged`` (``anchor``, ``truncated``).

    ``at_least`` is how many epochs the vault held before the ledger was read: a ledger that lives
    goes on while it is audited. Without it the vault is taken as it is now.

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
    held_before = vault.last_epoch if at_least is None else at_least
    if held_before > last:
        raise diverged(
            "truncated", "epoch", f"the vault holds {held_before} epochs, the ledger {last}"
        )
    if max(totals.seen, default=0) > vault.last_epoch:
        raise diverged(
            "anchor",
            "epoch",
            f"the ledger saw epoch {max(totals.seen)} anchored, the vault has {vault.last_epoch}",
        )
    compared = min(vault.last_epoch, last)
    for epoch in range(1, compared + 1):
        held, made = chain.anchored(epoch), totals.made[epoch].checkpoint
        if held != made:
            shown = "nothing" if held is None else held.hex()
            raise diverged("anchor", f"epoch {epoch}", f"the vault has {shown}, not {made.hex()}")
    authorised = totals.made[compared].authorised_nano if compared else 0
    if compared == vault.last_epoch and vault.authorised_nano != authorised:
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
        checkpoints=compared,
        waiting=last - compared,
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
