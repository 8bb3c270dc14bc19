"""Reorganisations, fees and restarts of a real node: what the in-process EVM cannot do."""

import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from adapters.evm_chain import EvmChain
from adapters.evm_deploy import Roles, deploy
from adapters.evm_keys import dev_key
from adapters.evm_outbox import Outbox
from adapters.evm_rpc import Rpc, hexed, http_provider
from adapters.evm_sender import EvmSender, FeePolicy
from adapters.evm_wallet import Wallet
from domain.l1 import (
    Deposited,
    Depth,
    L1Config,
    L1Unreachable,
    ReorgBelowFinality,
    SendState,
    Tagged,
    TxHash,
)
from domain.l1_watcher import Watcher
from tests.l1.faults import FaultyProvider
from tests.l1.scene import SEED, SYNOR, account, chain_of, proposals
from tests.support.anvil import running_anvil

pytestmark = pytest.mark.service

CREATOR = dev_key(SEED, "faucet")
PROPOSER = dev_key(SEED, "proposer")
FEES = FeePolicy(bump_after_blocks=2, max_fee_cap_wei=10**12)


@dataclass
class Node:
    """anvil with a vault. Blocks are made by `mine` alone once `hold` is called."""

    url: str
    rpc: Rpc
    config: L1Config

    def chain(self) -> EvmChain:
        return EvmChain(self.rpc, self.config)

    def sender(
        self, outbox: Outbox, provider: FaultyProvider | None = None, fees: FeePolicy = FEES
    ) -> EvmSender:
        rpc = self.rpc if provider is None else Rpc(provider)
        return EvmSender(rpc, self.chain(), PROPOSER, outbox, fees)

    def hold(self) -> None:
        self.rpc.ask("evm_setAutomine", False)

    def mine(self, blocks: int = 1) -> None:
        for _ in range(blocks):
            self.rpc.ask("evm_mine")

    def reorganise(self, depth: int) -> None:
        self.rpc.ask("anvil_reorg", depth, [])

    def base_fee(self, wei: int) -> None:
        """Of the next block."""
        self.rpc.ask("anvil_setNextBlockBaseFeePerGas", hex(wei))


def _with_vault(url: str) -> Node:
    rpc = Rpc(http_provider(url))
    for signer in (CREATOR, PROPOSER):
        rpc.ask("anvil_setBalance", hexed(signer.address), hex(10**24))
    roles = Roles(admin=CREATOR.address, proposer=PROPOSER.address, guardian=CREATOR.address)

    def included(transaction: TxHash) -> None:
        give_up = time.monotonic() + 10
        while rpc.receipt(transaction) is None and time.monotonic() < give_up:
            time.sleep(0.01)

    config = deploy(rpc, CREATOR, roles, 10**9 * SYNOR, Depth(confirmations=2), included)
    return Node(url, rpc, config)


@pytest.fixture
def node(anvil: str) -> Node:
    """A fresh node with a vault; two confirmations."""
    return _with_vault(anvil)


def test_a_reorganisation_above_finality_is_sent_again_and_ends_the_same(node: Node) -> None:
    """anvil drops the transaction altogether: the same bytes go out again."""
    node.hold()
    sender = node.sender(Outbox(None))
    purpose = sender.propose(chain_of(1)[0])
    assert [s.state for s in sender.advance()] == [SendState.SENT]
    node.mine()
    (included,) = sender.advance()
    assert included.state is SendState.INCLUDED

    node.reorganise(1)
    (again,) = sender.advance()
    assert (again.state, again.tx_hash) == (SendState.SENT, included.tx_hash)
    node.mine(3)
    (final,) = sender.advance()

    assert (final.state, final.tx_hash) == (SendState.FINAL, included.tx_hash)
    assert proposals(node.chain()) == [(1, purpose)]
    assert node.rpc.nonce(PROPOSER.address) == 1


def test_a_reorganisation_below_finality_stops_sender_and_watcher_by_name(node: Node) -> None:
    """The ledger has built on what is gone."""
    sender = node.sender(Outbox(None))
    sender.propose(chain_of(1)[0])
    sender.advance()
    node.mine(3)
    sender.advance()
    watcher = Watcher(chain=node.chain())
    position = watcher.observe(None).position
    node.reorganise(5)
    with pytest.raises(ReorgBelowFinality):
        sender.advance()
    with pytest.raises(ReorgBelowFinality):
        watcher.observe(position)


