"""One request to a broker and its answer, each as a whole frame.

kafka-python finds, opens, secures and keeps the connections. What it is slow at is a large answer:
it takes it 4 KB at a time and copies it six times over. So frames go over the manager's own
connection, but past its event loop, into one buffer that stays. That is safe since the loop runs
only while the manager is called, on the same thread: between calls the socket is nobody's, once
every request of the loop's own has its answer.
"""

from __future__ import annotations

import io
import struct
import time
from collections.abc import Mapping
from typing import Any, Final

import kafka.errors as errors
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector

_LENGTH_BYTES: Final = 4
_NUMBER_BYTES: Final = 4
_NUMBERS: Final = 2**31
_FIRST_BUFFER_BYTES: Final = 1 << 20


class Exchange:
    """Asks over the connections of one manager, which it makes and closes."""

    def __init__(self, config: Mapping[str, Any], *, largest: int, timeout_s: float) -> None:
        """Connect by kafka-python's ``config``. Answers above ``largest`` bytes are refused."""
        self._client_id = config["client_id"]
        self._largest = largest
        self._number = 0
        self._buffer = memoryview(bytearray(_FIRST_BUFFER_BYTES))
        self._net = NetworkSelector(**config)
        self._manager = KafkaConnectionManager(self._net, **config)
        try:
            self._manager.bootstrap(max(1, int(timeout_s * 1000)))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connections."""
        self._manager.close()
        self._net.close()

    def ask(self, request: Any, node: int | None, deadline: float) -> memoryview:
        """The bytes of a broker's answer, which stay until the next question; None: any broker.

        Raises ``KafkaError``; where the answer may still come, its connection is closed.
        """
        connection = self._idle(node, deadline)
        self._number = (self._number + 1) % _NUMBERS
        request.API_VERSION = connection.broker_version_data.api_version(request)
        request.with_header(correlation_id=self._number, client_id=self._client_id)
        error: errors.KafkaError
        try:
            frame = self._exchanged(connection.transport._sock, request, deadline)
        except TimeoutError:
            error = errors.RequestTimedOutError("no answer in time")
        except OSError as lost:
            error = errors.KafkaConnectionError(str(lost))
        else:
            number = int.from_bytes(frame[:_NUMBER_BYTES], "big")
            if number == self._number:
                return frame
            error = errors.CorrelationIdError(f"answer {number} to request {self._number}")
        connection.close(error)
        raise error

    def learn(self, metadata: Any) -> None:
        """Take note of where the brokers are: an answer to a metadata request says it."""
        self._manager.cluster.update_metadata(metadata)

    def _idle(self, node: int | None, deadline: float) -> Any:
        """A connection that is ready, and on which nothing is on its way."""
        manager = self._manager

        async def ready() -> Any:
            chosen = manager.least_loaded_node() if node is None else node
            connection = manager.get_connection(chosen)
            if not connection.connected:
                await manager.wait_for(connection.init_future, _left_s(deadline) * 1000)
            while connection.in_flight_requests:
                _, answer, *_ = connection.in_flight_requests[-1]
                await manager.wait_for(answer, _left_s(deadline) * 1000)
            return connection

        connection = manager.run(ready)
        if not connection.connected:
            raise errors.KafkaConnectionError("the connection was closed meanwhile")
        return connection

    def _exchanged(self, socket: Any, request: Any, deadline: float) -> memoryview:
        socket.settimeout(_left_s(deadline))
        socket.sendall(request.encode(header=True, framed=True))
        length = int.from_bytes(self._received(socket, _LENGTH_BYTES, deadline), "big")
        if not _NUMBER_BYTES <= length <= self._largest:
            raise OSError(f"an answer of {length} bytes, at most {self._largest} are read")
        if length > len(self._buffer):
            self._buffer = memoryview(bytearray(length))
        frame = self._received(socket, length, deadline)
        socket.setblocking(False)
        return frame

    def _received(self, socket: Any, length: int, deadline: float) -> memoryview:
        wanted = self._buffer[:length]
        at = 0
        while at < length:
            socket.settimeout(_left_s(deadline))
            came = socket.recv_into(wanted[at:])
            if not came:
                raise OSError("the broker closed the connection")
            at += came
        return wanted


def decoded(request: Any, frame: memoryview) -> Any:
    """An answer as kafka-python's object, for answers that are small."""
    kind = request.header.get_response_class()
    data = io.BytesIO(frame)
    try:
        kind.parse_header(data)
        return kind.decode(data)
    except (ValueError, IndexError, struct.error) as wrong:
        raise errors.KafkaProtocolError(f"{kind.__name__} cannot be read: {wrong}") from wrong


def _left_s(deadline: float) -> float:
    return max(0.001, deadline - time.monotonic())
