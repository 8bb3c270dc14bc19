"""Users and rights of a network on a secured Kafka, made and checked with its topics."""

from __future__ import annotations

import os
import secrets
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from adapters.roles import ADMIN, OPERATOR, Deployment
from adapters.settings import LogKind, SettingsInvalid
from adapters.settings_security import PLACE, Protocol, secret

if TYPE_CHECKING:
    from adapters.kafka_acls import KafkaAcls

Principals = Mapping[str, Sequence[str]]

_WITHIN_S: Final = 10.0
_PASSWORD_BYTES: Final = 32
_MODE: Final = 0o600


def principals_of(deployment: Deployment, named: Path | None) -> Principals | None:
    """Who has each role: of a file, else the users of the settings; None where nobody is named."""
    from adapters.kafka_acls import ROLES

    log = deployment.settings.log
    if log.kind is not LogKind.KAFKA:
        return None
    file = named or (Path(log.security.principals) if log.security.principals else None)
    if file is not None:
        return _read(file)
    if not log.security.user:
        return None
    return {role: (log.security.user_of(role),) for role in ROLES}


def secure(deployment: Deployment, principals: Principals, *, new_passwords: bool) -> None:
    """Make users where asked to, and grant each role its rights."""
    with _acls(deployment, ADMIN) as acls:
        if new_passwords:
            passwords = _passwords(deployment)
            acls.enrol(passwords, str(deployment.settings.log.security.mechanism))
        acls.grant(principals)


def weaker(deployment: Deployment, principals: Principals) -> Sequence[str]:
    """What the brokers grant beyond the table or lack of it, as sentences."""
    with _acls(deployment, OPERATOR) as acls:
        return acls.check(principals)


@contextmanager
def _acls(deployment: Deployment, role: str) -> Iterator[KafkaAcls]:
    from adapters.kafka_acls import KafkaAcls

    log = deployment.settings.log
    if log.security.protocol is Protocol.PLAINTEXT:
        raise SettingsInvalid(
            f"{deployment.settings.path}: [log.security] names no protocol, so the brokers cannot "
            "tell one role from another. Name one, or leave principals out."
        )
    acls = KafkaAcls(log.bootstrap, security=log.security.options(role), timeout_s=_WITHIN_S)
    try:
        yield acls
    finally:
        acls.close()


def _passwords(deployment: Deployment) -> dict[str, str]:
    """The password of each role's user, drawn where there is no file yet."""
    from adapters.kafka_acls import ROLES

    security = deployment.settings.log.security
    if not security.sasl or PLACE not in security.user or PLACE not in security.password_file:
        raise SettingsInvalid(
            f"{deployment.settings.path}: --new-passwords needs a protocol SASL_… and {PLACE} in "
            "[log.security] user and password_file, so that each role has a user of its own."
        )
    found = {}
    for role in ROLES:
        path = security.password_path(role)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _MODE)
            with os.fdopen(handle, "w") as file:
                file.write(secrets.token_urlsafe(_PASSWORD_BYTES) + "\n")
        found[security.user_of(role)] = secret(path)
    return found


def _read(path: Path) -> Principals:
    """A TOML file of role = ["user", …]."""
    try:
        with path.open("rb") as file:
            table = tomllib.load(file)
    except OSError as error:
        raise SettingsInvalid(f"{path} cannot be read: {error.strerror or error}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsInvalid(f"{path} is no TOML: {error}.") from error
    for role, users in table.items():
        if not isinstance(users, list) or not all(isinstance(user, str) for user in users):
            raise SettingsInvalid(f'{path}: {role} must be a list of users, ["synor-{role}"].')
    return table
