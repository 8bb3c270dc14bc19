"""A read model on each database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from adapters.read_model import ReadModel

DATABASES = ("sqlite", pytest.param("postgresql", marks=pytest.mark.service))


@pytest.fixture(params=DATABASES)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database, as SQLAlchemy names it."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'read_model.db'}"
    url: str = request.getfixturevalue("postgres_url")
    return url.replace("postgresql://", "postgresql+psycopg://", 1)


@pytest.fixture
def open_read_model(database_url: str) -> Iterator[Callable[[], ReadModel]]:
    """Opens the database anew each time, as another process would."""
    opened: list[ReadModel] = []

    def open_one() -> ReadModel:
        opened.append(ReadModel(database_url))
        return opened[-1]

    yield open_one
    for each in opened:
        each.close()
