"""Asks a ledger's API, and sends it signed commands: what every command for people stands on.

Sending is safe to repeat: the same bytes run once. So where an answer is late, or a connection
broke, the same bytes are sent again until the ledger's answer is there.
"""

from __future__ import annotations

import http.client
import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from adapters import cli_passphrase
from adapters.cli_failures import Asked, Denied, Failure, Unable
from adapters.cli_output import document, positioned, said
from adapters.cli_shown import event_lines
from adapters.cli_units import hexadecimal
from adapters.settings import API_PORT
from domain.ids import Address, PublicKey, account_of, derive

if TYPE_CHECKING:
    from adapters.avro_codec import AvroCodec
    from adapters.ed25519 import Signer
    from adapters.key_files import Identity

ANSWER_WITHIN_S: Final = 30.0
_WAIT_S: Final = 5.0
_REQUEST_S: Final = 20.0
_PAGE: Final = 200
_PAUSE_S: Final = 0.3
_RUNNING: Final = Path("var/up/up.json")
GENESIS_HASH: Final = "SYNOR_GENESIS_HASH"

ApiUrl = Annotated[
    str | None,
    typer.Option(
        "--api",
        envvar="SYNOR_API",
        help="URL of the ledger's API; default: the `synor up` of this folder.",
    ),
]
KeyFile = Annotated[
    Path, typer.Option("--key", envvar="SYNOR_KEY", help="Identity file that signs.")
]
SomeKeyFile = Annotated[
    Path | None, typer.Option("--key", envvar="SYNOR_KEY", help="Identity file: whose.")
]
PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file", help="A file with the passphrase in its first line; - is stdin."
    ),
]
NewPassphraseFile = Annotated[
    Path | None,
    typer.Option("--new-passphrase-file", help="Passphrase of the new key's file."),
]


class NotFound(Asked):
    """The ledger does not have what was named, as far as it was followed."""


class Api:
    """One ledger's API."""

    def __init__(self, url: str | None) -> None:
        """``url`` None: where a `synor up` of this folder says that it is, else the usual port."""
        if url is None and _RUNNING.exists():
            url = json.loads(_RUNNING.read_text())["api"]
        self.url = (url or f"http://127.0.0.1:{API_PORT}").rstrip("/")
        if not self.url.startswith(("http://", "https://")):
            raise Asked(f"{self.url!r} is not the URL of an API.", "Write http://HOST:PORT.")

    def get(self, path: str, **parameters: object) -> dict[str, Any]:
        """One answer. Raises ``NotFound`` or another ``Failure``."""
        given = {name: str(value) for name, value in parameters.items() if value is not None}
        query = f"?{urllib.parse.urlencode(given)}" if given else ""
        found: dict[str, Any] = self._ask(urllib.request.Request(f"{self.url}{path}{query}"))
        return found

    def items(self, path: str, most: int, **parameters: object) -> Iterator[dict[str, Any]]:
        """Rows of a list, page by page, at most so many."""
        cursor = None
        while most > 0:
            limit = min(most, _PAGE)
            page = self.get(path, limit=limit, cursor=cursor, **parameters)
            yield from page["items"]
            most -= len(page["items"])
            cursor = page["next"]
            if cursor is None:
                return

    def post(self, path: str, body: bytes, media: str = "application/octet-stream") -> Any:
        """Send bytes. Raises ``Denied`` where the ledger refuses them."""
        headers = {"content-type": media}
        return self._ask(urllib.request.Request(f"{self.url}{path}", body, headers, method="POST"))

    def _ask(self, request: urllib.request.Request) -> Any:
        try:
            with urllib.request.urlopen(request, timeout=_REQUEST_S) as response:
                return json.loads(response.read())
        except urllib.error.HTTPError as error:
            raise _problem(error.code, error.read(), self.url) from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            reason = getattr(reason, "strerror", None) or reason
            raise NoServer(
                f"No ledger answers at {self.url} ({reason}).",
                "Start one with `synor up`, or name another with --api URL or SYNOR_API.",
            ) from None
        except ValueError:
            raise Unable(
                f"What answers at {self.url} is no ledger's API.",
                "Name the right URL with --api or SYNOR_API.",
            ) from None


class NoServer(Unable):
    """Nobody answers."""


def _problem(status: int, body: bytes, url: str) -> Failure:
    """A problem as the API tells it, as the failure that a person sees."""
    try:
        told = json.loads(body)
        number, remedy, what = int(told["code"]), str(told["remedy"]), _refusal(told)
    except (ValueError, KeyError, TypeError):
        return Unable(f"{url} answers with status {status}: {_detail(body)}")
    position = told.get("position")
    if number < 900:
        failure: Failure = Denied(what, remedy, position)
    elif number in (901, 911):
        failure = NotFound(what, remedy)
    elif number in (902, 903, 904, 905, 910):
        failure = Asked(what, remedy)
    else:
        failure = Unable(what, remedy)
    return failure


def _detail(body: bytes) -> str:
    """What an answer says that is no problem of the API: an embedded L1's own, or anything."""
    try:
        return str(json.loads(body)["detail"])
    except (ValueError, KeyError, TypeError):
        return "nothing that a ledger's API says."


