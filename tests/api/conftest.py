"""A story told to a network, projected, and served."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from adapters.api import Service, create_app
from adapters.ed25519 import verify
from adapters.metrics import Metrics, Views
from adapters.projector import Projector
from adapters.read_model import ReadModel
from domain.commit import COMMANDS_TOPIC, TELEMETRY_TOPIC
from tests.projections.conftest import DATABASES
from tests.projections.ledgers import HandNetwork, codec
from tests.projections.story import Story, tell_story
from tests.support.postgres import PostgresServer

BASE = "http://127.0.0.1"


@dataclass(repr=False)
class Scene:
    """A network, what was told of it, and a client of its API."""

    network: HandNetwork
    story: Story
    read_model: ReadModel
    projector: Projector
    service: Service
    client: TestClient

    def __repr__(self) -> str:
        return "a scene"

    def follow(self) -> None:
        """Bring the read model up to the ledgers."""
        self.story.flush()
        self.projector.catch_up()


def scene_of(network: HandNetwork, story: Story, read_model: ReadModel) -> Scene:
    """Serve what was told."""
    read_model.prepare(network.hash)
    projector = network.projector(read_model)
    projector.catch_up()
    log = network.open_log()
    metrics = Metrics()
    metrics.follow(projector.status, Views)
    service = Service(
        read_model=read_model,
        genesis=network.genesis,
        genesis_hash=network.hash,
        shards=network.shards,
        codec=codec(),
        verify=verify,
        submit=lambda value: log.append(COMMANDS_TOPIC, 0, value),
        submit_telemetry=lambda shard, value: log.append(TELEMETRY_TOPIC, shard, value),
        status=projector.status,
        metrics=metrics.text,
    )
    client = TestClient(create_app(service), base_url=BASE)
    return Scene(network, story, read_model, projector, service, client)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """A market that has seen something of everything; the test may go on with its story."""
    read_model = ReadModel(f"sqlite:///{tmp_path / 'read_model.db'}")
    network = HandNetwork()
    yield scene_of(network, tell_story(network, 21, 500), read_model)
    read_model.close()


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Scene]:
    """A network in which nothing has happened."""
    read_model = ReadModel(f"sqlite:///{tmp_path / 'read_model.db'}")
    network = HandNetwork()
    yield scene_of(network, Story(network=network, random=random.Random(1)), read_model)
    read_model.close()


@pytest.fixture(scope="session", params=DATABASES)
def shared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    """The same market on each database, for tests that only read."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('shared') / 'read_model.db'}"
    else:
        server: PostgresServer = request.getfixturevalue("postgres_server")
        url = server.url(server.create_database()).replace("postgresql:", "postgresql+psycopg:", 1)
    read_model = ReadModel(url)
    network = HandNetwork()
    yield scene_of(network, tell_story(network, 21, 500), read_model)
    read_model.close()
