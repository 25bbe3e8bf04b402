"""KServe v2 over gRPC with Triton's protobuf: what a Triton client finds on port 8001."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterator,
)
from contextlib import aclosing, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import grpc
from google.protobuf import json_format
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from gemma_serve import logs, metrics
from gemma_serve.api.budget import header_seconds
from gemma_serve.api.held import Hold
from gemma_serve.api.keys import Key, KeyRing
from gemma_serve.api.kserve import describe
from gemma_serve.api.kserve.grpc_ids import NameCalls, name_call
from gemma_serve.api.kserve.grpc_messages import read_request, write_response
from gemma_serve.api.kserve.grpc_unreadable import UNREADABLE, RefuseUnreadable
from gemma_serve.api.kserve.service import TRACE_HEADERS, InferRequest, KServe
from gemma_serve.api.observe import begin_flight, end_flight, log_access, open_request
from gemma_serve.api.request_id import HEADER, harmless_id
from gemma_serve.api.state import ServerState
from gemma_serve.engine.cache_salt import cache_salt, salt_of
from gemma_serve.errors import (
    AuthenticationError,
    GemmaServeError,
    InternalError,
    RequestError,
)
from gemma_serve.profile.schema import Tls

logger = logging.getLogger("gemma_serve.triton")
Context = Any  # grpc.aio.ServicerContext, which has no types
Made = TypeVar("Made", bound=Message)
SERVICE = "inference.GRPCInferenceService"
# These answer without a key: an orchestrator has none.
OPEN_METHODS = frozenset(
    {
        f"/{SERVICE}/ServerLive",
        f"/{SERVICE}/ServerReady",
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/Watch",
    }
)
# Requests of one stream that run at once; the rest waits in the connection.
MAX_STREAM_REQUESTS = 256
HEALTH_POLL_S = 0.5
MAX_MESSAGE_CHARS = 1024
UNKNOWN_KEY = "No API key that is known was sent; send one as metadata 'authorization: Bearer KEY'."
CODES = {
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
NOT_SERVED = (
    "RepositoryModelLoad",
    "RepositoryModelUnload",
    "SystemSharedMemoryStatus",
    "SystemSharedMemoryRegister",
    "SystemSharedMemoryUnregister",
    "CudaSharedMemoryStatus",
    "CudaSharedMemoryRegister",
    "CudaSharedMemoryUnregister",
    "TraceSetting",
    "LogSettings",
)


def code_of(error: GemmaServeError) -> grpc.StatusCode:
    """The gRPC status of an error, by its HTTP status."""
    if error.status in CODES:
        return CODES[error.status]
    is_clients = error.status < 500
    return grpc.StatusCode.INVALID_ARGUMENT if is_clients else grpc.StatusCode.INTERNAL


class Servicer(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """GRPCInferenceService on our v2 side; what is not served says why."""

    def __init__(self, service: KServe) -> None:
        self.service = service
        self.state = service.state

    # --- what there is

    async def ServerLive(self, request: Any, context: Context) -> Any:  # noqa: N802, ARG002
        """Whether this process can become or stay useful."""
        return pb.ServerLiveResponse(live=self.state.alive)

    async def ServerReady(self, request: Any, context: Context) -> Any:  # noqa: N802, ARG002
        """Whether more requests are welcome."""
        return pb.ServerReadyResponse(ready=self.state.welcoming)

    async def ModelReady(self, request: Any, context: Context) -> Any:  # noqa: N802
        """Whether the model takes requests."""
        if not self.state.ready:
            return pb.ModelReadyResponse(ready=False)

        async def ready() -> Any:
            self.service.check_model(request.name, request.version)
            return pb.ModelReadyResponse(ready=True)

        return await _answered(context, ready())

    async def ServerMetadata(self, request: Any, context: Context) -> Any:  # noqa: N802, ARG002
        """Name, version and extensions."""
        return _message(describe.server_metadata(), pb.ServerMetadataResponse)

    async def ModelMetadata(self, request: Any, context: Context) -> Any:  # noqa: N802
        """The model's inputs and outputs."""

        async def metadata() -> Any:
            found = self.service.model_metadata(request.name, request.version)
            return _message(found, pb.ModelMetadataResponse)

        return await _answered(context, metadata())

    async def ModelConfig(self, request: Any, context: Context) -> Any:  # noqa: N802
        """The model configuration."""

        async def config() -> Any:
            found = self.service.model_config(request.name, request.version)
            return _message({"config": found}, pb.ModelConfigResponse)

        return await _answered(context, config())

    async def ModelStatistics(self, request: Any, context: Context) -> Any:  # noqa: N802
        """Counts and durations of one model, or of all."""

        async def statistics() -> Any:
            found = self.service.model_statistics(request.name, request.version)
            return _message(found, pb.ModelStatisticsResponse)

        return await _answered(context, statistics())

    async def RepositoryIndex(self, request: Any, context: Context) -> Any:  # noqa: N802, ARG002
        """What is served, or will be."""
        models = self.service.repository_index(ready=request.ready)
        return _message({"models": models}, pb.RepositoryIndexResponse)

    # --- inference

    async def ModelInfer(self, request: Any, context: Context) -> Any:  # noqa: N802
        """The whole answer."""

        async def infer() -> Any:
            with self.counted("ModelInfer"), Hold(self.state.held) as hold:
                read = self._read(request, context, hold, may_stream=False)
                async with aclosing(self.service.infer(read)) as responses:
                    return write_response(await anext(responses))

        return await _answered(context, infer())

    async def ModelStreamInfer(  # noqa: N802
        self, request_iterator: AsyncIterator[Any], context: Context
    ) -> None:
        """Responses of many requests as they come; an error ends its request, not the stream."""
        await _Stream(self, context).answer_all(request_iterator)

    @contextmanager
    def counted(self, method: str) -> Iterator[None]:
        """Count an inference as open, which the drain waits for, and then by its status."""
        code, began_s, flight = "OK", time.perf_counter(), begin_flight(self.state)
        try:
            with open_request(self.state):
                yield
        except GemmaServeError as error:
            code = code_of(error).name
            raise
        except (asyncio.CancelledError, grpc.aio.BaseError, _NobodyReadsError):
            code = "CANCELLED"  # by its client, or with its stream
            raise
        except Exception:
            code = "INTERNAL"
            raise
        finally:
            metrics.GRPC_REQUESTS.labels(method, code).inc()
            outcome = {"method": "gRPC", "route": method, "status": code}
            facts = logs.request_facts.get() or {}
            end_flight(flight, outcome, facts)
            if self.state.profile.observability.access_log:
                log_access(outcome, time.perf_counter() - began_s, facts)

    def _read(
        self, request: Any, context: Context, hold: Hold, *, may_stream: bool
    ) -> InferRequest:
        metadata = dict(context.invocation_metadata() or ())
        id_ = harmless_id(str(metadata.get(HEADER, "")), request.id)
        logs.request_facts.set({"request_id": id_})
        if not may_stream:  # a stream has many, and the id that it came with
            name_call(context, id_)
        key = find_key(self.state.keys, metadata.items()) if self.state.keys else None
        if self.state.keys and key is None:  # a stream may have outlived its key
            raise AuthenticationError(UNKNOWN_KEY)
        if key is not None and not self.state.profile.server.shared_prefix_cache:
            cache_salt.set(salt_of(key.tenant))
        hold.add(request.ByteSize())
        return read_request(
            request,
            may_stream=may_stream,
            timeout_s=_sooner(context.time_remaining(), header_seconds(metadata)),
            request_id=id_,
            trace_headers={name: str(metadata[name]) for name in TRACE_HEADERS if name in metadata},
            key=key,
        )


