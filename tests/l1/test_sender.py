"""Each checkpoint is anchored exactly once, whatever dies, lies or overtakes."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from adapters.evm_chain import EvmChain
from adapters.evm_keccak import keccak
from adapters.evm_keys import LocalSigner, Unsigned
from adapters.evm_outbox import Outbox, OutboxInUse
from adapters.evm_rpc import Rpc
from adapters.evm_sender import EvmSender, FeePolicy
from adapters.evm_vault import call_data, propose_data
from domain.ids import Hash32
from domain.l1 import (
    ChainBehind,
    Checkpoint,
    CheckpointFork,
    Depth,
    ForeignNonce,
    L1Error,
    PinMismatch,
    SendState,
    checkpoint_hash,
)
from tests.l1.faults import FaultyOutbox, FaultyProvider, Fuse, Killed
from tests.l1.scene import SYNOR, Scene, chain_of, payout, proposals, scene

FEES = FeePolicy()
PROPOSER = keccak(b"PROPOSER_ROLE")


@pytest.fixture
def made() -> Iterator[Scene]:
    """A fresh chain with a vault."""
    with scene() as one:
        yield one


def _sender(
    scene: Scene,
    outbox: Outbox,
    *,
    provider: FaultyProvider | None = None,
    confirmations: int = 0,
    fees: FeePolicy = FEES,
) -> EvmSender:
    rpc = scene.chain.rpc if provider is None else Rpc(provider)
    config = replace(scene.chain.config, finality=Depth(confirmations=confirmations))
    return EvmSender(rpc, EvmChain(rpc, config), scene.chain.proposer, outbox, fees)


def _as_admin(scene: Scene, signature: str, *arguments: object) -> None:
    admin = scene.wallet(scene.chain.faucet)
    admin.send(scene.chain.config.vault, call_data(signature, *arguments))


def test_checkpoints_are_anchored_in_order_in_one_turn(made: Scene) -> None:
    """On a chain that mines at once, one turn takes all of them to FINAL."""
    sender = _sender(made, Outbox(None))
    hashes = [sender.propose(checkpoint) for checkpoint in chain_of(3)]

    changed = sender.advance()

    assert [(s.epoch, s.hash, s.state) for s in changed] == [
        (epoch, made_hash, SendState.FINAL) for epoch, made_hash in enumerate(hashes, start=1)
    ]
    assert proposals(made.evm) == list(enumerate(hashes, start=1))
    assert sender.advance() == []


def test_proposing_again_changes_nothing_and_another_version_is_a_fork(made: Scene) -> None:
    """The outbox is keyed by the checkpoint's hash and holds one per epoch."""
    sender = _sender(made, Outbox(None))
    (checkpoint,) = chain_of(1)
    assert sender.propose(checkpoint) == sender.propose(checkpoint)
    with pytest.raises(CheckpointFork):
        sender.propose(replace(checkpoint, state_root=Hash32(bytes(32))))
    sender.advance()
    sender.propose(checkpoint)
    assert sender.advance() == []


@pytest.mark.parametrize("late", [False, True], ids=["not done", "done, answer lost"])
@pytest.mark.parametrize("restart", [False, True], ids=["same process", "restarted"])
def test_dying_at_any_step_anchors_exactly_once(
    made: Scene, tmp_path: Path, late: bool, restart: bool
) -> None:
    """Every question to the node and every write of the outbox is a place to die."""
    hashes: list[Hash32] = []
    checkpoints = chain_of(80)
    at = 0
    survived = False
    while not survived:
        at += 1
        checkpoint = checkpoints[at - 1]
        # Only the turn of the sender is cut short; making it asks the pins, which is tested apart.
        fuse = Fuse(at=0, late=late)
        path = tmp_path / f"outbox-{at}.db"
        outbox = FaultyOutbox(path, fuse)
        provider = FaultyProvider(made.chain.node, fuse)
        sender = _sender(made, outbox, provider=provider)
        hashes.append(sender.propose(checkpoint))
        fuse.steps, fuse.at = 0, at
        try:
            sender.advance()
            survived = fuse.steps < at
        except (L1Error, Killed):
            pass
        fuse.at = 0
        if restart:
            outbox.close()
            outbox = FaultyOutbox(path, Fuse(at=0, late=False))
            sender = _sender(made, outbox)
        sender.advance()
        found = sender.sending(hashes[-1])
        assert found is not None
        assert found.state is SendState.FINAL, f"died at step {at}"
        assert len(outbox.attempts(hashes[-1], found.nonce or 0)) == 1, f"died at step {at}"
        assert len(set(provider.sent)) <= 1
        outbox.close()
    assert at > 12
    assert proposals(made.evm) == list(enumerate(hashes, start=1))
    assert made.chain.rpc.nonce(made.chain.proposer.address) == len(hashes)


