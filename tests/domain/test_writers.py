"""The keys that write the ledgers: appointed by the operator, taken over by each ledger (R6.7)."""

from __future__ import annotations

import hashlib

import pytest

from adapters.ed25519 import Signer, prove_writer, verify
from domain.commit import Ledger
from domain.ids import PublicKey
from domain.ledger import LEDGER_ID, RotateWriter, WriterAppointed, WriterRotated
from tests.support.market import SYNOR, World, key_of


def key(name: str) -> Signer:
    """A key that has no part in any network."""
    return Signer(hashlib.sha256(b"writer " + name.encode()).digest())


def rotation(world: World, ledger: int, new: Signer) -> RotateWriter:
    """What a careful operator sends."""
    proof = prove_writer(new, world.market.genesis_hash, ledger)
    return RotateWriter(ledger=int(ledger), writer=new.public, proof=proof)


def test_the_market_is_given_to_another_key_in_the_item_that_appoints_it() -> None:
    """It need not hear of it first."""
    world, new = World(), key("market")
    said = world.ok("operator", rotation(world, Ledger.MARKET, new))
    appointed = WriterAppointed(at_us=world.now, ledger=Ledger.MARKET, writer=new.public)
    assert list(said) == [appointed, WriterRotated(at_us=world.now, writer=new.public)]
    world.check_replay()


@pytest.mark.parametrize("ledger", [Ledger.METERING, Ledger.SETTLEMENT])
def test_another_ledger_is_given_away_by_an_event_of_its_own(ledger: Ledger) -> None:
    """The market says who is to write it, and goes on being written as before."""
    world, new = World(), key("next")
    (said,) = world.ok("operator", rotation(world, ledger, new))
    assert said == WriterAppointed(at_us=world.now, ledger=ledger, writer=new.public)


def test_a_key_that_had_a_part_in_the_network_does_not_become_a_writer() -> None:
    """Of any ledger: the writers of the genesis, former and present ones, and every signer."""
    world = World()
    world.open("alice", SYNOR)
    first, second = key("first"), key("second")
    world.ok("operator", rotation(world, Ledger.METERING, first))
    world.ok("operator", rotation(world, Ledger.METERING, second))
    genesis = world.market.genesis
    for ledger in Ledger:
        signers = (first.public, second.public, key_of("alice"), key_of("operator"))
        writers = (genesis.market_writer, genesis.metering_writer, genesis.settlement_writer)
        for writer in (*signers, *writers):
            command = RotateWriter(ledger=int(ledger), writer=writer, proof=bytes(64))
            assert world.refused("operator", command) == "writer_not_new"


@pytest.mark.parametrize("ledger", [-(2**63), -1, 0, 4, 256, 2**63 - 1])
def test_there_are_three_ledgers(ledger: int) -> None:
    """Any other number is refused, also one that has no place in what is signed."""
    world = World()
    command = RotateWriter(ledger=ledger, writer=key("any").public, proof=bytes(64))
    assert world.refused("operator", command) == "no_such_ledger"


def test_a_key_that_did_not_sign_for_this_ledger_is_not_its_writer() -> None:
    """For another ledger or network, by another key, cut off, or by a key that is weak."""
    world, new = World(), key("new")
    world.market.verify = verify
    here = world.market.genesis_hash
    wrong = (
        prove_writer(new, here, Ledger.MARKET),
        prove_writer(new, bytes(32), Ledger.METERING),
        prove_writer(key("other"), here, Ledger.METERING),
        prove_writer(new, here, Ledger.METERING)[:-1],
        b"",
    )
    for proof in wrong:
        command = RotateWriter(ledger=int(Ledger.METERING), writer=new.public, proof=proof)
        assert world.refused("operator", command) == "writer_not_proven"
    weak = RotateWriter(
        ledger=int(Ledger.METERING), writer=PublicKey(b"\x01" + bytes(31)), proof=bytes(64)
    )
    assert world.refused("operator", weak) == "writer_not_proven"
    world.ok("operator", rotation(world, Ledger.METERING, new))


def test_only_the_operator_says_who_writes() -> None:
    """And nobody else learns whether a key is known."""
    world = World()
    world.open("alice", SYNOR)
    for who in ("alice", "watcher"):
        command = rotation(world, Ledger.METERING, key("new"))
        assert world.refused(who, command) == "key_role_not_allowed"
    assert world.events(WriterAppointed) == []
    assert world.state(LEDGER_ID) is not None
