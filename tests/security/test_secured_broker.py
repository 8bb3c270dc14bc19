"""On a secured broker each role can do its own work and nothing else; a lease runs over it."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from kafka import KafkaAdminClient
from kafka.admin import ACL, ACLOperation, ACLPermissionType, ResourcePattern, ResourceType

from adapters import roles, settings
from adapters.kafka_log import KafkaLog
from adapters.settings_security import Protocol, Security, SecurityInvalid, read
from domain.commit import COMMANDS_TOPIC, TELEMETRY_TOPIC
from domain.ports import LogError
from tests.cli.commands import stopped_at_the_end, synor, until
from tests.cli.deployment import TINY, Deployment
from tests.security.rights import MARKET, RIGHTS, may
from tests.support.kafka_broker import secured_broker

ADMIN = "synor-admin"
PASSWORD = "not-a-word-of-any-dictionary"

SECURITY = """
[log.security]
protocol = "SASL_PLAINTEXT"
user = "synor-{role}"
password_file = "kafka/{role}.password"
"""

pytestmark = [pytest.mark.service, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A network whose topics, users and rights `synor topics create` has made."""
    folder = tmp_path_factory.mktemp("secured")
    broker = secured_broker(folder / "broker", ADMIN, PASSWORD)
    made = Deployment(folder, broker.bootstrap)
    try:
        where = ("--kafka", broker.bootstrap, "--genesis", TINY, "--port", "0")
        assert synor("network", "new", made.network, *where).code == 0
        file = made.network / settings.FILE_NAME
        file.write_text(file.read_text() + SECURITY)
        admin = made.network / "kafka" / "admin.password"
        admin.parent.mkdir()
        admin.touch(mode=0o600)
        admin.write_text(PASSWORD)
        said = made.ask("topics", "create", "--new-passwords")
        assert (said.code, PASSWORD in said.out + said.err) == (0, False), said
        yield made
    finally:
        with stopped_at_the_end(list(made.running.values())):
            pass
        broker.stop()


@pytest.mark.parametrize(("role", "reads", "writes"), RIGHTS)
def test_each_role_reads_and_writes_what_its_work_needs_and_is_refused_the_rest(
    town: Deployment, role: str, reads: tuple[str, ...], writes: tuple[str, ...]
) -> None:
    """Every role against every topic; what it may not is refused by the broker, by name."""
    found = settings.load(town.network).log
    assert may(found.bootstrap, found.security, role) == (set(reads), set(writes))


def test_who_does_not_prove_who_he_is_reaches_nothing(town: Deployment) -> None:
    """No user at all, an unknown user, a wrong password; no message shows the password."""
    right = settings.load(town.network).log.security.options("market")
    wrong = "the-wrong-password"
    for options in (
        {},
        right | {"sasl_plain_password": wrong},
        right | {"sasl_plain_username": "synor-nobody"},
    ):
        log = KafkaLog(town.brokers, client_id="stranger", security=options, read_timeout_s=2.0)
        with closing(log), pytest.raises(LogError) as refused:
            log.append(COMMANDS_TOPIC, 0, b"hello")
        assert wrong not in str(refused.value)
        assert str(right["sasl_plain_password"]) not in str(refused.value)


