"""An authority of the tests' own, and certificates of it for brokers and their clients."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

_DAY = dt.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and its private key, each as a file (PEM)."""

    cert: Path
    key: Path

    def together(self) -> Path:
        """Both in one file, as a broker's keystore of the type PEM is."""
        path = self.cert.with_suffix(".both.pem")
        path.touch(mode=0o600)
        path.write_text(self.key.read_text() + self.cert.read_text())
        return path


class Authority:
    """Answers for who holds a key, to whoever trusts its ``ca`` file."""

    def __init__(self, folder: Path, name: str) -> None:
        """Make the authority's key and its own certificate in ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named(name)
        own = (
            self._about(self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.ca = folder / "ca.pem"
        self.ca.write_bytes(own.public_bytes(serialization.Encoding.PEM))

    def issue(
        self, file: str, subject: str, *, hosts: Sequence[str] = (), password: str = ""
    ) -> Issued:
        """A certificate for a subject, written as RFC 4514 has it: CN=market,O=Synor."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts])
        usage = ExtendedKeyUsageOID.SERVER_AUTH if hosts else ExtendedKeyUsageOID.CLIENT_AUTH
        about = self._about(_named(subject), key.public_key()).add_extension(
            x509.ExtendedKeyUsage([usage]), critical=False
        )
        signed = (about.add_extension(names, critical=False) if hosts else about).sign(
            self._key, hashes.SHA256()
        )
        made = Issued(self._folder / f"{file}.crt", self._folder / f"{file}.key")
        made.cert.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        made.key.touch(mode=0o600)
        made.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(password.encode())
                if password
                else serialization.NoEncryption(),
            )
        )
        return made

    def _about(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _DAY)
            .not_valid_after(now + _DAY)
        )


def _named(text: str) -> x509.Name:
    return x509.Name.from_rfc4514_string(text)
