"""Texts that strangers choose, where others read them: in pages, terminals, databases and logs.

A control character may move a reader's cursor or end a database's string, a direction mark may turn
the words around it, and an invisible one makes two names out of what looks like one. The ranges
are written out here, because what a Python calls printable changes with its Unicode tables, and an
auditor must decide as the writer did.
"""

from __future__ import annotations

import re
from typing import Final

_HIDDEN: Final = re.compile(
    "["
    "\x00-\x1f\x7f-\x9f"  # controls
    "\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0"  # unseen
    "\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"  # widths, directions, lines
    "\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff"  # no characters at all
    "\U000e0000-\U000e0fff"  # tags
    "]"
)
_NOT_A_NAME: Final = re.compile("[^ -~]")
_REPLACED: Final = "?"
_ELLIPSIS: Final = "…"


def is_shown_whole(text: str) -> bool:
    """Whether a text has nothing that is not seen or that changes what is seen beside it."""
    return _HIDDEN.search(text) is None


def is_name(text: str) -> bool:
    """Whether a text is of visible ASCII with no space around it: it looks like no other one."""
    return _NOT_A_NAME.search(text) is None and text == text.strip(" ")


def shown(text: str, most: int) -> str:
    """A stranger's text for others to read: at most so long, what is hidden made visible."""
    cut = text if len(text) <= most else text[: most - 1] + _ELLIPSIS
    return _HIDDEN.sub(_REPLACED, cut)
