"""A chain or contract that is not the pinned one is refused, and the refusal names the pin."""

from dataclasses import replace

import pytest

from adapters.evm_chain import EvmChain, read_config
from domain.ids import Hash32
from domain.l1 import BlockHash, Depth, L1Config, L1Error, L1Position, PinMismatch
from tests.l1.scene import scene


@pytest.mark.parametrize(
    ("pin", "name"),
    [
        ("chain_id", "chain id"),
        ("code_hash", "hash of the vault's code"),
        ("token", "vault's token"),
        ("start", "hash of block"),
        ("token_decimals", "number of the token's decimals"),
    ],
)
def test_each_pin_is_checked_at_start(pin: str, name: str) -> None:
    """R1.1 and design 7: nothing is read from a chain that is not ours."""
    with scene() as made:
        good = made.chain.config
        wrong: dict[str, L1Config] = {
            "chain_id": replace(good, chain_id=1),
            "code_hash": replace(good, code_hash=Hash32(bytes(32))),
            "token": replace(good, token=good.vault),
            "start": replace(good, start=L1Position(number=1, hash=BlockHash(bytes(32)))),
            "token_decimals": replace(good, token_decimals=6),
        }
        with pytest.raises(PinMismatch) as caught:
            EvmChain(made.chain.rpc, wrong[pin])
        assert caught.value.pin.startswith(name)


def test_the_facts_of_a_vault_can_be_read_to_be_pinned() -> None:
    """What a person copies into the configuration is what the chain then agrees with."""
    with scene() as made:
        config = made.chain.config
        depth = Depth(confirmations=0)
        assert read_config(made.chain.rpc, config.vault, config.start.number, depth) == config
        with pytest.raises(L1Error):
            read_config(made.chain.rpc, made.chain.guardian.address, 0, depth)