def test_a_stuck_transaction_is_replaced_at_a_tenth_more_up_to_the_cap(node: Node) -> None:
    """Both fee fields rise; at the cap it keeps offering what it last signed, and says so."""
    node.hold()
    outbox = Outbox(None)
    sender = node.sender(outbox)
    purpose = sender.propose(chain_of(1)[0])
    sender.advance()
    (first,) = outbox.attempts(purpose, 0)
    # A capped sender of the same key first: the node's base fee rises far above the offer.
    for _ in range(2):
        node.base_fee(first.max_fee_wei * 2)
        node.mine()
    capped = node.sender(outbox, fees=replace(FEES, max_fee_cap_wei=first.max_fee_wei))
    (held,) = capped.advance()
    assert (held.state, held.tx_hash) == (SendState.SENT, first.tx_hash)
    assert "cap" in held.reason

    (bumped,) = sender.advance()
    second, same = outbox.attempts(purpose, 0)
    assert same == replace(first, sent_at=same.sent_at)
    assert bumped.tx_hash == second.tx_hash
    assert second.tip_wei >= -(-first.tip_wei * 11 // 10)
    assert second.max_fee_wei >= -(-first.max_fee_wei * 11 // 10)
    node.mine(3)
    (final,) = sender.advance()
    assert (final.state, final.tx_hash) == (SendState.FINAL, second.tx_hash)
    assert node.rpc.nonce(PROPOSER.address) == 1


def test_an_earlier_attempt_that_is_mined_after_a_replacement_was_signed_counts(
    node: Node,
) -> None:
    """All hashes of a nonce are watched; "nonce too low" leads to them, not to a new nonce."""
    node.hold()
    outbox = Outbox(None)
    provider = FaultyProvider(http_provider(node.url))
    sender = node.sender(outbox, provider)
    purpose = sender.propose(chain_of(1)[0])
    sender.advance()
    (first,) = outbox.attempts(purpose, 0)
    for _ in range(2):
        node.base_fee(first.max_fee_wei * 2)
        node.mine()
    node.base_fee(1)

    def take_the_first() -> None:
        # anvil forgets what is too cheap; another node's pool may not have.
        node.rpc.send(first.raw)
        node.mine()

    # The replacement is signed and about to leave when a block takes the first attempt.
    provider.before_send = take_the_first
    (included,) = sender.advance()
    assert len(outbox.attempts(purpose, 0)) == 2
    assert (included.state, included.tx_hash) == (SendState.INCLUDED, first.tx_hash)
    node.mine(2)
    assert [s.state for s in sender.advance()] == [SendState.FINAL]
    assert node.rpc.nonce(PROPOSER.address) == 1


def test_deposits_on_a_node_are_seen_once_under_two_confirmations(node: Node) -> None:
    """Wallet and watcher over HTTP; the tags of proof of stake are another policy."""
    wallet = Wallet(rpc=node.rpc, config=node.config, signer=CREATOR)
    watcher = Watcher(chain=node.chain())
    wallet.deposit(account(3), 2 * SYNOR)
    first = watcher.observe(None)
    assert first.events == ()
    node.mine(2)
    second = watcher.observe(first.position)
    (seen,) = second.events
    assert isinstance(seen, Deposited)
    assert (seen.account, seen.amount_nano) == (account(3), 2 * SYNOR)
    assert watcher.observe(second.position).events == ()
    tagged = EvmChain(node.rpc, replace(node.config, finality=Tagged(tag="finalized")))
    assert Watcher(chain=tagged).observe(None).events == ()


def test_a_node_that_restarts_is_waited_for_and_gets_the_same_bytes(tmp_path: Path) -> None:
    """While it is away there is no answer; it comes back without its pool."""
    state = ("--state", str(tmp_path / "state.json"), "--preserve-historical-states")
    outbox = Outbox(tmp_path / "outbox.db")
    with running_anvil(tmp_path, options=state) as url:
        node = _with_vault(url)
        node.hold()
        sender = node.sender(outbox)
        purpose = sender.propose(chain_of(1)[0])
        (sent,) = sender.advance()
        assert sent.state is SendState.SENT
    with pytest.raises(L1Unreachable):
        sender.advance()
    outbox.close()
    with running_anvil(tmp_path, options=state) as url:
        node = replace(node, url=url, rpc=Rpc(http_provider(url)))
        sender = node.sender(Outbox(tmp_path / "outbox.db"))
        sender.advance()
        node.mine(3)
        (final,) = sender.advance()
        assert (final.state, final.tx_hash) == (SendState.FINAL, sent.tx_hash)
        assert proposals(node.chain()) == [(1, purpose)]
