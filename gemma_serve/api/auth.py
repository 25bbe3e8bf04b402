"""API keys: read once at start, asked for on every route but the probes."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection, Mapping
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from gemma_serve.api.errors import error_response
from gemma_serve.errors import AuthenticationError, ProfileError

KEYS_VARIABLE = "GEMMA_SERVE_API_KEYS"


def read_keys(file: str | None, environ: Mapping[str, str]) -> frozenset[bytes]:
    """
    The SHA-256 of every configured key, from the environment and the file together.

    Raises:
        ProfileError: the file can't be read or holds no key: serving without keys then would be
            the opposite of what was asked for.
    """
    keys = [key.strip() for key in environ.get(KEYS_VARIABLE, "").split(",")]
    if file is not None:
        keys += _keys_in_file(Path(file).expanduser())
    return frozenset(hashlib.sha256(key.encode()).digest() for key in keys if key)


def _keys_in_file(path: Path) -> list[str]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise ProfileError(
            f"server.api_keys_file {str(path)!r} can't be read ({reason}); "
            "give a file with one key a line."
        ) from error
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise ProfileError(
            f"server.api_keys_file {str(path)!r} holds no key; write one key a line."
        )
    return keys


class Authenticate:
    """ASGI middleware: no answer without a key, except on the open paths."""

    def __init__(self, app: ASGIApp, keys: Collection[bytes], open_paths: Collection[str]) -> None:
        self.app, self.keys, self.open_paths = app, keys, open_paths

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
        key = _key_of(scope)
        return key is not None and self._known(key)

    def _known(self, key: bytes) -> bool:
        digest = hashlib.sha256(key).digest()
        # Every configured key is compared, so that the time does not tell which one was close.
        return bool(sum(hmac.compare_digest(digest, known) for known in self.keys))


def _key_of(scope: Scope) -> bytes | None:
    headers = dict(scope["headers"])
    scheme, _, token = bytes(headers.get(b"authorization", b"")).partition(b" ")
    if scheme.lower() == b"bearer" and token.strip():
        return token.strip()
    key = bytes(headers.get(b"x-api-key", b"")).strip()
    return key or None