def _refuse(method: str) -> Callable[..., Awaitable[Any]]:
    async def refused(self: Servicer, request: Any, context: Context) -> Any:  # noqa: ARG001
        await context.abort(
            grpc.StatusCode.UNIMPLEMENTED,
            f"{method} is not served: the profile says what is loaded and logged, and tensors "
            "come in the request.",
        )

    return refused


for _method in NOT_SERVED:
    setattr(Servicer, _method, _refuse(_method))


class _NobodyReadsError(Exception):
    """A client has taken nothing of its stream for `limits.write_timeout_s`."""


class _Stream:
    """One ModelStreamInfer: many requests in, their responses out as they come."""

    def __init__(self, servicer: Servicer, context: Context) -> None:
        self.servicer, self.context = servicer, context
        self.limits = servicer.state.profile.limits
        self.free = asyncio.Semaphore(MAX_STREAM_REQUESTS)
        self.writing = asyncio.Lock()  # gRPC takes one message at a time
        self.answering: set[asyncio.Task[None]] = set()

    async def answer_all(self, requests: AsyncIterator[Any]) -> None:
        """Answer until the client has said all; cancelled, until every request has left."""
        # The error is of a stream that `_end` has ended meanwhile, and gRPC knows it already.
        async with asyncio.TaskGroup() as group:
            with suppress(grpc.aio.BaseError):
                await self.free.acquire()  # first: what is not read waits in the connection
                async for request in requests:
                    task = group.create_task(self._answer(request))
                    self.answering.add(task)
                    task.add_done_callback(self.answering.discard)
                    await self.free.acquire()

    async def _answer(self, request: Any) -> None:
        try:
            if not self.context.done():
                await self._infer_or_refuse(request)
        except _NobodyReadsError:
            await self._end()
        except grpc.aio.BaseError:
            pass  # nothing can be written any more, and gRPC cancels the stream
        finally:
            self.free.release()

    async def _end(self) -> None:
        """
        End the stream of a client that takes nothing of it, with all of its requests.

        Not by an exception out of `answer_all`: that would cancel its waiting for the next message,
        which gRPC then writes to memory that is free. So it waits on, for the client's end.
        """
        if self.context.done():
            return
        for task in self.answering - {asyncio.current_task()}:
            task.cancel()
        with suppress(grpc.aio.BaseError):
            # What is on its way comes first, should the client read again.
            await self.context.abort(
                grpc.StatusCode.CANCELLED,
                f"Nothing of the answers was read for {self.limits.write_timeout_s:g} s "
                "(limits.write_timeout_s); read them as they come.",
            )

    async def _infer_or_refuse(self, request: Any) -> None:
        if request is None:
            await self._refuse(pb.ModelInferRequest(), RequestError(UNREADABLE))
            return
        try:
            # The request, not the stream, which its client may keep open and say nothing.
            with self.servicer.counted("ModelStreamInfer"):
                await self._infer(request)
        except (grpc.aio.BaseError, _NobodyReadsError):
            raise
        except GemmaServeError as error:
            await self._refuse(request, error)
        except Exception:
            logger.exception("A streamed request failed.")
            await self._refuse(request, InternalError("The server failed on this request."))

    async def _infer(self, request: Any) -> None:
        with Hold(self.servicer.state.held) as hold:
            read = self.servicer._read(request, self.context, hold, may_stream=True)
            async with aclosing(self.servicer.service.infer(read)) as responses:
                async for response in responses:
                    # From here, without a queue between: a slow reader is waited for.
                    said = pb.ModelStreamInferResponse(infer_response=write_response(response))
                    await self._write(said)

    async def _refuse(self, request: Any, error: GemmaServeError) -> None:
        whose = pb.ModelInferResponse(model_name=request.model_name, id=request.id)
        message = error.message[:MAX_MESSAGE_CHARS]
        await self._write(pb.ModelStreamInferResponse(error_message=message, infer_response=whose))

    async def _write(self, response: Any) -> None:
        async with self.writing:
            try:
                async with asyncio.timeout(self.limits.write_timeout_s):
                    await self.context.write(response)
            except TimeoutError:
                raise _NobodyReadsError from None


