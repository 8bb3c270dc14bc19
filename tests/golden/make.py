"""Records the golden log of the format as it is now; what ``scripts/golden`` runs.

A small market's whole life on two shards, in logical time and with fixed keys: leases that end for
three reasons, faults, epochs, refusals, telemetry in both encodings of its columns. Until the first
release the last one may be recorded anew; a released one is for ever, and the next gets a number.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from adapters.avro_codec import WIDTHS, declared
from adapters.bootstrap import audit
from adapters.bundle_writer import export
from domain.telemetry import Batch
from schemas.compatibility import HISTORY
from schemas.lock import committed
from schemas.write import derived
from tests.golden.read import expected_of
from tests.support.metering import as_bytes
from tests.system.small import SmallSystem, small_on_memory

FOLDER: Final = Path(__file__).parent
HASHES: Final = FOLDER / "hashes.json"
BUNDLE: Final = "ledger.zip"
EXPECTED: Final = "expected.json"
SIZE_MAX: Final = 300_000


def recorded() -> SmallSystem:
    """The life that is recorded."""
    system = small_on_memory()
    for number, (name, node) in enumerate(sorted(system.script.nodes.items())):
        if number % 2 == 0:
            _in_bytes(system.script.nodes, name, node)
    return system.run()


def _in_bytes(nodes: Any, name: str, node: Any) -> None:
    """Let one node send its columns as bytes."""

    class InBytes:
        key = node.key
        prove = node.prove

        def telemetry(self, shard: int, batch: Batch) -> int:
            number: int = node.telemetry(shard, as_bytes(batch))
            return number

    nodes[name] = InBytes()


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit status."""
    hashes = json.loads(HASHES.read_text()) if HASHES.exists() else {}
    number = max((int(name.split("/")[0]) for name in hashes), default=0)
    if committed().released or not number:
        number += 1
    folder = FOLDER / str(number)
    folder.mkdir(exist_ok=True)
    (folder / BUNDLE).unlink(missing_ok=True)
    system = recorded()
    export(
        system.log,
        folder / BUNDLE,
        codec=system.network.codec,
        genesis=system.network.hash,
        topics=system.network.topics(),
        shards=system.network.shards,
    )
    assert (folder / BUNDLE).stat().st_size < SIZE_MAX
    state_hash = audit(system.network, system.log).state_hash
    expected = expected_of(folder / BUNDLE)
    assert expected["state_hash"] == state_hash
    (folder / EXPECTED).write_text(json.dumps(expected, indent=1) + "\n")
    HISTORY.mkdir(exist_ok=True)
    schemas = json.dumps(derived(declared(), WIDTHS), sort_keys=True, ensure_ascii=False)
    (HISTORY / f"{number}.json").write_text(schemas + "\n")
    made = (folder / BUNDLE, folder / EXPECTED)
    hashes |= {
        f"{number}/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest() for path in made
    }
    HASHES.write_text(json.dumps(hashes, indent=1) + "\n")
    print(f"golden: format {number}, {(folder / BUNDLE).stat().st_size} bytes, {state_hash}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
