"""Bytes that are no protobuf message: the client's fault, which gRPC would call the server's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

UNREADABLE = (
    "The message is damaged, or a string in it is not UTF-8; send the protobuf of KServe v2."
)
Read = Callable[[bytes], Any]
Answer = Callable[[Any, Any], Awaitable[Any]]


class RefuseUnreadable(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """
    A call whose message can't be read is INVALID_ARGUMENT, and no stack in the log.

    In a stream such a message is None, so that its handler can refuse it and go on.
    """

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        """Have the messages of a method read with care."""
        handler = await continuation(details)
        if handler is None or not (handler.unary_unary or handler.stream_stream):
            return handler
        handler = handler._replace(request_deserializer=_or_none(handler.request_deserializer))
        if not handler.unary_unary:
            return handler
        return handler._replace(unary_unary=_refusing_none(handler.unary_unary))


def _or_none(read: Read) -> Read:
    def read_or_none(data: bytes) -> Any:
        try:
            return read(data)
        except DecodeError:
            return None

    return read_or_none


def _refusing_none(answer: Answer) -> Answer:
    async def answer_or_refuse(request: Any, context: Any) -> Any:
        if request is None:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, UNREADABLE)
        return await answer(request, context)

    return answer_or_refuse
