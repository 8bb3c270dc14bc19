"""How a command ends that did not do what it was asked: one sentence, what to do, an exit code.

0 is done, 1 refused by the ledger, 2 asked wrongly, 3 an operating error (no server, no file, a
full disk). ``synor audit`` has further codes for what it found.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Final

REFUSED: Final = 1
WRONG_USAGE: Final = 2
OPERATING_ERROR: Final = 3


class Failure(Exception):
    """A command that ends without its result.

    ``remedy`` tells what to do; ``position`` is the ledger's, where the ledger has answered.
    """

    code = OPERATING_ERROR

    def __init__(
        self, what: str, remedy: str = "", position: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy
        self.position = position


class Asked(Failure):
    """Asked wrongly: an amount, an id, a file that is not what it should be."""

    code = WRONG_USAGE


class Unable(Failure):
    """An operating error: the same command may do later, or with another setting."""


class Stopped(Failure):
    """A ledger that no reader may go on with; codes are those of ``synor audit``, if it has one."""

    def __init__(self, error: Any) -> None:
        from adapters.audit import EXIT_CODES

        super().__init__(_sentence(error), REMEDIES[error.name])
        self.code = EXIT_CODES.get(error.name, OPERATING_ERROR)


#: What to do about a ledger that stops every reader, by the name of the fault.
REMEDIES: Final = {
    "fork": (
        "The writer's key has signed two histories. Stop every worker of this ledger, keep the "
        "partition as it is, and take its key from whoever wrote the other branch; `synor audit` "
        "shows which commits came first."
    ),
    "truncated": (
        "Records that were acknowledged are gone. Stop the workers, and bring the partition back "
        "from a replica or a backup that has them; nothing may be appended to the shorter one."
    ),
    "corrupt": (
        "The bytes were changed on the log. Bring the partition back from a replica or a backup, "
        "and compare with `synor audit`."
    ),
    "inputs_deleted": (
        "Inputs are gone that the ledger needs. Stop the workers, and bring the partition back "
        "from a replica or a backup that has them; look at what deletes from it, and how soon."
    ),
    "unknown_version": "This program is too old for the ledger: install the release that wrote it.",
    "too_many_held": (
        "The read models cannot take too many of its events; the ledger itself is sound. See why "
        "with `synor projections status`, install a release that can, then `synor projections "
        "rebuild`."
    ),
}


class Denied(Failure):
    """Refused by the ledger, with the refusal's own number and name in ``what``."""

    code = REFUSED


#: What may go wrong outside this program, by module and class, and how it is reported.
_KNOWN: Final = {
    "adapters.bootstrap:GenesisRefused": Asked,
    "adapters.settings:SettingsInvalid": Asked,
    "adapters.settings_security:SecurityInvalid": Asked,
    "adapters.read_model:BeingRebuilt": Unable,
    "adapters.read_model:ReadModelStale": Unable,
    "adapters.worker:ClockBehind": Unable,
    "adapters.eventsourcing_index:IndexFailed": Unable,
    "adapters.eventsourcing_writer:NotTheWriter": Unable,
    "domain.chain:LedgerStopped": Stopped,
    "domain.rules:RulesUnknown": Unable,
    "domain.l1:L1Error": Unable,
    "domain.l1:L1Fault": Unable,
    "domain.ports:LogError": Unable,
    "builtins:OSError": Unable,
}


def expected() -> tuple[type[BaseException], ...]:
    """The classes of ``_KNOWN`` that can have been raised: those of modules that are loaded.

    So that to fail, or to print a help text, imports nothing.
    """
    return tuple(_loaded())


def failure_of(error: BaseException) -> Failure:
    """An expected error as a failure."""
    kind = next(kind for known, kind in _loaded().items() if isinstance(error, known))
    return Stopped(error) if kind is Stopped else kind(_sentence(error))


def _sentence(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    if isinstance(error, OSError) and error.strerror is not None:
        # Python's own text begins with a number and quotes the file.
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return text if text.endswith((".", "!", "?")) else text + "."


def _loaded() -> dict[type[BaseException], type[Failure]]:
    found = {}
    for place, kind in _KNOWN.items():
        module, name = place.split(":")
        if module in sys.modules:
            found[getattr(sys.modules[module], name)] = kind
    return found