async def _answered(context: Context, work: Awaitable[Any]) -> Any:
    """Await the work; an error of ours becomes the call's status."""
    try:
        return await work
    except GemmaServeError as error:
        # Source: https://github.com/grpc/proposal/blob/master/A6-client-retries.md#pushback
        after_s = error.retry_after_s
        pushback = (("grpc-retry-pushback-ms", str(after_s * 1000)),) if after_s else ()
        metadata = (*(context.trailing_metadata() or ()), *pushback)
        await context.abort(code_of(error), error.message[:MAX_MESSAGE_CHARS], metadata)


def _sooner(*seconds: float | None) -> float | None:
    return min((value for value in seconds if value is not None), default=None)


def _message(value: dict[str, Any], kind: type[Made]) -> Made:
    made: Made = json_format.ParseDict(value, kind())
    return made


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """grpc.health.v1: of the server, and of the inference service by name."""

    def __init__(self, state: ServerState) -> None:
        self.state = state

    async def Check(self, request: Any, context: Context) -> Any:  # noqa: N802
        """Whether more requests are welcome now."""
        if request.service not in ("", SERVICE):
            await context.abort(grpc.StatusCode.NOT_FOUND, f"There is no service but {SERVICE}.")
        return self._status()

    async def Watch(  # noqa: N802
        self, request: Any, context: Context
    ) -> AsyncGenerator[Any, None]:
        """The same, again whenever it changes."""
        if request.service not in ("", SERVICE):
            unknown = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
            yield health_pb2.HealthCheckResponse(status=unknown)
            return
        said = None
        while not context.cancelled():
            status = self._status()
            if status != said:
                yield status
                said = status
            await asyncio.sleep(HEALTH_POLL_S)

    def _status(self) -> Any:
        kinds = health_pb2.HealthCheckResponse
        return kinds(status=kinds.SERVING if self.state.welcoming else kinds.NOT_SERVING)


