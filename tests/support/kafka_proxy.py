"""A proxy between a Kafka client and its broker that knows frames, and goes wrong as it is told.

A proxy of bytes cannot tell a Produce from a Fetch, so it cannot lose the answer to an append and
nothing else. This one reads the length-prefixed requests and answers, asks its plan what becomes
of each, and writes its own address where an answer tells a client where brokers are, so that every
connection leads through it. It serves any broker; a client that is to be left alone asks the broker
itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final

from kafka.protocol.admin import DescribeClusterResponse
from kafka.protocol.api_key import ApiKey
from kafka.protocol.metadata import FindCoordinatorResponse, MetadataResponse
from kafka.protocol.producer import ProduceRequest, ProduceResponse

START_S: Final = 10.0
FRAME_MAX: Final = 64 << 20

# Error codes of the protocol that a broker answers a Produce with.
NOT_LEADER: Final = 6
REQUEST_TIMED_OUT: Final = 7
MESSAGE_TOO_LARGE: Final = 10
NOT_ENOUGH_REPLICAS: Final = 19
NOT_ENOUGH_REPLICAS_AFTER_APPEND: Final = 20

_SHOWS_ADDRESSES: Final[Mapping[int, Any]] = {
    ApiKey.Metadata: MetadataResponse,
    ApiKey.FindCoordinator: FindCoordinatorResponse,
    ApiKey.DescribeCluster: DescribeClusterResponse,
}


class Do(Enum):
    """What becomes of a request and its answer."""

    PASS = auto()
    #: The broker never sees the request, and there is no answer.
    SWALLOW = auto()
    #: The connection is cut; the broker never sees the request.
    CUT_BEFORE = auto()
    #: The connection is cut when the broker has answered.
    CUT_AFTER = auto()
    #: The broker has answered; the client hears nothing more on this connection.
    DROP_ANSWER = auto()
    DELAY_REQUEST = auto()
    DELAY_ANSWER = auto()
    #: The client gets the answer twice, which breaks the protocol.
    DOUBLE_ANSWER = auto()
    #: The broker gets the request twice, as from a client that sent it again.
    DOUBLE_REQUEST = auto()
    #: A Produce is answered with an error; the broker never sees it.
    REFUSE = auto()
    #: A Produce is answered with an error, though the broker has taken it.
    REFUSE_AFTER = auto()
    #: The request waits until ``release``.
    HOLD = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What to do, for how long, with which error code."""

    do: Do
    seconds: float = 0.0
    code: int = 0


