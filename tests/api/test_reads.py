"""What is asked for singly: each answer from one state, with the position that it reflects."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from eth_utils.crypto import keccak

import adapters.projector
from domain.ids import Address, Hash32
from domain.journal import Purse
from domain.l1 import account_word
from domain.payout_tree import Payout, PayoutDomain, leaf_hash, verifies
from domain.provider import provider_of
from domain.round import instrument_of
from tests.api.conftest import Scene
from tests.projections.ledgers import CHAIN_ID, VAULT


def _get(scene: Scene, path: str, status: int = 200) -> Any:
    answer = scene.client.get(f"/v1/{path}")
    assert answer.status_code == status, answer.text
    return answer.json()


def test_every_answer_names_the_position_of_each_ledger(shared: Scene) -> None:
    """A reader knows what it has not seen yet."""
    network = shared.network
    for path in ("status", "leases", "history", "genesis", "shares"):
        assert _get(shared, path)["position"] == {
            "market": network.market.height,
            "metering": [each.height for each in network.metering],
            "settlement": network.settlement.height,
        }


def test_status_says_how_far_the_log_is_ahead(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Positions, heads and lag."""
    monkeypatch.setattr(adapters.projector, "READ_BYTES", 1)
    monkeypatch.setattr(adapters.projector, "_END_EVERY_S", 0.0)
    for _ in range(2):
        scene.story.open_account()
        scene.story.flush()
    scene.projector.turn()
    status = _get(scene, "status")
    market = next(each for each in status["log"] if each["application"] == "Market0")
    assert market["lag"] == 1
    assert market["lag_events"] > 0
    assert market["lag_us"] > 0
    scene.follow()
    for each in _get(scene, "status")["log"]:
        assert (each["lag"], each["lag_events"], each["lag_us"]) == (0, 0, 0)


def test_a_lease_has_its_lines_and_what_is_left_of_its_escrows(shared: Scene) -> None:
    """As the journal has it."""
    balances = shared.story.balances
    for each in _get(shared, "leases?limit=200")["items"]:
        lease = _get(shared, f"leases/{each['lease']}")["lease"]
        name = bytes.fromhex(each["lease"])
        left = int(lease["escrow_allocated_left_nano"])
        assert left == balances.of(Purse.ESCROW_ALLOCATED, name)
        posted = sum(int(line["posted_nano"]) for line in lease["lines"])
        assert posted == int(lease["provider_nano"]) + int(lease["protocol_nano"])
        if lease["state"] == "CLOSED":
            assert left == 0


def test_an_account_shows_all_its_money_wherever_it_stands(shared: Scene) -> None:
    """Reserved by bids, in escrows of leases and as stake of its provider as well."""
    behind: dict[str, int] = {}
    for each in _get(shared, "accounts?limit=200")["items"]:
        for purse in _get(shared, f"accounts/{each['account']}")["account"]["purses"]:
            behind[purse["purse"]] = behind.get(purse["purse"], 0) + int(purse["amount_nano"])
    nobody = _get(shared, f"accounts/{'00' * 16}")["account"]["purses"]
    for purse in nobody:
        behind[purse["purse"]] = behind.get(purse["purse"], 0) + int(purse["amount_nano"])
    expected: dict[str, int] = {}
    for (kind, _), nano in shared.story.balances.all().items():
        expected[kind.value] = expected.get(kind.value, 0) + nano
    assert behind == expected
    assert sum(behind.values()) == 0


def test_numbers_that_json_readers_would_round_are_text(shared: Scene) -> None:
    """2^53 is the last whole number that all of them keep."""
    nobody = _get(shared, f"accounts/{'00' * 16}")["account"]["purses"]
    external = next(purse for purse in nobody if purse["purse"] == "EXTERNAL")
    assert isinstance(external["amount_nano"], str)
    assert int(external["amount_nano"]) == shared.story.balances.of(Purse.EXTERNAL)


def test_a_scorecard_sums_what_happened_to_a_provider(shared: Scene) -> None:
    """Stake, nodes, windows, slashes and earnings."""
    for each in _get(shared, "providers")["items"]:
        card = _get(shared, f"providers/{each['provider']}")["provider"]
        provider = bytes.fromhex(each["provider"])
        assert int(card["bonded_nano"]) == shared.story.balances.of(Purse.STAKE, provider)
        slashes = _get(shared, f"slashes?limit=200&provider={each['provider']}")["items"]
        assert sum(int(slash["taken_nano"]) for slash in slashes) == int(card["slashed_nano"])
        assert sum(card["health"].values()) == card["nodes"]
        assert provider_of(bytes.fromhex(card["account"])) == provider


