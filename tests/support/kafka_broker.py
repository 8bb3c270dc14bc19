"""The broker of the tests: Apache Kafka itself, one for the session."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.kafka_broker import BrokerUnavailable, KafkaBroker


def started_broker(directory: Path, **properties: str) -> KafkaBroker:
    """A running broker of its own, for tests that kill or freeze it; the caller stops it.

    Properties are given with underscores for dots: `log_retention_ms="1000"`.
    """
    broker = KafkaBroker(
        directory,
        properties={name.replace("_", "."): value for name, value in properties.items()},
    )
    try:
        broker.start()
    except BrokerUnavailable as reason:
        pytest.fail(str(reason), pytrace=False)
    return broker


#: The listeners of a secured broker: who comes by user and password, and who by certificate.
USERS = "USERS"
CERTIFICATES = "CERTIFICATES"


def secured_broker(
    directory: Path,
    admin: str,
    password: str,
    *,
    keystore: Path | None = None,
    ca: Path | None = None,
) -> KafkaBroker:
    """A running broker that knows everybody by SCRAM and lets nobody do what no ACL allows.

    ``admin`` alone may do everything; the caller stops it. With a ``keystore`` all is over TLS, the
    broker's name is localhost, and at a second listener clients prove themselves by certificates of
    ``ca``: CN=…,OU=roles,O=Synor is synor-…, any other is its whole name. docs/operations.md has
    these settings.
    """
    scram = "org.apache.kafka.common.security.scram.ScramLoginModule required"
    plain = "org.apache.kafka.common.security.plain.PlainLoginModule required"
    inside = "controller"
    tls = {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(keystore),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(ca),
        f"listener.name.{CERTIFICATES.lower()}.ssl.client.auth": "required",
        "ssl.principal.mapping.rules": "RULE:^CN=([a-z]+),OU=roles,O=Synor$/synor-$1/,DEFAULT",
    }
    secured = "SASL_PLAINTEXT" if keystore is None else "SASL_SSL"
    broker = KafkaBroker(
        directory,
        listeners=(USERS,) if keystore is None else (USERS, CERTIFICATES),
        host="127.0.0.1" if keystore is None else "localhost",
        properties={
            "listener.security.protocol.map": (
                f"{USERS}:{secured},{CERTIFICATES}:SSL,CONTROLLER:SASL_PLAINTEXT"
            ),
            "sasl.enabled.mechanisms": "SCRAM-SHA-512",
            "sasl.mechanism.inter.broker.protocol": "SCRAM-SHA-512",
            "sasl.mechanism.controller.protocol": "PLAIN",
            "listener.name.controller.sasl.enabled.mechanisms": "PLAIN",
            f"listener.name.{USERS.lower()}.scram-sha-512.sasl.jaas.config": (
                f'{scram} username="{admin}" password="{password}";'
            ),
            "listener.name.controller.plain.sasl.jaas.config": (
                f'{plain} username="{inside}" password="{password}" user_{inside}="{password}";'
            ),
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": f"User:{admin};User:{inside}",
            **(tls if keystore is not None else {}),
        },
        users={admin: password},
    )
    try:
        broker.start()
    except BrokerUnavailable as reason:
        pytest.fail(str(reason), pytrace=False)
    return broker


@pytest.fixture(scope="session")
def kafka_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The bootstrap address of a broker that all tests of the session share.

    Tests must name their topics after themselves and leave the broker running.
    """
    broker = started_broker(tmp_path_factory.mktemp("kafka"))
    yield broker.bootstrap
    broker.stop()
