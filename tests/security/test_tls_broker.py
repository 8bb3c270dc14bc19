"""On a broker that speaks TLS alone, each side knows the other by certificates, and rights hold."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from adapters import settings
from adapters.kafka_log import KafkaLog
from adapters.kafka_topics import KafkaTopics
from adapters.settings_security import KEY_PASSWORD, Protocol, Security, SecurityInvalid
from domain.commit import COMMANDS_TOPIC
from domain.ports import LogError
from tests.cli.commands import stopped_at_the_end, synor, until
from tests.cli.deployment import TINY, Deployment
from tests.security.rights import MARKET, RIGHTS, may
from tests.support.certificates import Authority, Issued
from tests.support.kafka_broker import CERTIFICATES, USERS, secured_broker

LONG = os.environ.get("SYNOR_LONG") == "1"
ADMIN = "synor-admin"
PASSWORD = "not-a-word-of-any-dictionary"
KEY_WORD = "opens-the-keys-of-all-roles"

BY_PASSWORD = """
[log.security]
protocol = "SASL_SSL"
user = "synor-{role}"
password_file = "kafka/{role}.password"
ca_file = "kafka/ca.pem"
principals = "principals.toml"
"""
BY_CERTIFICATE = """
[log.security]
protocol = "SSL"
user = "synor-{role}"
ca_file = "kafka/ca.pem"
cert_file = "kafka/{role}.crt"
key_file = "kafka/{role}.key"
principals = "principals.toml"
"""
GATEWAY = "CN=gateway-7,OU=fleets,O=Elsewhere"

pytestmark = [pytest.mark.service, pytest.mark.slow, pytest.mark.timeout(300)]


@dataclass(frozen=True, slots=True)
class Town:
    """A network described twice: for who comes by password, and for who comes by certificate."""

    users: Deployment
    certificates: Deployment
    authority: Authority
    stranger: Issued

    def security(self) -> Security:
        """How roles prove themselves by certificate."""
        return settings.load(self.users.network / "by-certificate.toml").log.security


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """Topics, users and rights are made over TLS; every role has a certificate too."""
    folder = tmp_path_factory.mktemp("tls")
    network = folder / "network"
    authority = Authority(network / "kafka", "CN=Authority,O=Synor")
    another = Authority(folder / "another", "CN=Authority,O=Synor")
    held = authority.issue("broker", "CN=broker,O=Synor", hosts=["localhost"]).together()
    broker = secured_broker(folder / "broker", ADMIN, PASSWORD, keystore=held, ca=authority.ca)
    users = Deployment(folder, broker.address(USERS))
    certificates = Deployment(folder, broker.address(CERTIFICATES))
    certificates.env = {"SYNOR_NETWORK": str(network / "by-certificate.toml")}
    try:
        where = ("--kafka", users.brokers, "--genesis", TINY, "--port", "0")
        assert synor("network", "new", network, *where).code == 0
        file = network / settings.FILE_NAME
        plain = file.read_text()
        file.write_text(plain + BY_PASSWORD)
        there = network / "by-certificate.toml"
        there.write_text(plain.replace(users.brokers, certificates.brokers) + BY_CERTIFICATE)
        admin = network / "kafka" / "admin.password"
        admin.touch(mode=0o600)
        admin.write_text(PASSWORD)
        users_of = {role: [f"synor-{role}"] for role, _, _ in RIGHTS}
        users_of["fleet"].append(GATEWAY)
        (network / "principals.toml").write_text(
            "".join(f"{role} = {names}\n" for role, names in users_of.items())
        )
        for role in users_of:
            authority.issue(role, f"CN={role},OU=roles,O=Synor")
        said = users.ask("topics", "create", "--new-passwords")
        assert (said.code, PASSWORD in said.out + said.err) == (0, False), said
        yield Town(users, certificates, authority, another.issue("m", "CN=market,OU=roles,O=Synor"))
    finally:
        with stopped_at_the_end([*users.running.values(), *certificates.running.values()]):
            pass
        broker.stop()


@pytest.mark.parametrize(
    ("role", "reads", "writes"), [row for row in RIGHTS if LONG or row[0] in ("fleet", "market")]
)
def test_a_certificate_gives_the_rights_that_the_password_of_its_role_gives(
    town: Town, role: str, reads: tuple[str, ...], writes: tuple[str, ...]
) -> None:
    """CN=market,OU=roles,O=Synor is the user synor-market, whichever listener it comes by."""
    security = town.security()
    assert may(town.certificates.brokers, security, role) == (set(reads), set(writes))
    if role == "market":
        found = settings.load(town.users.network).log.security
        assert found.protocol is Protocol.SASL_SSL
        assert may(town.users.brokers, found, role) == (set(reads), set(writes))


def test_a_name_that_no_rule_shortens_has_the_rights_given_to_it_whole(town: Town) -> None:
    """A gateway of another firm is a fleet by its full name; whoever else we answer for nobody."""
    topics = (COMMANDS_TOPIC, MARKET)
    for subject, rights in ((GATEWAY, {COMMANDS_TOPIC}), ("CN=nobody,O=Synor", set[str]())):
        held = town.authority.issue("other", subject)
        security = replace(town.security(), cert_file=str(held.cert), key_file=str(held.key))
        assert may(town.certificates.brokers, security, "fleet", topics) == (set(), rights)


def refusal(bootstrap: str, security: Security, role: str = "market") -> str:
    """What a role is told that the brokers do not let in."""
    options = security.options(role)
    log = KafkaLog(bootstrap, client_id="stranger", security=options, read_timeout_s=1.0)
    with closing(log), pytest.raises(LogError) as refused:
        log.append(COMMANDS_TOPIC, 0, b"hello")
    said = str(refused.value)
    assert PASSWORD not in said
    assert KEY_WORD not in said
    return said


def test_who_has_no_certificate_or_one_of_another_authority_is_told_so(town: Town) -> None:
    """Same name, other authority; no certificate at all; the listener of the other kind."""
    right, brokers = town.security(), town.certificates.brokers
    stranger = replace(right, cert_file=str(town.stranger.cert), key_file=str(town.stranger.key))
    assert f"does not take the certificate {town.stranger.cert}" in refusal(brokers, stranger)
    nameless = replace(right, user="", cert_file="", key_file="")
    assert "lets nobody in without a certificate" in refusal(brokers, nameless)
    by_password = settings.load(town.users.network).log.security.options("operator")
    with pytest.raises(LogError, match="lets nobody in without a certificate"):
        KafkaTopics(brokers, security=by_password, timeout_s=1.0)


def test_a_broker_that_cannot_prove_its_name_is_refused(town: Town) -> None:
    """Called by an address that its certificate lacks; of an authority that we do not trust."""
    right = settings.load(town.users.network).log.security
    elsewhere = town.users.brokers.replace("localhost", "127.0.0.1")
    assert "certificate that is not for 127.0.0.1" in refusal(elsewhere, right)
    trusting = replace(right, ca_file=str(town.stranger.cert.with_name("ca.pem")))
    assert "that no authority in" in refusal(town.users.brokers, trusting)


def test_roles_work_by_certificates_whose_keys_a_password_opens(town: Town) -> None:
    """The market's password is in a file, the clock's in the environment; neither is shown."""
    network, here = town.users.network, town.certificates
    word = network / "kafka" / "market.key-password"
    word.touch(mode=0o600)
    word.write_text(KEY_WORD)
    for role in ("market", "clock"):
        town.authority.issue(role, f"CN={role},OU=roles,O=Synor", password=KEY_WORD)
    file = network / "by-certificate.toml"
    plain = file.read_text()
    refused = here.ask("clock")
    assert (refused.code, "is encrypted: name key_password_file" in refused.err) == (2, True)
    named = 'key_password_file = "kafka/{role}.key-password"\n'
    file.write_text(plain + named)
    market = here.start("market", "work", "market").wait("market 0 works")
    file.write_text(plain)
    here.env[KEY_PASSWORD] = KEY_WORD
    clock = here.start("clock", "clock").wait("The clock ticks")

    def height() -> int:
        ledgers = here.ok("topics", "check")["ledgers"]
        return int(ledgers[0]["height"])

    assert until(lambda: height() > 0)
    for running in (market, clock):
        assert KEY_WORD not in Path(f"/proc/{running.pid}/cmdline").read_text()
        assert running.stop() == 0, running.text()
        assert KEY_WORD not in running.text()


def test_files_of_a_certificate_with_a_mistake_are_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not PEM, no pair, encrypted, read or written by others: each is named, no secret shown."""
    monkeypatch.delenv(KEY_PASSWORD, raising=False)
    authority = Authority(tmp_path, "CN=Authority")
    one = authority.issue("one", "CN=one")
    two = authority.issue("two", "CN=two")
    closed = authority.issue("closed", "CN=closed", password=KEY_WORD)
    wrong = tmp_path / "wrong.key-password"
    wrong.touch(mode=0o600)
    wrong.write_text("another-word\n")
    right = Security(
        protocol=Protocol.SSL,
        ca_file=str(authority.ca),
        cert_file=str(one.cert),
        key_file=str(one.key),
    )
    assert right.options("fleet")["ssl_certfile"] == str(one.cert)

    def says(security: Security, what: str) -> None:
        with pytest.raises(SecurityInvalid, match=what) as refused:
            security.options("fleet")
        assert KEY_WORD not in str(refused.value)
        assert "another-word" not in str(refused.value)

    says(replace(right, key_file=str(two.key)), "no certificate and its private key")
    says(replace(right, ca_file=str(one.key)), "holds no certificate of an authority")
    sealed = replace(right, cert_file=str(closed.cert), key_file=str(closed.key))
    says(sealed, "is encrypted: name key_password_file, or set SYNOR_KAFKA_KEY_PASSWORD")
    says(replace(sealed, key_password_file=str(wrong)), "does not open the key")
    monkeypatch.setenv(KEY_PASSWORD, KEY_WORD)
    assert sealed.options("fleet")["ssl_password"] == KEY_WORD
    one.key.chmod(0o640)
    says(right, "may be read by others: chmod 600")
    one.key.chmod(0o600)
    authority.ca.chmod(0o646)
    says(right, "may be written by anybody")
