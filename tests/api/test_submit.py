"""Signed inputs: what the gate would only count is not appended; answers are the ledger's."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from fastapi.testclient import TestClient

from adapters.api import create_app
from adapters.ed25519 import Signer, sign_input
from domain.account import OpenAccount, Withdraw
from domain.commit import COMMANDS_TOPIC, TELEMETRY_TOPIC, InputRun
from domain.gate import Opened, open_input
from domain.genesis import Role
from domain.ids import AccountId, Address, Hash32, NodeId, PublicKey, Wide, shard_of
from domain.key import CommandAnswered, KeyRegistered, KeyRevoked, key_aggregate
from domain.ledger import ActivateRules, Tick
from domain.ports import AppendUnknown, LogError
from domain.rules import NEWEST
from domain.telemetry import Batch
from tests.api.conftest import BASE, Scene
from tests.projections.ledgers import CLOCK, codec

SIGNER = Signer(hashlib.sha256(b"buyer").digest())
OCTETS = {"content-type": "application/octet-stream"}


def _signed(scene: Scene, payload: Any, number: int = 0, *, signer: Signer = SIGNER) -> bytes:
    genesis = Hash32(scene.network.hash)
    return sign_input(codec(), signer, genesis, payload, 1, number)[0]


def _open_account() -> OpenAccount:
    return OpenAccount(payee=Address(b"\5" * 20))


def _post(scene: Scene, value: bytes, path: str = "commands", **headers: str) -> Any:
    return scene.client.post(f"/v1/{path}", content=value, headers={**OCTETS, **headers})


def _end(scene: Scene) -> int:
    return scene.network.log.end(COMMANDS_TOPIC, 0)


def _answer(scene: Scene, value: bytes, *, code: int = 0, offset: int | None = None) -> None:
    """What the market would record of a command."""
    opened = open_input(
        value,
        size_max=1 << 20,
        codec=codec(),
        verify=lambda *_: True,
    )
    assert isinstance(opened, Opened)
    signed = opened.signed
    answered = CommandAnswered(
        at_us=scene.story.time_us,
        key=signed.key,
        session=signed.session,
        number=signed.number,
        digest=Hash32(opened.digest),
        kind=signed.kind,
        code=code,
        detail="figures" if code else "",
        rows=(),
        events=0,
    )
    _commit(scene, [(key_aggregate(signed.key), answered)], offset)


def _commit(scene: Scene, events: list[tuple[bytes, Any]], offset: int | None) -> None:
    runs: tuple[InputRun, ...] = ()
    if offset is not None:
        run = InputRun(
            topic=COMMANDS_TOPIC,
            partition=0,
            first=offset,
            next=offset + 1,
            count=1,
            digest=Hash32(bytes(32)),
        )
        runs = (run,)
    scene.network.market.commit(scene.story.time_us, events, runs)
    scene.projector.catch_up()


def _key(scene: Scene, *, revoked: bool = False) -> None:
    key, account = SIGNER.public, AccountId(b"\6" * 16)
    now = scene.story.time_us
    events: list[tuple[bytes, Any]] = [
        (
            key_aggregate(key),
            KeyRegistered(at_us=now, key=key, role=Role.OWNER, account=account),
        )
    ]
    if revoked:
        events.append((key_aggregate(key), KeyRevoked(at_us=now, key=key)))
    _commit(scene, events, None)


@pytest.fixture
def market(empty: Scene) -> Iterator[Scene]:
    """A scene in which a thread answers what is appended, as the market would."""
    stop = threading.Event()

    def answers() -> None:
        log = empty.network.open_log()
        offset = log.end(COMMANDS_TOPIC, 0)
        while not stop.is_set():
            fetched = log.read(COMMANDS_TOPIC, 0, offset, max_bytes=1 << 20, wait_s=0.05)
            for record in fetched.records:
                refused = b"Withdraw" in record.value
                _answer(empty, record.value, code=110 if refused else 0, offset=record.offset)
            offset = fetched.next_offset

    thread = threading.Thread(target=answers)
    thread.start()
    yield empty
    stop.set()
    thread.join()


def test_a_command_is_appended_as_it_was_sent(empty: Scene) -> None:
    """And its offset is told."""
    value = _signed(empty, _open_account())
    answer = _post(empty, value)
    assert answer.status_code == 202
    assert answer.json()["offset"] == 0
    assert answer.json()["answer"] is None
    records = empty.network.log.read(COMMANDS_TOPIC, 0, 0, max_bytes=1 << 20).records
    assert [record.value for record in records] == [value]


def test_who_waits_gets_the_answer_with_the_position(market: Scene) -> None:
    """Read-your-write for commands."""
    answer = _post(market, _signed(market, _open_account()), path="commands?wait_s=5")
    assert answer.status_code == 200, answer.text
    assert answer.json()["answer"]["accepted"]
    assert answer.json()["position"]["market"] == market.network.market.height


def test_a_refusal_of_the_ledger_comes_with_its_number_and_remedy(market: Scene) -> None:
    """As a problem, and with the offset at which it stands."""
    value = _signed(market, Withdraw(amount_nano=Wide(5)))
    answer = _post(market, value, path="commands?wait_s=5")
    assert answer.status_code == 400
    assert answer.json()["code"] == 110
    assert answer.json()["detail"] == "figures"
    assert answer.json()["answer"]["height"] == answer.json()["position"]["market"]


@pytest.mark.parametrize(
    ("spoil", "name"),
    [
        (lambda value: value[:-1] + bytes([value[-1] ^ 1]), "bad_signature"),
        (lambda value: value + b"\0", "trailing_bytes"),
        (lambda value: value[:50], "malformed"),
        (lambda value: b"", "unknown_envelope"),
        (lambda value: b"\0" * 40, "unknown_envelope"),
        (lambda value: b"\1" * 500_000, "body_too_large"),
    ],
)
def test_what_the_gate_would_only_count_is_not_appended(
    empty: Scene, spoil: Any, name: str
) -> None:
    """The same code judges it before it costs a place on the log."""
    answer = _post(empty, spoil(_signed(empty, _open_account())))
    assert answer.status_code in (400, 413)
    assert answer.json()["name"] == name
    assert answer.json()["remedy"]
    assert _end(empty) == 0


def test_inputs_for_another_network_or_topic_are_not_appended(empty: Scene) -> None:
    """Named as the ledger would name it."""
    foreign, _ = sign_input(codec(), SIGNER, Hash32(b"\1" * 32), _open_account(), 1, 0)
    assert _post(empty, foreign).json()["name"] == "wrong_network"
    batch = Batch(nodes=(), leases=(), lease=(), resource=(), generation=(), time_us=(), total=())
    assert _post(empty, _signed(empty, batch)).json()["name"] == "wrong_kind"
    tick = Tick(time_us=1)
    assert _post(empty, _signed(empty, tick)).json()["name"] == "key_role_not_allowed"
    assert _post(empty, _signed(empty, _open_account()), "telemetry").json()["code"] == 204
    assert _end(empty) == 0
    assert _post(empty, _signed(empty, tick, signer=CLOCK)).status_code == 202


def test_a_body_that_is_too_large_is_not_read(empty: Scene) -> None:
    """By its declared length, or as soon as it passes the limit."""
    size = empty.network.genesis.parameters.input_bytes
    declared = _post(empty, b"\0" * (size + 1))
    assert declared.status_code == 413
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        for _ in range(1000):
            taken += 1
            yield b"\0" * 65536

    streamed = empty.client.post("/v1/commands", content=endless(), headers=OCTETS)
    assert streamed.json()["code"] == 904
    assert _end(empty) == 0


def test_a_form_of_a_foreign_page_cannot_send_inputs(empty: Scene) -> None:
    """Browsers send this media type only after asking, and nobody here answers yes."""
    value = _signed(empty, _open_account())
    for media in ("text/plain", "application/x-www-form-urlencoded", ""):
        answer = _post(empty, value, **{"content-type": media})
        assert answer.status_code == 415
    assert empty.client.options("/v1/commands").status_code == 405


def test_a_repeat_gets_the_first_answer_and_no_second_place(empty: Scene) -> None:
    """And other content under the number is refused, as the ledger would."""
    value = _signed(empty, _open_account())
    _answer(empty, value)
    repeat = _post(empty, value)
    assert repeat.status_code == 200
    assert repeat.json()["repeat"]
    assert repeat.json()["answer"]["accepted"]
    other = _signed(empty, OpenAccount(payee=Address(b"\7" * 20)))
    conflict = _post(empty, other)
    assert conflict.status_code == 422
    assert conflict.json()["name"] == "sequence_conflict"
    assert _end(empty) == 0


def test_a_revoked_key_is_refused_for_ever(empty: Scene) -> None:
    """No later event can bring it back, so nothing is appended."""
    _key(empty, revoked=True)
    answer = _post(empty, _signed(empty, Withdraw(amount_nano=Wide(1))))
    assert answer.json()["name"] == "revoked_key"
    assert _end(empty) == 0


@pytest.mark.parametrize(("known", "name"), [(False, "unknown_key"), (True, "not_answered")])
def test_a_command_that_the_market_only_counted_is_told_apart(
    empty: Scene, known: bool, name: str
) -> None:
    """It was consumed without an answer: waiting longer would be in vain."""
    if known:
        _key(empty)

    def consume() -> None:
        while _end(empty) == 0:
            time.sleep(0.01)
        _commit(empty, [], 0)

    thread = threading.Thread(target=consume)
    thread.start()
    answer = _post(empty, _signed(empty, Withdraw(amount_nano=Wide(1))), "commands?wait_s=8")
    thread.join()
    assert answer.status_code == 422
    assert answer.json()["name"] == name


def test_telemetry_goes_to_the_partition_of_its_shard(empty: Scene) -> None:
    """A node without Kafka needs to know nothing of shards."""
    nodes = [NodeId(bytes([byte]) * 16) for byte in range(40)]
    for shard in (0, 1):
        own = tuple(node for node in nodes if shard_of(node, 2) == shard)[:3]
        batch = Batch(
            nodes=own, leases=(), lease=(), resource=(), generation=(), time_us=(), total=()
        )
        answer = _post(empty, _signed(empty, batch, shard), "telemetry")
        assert answer.status_code == 202
        assert answer.json()["shard"] == shard
        assert empty.network.log.end(TELEMETRY_TOPIC, shard) == 1
    mixed = Batch(
        nodes=tuple(nodes), leases=(), lease=(), resource=(), generation=(), time_us=(), total=()
    )
    assert _post(empty, _signed(empty, mixed, 2), "telemetry").json()["name"] == "wrong_shard"
    none = replace(mixed, nodes=())
    assert (
        _post(empty, _signed(empty, none, 3), "telemetry").json()["name"] == "batch_names_no_node"
    )


@pytest.mark.parametrize(("error", "code"), [(LogError("down"), 908), (AppendUnknown("lost"), 909)])
def test_an_operating_error_of_the_log_says_what_to_do(
    empty: Scene, error: Exception, code: int
) -> None:
    """Sending the same bytes again is safe in both cases."""

    def fails(value: bytes) -> int:
        raise error

    client = TestClient(create_app(replace(empty.service, submit=fails)), base_url=BASE)
    answer = client.post("/v1/commands", content=_signed(empty, _open_account()), headers=OCTETS)
    assert answer.status_code == 503
    assert answer.json()["code"] == code


def test_an_api_without_a_log_is_read_only(empty: Scene) -> None:
    """A replica answers questions only."""
    service = replace(empty.service, submit=None, submit_telemetry=None)
    client = TestClient(create_app(service), base_url=BASE)
    for path in ("commands", "telemetry"):
        answer = client.post(f"/v1/{path}", content=b"", headers=OCTETS)
        assert answer.json()["code"] == 913


def test_too_many_inputs_a_second_are_turned_away(empty: Scene) -> None:
    """With the time after which to come back."""
    now = [0.0]
    service = replace(empty.service, inputs_per_s=2.0, clock_s=lambda: now[0])
    client = TestClient(create_app(service), base_url=BASE)
    seen = [client.post("/v1/commands", content=b"x", headers=OCTETS).status_code for _ in range(3)]
    assert seen == [400, 400, 429]
    late = client.post("/v1/commands", content=b"x", headers=OCTETS)
    assert late.headers["retry-after"] == "1"
    now[0] = 1.0
    assert client.post("/v1/commands", content=b"x", headers=OCTETS).status_code == 400


def test_a_key_is_of_thirty_two_bytes_in_every_answer() -> None:
    """The signer of these tests is a real one."""
    assert len(PublicKey(SIGNER.public)) == 32


def test_rules_that_this_program_lacks_are_not_passed_on_whoever_signed(empty: Scene) -> None:
    """A version in force that nobody has stops the network for good; the next one is passed on."""
    end = _end(empty)
    said = _post(empty, _signed(empty, ActivateRules(version=NEWEST + 1)))
    assert (said.status_code, said.json()["code"]) == (422, 918)
    assert said.json()["name"] == "rules_not_here"
    assert f"version {NEWEST + 1}; here are 1" in said.json()["detail"]
    assert _end(empty) == end
    _post(empty, _signed(empty, ActivateRules(version=NEWEST), 1), "commands?wait_s=0")
    assert _end(empty) == end + 1, "whether it is the next one is the ledger's to say"
