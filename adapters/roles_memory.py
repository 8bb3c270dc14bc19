"""What a recovered processor remembers lives as long as its process; the collector is told so."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

from adapters.snapshot_memory import no_collection


@contextmanager
def recovering() -> Iterator[None]:
    """Hold CPython's collector of cycles, and afterwards keep all that is alive out of its sight.

    Else every full collection looks through each lease and each counter again and finds nothing,
    and a step waits for it. A recovery leaves no cycles behind that would be worth a look.
    """
    with no_collection():
        yield
        gc.freeze()


def settle() -> None:
    """The same where all is alive already that will stay: what is dead is collected first."""
    gc.collect()
    gc.freeze()
