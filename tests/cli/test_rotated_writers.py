"""Every ledger of a network at work is given to another key, and nobody loses anything (R6.7)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from adapters import key_files, roles_genesis, settings
from adapters.avro_codec import AvroCodec
from adapters.kafka_log import KafkaLog
from adapters.worker_reading import writer_of
from domain.commit import LEDGER_TOPICS, Ledger, parse
from tests.cli.commands import synor, until
from tests.cli.deployment import Deployment, deployed
from tests.system.reading import records

pytestmark = [pytest.mark.service, pytest.mark.slow, pytest.mark.timeout(300)]
LEDGERS = ("market", "metering", "settlement")


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    """A network with its topics on a broker of its own."""
    with deployed(tmp_path) as made:
        made.ok("topics", "create", "--kafka", made.brokers)
        yield made


def new_writer(town: Deployment, ledger: str, number: int) -> Path:
    """A fresh key in the folder of the network's keys."""
    path = town.network / "keys" / f"{ledger}-{number}.pem"
    assert town.ask("key", "new", path, "--no-passphrase").code == 0
    return path


def named(town: Deployment, ledger: str, *names: str) -> None:
    """Let the settings name these files for the writer of a ledger."""
    path = town.network / settings.FILE_NAME
    lines = path.read_text().splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith(f"{ledger} = "))
    files = ", ".join(f'"keys/{name}.pem"' for name in names)
    lines[at] = f"{ledger} = [{files}]"
    path.write_text("\n".join(lines) + "\n")


def rotated(town: Deployment, ledger: str, path: Path) -> None:
    """What the operator does."""
    operator = ("--key", town.network / "keys" / "operator.pem")
    town.ok("network", "rotate-writer", ledger, path, *operator)


def writers(town: Deployment, ledger: Ledger, shard: int) -> list[bytes]:
    """Who wrote the heights of a ledger, each key once, in order; by what the broker has."""
    with closing(KafkaLog(town.brokers, client_id="test")) as log:
        found = [parse(record.value) for record in records(log, LEDGER_TOPICS[ledger], shard)]
    assert None not in found
    return list(dict.fromkeys(envelope.writer for envelope in found if envelope is not None))


def test_each_ledger_goes_on_under_the_key_that_the_operator_appoints(
    deployment: Deployment,
) -> None:
    """Under a running lease, without a restart where workers have the key; else they say so."""
    town = deployment
    paths = {ledger: new_writer(town, ledger, 2) for ledger in LEDGERS}
    for ledger in LEDGERS:
        named(town, ledger, ledger, f"{ledger}-2")
    town.start_roles()
    lease = town.lease()

    for ledger in LEDGERS:
        rotated(town, ledger, paths[ledger])
    again = town.ask(
        *("network", "rotate-writer", "market", paths["metering"]),
        *("--key", town.network / "keys" / "operator.pem"),
    )
    assert (again.code, "329 writer_not_new" in again.err) == (1, True)
    stranger = town.ask(
        *("network", "rotate-writer", "market", town.key("fresh"), "--key", town.key("buyer")),
    )
    assert (stranger.code, "key_role_not_allowed" in stranger.err) == (1, True)

    genesis = roles_genesis.read(town.network / "genesis.avro", AvroCodec())
    for of, shard in (
        (Ledger.MARKET, 0),
        (Ledger.METERING, 0),
        (Ledger.METERING, 1),
        (Ledger.SETTLEMENT, 0),
    ):
        keys = [writer_of(genesis, of), key_files.show(paths[of.name.lower()]).public]
        until(lambda of=of, shard=shard, keys=keys: writers(town, of, shard) == keys)

    # One that has not the key of its ledger stops by itself, says why, and has lost nothing.
    third = new_writer(town, "metering", 3)
    rotated(town, "metering", third)
    assert town.running["metering"].ended(within_s=60) == 3, town.running["metering"].text()
    assert key_files.show(third).public.hex() in town.running["metering"].text()
    refused = synor("work", "metering", "--shards", "0,1", env=town.env)
    assert (refused.code, "metering in the [keys]" in refused.err) == (3, True), refused.err
    named(town, "metering", "metering-3")
    town.start("metering", "work", "metering", "--shards", "0,1").wait("metering 1 works")

    found = town.closed(lease)
    charged = sum(int(line["posted_nano"]) for line in found["lines"])
    assert charged == int(found["provider_nano"]) + int(found["protocol_nano"]) > 0
    assert town.ok("topics", "check")["complaints"] == []
    town.stop_roles()
    verdict = town.ok("audit", f"kafka:{town.brokers}")
    assert verdict["charged_nano"] == charged
    assert verdict["state_hash"] == town.ok("audit", town.network)["state_hash"]
    bundle = town.folder / "whole.synor"
    town.ok("export", town.network, bundle)
    assert town.ok("audit", bundle)["state_hash"] == verdict["state_hash"]
