"""KServe v2 over HTTP with Triton's extensions: what a Triton client finds on port 8000."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Send

from gemma_serve.api.auth import KEY
from gemma_serve.api.budget import header_seconds
from gemma_serve.api.error_body import FAILED_STATUS, KSERVE_PREFIX, error_body
from gemma_serve.api.held import HOLD
from gemma_serve.api.kserve import describe
from gemma_serve.api.kserve.http_body import (
    HEADER_LENGTH,
    read_generate,
    read_index,
    read_infer,
    write_generate,
    write_infer,
)
from gemma_serve.api.kserve.service import (
    TRACE_HEADERS,
    InferRequest,
    InferResponse,
    KServe,
)
from gemma_serve.api.respond import prompt_header, server_state
from gemma_serve.engine.vllm import with_cancellation
from gemma_serve.errors import (
    GemmaServeError,
    MediaTypeError,
    PayloadTooLargeError,
    RequestError,
)
from gemma_serve.profile.schema import Limits

router = APIRouter(prefix=KSERVE_PREFIX, tags=["KServe v2"])
OPEN_PATHS = frozenset({"/v2/health/live", "/v2/health/ready"})
# Below this, compressing costs more than it saves.
MIN_COMPRESSED_BYTES = 1024
LOAD_REFUSED = (
    "One model is served, chosen by the profile; it can't be loaded or unloaded over the network."
)
MEMORY_REFUSED = "Shared memory is not served; send tensors in the request."


def service_of(request: Request) -> KServe:
    """The v2 side of the server that this request came to."""
    service: KServe = request.app.state.kserve
    return service


def limits_of(request: Request) -> Limits:
    """The limits of the server that this request came to."""
    return server_state(request).profile.limits


async def read_body(request: Request) -> bytes:
    """
    The body, decompressed; the limits of bodies hold for what comes out of it too.

    Raises:
        MediaTypeError: another compression than gzip and deflate.
        RequestError: the data is damaged, or the client left before it was whole.
        PayloadTooLargeError: it is larger than `limits.max_body_bytes`.
        UnavailableError: all bodies together have no room for it.
    """
    try:
        body = await request.body()
    except ClientDisconnect:
        # Nobody reads this, and an exception that no route knows would leave a stack in the log.
        raise RequestError("The client left before its body was whole.") from None
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "deflate"):
        raise MediaTypeError(
            f"The content encoding {encoding[:40]!r} is not known; use gzip, deflate or none."
        )
    data = _decompressed(body, encoding, server_state(request).max_body_bytes)
    request.scope[HOLD].add(len(data))
    return data


def _decompressed(body: bytes, encoding: str, max_bytes: int) -> bytes:
    # 15 is the largest window; 32 more accept gzip's and zlib's own header.
    inflate = zlib.decompressobj(15 + 32)
    try:
        data = inflate.decompress(body, max_bytes + 1)
    except zlib.error:
        raise RequestError(f"The body is not {encoding} data; send it whole.") from None
    if len(data) > max_bytes:
        raise PayloadTooLargeError(
            f"The body is larger than {max_bytes} bytes when decompressed, which is the most that "
            "this server takes (limits.max_body_bytes); send less."
        )
    if not inflate.eof:
        raise RequestError(f"The {encoding} data of the body ends too early; send it whole.")
    if inflate.unused_data:
        raise RequestError(
            f"After its {encoding} data the body has {len(inflate.unused_data)} more bytes, which "
            "are none of it; send the data alone, compressed as one piece."
        )
    return data


Body = Annotated[bytes, Depends(read_body)]

# --- the server


@router.get("/health/live", response_class=Response)
async def live(raw_request: Request) -> Response:
    """200 while this process can become or stay useful."""
    return Response(status_code=200 if server_state(raw_request).alive else 503)


@router.get("/health/ready", response_class=Response)
async def ready(raw_request: Request) -> Response:
    """200 while more requests are welcome."""
    return Response(status_code=200 if server_state(raw_request).welcoming else 503)


@router.get("")
async def server_metadata() -> Response:
    """Name, version and extensions."""
    return JSONResponse(describe.server_metadata())


@router.post("/repository/index")
async def repository_index(raw_request: Request, body: Body) -> Response:
    """The models that are served."""
    only_ready = read_index(body, limits_of(raw_request))
    return JSONResponse(service_of(raw_request).repository_index(ready=only_ready))


@router.post("/repository/models/{model:path}/load", include_in_schema=False)
@router.post("/repository/models/{model:path}/unload", include_in_schema=False)
async def load(model: str) -> Response:  # noqa: ARG001  # the path names it
    """Refused: the profile says what is served."""
    raise RequestError(LOAD_REFUSED, code="not_supported")


@router.api_route(
    "/systemsharedmemory/{verb:path}", methods=["GET", "POST"], include_in_schema=False
)
@router.api_route("/cudasharedmemory/{verb:path}", methods=["GET", "POST"], include_in_schema=False)
async def shared_memory(verb: str) -> Response:  # noqa: ARG001
    """Refused: clients would name regions of the server's memory."""
    raise RequestError(MEMORY_REFUSED, code="not_supported")


# --- the models: the longer path of two is matched first, which is the lower decorator, as a
# model's name may have slashes


@router.get("/models/stats")
async def all_statistics(raw_request: Request) -> Response:
    """Counts and durations of all models."""
    return JSONResponse(service_of(raw_request).model_statistics())