def test_a_node_shows_capacity_and_what_both_ledgers_say_of_it(shared: Scene) -> None:
    """The market's view and its shard's."""
    node = _get(shared, "nodes?limit=1")["items"][0]["node"]
    found = _get(shared, f"nodes/{node}")["node"]
    assert {row["resource"] for row in found["capacity"]} >= {"storage.hot"}
    assert found["metering"]["node"] == node


def test_orders_of_an_open_round_are_hidden_until_it_clears(scene: Scene) -> None:
    """From the book, the lists of orders and the history (design 6)."""
    story = scene.story
    while story.open_rounds:
        story.clear()
    scene.follow()
    placed = story.bid(limit_nano=1_000)
    scene.follow()
    instrument = instrument_of(placed.resource, placed.region)
    bid, book = placed.bid.hex(), f"book?level=3&instrument={instrument.hex()}"

    def seen() -> list[bool]:
        history = _get(scene, f"history?aggregate={bid}")["items"]
        return [
            any(each["order"] == bid for each in _get(scene, book)["bids"]),
            bool(_get(scene, f"bids?bid={bid}")["items"]),
            any(each["order"] == bid for each in _get(scene, "orders?limit=200")["items"]),
            any(each["type"].endswith("BidPlaced") for each in history),
        ]

    assert seen() == [False] * 4
    story.offers = []
    story.bids = [each for each in story.bids if each.bid == placed.bid]
    while instrument in story.open_rounds:
        story.clear()
    scene.follow()
    assert seen() == [True] * 4


def test_the_book_by_price_sums_the_book_by_order(shared: Scene) -> None:
    """L2 is L3, joined."""
    for each in _get(shared, "instruments")["items"]:
        by_order = _get(shared, f"book?level=3&instrument={each['instrument']}")
        by_name = _get(shared, f"book?level=2&resource={each['resource']}&region={each['region']}")
        for side in ("bids", "asks"):
            summed: dict[int, list[int]] = {}
            for order in by_order[side]:
                level = summed.setdefault(order["price_nano"], [0, 0])
                level[0] += order["quantity_milli"]
                level[1] += 1
            assert by_name[side] == [
                {"price_nano": price, "quantity_milli": quantity, "orders": count}
                for price, (quantity, count) in summed.items()
            ]


def test_a_claim_proof_is_one_that_the_vault_takes(scene: Scene) -> None:
    """For every account that an epoch ever paid, at the latest anchored epoch."""
    scene.story.cut()
    scene.follow()
    domain = PayoutDomain(chain_id=CHAIN_ID, vault=VAULT)
    epoch = _get(scene, "epochs/latest")["epoch"]
    root = Hash32(bytes.fromhex(epoch["checkpoint"]["payout_root"]))
    assert scene.story.payable
    for account, nano in scene.story.payable.items():
        proof = _get(scene, f"epochs/latest/proof/{account.hex()}")["proof"]
        assert proof["anchored"]
        assert int(proof["cumulative_nano"]) == nano
        payout = Payout(
            account=account_word(account),
            payee=Address(bytes.fromhex(proof["payee"][2:])),
            cumulative_nano=nano,
        )
        leaf = leaf_hash(keccak, domain, payout)
        assert proof["leaf"] == f"0x{leaf.hex()}"
        path = [Hash32(bytes.fromhex(each[2:])) for each in proof["proof"]]
        assert verifies(keccak, root, leaf, path)


def test_who_has_no_payout_gets_no_proof(scene: Scene) -> None:
    """A stranger, or an epoch that is not."""
    scene.story.cut()
    scene.follow()
    assert _get(scene, f"epochs/latest/proof/{'ab' * 16}", 404)["code"] == 911
    assert _get(scene, f"epochs/9999/proof/{'ab' * 16}", 404)["code"] == 901


