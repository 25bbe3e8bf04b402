"""The id of a request: its client's, where that can do no harm, or a new one."""

from __future__ import annotations

import re
import uuid

from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER = "x-request-id"
# In a header, and in a line of the log.
HARMLESS = re.compile(r"[\x21-\x7e]{1,128}")


def harmless_id(*given: str) -> str:
    """The first of these that can be one, or a new one."""
    return next(filter(HARMLESS.fullmatch, given), None) or uuid.uuid4().hex


def request_id_of(scope: Scope) -> bytes:
    """The id of an HTTP request, from now on the only one in its headers, where vLLM looks."""
    name = HEADER.encode()
    given = [value for key, value in scope["headers"] if key == name]
    id_ = harmless_id(*(value.decode("latin-1") for value in given)).encode()
    if given != [id_]:
        others = [(key, value) for key, value in scope["headers"] if key != name]
        scope["headers"] = [*others, (name, id_)]
    return id_


def with_request_id(app: ASGIApp) -> ASGIApp:
    """The application with the id in each answer's head, where `observe.py` does not stand."""

    async def named(scope: Scope, receive: Receive, send: Send) -> None:
        id_ = request_id_of(scope)

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (HEADER.encode(), id_)]
            await send(message)

        await app(scope, receive, send_with_id)

    return named