PASS: Final = Fault(do=Do.PASS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The head of a request, and the frame."""

    api: int
    version: int
    correlation: int
    client: str
    frame: bytes

    @classmethod
    def of(cls, frame: bytes) -> Asked:
        """Read the head, which all versions have."""
        api, version, correlation, length = struct.unpack_from(">hhih", frame)
        client = frame[10 : 10 + max(length, 0)].decode()
        return cls(api=api, version=version, correlation=correlation, client=client, frame=frame)


Plan = Callable[[Asked], Fault]


def undisturbed(_: Asked) -> Fault:
    """The plan of a proxy that does no harm."""
    return PASS


def every_produce(fault: Fault, client: str = "") -> Plan:
    """The same for every Produce, of clients whose name begins so."""

    def plan(asked: Asked) -> Fault:
        meant = asked.api == ApiKey.Produce and asked.client.startswith(client)
        return fault if meant else PASS

    return plan


def first_produces(fault: Fault, count: int = 1, client: str = "") -> Plan:
    """Only for the first so many, then none."""
    left = [count]
    chosen = every_produce(fault, client)

    def plan(asked: Asked) -> Fault:
        found = chosen(asked)
        if found is PASS or not left[0]:
            return PASS
        left[0] -= 1
        return found

    return plan


class SeededPlan:
    """Faults at random, from a seed: a share of all requests of some kinds."""

    def __init__(
        self,
        seed: int,
        faults: Sequence[Fault],
        *,
        share: float,
        apis: Sequence[int] = (ApiKey.Produce,),
    ) -> None:
        self._random = random.Random(seed)
        self._faults = tuple(faults)
        self._share = share
        self._apis = frozenset(apis)

    def __call__(self, asked: Asked) -> Fault:
        if asked.api not in self._apis or self._random.random() >= self._share:
            return PASS
        return self._random.choice(self._faults)


@dataclass(frozen=True, slots=True)
class _Awaited:
    """A request whose answer is next on its connection; ``own`` is an answer of the proxy's."""

    asked: Asked
    fault: Fault
    own: bytes | None = None


class KafkaProxy:
    """One broker, seen through faults. ``plan`` may be set at any time, from any thread."""

    def __init__(self, upstream: str, plan: Plan = undisturbed) -> None:
        host, port = upstream.split(":")
        self._upstream = host, int(port)
        self.plan = plan
        #: How often each fault was injected.
        self.injected: Counter[Do] = Counter()
        #: What went wrong in the proxy itself.
        self.broken: list[BaseException] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="kafka-proxy", daemon=True)
        self._up = threading.Event()
        self._released = asyncio.Event()
        self._ended = asyncio.Event()
        self._port = 0

    @property
    def bootstrap(self) -> str:
        """The address that clients are given."""
        return f"127.0.0.1:{self._port}"

    def start(self) -> KafkaProxy:
        """Listen on a free port."""
        self._thread.start()
        assert self._up.wait(START_S), "the proxy did not come up"
        return self

    def stop(self) -> None:
        """Cut every connection and end."""
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(START_S)

    def release(self) -> None:
        """Let every request go that is held; what is held later waits for the next release."""

        def pulse() -> None:
            self._released.set()
            self._released = asyncio.Event()

        self._loop.call_soon_threadsafe(pulse)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        links: set[asyncio.Task[None]] = set()

        async def opened(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            links.add(task)
            # A connection that breaks is what a proxy of faults is for.
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._link(reader, writer)
            writer.close()
            links.discard(task)

        server = await asyncio.start_server(opened, "127.0.0.1", 0)
        self._port = server.sockets[0].getsockname()[1]
        self._up.set()
        await self._ended.wait()
        server.close()
        for task in links:
            task.cancel()
        await asyncio.gather(*links, return_exceptions=True)

    async def _link(self, client: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
        broker, requests = await asyncio.open_connection(*self._upstream)
        awaited: asyncio.Queue[_Awaited] = asyncio.Queue(maxsize=1_000)
        both = [
            asyncio.create_task(self._requests(client, requests, awaited)),
            asyncio.create_task(self._answers(broker, answers, awaited)),
        ]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            ends = await asyncio.gather(*both, return_exceptions=True)
            requests.close()
            expected = (OSError, asyncio.IncompleteReadError, asyncio.CancelledError)
            self.broken += [e for e in ends if e is not None and not isinstance(e, expected)]

    async def _requests(
        self,
        client: asyncio.StreamReader,
        broker: asyncio.StreamWriter,
        awaited: asyncio.Queue[_Awaited],
    ) -> None:
        while True:
            asked = Asked.of(await _frame(client))
            fault = self.plan(asked)
            if fault.do is not Do.PASS:
                self.injected[fault.do] += 1
            match fault.do:
                case Do.SWALLOW:
                    continue
                case Do.CUT_BEFORE:
                    return
                case Do.REFUSE:
                    await awaited.put(_Awaited(asked, fault, _refusal(asked, fault.code)))
                    continue
                case Do.DELAY_REQUEST:
                    await asyncio.sleep(fault.seconds)
                case Do.HOLD:
                    await self._released.wait()
                case Do.DOUBLE_REQUEST:
                    _put(broker, asked.frame)
                case _:
                    pass
            _put(broker, asked.frame)
            await broker.drain()
            await awaited.put(_Awaited(asked, fault))

    async def _answers(
        self,
        broker: asyncio.StreamReader,
        client: asyncio.StreamWriter,
        awaited: asyncio.Queue[_Awaited],
    ) -> None:
        while True:
            next_ = await awaited.get()
            answer = next_.own
            if answer is None:
                answer = self._seen_through(next_.asked, await _frame(broker))
            match next_.fault.do:
                case Do.CUT_AFTER:
                    return
                case Do.DROP_ANSWER:
                    # A later answer would tell the client that this one is missing.
                    await asyncio.Event().wait()
                case Do.DELAY_ANSWER:
                    await asyncio.sleep(next_.fault.seconds)
                case Do.DOUBLE_ANSWER:
                    _put(client, answer)
                case Do.DOUBLE_REQUEST:
                    await _frame(broker)
                case Do.REFUSE_AFTER:
                    answer = _refusal(next_.asked, next_.fault.code)
                case _:
                    pass
            _put(client, answer)
            await client.drain()

    def _seen_through(self, asked: Asked, answer: bytes) -> bytes:
        """The answer with this proxy's address wherever a broker's stands."""
        kind = _SHOWS_ADDRESSES.get(asked.api)
        if kind is None:
            return answer
        head = len(_head(asked, kind))
        said = kind.decode(answer[head:], version=asked.version)
        for each in [said, *(getattr(said, "brokers", ()) or getattr(said, "coordinators", ()))]:
            if getattr(each, "port", None):
                each.host, each.port = "127.0.0.1", self._port
        return answer[:head] + bytes(said.encode())


@contextlib.contextmanager
def proxied(upstream: str, plan: Plan = undisturbed) -> Iterator[KafkaProxy]:
    """A proxy before a broker, stopped at the end."""
    proxy = KafkaProxy(upstream, plan).start()
    try:
        yield proxy
    finally:
        proxy.stop()
    assert not proxy.broken, proxy.broken


async def _frame(reader: asyncio.StreamReader) -> bytes:
    (length,) = struct.unpack(">i", await reader.readexactly(4))
    if not 0 < length <= FRAME_MAX:
        raise OSError(f"a frame of {length} bytes")
    return await reader.readexactly(length)


def _put(writer: asyncio.StreamWriter, frame: bytes) -> None:
    writer.write(struct.pack(">i", len(frame)) + frame)


def _refusal(asked: Asked, code: int) -> bytes:
    """The answer to a Produce in which every partition failed with this code."""
    request = ProduceRequest.decode(asked.frame, version=asked.version, header=True)
    answer = ProduceResponse[asked.version](
        responses=[
            ProduceResponse.TopicProduceResponse(
                name=topic.name,
                partition_responses=[
                    ProduceResponse.TopicProduceResponse.PartitionProduceResponse(
                        index=partition.index, error_code=code, base_offset=-1
                    )
                    for partition in topic.partition_data
                ],
            )
            for topic in request.topic_data
        ],
        throttle_time_ms=0,
    )
    return _head(asked, ProduceResponse) + bytes(answer.encode())


def _head(asked: Asked, kind: Any) -> bytes:
    """The head of an answer: the correlation and, in flexible versions, an empty list of tags."""
    tags = b"\0" if kind.flexible_version_q(asked.version) else b""
    return struct.pack(">i", asked.correlation) + tags