def test_the_check_names_what_is_granted_beyond_the_table_and_what_is_missing(
    town: Deployment,
) -> None:
    """A fleet that may write a ledger, anybody who may read telemetry, a right taken away."""
    assert town.ok("topics", "check")["complaints"] == []
    options = settings.load(town.network).log.security.options(roles.ADMIN)
    admin = KafkaAdminClient(bootstrap_servers=town.brokers, **options)

    def acl(
        user: str,
        operation: ACLOperation,
        name: str,
        permission: ACLPermissionType = ACLPermissionType.ALLOW,
        kind: ResourceType = ResourceType.TOPIC,
    ) -> ACL:
        return ACL(f"User:{user}", "*", operation, permission, ResourcePattern(kind, name))

    extra = [
        acl("synor-fleet", ACLOperation.WRITE, MARKET),
        acl("*", ACLOperation.READ, "*"),
        acl("synor-fleet", ACLOperation.ALL, "*", kind=ResourceType.GROUP),
        acl("synor-fleet", ACLOperation.DESCRIBE, TELEMETRY_TOPIC, ACLPermissionType.DENY),
    ]
    needed = [acl("synor-clock", ACLOperation.WRITE, TELEMETRY_TOPIC)]
    with closing(admin):
        admin.create_acls(extra)
        admin.delete_acls(needed)

        def complaints() -> str:
            said = town.ask("topics", "check")
            return said.err if said.code == 3 else ""

        said = until(complaints)
        assert f"User:synor-fleet may write on topic {MARKET}, which no role" in said
        assert "User:* may read on topic *, which no role" in said
        assert "User:synor-fleet may all on group *, which no role" in said
        assert f"User:synor-fleet is denied describe on topic {TELEMETRY_TOPIC}" in said
        assert f"User:synor-clock lacks write on topic {TELEMETRY_TOPIC}." in said
        admin.delete_acls(extra)
        admin.create_acls(needed)
    until(lambda: town.ask("topics", "check").code == 0)


def test_making_users_again_keeps_the_passwords_that_are_there(town: Deployment) -> None:
    """Files are of mode 0600; a second run changes none; a file that others may read is refused."""
    folder = town.network / "kafka"
    before = {path: path.read_bytes() for path in folder.iterdir()}
    town.ok("topics", "create", "--new-passwords")
    assert before == {path: path.read_bytes() for path in folder.iterdir()}
    assert {stat.S_IMODE(path.stat().st_mode) for path in before} == {0o600}
    watcher = folder / "watcher.password"
    watcher.chmod(0o640)
    found = roles.Deployment(settings.load(town.network))
    with ExitStack() as stack, pytest.raises(SecurityInvalid, match="chmod 600") as refused:
        found.log(stack, "watcher")
    assert watcher.read_text().strip() not in str(refused.value)
    watcher.chmod(0o600)


def test_a_lease_runs_over_a_secured_broker_and_is_audited_by_a_reader(town: Deployment) -> None:
    """Every role as its own user, the node's agent as the fleet; the lease is charged."""
    town.start_roles(("events", ("work", "events"), "Publishing events."))
    table = SECURITY.replace("[log.security]", "").replace("kafka/", f"{town.network}/kafka/")
    client = town.folder / "client.toml"
    client.write_text(table)
    town.env["SYNOR_KAFKA_SECURITY"] = str(client)
    assert read(client).protocol is Protocol.SASL_PLAINTEXT

    town.closed(town.lease())
    published = re.search(r"synor_published_events_total (\d+)", town.figures("events"))
    assert published is not None
    assert int(published[1]) > 0
    town.stop_roles("events")
    verdict = town.ok("audit", f"kafka:{town.brokers}")
    assert verdict["leases"] == 1
    assert verdict["charged_nano"] > 0
    assert verdict["state_hash"] == town.ok("audit", town.network)["state_hash"]


def test_a_table_of_security_with_a_mistake_is_a_sentence(tmp_path: Path) -> None:
    """What is missing, what does not go together, what may be read by others."""
    file = tmp_path / "client.toml"
    for text, says in (
        ('protocol = "SASL"', "must be one of PLAINTEXT, SSL"),
        ('protocol = "SASL_SSL"\nca_file = "ca.pem"', "needs user and password_file"),
        ('protocol = "SSL"', "needs ca_file"),
        ('protocol = "SSL"\nca_file = "a"\ncert_file = "b"', "go together"),
        ('user = "me"', "goes with a protocol SASL"),
        ('password_file = "me"', "goes with a protocol SASL"),
        ('key_password_file = "me"', "goes with key_file"),
        ('ca_file = "ca.pem"', "go with a protocol SSL"),
        ('password = "secret"', "password is not a setting"),
        ('mechanism = "PLAIN"', "SCRAM-SHA-512"),
    ):
        file.write_text(text)
        with pytest.raises(SecurityInvalid, match=says) as wrong:
            read(file)
        assert "secret" not in str(wrong.value)
    with pytest.raises(SecurityInvalid, match=r"There is no .*ca\.pem"):
        Security(protocol=Protocol.SSL, ca_file=str(tmp_path / "ca.pem")).options("fleet")
