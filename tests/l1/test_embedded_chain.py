"""The chain in this process survives a restart block by block, or says what is wrong."""

import json
import sqlite3
from pathlib import Path

import pytest

from adapters.evm_chain import EvmChain
from adapters.evm_embedded import ChainInUse, EmbeddedChain, EmbeddedChainDiverged
from adapters.evm_keys import Unsigned
from adapters.evm_rpc import RpcRefused, hexed
from domain.ids import Hash32
from domain.l1_watcher import Watcher
from tests.l1.scene import SEED, SYNOR, account, block_hashes, payout, scene


def test_a_restarted_chain_has_equal_block_hashes_and_goes_on(tmp_path: Path) -> None:
    """Contracts, events and balances are there again, and the next block is accepted."""
    path = tmp_path / "chain.db"
    with scene(path) as before:
        buyer = before.deposited(10 * SYNOR)
        before.anchor([payout(5, buyer.signer.address, 2 * SYNOR)])
        before.chain.mine(2)
        hashes = block_hashes(before.evm)
        events = Watcher(chain=before.evm).observe(None).events
        config = before.chain.config
    with scene(path) as after:
        assert block_hashes(after.evm) == hashes
        assert after.chain.config == config
        assert Watcher(chain=after.evm).observe(None).events == events
        after.deposited(SYNOR)
        assert after.evm.totals().deposited_nano == 11 * SYNOR
        assert block_hashes(after.evm)[: len(hashes)] == hashes


def test_two_chains_of_one_seed_clock_and_history_are_the_same_chain() -> None:
    """Nothing in a block comes from chance: the demo's addresses and hashes repeat."""
    with scene() as one, scene() as other:
        for made in (one, other):
            made.deposited(3 * SYNOR)
        assert block_hashes(one.evm) == block_hashes(other.evm)


def test_block_times_are_the_callers_and_always_rise(tmp_path: Path) -> None:
    """The clock is logical; a clock that stands or falls back gives one second more."""
    times = iter([100, 100, 50, 500])
    chain = EmbeddedChain(tmp_path / "chain.db", seed=SEED, clock=lambda: next(times))
    chain.mine(2)
    evm = EvmChain(chain.rpc, chain.config)
    assert [b.time_s for n in range(5) if (b := evm.block(n))] == [0, 100, 101, 102, 500]
    chain.close()


def test_a_second_process_cannot_open_the_chain(tmp_path: Path) -> None:
    """Two writers would fork the file."""
    with scene(tmp_path / "chain.db"), pytest.raises(ChainInUse):
        EmbeddedChain(tmp_path / "chain.db", seed=SEED, clock=lambda: 1)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE blocks SET hash = zeroblob(32) WHERE number = 4",
        "UPDATE blocks SET time_s = time_s + 1 WHERE number = 4",
        "DELETE FROM transactions WHERE block = 4",
        "UPDATE transactions SET raw = substr(raw, 1, length(raw) - 1) WHERE block = 4",
        "UPDATE transactions SET raw = x'00' WHERE block = 4",
        "UPDATE blocks SET hash = zeroblob(32) WHERE number = 0",
    ],
)
def test_a_damaged_file_is_found_at_start(tmp_path: Path, damage: str) -> None:
    """Executing again gives another hash, which has a name."""
    path = tmp_path / "chain.db"
    with scene(path) as before:
        before.deposited(SYNOR)
    file = sqlite3.connect(path)
    with file:
        file.execute(damage)
    file.close()
    with pytest.raises(EmbeddedChainDiverged):
        EmbeddedChain(path, seed=SEED, clock=lambda: 1)


def test_another_seed_does_not_open_the_chain(tmp_path: Path) -> None:
    """Its genesis would hold other accounts."""
    path = tmp_path / "chain.db"
    with scene(path):
        pass
    with pytest.raises(EmbeddedChainDiverged, match="another seed"):
        EmbeddedChain(path, seed=b"another", clock=lambda: 1)


def test_transactions_that_no_block_can_hold_are_refused_and_change_nothing() -> None:
    """Wrong nonces, repeats, empty purses, other chains and garbage, in other nodes' words."""
    with scene() as made:
        poor = made.chain.person("poor")
        faucet = made.chain.faucet
        count = made.chain.rpc.nonce(faucet.address)
        hashes = block_hashes(made.evm)

        def raw(signer_nonce: int, chain_id: int = made.chain.config.chain_id) -> bytes:
            signer = poor if signer_nonce < 0 else faucet
            unsigned = Unsigned(
                chain_id=chain_id,
                nonce=max(signer_nonce, 0),
                to=poor.address,
                data=b"",
                gas=21_000,
                max_fee_wei=10**10,
                tip_wei=1,
            )
            return signer.sign_transaction(unsigned).raw

        for sent, said in (
            (raw(count + 1), "nonce too high"),
            (raw(0), "nonce too low"),
            (raw(-1), "balance"),
            (raw(count, chain_id=1), "chain"),
            (b"", "decode"),
            (b"\x02", "decode"),
            (b"\x02" + bytes(40), "decode"),
            (b"\xf8" + bytes(9), "decode"),
            (raw(count)[:-5], "decode"),
        ):
            with pytest.raises(RpcRefused, match=said):
                made.chain.rpc.send(sent)
        assert block_hashes(made.evm) == hashes
        made.chain.rpc.send(raw(count))
        with pytest.raises(RpcRefused, match="already known"):
            made.chain.rpc.send(raw(count))


def test_the_chain_answers_json_rpc_bytes_for_other_processes() -> None:
    """The API can serve the chain to a wallet elsewhere; what is no request gets an error."""
    with scene() as made:
        asked = {"jsonrpc": "2.0", "id": 5, "method": "eth_chainId", "params": []}
        answer = json.loads(made.chain.node.answer(json.dumps(asked).encode()))
        assert answer == {"jsonrpc": "2.0", "id": 5, "result": hex(made.chain.config.chain_id)}
        for body in (b"", b"[]", b"{}", b'"text"', b"\xff"):
            assert json.loads(made.chain.node.answer(body))["error"]["code"] == -32700
        for method, parameters, code in (
            ("eth_mining", [], -32601),
            ("eth_getBalance", [], -32602),
            ("eth_getBalance", ["0x12"], -32602),
            ("eth_getCode", [5], -32602),
            ("eth_call", [{"to": "zz"}], -32602),
        ):
            body = json.dumps({"id": 1, "method": method, "params": parameters}).encode()
            assert json.loads(made.chain.node.answer(body))["error"]["code"] == code, method


def test_a_block_that_is_not_there_has_no_events() -> None:
    """Asked by a hash that no block has, the node refuses instead of answering nothing."""
    with scene() as made:
        with pytest.raises(RpcRefused, match="header not found"):
            made.chain.rpc.ask("eth_getLogs", {"blockHash": hexed(Hash32(bytes(32)))})
        assert made.evm.block(10**6) is None
        assert made.evm.claimed_nano(account(1)) == 0
