"""Why a broker and a client do not come to terms over TLS, as a sentence.

kafka-python keeps trying and at the end says only that it could not connect. Once it has given up,
one handshake of our own with the same files tells what an operator has to mend.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any, Final

from kafka.errors import KafkaError

_TLS: Final = ("SSL", "SASL_SSL")
_WITHIN_S: Final = 3.0
# In TLS 1.3 the broker judges the client's certificate after the client's side of the handshake.
_VERDICT_WITHIN_S: Final = 1.0
_HOST_MISMATCH: Final = (62, 64)
_EXPIRED: Final = 10
_NO_TLS: Final = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG")


def failed(error: KafkaError, bootstrap: str, security: Mapping[str, Any]) -> str:
    """What went wrong with brokers that could not be asked; where it is TLS, what to do."""
    said = f"{str(error).rstrip('.')}."
    if security.get("security_protocol") not in _TLS:
        return said
    for host, port in _places(bootstrap):
        why = _refusal(host, port, security)
        if why:
            return f"{said} {host}:{port} {why}"
    return said


def _places(bootstrap: str) -> Iterator[tuple[str, int]]:
    for place in bootstrap.split(","):
        host, _, port = place.strip().rpartition(":")
        if port.isdigit():
            yield host.strip("[]"), int(port)


def _refusal(host: str, port: int, security: Mapping[str, Any]) -> str:
    """Why one broker and we do not come to terms; empty where we do, or it is not there."""
    context = ssl.create_default_context(cafile=security.get("ssl_cafile"))
    certificate = security.get("ssl_certfile")
    try:
        if certificate:
            context.load_cert_chain(
                certificate, security.get("ssl_keyfile"), security.get("ssl_password")
            )
        plain = socket.create_connection((host, port), timeout=_WITHIN_S)
    except OSError:
        return ""
    try:
        with closing(plain), context.wrap_socket(plain, server_hostname=host) as wrapped:
            wrapped.settimeout(_VERDICT_WITHIN_S)
            if wrapped.recv(1):
                return ""
    except TimeoutError:
        return ""
    except ssl.SSLCertVerificationError as error:
        return _not_believed(error, host, security)
    except ssl.SSLError as error:
        return _not_let_in(error.reason or "", certificate)
    except ConnectionError:
        pass
    return _not_let_in("", certificate)


def _not_believed(
    error: ssl.SSLCertVerificationError, host: str, security: Mapping[str, Any]
) -> str:
    if error.verify_code in _HOST_MISMATCH:
        return f"shows a certificate that is not for {host}: name the brokers as it names them."
    if error.verify_code == _EXPIRED:
        return "shows a certificate that has expired."
    return (
        f"shows a certificate that no authority in {security.get('ssl_cafile')} answers for "
        f"({error.verify_message})."
    )


def _not_let_in(reason: str, certificate: str | None) -> str:
    if reason in _NO_TLS:
        return "does not speak TLS there: take the port of its TLS listener, or another protocol."
    told = f" ({reason.lower().replace('_', ' ')})" if reason else ""
    if certificate is None:
        return f"lets nobody in without a certificate{told}: name cert_file and key_file."
    return (
        f"does not take the certificate {certificate}{told}: it must be of an authority that the "
        "brokers trust, for clients, and not expired."
    )