def _refusal(told: Mapping[str, Any]) -> str:
    detail = str(told["detail"])
    return f"{told['code']} {told['name']}{': ' + detail if detail else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A command that the ledger has answered."""

    number: int
    answer: dict[str, Any]
    position: dict[str, Any]

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events that it led to."""
        found: list[dict[str, Any]] = self.answer["events"]
        return found


class Speaker:
    """One identity's session with a ledger: signs, sends, waits for answers."""

    def __init__(
        self, api: Api, signer: Signer, codec: AvroCodec, genesis_hash: bytes, session_us: int
    ) -> None:
        """Numbers start from 0; ``session_us`` is later than this key's last session."""
        self.api = api
        self._signer = signer
        self._codec = codec
        self._genesis_hash = genesis_hash
        self.session_us = session_us
        self._number = 0

    @property
    def key(self) -> PublicKey:
        """The public key."""
        return self._signer.public

    @property
    def account(self) -> bytes:
        """The account that the key opens."""
        return account_of(self.key)

    @property
    def genesis_hash(self) -> bytes:
        """The network that it speaks to."""
        return self._genesis_hash

    def holder(self) -> bytes:
        """The account that the key acts for: the one that it opened, or that registered it."""
        rows = list(self.api.items("/v1/keys", 1, key=self.key.hex()))
        return bytes.fromhex(rows[0]["account"]) if rows else self.account

    def id_of(self, kind: str, number: int, row: int = 0) -> bytes:
        """The id of what a command of this session makes."""
        return derive(kind, self.key, self.session_us, number, row)

    def sign(self, payload: Any) -> tuple[int, bytes]:
        """The next number and the wire bytes of a payload under it."""
        from adapters.ed25519 import sign_input
        from domain.codec import CodecError
        from domain.ids import Hash32

        number = self._number
        try:
            wire, _ = sign_input(
                self._codec,
                self._signer,
                Hash32(self._genesis_hash),
                payload,
                self.session_us,
                number,
            )
        except CodecError as error:
            raise Asked(
                f"This cannot be signed: {error}.",
                "Nothing was sent; give a smaller amount, quantity, price or time.",
            ) from None
        self._number += 1
        return number, wire

    def command(self, payload: Any) -> Sent:
        """Send a command and wait for its answer.

        Raises ``Denied`` where it, or the one row that it has, is refused.
        """
        number, wire = self.sign(payload)
        deadline = time.monotonic() + ANSWER_WITHIN_S
        while True:
            found = self._posted(wire, deadline)
            if found["answer"] is not None:
                break
            if time.monotonic() >= deadline:
                raise Unable(
                    f"The ledger has taken the command (offset {found['offset']}) and not answered "
                    f"within {ANSWER_WITHIN_S:.0f} s.",
                    f"Its answer will be at {self.api.url}/v1/answers/{self.key.hex()}/"
                    f"{self.session_us}/{number}; do not send the command anew before.",
                )
            time.sleep(_PAUSE_S)
        for row in found["answer"].get("refused_rows", ()):
            raise Denied(_refusal(row), row["remedy"], found["position"])
        return Sent(number=number, answer=found["answer"], position=found["position"])

    def _posted(self, wire: bytes, deadline: float) -> Any:
        """Send; where the connection broke after it stood, send the same bytes again."""
        while True:
            try:
                return self.api.post(f"/v1/commands?wait_s={_WAIT_S:g}", wire)
            except NoServer:
                # It answered a moment ago, when it was asked for its genesis.
                if time.monotonic() + _WAIT_S >= deadline:
                    raise
                time.sleep(_PAUSE_S)


def identity(file: Path, passphrase_file: Path | None) -> Identity:
    """The secrets of an identity file."""
    from adapters import key_files

    found, _ = key_files.read(file, lambda: cli_passphrase.known(passphrase_file, str(file)))
    return found


def speaker(url: str | None, file: Path, passphrase_file: Path | None) -> Speaker:
    """The identity of a file, ready to speak to a ledger."""
    from adapters.ed25519 import Signer

    signer = Signer(identity(file, passphrase_file).ledger)
    return speaker_of(Api(url), signer)


def speaker_of(api: Api, signer: Signer) -> Speaker:
    """A signer, ready to speak to a ledger."""
    from adapters.avro_codec import AvroCodec

    return Speaker(
        api, signer, AvroCodec(), genesis_hash_of(api), session_us=time.time_ns() // 1000
    )


def genesis_hash_of(api: Api) -> bytes:
    """The network that an API serves; held against the one that the environment names, if any."""
    found = bytes.fromhex(api.get("/v1/genesis")["hash"])
    wanted = os.environ.get(GENESIS_HASH)
    if wanted and hexadecimal(wanted, 32, "a network") != found:
        raise Asked(
            f"{api.url} serves the network {found.hex()}, and {GENESIS_HASH} names another.",
            "Name the right --api, or unset the variable.",
        )
    return found


def public_of(file: Path) -> PublicKey:
    """The public key of an identity file; needs no passphrase."""
    from adapters import key_files

    return key_files.show(file).public


def address_in(file: Path) -> Address:
    """The EVM address of an identity file. Raises ``Asked`` where it has none."""
    from adapters import key_files

    found = key_files.show(file).address
    if found is None:
        raise Asked(
            f"{file} holds no EVM key.", "Make an identity with one, or name the address itself."
        )
    return found


def told(sent: Sent, as_json: bool, note: str = "", **more: Any) -> None:
    """Print what the ledger answered: events, ids, position."""
    if as_json:
        document({**more, "answer": sent.answer, "position": sent.position})
        return
    for event in sent.events:
        for line in event_lines(event):
            said(line)
    for name, value in more.items():
        said(f"{name.replace('_', ' ')}: {value.hex() if isinstance(value, bytes) else value}")
    if note:
        said(note)
    said(positioned(sent.position))


def until(found: Callable[[], Any], what: str, within_s: float) -> Any:
    """Ask until there is something. Raises ``Unable`` when the time has passed."""
    deadline = time.monotonic() + within_s
    while True:
        value = found()
        if value is not None:
            return value
        if time.monotonic() >= deadline:
            raise Unable(
                f"{what} is not there after {within_s:.0f} s.",
                "It may still come: look again later.",
            )
        time.sleep(_PAUSE_S)
