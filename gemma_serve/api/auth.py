"""API keys: asked for on every route but the probes."""

from __future__ import annotations

from collections.abc import Collection

from starlette.types import ASGIApp, Receive, Scope, Send

from gemma_serve.api.error_body import error_response
from gemma_serve.api.keys import KeyRing
from gemma_serve.engine.cache_salt import cache_salt, salt_of
from gemma_serve.errors import AuthenticationError

# Where a request's scope carries the key that it came with.
KEY = "gemma_serve.key"


class Authenticate:
    """ASGI middleware: no answer without a key, except on the open paths."""

    def __init__(
        self, app: ASGIApp, keys: KeyRing, open_paths: Collection[str], *, separates: bool = True
    ) -> None:
        """
        Args:
            separates: Whether each key's name has a prefix cache of its own.
        """
        self.app, self.keys, self.open_paths = app, keys, open_paths
        self.separates = separates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._may_pass(scope):
            await self.app(scope, receive, send)
            return
        key = _key_of(scope)
        reason = "No API key was sent" if key is None else "The API key is not known"
        error = AuthenticationError(
            f"{reason}; send a configured one as 'Authorization: Bearer KEY' or 'x-api-key: KEY'."
        )
        await error_response(error, scope["path"])(scope, receive, send)

    def _may_pass(self, scope: Scope) -> bool:
        # The path as routed, never a URL put together from the Host header.
        if scope["path"] in self.open_paths or scope.get("gemma_serve.warm_up"):
            return True
        secret = _key_of(scope)
        scope[KEY] = found = None if secret is None else self.keys.find(secret)
        if found is not None and self.separates:
            cache_salt.set(salt_of(found.tenant))
        return found is not None


def _key_of(scope: Scope) -> bytes | None:
    headers = dict(scope["headers"])
    scheme, _, token = bytes(headers.get(b"authorization", b"")).partition(b" ")
    if scheme.lower() == b"bearer" and token.strip():
        return token.strip()
    key = bytes(headers.get(b"x-api-key", b"")).strip()
    return key or None
