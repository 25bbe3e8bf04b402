"""Whose prompts share the prefix cache: an answer's time tells whether its prompt came before."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from contextvars import ContextVar

# Of this server's life alone, so that nobody who knows a key's name knows its salt.
_SECRET = secrets.token_bytes(32)
# The salt of the request at hand; None shares the cache.
cache_salt: ContextVar[str | None] = ContextVar("cache_salt", default=None)


def salt_of(tenant: str) -> str:
    """The salt of a key's owner, the same for each of their requests."""
    return hmac.new(_SECRET, tenant.encode(), hashlib.sha256).hexdigest()
