"""Each refusal of the vault by its own error, and what it does when it does not refuse."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from adapters.evm_deploy import Roles
from adapters.evm_keccak import keccak
from adapters.evm_keys import Unsigned
from adapters.evm_rpc import number_of
from adapters.evm_vault import call_data, propose_data, vault_code_hash, vault_creation
from adapters.evm_wallet import Wallet
from domain.ids import Address, Hash32
from domain.l1 import (
    NO_HASH,
    AccountWord,
    CheckpointProposed,
    Claimed,
    Deposited,
    checkpoint_hash,
)
from domain.l1_watcher import Watcher
from domain.payout_tree import PayoutDomain, build, verifies
from tests.l1.scene import SYNOR, Scene, account, payout, refused, scene

DEPOSIT = "deposit(bytes32,uint256)"


@pytest.fixture
def vault() -> Iterator[Scene]:
    """A fresh chain with a vault."""
    with scene() as made:
        yield made


def _call(wallet: Wallet, signature: str, *arguments: object) -> None:
    wallet.send(wallet.config.vault, call_data(signature, *arguments))


def test_a_deposit_moves_the_tokens_and_is_seen_with_its_account(vault: Scene) -> None:
    """The event names account, depositor, amount and the new total."""
    buyer = vault.deposited(25 * SYNOR)

    (seen,) = Watcher(chain=vault.evm).observe(None).events

    assert isinstance(seen, Deposited)
    assert (seen.account, seen.depositor) == (account(1), buyer.signer.address)
    assert (seen.amount_nano, seen.deposited_total_nano) == (25 * SYNOR, 25 * SYNOR)
    assert buyer.balance_nano() == 0
    assert buyer.balance_nano(vault.chain.config.vault) == 25 * SYNOR


def test_a_deposit_that_is_not_whole_nanos_is_refused(vault: Scene) -> None:
    """The ledger could not write it down (R1.1)."""
    buyer = vault.person("buyer", SYNOR)
    with refused("NotWholeNano"):
        _call(buyer, DEPOSIT, account(1), 10**18 + 1)


def test_a_deposit_of_nothing_or_for_nobody_is_refused(vault: Scene) -> None:
    """Both would be mistakes of the caller."""
    buyer = vault.person("buyer", SYNOR)
    with refused("ZeroAmount"):
        _call(buyer, DEPOSIT, account(1), 0)
    with refused("ZeroAccount"):
        _call(buyer, DEPOSIT, AccountWord(bytes(32)), 10**18)


def test_a_deposit_without_tokens_is_refused_by_the_token(vault: Scene) -> None:
    """The vault counts nothing that it did not get."""
    poor = vault.person("poor")
    with refused("ERC20InsufficientBalance"):
        poor.deposit(account(1), SYNOR)
    assert vault.evm.totals().deposited_nano == 0


def test_a_proposed_checkpoint_is_stored_by_the_hash_that_the_domain_computes(
    vault: Scene,
) -> None:
    """The struct in the event is the whole checkpoint."""
    vault.deposited(10 * SYNOR)
    made, _ = vault.next([payout(5, vault.chain.guardian.address, 3 * SYNOR)])
    vault.propose(made)

    seen = Watcher(chain=vault.evm).observe(None).events[-1]

    assert isinstance(seen, CheckpointProposed)
    assert seen.checkpoint == made
    assert seen.hash == checkpoint_hash(keccak, made) == vault.evm.anchored(1)
    assert vault.evm.anchored(2) is None
    totals = vault.evm.totals()
    assert (totals.authorised_nano, totals.last_epoch) == (3 * SYNOR, 1)
    assert totals.payout_root == made.payout_root


def test_only_the_proposer_anchors(vault: Scene) -> None:
    """Not even the admin of the vault."""
    made, _ = vault.next([])
    with refused("AccessControlUnauthorizedAccount"):
        vault.wallet(vault.chain.faucet).send(vault.chain.config.vault, propose_data(made))


def test_an_epoch_is_anchored_once(vault: Scene) -> None:
    """A repeat and another version of the same epoch both revert with the epoch's own error."""
    made, _ = vault.next([])
    vault.propose(made)
    vault.anchor([])
    for again in (made, replace(made, state_root=Hash32(bytes(32)))):
        with refused("EpochAlreadyProposed"):
            vault.propose(again)


@pytest.mark.parametrize("epoch", [0, 3, 2**64 - 1])
def test_an_epoch_out_of_order_is_refused(vault: Scene, epoch: int) -> None:
    """After epoch 1 comes 2 and nothing else; there is no epoch 0."""
    vault.anchor([])
    made, _ = vault.next([])
    with refused("EpochOutOfOrder"):
        vault.propose(replace(made, epoch=epoch))


