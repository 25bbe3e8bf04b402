"""KServe v2 over gRPC with Triton's protobuf: what a Triton client finds on port 8001."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any, TypeVar

import grpc
from google.protobuf import json_format
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from gemma_serve.api.kserve import describe
from gemma_serve.api.kserve.grpc_errors import answered
from gemma_serve.api.kserve.grpc_ids import NameCalls
from gemma_serve.api.kserve.grpc_inference import Inference
from gemma_serve.api.kserve.grpc_keys import Authenticate
from gemma_serve.api.kserve.grpc_messages import SERVICE, write_response
from gemma_serve.api.kserve.grpc_stream import InferStream
from gemma_serve.api.kserve.grpc_unreadable import RefuseUnreadable
from gemma_serve.api.kserve.service import KServe
from gemma_serve.api.state import ServerState
from gemma_serve.profile.schema import Tls

Context = Any  # grpc.aio.ServicerContext, which has no types
Made = TypeVar("Made", bound=Message)
HEALTH_POLL_S = 0.5
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

        return await answered(context, ready())

    async def ServerMetadata(self, request: Any, context: Context) -> Any:  # noqa: N802, ARG002
        """Name, version and extensions."""
        return _message(describe.server_metadata(), pb.ServerMetadataResponse)

    async def ModelMetadata(self, request: Any, context: Context) -> Any:  # noqa: N802
        """The model's inputs and outputs."""

        async def metadata() -> Any:
            found = self.service.model_metadata(request.name, request.version)
            return _message(found, pb.ModelMetadataResponse)

        return await answered(context, metadata())

    async def ModelConfig(self, request: Any, context: Context) -> Any:  # noqa: N802
        """The model configuration."""

        async def config() -> Any:
            found = self.service.model_config(request.name, request.version)
            return _message({"config": found}, pb.ModelConfigResponse)

        return await answered(context, config())

    async def ModelStatistics(self, request: Any, context: Context) -> Any:  # noqa: N802
        """Counts and durations of one model, or of all."""

        async def statistics() -> Any:
            found = self.service.model_statistics(request.name, request.version)
            return _message(found, pb.ModelStatisticsResponse)

        return await answered(context, statistics())

    async def RepositoryIndex(self, request: Any, context: Context) -> Any:  # noqa: N802, ARG002
        """What is served, or will be."""
        models = self.service.repository_index(ready=request.ready)
        return _message({"models": models}, pb.RepositoryIndexResponse)

    # --- inference

    async def ModelInfer(self, request: Any, context: Context) -> Any:  # noqa: N802
        """The whole answer."""

        async def infer() -> Any:
            inference = Inference(self.state, context, in_stream=False)
            with inference.of(request) as read:
                async with aclosing(self.service.infer(read)) as responses:
                    return write_response(await anext(responses))

        return await answered(context, infer())

    async def ModelStreamInfer(  # noqa: N802
        self, request_iterator: AsyncIterator[Any], context: Context
    ) -> None:
        """Responses of many requests as they come; an error ends its request, not the stream."""
        await InferStream(self.service, context).answer_all(request_iterator)


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
