"""Leaves the demo's API and pages running: the read models of a finished ledger."""

from __future__ import annotations

from collections.abc import Callable

import uvicorn

from adapters import bootstrap
from adapters.api import Service, create_app
from adapters.demo import Demo
from adapters.read_model import ReadModel
from adapters.roles_follow import projector_of
from domain.ports import Log


def serve_ledger(story: Demo, log: Log, *, port: int, say: Callable[[str], None]) -> None:
    """Project the ledger and answer on loopback until interrupted. Takes no inputs."""
    network = story.network
    read_model = ReadModel(f"sqlite:///{story.folder / 'read.db'}")
    read_model.prepare(network.hash)
    projector = projector_of(network, log, read_model)
    projector.catch_up()
    app = create_app(
        Service(
            read_model=read_model,
            genesis=network.genesis,
            genesis_hash=network.hash,
            shards=network.shards,
            codec=network.codec,
            verify=bootstrap.verify,
        )
    )
    say(f"Serving on http://127.0.0.1:{port}/ until interrupted (Ctrl-C).")
    try:
        uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)
    finally:
        read_model.close()
