"""How clients of a secured Kafka name and prove themselves: files, never arguments.

One table serves every role of a network: ``{role}`` in a user or a file stands for the role of the
process, so that each machine holds only the password or the key of the roles that it runs. A secret
is read from a file that its owner alone may read, when a client is made; no message shows it.
"""

from __future__ import annotations

import os
import ssl
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, TypeVar

ENVIRONMENT: Final = "SYNOR_KAFKA_SECURITY"
KEY_PASSWORD: Final = "SYNOR_KAFKA_KEY_PASSWORD"
PLACE: Final = "{role}"
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_SECRET_MAX: Final = 4096
_FIELDS: Final = (
    "protocol",
    "mechanism",
    "user",
    "password_file",
    "ca_file",
    "cert_file",
    "key_file",
    "key_password_file",
    "principals",
)


_Enum = TypeVar("_Enum", bound=StrEnum)


class SecurityInvalid(Exception):
    """The table or a file that it names cannot be used; the text says which and what to do."""


class Protocol(StrEnum):
    """What Kafka calls a listener's security protocol."""

    PLAINTEXT = "PLAINTEXT"
    SSL = "SSL"
    SASL_PLAINTEXT = "SASL_PLAINTEXT"
    SASL_SSL = "SASL_SSL"


class Mechanism(StrEnum):
    """Only those that never send the password."""

    SCRAM_SHA_256 = "SCRAM-SHA-256"
    SCRAM_SHA_512 = "SCRAM-SHA-512"


@dataclass(frozen=True, slots=True, kw_only=True)
class Security:
    """The table as it stands, with paths already placed; nothing is read before ``options``."""

    protocol: Protocol = Protocol.PLAINTEXT
    mechanism: Mechanism = Mechanism.SCRAM_SHA_512
    user: str = ""
    password_file: str = ""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    key_password_file: str = ""
    principals: str = ""

    @property
    def sasl(self) -> bool:
        """Whether clients prove themselves by user and password."""
        return self.protocol in (Protocol.SASL_PLAINTEXT, Protocol.SASL_SSL)

    @property
    def tls(self) -> bool:
        """Whether connections are encrypted."""
        return self.protocol in (Protocol.SSL, Protocol.SASL_SSL)

    def user_of(self, role: str) -> str:
        """Whom the brokers know a role as: its SASL user, or what its certificate makes of it."""
        return self.user.replace(PLACE, role)

    def password_path(self, role: str) -> Path:
        """The file with the password of a role."""
        return Path(self.password_file.replace(PLACE, role))

    def options(self, role: str) -> dict[str, object]:
        """What every client of kafka-python takes. Raises ``SecurityInvalid``."""
        if self.protocol is Protocol.PLAINTEXT:
            return {}
        found: dict[str, object] = {"security_protocol": str(self.protocol)}
        if self.tls:
            found |= self._certificates(role)
        if self.sasl:
            found |= {
                "sasl_mechanism": str(self.mechanism),
                "sasl_plain_username": self.user_of(role),
                "sasl_plain_password": secret(self.password_path(role)),
            }
        return found

    def _certificates(self, role: str) -> dict[str, object]:
        """Files, which every new connection reads again, so that they may be renewed meanwhile."""
        ca, cert, key = (
            _there(name.replace(PLACE, role)) if name else None
            for name in (self.ca_file, self.cert_file, self.key_file)
        )
        found: dict[str, object] = {"ssl_check_hostname": True, "ssl_cafile": str(ca)}
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            context.load_verify_locations(ca)
        except ssl.SSLError as error:
            raise SecurityInvalid(f"{ca} holds no certificate of an authority (PEM).") from error
        if cert is not None and key is not None:
            _own(key)
            password = self._key_password(role)
            _try_key(context, cert, key, password)
            found |= {
                "ssl_certfile": str(cert),
                "ssl_keyfile": str(key),
                "ssl_password": password or "",
            }
        return found

    def _key_password(self, role: str) -> str | None:
        if self.key_password_file:
            return secret(Path(self.key_password_file.replace(PLACE, role)))
        return os.environ.get(KEY_PASSWORD)


