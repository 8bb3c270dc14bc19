"""A provider and an outbox that die at a chosen step, before or after the step took effect."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from web3.providers import BaseProvider
from web3.types import RPCEndpoint, RPCResponse

from adapters.evm_keys import Signed
from adapters.evm_outbox import Attempt, Outbox
from domain.l1 import Sending


class Killed(ConnectionError):
    """The process died, or the answer was lost: for what follows it is the same."""


@dataclass
class Fuse:
    """Blows at the ``at``-th step, once. ``late`` lets the step take effect first."""

    at: int
    late: bool
    steps: int = 0

    @property
    def blown(self) -> bool:
        return self.steps >= self.at

    def run(self, step: Callable[[], Any]) -> Any:
        self.steps += 1
        if self.steps != self.at:
            return step()
        if self.late:
            step()
        raise Killed(f"at step {self.at}")


@dataclass
class FaultyProvider(BaseProvider):
    """Passes requests on through a fuse; ``before`` is called once ahead of the next send."""

    inner: BaseProvider
    fuse: Fuse = field(default_factory=lambda: Fuse(at=0, late=False))
    before_send: Callable[[], None] | None = None
    sent: list[str] = field(default_factory=list)

    def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        if method == "eth_sendRawTransaction":
            self.sent.append(params[0])
            ahead, self.before_send = self.before_send, None
            if ahead is not None:
                ahead()
        answer: RPCResponse = self.fuse.run(lambda: self.inner.make_request(method, params))
        return answer


class FaultyOutbox(Outbox):
    """Dies at a write."""

    def __init__(self, path: Path, fuse: Fuse) -> None:
        super().__init__(path)
        self._fuse = fuse

    def put(self, sending: Sending) -> None:
        self._fuse.run(lambda: super(FaultyOutbox, self).put(sending))

    def sent(self, transaction: Any, head: int) -> None:
        self._fuse.run(lambda: super(FaultyOutbox, self).sent(transaction, head))

    def sign(self, sending: Sending, signed: Signed, attempt: Attempt) -> Sending:
        made: Sending = self._fuse.run(
            lambda: super(FaultyOutbox, self).sign(sending, signed, attempt)
        )
        return made
