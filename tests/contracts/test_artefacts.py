"""The committed bytecode is what the compiler makes of the committed sources."""

import shutil
import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
NPM = CHECKOUT / ".cache" / "npm"


def test_compiling_again_gives_the_same_bytes(tmp_path: Path) -> None:
    """Nobody can commit bytecode that is not of this source."""
    node = shutil.which("node")
    if node is None or not (NPM / "node_modules" / "solc").exists():
        pytest.skip("The Solidity compiler is not installed: scripts/setup evm brings it.")
    build = CHECKOUT / "scripts" / "build_contracts"
    subprocess.run([node, build, "--out", tmp_path, "--npm", NPM], check=True, timeout=60)
    committed = CHECKOUT / "contracts" / "artefacts"
    names = sorted(file.name for file in committed.iterdir())
    assert names == sorted(file.name for file in tmp_path.iterdir())
    for name in names:
        assert (tmp_path / name).read_bytes() == (committed / name).read_bytes(), name