def security_of(where: str, folder: Path, table: Mapping[str, Any]) -> Security:
    """Check a table; its files are relative to ``folder``. Raises ``SecurityInvalid``."""
    for field, value in table.items():
        if field not in _FIELDS:
            raise SecurityInvalid(
                f"{where} {field} is not a setting; known are {', '.join(_FIELDS)}."
            )
        if not isinstance(value, str) or not value:
            raise SecurityInvalid(f"{where} {field} must be a text.")
    protocol = _choice(where, table, "protocol", Protocol, Protocol.PLAINTEXT)
    made = Security(
        protocol=protocol,
        mechanism=_choice(where, table, "mechanism", Mechanism, Mechanism.SCRAM_SHA_512),
        user=table.get("user", ""),
        **{
            field: str(folder / table[field]) if field in table else ""
            for field in _FIELDS
            if field.endswith("_file") or field == "principals"
        },
    )
    if made.sasl and not (made.user and made.password_file):
        raise SecurityInvalid(f"{where} {protocol} needs user and password_file.")
    if not made.sasl and made.password_file:
        raise SecurityInvalid(f"{where} password_file goes with a protocol SASL_….")
    if not made.sasl and made.user and not made.cert_file:
        raise SecurityInvalid(
            f"{where} user goes with a protocol SASL_…, or with the cert_file that makes it so."
        )
    if made.tls and not made.ca_file:
        raise SecurityInvalid(f"{where} {protocol} needs ca_file, to know the brokers by.")
    if bool(made.cert_file) != bool(made.key_file):
        raise SecurityInvalid(f"{where} cert_file and key_file go together.")
    if made.key_password_file and not made.key_file:
        raise SecurityInvalid(f"{where} key_password_file goes with key_file.")
    if (made.ca_file or made.cert_file) and not made.tls:
        raise SecurityInvalid(f"{where} ca_file and cert_file go with a protocol SSL or SASL_SSL.")
    return made


def read(path: Path) -> Security:
    """The table as a file of its own, for a node or an auditor. Raises ``SecurityInvalid``."""
    try:
        with path.open("rb") as file:
            table = tomllib.load(file)
    except OSError as error:
        raise SecurityInvalid(f"{path} cannot be read: {error.strerror or error}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SecurityInvalid(f"{path} is no TOML: {error}.") from error
    return security_of(f"{path}:", path.parent, table)


def secured() -> Security:
    """What the file named in ``SYNOR_KAFKA_SECURITY`` says; an open broker where none is named."""
    named = os.environ.get(ENVIRONMENT)
    return Security() if not named else read(Path(named))


def secret(path: Path) -> str:
    """The first line of a file of mode 0600. Raises ``SecurityInvalid``; shows nothing of it."""
    _own(path)
    try:
        with path.open(encoding="utf-8") as file:
            line = file.readline(_SECRET_MAX).rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SecurityInvalid(f"The password file {path} cannot be read.") from error
    if not line:
        raise SecurityInvalid(f"The password file {path} is empty: its first line is the password.")
    return line


def _there(name: str) -> Path:
    """A file that tells whom to believe or who we are: nobody else may put another in its place."""
    path = Path(name)
    if not path.is_file():
        raise SecurityInvalid(f"There is no {path}; the brokers' [security] names it.")
    if path.stat().st_mode & stat.S_IWOTH:
        raise SecurityInvalid(f"{path} may be written by anybody: chmod o-w {path}")
    return path


def _try_key(context: ssl.SSLContext, cert: Path, key: Path, password: str | None) -> None:
    """Open certificate and key as every connection will. Raises ``SecurityInvalid``."""
    asked = False

    def told() -> str:
        nonlocal asked
        asked = True
        return password or ""

    try:
        context.load_cert_chain(cert, key, told)
    except (ssl.SSLError, ValueError) as error:
        if asked and password is None:
            raise SecurityInvalid(
                f"The key {key} is encrypted: name key_password_file, or set {KEY_PASSWORD}."
            ) from error
        if asked:
            raise SecurityInvalid(f"The password given does not open the key {key}.") from error
        raise SecurityInvalid(
            f"{cert} and {key} are no certificate and its private key (PEM)."
        ) from error


def _own(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise SecurityInvalid(
            f"There is no {path}: synor topics create --new-passwords makes password files."
        ) from error
    if mode & _OTHERS:
        raise SecurityInvalid(f"{path} may be read by others: chmod 600 {path}")


def _choice(
    where: str, table: Mapping[str, Any], field: str, kind: type[_Enum], default: _Enum
) -> _Enum:
    value = table.get(field, default)
    try:
        return kind(value)
    except ValueError:
        raise SecurityInvalid(
            f"{where} {field} is {value!r}, and must be one of {', '.join(kind)}."
        ) from None
