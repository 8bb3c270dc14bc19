"""paid ≤ authorised ≤ deposited over random sequences, honest and dishonest (R9.3)."""

from dataclasses import dataclass, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.evm_keccak import keccak
from adapters.evm_keys import LocalSigner
from adapters.evm_wallet import CallRefused, Wallet
from domain.payout_tree import build
from tests.l1.scene import Scene, account, payout, scene


@dataclass(frozen=True)
class Deposit:
    nano: int


@dataclass(frozen=True)
class Anchor:
    """Raise two accounts' payouts; ``authorised`` may be less or more than their sum."""

    first: int
    second: int
    lie: int


@dataclass(frozen=True)
class Claim:
    number: int
    lie: int


EXPECTED = {
    "AuthorisedFell",
    "AuthorisedOverDeposited",
    "InvalidProof",
    "NothingToClaim",
    "PaidOverAuthorised",
}
small = st.integers(0, 40)
steps = st.one_of(
    st.builds(Deposit, st.integers(1, 60)),
    st.builds(Anchor, small, small, st.sampled_from([0, 0, 0, -7, 7])),
    st.builds(Claim, st.integers(1, 2), st.sampled_from([0, 0, 1])),
)


def _holds(scene: Scene, payee: LocalSigner) -> None:
    totals = scene.evm.totals()
    assert totals.paid_nano <= totals.authorised_nano <= totals.deposited_nano
    wallet = scene.wallet(payee)
    held = wallet.balance_nano(scene.chain.config.vault)
    assert held == totals.deposited_nano - totals.paid_nano
    assert wallet.balance_nano() == totals.paid_nano
    claimed = sum(scene.evm.claimed_nano(account(number)) for number in (1, 2))
    assert claimed == totals.paid_nano


# Each example runs a chain of its own, so an eighth of the usual number.
@settings(max_examples=settings().max_examples // 8)
@given(st.lists(steps, min_size=4, max_size=14))
def test_the_vault_is_solvent_whatever_is_deposited_anchored_and_claimed(
    sequence: list[Deposit | Anchor | Claim],
) -> None:
    """Also with a proposer that lies about totals and claimants that lie about amounts."""
    with scene() as made:
        buyer = made.person("buyer", 10_000)
        payee = made.person("payee").signer
        assert isinstance(payee, LocalSigner)
        earned = {1: 0, 2: 0}
        errors: set[str] = set()
        rows = [payout(n, payee.address, earned[n]) for n in earned]
        tree = build(keccak, made.domain, rows)
        for step in sequence:
            try:
                match step:
                    case Deposit(nano=nano):
                        buyer.deposit(account(9), nano)
                    case Anchor(first=first, second=second, lie=lie):
                        raised = {1: earned[1] + first, 2: earned[2] + second}
                        proposed = [payout(n, payee.address, raised[n]) for n in raised]
                        honest, new_tree = made.next(proposed)
                        total = max(0, honest.authorised_total_nano + lie)
                        made.propose(replace(honest, authorised_total_nano=total))
                        earned, rows, tree = raised, proposed, new_tree
                    case Claim(number=number, lie=lie):
                        row = rows[number - 1]
                        asked = replace(row, cumulative_nano=row.cumulative_nano + lie)
                        _claimer(made).claim(asked, tree.proof(row.account))
            except CallRefused as refusal:
                errors.add(refusal.revert.name)
            _holds(made, payee)
        assert errors <= EXPECTED


def _claimer(made: Scene) -> Wallet:
    return made.wallet(made.chain.guardian)