def test_history_is_decoded_by_aggregate_type_and_position(shared: Scene) -> None:
    """Ids in hex, amounts exact."""
    lease = _get(shared, "leases?limit=1&order=asc")["items"][0]["lease"]
    of_lease = _get(shared, f"history?aggregate={lease}")["items"]
    assert of_lease[0]["type"] == "synor.lease.v1.LeaseOpened"
    assert of_lease[0]["data"]["lease"] == lease
    assert [each["version"] for each in of_lease] == list(range(1, len(of_lease) + 1))
    by_type = _get(shared, "history?type=synor.lease.v1.LeaseOpened&limit=200")["items"]
    assert {each["type"] for each in by_type} == {"synor.lease.v1.LeaseOpened"}
    ranged = _get(shared, "history?from=5&to=9")["items"]
    assert [each["position"] for each in ranged] == [5, 6, 7, 8]
    shard = _get(shared, "history?ledger=metering&shard=1&limit=1")["items"]
    assert shard[0]["type"] == "synor.ledger.v1.LogBound"


def test_an_answer_tells_the_events_of_its_command(scene: Scene) -> None:
    """And of a batch the rows that were refused, with what to do."""
    story = scene.story
    bid = story.bid()
    key, session = story.keys[bid.account], 1
    scene.follow()
    answer = _get(scene, f"answers/{key.hex()}/{session}/{story._number}")["answer"]
    assert answer["accepted"]
    assert [each["type"] for each in answer["events"]][-1] == "synor.market.v1.BidPlaced"
    assert answer["events"][-1]["data"]["bid"] == bid.bid.hex()
    assert answer["refused_rows"][0]["name"] == "bad_signature"


def test_a_refusal_on_the_ledger_is_told_with_its_remedy(scene: Scene) -> None:
    """The number, the name, the figures, and what to do."""
    story = scene.story
    key, session, number = story.answer(story.accounts[0], "PlaceBids", code=110)
    scene.follow()
    answer = _get(scene, f"answers/{key.hex()}/{session}/{number}")["answer"]
    assert not answer["accepted"]
    assert answer["code"] == 110
    assert answer["remedy"]
    assert answer["events"] == []


def test_a_refused_batch_of_telemetry_has_its_answer(scene: Scene) -> None:
    """Under its own ledger: the numbers of the two are apart."""
    story = scene.story
    story.refuse_telemetry()
    scene.follow()
    refused = _get(
        scene,
        "history?ledger=metering&type=synor.metering.v1.TelemetryRefused&order=desc&limit=1",
    )["items"][0]["data"]
    path = f"answers/{refused['key']}/{refused['session']}/{refused['number']}"
    assert _get(scene, f"{path}?ledger=metering")["answer"]["name"] == "wrong_shard"
    assert _get(scene, path, 404)["code"] == 901


def test_a_reader_can_wait_for_what_it_wrote(scene: Scene) -> None:
    """The answer comes as soon as the position is reached, not after a fixed time."""
    story = scene.story
    account = story.open_account()
    height = story.flush()
    later = threading.Timer(0.3, scene.projector.catch_up)
    later.start()
    began = time.monotonic()
    found = _get(scene, f"accounts/{account.hex()}?wait=market:{height},metering.1:0&wait_s=10")
    later.join()
    assert 0.2 < time.monotonic() - began < 5
    assert found["position"]["market"] >= height


def test_waiting_ends(shared: Scene) -> None:
    """With a problem that says where the read models are."""
    found = _get(shared, "status?wait=market:999999&wait_s=0.05", 504)
    assert found["code"] == 906
    assert found["position"]["market"] == shared.network.market.height


def test_parameters_catalogue_and_genesis_are_shown(shared: Scene) -> None:
    """Everything that the rules depend on can be read."""
    names = {row["name"] for row in _get(shared, "parameters?limit=200")["items"]}
    assert {"round_us", "grace_us", "stake_hours"} <= names
    rows = _get(shared, "catalogue?limit=200")["items"]
    assert [row["number"] for row in rows] == list(range(len(rows)))
    genesis = _get(shared, "genesis")
    assert genesis["hash"] == shared.network.hash.hex()
    assert genesis["genesis"]["network"] == "test"


def test_another_sites_name_is_not_answered(shared: Scene) -> None:
    """A page elsewhere cannot reach the API by pointing its own name here."""
    answer = shared.client.get("/v1/status", headers={"host": "evil.example"})
    assert answer.status_code == 400
