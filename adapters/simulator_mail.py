"""Between clients and the log: what is lost, late, doubled or reordered on the way.

Every attempt is written down in the history as its client knows it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from adapters.memory_log import MemoryLog
from adapters.simulator_faults import Fault, Faults
from adapters.simulator_history import History, Outcome, Poll, Send, named
from domain.ports import AppendUnknown, LogError

_WHOLE: Final = 1 << 40
CLOCK: Final = 1
ANYBODY: Final = 2
_GONE_WRONG: Final = (
    Fault.SEND_LOST_WRITTEN,
    Fault.SEND_LOST_UNWRITTEN,
    Fault.SEND_LATE,
    Fault.SEND_REFUSED,
)


@dataclass(frozen=True, slots=True)
class _Letter:
    process: int
    topic: str
    partition: int
    value: bytes


class Box:
    """One client's way to the mail; a signer's ``Inputs``."""

    def __init__(self, mail: Mail, process: int) -> None:
        """Send as ``process``."""
        self._mail = mail
        self._process = process

    def append(self, topic: str, partition: int, value: bytes) -> None:
        """Send with the next delivery."""
        self._mail.put(_Letter(self._process, topic, partition, value))


class Direct:
    """A client that waits for each answer, and is told when there is none: the watcher."""

    def __init__(self, mail: Mail, process: int, later: Callable[[str, int, bytes], None]) -> None:
        """``later`` keeps a record that arrives in a while."""
        self._mail = mail
        self._process = process
        self._later = later

    def append(self, topic: str, partition: int, value: bytes) -> None:
        """Send now. Raises what a log raises."""
        letter = _Letter(self._process, topic, partition, value)
        self._mail.send_now(letter, self._later)


class Mail:
    """Everything that waits to be delivered. As ``Inputs`` it takes anybody's records."""

    def __init__(
        self, rng: random.Random, log: MemoryLog, faults: Faults, history: History
    ) -> None:
        """Deliver to ``log``."""
        self._rng = rng
        self._log = log
        self._faults = faults
        self._history = history
        self._waiting: list[_Letter] = []
        #: Sent long ago, and still under way: (deliveries to wait, letter).
        self._late: list[tuple[int, _Letter]] = []
        self._moment = 0
        self._processes = ANYBODY
        self.last: dict[tuple[str, int], bytes] = {}

    def box(self) -> Box:
        """A box for one more client."""
        self._processes += 1
        return Box(self, self._processes)

    def direct(self, later: Callable[[str, int, bytes], None]) -> Direct:
        """A way to the log for one more client that waits."""
        self._processes += 1
        return Direct(self, self._processes, later)

    def append(self, topic: str, partition: int, value: bytes) -> None:
        """Anybody's record."""
        self.put(_Letter(ANYBODY, topic, partition, value))

    def put(self, letter: _Letter) -> None:
        """Keep a letter for the next delivery."""
        self._waiting.append(letter)
        self.last[letter.topic, letter.partition] = letter.value

    @property
    def waiting(self) -> int:
        """Letters that may still come."""
        return len(self._waiting) + len(self._late)

    def tick(self, places: Iterable[tuple[str, int]], value: bytes) -> None:
        """A tick, which the driver of logical time writes itself."""
        for topic, partition in places:
            self._send(_Letter(CLOCK, topic, partition, value))

    def deliver(self) -> None:
        """Send what waits, and let some of what was late arrive."""
        late, self._late = self._late, []
        for left, letter in late:
            if left and not self._faults.muted:
                self._late.append((left - 1, letter))
            else:
                self._log.append(letter.topic, letter.partition, letter.value)
        letters, self._waiting = self._waiting, []
        if self._faults.strikes(Fault.SEND_SHUFFLED):
            self._rng.shuffle(letters)
        for letter in letters:
            self._attempt(letter)

    def send_now(self, letter: _Letter, later: Callable[[str, int, bytes], None]) -> None:
        """One attempt of a client that waits for its answer."""
        fault = self._faults.pick(*_GONE_WRONG)
        match fault:
            case Fault.SEND_REFUSED:
                self._record(letter, Outcome.FAIL)
                raise LogError("The send was refused by the simulation.")
            case Fault.SEND_LOST_WRITTEN:
                self._log.append(letter.topic, letter.partition, letter.value)
            case Fault.SEND_LATE:
                later(letter.topic, letter.partition, letter.value)
            case Fault.SEND_LOST_UNWRITTEN:
                pass
            case _:
                self._send(letter)
                return
        self._record(letter, Outcome.INFO)
        raise AppendUnknown("The answer to the send was lost by the simulation.")

    def _attempt(self, letter: _Letter) -> None:
        fault = self._faults.pick(*_GONE_WRONG, Fault.SEND_TWICE)
        match fault:
            case Fault.SEND_LOST_WRITTEN:
                self._log.append(letter.topic, letter.partition, letter.value)
                self._record(letter, Outcome.INFO)
            case Fault.SEND_LOST_UNWRITTEN:
                self._record(letter, Outcome.INFO)
            case Fault.SEND_LATE:
                self._late.append((self._rng.randrange(4), letter))
                self._record(letter, Outcome.INFO)
            case Fault.SEND_REFUSED:
                self._record(letter, Outcome.FAIL)
            case Fault.SEND_TWICE:
                self._send(letter)
                self._send(letter)
            case _:
                self._send(letter)
        if fault is not None and fault is not Fault.SEND_TWICE and self._rng.randrange(3):
            # Who has no answer sends the same bytes again; some never do.
            self._waiting.append(letter)

    def _send(self, letter: _Letter) -> None:
        offset = self._log.append(letter.topic, letter.partition, letter.value)
        self._record(letter, Outcome.OK, offset)

    def _record(self, letter: _Letter, outcome: Outcome, offset: int | None = None) -> None:
        self._moment += 1
        self._history.add(
            Send(
                process=letter.process,
                place=(letter.topic, letter.partition),
                value=named(letter.value),
                outcome=outcome,
                offset=offset,
                invoked=self._moment,
                completed=self._moment,
            )
        )


class Reader:
    """A client that reads the inputs on and writes down what it saw."""

    def __init__(
        self,
        process: int,
        rng: random.Random,
        log: MemoryLog,
        history: History,
        places: Iterable[tuple[str, int]],
    ) -> None:
        """Begin at the start of every partition."""
        self._process = process
        self._rng = rng
        self._log = log
        self._history = history
        self._at = dict.fromkeys(places, 0)

    def poll(self) -> None:
        """Read one partition, a little or all of it."""
        place = self._rng.choice(list(self._at))
        self._read(place, self._rng.choice((1, 500, _WHOLE)))

    def catch_up(self, place: tuple[str, int]) -> None:
        """Read one partition to its end."""
        self._read(place, _WHOLE)

    def finish(self) -> None:
        """Read every partition to its end."""
        for place in self._at:
            self.catch_up(place)

    def _read(self, place: tuple[str, int], max_bytes: int) -> None:
        asked = self._at[place]
        fetched = self._log.read(*place, asked, max_bytes=max_bytes)
        self._at[place] = fetched.next_offset
        self._history.add(
            Poll(
                process=self._process,
                place=place,
                asked=asked,
                records=[(record.offset, named(record.value)) for record in fetched.records],
                following=fetched.next_offset,
            )
        )
