"""How a call of gRPC ends that is not answered: the status of each of our errors."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

import grpc

from gemma_serve.errors import GemmaServeError

MAX_MESSAGE_CHARS = 1024
CODES = {
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}


class NobodyReadsError(Exception):
    """A client has taken nothing of its stream for `limits.write_timeout_s`."""


def code_of(error: GemmaServeError) -> grpc.StatusCode:
    """The gRPC status of an error, by its HTTP status."""
    if error.status in CODES:
        return CODES[error.status]
    is_clients = error.status < 500
    return grpc.StatusCode.INVALID_ARGUMENT if is_clients else grpc.StatusCode.INTERNAL


async def answered(context: Any, work: Awaitable[Any]) -> Any:
    """Await the work; an error of ours becomes the call's status."""
    try:
        return await work
    except GemmaServeError as error:
        # Source: https://github.com/grpc/proposal/blob/master/A6-client-retries.md#pushback
        after_s = error.retry_after_s
        pushback = (("grpc-retry-pushback-ms", str(after_s * 1000)),) if after_s else ()
        metadata = (*(context.trailing_metadata() or ()), *pushback)
        await context.abort(code_of(error), error.message[:MAX_MESSAGE_CHARS], metadata)
