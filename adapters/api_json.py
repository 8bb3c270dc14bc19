"""How values of the ledger stand in JSON.

Ids, keys and hashes are hex. Numbers beyond 2^53 are decimal strings, because most readers of JSON
would round them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, Final

_EXACT: Final = 2**53


def jsonable(value: Any) -> Any:
    """A value of a row or an event as JSON has it."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, int):
        return value if -_EXACT <= value <= _EXACT else str(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return {str(name): jsonable(each) for name, each in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: jsonable(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Sequence):
        return [jsonable(each) for each in value]
    raise TypeError(f"{type(value).__name__} does not stand in an answer")


def dumped(value: Any) -> bytes:
    """The bytes of an answer."""
    return json.dumps(jsonable(value), ensure_ascii=False, separators=(",", ":")).encode()