def test_a_checkpoint_is_final_only_under_its_confirmations(made: Scene) -> None:
    """INCLUDED is reported, and the next checkpoint waits for it."""
    sender = _sender(made, Outbox(None), confirmations=2)
    first, second = (sender.propose(checkpoint) for checkpoint in chain_of(2))
    assert [s.state for s in sender.advance()] == [SendState.INCLUDED]
    made.chain.mine()
    assert sender.advance() == []
    made.chain.mine()
    assert [(s.hash, s.state) for s in sender.advance()] == [
        (first, SendState.FINAL),
        (second, SendState.INCLUDED),
    ]


def test_a_checkpoint_anchored_before_the_outbox_was_lost_is_recognised(made: Scene) -> None:
    """An empty outbox asks the chain before it signs anything."""
    first, second = chain_of(2)
    made.propose(first)
    sender = _sender(made, Outbox(None))
    hashes = [sender.propose(first), sender.propose(second)]
    assert [(s.state, s.nonce) for s in sender.advance()] == [
        (SendState.FINAL, None),
        (SendState.FINAL, 1),
    ]
    assert proposals(made.evm) == list(enumerate(hashes, start=1))


def test_another_checkpoint_on_chain_stops_the_sender(made: Scene) -> None:
    """Someone with the proposer's key anchored a different history."""
    (ours,) = chain_of(1)
    made.propose(replace(ours, state_root=Hash32(bytes(32))))
    sender = _sender(made, Outbox(None))
    sender.propose(ours)
    with pytest.raises(CheckpointFork):
        sender.advance()


def _raced(made: Scene, theirs: Checkpoint) -> EvmSender:
    """A sender whose signed transaction is overtaken by a second proposer's."""
    other = made.person("other proposer")
    _as_admin(made, "grantRole(bytes32,address)", PROPOSER, other.signer.address)

    def overtake() -> None:
        other.send(made.chain.config.vault, propose_data(theirs))

    provider = FaultyProvider(made.chain.node, before_send=overtake)
    return _sender(made, Outbox(None), provider=provider)


def test_a_revert_because_the_same_checkpoint_is_there_is_success(made: Scene) -> None:
    """The epoch's error with an equal hash means that it is anchored."""
    ours, following = chain_of(2)
    sender = _raced(made, ours)
    sender.propose(ours)
    sender.propose(following)
    assert [s.state for s in sender.advance()] == [SendState.FINAL, SendState.FINAL]
    assert [epoch for epoch, _ in proposals(made.evm)] == [1, 2]


def test_a_revert_because_another_checkpoint_is_there_is_a_fork(made: Scene) -> None:
    """The epoch's error with another hash must wake somebody."""
    (ours,) = chain_of(1)
    sender = _raced(made, replace(ours, state_root=Hash32(bytes(32))))
    sender.propose(ours)
    with pytest.raises(CheckpointFork):
        sender.advance()


def test_a_revert_for_another_reason_is_a_state_with_that_reason(made: Scene) -> None:
    """It waits for a person; tried again it uses a new nonce and succeeds."""
    proposer = made.chain.proposer.address
    provider = FaultyProvider(
        made.chain.node,
        before_send=lambda: _as_admin(made, "revokeRole(bytes32,address)", PROPOSER, proposer),
    )
    sender = _sender(made, Outbox(None), provider=provider)
    ours, following = (sender.propose(checkpoint) for checkpoint in chain_of(2))
    (stuck,) = sender.advance()
    assert (stuck.state, stuck.nonce) == (SendState.REVERTED, 0)
    assert "AccessControlUnauthorizedAccount" in stuck.reason
    assert sender.advance() == []
    _as_admin(made, "grantRole(bytes32,address)", PROPOSER, proposer)
    assert sender.advance() == []
    sender.retry(ours)
    assert [(s.hash, s.state, s.nonce) for s in sender.advance()] == [
        (ours, SendState.FINAL, 1),
        (following, SendState.FINAL, 2),
    ]
    with pytest.raises(L1Error, match="reverted"):
        sender.retry(ours)