def test_a_checkpoint_names_the_one_before(vault: Scene) -> None:
    """Checkpoints are a hash chain, also from the first, whose predecessor is zero."""
    made, _ = vault.next([])
    with refused("WrongPreviousHash"):
        vault.propose(replace(made, prev_hash=Hash32(bytes([9]) * 32)))
    vault.propose(made)
    following, _ = vault.next([])
    with refused("WrongPreviousHash"):
        vault.propose(replace(following, prev_hash=NO_HASH))


def test_a_vault_serves_one_ledger(vault: Scene) -> None:
    """The first checkpoint fixes the ledger's origin."""
    vault.anchor([])
    made, _ = vault.next([])
    with refused("WrongLedgerOrigin"):
        vault.propose(replace(made, ledger_origin=Hash32(bytes(32))))


def test_what_is_authorised_never_falls_nor_exceeds_what_was_deposited(vault: Scene) -> None:
    """R9.3 on chain: equality with the deposits is allowed."""
    vault.deposited(10 * SYNOR)
    payee = vault.chain.guardian.address
    over, _ = vault.next([payout(5, payee, 10 * SYNOR + 1)])
    with refused("AuthorisedOverDeposited"):
        vault.propose(over)
    vault.anchor([payout(5, payee, 10 * SYNOR)])
    less, _ = vault.next([payout(5, payee, 10 * SYNOR - 1)])
    with refused("AuthorisedFell"):
        vault.propose(less)


def test_a_claim_pays_the_payee_in_the_leaf_whoever_calls(vault: Scene) -> None:
    """The caller pays the fee and gets nothing."""
    vault.deposited(10 * SYNOR)
    payee = vault.person("provider").signer.address
    row = payout(5, payee, 4 * SYNOR)
    tree = vault.anchor([row, payout(6, payee, SYNOR), payout(7, payee, 2 * SYNOR)])
    stranger = vault.person("stranger")

    stranger.claim(row, tree.proof(row.account))

    assert (stranger.balance_nano(), stranger.balance_nano(payee)) == (0, 4 * SYNOR)
    seen = Watcher(chain=vault.evm).observe(None).events[-1]
    assert isinstance(seen, Claimed)
    assert (seen.account, seen.payee) == (row.account, payee)
    assert (seen.amount_nano, seen.cumulative_nano) == (4 * SYNOR, 4 * SYNOR)
    assert vault.evm.claimed_nano(row.account) == vault.evm.totals().paid_nano == 4 * SYNOR


def test_a_second_claim_of_the_same_amount_is_refused(vault: Scene) -> None:
    """Payouts are cumulative, so a repeat finds nothing left."""
    vault.deposited(10 * SYNOR)
    provider = vault.person("provider")
    row = payout(5, provider.signer.address, SYNOR)
    tree = vault.anchor([row])
    provider.claim(row, tree.proof(row.account))
    with refused("NothingToClaim"):
        provider.claim(row, tree.proof(row.account))


def test_a_claim_after_three_missed_epochs_pays_their_exact_sum(vault: Scene) -> None:
    """One claim against the latest root is worth all before it."""
    vault.deposited(10 * SYNOR)
    provider = vault.person("provider")
    payee = provider.signer.address
    first = payout(5, payee, SYNOR)
    provider.claim(first, vault.anchor([first]).proof(first.account))
    for cumulative in (2, 3):
        vault.anchor([payout(5, payee, cumulative * SYNOR), payout(6, payee, SYNOR)])
    row = payout(5, payee, 7 * SYNOR)
    tree = vault.anchor([row, payout(6, payee, SYNOR)])
    provider.claim(row, tree.proof(row.account))
    assert provider.balance_nano() == 7 * SYNOR


def test_a_claim_that_is_not_in_the_latest_tree_is_refused(vault: Scene) -> None:
    """Another amount, payee, account, proof, or a row of an older tree."""
    vault.deposited(10 * SYNOR)
    provider = vault.person("provider")
    payee = provider.signer.address
    row, other = payout(5, payee, SYNOR), payout(6, payee, 2 * SYNOR)
    old = vault.anchor([row, other])
    newer = replace(row, cumulative_nano=2 * SYNOR)
    tree = vault.anchor([newer, other])
    proof = tree.proof(row.account)
    thief = vault.chain.guardian.address
    for wrong in (
        replace(newer, cumulative_nano=3 * SYNOR),
        replace(newer, payee=thief),
        replace(newer, account=account(9)),
        row,
    ):
        with refused("InvalidProof"):
            provider.claim(wrong, proof)
    with refused("InvalidProof"):
        provider.claim(newer, tree.proof(other.account))
    with refused("InvalidProof"):
        provider.claim(row, old.proof(row.account))
    with refused("InvalidProof"):
        provider.claim(newer, ())


