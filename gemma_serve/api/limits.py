"""Limits that hold before a body is parsed: of one body, and of all that are held at a time."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gemma_serve.api.error_body import error_response
from gemma_serve.api.held import HOLD, HeldBytes, Hold
from gemma_serve.errors import GemmaServeError, PayloadTooLargeError


class LimitBody:
    """
    ASGI middleware: a body over the limit is 413, by its length or while it arrives.

    Args:
        app: What reads the bodies, and has let go of them when it returns.
        max_bytes: Of one body.
        held: What all bodies that are arriving or being answered are counted in.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, held: HeldBytes) -> None:
        self.app, self.max_bytes, self.held = app, max_bytes, held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if length.isdigit() and (refusal := self._refusal(int(length))):
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
            if received_bytes > self.max_bytes:
                raise self._too_large()
            hold.add(came_bytes)
            return message

        with Hold(self.held) as hold:
            scope[HOLD] = hold
            await self.app(scope, counted, send)

    def _refusal(self, body_bytes: int) -> GemmaServeError | None:
        """Why a body of this size, of which nothing has come yet, is not taken."""
        return self._too_large() if body_bytes > self.max_bytes else self.held.refusal(body_bytes)

    def _too_large(self) -> PayloadTooLargeError:
        return PayloadTooLargeError(
            f"The body is larger than {self.max_bytes} bytes; send less, "
            "or raise limits.max_body_bytes in the profile."
        )
