"""Identity files: who can read them, what opens them, that they are never written over."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from adapters import key_files
from adapters.cli_key import address_of
from adapters.ed25519 import Signer
from adapters.evm_keys import LocalSigner
from adapters.key_files import Identity, KeyFileError, PassphraseNeeded, WrongPassphrase
from tests.cli.commands import synor

PASSPHRASE = b"correct horse"


@pytest.fixture
def passphrase(tmp_path: Path) -> Path:
    """A file with the passphrase."""
    path = tmp_path / "passphrase"
    path.write_bytes(PASSPHRASE + b"\n")
    return path


def test_a_key_file_is_for_its_owner_alone_and_opens_with_its_passphrase(
    tmp_path: Path, passphrase: Path
) -> None:
    """Mode 0600, encrypted, and both keys are the ones that it shows."""
    path = tmp_path / "me.pem"
    made = synor("key", "new", path, "--passphrase-file", passphrase, "--json")
    assert made.code == 0, made.err
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    identity, shown = key_files.read(path, lambda: PASSPHRASE)
    assert Signer(identity.ledger).public.hex() == made.json["public_key"]
    assert identity.evm is not None
    assert f"0x{LocalSigner(identity.evm).address.hex()}" == made.json["evm_address"]
    assert shown.encrypted
    assert identity.ledger not in path.read_bytes()


def test_a_key_is_never_written_over(tmp_path: Path, passphrase: Path) -> None:
    """A second `key new` under one name changes nothing and leaves nothing behind."""
    path = tmp_path / "me.pem"
    assert synor("key", "new", path, "--passphrase-file", passphrase).code == 0
    before = path.read_bytes()
    again = synor("key", "new", path, "--passphrase-file", passphrase)
    assert (again.code, "exists already" in again.err) == (3, True)
    assert path.read_bytes() == before
    assert sorted(each.name for each in tmp_path.iterdir()) == ["me.pem", "passphrase"]


def test_a_wrong_passphrase_is_one_sentence(tmp_path: Path, passphrase: Path) -> None:
    """No traceback, and the exit code of an operating error."""
    path = tmp_path / "me.pem"
    synor("key", "new", path, "--passphrase-file", passphrase)
    passphrase.write_text("wrong horse\n")
    said = synor("key", "show", path, "--check", "--passphrase-file", passphrase)
    assert said.code == 3
    assert "does not open" in said.err
    assert "Traceback" not in said.err


def test_without_a_terminal_a_passphrase_is_asked_for_in_words(tmp_path: Path) -> None:
    """A script is told where a passphrase may come from."""
    said = synor("key", "new", tmp_path / "me.pem")
    assert said.code == 2
    assert "SYNOR_PASSPHRASE_FILE" in said.err
    assert not (tmp_path / "me.pem").exists()


def test_a_short_passphrase_is_refused(tmp_path: Path, passphrase: Path) -> None:
    """Eight characters at least."""
    passphrase.write_text("short\n")
    said = synor("key", "new", tmp_path / "me.pem", "--passphrase-file", passphrase)
    assert said.code == 2


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """As by ssh: the remedy is named."""
    path = tmp_path / "me.pem"
    key_files.write(path, Identity.new(evm=False), None, address_of=address_of)
    path.chmod(0o640)
    with pytest.raises(KeyFileError, match="chmod 600"):
        key_files.read(path, lambda: None)


def test_the_mode_of_a_file_that_is_no_key_is_nobodys_business(tmp_path: Path) -> None:
    """Else a person who named the wrong file would be told to change its mode."""
    path = tmp_path / "passwd"
    path.write_text("root:x:0:0\n")
    path.chmod(0o644)
    with pytest.raises(KeyFileError, match="no identity file"):
        key_files.show(path)


def test_a_key_of_a_machine_needs_no_passphrase_and_may_hold_no_tokens(tmp_path: Path) -> None:
    """Service keys load by themselves."""
    path = tmp_path / "clock.pem"
    said = synor("key", "new", path, "--no-passphrase", "--no-evm", "--json")
    assert said.json["evm_address"] is None
    identity, shown = key_files.read(path, lambda: None)
    assert identity.evm is None
    assert not shown.encrypted


def test_the_secrets_are_not_in_the_repr_of_an_identity() -> None:
    """A log line of it gives nothing away."""
    identity = Identity.new(evm=True)
    assert identity.ledger.hex() not in repr(identity)
    assert repr(identity.ledger) not in repr(identity)


def test_an_encrypted_file_says_that_it_needs_a_passphrase(tmp_path: Path) -> None:
    """Missing is told apart from wrong."""
    path = tmp_path / "me.pem"
    key_files.write(path, Identity.new(evm=True), PASSPHRASE, address_of=address_of)
    with pytest.raises(PassphraseNeeded):
        key_files.read(path, lambda: None)
    with pytest.raises(WrongPassphrase):
        key_files.read(path, lambda: b"wrong")


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(b"public-key: ", b"public-key: 00", 1),
        lambda text: text.replace(b"Synor identity 1", b"Synor identity 9", 1),
        lambda text: text.replace(b"scrypt: 32768", b"scrypt: 99999999999", 1),
        lambda text: text[: len(text) // 2],
        lambda text: b"",
    ],
)
def test_a_damaged_file_is_named_and_never_used(tmp_path: Path, change: object) -> None:
    """Whatever is in it, the answer is a sentence."""
    path = tmp_path / "me.pem"
    key_files.write(path, Identity.new(evm=True), PASSPHRASE, address_of=address_of)
    assert callable(change)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(KeyFileError, match=r"me\.pem"):
        key_files.read(path, lambda: PASSPHRASE)


def test_a_file_that_shows_another_key_than_it_holds_is_refused(tmp_path: Path) -> None:
    """The lines in the clear cannot lead a signer astray."""
    path = tmp_path / "me.pem"
    key_files.write(path, Identity.new(evm=False), PASSPHRASE, address_of=address_of)
    other = tmp_path / "other.pem"
    shown = key_files.write(other, Identity.new(evm=False), PASSPHRASE, address_of=address_of)
    mine = key_files.show(path).public.hex().encode()
    path.write_bytes(path.read_bytes().replace(mine, shown.public.hex().encode()))
    with pytest.raises(KeyFileError, match="another public key"):
        key_files.read(path, lambda: PASSPHRASE)
