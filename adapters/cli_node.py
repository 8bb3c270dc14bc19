"""``synor node``: nodes, what they have, who vouches for it, and the agent that runs on them."""

from __future__ import annotations

import hashlib
import signal
import threading
import time
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from adapters.cli_client import (
    Api,
    ApiUrl,
    KeyFile,
    NotFound,
    PassphraseFile,
    SomeKeyFile,
    Speaker,
    identity,
    public_of,
    speaker,
    speaker_of,
    told,
)
from adapters.cli_failures import Asked, Unable
from adapters.cli_output import Json, commands, document, facts, positioned, said, table
from adapters.cli_shown import whole
from adapters.cli_units import (
    allocation,
    duration,
    hexadecimal,
    shown_amount,
    shown_duration,
    shown_synor,
    shown_time,
)
from adapters.cli_units import (
    region as region_named,
)
from adapters.settings_security import secured
from domain.ids import Hash32, NodeId, account_of, shard_of

if TYPE_CHECKING:
    from adapters.ed25519 import Signer
    from adapters.node_agent import Lease
    from domain.ports import Log
    from domain.telemetry import Batch

app = commands()

_NODES_LOOKED_AT: Final = 10_000
_LEASES: Final = 1_000

Which = Annotated[str, typer.Argument(help="Node.")]


class Metrics(Enum):
    """What an agent measures."""

    AUTO = "auto"
    NONE = "none"


