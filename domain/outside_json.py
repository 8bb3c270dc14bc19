"""JSON from outside, with a bound on how deeply it nests.

Python's parser recurses, and stops at the interpreter's recursion limit: a library of the EVM sets
that limit to 100,000 when it is imported, which is more than a thread's stack bears. A few thousand
brackets in a request would then end the process, so they are counted before the parser sees them.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

#: Our own documents nest ten deep at most; schemas of others a little more.
DEPTH_MAX: Final = 64

# A string that never ends runs to the end of the text, so that the search stays linear.
_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*(?:"|\\?\Z)', re.DOTALL)
_BRACKET: Final = re.compile(r"[\[\]{}]")


def parse(text: str | bytes) -> Any:
    """The document. Raises ``ValueError`` where it is none, or nests deeper than ``DEPTH_MAX``."""
    plain = text.decode() if isinstance(text, bytes) else text
    depth = 0
    for bracket in _BRACKET.findall(_STRING.sub("", plain)):
        depth += 1 if bracket in "[{" else -1
        if depth > DEPTH_MAX:
            raise ValueError(f"nested deeper than {DEPTH_MAX}")
    return json.loads(plain)
