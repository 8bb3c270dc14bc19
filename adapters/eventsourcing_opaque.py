"""How an event that is not of our schemas stands in a recorded event: schema number 0.

Any Application of the ``eventsourcing`` library may keep its events on a ledger. Its topics and
states are its own affair, so the payload holds them unread: the topic, then the originator's id
where it is text (a UUID stands in the aggregate's 16 bytes and leaves this part empty), each behind
its length (4 bytes, big-endian), then the state to the end.
"""

from __future__ import annotations

import struct
from typing import Final

OPAQUE: Final = 0
_LENGTH: Final = struct.Struct(">I")


def pack_opaque(topic: str, originator: str, state: bytes) -> bytes:
    """The payload of a foreign event; ``originator`` is empty where the id is a UUID."""
    name, text = topic.encode(), originator.encode()
    return b"".join((_LENGTH.pack(len(name)), name, _LENGTH.pack(len(text)), text, state))


def unpack_opaque(payload: bytes) -> tuple[str, str, bytes]:
    """Topic, originator (or empty) and state; raises ``ValueError`` for any other bytes."""
    topic, position = _text(payload, 0)
    originator, position = _text(payload, position)
    return topic, originator, payload[position:]


def topic_of(payload: bytes) -> str:
    """The topic alone; raises ``ValueError`` where even that is not there."""
    return _text(payload, 0)[0]


def _text(payload: bytes, start: int) -> tuple[str, int]:
    try:
        (length,) = _LENGTH.unpack_from(payload, start)
    except struct.error as error:
        raise ValueError("an opaque event ends within a length") from error
    first = start + _LENGTH.size
    end = first + length
    if end > len(payload):
        raise ValueError("an opaque event ends within a text")
    return payload[first:end].decode(), end
