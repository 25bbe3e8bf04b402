"""
One ModelStreamInfer call that stamps each response, on a connection of its own.

As tritonclient has it: a client keeps one stream, and sends its requests on it one after another. A
time is that at which gRPC's library hands a message over, after HTTP/2's framing; HTTP's times are
taken before. Nothing but the end of an answer is looked for while requests run.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import grpc

from benchmarks.load.connection import Carrier, Endpoint, Exchange, Read
from benchmarks.load.grpc_messages import ERROR_TAG, ends_answer
from benchmarks.load.protocols import path
from benchmarks.records import ErrorKind

OPTIONS = (
    # Each client has its own connection, as over HTTP; gRPC would share one among all.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
)
FAILED = (grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN)


async def connect_grpc(endpoint: Endpoint) -> Carrier:
    """
    A stream to the endpoint's gRPC port.

    Raises:
        ConnectionError: nobody speaks gRPC there.
    """
    channel = _channel(endpoint)
    while (state := channel.get_state(try_to_connect=True)) is not grpc.ChannelConnectivity.READY:
        if state in FAILED:
            await channel.close()
            raise ConnectionError(f"no gRPC connection to {endpoint.grpc}")
        await channel.wait_for_state_change(state)
    key = (("authorization", f"Bearer {endpoint.api_key}"),) if endpoint.api_key else None
    # Without serializers: messages go in and out as bytes.
    call = channel.stream_stream(path("triton-grpc", ""))(metadata=key)
    return GrpcStream(channel, call)


def _channel(endpoint: Endpoint) -> Any:
    if endpoint.tls:
        credentials = grpc.ssl_channel_credentials()
        return grpc.aio.secure_channel(endpoint.grpc, credentials, options=OPTIONS)
    return grpc.aio.insecure_channel(endpoint.grpc, options=OPTIONS)


class GrpcStream:
    """A stream that carries one exchange at a time."""

    def __init__(self, channel: Any, call: Any) -> None:
        self._channel, self._call = channel, call
        self._exchange: Exchange | None = None
        self._broken = False

    @property
    def reusable(self) -> bool:
        """Whether another exchange may follow on it."""
        return not self._broken and not self._call.done()

    async def exchange(self, request: bytes, exchange: Exchange) -> None:
        """Write a request, and wait until its answer is complete or broken."""
        self._exchange = exchange
        exchange.send_s = exchange.last_read_s = time.perf_counter()
        try:
            await self._call.write(request)
            await self._read(exchange)
        except grpc.aio.AioRpcError as error:
            self._fail_by(error.code(), error.details() or "")
        except asyncio.InvalidStateError:
            self._fail_by(grpc.StatusCode.OK, "")  # it was over before the request was written
        except asyncio.CancelledError:
            # `fail` cancels the call, which is no wish to cancel the task.
            task = asyncio.current_task()
            if exchange.error is None or (task is not None and task.cancelling()):
                raise
        finally:
            exchange.end_s = exchange.last_read_s if exchange.error is None else time.perf_counter()
            self._broken |= self._exchange is not None
            self._exchange = None

    async def _read(self, exchange: Exchange) -> None:
        while (message := await self._call.read()) is not grpc.aio.EOF:
            now_s = time.perf_counter()
            exchange.last_read_s = now_s
            exchange.body += message
            exchange.reads.append(Read(now_s, len(exchange.body)))
            if ends_answer(message):
                # After an error Triton may still send the request's final response.
                self._broken = message.startswith(ERROR_TAG)
                self._exchange = None
                return
        self._fail_by(grpc.StatusCode.OK, "")

    def _fail_by(self, code: grpc.StatusCode, details: str) -> None:
        """The stream is over with this status, and the answer is not."""
        exchange = self._exchange
        if exchange is None or exchange.error is not None:
            return
        ended = code is grpc.StatusCode.OK
        why = "the server ended the stream" if ended else f"{code.name}: {details}"
        if exchange.reads:
            self.fail("early_close", f"in the middle of an answer: {why}")
        elif ended or code is grpc.StatusCode.UNAVAILABLE:
            self.fail("connect", f"no answer: {why}")
        else:
            self.fail("http_status", why)

    def fail(self, error: ErrorKind, message: str) -> None:
        """End the open exchange with an error, and the stream with it."""
        if self._exchange is not None:
            self._exchange.error, self._exchange.error_message = error, message
        self._broken = True
        self._call.cancel()

    async def close(self) -> None:
        """Close at once."""
        self._broken = True
        self._call.cancel()
        await self._channel.close()
