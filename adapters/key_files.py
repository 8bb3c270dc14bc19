"""Identity files: an Ed25519 key that signs for the ledger and an EVM key that holds tokens.

One text file of mode 0600: lines that may be seen (public key, EVM address), then each secret as
PKCS#8 in PEM, which OpenSSL reads too. The library encrypts PKCS#8 with no more than 2,048 rounds
of PBKDF2, too few for a key that holds money; so what it gets as password is scrypt of the
passphrase, with a salt that stands in the file. Without a passphrase (service keys that a machine
must load by itself) the file's mode is the only guard.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from domain.ids import Address, PublicKey

FORMAT: Final = "Synor identity 1"
MODE: Final = 0o600
_SCRYPT_N: Final = 1 << 15
_SCRYPT_N_MAX: Final = 1 << 20
_SCRYPT_R: Final = 8
_SECRET_BYTES: Final = 32
_FILE_MAX: Final = 64 * 1024
_PEM: Final = re.compile(
    rb"-----BEGIN (?:ENCRYPTED )?PRIVATE KEY-----[^-]+-----END (?:ENCRYPTED )?PRIVATE KEY-----\n?"
)
_FIELD: Final = re.compile(r"([a-z-]+): (.+)")


class KeyFileError(OSError):
    """A file that cannot be used as an identity; the text says why and what to do."""


class PassphraseNeeded(KeyFileError):
    """The file is encrypted and no passphrase was given."""


class WrongPassphrase(KeyFileError):
    """The passphrase does not open the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """The secrets of one file: 32 bytes each; ``evm`` None where it holds no tokens."""

    ledger: bytes = field(repr=False)
    evm: bytes | None = field(repr=False)

    @classmethod
    def new(cls, *, evm: bool) -> Identity:
        """Fresh secrets from the system's randomness."""
        drawn = ec.generate_private_key(ec.SECP256K1()).private_numbers().private_value
        return cls(
            ledger=secrets.token_bytes(_SECRET_BYTES),
            evm=drawn.to_bytes(_SECRET_BYTES, "big") if evm else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What a file says in the clear: enough for everything but signing."""

    public: PublicKey
    address: Address | None
    encrypted: bool


def write(
    path: Path,
    identity: Identity,
    passphrase: bytes | None,
    *,
    address_of: Callable[[bytes], Address],
) -> Shown:
    """Create the file, never over another one. ``address_of`` gives an EVM secret's address.

    Raises ``KeyFileError`` if the file exists or cannot be made.
    """
    signing = Ed25519PrivateKey.from_private_bytes(identity.ledger)
    public = PublicKey(signing.public_key().public_bytes_raw())
    address = None if identity.evm is None else address_of(identity.evm)
    lines = [FORMAT, f"public-key: {public.hex()}"]
    if address is not None:
        lines.append(f"evm-address: 0x{address.hex()}")
    sealing: KeySerializationEncryption = NoEncryption()
    if passphrase is not None:
        salt = secrets.token_bytes(16)
        lines.append(f"scrypt: {_SCRYPT_N} {_SCRYPT_R} 1 {salt.hex()}")
        sealing = BestAvailableEncryption(_stretched(passphrase, _SCRYPT_N, salt))
    parts = ["\n".join(lines).encode() + b"\n"]
    parts.append(signing.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, sealing))
    if identity.evm is not None:
        number = int.from_bytes(identity.evm, "big")
        paying = ec.derive_private_key(number, ec.SECP256K1())
        parts.append(paying.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, sealing))
    _create(path, b"".join(parts))
    return Shown(public=public, address=address, encrypted=passphrase is not None)


def _create(path: Path, content: bytes) -> None:
    """All of the content under the name, or nothing: a crash leaves no half of a key."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        handle = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, MODE)
        try:
            os.fchmod(handle, MODE)
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.link(draft, path)
        finally:
            draft.unlink()
    except FileExistsError:
        raise KeyFileError(
            f"{path} exists already; a key is never written over: take another name."
        ) from None
    except OSError as error:
        raise KeyFileError(f"{path} cannot be made: {error.strerror or error}.") from error
    # Where a folder cannot be synced the file is there all the same.
    with contextlib.suppress(OSError):
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def show(path: Path) -> Shown:
    """What the file says in the clear. Raises ``KeyFileError``."""
    return _shown(path, _fields(path, _content(path)))


def read(path: Path, passphrase: Callable[[], bytes | None]) -> tuple[Identity, Shown]:
    """The secrets; ``passphrase`` is asked only where the file is encrypted.

    Raises ``PassphraseNeeded``, ``WrongPassphrase`` or ``KeyFileError``.
    """
    content = _content(path)
    fields = _fields(path, content)
    shown = _shown(path, fields)
    password = None
    if "scrypt" in fields:
        given = passphrase()
        if given is None:
            raise PassphraseNeeded(f"{path} is encrypted and no passphrase was given.")
        password = _password(path, given, fields["scrypt"])
    ledger, evm = None, None
    for pem in _PEM.findall(content):
        try:
            loaded = load_pem_private_key(pem, password)
        except ValueError as error:
            if password is not None:
                raise WrongPassphrase(
                    f"The passphrase does not open {path}, or the file is damaged."
                ) from error
            raise KeyFileError(f"{path} is damaged: {error}.") from error
        except (TypeError, UnsupportedAlgorithm) as error:
            raise KeyFileError(f"{path} is damaged: {error}.") from error
        if isinstance(loaded, Ed25519PrivateKey):
            ledger = loaded.private_bytes_raw()
            if loaded.public_key().public_bytes_raw() != shown.public:
                raise KeyFileError(f"{path} shows another public key than the one it holds.")
        elif isinstance(loaded, ec.EllipticCurvePrivateKey):
            evm = loaded.private_numbers().private_value.to_bytes(_SECRET_BYTES, "big")
    if ledger is None:
        raise KeyFileError(f"{path} holds no Ed25519 key.")
    return Identity(ledger=ledger, evm=evm), shown


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            content = file.read(_FILE_MAX)
    except OSError as error:
        raise KeyFileError(f"{path} cannot be read: {error.strerror or error}.") from error
    if mode & 0o077 and content.startswith(FORMAT.encode()):
        raise KeyFileError(f"{path} can be read by others (mode {mode:03o}); run: chmod 600 {path}")
    return content


def _fields(path: Path, content: bytes) -> dict[str, str]:
    head = content.split(b"-----BEGIN", 1)[0].decode("utf-8", "replace").splitlines()
    if not head or head[0] != FORMAT:
        raise KeyFileError(f"{path} is no identity file of this program; make one: synor key new")
    return {m[1]: m[2] for line in head[1:] if (m := _FIELD.fullmatch(line)) is not None}


def _shown(path: Path, fields: dict[str, str]) -> Shown:
    try:
        public = bytes.fromhex(fields["public-key"])
        address = fields.get("evm-address")
        there = None if address is None else Address(bytes.fromhex(address.removeprefix("0x")))
    except (KeyError, ValueError):
        raise KeyFileError(f"{path} is damaged: its public lines cannot be read.") from None
    return Shown(public=PublicKey(public), address=there, encrypted="scrypt" in fields)


def _password(path: Path, passphrase: bytes, line: str) -> bytes:
    try:
        n, r, p, salt = line.split()
        if (int(r), int(p)) != (_SCRYPT_R, 1) or not 2 <= int(n) <= _SCRYPT_N_MAX:
            raise ValueError(line)
        return _stretched(passphrase, int(n), bytes.fromhex(salt))
    except ValueError:
        raise KeyFileError(f"{path} is damaged: its line of scrypt cannot be read.") from None


def _stretched(passphrase: bytes, n: int, salt: bytes) -> bytes:
    made = hashlib.scrypt(
        passphrase,
        salt=salt,
        n=n,
        r=_SCRYPT_R,
        p=1,
        dklen=_SECRET_BYTES,
        maxmem=2 * 128 * n * _SCRYPT_R,
    )
    return made.hex().encode()