@router.get("/models/{model:path}/stats")
@router.get("/models/{model:path}/versions/{version}/stats")
async def statistics(raw_request: Request, model: str, version: str = "") -> Response:
    """Counts and durations of a model's requests."""
    return JSONResponse(service_of(raw_request).model_statistics(model, version))


@router.get("/models/{model:path}/config")
@router.get("/models/{model:path}/versions/{version}/config")
async def config(raw_request: Request, model: str, version: str = "") -> Response:
    """The model configuration."""
    return JSONResponse(service_of(raw_request).model_config(model, version))


@router.get("/models/{model:path}/ready", response_class=Response)
@router.get("/models/{model:path}/versions/{version}/ready", response_class=Response)
async def model_ready(raw_request: Request, model: str, version: str = "") -> Response:
    """200 while the model takes requests."""
    service_of(raw_request).check_model(model, version)
    return Response()


@router.get("/models/{model:path}")
@router.get("/models/{model:path}/versions/{version}")
async def metadata(raw_request: Request, model: str, version: str = "") -> Response:
    """The model's inputs and outputs."""
    return JSONResponse(service_of(raw_request).model_metadata(model, version))


@router.post("/models/{model:path}/infer")
@router.post("/models/{model:path}/versions/{version}/infer")
@with_cancellation
async def infer(raw_request: Request, body: Body, model: str, version: str = "") -> Response:
    """Answer with tensors; `stream: true` gets the whole answer too."""
    length = raw_request.headers.get(HEADER_LENGTH)
    request, binary = read_infer(body, length, model, version, limits_of(raw_request))
    data, head_bytes = write_infer(await _whole(raw_request, request), binary)
    headers = {} if head_bytes is None else {HEADER_LENGTH: str(head_bytes)}
    media_type = "application/json" if head_bytes is None else "application/octet-stream"
    return _compressed(raw_request, Response(data, headers=headers, media_type=media_type))


@router.post("/models/{model:path}/generate")
@router.post("/models/{model:path}/versions/{version}/generate")
@with_cancellation
async def generate(raw_request: Request, body: Body, model: str, version: str = "") -> Response:
    """Answer with one JSON object: inputs and outputs by name."""
    contract = service_of(raw_request).contract
    limits = limits_of(raw_request)
    request = read_generate(contract, body, model, version, limits, may_stream=False)
    data = write_generate(await _whole(raw_request, request))
    return _compressed(raw_request, Response(data, media_type="application/json"))


@router.post("/models/{model:path}/generate_stream")
@router.post("/models/{model:path}/versions/{version}/generate_stream")
@with_cancellation
async def generate_stream(
    raw_request: Request, body: Body, model: str, version: str = ""
) -> Response:
    """Answer with server-sent events, one JSON object each."""
    service = service_of(raw_request)
    limits = limits_of(raw_request)
    request = read_generate(service.contract, body, model, version, limits, may_stream=True)
    responses = service.infer(_traced(raw_request, request))
    # A refusal still gets its status: the head is sent after the first response.
    first = await anext(responses)
    return ResponseStream(raw_request, first, responses)


async def _whole(raw_request: Request, request: InferRequest) -> InferResponse:
    async with aclosing(service_of(raw_request).infer(_traced(raw_request, request))) as responses:
        return await anext(responses)


def _traced(raw_request: Request, request: InferRequest) -> InferRequest:
    headers = raw_request.headers
    traces = {name: headers[name] for name in TRACE_HEADERS if name in headers}
    return replace(
        request,
        request_id=headers.get("x-request-id", ""),
        trace_headers=traces,
        timeout_s=header_seconds(headers),
        key=raw_request.scope.get(KEY),
    )


def _compressed(raw_request: Request, response: Response) -> Response:
    """gzip or deflate where the client takes it and it pays."""
    response.headers.update(prompt_header())
    accepted = raw_request.headers.get("accept-encoding", "").lower()
    if len(response.body) < MIN_COMPRESSED_BYTES:
        return response
    for encoding, compress in (("gzip", gzip.compress), ("deflate", zlib.compress)):
        if _takes(accepted, encoding):
            response.body = compress(bytes(response.body))
            response.headers["content-length"] = str(len(response.body))
            response.headers["content-encoding"] = encoding
            break
    return response


def _takes(accepted: str, encoding: str) -> bool:
    """Whether an Accept-Encoding names a coding, with a weight above 0 if with one."""
    for one in accepted.replace(" ", "").split(","):
        name, _, weight = one.partition(";q=")
        if name == encoding:
            return not weight or weight.strip("0.") != ""
    return False


class ResponseStream(StreamingResponse):
    """Server-sent events of one inference, the first of which is already here."""

    def __init__(
        self, request: Request, first: InferResponse, rest: AsyncGenerator[InferResponse, None]
    ) -> None:
        super().__init__((), headers=prompt_header())
        self.headers["content-type"] = "text/event-stream; charset=utf-8"
        self.headers["cache-control"] = "no-cache"
        self.headers["x-accel-buffering"] = "no"  # nginx would hold events back
        self.request, self.first, self.rest = request, first, rest

    async def stream_response(self, send: Send) -> None:
        """Send the events as they come; a failure after the head is an event too."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async with aclosing(self.rest):
            await send(_event(write_generate(self.first)))
            try:
                async for response in self.rest:
                    await send(_event(write_generate(response)))
            except GemmaServeError as error:
                self.request.scope[FAILED_STATUS] = error.status
                await send(_event(json.dumps(error_body(error, KSERVE_PREFIX)).encode()))
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _event(data: bytes) -> dict[str, Any]:
    return {"type": "http.response.body", "body": b"data: " + data + b"\n\n", "more_body": True}
