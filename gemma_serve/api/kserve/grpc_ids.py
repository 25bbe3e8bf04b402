"""The id of each gRPC call, which comes back as trailing metadata: `x-request-id`, as over HTTP."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from gemma_serve.api.request_id import HEADER, harmless_id

Answer = Callable[[Any, Any], Awaitable[Any]]


class NameCalls(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """The outermost, so that what another one refuses has an id too."""

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        """Have a method's answers named; health's Watch has no end that could be."""
        handler = await continuation(details)
        if handler is None or not (handler.unary_unary or handler.stream_stream):
            return handler
        id_ = harmless_id(str(dict(details.invocation_metadata or ()).get(HEADER, "")))
        if handler.unary_unary:
            return handler._replace(unary_unary=_named(handler.unary_unary, id_))
        return handler._replace(stream_stream=_named(handler.stream_stream, id_))


def _named(answer: Answer, id_: str) -> Answer:
    async def named(request: Any, context: Any) -> Any:
        name_call(context, id_)
        return await answer(request, context)

    return named


def name_call(context: Any, id_: str) -> None:
    """Have this id come back, in place of the one before."""
    context.set_trailing_metadata(((HEADER, id_),))
