"""The project installs as it is declared: locked, complete, on every Python it names."""

import ast
import importlib
import json
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from adapters.kafka_broker import CHECKOUT
from tests.architecture.sources import project_files, python_files, text_of

PACKAGES = ("domain", "projections", "adapters", "schemas", "contracts")
PYTHONS = ("3.11", "3.12", "3.13")
# The hash is what makes a lock: without it a registry could give other bytes another day.
LOCKED = re.compile(r"^(?P<name>[\w.-]+)==(?P<version>\S+?)(?: ; (?P<marker>.+?))? \\$", re.M)


def _pyproject() -> dict[str, Any]:
    with (CHECKOUT / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)


def _locked(name: str, python: str) -> dict[str, Version]:
    """The versions that a lock file gives to one Python on Linux."""
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.1",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "os_name": "posix",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    found: dict[str, Version] = {}
    for match in LOCKED.finditer((CHECKOUT / name).read_text()):
        line = Requirement(match["name"] + (f" ; {match['marker']}" if match["marker"] else ""))
        if line.marker is None or line.marker.evaluate(environment):
            found[canonicalize_name(match["name"])] = Version(match["version"])
    return found


def _declared(*groups: str) -> list[Requirement]:
    config = _pyproject()
    lines = list(config["project"]["dependencies"])
    for group in groups:
        lines += config["dependency-groups"][group]
    return [Requirement(line) for line in lines]


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize(
    ("lock", "groups"),
    [("requirements.lock", ("build",)), ("requirements-dev.lock", ("build", "dev"))],
)
def test_the_lock_holds_every_declared_dependency_within_its_range(
    lock: str, groups: tuple[str, ...], python: str
) -> None:
    """A range that was changed without `scripts/lock` is noticed."""
    locked = _locked(lock, python)
    for requirement in _declared(*groups):
        version = locked[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version, prereleases=True), requirement


@pytest.mark.parametrize("python", PYTHONS)
def test_the_tools_of_development_change_no_version_that_users_get(python: str) -> None:
    """What is tested is what is installed by `scripts/demo`."""
    tested = _locked("requirements-dev.lock", python)
    assert {
        name: version
        for name, version in _locked("requirements.lock", python).items()
        if tested[name] != version
    } == {}


@pytest.mark.parametrize(
    "lock", ["requirements.lock", "requirements-dev.lock", "requirements-java.lock"]
)
def test_a_python_lock_pins_every_package_by_hash_and_names_no_registry(lock: str) -> None:
    """Where packages come from is the business of the machine."""
    text = (CHECKOUT / lock).read_text()
    assert "://" not in text
    starts = [line for line in text.splitlines() if line and not line.startswith(("#", " "))]
    assert len(starts) == len(LOCKED.findall(text))
    assert text.count("--hash=sha256:") >= len(starts)


def test_the_npm_lock_pins_every_package_by_hash_and_names_no_registry() -> None:
    """The same for what tests and the build of the contracts take from npm."""
    lock = json.loads((CHECKOUT / "scripts" / "evm" / "package-lock.json").read_text())
    packages = {name: each for name, each in lock["packages"].items() if name}
    assert packages
    for name, each in packages.items():
        assert each["integrity"].startswith("sha512-"), name
        assert "resolved" not in each, name


def test_every_library_that_the_program_imports_is_declared() -> None:
    """Nothing works only because another package happens to bring it."""
    # What a measure needs that most do not run is a group, and may not be installed.
    declared = {canonicalize_name(requirement.name) for requirement in _declared("bench")}
    owners = packages_distributions()
    undeclared = set()
    for path in (path for package in PACKAGES for path in python_files(package)):
        for node in ast.walk(ast.parse(text_of(path) or "")):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [str(node.module)]
            else:
                continue
            for name in {name.split(".")[0] for name in names}:
                if name in PACKAGES or name in sys.stdlib_module_names:
                    continue
                if not declared & {canonicalize_name(owner) for owner in owners.get(name, (name,))}:
                    undeclared.add(f"{path} imports {name}")
    assert undeclared == set()


def test_the_wheel_holds_all_modules_and_artefacts_and_nothing_else(tmp_path: Path) -> None:
    """An installed ledger finds its schemas and contracts, and brings no tests."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", tmp_path],
        cwd=CHECKOUT,
        check=True,
        capture_output=True,
        timeout=60,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert inside == {str(path) for path in project_files() if path.parts[0] in PACKAGES}


def test_the_command_synor_names_a_function_that_exists() -> None:
    """The console script can be called in an installed environment."""
    module, _, function = _pyproject()["project"]["scripts"]["synor"].partition(":")
    assert callable(getattr(importlib.import_module(module), function))
