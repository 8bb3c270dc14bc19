"""The ``TopicAdmin`` port on a log that keeps its topics itself: SQLite's file, or memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from domain.ports import SettingsRefused


class KeepsTopics(Protocol):
    """What such a log says of its topics."""

    def create_topic(self, topic: str, partitions: int, *, keep_forever: bool) -> None:
        """Create the topic unless it is there, however it is set up."""
        ...

    def partitions(self, topic: str) -> int:
        """How many partitions the topic has. Raises ``SettingsRefused`` if there is no topic."""
        ...

    def keeps_forever(self, topic: str) -> bool:
        """Whether its records are never deleted."""
        ...

    def delete_before(self, topic: str, partition: int, start: int) -> None:
        """Delete the records before an offset."""
        ...


class LocalTopics:
    """Creates and checks topics on such a log."""

    def __init__(self, log: KeepsTopics) -> None:
        """Administer the topics of ``log``."""
        self._log = log

    def create(self, topic: str, partitions: int, *, keep_forever: bool) -> None:
        """Create the topic if it is absent. Raises ``SettingsRefused`` if it is a weaker one."""
        self._log.create_topic(topic, partitions, keep_forever=keep_forever)
        weaker = self.check(topic, partitions, keep_forever=keep_forever)
        if weaker:
            raise SettingsRefused(" ".join(weaker))

    def check(self, topic: str, partitions: int, *, keep_forever: bool = True) -> Sequence[str]:
        """The settings that are weaker than needed, as sentences."""
        try:
            found = self._log.partitions(topic)
        except SettingsRefused as error:
            return [str(error)]
        weaker = []
        if found != partitions:
            weaker.append(f"Topic {topic}: partitions is {found}, must be {partitions}.")
        if keep_forever and not self._log.keeps_forever(topic):
            weaker.append(f"Topic {topic}: keep_forever is false, must be true.")
        return weaker

    def delete_before(self, topic: str, partition: int, start: int) -> None:
        """Delete the records before an offset. Raises ``SettingsRefused`` of what is kept."""
        if self._log.keeps_forever(topic):
            raise SettingsRefused(f"Topic {topic} is kept for ever.")
        self._log.delete_before(topic, partition, start)
