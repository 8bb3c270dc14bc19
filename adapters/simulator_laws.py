"""What must hold after every step of a simulation: the laws of the chain and of the money.

It reads the ledgers by itself, from the log, and believes no worker. A check costs by what the
step wrote: each record is judged, decoded and folded once, here for the laws and for all those who
want to see its events.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from adapters.bootstrap import Network, verify
from adapters.memory_log import MemoryLog
from adapters.simulator_l1 import SimulatedL1
from adapters.simulator_laws_in_force import InForce
from adapters.worker_reading import writer_of
from domain.account import ClaimSettled
from domain.catalogue import SHARES_1, VERSION_1, Catalogue
from domain.chain import ChainReader, Counted, LedgerStopped
from domain.checkpoint import CheckpointMade, PayoutsAdded
from domain.commit import LEDGER_TOPICS, CommitBody, InputRun, Ledger, RunDigest, unpack_event
from domain.epoch import EpochCut, Payable, PayablesAdded
from domain.journal import NOBODY, Place, Purse
from domain.lease import UsagePosted
from domain.ledger import WriterRotated
from projections.following import Position
from projections.totals import Totals

_WHOLE: Final = 1 << 40
_LEDGER_OF: Final = {topic: ledger for ledger, topic in LEDGER_TOPICS.items()}
_PRICES: Final = Catalogue(VERSION_1, SHARES_1)

Seat = tuple[Ledger, int]
See = Callable[[Ledger, int, Any], None]


class Violation(Exception):
    """A law that does not hold; the text has the figures."""

    def __init__(self, law: str, why: str) -> None:
        """Name the law."""
        super().__init__(f"{law}: {why}")
        self.law = law
        self.why = why


@dataclass(slots=True)
class _Ledger:
    """One ledger as the laws have read it."""

    seat: Seat
    chain: ChainReader
    next_offset: int = 0
    #: By height: the offset and the hash of the record that counts.
    counted: list[tuple[int, bytes]] | None = None
    time_us: int = 0
    events: int = 0

    def commits(self) -> list[tuple[int, bytes]]:
        if self.counted is None:
            self.counted = []
        return self.counted


class Laws:
    """Reads every ledger on, and says what is broken."""

    def __init__(self, network: Network, log: MemoryLog, see: Sequence[See]) -> None:
        """``see`` are those who want every event, in the order of its ledger."""
        self._network = network
        self._log = log
        self._see = tuple(see)
        self._ledgers = {seat: _Ledger(seat, self.new_chain(seat)) for seat in network.ledgers()}
        self._consumed: dict[tuple[Seat, str, int], int] = {}
        self._followed: dict[tuple[str, str], Position] = {}
        self._payable: dict[bytes, int] = {}
        self._claimed: dict[bytes, int] = {}
        self._parts: list[Any] = []
        self._lines: dict[tuple[bytes, str], tuple[int, int]] = {}
        self.balances: dict[Place, int] = {}
        self.totals = Totals()
        self._in_force = InForce(network.genesis.rules_version)
        #: What each epoch's checkpoint lets every account claim in all.
        self.payouts: dict[int, dict[bytes, int]] = {0: {}}
        self.checkpoints: dict[int, bytes] = {}
        self.commits = 0
        self.events = 0
        #: Events by kind: a market in which nothing happens breaks no law.
        self.kinds: Counter[str] = Counter()
        self.records = 0

    def new_chain(self, seat: Seat) -> ChainReader:
        """A reader of a ledger, before its first record."""
        return ChainReader(
            genesis=self._network.hash,
            ledger=seat[0],
            shard=seat[1],
            writer=writer_of(self._network.genesis, seat[0]),
            verify=verify,
        )

    @property
    def noise(self) -> int:
        """Records on ledgers that do not count."""
        return self.records - self.commits

    def height(self, seat: Seat) -> int:
        """The head of a ledger."""
        return self._ledgers[seat].chain.height

    def consumed(self, seat: Seat, topic: str, partition: int) -> int:
        """The offset up to which a ledger's commits have consumed a partition."""
        return self._consumed.get((seat, topic, partition), 0)

    # The chain

    def look(self) -> None:
        """Read what was written since the last look. Raises ``Violation``."""
        fresh: list[tuple[_Ledger, Counted, CommitBody]] = []
        for ledger in self._ledgers.values():
            topic, shard = LEDGER_TOPICS[ledger.seat[0]], ledger.seat[1]
            if self._log.end(topic, shard) == ledger.next_offset:
                continue
            fetched = self._log.read(topic, shard, ledger.next_offset, max_bytes=_WHOLE)
            for record in fetched.records:
                self.records += 1
                try:
                    verdict = ledger.chain.judge(record)
                except LedgerStopped as stopped:
                    raise Violation("no ledger forks", str(stopped)) from stopped
                if isinstance(verdict, Counted):
                    fresh.append((ledger, verdict, self._count(ledger, verdict)))
            ledger.next_offset = fetched.next_offset
        for ledger, counted, body in fresh:
            self._take(ledger, counted, body)

    def _count(self, ledger: _Ledger, counted: Counted) -> CommitBody:
        known = ledger.commits()
        height = counted.envelope.height
        before = known[-1][1] if known else bytes(32)
        if height != len(known) or counted.envelope.previous != before:
            _broken(
                "one record counts at each height",
                f"{_named(ledger.seat)} has height {height} after {len(known) - 1}",
            )
        known.append((counted.offset, counted.hash))
        return self.body_of(ledger.chain, counted)

    def body_of(self, chain: ChainReader, counted: Counted) -> CommitBody:
        """What a commit says; the reader of its ledger follows a new writer."""
        codec = self._network.codec
        body = codec.decode(CommitBody, counted.body)
        for event in map(unpack_event, body.events):
            if event.schema == codec.number(WriterRotated):
                chain.writer = codec.decode(WriterRotated, event.payload).writer
        return body

    def _take(self, ledger: _Ledger, counted: Counted, body: CommitBody) -> None:
        self.commits += 1
        codec = self._network.codec
        if counted.parts() is None:
            _broken("bulk hashes as its envelope says", _named(ledger.seat))
        height = counted.envelope.height
        if body.time_us < ledger.time_us:
            why = f"{_named(ledger.seat)} {height}: {body.time_us} after {ledger.time_us}"
            _broken("a ledger's time never falls", why)
        ledger.time_us = body.time_us
        for run in body.runs:
            self._check_run(ledger, height, run)
        ledger.events += len(body.events)
        if body.tree_size != ledger.events:
            why = f"{_named(ledger.seat)} {height}: {body.tree_size}, not {ledger.events}"
            _broken("the tree has every event once", why)
        events = []
        for data in body.events:
            recorded = unpack_event(data)
            event = codec.decode(codec.kind(recorded.schema), recorded.payload)
            events.append(event)
            self.events += 1
            self.kinds[type(event).__name__] += 1
            self._check_event(ledger.seat, event)
            for see in self._see:
                see(*ledger.seat, event)
        broken = self._in_force.commit(ledger.seat, height, body.rules_version, body.runs, events)
        if broken is not None:
            _broken(broken[0], f"{_named(ledger.seat)} {height}: {broken[1]}")
        if ledger.seat[0] is Ledger.MARKET:
            self._check_sums(height)

    def _check_run(self, ledger: _Ledger, height: int, run: InputRun) -> None:
        """Each run begins where the last one ended and names what stands there, to the byte."""
        where = f"{_named(ledger.seat)} {height} over {run.topic}[{run.partition}]"
        key = (ledger.seat, run.topic, run.partition)
        expected = self._consumed.get(key, 0)
        if run.first != expected:
            _broken("each input is consumed once", f"{where}: from {run.first}, not {expected}")
        end = self._log.end(run.topic, run.partition)
        if not run.first <= run.next <= end:
            _broken("what is consumed is there", f"{where}: to {run.next}, the log ends at {end}")
        digest, count = RunDigest(), 0
        if run.next > run.first:
            fetched = self._log.read(run.topic, run.partition, run.first, max_bytes=_WHOLE)
            for record in fetched.records:
                if record.offset < run.next:
                    digest.add(record)
                    count += 1
        if count != run.count or digest.digest() != run.digest:
            _broken("a run names what was read", f"{where}: {run.count} records, found {count}")
        self._consumed[key] = run.next
        foreign = _LEDGER_OF.get(run.topic)
        if foreign is None or run.height < 0:
            return
        commits = self._ledgers[foreign, run.partition].commits()
        there = commits[run.height] if run.height < len(commits) else (-1, b"")
        after = commits[run.height + 1][0] if run.height + 1 < len(commits) else run.next
        if there[1] != run.hash or not there[0] < run.next <= after:
            _broken(
                "a run over a ledger names its last counting commit",
                f"{where}: height {run.height}, offsets to {run.next}",
            )

    # The money

    def _check_event(self, seat: Seat, event: Any) -> None:
        postings = getattr(event, "postings", ())
        if postings:
            self._post(seat, event, postings)
        match event:
            case UsagePosted():
                self._check_usage(event)
            case EpochCut() | PayablesAdded():
                for payable in event.payables:
                    self._check_payable(payable)
                if isinstance(event, EpochCut):
                    self._check_cut(event)
            case ClaimSettled():
                before = self._claimed.get(event.account, 0)
                due = self._payable.get(event.account, 0)
                if not before + event.amount_nano == event.cumulative_nano <= due:
                    why = f"{before} + {event.amount_nano} is {event.cumulative_nano}, due {due}"
                    _broken("a claim pays what is due, once", f"{event.account.hex()}: {why}")
                self._claimed[event.account] = event.cumulative_nano
            case PayoutsAdded():
                self._parts += event.payouts
            case CheckpointMade():
                payouts = dict(self.payouts[event.epoch - 1])
                for leaf in (*self._parts, *event.payouts):
                    if leaf.cumulative_nano < payouts.get(leaf.account, 0):
                        why = f"{leaf.account.hex()} in epoch {event.epoch}"
                        _broken("a cumulative payout never falls", why)
                    payouts[leaf.account] = leaf.cumulative_nano
                self._parts = []
                self.payouts[event.epoch] = payouts
                self.checkpoints[event.epoch] = event.checkpoint
            case _:
                pass
        self.totals.see(*seat, event)

    def _post(self, seat: Seat, event: Any, postings: Sequence[Any]) -> None:
        kind = type(event).__name__
        if seat[0] is not Ledger.MARKET:
            _broken("all money is posted in the market ledger", f"{kind} in {_named(seat)}")
        total = sum(posting.amount_nano for posting in postings)
        if total != 0:
            _broken("postings sum to zero", f"those of {kind} sum to {total} nano")
        touched: set[Place] = set()
        for posting in postings:
            place: Place = (posting.purse, posting.owner)
            self.balances[place] = self.balances.get(place, 0) + posting.amount_nano
            touched.add(place)
        for place in touched:
            nano = self.balances[place]
            if nano < 0 and place[0] is not Purse.EXTERNAL:
                why = f"{place[0].value} {place[1].hex()} stands at {nano} nano after {kind}"
                _broken("no account but the L1's is negative", why)

    def _check_usage(self, event: UsagePosted) -> None:
        """What was charged and posted never falls, and is split by the cumulative rule (R1.5)."""
        protocol = 0
        for line in event.lines:
            key = (event.lease, line.resource)
            posted, before = self._lines.get(key, (0, 0))
            if line.posted_nano < posted:
                why = f"{line.resource} of {event.lease.hex()}: {line.posted_nano} after {posted}"
                _broken("a cumulative charge never falls", why)
            row = _PRICES.row(line.resource)
            assert row is not None, "a lease is charged for catalogue resources"
            share = _PRICES.share(row)
            due = line.posted_nano * share.protocol_num // share.protocol_den
            if line.protocol_nano != due:
                why = f"{line.resource}: {line.protocol_nano} of {line.posted_nano}, not {due}"
                _broken("a charge is split by the rule", why)
            protocol += due - before
            self._lines[key] = (line.posted_nano, due)
        charged = -sum(
            p.amount_nano
            for p in event.postings
            if p.purse in (Purse.ESCROW_ALLOCATED, Purse.ESCROW_USAGE)
        )
        if charged != event.provider_nano + event.protocol_nano:
            why = f"{charged} nano left the escrows, {event.provider_nano} + {event.protocol_nano}"
            _broken("what leaves an escrow is somebody's", why)
        if not event.final and protocol != event.protocol_nano:
            why = f"lines come to {protocol}, posted were {event.protocol_nano}"
            _broken("the protocol gets what the lines say", why)

    def _check_payable(self, payable: Payable) -> None:
        before = self._payable.get(payable.account, 0)
        if before + payable.added_nano != payable.cumulative_nano or payable.added_nano < 0:
            why = f"{before} + {payable.added_nano} is {payable.cumulative_nano}"
            _broken("a cumulative payable never falls", f"{payable.account.hex()}: {why}")
        self._payable[payable.account] = payable.cumulative_nano

    def _check_cut(self, cut: EpochCut) -> None:
        sums = (sum(self._claimed.values()), sum(self._payable.values()), self.totals.deposited)
        said = (cut.paid_nano, cut.authorised_nano, cut.deposited_nano)
        if said != sums or not sums[0] <= sums[1] <= sums[2]:
            why = f"epoch {cut.number}: said {said}, found {sums}"
            _broken("paid ≤ authorised ≤ deposited", why)

    def _check_sums(self, height: int) -> None:
        """Everything deposited and not claimed is somewhere in the ledger."""
        outside = self.balances.get((Purse.EXTERNAL, NOBODY), 0)
        inside = self.totals.deposited - self.totals.claimed
        if outside + inside != 0:
            why = f"market {height}: the L1 stands at {outside}, deposits less claims are {inside}"
            _broken("everything deposited is somewhere", why)

    # Those who follow

    def check_position(self, reader: str, seat: Seat, position: Position) -> None:
        """A projection is never ahead of its ledger, on another branch of it, or going back."""
        before = self._followed.get((reader, position.application))
        commits = self._ledgers[seat].commits()
        if before is not None and (position.height, position.next_offset) < (
            before.height,
            before.next_offset,
        ):
            why = f"{position.application}: {position.height} after {before.height}"
            _broken("a reader's position never falls", why)
        if position.height >= len(commits):
            why = f"{position.application} is at {position.height}, the ledger at {len(commits)}"
            _broken("a projection is not ahead of its ledger", why)
        if position.height >= 0 and commits[position.height][1] != position.hash:
            _broken("a projection follows its ledger", f"{position.application} is elsewhere")
        self._followed[reader, position.application] = position

    def check_l1(self, chain: SimulatedL1, signed: Callable[[], set[bytes]]) -> None:
        """The vault's numbers, one nonce for an epoch, and nothing broadcast that was not kept."""
        vault = chain.vault
        if not vault.paid <= vault.authorised <= vault.deposited:
            why = f"{vault.paid}, {vault.authorised}, {vault.deposited}"
            _broken("paid ≤ authorised ≤ deposited on the L1", why)
        if chain.reverted:
            _broken("no checkpoint is refused by the vault", f"epochs {chain.reverted}")
        for epoch, nonces in chain.nonces.items():
            if len(nonces) > 1:
                why = f"epoch {epoch} was sent at nonces {sorted(nonces)}"
                _broken("a checkpoint is anchored once", why)
        for epoch, anchored in vault.anchored.items():
            if self.checkpoints.get(epoch) != anchored:
                _broken("what is anchored was made", f"epoch {epoch}: {anchored.hex()}")
        if self.totals.deposited > vault.deposited or self.totals.claimed > vault.paid:
            why = (
                f"deposits {self.totals.deposited} of {vault.deposited}, "
                f"claims {self.totals.claimed} of {vault.paid}"
            )
            _broken("the ledger credits what is on the L1", why)
        if chain.received:
            unknown = set(chain.received) - signed()
            chain.received.clear()
            if unknown:
                why = f"{len(unknown)} transactions that the outbox does not have"
                _broken("what is broadcast was written down before", why)


def _broken(law: str, why: str) -> NoReturn:
    raise Violation(law, why)


def _named(seat: Seat) -> str:
    return f"{seat[0].name.lower()} {seat[1]}"