@app.command("register")
def register(
    key: KeyFile,
    node_key: Annotated[Path, typer.Option(help="Identity file of the node itself.")],
    region: Annotated[str, typer.Option(help="Region of its instruments, as eu.")],
    has: Annotated[
        list[str], typer.Option("--has", help="What it has: gpu.h100=1, container.memory=64GB.")
    ],
    device: Annotated[
        list[str] | None,
        typer.Option("--device", help="Serial number of each physical device; only hashed."),
    ] = None,
    beat: Annotated[
        str, typer.Option(help="Interval of beats, as 10s; 0s: the genesis' own.")
    ] = "0s",
    grace: Annotated[
        str, typer.Option(help="Silence after which it is down, as 30s; 0s: the genesis' own.")
    ] = "0s",
    node_passphrase_file: Annotated[
        Path | None, typer.Option(help="Passphrase of the node's identity, if it is another.")
    ] = None,
    api: ApiUrl = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Register a node of the identity's provider; its own key signs that it is to be of it."""
    from adapters.ed25519 import Signer, prove
    from domain.genesis import Role
    from domain.node import Amount, NodeRow, RegisterNodes

    capacity = tuple(Amount(resource=name, amount=amount) for name, amount in map(allocation, has))
    pieces = sum(-(-a.amount // 1000) for a in capacity if a.resource.startswith("gpu."))
    if pieces > (most := _parameter(Api(api), "node_devices")):
        raise Asked(f"{pieces:,} devices are too many for one node.", f"List at most {most}.")
    # Without serial numbers a device is known by its node's key, which registers once.
    serials = device or [f"{public_of(node_key).hex()}/{n}" for n in range(max(pieces, 1))]
    who = speaker(api, key, passphrase_file)
    node_signer = Signer(identity(node_key, node_passphrase_file or passphrase_file).ledger)
    row = NodeRow(
        key=node_signer.public,
        region=region_named(region),
        capacity=capacity,
        identities=tuple(
            Hash32(hashlib.sha256(b"synor-device-v1" + each.encode()).digest()) for each in serials
        ),
        beat_us=duration(beat),
        grace_us=duration(grace),
        proof=prove(node_signer, who.genesis_hash, who.holder(), Role.NODE),
    )
    sent = who.command(RegisterNodes(nodes=(row,)))
    told(
        sent,
        as_json,
        note="Next: have it attested (synor node attest), and run its agent (synor node run).",
        node=who.id_of("node", sent.number),
    )


@app.command("attest")
def attest(
    node: Which,
    folder: Annotated[
        Path | None,
        typer.Option(help="Folder of a `synor up`: attest with its operator's attestor key."),
    ] = None,
    key: SomeKeyFile = None,
    lasts: Annotated[
        str | None, typer.Option(help="How long it is valid, as 20d; default: as long as allowed.")
    ] = None,
    api: ApiUrl = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Vouch as an attestor for all that a node says that it has."""
    from domain.node import AttestationRow, AttestNodes, leaf

    which = NodeId(hexadecimal(node, 16, "a node"))
    given_us = None if lasts is None else duration(lasts)
    attestor = _attestor(folder, key, passphrase_file)
    asked = Api(api)
    found = asked.get(f"/v1/nodes/{which.hex()}")["node"]
    longest = _parameter(asked, "attestation_us")
    version = int(found["manifest_version"])
    row = AttestationRow(
        node=which,
        leaves=tuple(
            leaf(which, each["resource"], whole(each["amount"]), version)
            for each in found["capacity"]
        ),
        # As long as allowed from now is less than that when the ledger judges it, a moment later.
        expires_us=time.time_ns() // 1000 + (longest if given_us is None else given_us),
    )
    who = speaker_of(asked, attestor)
    told(who.command(AttestNodes(attestations=(row,))), as_json)


def _attestor(folder: Path | None, key: Path | None, passphrase_file: Path | None) -> Signer:
    from adapters.ed25519 import Signer

    if folder is not None:
        from adapters.embedded import SystemKeys
        from adapters.up_folder import Folder

        return SystemKeys.derived(Folder(folder).read_seed()).attestor
    if key is None:
        raise Asked(
            "Who attests?",
            "Name an attestor's identity file with --key, or a --folder of synor up.",
        )
    return Signer(identity(key, passphrase_file).ledger)


@app.command("retire")
def retire(
    node: Which,
    key: KeyFile,
    api: ApiUrl = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Retire a node without live leases; its devices may be registered anew."""
    from domain.node import RetireNode

    which = NodeId(hexadecimal(node, 16, "a node"))
    told(speaker(api, key, passphrase_file).command(RetireNode(node=which)), as_json)


@app.command("ls")
def ls(
    key: SomeKeyFile = None,
    region: Annotated[str | None, typer.Option(help="Only in this region.")] = None,
    most: Annotated[int, typer.Option("--most", min=1, help="So many at most.")] = 50,
    api: ApiUrl = None,
    as_json: Json = False,
) -> None:
    """List nodes; with --key those of its account."""
    account = None if key is None else account_of(public_of(key)).hex()
    rows = list(Api(api).items("/v1/nodes", most, account=account, region=region))
    if as_json:
        document({"nodes": rows})
        return
    table(
        ("node", "provider", "region", ">stake SYNOR", "health", "registered"),
        (
            (
                row["node"],
                row["provider"],
                row["region"],
                shown_synor(whole(row["required_nano"])),
                "retired" if row["retired_us"] is not None else row["health"].lower(),
                shown_time(whole(row["registered_us"])),
            )
            for row in rows
        ),
        none="No such node.",
    )


@app.command("show")
def show(node: Which, api: ApiUrl = None, as_json: Json = False) -> None:
    """Show a node: what it has, what of it is leased, its health and attestations."""
    which = hexadecimal(node, 16, "a node")
    found = Api(api).get(f"/v1/nodes/{which.hex()}")
    if as_json:
        document(found)
        return
    row = found["node"]
    facts(
        (
            ("node", row["node"]),
            ("provider", row["provider"]),
            ("key", row["key"]),
            ("region", row["region"]),
            ("health", "retired" if row["retired_us"] is not None else row["health"].lower()),
            ("beats every", shown_duration(whole(row["beat_us"]))),
            ("down after", shown_duration(whole(row["grace_us"]))),
            ("required stake", f"{shown_synor(whole(row['required_nano']))} SYNOR"),
        )
    )
    table(
        ("has", ">amount", ">leased"),
        (
            (
                each["resource"],
                shown_amount(each["resource"], whole(each["amount"])),
                shown_amount(each["resource"], whole(each["leased"])),
            )
            for each in row["capacity"]
        ),
    )
    table(
        ("attested by", ">fields", "until"),
        (
            (each["attestor"], str(len(each["leaves"])), shown_time(whole(each["expires_us"])))
            for each in row["attestations"]
        ),
        none="Nobody attests it: synor node attest",
    )
    said(positioned(found["position"]))


@app.command("run")
def run(
    key: Annotated[Path, typer.Option("--key", envvar="SYNOR_KEY", help="The node's identity.")],
    metrics: Annotated[
        Metrics, typer.Option("--lease-metrics", help="auto: bytes of the network; none: beats.")
    ] = Metrics.AUTO,
    node: Annotated[str | None, typer.Option(help="Node; default: the one of the key.")] = None,
    interface: Annotated[
        list[str] | None, typer.Option(help="Network interface; default: all but loopback.")
    ] = None,
    auto_ready: Annotated[
        bool, typer.Option("--auto-ready", help="Say ready to every lease that opens on it.")
    ] = False,
    beats: Annotated[int | None, typer.Option(min=1, help="Stop after so many.")] = None,
    kafka: Annotated[
        str | None,
        typer.Option(
            help="Brokers to send telemetry to, instead of the API; SYNOR_KAFKA_SECURITY names a "
            "file of [log.security]."
        ),
    ] = None,
    meters: Annotated[
        Path | None, typer.Option(help="File of its counters; default: beside the key.")
    ] = None,
    api: ApiUrl = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Run the node's agent: sign beats and readings of this machine until Ctrl-C."""
    from adapters.ed25519 import Signer
    from adapters.node_agent import Agent, Meters, network_bytes

    asked = Api(api)
    who = speaker_of(asked, Signer(identity(key, passphrase_file).ledger))
    found = _own_node(asked, who.key, node)
    which = NodeId(bytes.fromhex(found["node"]))
    shards = int(asked.get("/v1/genesis")["shards"])
    numbers = {row["resource"]: int(row["number"]) for row in asked.items("/v1/catalogue", _LEASES)}
    stop = threading.Event()
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, lambda *_: stop.set())
    with_kafka, close = _telemetry(asked, kafka, shard_of(which, shards))
    agent = Agent(
        node=which,
        beat_us=whole(found["beat_us"]),
        ledger=_OverApi(who, which, with_kafka),
        meters=Meters.load(meters or key.with_name(f"{key.name}.meters.json")),
        numbers=numbers,
        measure=None if metrics is Metrics.NONE else lambda: network_bytes(interface or ()),
        auto_ready=auto_ready,
        say=(lambda _: None) if as_json else said,
        clock_us=lambda: time.time_ns() // 1000,
    )
    if not as_json:
        said(f"Node {which.hex()} beats every {shown_duration(whole(found['beat_us']))}.")
    try:
        agent.run(stop, beats)
    finally:
        close()
    if as_json:
        document({"node": which, "beats": agent.beats, "readings": agent.readings})
    else:
        said(f"Stopped after {agent.beats} beats with {agent.readings} readings.")


def _own_node(asked: Api, key: bytes, named: str | None) -> dict[str, Any]:
    if named is not None:
        which = hexadecimal(named, 16, "a node")
        found: dict[str, Any] = asked.get(f"/v1/nodes/{which.hex()}")["node"]
    else:
        rows = asked.items("/v1/nodes", _NODES_LOOKED_AT, retired="false")
        mine = next((row for row in rows if row["key"] == key.hex()), None)
        if mine is None:
            raise NotFound(
                f"No node is registered with the key {key.hex()}.",
                "Register it first: synor node register --node-key FILE",
            )
        found = mine
    if found["key"] != key.hex():
        raise Asked(
            f"Node {found['node']} signs with the key {found['key']}, not with this one.",
            "Name the node's own identity file with --key.",
        )
    if found["retired_us"] is not None:
        raise Asked(f"Node {found['node']} is retired.", "Register its devices anew.")
    return found


def _telemetry(
    asked: Api, kafka: str | None, shard: int
) -> tuple[Callable[[bytes], None], Callable[[], None]]:
    """How signed batches are sent, and how that is closed."""
    if kafka is None:
        return lambda wire: asked.post("/v1/telemetry", wire), lambda: None
    from adapters.kafka_log import KafkaLog

    log = KafkaLog(kafka, client_id="synor-node", security=secured().options("fleet"))
    return lambda wire: _append(log, shard, wire), log.close


def _append(log: Log, shard: int, wire: bytes) -> None:
    from domain.commit import TELEMETRY_TOPIC

    log.append(TELEMETRY_TOPIC, shard, wire)


class _OverApi:
    """The ledger as the agent asks for it, over the API."""

    def __init__(self, who: Speaker, node: bytes, send: Callable[[bytes], None]) -> None:
        self._who = who
        self._node = node
        self._send = send

    def leases(self) -> list[Lease]:
        from adapters.node_agent import lease_of

        node = self._node.hex()
        rows: list[dict[str, Any]] = self._asked(
            lambda: [
                row
                for state in ("opened", "active", "closing")
                for row in self._who.api.items("/v1/leases", _LEASES, node=node, state=state)
            ]
        )
        return [lease_of(row) for row in rows]

    def ready(self, lease: bytes) -> None:
        from domain.ids import LeaseId
        from domain.lease import ReadyLeases

        self._asked(lambda: self._who.command(ReadyLeases(leases=(LeaseId(lease),))))

    def send(self, batch: Batch) -> None:
        _, wire = self._who.sign(batch)
        self._asked(lambda: self._send(wire))

    def _asked(self, ask: Callable[[], Any]) -> Any:
        from adapters.node_agent import Unreachable
        from domain.ports import LogError

        try:
            return ask()
        except Unable as error:
            raise Unreachable(error.what) from error
        except LogError as error:
            raise Unreachable(str(error)) from error


def _parameter(asked: Api, name: str) -> int:
    for row in asked.items("/v1/parameters", 200):
        if row["name"] == name:
            return whole(row["value"])
    raise Unable(f"The ledger shows no parameter {name}.", "Is it of another version?")
