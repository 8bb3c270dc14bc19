"""The committed schemas, as a Confluent-compatible registry that is read only.

So that standard consumers and producers work on the topics as they are: the id in a Confluent frame
is the number of the lock file, a subject is a record's full name (their RecordNameStrategy) and has
one version, since a new shape is a new full name. The two input topics have a subject by their own
name too, for producers that know no other strategy. What would change something is refused in the
registry's own form; a schema that stands already is "registered" by answering its id.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from domain import outside_json
from domain.commit import COMMANDS_TOPIC, TELEMETRY_TOPIC
from domain.signed import Signed
from schemas.compatibility import INPUTS, TooIntricate, unreadable
from schemas.derive import fingerprint
from schemas.lock import FOLDER, committed

MEDIA_TYPE: Final = "application/vnd.schemaregistry.v1+json"
_BODY_MAX: Final = 1 << 20
_NAMES_MAX: Final = 256
_VERSION: Final = 1
_SIGNED: Final[str] = Signed.NAME  # type: ignore[attr-defined]

_NO_SUBJECT: Final = 40401
_NO_VERSION: Final = 40402
_NO_SCHEMA: Final = 40403
_READ_ONLY: Final = 42205
_NO_AVRO: Final = 42201


class Wrong(Exception):
    """An answer of the registry that is an error: HTTP status, its own code, a sentence."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """One schema: its full name, its number, its text and its fingerprint."""

    name: str
    number: int
    schema: Any
    text: str
    fingerprint: bytes


@cache
def _known() -> tuple[dict[str, Known], dict[int, Known], dict[bytes, Known]]:
    """By subject, by number and by fingerprint."""
    made = []
    for name, entry in committed().entries.items():
        schema = json.loads((FOLDER / f"{name}.avsc").read_text())
        text = json.dumps(schema, separators=(",", ":"), ensure_ascii=False)
        made.append(
            Known(
                name=name,
                number=entry.number,
                schema=schema,
                text=text,
                fingerprint=entry.fingerprint,
            )
        )
    subjects = {known.name: known for known in made}
    for topic in (COMMANDS_TOPIC, TELEMETRY_TOPIC):
        subjects[f"{topic}-value"] = subjects[_SIGNED]
    return subjects, {k.number: k for k in made}, {k.fingerprint: k for k in made}


def registry() -> Starlette:
    """The application of ASGI; it asks nobody and remembers nothing."""
    get = {
        "/": _root,
        "/subjects": _subjects,
        "/subjects/{subject}/versions": _versions,
        "/subjects/{subject}/versions/{version}": _version,
        "/subjects/{subject}/versions/{version}/schema": _text,
        "/subjects/{subject}/versions/{version}/referencedby": _nobody,
        "/schemas": _schemas,
        "/schemas/types": _types,
        "/schemas/ids/{id}": _by_id,
        "/schemas/ids/{id}/schema": _text_by_id,
        "/schemas/ids/{id}/subjects": _subjects_of,
        "/schemas/ids/{id}/versions": _versions_of,
        "/config": _config,
        "/config/{subject}": _config,
        "/mode": _mode,
        "/mode/{subject}": _mode,
        "/contexts": _contexts,
    }
    post = {
        "/subjects/{subject}": _lookup,
        "/subjects/{subject}/versions": _register,
        "/compatibility/subjects/{subject}/versions": _compatible,
        "/compatibility/subjects/{subject}/versions/{version}": _compatible,
    }
    routes = [
        *(Route(path, _answered(answer), methods=["POST"]) for path, answer in post.items()),
        *(Route(path, _answered(answer), methods=["GET"]) for path, answer in get.items()),
        Route("/{rest:path}", _answered(_refused), methods=["PUT", "DELETE", "POST", "PATCH"]),
        Route("/{rest:path}", _answered(_nothing), methods=["GET"]),
    ]
    return Starlette(routes=routes)


def _answered(
    answer: Callable[[Request], Awaitable[Any]],
) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        try:
            found = await answer(request)
        except Wrong as wrong:
            body = {"error_code": wrong.code, "message": wrong.message}
            return JSONResponse(body, status_code=wrong.status, media_type=MEDIA_TYPE)
        return JSONResponse(found, media_type=MEDIA_TYPE)

    return endpoint


# Reading


async def _root(request: Request) -> Any:
    return {}


async def _subjects(request: Request) -> Any:
    prefix = request.query_params.get("subjectPrefix", "")
    return sorted(subject for subject in _known()[0] if subject.startswith(prefix))


async def _versions(request: Request) -> Any:
    _subject(request)
    return [_VERSION]


async def _version(request: Request) -> Any:
    return _whole(_chosen(request), request.path_params["subject"])


async def _text(request: Request) -> Any:
    return _chosen(request).schema


async def _nobody(request: Request) -> Any:
    _chosen(request)
    return []


async def _schemas(request: Request) -> Any:
    prefix = request.query_params.get("subjectPrefix", "")
    return [
        _whole(known, subject)
        for subject, known in sorted(_known()[0].items())
        if subject.startswith(prefix)
    ]


async def _types(request: Request) -> Any:
    return ["AVRO"]


async def _by_id(request: Request) -> Any:
    return {"schema": _numbered(request).text}


async def _text_by_id(request: Request) -> Any:
    return _numbered(request).schema


async def _subjects_of(request: Request) -> Any:
    return _names_of(_numbered(request))


async def _versions_of(request: Request) -> Any:
    return [{"subject": name, "version": _VERSION} for name in _names_of(_numbered(request))]


async def _config(request: Request) -> Any:
    subject = request.path_params.get("subject")
    known = None if subject is None else _subject(request)
    inputs = known is not None and INPUTS.match(known.name) is not None
    return {"compatibilityLevel": "FORWARD_TRANSITIVE" if inputs else "FULL_TRANSITIVE"}


async def _mode(request: Request) -> Any:
    return {"mode": "READONLY"}


async def _contexts(request: Request) -> Any:
    return ["."]


async def _lookup(request: Request) -> Any:
    known = _subject(request)
    if fingerprint(await _posted(request)) != known.fingerprint:
        raise Wrong(404, _NO_SCHEMA, "Schema not found")
    return _whole(known, request.path_params["subject"])


async def _register(request: Request) -> Any:
    schema = await _posted(request)
    known = _known()[0].get(request.path_params["subject"])
    if known is not None and fingerprint(schema) == known.fingerprint:
        return {"id": known.number, "version": _VERSION, "schema": known.text}
    raise _read_only()


async def _compatible(request: Request) -> Any:
    known, schema = _subject(request), await _posted(request)
    try:
        found = unreadable(reader=known.schema, writer=schema)
        if INPUTS.match(known.name) is None:
            found += unreadable(reader=schema, writer=known.schema)
    except TooIntricate:
        raise Wrong(422, _NO_AVRO, "The schema is too intricate to be compared.") from None
    if request.query_params.get("verbose") == "true":
        return {"is_compatible": not found, "messages": found}
    return {"is_compatible": not found}


async def _refused(request: Request) -> Any:
    raise _read_only()


async def _nothing(request: Request) -> Any:
    raise Wrong(404, 404, "HTTP 404 Not Found")


# What is asked for


def _subject(request: Request) -> Known:
    name = request.path_params["subject"]
    known = _known()[0].get(name)
    if known is None:
        raise Wrong(404, _NO_SUBJECT, f"Subject '{name[:_NAMES_MAX]}' not found.")
    return known


def _chosen(request: Request) -> Known:
    known, version = _subject(request), request.path_params["version"]
    if version not in (str(_VERSION), "latest", "-1"):
        raise Wrong(404, _NO_VERSION, f"Version {version[:_NAMES_MAX]} not found.")
    return known


def _numbered(request: Request) -> Known:
    text = request.path_params["id"]
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 11 else -1
    known = _known()[1].get(number)
    if known is None:
        raise Wrong(404, _NO_SCHEMA, f"Schema {text[:_NAMES_MAX]} not found")
    return known


def _names_of(known: Known) -> list[str]:
    return sorted(subject for subject, found in _known()[0].items() if found is known)


def _whole(known: Known, subject: str) -> dict[str, Any]:
    return {
        "subject": subject,
        "version": _VERSION,
        "id": known.number,
        "schemaType": "AVRO",
        "schema": known.text,
    }


async def _posted(request: Request) -> Any:
    """The schema of a body ``{"schema": "…"}``; references are none of ours."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _BODY_MAX:
            raise Wrong(413, 413, f"A schema has at most {_BODY_MAX} bytes.")
    try:
        said = outside_json.parse(body)
        schema = outside_json.parse(said["schema"])
        if said.get("schemaType", "AVRO") != "AVRO" or not isinstance(schema, dict):
            raise ValueError
        # Nesting beyond reason, a type without a name: whatever these two cannot walk.
        fingerprint(schema)
        unreadable(reader=schema, writer=schema)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Wrong(422, _NO_AVRO, "The body is no Avro schema.") from None
    return schema


def _read_only() -> Wrong:
    return Wrong(
        422,
        _READ_ONLY,
        "This registry is read only: schemas are numbered in the ledger's repository.",
    )
