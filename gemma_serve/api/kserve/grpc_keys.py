"""API keys over gRPC: metadata of the same names as HTTP's headers."""

from __future__ import annotations

from typing import Any

import grpc

from gemma_serve.api.keys import Key, KeyRing
from gemma_serve.api.kserve.grpc_messages import SERVICE

# These answer without a key: an orchestrator has none.
OPEN_METHODS = frozenset(
    {
        f"/{SERVICE}/ServerLive",
        f"/{SERVICE}/ServerReady",
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/Watch",
    }
)
UNKNOWN_KEY = "No API key that is known was sent; send one as metadata 'authorization: Bearer KEY'."


class Authenticate(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """No answer without a key, except on the open methods."""

    def __init__(self, keys: KeyRing) -> None:
        self.keys = keys

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        """Pass the call on, or refuse it."""
        handler = await continuation(details)
        if details.method in OPEN_METHODS or find_key(self.keys, details.invocation_metadata):
            return handler

        async def refused(_request: Any, context: Any) -> Any:
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
