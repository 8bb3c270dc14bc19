"""The read models of ledgers that the real processors wrote."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from fastapi.testclient import TestClient
from sqlalchemy import select

from adapters import api_reads, bootstrap
from adapters.api import Service, create_app
from adapters.projector import Projector
from adapters.read_model import ReadModel
from domain.bid import BidPlaced
from domain.commit import Ledger
from domain.journal import Balances
from domain.lease import LeaseReady
from domain.node import NodeRegistered
from domain.offer import OfferPlaced
from domain.ports import Log
from projections.order_book import OrderBook
from projections.tables import ANSWER, BALANCE, BID, LEASE, OFFER
from tests.projections.plain import assert_equal, events_of
from tests.system.reference import reference

Open = Callable[[], ReadModel]

#: Events that only a command can make, so each belongs to one answer.
COMMANDED = (BidPlaced, OfferPlaced, NodeRegistered, LeaseReady)


@dataclass(frozen=True)
class _System:
    network: bootstrap.Network
    log: Log

    @property
    def shards(self) -> int:
        return self.network.shards

    def open_log(self) -> Log:
        return self.log


def _projected(read_model: ReadModel) -> _System:
    system = reference()
    network = system.network
    read_model.prepare(network.hash)
    Projector(
        log=system.log,
        target=read_model,
        codec=network.codec,
        verify=bootstrap.verify,
        genesis=network.genesis,
        genesis_hash=network.hash,
        shards=network.shards,
    ).catch_up()
    return _System(network, system.log)


def test_real_ledgers_give_the_rows_of_a_plain_fold(open_read_model: Open) -> None:
    """Every event of the processors finds the rows that it names."""
    read_model = open_read_model()
    system = _projected(read_model)
    with read_model.reading() as connection:
        assert_equal(system, connection)


def test_balances_and_book_are_those_of_the_real_market(open_read_model: Open) -> None:
    """By the folds that the market itself decides with."""
    read_model = open_read_model()
    system = _projected(read_model)
    balances, book = Balances(), OrderBook()
    for _, _, event in events_of(system, Ledger.MARKET, 0):
        balances.post(getattr(event, "postings", ()))
        book.apply(event)
    with read_model.reading() as connection:
        rows = connection.execute(select(BALANCE.c.purse, BALANCE.c.owner, BALANCE.c.amount_nano))
        assert {(purse, owner): nano for purse, owner, nano in rows} == {
            (purse.value, owner): nano for (purse, owner), nano in balances.all().items()
        }
        bids = connection.execute(select(BID.c.bid, BID.c.open_lots).filter_by(state="RESTING"))
        for bid, open_lots in bids:
            resting = book.bid(bid)
            assert resting is not None
            assert resting.open_lots == open_lots
        offers = connection.execute(
            select(OFFER.c.offer, OFFER.c.leased_milli).filter_by(state="RESTING")
        )
        for offer, leased in offers:
            ask = book.ask(offer)
            assert ask is not None
            assert ask.taken_milli == leased
        left = connection.execute(select(LEASE.c.lease).filter_by(state="CLOSED"))
        for (lease,) in left:
            assert not connection.execute(select(BALANCE).filter_by(owner=lease)).all()


def test_each_commanded_event_is_told_by_the_answer_to_its_command(open_read_model: Open) -> None:
    """Nobody is told of another's events, and nothing is left untold."""
    read_model = open_read_model()
    system = _projected(read_model)
    told: Counter[int] = Counter()
    with read_model.reading() as connection:
        for answer in connection.execute(select(ANSWER).filter_by(ledger=1, code=0)).mappings():
            events = api_reads.events_of(connection, dict(answer))
            told.update(event["position"] for event in events)
            assert events or answer["kind"] in SILENT, answer["kind"]
    for at, _, event in events_of(system, Ledger.MARKET, 0):
        if isinstance(event, COMMANDED):
            assert told[at.position] == 1, event
    assert set(told.values()) == {1}


#: Commands that may be accepted without an event of their own.
SILENT: frozenset[str] = frozenset()


def test_every_page_and_proof_of_a_real_ledger_is_served(open_read_model: Open) -> None:
    """What was paid on the L1 is what the proofs say."""
    read_model = open_read_model()
    system = _projected(read_model)
    network = system.network
    service = Service(
        read_model=read_model,
        genesis=network.genesis,
        genesis_hash=network.hash,
        shards=network.shards,
        codec=network.codec,
        verify=bootstrap.verify,
    )
    client = TestClient(create_app(service), base_url="http://127.0.0.1")
    for path in ("/", "/book", "/leases", "/providers", "/accounts", "/epochs"):
        assert client.get(path).status_code == 200
    for lease in client.get("/v1/leases").json()["items"]:
        assert client.get(f"/leases/{lease['lease']}").status_code == 200
    payables = client.get("/v1/payables?limit=200").json()["items"]
    assert payables
    for payable in payables:
        path = f"/v1/epochs/{payable['epoch']}/proof/{payable['account']}"
        proof = client.get(path).json()["proof"]
        assert int(proof["cumulative_nano"]) == int(payable["cumulative_nano"])
