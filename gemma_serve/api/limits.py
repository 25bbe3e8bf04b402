"""Limits that hold before a body is parsed: of one body, and of all that are held at a time."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gemma_serve.api.admission.refusals import bodies_full
from gemma_serve.api.error_body import error_response
from gemma_serve.errors import GemmaServeError, PayloadTooLargeError


class LimitBody:
    """
    ASGI middleware: a body over the limit is 413, by its length or while it arrives.

    Args:
        app: What reads the bodies, and has let go of them when it returns.
        max_bytes: Of one body.
        max_held_bytes: Of all bodies that are arriving or being answered; what is more is 503.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, max_held_bytes: int) -> None:
        self.app, self.max_bytes, self.max_held_bytes = app, max_bytes, max_held_bytes
        self.held_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if length.isdigit() and (refusal := self._refusal(int(length), int(length))):
            await error_response(refusal, scope["path"])(scope, receive, send)
            return
        await self._hold(scope, receive, send)

    async def _hold(self, scope: Scope, receive: Receive, send: Send) -> None:
        received_bytes = 0

        async def counted() -> Message:
            nonlocal received_bytes
            message = await receive()
            came_bytes = len(message.get("body", b""))
            received_bytes += came_bytes
            refusal = self._refusal(received_bytes, came_bytes)
            self.held_bytes += came_bytes
            if refusal:
                raise refusal
            return message

        try:
            await self.app(scope, counted, send)
        finally:
            self.held_bytes -= received_bytes

    def _refusal(self, body_bytes: int, more_bytes: int) -> GemmaServeError | None:
        """Why a body of this size is not taken, so many bytes of which are not held yet."""
        if body_bytes > self.max_bytes:
            return PayloadTooLargeError(
                f"The body is larger than {self.max_bytes} bytes; send less, "
                "or raise limits.max_body_bytes in the profile."
            )
        if more_bytes and self.held_bytes + more_bytes > self.max_held_bytes:
            return bodies_full(self.max_held_bytes)
        return None