class Authenticate(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """No answer without a key, except on the open methods."""

    def __init__(self, keys: KeyRing) -> None:
        self.keys = keys

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        """Pass the call on, or refuse it."""
        handler = await continuation(details)
        if details.method in OPEN_METHODS or find_key(self.keys, details.invocation_metadata):
            return handler

        async def refused(_request: Any, context: Context) -> Any:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, UNKNOWN_KEY)

        if handler is not None and handler.request_streaming:
            return grpc.stream_stream_rpc_method_handler(refused)
        return grpc.unary_unary_rpc_method_handler(refused)


def find_key(keys: KeyRing, metadata: Any) -> Key | None:
    """The key that a call's metadata carries, if it is a good one."""
    for name, value in metadata or ():
        scheme, _, token = str(value).partition(" ")
        if name == "authorization" and scheme.lower() == "bearer" and token.strip():
            return keys.find(token.strip())
        if name == "x-api-key":
            return keys.find(str(value).strip())
    return None


class GrpcServer:
    """The gRPC port, from its opening to its end."""

    def __init__(self, service: KServe) -> None:
        keys = service.state.keys
        settings = service.state.profile.server
        max_bytes = service.state.max_body_bytes
        self.settings = settings
        self._server = grpc.aio.server(
            # Keys before messages: nothing is read for who has none.
            interceptors=[
                NameCalls(),
                *([Authenticate(keys)] if keys else []),
                RefuseUnreadable(),
            ],
            options=[
                # Another program on this port would share its requests without a word.
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", max_bytes),
                ("grpc.max_send_message_length", -1),
                *_keepalive(service.state.profile.limits.write_timeout_s),
            ],
        )
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Servicer(service), self._server)
        health_pb2_grpc.add_HealthServicer_to_server(Health(service.state), self._server)

    async def start(self, port: int) -> int:
        """
        Accept calls from now on.

        Returns:
            The port; another than was asked for if that was 0.
        """
        host = self.settings.host
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        if self.settings.tls:
            bound = self._server.add_secure_port(address, _credentials(self.settings.tls))
        else:
            bound = self._server.add_insecure_port(address)
        await self._server.start()
        return int(bound)

    async def stop(self) -> None:
        """Close the port; what is still being answered is cut off."""
        await self._server.stop(grace=1)


def _keepalive(timeout_s: float) -> list[tuple[str, int]]:
    """
    Close connections whose other end takes nothing, as `wire/accept.py` does for HTTP.

    gRPC makes a TCP_USER_TIMEOUT of the keep-alive's, and pings while there are calls: by the first
    a machine that is gone is noticed, by the second a process that stands still.

    Source: https://github.com/grpc/proposal/blob/master/A18-tcp-user-timeout.md
    """
    timeout_ms = max(min(round(timeout_s * 1000), 2**31 - 1), 1)
    names = ("grpc.keepalive_time_ms", "grpc.keepalive_timeout_ms", "grpc.http2.ping_timeout_ms")
    # However long an answer is in coming: else there were two pings, and then one a minute.
    return [*((name, timeout_ms) for name in names), ("grpc.http2.max_pings_without_data", 0)]


def _credentials(tls: Tls) -> grpc.ServerCredentials:
    key, chain = Path(tls.keyfile).read_bytes(), Path(tls.certfile).read_bytes()
    return grpc.ssl_server_credentials([(key, chain)])