def test_what_the_vault_would_refuse_is_not_signed_and_waits(made: Scene) -> None:
    """A deposit that is not there yet costs no fee, and no person is needed when it comes."""
    checkpoint, _ = made.next([payout(5, made.chain.guardian.address, SYNOR)])
    sender = _sender(made, Outbox(None))
    sender.propose(checkpoint)
    (waiting,) = sender.advance()
    assert (waiting.state, waiting.nonce) == (SendState.QUEUED, None)
    assert "AuthorisedOverDeposited" in waiting.reason
    assert sender.advance() == []
    made.deposited(SYNOR)
    assert [(s.state, s.reason) for s in sender.advance()] == [(SendState.FINAL, "")]


def test_beyond_the_fee_cap_nothing_is_signed(made: Scene) -> None:
    """Settlement is late then, never wrong; a higher cap lets it go on."""
    outbox = Outbox(None)
    poor = _sender(made, outbox, fees=FeePolicy(max_fee_cap_wei=10**9))
    (checkpoint,) = chain_of(1)
    poor.propose(checkpoint)
    (waiting,) = poor.advance()
    assert waiting.state is SendState.QUEUED
    assert "cap" in waiting.reason
    assert [s.state for s in _sender(made, outbox).advance()] == [SendState.FINAL]


def test_a_key_that_someone_else_uses_stops_the_sender(made: Scene) -> None:
    """Its nonce is gone and none of our transactions has it: signing anew would settle twice."""
    proposer: LocalSigner = made.chain.proposer

    def use_the_key() -> None:
        unsigned = Unsigned(
            chain_id=made.chain.config.chain_id,
            nonce=0,
            to=proposer.address,
            data=b"",
            gas=21_000,
            max_fee_wei=10**10,
            tip_wei=1,
        )
        made.chain.rpc.send(proposer.sign_transaction(unsigned).raw)

    provider = FaultyProvider(made.chain.node, before_send=use_the_key)
    sender = _sender(made, Outbox(None), provider=provider)
    sender.propose(chain_of(1)[0])
    for _ in range(2):
        with pytest.raises(ForeignNonce):
            sender.advance()
    assert proposals(made.evm) == []


def test_an_outbox_has_one_process_one_vault_and_one_key(made: Scene, tmp_path: Path) -> None:
    """Two senders of one key would race for nonces; another chain's nonces mean nothing here."""
    outbox = Outbox(tmp_path / "outbox.db")
    _sender(made, outbox)
    with pytest.raises(OutboxInUse):
        Outbox(tmp_path / "outbox.db")
    with pytest.raises(PinMismatch, match="outbox"):
        EvmSender(made.chain.rpc, made.evm, made.chain.guardian, outbox, FEES)


def test_a_chain_that_lost_a_final_checkpoint_is_noticed(made: Scene) -> None:
    """A wiped development chain under a living outbox must not be anchored on again."""
    outbox = Outbox(None)
    sender = _sender(made, outbox)
    sender.propose(chain_of(1)[0])
    sender.advance()
    with scene() as wiped:
        again = _sender(wiped, outbox)
        with pytest.raises(ChainBehind):
            again.advance()


def test_the_hash_of_a_checkpoint_is_the_purpose_it_is_found_by(made: Scene) -> None:
    """What the settlement ledger records is what the outbox answers to."""
    sender = _sender(made, Outbox(None))
    (checkpoint,) = chain_of(1)
    assert sender.sending(checkpoint_hash(keccak, checkpoint)) is None
    sender.propose(checkpoint)
    found = sender.sending(checkpoint_hash(keccak, checkpoint))
    assert found is not None
    assert (found.state, found.epoch, found.reason) == (SendState.QUEUED, 1, "")