@pytest.mark.parametrize("foreign", ["chain", "vault"])
def test_a_leaf_of_another_chain_or_vault_is_refused(vault: Scene, foreign: str) -> None:
    """A tree of one leaf is its own root: chain and vault must be inside it."""
    vault.deposited(10 * SYNOR)
    provider = vault.person("provider")
    row = payout(5, provider.signer.address, SYNOR)
    domain = vault.domain
    elsewhere = (
        replace(domain, chain_id=1)
        if foreign == "chain"
        else PayoutDomain(chain_id=domain.chain_id, vault=vault.chain.config.token)
    )
    tree = build(keccak, elsewhere, [row])
    made, _ = vault.next([row])
    vault.propose(replace(made, payout_root=tree.root))
    with refused("InvalidProof"):
        provider.claim(row, tree.proof(row.account))


def test_a_root_that_promises_more_than_it_authorises_pays_only_what_it_authorises(
    vault: Scene,
) -> None:
    """The vault does not trust the tree: the total is a hard stop."""
    vault.deposited(10 * SYNOR)
    provider = vault.person("provider")
    rows = [payout(n, provider.signer.address, 2 * SYNOR) for n in (5, 6)]
    made, tree = vault.next(rows)
    vault.propose(replace(made, authorised_total_nano=3 * SYNOR))
    provider.claim(rows[0], tree.proof(rows[0].account))
    with refused("PaidOverAuthorised"):
        provider.claim(rows[1], tree.proof(rows[1].account))


def test_nothing_can_be_claimed_before_the_first_checkpoint(vault: Scene) -> None:
    """The root is zero, which no leaf hashes to."""
    provider = vault.person("provider")
    with refused("InvalidProof"):
        provider.claim(payout(5, provider.signer.address, SYNOR), ())


def test_the_guardian_stops_claims_and_nothing_else_and_only_the_admin_restarts(
    vault: Scene,
) -> None:
    """Deposits and checkpoints go on while claims are stopped."""
    vault.deposited(10 * SYNOR)
    provider = vault.person("provider")
    row = payout(5, provider.signer.address, SYNOR)
    guardian = vault.wallet(vault.chain.guardian)
    with refused("AccessControlUnauthorizedAccount"):
        _call(provider, "pause()")
    _call(guardian, "pause()")
    vault.deposited(SYNOR)
    tree = vault.anchor([row])
    with refused("EnforcedPause"):
        provider.claim(row, tree.proof(row.account))
    with refused("AccessControlUnauthorizedAccount"):
        _call(guardian, "unpause()")
    _call(vault.wallet(vault.chain.faucet), "unpause()")
    provider.claim(row, tree.proof(row.account))
    assert provider.balance_nano() == SYNOR


def test_a_vault_over_a_token_of_other_decimals_cannot_be_created(vault: Scene) -> None:
    """R1.1 counts on 18: the constructor reverts."""
    chain = vault.chain
    answers_six = bytes.fromhex("69600660005260206000f3600052600a6016f3")
    receipts = []
    token: Address | None = None
    roles = Roles(
        admin=chain.faucet.address, proposer=chain.faucet.address, guardian=chain.faucet.address
    )
    for step in range(2):
        code = (
            answers_six
            if token is None
            else vault_creation(token, roles.admin, 0, roles.proposer, roles.guardian)
        )
        signed = chain.faucet.sign_transaction(
            Unsigned(
                chain_id=chain.config.chain_id,
                nonce=chain.rpc.nonce(chain.faucet.address),
                to=None,
                data=code,
                gas=3_000_000,
                max_fee_wei=10**10,
                tip_wei=10**9,
            )
        )
        chain.rpc.send(signed.raw)
        receipt = chain.rpc.receipt(signed.hash)
        assert receipt is not None, step
        receipts.append(number_of(receipt["status"]))
        token = Address(bytes.fromhex(receipt["contractAddress"][2:]))
    assert receipts == [1, 0]


def test_the_code_on_chain_follows_from_the_artefact_and_the_token(vault: Scene) -> None:
    """An auditor can tell a released vault without trusting who deployed it."""
    config = vault.chain.config
    assert config.code_hash == vault_code_hash(config.token)


def test_the_contract_computes_the_leaf_and_proof_that_the_domain_computes(vault: Scene) -> None:
    """Solidity and Python agree on a leaf; the proof folds to the root."""
    rows = [payout(n, vault.chain.guardian.address, n * SYNOR) for n in range(1, 8)]
    tree = build(keccak, vault.domain, rows)
    for row in rows:
        asked = call_data(
            "leafOf(bytes32,address,uint256)", row.account, row.payee, row.cumulative_nano * 10**9
        )
        leaf = Hash32(vault.chain.rpc.call(vault.chain.config.vault, asked))
        assert verifies(keccak, tree.root, leaf, tree.proof(row.account))
