"""A watcher that starts again goes on where it was, and passes over nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from adapters.actor import Actor
from adapters.l1_position import WatchedTo
from adapters.l1_turns import WatcherTurn
from adapters.local_topics import LocalTopics
from adapters.memory_log import MemoryLog
from domain.commit import COMMANDS_TOPIC
from domain.l1 import BlockHash, ReorgBelowFinality
from domain.l1_watcher import Watcher
from tests.l1.fake_chain import FakeChain
from tests.system.reading import records
from tests.system.small import KEYS, START_US, network


class Scene:
    """A chain that grows, a log, and the file in which a watcher keeps its position."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "watcher.json"
        self.chain = FakeChain(confirmations=1)
        self.started = 0
        self.new_log()

    def new_log(self) -> None:
        """Another commands topic."""
        self.log = MemoryLog(lambda: 0)
        LocalTopics(self.log).create(COMMANDS_TOPIC, 1, keep_forever=True)

    def kept(self, **changes: Any) -> WatchedTo:
        """The file, as one that watches this vault opens it."""
        config = replace(self.chain.config, **changes)
        return WatchedTo(self.file, self.log, network(2).hash, config)

    def watcher(self, kept: WatchedTo | None = None) -> WatcherTurn:
        """A watcher as a new process makes it."""
        self.started += 1
        actor = Actor(
            log=self.log,
            codec=network(2).codec,
            genesis_hash=network(2).hash,
            signer=KEYS.watcher,
            session_us=START_US + self.started,
        )
        return WatcherTurn(Watcher(chain=self.chain), actor, kept=kept or self.kept())

    def sent(self) -> int:
        """How many commands stand on the log."""
        return len(list(records(self.log, COMMANDS_TOPIC)))

    def happened(self) -> int:
        """How many events are final."""
        return len(self.chain.all_events(self.chain.head().number - 1))


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """A chain of which a watcher has told all that is final."""
    made = Scene(tmp_path)
    made.chain.grow(5)
    assert made.watcher()()
    assert made.sent() == made.happened() > 0
    return made


def test_a_watcher_that_starts_again_tells_only_what_is_new(scene: Scene) -> None:
    """Nothing is sent twice after a clean write of the position."""
    assert not scene.watcher()()
    scene.chain.grow(3)
    assert scene.watcher()()
    assert scene.sent() == scene.happened()


def test_a_watcher_that_dies_before_its_position_is_written_tells_again(scene: Scene) -> None:
    """The commands are on the log first: what is doubled the market refuses, nothing is lost."""

    class Dies(WatchedTo):
        """Killed between the append and the file."""

        def write(self, position: Any) -> None:
            raise KeyboardInterrupt

    before = scene.sent()
    scene.chain.grow(2)
    dying = Dies(scene.file, scene.log, network(2).hash, scene.chain.config)
    with pytest.raises(KeyboardInterrupt):
        scene.watcher(dying)()
    new = scene.happened() - before
    assert scene.sent() == before + new
    assert scene.watcher()()
    assert scene.sent() == before + 2 * new


def _other_vault(scene: Scene) -> WatchedTo:
    return scene.kept(chain_id=scene.chain.config.chain_id + 1)


def _torn(scene: Scene) -> WatchedTo:
    scene.file.write_text(scene.file.read_text()[:30])
    return scene.kept()


def _other_log(scene: Scene) -> WatchedTo:
    scene.new_log()
    return scene.kept()


def _shorter_log(scene: Scene) -> WatchedTo:
    shorter = cast(Any, scene.log)

    class Cut:
        """The log that a backup brought back."""

        def end(self, topic: str, partition: int) -> int:
            return int(shorter.end(topic, partition)) - 1

        def __getattr__(self, name: str) -> Any:
            return getattr(shorter, name)

    return WatchedTo(scene.file, cast(Any, Cut()), network(2).hash, scene.chain.config)


@pytest.mark.parametrize("change", [_other_vault, _torn, _other_log, _shorter_log])
def test_a_position_that_does_not_fit_is_not_believed(
    scene: Scene, change: Callable[[Scene], WatchedTo]
) -> None:
    """Another vault or topic, a torn file, a log without what was sent: from the start again."""
    assert change(scene).read() is None
    assert scene.watcher(change(scene))(), "everything is told again"


def test_a_block_that_was_final_and_is_gone_is_noticed_after_a_restart(scene: Scene) -> None:
    """The hash in the file is held against the chain."""
    kept = scene.kept().read()
    assert kept is not None
    scene.kept().write(replace(kept, hash=BlockHash(bytes(32))))
    with pytest.raises(ReorgBelowFinality):
        scene.watcher()()
