"""The domain gives the same answer on every machine and at every time.

So it may know nothing that differs between two runs: no clock, no randomness, no environment, no
floating point, no order of a set. These tests read its syntax, since such a leak shows in no other
test until two machines disagree about money.
"""

import ast
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.architecture.sources import python_files, text_of

# Of the standard library, what reads the world or differs between runs.
BANNED_MODULES = frozenset(
    [
        *("asyncio", "concurrent", "contextvars", "ctypes", "getpass", "glob", "http", "io"),
        *("locale", "logging", "multiprocessing", "os", "pathlib", "pickle", "platform"),
        *("random", "secrets", "select", "shelve", "shutil", "signal", "socket", "sqlite3"),
        *("ssl", "subprocess", "sys", "tempfile", "threading", "time", "urllib", "uuid"),
    ]
)
BANNED_CALLS = frozenset(
    ["open", "input", "print", "exec", "eval", "compile", "__import__", "float", "id", "hash"]
)
BANNED_METHODS = frozenset(["now", "utcnow", "today", "fromtimestamp"])
SETS = frozenset(["set", "frozenset"])


def _modules_imported(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name.split(".")[0]
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, "domain" if node.level else str(node.module).split(".")[0]


def foreign_imports(tree: ast.Module, module: str) -> Iterator[tuple[int, str]]:
    """Imports of anything but the domain and the harmless part of the standard library."""
    for line, name in _modules_imported(tree):
        known = name == "domain" or (name == "numpy" and module.endswith("_columns.py"))
        if not known and (name not in sys.stdlib_module_names or name in BANNED_MODULES):
            yield line, f"imports {name}"


def reads_of_the_world(tree: ast.Module, module: str) -> Iterator[tuple[int, str]]:
    """Calls that read a clock or a file, or whose answer differs between two processes."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Name) and node.func.id in BANNED_CALLS:
            yield node.lineno, f"calls {node.func.id}()"
        elif isinstance(node.func, ast.Attribute) and node.func.attr in BANNED_METHODS:
            yield node.lineno, f"calls .{node.func.attr}()"


def floats(tree: ast.Module, module: str) -> Iterator[tuple[int, str]]:
    """Floating point constants and divisions; money and time are integers.

    A port may take the seconds that a caller is ready to wait: no rule sees them.
    """
    if module == "ports.py":
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, float | complex):
            yield node.lineno, f"has the float {node.value}"
        elif isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.Div):
            yield node.lineno, "divides with /"


def orders_of_sets(tree: ast.Module, module: str) -> Iterator[tuple[int, str]]:
    """Loops over a set that is written there, whose order is not defined."""
    for node in ast.walk(tree):
        if isinstance(node, ast.For | ast.comprehension):
            over = node.iter
            named = isinstance(over, ast.Call) and isinstance(over.func, ast.Name)
            if isinstance(over, ast.Set | ast.SetComp) or (
                named and isinstance(over, ast.Call) and ast.unparse(over.func) in SETS
            ):
                yield over.lineno, f"loops over {ast.unparse(over)}"


Rule = Callable[[ast.Module, str], Iterator[tuple[int, str]]]
RULES: tuple[Rule, ...] = (foreign_imports, reads_of_the_world, floats, orders_of_sets)


def _found(rule: Rule, path: Path, source: str) -> list[str]:
    return [f"{path}:{at} {what}" for at, what in rule(ast.parse(source), path.name)]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_no_module_of_the_domain_depends_on_the_world(rule: Rule) -> None:
    """Every module of the domain keeps every rule of purity."""
    found = [
        line for path in python_files("domain") for line in _found(rule, path, text_of(path) or "")
    ]
    assert found == []


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        (foreign_imports, "import time"),
        (foreign_imports, "from os import environ"),
        (foreign_imports, "import numpy as np"),
        (foreign_imports, "from adapters.kafka_log import KafkaLog"),
        (reads_of_the_world, "at = datetime.now()"),
        (reads_of_the_world, "key = hash(name)"),
        (floats, "share = 0.5"),
        (floats, "half = total / 2"),
        (orders_of_sets, "for each in set(names): pass"),
        (orders_of_sets, "all = [each for each in {first, second}]"),
    ],
)
def test_each_leak_of_the_world_into_the_domain_is_found(rule: Rule, source: str) -> None:
    """The rules notice what they are there for."""
    assert _found(rule, Path("domain/made_up.py"), source)


def test_only_a_module_of_columns_may_use_numpy() -> None:
    """Arrays are for hot paths, each of which has a plain twin."""
    assert not _found(foreign_imports, Path("domain/usage_columns.py"), "import numpy as np")
