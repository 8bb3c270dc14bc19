"""The layers of import-linter are configured, hold, and would notice a breach."""

import tomllib
from typing import Any

import grimp
import pytest
from importlinter.cli import lint_imports

from adapters.kafka_broker import CHECKOUT
from tests.architecture.adapters_alone import AdaptersAlone

PYPROJECT = CHECKOUT / "pyproject.toml"


def _options() -> dict[str, Any]:
    with PYPROJECT.open("rb") as file:
        config: dict[str, Any] = tomllib.load(file)["tool"]["importlinter"]
    return config


def _breaches(*imports: tuple[str, str]) -> list[tuple[str, str]]:
    """What the contract on adapters finds in a made-up program with these imports."""
    options = next(each for each in _options()["contracts"] if each["id"] == "adapters-alone")
    contract = AdaptersAlone(options["name"], {}, options)
    graph = grimp.ImportGraph()
    graph.add_module("adapters")
    for importer, imported in imports:
        graph.add_module(importer)
        graph.add_module(imported)
        graph.add_import(importer=importer, imported=imported)
    found: list[tuple[str, str]] = contract.check(graph, verbose=False).metadata["found"]
    return found


def test_every_layer_contract_holds() -> None:
    """No import crosses a layer in the wrong direction."""
    assert lint_imports(config_filename=str(PYPROJECT), no_cache=True, no_logo=True) == 0


def test_the_contracts_that_the_architecture_promises_are_configured() -> None:
    """Nobody removes a contract to make a check pass."""
    assert {each["id"] for each in _options()["contracts"]} >= {
        "layers",
        "artefacts",
        "artefacts-know-nothing",
        "adapters-alone",
        "eventsourcing-at-the-edge",
    }


def test_an_adapter_that_imports_another_is_found() -> None:
    """The log on Kafka must not reach into the log on SQLite."""
    breach = ("adapters.kafka_log", "adapters.sqlite_log")
    assert _breaches(breach) == [breach]


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("adapters.bootstrap", "adapters.kafka_log"),
        ("adapters.cli", "adapters.bootstrap"),
        ("adapters.cli_lease", "adapters.bootstrap"),
        ("adapters.cli.lease", "adapters.bootstrap"),
        ("adapters.eventsourcing_recorder", "adapters.eventsourcing_mapper"),
        ("adapters.kafka_log", "domain.ports"),
    ],
)
def test_composition_and_modules_of_one_technology_may_import(importer: str, imported: str) -> None:
    """The composition root imports several adapters; a technology may take several modules."""
    assert _breaches((importer, imported)) == []
