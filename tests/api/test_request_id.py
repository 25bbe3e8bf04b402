"""x-request-id on every answer, whoever gives it, over HTTP and gRPC; no engine."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from gemma_serve.api.keys import KeyRing
from gemma_serve.api.kserve.service import InferRequest, InferResponse, KServe
from gemma_serve.api.kserve_grpc import GrpcServer
from gemma_serve.api.probes import starting_app
from gemma_serve.api.request_id import request_id_of
from gemma_serve.api.state import ServerState
from gemma_serve.engine.timeline import Timeline
from gemma_serve.profile.schema import Observability, Profile
from tests.http_side import http_side

HEADER = "x-request-id"
MINE = {HEADER: "mine-1"}
PROFILE = Profile(model="tiny", observability=Observability(access_log=True))


def state_of(keys: KeyRing | None = None) -> ServerState:
    """A server whose engine still starts."""
    return ServerState(PROFILE, Timeline(), keys=keys)


# --- over HTTP


def assert_named(url: str) -> None:
    """The client's id comes back once; without one there is one too, each time another."""
    assert httpx.get(url, headers=MINE).headers.get_list(HEADER) == ["mine-1"]
    made = {httpx.get(url).headers[HEADER] for _ in range(2)}
    assert len(made) == 2


def test_every_port() -> None:
    """Also the ports of the probes and of the metrics, and their refusals."""
    with http_side({"probe_port": 0, "metrics_port": 0}) as side:
        assert side.metrics_url is not None
        assert side.probe_url is not None
        for path in ("/livez", "/v1/models", "/nope"):
            assert_named(side.url + path)
            assert_named(side.probe_url + path)
        assert_named(side.metrics_url)


def test_while_vllm_is_imported() -> None:
    """Probes have one, and so have refusals."""
    with http_side({}, app=starting_app(state_of())) as side:
        for path in ("/livez", "/readyz", "/v1/models", "/v2/models/a/infer"):
            assert_named(side.url + path)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ([b"a"], "a"),
        ([b"a b", b"a"], "a"),
        ([b"a", b"b"], "a"),
        ([b"a" * 128], "a" * 128),
        ([b"a" * 129], None),
        ([b""], None),
        ([b"\xe9"], None),
        ([], None),
    ],
)
def test_the_only_one_among_the_headers(given: list[bytes], kept: str | None) -> None:
    """Whoever looks there later, as vLLM does, finds the one that comes back."""
    scope = {"headers": [(b"host", b"a"), *((HEADER.encode(), value) for value in given)]}
    id_ = request_id_of(scope)
    assert scope["headers"] == [(b"host", b"a"), (HEADER.encode(), id_)]
    assert (id_.decode() == kept) if kept else len(id_) == 32


def test_route_that_is_not_there_without_docs() -> None:
    """Where /docs is off, a 404 does not send anybody there."""
    with http_side({"docs": False}) as side:
        message = httpx.get(f"{side.url}/v1/nope").json()["error"]["message"]
    assert message == (
        "There is no route GET '/v1/nope'; OpenAI's begin with /v1/, Anthropic's with "
        "/v1/messages, KServe's with /v2/; mend the path."
    )


# --- over gRPC


class Refusing(KServe):
    """The v2 side, which keeps what it is asked."""

    def __init__(self, state: ServerState) -> None:
        super().__init__(state)
        self.asked: list[InferRequest] = []

    async def infer(self, request: InferRequest) -> AsyncGenerator[InferResponse, None]:
        """Refuse it, as the real one does while the engine starts."""
        self.asked.append(request)
        async for response in super().infer(request):
            yield response


@asynccontextmanager
async def grpc_side(service: KServe) -> AsyncIterator[Any]:
    """A connection to the gRPC side."""
    server = GrpcServer(service)
    port = await server.start(0)
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        await server.stop()


async def infer(channel: Any, id_: str, metadata: Any) -> Any:
    """A ModelInfer, which is refused."""
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    call = stub.ModelInfer(pb.ModelInferRequest(model_name="tiny", id=id_), metadata=metadata)
    assert await call.code() is grpc.StatusCode.UNAVAILABLE
    return await call.trailing_metadata()


def test_every_call() -> None:
    """Answers and refusals have it as trailing metadata, also those without a key."""

    async def ask(channel: Any, metadata: Any) -> list[Any]:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        health = health_pb2_grpc.HealthStub(channel)
        stream = stub.ModelStreamInfer(iter([pb.ModelInferRequest()]), metadata=metadata)
        calls = [
            stub.ServerLive(pb.ServerLiveRequest(), metadata=metadata),
            stub.ModelMetadata(pb.ModelMetadataRequest(name="tiny"), metadata=metadata),
            stub.TraceSetting(pb.TraceSettingRequest(), metadata=metadata),
            health.Check(health_pb2.HealthCheckRequest(), metadata=metadata),
            stub.ModelInfer(pb.ModelInferRequest(model_name="tiny"), metadata=metadata),
            stream,
        ]
        with contextlib.suppress(grpc.aio.AioRpcError):
            async for _ in stream:
                pass
        return [(await call.trailing_metadata())[HEADER] for call in calls]

    async def check(keys: KeyRing | None) -> None:
        async with grpc_side(KServe(state_of(keys))) as channel:
            assert set(await ask(channel, [(HEADER, "mine-1")])) == {"mine-1"}
            made = await ask(channel, [])
            assert len(set(made)) == len(made)
            assert all(made)

    asyncio.run(check(None))
    asyncio.run(check(KeyRing(None, {"GEMMA_SERVE_API_KEYS": "correct-horse"})))


def test_a_refused_inference_over_grpc() -> None:
    """It says when to come back, as before."""

    async def check() -> None:
        async with grpc_side(KServe(state_of())) as channel:
            trailing = await infer(channel, "", None)
            assert trailing["grpc-retry-pushback-ms"] == "5000"
            assert trailing[HEADER]

    asyncio.run(check())


@pytest.mark.parametrize(
    ("id_", "metadata", "named"),
    [
        ("", [], None),
        ("of the request", [], None),
        ("7", [], "7"),
        ("7", [(HEADER, "mine-1")], "mine-1"),
        ("", [(HEADER, "mine-1")], "mine-1"),
    ],
)
@pytest.mark.parametrize("streams", [False, True], ids=["alone", "in a stream"])
def test_one_id_in_answer_log_and_engine(
    id_: str,
    metadata: Any,
    named: str | None,
    streams: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A call's own id, or that of its request, or one that we make: the log's and the engine's."""
    service = Refusing(state_of())

    async def check() -> None:
        async with grpc_side(service) as channel:
            if not streams:
                answered = (await infer(channel, id_, metadata))[HEADER]
                assert answered == service.asked[0].request_id
                return
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            requests = [pb.ModelInferRequest(model_name="tiny", id=id_)]
            async for said in stub.ModelStreamInfer(iter(requests), metadata=metadata):
                assert said.error_message

    with caplog.at_level(logging.INFO, "gemma_serve.access"):
        asyncio.run(check())

    (line,) = [record for record in caplog.records if record.name == "gemma_serve.access"]
    (asked,) = service.asked
    assert line.fields["request_id"] == asked.request_id  # type: ignore[attr-defined]
    assert asked.request_id == named if named else len(asked.request_id) == 32
