"""What a recorded ledger says when it is read by the code of today."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

from adapters.avro_codec import AvroCodec
from adapters.bootstrap import Network, audit, first_genesis
from adapters.bundle_log import BundleLog
from tests.system.reading import events


def expected_of(bundle: Path) -> dict[str, Any]:
    """Decode every event, decide all of it again, fold: what came out, as plain data."""
    codec = AvroCodec()
    with closing(BundleLog(bundle)) as log:
        genesis, shards = first_genesis(log, codec)
        network = Network.of(genesis, shards, codec)
        kinds: dict[str, int] = {}
        for ledger, shard in network.ledgers():
            for event in events(network, log, ledger, shard):
                kinds[event.NAME] = kinds.get(event.NAME, 0) + 1
        verdict = audit(network, log)
        return {
            "genesis_hash": network.hash.hex(),
            "shards": shards,
            "state_hash": verdict.state_hash,
            "heads": [
                [report.ledger.name, report.shard, report.commits] for report in verdict.reports
            ],
            "events": dict(sorted(kinds.items())),
        }
