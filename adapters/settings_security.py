"""How clients of a secured Kafka name and prove themselves: files, never arguments.

One table serves every role of a network: ``{role}`` in a user or a file stands for the role of the
process, so that each machine holds only the password or the key of the roles that it runs. A secret
is read from a file that its owner alone may read, when a client is made; no message shows it.
"""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, TypeVar

ENVIRONMENT: Final = "SYNOR_KAFKA_SECURITY"
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
        """The SASL user of a role; empty where the protocol knows none."""
        return self.user.replace(PLACE, role) if self.sasl else ""

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
        found: dict[str, object] = {"ssl_check_hostname": True}
        named = {
            "ssl_cafile": self.ca_file,
            "ssl_certfile": self.cert_file,
            "ssl_keyfile": self.key_file,
        }
        for option, name in named.items():
            if not name:
                continue
            path = Path(name.replace(PLACE, role))
            if not path.is_file():
                raise SecurityInvalid(f"There is no {path}; the brokers' [security] names it.")
            found[option] = str(path)
        if self.key_file:
            _own(Path(self.key_file.replace(PLACE, role)))
        return found


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
            for field in ("password_file", "ca_file", "cert_file", "key_file", "principals")
        },
    )
    if made.sasl and not (made.user and made.password_file):
        raise SecurityInvalid(f"{where} {protocol} needs user and password_file.")
    if not made.sasl and (made.user or made.password_file):
        raise SecurityInvalid(f"{where} user and password_file go with a protocol SASL_….")
    if made.tls and not made.ca_file:
        raise SecurityInvalid(f"{where} {protocol} needs ca_file, to know the brokers by.")
    if bool(made.cert_file) != bool(made.key_file):
        raise SecurityInvalid(f"{where} cert_file and key_file go together.")
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
