"""What a recovered processor remembers lives as long as its process; the collector is told so."""

from __future__ import annotations

import gc


def settle() -> None:
    """Take all that is alive now out of the sight of CPython's collector of cycles.

    Called once, after recovery. Else every full collection looks through each lease and each
    counter again and finds nothing, and a step waits for it.
    """
    gc.collect()
    gc.freeze()
